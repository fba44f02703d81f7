"""A lock that one process holds at a time, with a note beside it that says which."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .errors import WorkbenchError
from .store import describe_os_error, read_json, write_json


@contextlib.contextmanager
def exclusive(lock: Path, holder: Path, busy: Callable[[str], WorkbenchError], **note: Any) -> Iterator[None]:
    """Hold the lock file `lock` until the block ends; `holder` says meanwhile who does, with `note` added.

    The operating system frees the lock of a process that dies. When another one holds it, `busy` is given words for it
    ("process 17 on host since ...") and makes the error that is raised.
    """
    import filelock

    held = filelock.FileLock(str(lock), timeout=0)
    try:
        held.acquire()
    except filelock.Timeout:
        raise busy(_described(holder)) from None
    except OSError as error:
        raise describe_os_error(error, lock.parent) from error
    try:
        write_json(holder, {**_myself(), **note})
        yield
    finally:
        with contextlib.suppress(OSError):
            holder.unlink(missing_ok=True)
        held.release()


def _myself() -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": platform.node(), "since": now}


def _described(holder: Path) -> str:
    try:
        note = read_json(holder)
        return f"process {note['pid']} on {note['host']} since {note['since']}"
    except (WorkbenchError, KeyError, TypeError):  # between taking the lock and writing the note
        return "another process"
