"""What a run folder holds that can be made again, and its removal."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.runs import RunFolder, living_holder
from workbench.base.store import describe_os_error

from .run_shelf import Run, size_of

_READ = "read through the model again when a decomposition needs them (answers would be sampled again only for a new vector)"
AGAIN = {
    "activations": ("vector", _READ),
    "without_system": ("vector", "read through the model again by `vectors compare` and `vectors layers`"),
    "positions": ("vector", "read through the model again by `vectors compare`"),
    "index": ("labels", "made again when features are labelled"),
}
"""Folders that can be made again: the stage that must be finished before they can go, and how they come back."""

KEPT = ("rollouts", "vector", "decomposition", "labels", "views", "audit", "falsify", "explained", "report")
"""What goes only when it is asked for by name."""


FRESH_SECONDS = 600.0
"""A half-written file that is younger may have a writer that holds no lock of the run (somebody who labels)."""


@dataclass(frozen=True)
class Part:
    """A part of a run folder that may be removed."""

    run: Path
    name: str
    paths: tuple[Path, ...]
    bytes: int
    again: str

    def row(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {"run": str(self.run), "part": self.name, "bytes": self.bytes, "again": self.again}


def removable(run: Run, also: tuple[str, ...] = ()) -> list[Part]:
    """The parts of a run that can be made again, and those asked for by name."""
    for name in also:
        if name not in KEPT:
            raise unknown_name("part of a run", name, KEPT)
    parts = [_part(run, name, how) for name, (stage, how) in AGAIN.items() if stage in run.stages]
    strays = tuple(path for path in run.folder.rglob(".*.part") if _is_left(path))
    parts.append(Part(run.folder, "leftovers", strays, sum(map(size_of, strays)), "half-written by a process that was killed"))
    parts += [_part(run, name, "asked for by name; the job makes it again, but no answer or label of a person") for name in also]
    return [part for part in parts if part.paths]


def _is_left(path: Path) -> bool:
    try:
        return path.is_file() and time.time() - path.lstat().st_mtime > FRESH_SECONDS
    except OSError:  # it went away meanwhile
        return False


def _part(run: Run, name: str, again: str) -> Part:
    names = ("report.html", "report.json") if name == "report" else (name,)
    paths = tuple(path for path in (run.folder / one for one in names) if path.exists() or path.is_symlink())
    return Part(run.folder, name, paths, sum(map(size_of, paths)), again)


def remove(run: Run, parts: list[Part]) -> None:
    """Remove parts of a run, under its lock; refuses a run that a living process works in."""
    if holder := living_holder(run.folder):
        raise WorkbenchError(f"the run folder {run.folder} is in use by {holder}", "a run that nobody works in", "wait for it")
    with RunFolder.open(run.folder, create=False):
        for path in (path for part in parts for path in part.paths):
            try:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            except OSError as error:
                raise describe_os_error(error, path, "remove") from error
