"""Whole folders of label files: checked for everything that is wrong with them at once, read, written."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.base.errors import WorkbenchError
from workbench.labeling.files.label_part import Taxonomies
from workbench.labeling.files.merge import Key, Records
from workbench.labeling.files.record import from_file, from_text, to_text
from workbench.labeling.files.store import misplaced_number, save_record, set_folder, trait_categories
from workbench.labeling.files.yamlfile import LabelFileError, YamlFile, read_yaml_file
from workbench.labeling.labels import FeatureRecord


@dataclass(frozen=True)
class Folder:
    """What a folder of label files holds: the readable records and their files, and every problem of the others."""

    root: Path
    records: Mapping[Key, FeatureRecord]
    paths: Mapping[Key, Path]
    problems: tuple[LabelFileError, ...]
    n_files: int

    def summary(self) -> dict[str, Any]:
        """{"folder", "n_files", "n_features", "n_labels", "saes", "statuses", "authors", "warnings", "problems"}."""
        labels = [label for record in self.records.values() for label in record.labels]
        warnings = dict.fromkeys(w for record in self.records.values() for w in record.warnings)
        return {
            "folder": str(self.root),
            "n_files": self.n_files,
            "n_features": len(self.records),
            "n_labels": len(labels),
            "saes": dict(Counter(sae for sae, _ in self.records)),
            "statuses": dict(Counter(label.status for label in labels)),
            "authors": dict(Counter(str(label.author.get("kind")) for label in labels)),
            "warnings": list(warnings),
            "problems": [problem.row() for problem in self.problems],
        }


def check_folder(root: str | os.PathLike[str]) -> Folder:
    """Read every label file under `root`, a folder like `feature_labels/` or one of its parts, and keep all problems.

    Besides damaged files: a file in the folder of another SAE, weights that differ from those of the files beside it, a YAML file
    that is named after no feature, and links.

    Raises:
        WorkbenchError: `root` is not a folder.
    """
    top = _folder(root)
    problems: list[LabelFileError] = _links(top)
    taxonomies = trait_categories()
    found: dict[Key, tuple[Path, FeatureRecord]] = {}
    paths = _yaml_files(top)
    for path in paths:
        try:
            record = _checked(path, taxonomies, problems)
            if record is not None:
                _refuse_second(path, record, found)
                found[record.sae_id, record.feature] = (path, record)
        except LabelFileError as error:
            problems.append(error)
    problems.extend(_mixed_weights(found.values()))
    ordered = sorted(problems, key=lambda problem: (str(problem.path), problem.line or 0))
    records = {key: found[key][1] for key in sorted(found)}
    return Folder(top, records, {key: found[key][0] for key in records}, tuple(ordered), len(paths))


def read_folder(root: str | os.PathLike[str]) -> Records:
    """The records of every label file under `root`.

    Raises:
        WorkbenchError: the first problem that `check_folder` finds.
    """
    found = check_folder(root)
    if found.problems:
        raise found.problems[0]
    return found.records


def write_records(records: Records, root: str | os.PathLike[str]) -> list[Path]:
    """Write the records under `root`; nothing is written unless all of them can be read back.

    Raises:
        WorkbenchError: a record that could not be read back.
    """
    taxonomies = trait_categories()
    for record in records.values():
        from_text(to_text(record), set_folder(root, record.sae_id) / f"{record.feature}.yaml", taxonomies)
    return [save_record(record, root) for record in records.values()]


def root_above(folder: Path, sae_id: str) -> Path:
    """The root of label folders that `folder` is or lies in: the folder above MODEL/HOOK where it ends in parts of that."""
    parts = sae_id.split("/")
    place = folder.resolve()
    for depth in range(len(parts), 0, -1):
        if list(place.parts[-depth:]) == parts[:depth]:
            return place.parents[depth - 1]
    return folder


# ---------------------------------------------------------------------------------------------------- one file


def _checked(path: Path, taxonomies: Taxonomies, problems: list[LabelFileError]) -> FeatureRecord | None:
    """The record in a file, or None after its problems were added."""
    if path.suffix != ".yaml" or not path.stem.isdecimal():
        found = "a YAML file that is named after no feature"
        raise LabelFileError(path, None, found, "a name such as 17.yaml", "rename it, or move it out of the folder")
    file = read_yaml_file(path)
    own: list[LabelFileError] = []
    record = from_file(file, taxonomies, problems=own)
    if not own:
        own = [problem for problem in (misplaced_number(file, record), _misplaced_folder(file, record)) if problem]
    problems.extend(own)
    return None if own else record


def _misplaced_folder(file: YamlFile, record: FeatureRecord) -> LabelFileError | None:
    parts = record.sae_id.split("/")
    if list(file.path.absolute().parent.parts[-len(parts) :]) == parts:
        return None
    found = f"labels of the SAE {record.sae_id} in the folder {file.path.parent}"
    return file.error(("sae", "id"), found, f"a folder {record.sae_id}", "move the file, or correct the id")


def _refuse_second(path: Path, record: FeatureRecord, found: Mapping[Key, tuple[Path, FeatureRecord]]) -> None:
    known = found.get((record.sae_id, record.feature))
    if known is not None:
        expected = f"one file for feature {record.feature} of {record.sae_id}"
        remedy = "check or merge the two folders one by one: `workbench labels merge`"
        raise LabelFileError(path, None, f"labels of a feature that {known[0]} is about", expected, remedy)


def _mixed_weights(found: Iterable[tuple[Path, FeatureRecord]]) -> Iterator[LabelFileError]:
    first: dict[str, tuple[Path, FeatureRecord]] = {}
    for path, record in found:
        known_path, known = first.setdefault(record.sae_id, (path, record))
        if record.sae_hash != known.sae_hash:
            said = f"labels for the weights {record.sae_hash[:12]}"
            expected = f"those of {known_path.name} beside it, {known.sae_hash[:12]}"
            remedy = "feature numbers mean nothing across SAEs: move the file to a folder of its own"
            yield read_yaml_file(path).error(("sae", "weights_hash"), said, expected, remedy)


def _folder(root: str | os.PathLike[str]) -> Path:
    top = Path(root)
    if not top.is_dir():
        raise WorkbenchError(f"{top} is not a folder", "a folder of label files", "check the path")
    return top


def _yaml_files(top: Path) -> list[Path]:
    return sorted(
        (path for path in top.rglob("*") if path.suffix in (".yaml", ".yml") and not path.name.startswith(".")),
        key=lambda path: (path.parent, len(path.stem), path.stem),
    )


def _links(top: Path) -> list[LabelFileError]:
    linked = (path for path in top.rglob("*") if path.is_symlink() and path.is_dir())
    remedy = "put a copy of what it points to in its place"
    return [LabelFileError(path, None, "a symbolic link", "a folder of its own", remedy) for path in sorted(linked)]
