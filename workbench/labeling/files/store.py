"""Label files, one per feature: `feature_labels/<model>/<hook>/<feature>.yaml`, to be read and edited by hand.

A file holds the labels of everyone who wrote one. What a program or an AI writes is `proposed`; the author kind `human` and the
status `confirmed` are reserved for a person, and writing them needs `annotator=True`. No program replaces what a person said.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from workbench.base.errors import WorkbenchError
from workbench.base.store import atomic_write, make_folder
from workbench.labeling.evidence import REDISTRIBUTABLE, Context, FeatureEvidence
from workbench.labeling.files.label_part import Taxonomies, label_problem
from workbench.labeling.files.locking import parents, writing
from workbench.labeling.files.record import from_file, from_text, to_text
from workbench.labeling.files.yamlfile import LabelFileError, YamlFile, read_yaml_file
from workbench.labeling.labels import (
    AUTHOR_KINDS,
    MAX_WORDS,
    STATUSES,
    UNCLEAR,
    FeatureLabel,
    FeatureRecord,
    LabelSet,
    fuller,
    is_a_persons,
    utc_now,
)
from workbench.saes.registry import shelf_folders

__all__ = [
    "AUTHOR_KINDS",
    "Context",
    "FeatureEvidence",
    "FeatureLabel",
    "FeatureRecord",
    "LabelSet",
    "MAX_WORDS",
    "REDISTRIBUTABLE",
    "STATUSES",
    "UNCLEAR",
    "is_a_persons",
    "label_files",
    "label_folders",
    "load_label_file",
    "load_labels",
    "replace_labels",
    "save_label",
    "save_labels",
    "save_record",
    "set_folder",
    "trait_categories",
]

FOLDER = "feature_labels"
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def label_folders() -> list[Path]:
    """Where labels are looked for, first come first served: WORKBENCH_SHELF, the checkout, the package, the cache."""
    return shelf_folders(FOLDER)


def set_folder(root: str | os.PathLike[str], sae_id: str) -> Path:
    """The folder of one SAE's labels under `root`.

    Raises:
        WorkbenchError: an id that is not of the form a/b/c; a symbolic link on the way from `root`.
    """
    parts = sae_id.split("/")
    if not all(_PART.fullmatch(part) for part in parts):
        raise WorkbenchError(
            f"the SAE id {sae_id!r} cannot name a folder", "MODEL/HOOK", "give the SAE a plain id"
        )
    folder = Path(root)
    for part in parts:
        folder = folder / part
        if folder.is_symlink():
            raise WorkbenchError(f"{folder} is a symbolic link", "a folder of its own", "put a copy in its place")
    return folder


def label_files(folder: Path) -> list[Path]:
    """The label files in the folder of one SAE, in order of the feature."""
    numbered = [path for path in folder.glob("*.yaml") if path.stem.isdecimal()] if folder.is_dir() else []
    return sorted(numbered, key=lambda path: (int(path.stem), path.stem))


# ---------------------------------------------------------------------------------------------------- reading


def load_label_file(path: str | os.PathLike[str], *, taxonomies: Taxonomies | None = None) -> FeatureRecord:
    """All labels in one file, with the SAE they belong to. Raises WorkbenchError naming file, line, found and expected.

    `taxonomies` gives the category ids of a trait; by default the installed traits are asked.
    """
    file = read_yaml_file(Path(path))
    record = from_file(file, taxonomies or trait_categories())
    if error := misplaced_number(file, record):
        raise error
    return record


def misplaced_number(file: YamlFile, record: FeatureRecord) -> LabelFileError | None:
    """The problem of a file whose name is not its feature."""
    if file.path.stem == str(record.feature):
        return None
    found = f"feature {record.feature} in a file named {file.path.name}"
    return file.error(("feature",), found, f"feature {file.path.stem}", "rename the file or correct the number")


def load_labels(
    sae_id: str,
    shelf: str | os.PathLike[str] | None = None,
    *,
    sae_hash: str | None = None,
    features: Iterable[int] | None = None,
) -> LabelSet:
    """The labels of an SAE that can be found, one for each feature (of `features` alone, if given); an empty set when there are
    none.

    Where a feature has several labels, the one that counts (`labels.precedence`) is in `labels` and all are in `records`; a
    feature whose labels were all rejected is in `records` alone. `shelf` is a folder like `feature_labels/`; without it every
    folder of `label_folders` is read and the first file of a feature wins. Labels whose hash is not `sae_hash` (by default: that
    of the first file) are left out with a warning.

    Raises:
        WorkbenchError: a damaged file (naming file and line).
    """
    roots = [Path(shelf)] if shelf is not None else label_folders()
    if shelf is not None and not roots[0].is_dir():
        raise WorkbenchError(f"{shelf} is not a folder", "a folder of label files", "check the path")
    records: dict[int, FeatureRecord] = {}
    stale: list[Path] = []
    taxonomies = trait_categories()
    wanted = None if features is None else set(map(int, features))
    for path in (path for root in roots for path in label_files(set_folder(root, sae_id))):
        if wanted is not None and int(path.stem) not in wanted:
            continue
        record = load_label_file(path, taxonomies=taxonomies)
        _check_owner(record, sae_id, path)
        sae_hash = sae_hash or record.sae_hash
        if record.sae_hash != sae_hash:
            stale.append(path)
        else:
            records.setdefault(record.feature, record)
    return _label_set(sae_id, sae_hash or "", records, stale)


def _label_set(sae_id: str, sae_hash: str, records: dict[int, FeatureRecord], stale: list[Path]) -> LabelSet:
    ordered = dict(sorted(records.items()))
    warnings = [warning for record in ordered.values() for warning in record.warnings]
    if stale:
        warnings.append(_stale_warning(stale, sae_id, sae_hash))
    labels = {feature: label for feature, record in ordered.items() if (label := record.label) is not None}
    return LabelSet(sae_id, sae_hash, labels, warnings=tuple(dict.fromkeys(warnings)), records=ordered)


def _check_owner(record: FeatureRecord, sae_id: str, path: Path) -> None:
    if record.sae_id != sae_id:
        raise WorkbenchError(
            f"{path} is a label of the SAE {record.sae_id}",
            f"one of {sae_id}, by its folder",
            "move it to the right folder",
        )


def _stale_warning(stale: list[Path], sae_id: str, sae_hash: str) -> str:
    return (
        f"{len(stale)} label files of {sae_id} were left out: they were written for other weights than {sae_hash[:12]} "
        f"({stale[0]}{', ...' if len(stale) > 1 else ''})"
    )


def trait_categories() -> Taxonomies:
    """The category ids of an installed trait, None for an unknown one; a trait file is read again only when it has changed."""
    from workbench.personas.traits import list_traits, trait_path

    names = set(list_traits())

    def categories(trait: str) -> tuple[str, ...] | None:
        if trait not in names:
            return None
        folder = trait_path(trait)
        return _category_ids(str(folder), (folder / "trait.yaml").stat().st_mtime_ns)

    return categories


@lru_cache(maxsize=64)
def _category_ids(folder: str, changed: int) -> tuple[str, ...]:
    from workbench.personas.traits import load_trait

    return tuple(category.id for category in load_trait(folder).taxonomy)


# ---------------------------------------------------------------------------------------------------- writing


def save_label(
    label: FeatureLabel, sae_id: str, sae_hash: str, root: str | os.PathLike[str], *, annotator: bool = False
) -> Path:
    """Write one label under `root` (a folder like `feature_labels/`), atomically; returns the path of the file.

    It takes the place of what its author said of the feature before; the labels of others stay. A label that this run made and
    that has no date gets today's. Only text that may be passed on is written (`evidence.REDISTRIBUTABLE`); other contexts keep
    document and position. Evidence of more than 12 kB loses its weakest contexts.

    Raises:
        WorkbenchError: a wording, author, status or category that the file could not be read back with; a program that signs as a
            person or confirms, or that would replace a label that a person confirmed; a file for other weights.
    """
    path = set_folder(root, sae_id) / f"{label.feature}.yaml"
    if not annotator:
        _refuse_signing_as_a_person(label)
    with writing(path.parent):
        known = load_label_file(path) if path.exists() else None
        if known is not None:
            _refuse_other_weights(known, sae_hash, path)
        others = () if known is None else known.labels
        own = [item for item in others if item.author == label.author]
        if not annotator:
            _refuse_replacing_a_person(own, path)
        kept = tuple(item for item in others if item.author != label.author)
        evidence = fuller(label.evidence, None if known is None else known.evidence)
        record = FeatureRecord(sae_id, sae_hash, label.feature, (_dated(label, own), *kept), evidence)
        return _write(record, path)


def save_labels(labels: LabelSet, root: str | os.PathLike[str], *, annotator: bool = False) -> list[Path]:
    """Write every label of the set under `root` with `save_label`; returns the paths.

    Raises:
        WorkbenchError: some could not be written, in words of the first; all others were.
    """
    paths, refused = [], []
    for item in labels:
        try:
            paths.append(save_label(item, labels.sae_id, labels.sae_hash, root, annotator=annotator))
        except WorkbenchError as error:
            refused.append(error)
    if refused:
        found = f"{len(refused)} of {len(labels)} labels were not written, the first because {refused[0].found}"
        raise WorkbenchError(found, refused[0].expected, refused[0].remedy)
    return paths


def save_record(record: FeatureRecord, root: str | os.PathLike[str]) -> Path:
    """Write a feature's file as `record` says, whatever stood there; returns its path. For merging, importing and migrating.

    Who read the file before holds `locking.writing` from then on: what somebody else wrote meanwhile would be lost.

    Raises:
        WorkbenchError: what the file could not be read back with.
    """
    path = set_folder(root, record.sae_id) / f"{record.feature}.yaml"
    with writing(path.parent):
        return _write(record, path)


def replace_labels(labels: LabelSet, root: Path) -> None:
    """Make a run's own copy of the label folder say what `labels` says, and remove what an earlier run left there.

    The files hold the one label of each feature that the run went by. What a person wrote or confirmed in that copy stays.

    Raises:
        WorkbenchError: a damaged file in that copy, by file and line; a program that signs as a person or confirms.
    """
    make_folder(root)
    folders = {set_folder(root, labels.sae_id)} if len(labels) else set()
    with writing(*folders, *parents(root.rglob("*.yaml"))):
        kept = {_replace_label(item, labels.sae_id, labels.sae_hash, root) for item in labels}
        for stale in set(root.rglob("*.yaml")) - kept:
            if not any(map(is_a_persons, _labels_for(stale, labels.sae_hash))):
                stale.unlink()


def _replace_label(label: FeatureLabel, sae_id: str, sae_hash: str, root: Path) -> Path:
    if label.origin != "shipped":
        _refuse_signing_as_a_person(label)
    path = set_folder(root, sae_id) / f"{label.feature}.yaml"
    before = _labels_for(path, sae_hash) if path.exists() else ()
    own = [item for item in before if item.author == label.author]
    people = [item for item in before if is_a_persons(item)]
    if is_a_persons(label):  # from the shelf: a newer word of the same person
        people = [item for item in people if item.author != label.author or item.date >= label.date]
    said = [] if any(item.author == label.author for item in people) else [_dated(label, own)]
    return _write(FeatureRecord(sae_id, sae_hash, label.feature, (*said, *people), label.evidence), path)


def _labels_for(path: Path, sae_hash: str) -> tuple[FeatureLabel, ...]:
    """The labels in a file of these weights; a damaged file may hold a person's words, so it is refused, not replaced."""
    record = load_label_file(path)
    return record.labels if record.sae_hash == sae_hash else ()


def _dated(label: FeatureLabel, before: Iterable[FeatureLabel]) -> FeatureLabel:
    """The label with today's date if it has none; its author's date where the same was said before."""
    if label.date or label.origin != "made":
        return label
    same = (item.date for item in before if (item.label, item.status) == (label.label, label.status) and item.date)
    return replace(label, date=next(same, None) or utc_now())


def _write(record: FeatureRecord, path: Path) -> Path:
    for label in record.labels:
        if problem := label_problem(label.label):
            expected = f"one line of at most {MAX_WORDS} words"
            raise WorkbenchError(f"feature {record.feature}: {problem}", expected, "shorten it")
    text = to_text(record)
    from_text(text, path, trait_categories())  # what cannot be read back is not written
    return atomic_write(path, text)


def _refuse_signing_as_a_person(label: FeatureLabel) -> None:
    signed = label.author.get("kind") == "human"
    if signed or label.status == "confirmed":
        found = "the author kind 'human'" if signed else "the status 'confirmed'"
        raise WorkbenchError(
            f"feature {label.feature}: a program would write {found}",
            "author kind 'model' or 'offline' and status 'proposed', 'disputed' or 'rejected'",
            "only a person confirms a label: edit the file by hand, or use the annotator",
        )


def _refuse_replacing_a_person(own: Iterable[FeatureLabel], path: Path) -> None:
    for label in own:
        if is_a_persons(label):
            raise WorkbenchError(
                f"{path} has a label of {label.author['name']} that a person confirmed",
                "a label that no person has confirmed",
                "sign with another name, save under another folder, or remove that label by hand",
            )


def _refuse_other_weights(known: FeatureRecord, sae_hash: str, path: Path) -> None:
    if known.sae_hash != sae_hash:
        raise WorkbenchError(
            f"{path} holds labels for the weights {known.sae_hash[:12]}",
            f"labels for the weights {sae_hash[:12]}: feature numbers mean nothing across SAEs",
            "save under another folder, or remove that file",
        )
