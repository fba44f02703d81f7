"""Label files of earlier schemas, rewritten in the present one."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workbench.base.errors import WorkbenchError
from workbench.base.store import atomic_write, read_text
from workbench.labeling.files.folders import check_folder
from workbench.labeling.files.locking import parents, writing
from workbench.labeling.files.record import SCHEMA, from_text, to_text
from workbench.labeling.files.store import trait_categories
from workbench.labeling.files.yamlfile import read_yaml_file
from workbench.labeling.labels import FeatureRecord


@dataclass(frozen=True)
class Migration:
    """One file of an earlier schema: its text as it stands, and as it would stand."""

    path: Path
    before: str
    after: str

    def diff(self) -> str:
        """A unified diff, as `diff -u` writes it."""
        lines = (text.splitlines(keepends=True) for text in (self.before, self.after))
        return "".join(difflib.unified_diff(*lines, fromfile=str(self.path), tofile=str(self.path)))

    def row(self) -> dict[str, Any]:
        """{"file", "diff"}."""
        return {"file": str(self.path), "diff": self.diff()}


def migrations(root: str | os.PathLike[str], *, date_of: Callable[[Path], str] | None = None) -> list[Migration]:
    """What has to be rewritten under `root`, in order of the files; nothing is written.

    Schema 1 knew no dates: `date_of` may tell when a file was written ("" for not known). The evidence of the file is taken for
    the one that the label's author read.

    Raises:
        WorkbenchError: the first problem of the folder.
    """
    found = check_folder(root)
    if found.problems:
        raise found.problems[0]
    paths = {path: key for key, path in found.paths.items()}
    result = []
    for path in sorted(paths, key=lambda path: (path.parent, len(path.stem), path.stem)):
        if read_yaml_file(path).data["schema"] != SCHEMA:
            record = _with_date(found.records[paths[path]], "" if date_of is None else date_of(path))
            after = to_text(record)
            from_text(after, path, trait_categories())
            result.append(Migration(path, read_text(path), after))
    return result


def migrate(changes: list[Migration]) -> None:
    """Write them, each file in one step.

    Raises:
        WorkbenchError: one of them has changed since `migrations` read it; then none is written.
    """
    with writing(*parents(change.path for change in changes)):
        for change in changes:
            if read_text(change.path) != change.before:
                found = f"{change.path} has changed since it was read"
                raise WorkbenchError(found, "files that nobody else writes to meanwhile", "migrate again")
        for change in changes:
            atomic_write(change.path, change.after)


def _with_date(record: FeatureRecord, date: str) -> FeatureRecord:
    read = "" if record.evidence is None else record.evidence.hash
    labels = (replace(label, date=label.date or date, evidence_hash=label.evidence_hash or read) for label in record.labels)
    return replace(record, labels=tuple(labels))
