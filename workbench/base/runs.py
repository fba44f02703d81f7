"""Run folders: one folder per run, one process at a time, a manifest that says which stages are done and with what.

Layout: `manifest.json` (schema, stages), `.lock` and `.holder.json` while a process works in it, and the stages' own
files. A stage is done when the manifest holds its key; the key is a content hash of all that the stage depends on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .errors import WorkbenchError
from .locks import exclusive
from .store import PathLike, make_folder, read_json, write_json

SCHEMA = 1
MANIFEST, LOCK, HOLDER = "manifest.json", ".lock", ".holder.json"


def default_run_folder(trait: str, model_name: str) -> Path:
    """`runs/<trait>-<model>` under the working folder; of a path to a model (or to an adapter, behind a +), its last part."""
    parts = [model_name] if Path(model_name).exists() else model_name.split("+", 1)
    return Path("runs") / f"{_last_part(trait)}-{'+'.join(map(_last_part, parts))}"


def _last_part(name: str) -> str:
    return name.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1] or "run"


class RunFolder:
    """An open run folder: its path, its manifest, and the marks of finished stages. Made by `RunFolder.open`."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: PathLike, *, create: bool = True) -> Iterator[RunFolder]:
        """The run folder at `path`, locked against other processes until the block ends.

        Raises WorkbenchError if it cannot be made, if another process holds it (naming process, host and time),
        if the manifest is corrupt or written by a newer version, or, with create=False, if it does not exist.
        """
        folder = Path(path)
        if not create and not (folder / MANIFEST).exists():
            raise WorkbenchError(f"{folder} is not a run folder", f"a folder with a {MANIFEST}", "check --out")
        make_folder(folder)
        with _locked(folder):
            yield cls(folder, read_manifest(folder / MANIFEST))

    def is_done(self, stage: str, key: str) -> bool:
        """Whether `stage` was finished with this very key."""
        return self.manifest["stages"].get(stage, {}).get("key") == key

    def is_whole(self, stage: str, *, editable: bool = False) -> bool:
        """Whether the files of a finished stage are there and, unless people may edit them, as long as they were; so are its
        `parts`, or none is there (cleaned away)."""
        info = self.info(stage)
        files, sizes = info.get("files", ()), info.get("sizes", {})
        paths = {name: self.path / name for name in {*files, *sizes}}
        there = {name for name, path in paths.items() if path.exists()}
        parts = paths.keys() - set(files)
        cut = [name for name in there & sizes.keys() if paths[name].stat().st_size != sizes[name]]
        return there >= set(files) and (not there & parts or there >= parts) and (editable or not cut)

    def mark_done(self, stage: str, key: str, **info: Any) -> None:
        """Record that `stage` is finished with `key`; `info` (JSON values) is kept beside it, with the sizes of its `files` and
        of the `parts` that it can do without."""
        names = [*info.get("files", ()), *info.pop("parts", ())]  # a part's name is kept with its size alone
        sizes = {name: file.stat().st_size for name in names if (file := self.path / name).is_file()}
        entry = {"key": key, "finished": datetime.now(UTC).isoformat(timespec="seconds"), **info, "sizes": sizes}
        stages = {**self.manifest["stages"], stage: entry}
        # The file first: if it cannot be written, the object must not claim that the stage is done.
        changed = {**self.manifest, "stages": stages}
        write_json(self.path / MANIFEST, changed)
        self.manifest = changed

    def note(self, **entries: Any) -> None:
        """Write `entries` (JSON values) into the manifest, beside its stages."""
        changed = {**self.manifest, **entries}
        write_json(self.path / MANIFEST, changed)
        self.manifest = changed

    def info(self, stage: str) -> dict[str, Any]:
        """What was recorded with a finished stage (empty when it is not done)."""
        return dict(self.manifest["stages"].get(stage, {}))


def read_manifest(path: Path) -> dict[str, Any]:
    """The checked manifest at `path`, a fresh one when there is no file; a corrupt or newer one is a WorkbenchError."""
    if not path.exists():
        return {"schema": SCHEMA, "stages": {}}
    manifest = read_json(path)
    stages = manifest.get("stages") if isinstance(manifest, dict) else None
    if not isinstance(stages, dict) or not all(isinstance(one, dict) for one in stages.values()):
        raise WorkbenchError(f"{path} is not a run manifest", 'an object with "stages"', "delete it to start afresh")
    for name, one in stages.items():
        files, sizes = one.get("files", []), one.get("sizes", {})
        listed = isinstance(files, list) and isinstance(sizes, dict) and all(type(size) is int for size in sizes.values())
        if not listed or not all(isinstance(file, str) for file in files):
            raise WorkbenchError(f"{path} lists no files of the stage {name!r}", '"files", names, and "sizes", bytes by name',
                                 "delete it to start afresh")  # fmt: skip
    if type(manifest.get("schema", 0)) is not int:
        raise WorkbenchError(f"{path} has the schema {manifest['schema']!r}", "a whole number", "delete it to start afresh")
    if manifest.get("schema", 0) > SCHEMA:
        raise WorkbenchError(
            f"{path} has schema {manifest['schema']}", f"schema {SCHEMA} or older", "install a newer persona-workbench"
        )
    return manifest


def living_holder(folder: Path) -> str | None:
    """Who works in a run folder now ("process 17 on host since ..."), None when nobody does; creates nothing.

    A note that a killed process left behind does not count where its process can be looked for, on this machine.
    """
    import os
    import platform

    try:
        note = read_json(folder / HOLDER)
        if note["host"] == platform.node():
            os.kill(int(note["pid"]), 0)
    except PermissionError:  # it lives, and is somebody else's
        pass
    except (WorkbenchError, KeyError, TypeError, ValueError, OSError):
        return None
    return f"process {note['pid']} on {note['host']} since {note.get('since')}"


def _locked(folder: Path) -> contextlib.AbstractContextManager[None]:
    def busy(who: str) -> WorkbenchError:
        remedy = "wait for it, or choose another --out"
        return WorkbenchError(f"the run folder {folder} is in use by {who}", "one process per run folder", remedy)

    return exclusive(folder / LOCK, folder / HOLDER, busy)
