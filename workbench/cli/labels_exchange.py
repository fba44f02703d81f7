"""The work behind `workbench labels merge | import | export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def run_merge(ours: Path, theirs: Path, base: Path | None, out: Path | None) -> dict[str, Any]:
    """What merging changes in `ours`, and its conflicts; the result is written to `out` if that is given."""
    from workbench.labeling.files.differences import diff
    from workbench.labeling.files.folders import read_folder
    from workbench.labeling.files.merge import merge

    mine = read_folder(ours)
    merged = merge(mine, read_folder(theirs), None if base is None else read_folder(base))
    if out is not None:
        _write_merged(merged.records, mine, ours, out)
    changes = [change.row() for change in diff(mine, merged.records)]
    return {
        "ours": str(ours),
        "theirs": str(theirs),
        "out": None if out is None else str(out),
        "n_features": len(merged.records),
        **{kind: sum(row["change"] == kind for row in changes) for kind in ("added", "removed", "changed")},
        "changes": changes,
        "conflicts": [conflict.row() for conflict in merged.conflicts],
    }


def _write_merged(records: Any, mine: Any, ours: Path, out: Path) -> None:
    """The merged records in `out`: the folder `ours` itself, or one without label files."""
    from workbench.base.errors import WorkbenchError
    from workbench.labeling.files.folders import check_folder, write_records
    from workbench.labeling.files.store import set_folder

    in_place = out.resolve() == ours.resolve()
    if not in_place and out.is_dir() and check_folder(out).n_files:
        remedy = f"choose another folder, or {ours} itself, or remove what is in it"
        raise WorkbenchError(f"{out} has label files already", "an empty folder, or the first of the two that are merged", remedy)
    write_records(records, out)
    for sae_id, feature in (key for key in mine if in_place and key not in records):
        (set_folder(out, sae_id) / f"{feature}.yaml").unlink(missing_ok=True)
