"""Reading label files, changing them and writing them back is for one process at a time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from workbench.base.errors import WorkbenchError
from workbench.base.store import describe_os_error, make_folder

LOCK = ".labels.lock"
LOCK_SECONDS = 30
_here = threading.local()


@contextlib.contextmanager
def writing(*folders: Path) -> Iterator[None]:
    """Hold the folders of these SAEs' labels until the block ends; blocks may be nested.

    The lock lies beside the labels, so that it holds for everyone who writes there: other users, other caches. Whoever may
    write in the folder may take it.

    Raises:
        WorkbenchError: another process holds one for 30 seconds; a folder that cannot be written to.
    """
    with contextlib.ExitStack() as held:
        # In one order, so that no two wait for each other.
        for folder in sorted({make_folder(folder).resolve() for folder in folders}):
            held.enter_context(_one(folder))
        yield


@contextlib.contextmanager
def _one(folder: Path) -> Iterator[None]:
    import filelock

    own: set[Path] = _here.__dict__.setdefault("folders", set())
    if folder in own:
        yield
        return
    path = folder / LOCK
    if path.is_symlink():
        raise WorkbenchError(f"{path} is a symbolic link", "a file of its own", "remove it")
    lock = filelock.FileLock(str(path), timeout=LOCK_SECONDS, mode=folder.stat().st_mode & 0o666)
    try:
        lock.acquire()
    except filelock.Timeout:
        found = f"another process has been writing to {folder} for {LOCK_SECONDS} seconds"
        raise WorkbenchError(found, "a folder that nobody else writes to", "try again when it is done") from None
    except OSError as error:
        raise describe_os_error(error, path) from error
    own.add(folder)
    try:
        yield
    finally:
        own.discard(folder)
        lock.release()


def parents(paths: Iterable[Path]) -> list[Path]:
    """The folders of these label files."""
    return list(dict.fromkeys(path.parent for path in paths))
