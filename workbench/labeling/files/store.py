"""Label files, one per feature: `feature_labels/<model>/<hook>/<feature>.yaml`, to be read and edited by hand.

What a program or an AI writes is `proposed`; the author kind `human` and the status `confirmed` are reserved for a person, and
writing them needs `annotator=True`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from workbench.base.errors import WorkbenchError
from workbench.base.store import atomic_write, make_folder
from workbench.labeling.evidence import REDISTRIBUTABLE, Context, FeatureEvidence
from workbench.labeling.files.record import (
    LabelRecord,
    Taxonomies,
    from_file,
    label_problem,
    to_document,
    to_yaml,
)
from workbench.labeling.files.yamlfile import parse_yaml_text, read_yaml_file
from workbench.labeling.labels import AUTHOR_KINDS, MAX_WORDS, STATUSES, UNCLEAR, FeatureLabel, LabelSet
from workbench.saes.registry import shelf_folders

__all__ = [
    "AUTHOR_KINDS",
    "Context",
    "FeatureEvidence",
    "FeatureLabel",
    "LabelSet",
    "MAX_WORDS",
    "REDISTRIBUTABLE",
    "STATUSES",
    "UNCLEAR",
    "label_folders",
    "load_label_file",
    "load_labels",
    "replace_labels",
    "save_label",
    "save_labels",
    "set_folder",
    "trait_categories",
]

FOLDER = "feature_labels"
MAX_FILE_BYTES = 12_000
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def label_folders() -> list[Path]:
    """Where labels are looked for, first come first served: WORKBENCH_SHELF, the checkout, the package, the cache."""
    return shelf_folders(FOLDER)


def set_folder(root: str | os.PathLike[str], sae_id: str) -> Path:
    """The folder of one SAE's labels under `root`. Raises WorkbenchError for an id that is not of the form a/b/c."""
    parts = sae_id.split("/")
    if not all(_PART.fullmatch(part) for part in parts):
        raise WorkbenchError(
            f"the SAE id {sae_id!r} cannot name a folder", "MODEL/HOOK", "give the SAE a plain id"
        )
    return Path(root).joinpath(*parts)


def load_label_file(path: str | os.PathLike[str], *, taxonomies: Taxonomies | None = None) -> LabelRecord:
    """The label in one file, with the SAE it belongs to. Raises WorkbenchError naming file, line, found and expected.

    `taxonomies` gives the category ids of a trait; by default the installed traits are asked.
    """
    file = read_yaml_file(Path(path))
    record = from_file(file, taxonomies or trait_categories())
    found = record.label.feature
    if file.path.stem != str(found):
        problem = f"feature {found} in a file named {file.path.name}"
        raise file.error(
            ("feature",), problem, f"feature {file.path.stem}", "rename the file or correct the number"
        )
    return record


def load_labels(
    sae_id: str, shelf: str | os.PathLike[str] | None = None, *, sae_hash: str | None = None
) -> LabelSet:
    """All labels of an SAE that can be found; an empty set when there are none.

    `shelf` is a folder like `feature_labels/`; without it every folder of `label_folders` is read and the first file of a feature
    wins. Labels whose hash is not `sae_hash` (by default: that of the first file) are left out with a warning.

    Raises:
        WorkbenchError: a damaged file (naming file and line).
    """
    roots = [Path(shelf)] if shelf is not None else label_folders()
    if shelf is not None and not roots[0].is_dir():
        raise WorkbenchError(f"{shelf} is not a folder", "a folder of label files", "check the path")
    labels: dict[int, FeatureLabel] = {}
    warnings: list[str] = []
    stale: list[str] = []
    taxonomies = trait_categories()
    for path in (path for root in roots for path in _files(set_folder(root, sae_id))):
        record = load_label_file(path, taxonomies=taxonomies)
        _check_owner(record, sae_id, path)
        sae_hash = sae_hash or record.sae_hash
        if record.sae_hash != sae_hash:
            stale.append(str(path))
        elif record.label.feature not in labels:
            labels[record.label.feature] = record.label
            warnings.extend(record.warnings)
    if stale:
        warnings.append(_stale_warning(stale, sae_id, sae_hash or ""))
    return LabelSet(
        sae_id, sae_hash or "", dict(sorted(labels.items())), warnings=tuple(dict.fromkeys(warnings))
    )


def save_label(
    label: FeatureLabel, sae_id: str, sae_hash: str, root: str | os.PathLike[str], *, annotator: bool = False
) -> Path:
    """Write one label under `root` (a folder like `feature_labels/`), atomically; returns the path of the file.

    Only text that may be passed on is written (`evidence.REDISTRIBUTABLE`); other contexts keep document and
    position. A file that would exceed 12 kB loses its weakest contexts.

    Raises:
        WorkbenchError: a wording, author, status or category that the file could not be read back with; a program that signs as a
            person or confirms; a person's file that a program would overwrite.
    """
    if not annotator:
        _refuse_signing_as_a_person(label)
    path = set_folder(root, sae_id) / f"{label.feature}.yaml"
    if not annotator and path.exists():
        _refuse_overwriting_a_person(path)
    text = _text_within_limit(to_document(label, sae_id, sae_hash))
    _refuse_unreadable(label, text, path)
    return atomic_write(path, text)


def save_labels(labels: LabelSet, root: str | os.PathLike[str], *, annotator: bool = False) -> list[Path]:
    """Write every label of the set under `root`; returns the paths."""
    return [save_label(item, labels.sae_id, labels.sae_hash, root, annotator=annotator) for item in labels]


def replace_labels(labels: LabelSet, root: Path) -> None:
    """Write the labels to a run's own copy of the label folder, and remove what an earlier run left there.

    Labels from the shelf are copied as they are, a person's too; what this run made may not overwrite a person's file.
    """
    make_folder(root)
    kept = {
        save_label(item, labels.sae_id, labels.sae_hash, root, annotator=item.origin == "shipped") for item in labels
    }
    for stale in set(root.rglob("*.yaml")) - kept:
        stale.unlink()


def _files(folder: Path) -> Iterator[Path]:
    numbered = (path for path in folder.glob("*.yaml") if path.stem.isdecimal()) if folder.is_dir() else ()
    yield from sorted(numbered, key=lambda path: int(path.stem))


def _check_owner(record: LabelRecord, sae_id: str, path: Path) -> None:
    if record.sae_id != sae_id:
        raise WorkbenchError(
            f"{path} is a label of the SAE {record.sae_id}",
            f"one of {sae_id}, by its folder",
            "move it to the right folder",
        )


def _stale_warning(stale: list[str], sae_id: str, sae_hash: str) -> str:
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


def _refuse_signing_as_a_person(label: FeatureLabel) -> None:
    signed = label.author.get("kind") == "human"
    if signed or label.status == "confirmed":
        found = "the author kind 'human'" if signed else "the status 'confirmed'"
        raise WorkbenchError(
            f"feature {label.feature}: a program would write {found}",
            "author kind 'model' or 'offline' and status 'proposed', 'disputed' or 'rejected'",
            "only a person confirms a label: edit the file by hand, or use the annotator",
        )


def _refuse_overwriting_a_person(path: Path) -> None:
    label = load_label_file(path).label
    if label.author["kind"] == "human" or label.status == "confirmed":
        raise WorkbenchError(
            f"{path} was written or confirmed by {label.author['name']}",
            "a label that no person has confirmed",
            "save under another folder, or remove that file by hand",
        )


def _text_within_limit(document: dict[str, Any]) -> str:
    text = to_yaml(document)
    while len(text.encode("utf-8")) > MAX_FILE_BYTES and document["evidence"]:
        contexts = max((document["evidence"]["top"], document["evidence"]["quantiles"]), key=len)
        if not contexts:
            break
        # `top` runs from strong to weak, `quantiles` from weak to strong: the weakest goes first.
        contexts.pop(-1 if contexts is document["evidence"]["top"] else 0)
        text = to_yaml(document)
    return text


def _refuse_unreadable(label: FeatureLabel, text: str, path: Path) -> None:
    """What cannot be read back is not written."""
    if problem := label_problem(label.label):
        raise WorkbenchError(
            f"feature {label.feature}: {problem}", f"one line of at most {MAX_WORDS} words", "shorten it"
        )
    from_file(parse_yaml_text(text, path), trait_categories())
