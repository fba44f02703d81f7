"""A journal of what one annotator did: one JSON object per line, each on the disk before the next action is taken.

It is only ever appended to. A line that was cut off by a crash or a power cut is an action that was never acknowledged; it is
taken away when the journal is opened again. Any other damage is refused with its line, and so is a file that is not a journal.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workbench.base.errors import WorkbenchError
from workbench.base.locks import exclusive
from workbench.base.store import PathLike, describe_os_error, make_folder, plain, read_bytes
from workbench.labeling.annotating.events import event_problem

FOLDER = "annotators"
MAX_NAME = 60

Event = dict[str, Any]


def clean_name(name: str | None) -> str:
    """A person's name as it is signed: one line, single spaces, at most 60 characters. Raises WorkbenchError otherwise."""
    text = " ".join(unicodedata.normalize("NFC", name or "").split())
    bad = [c for c in text if unicodedata.category(c).startswith("C")]
    if not text or bad or len(text) > MAX_NAME:
        found = "no annotator's name was given" if not text else f"the annotator's name {text[:80]!r}"
        raise WorkbenchError(
            found,
            f"your name, 1 to {MAX_NAME} characters on one line",
            "give it with --name, or set WORKBENCH_ANNOTATOR: what you decide is signed with it",
        )
    return text


def journal_path(folder: PathLike, name: str) -> Path:
    """The journal of the annotator `name` in the folder of one SAE's labels; two names never share one."""
    name = clean_name(name)
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "annotator"
    return Path(folder) / FOLDER / f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:8]}.jsonl"


def read_journal(path: PathLike) -> list[Event]:
    """The events in a journal, oldest first; a cut-off last line is left out.

    Raises:
        WorkbenchError: no such file, a link, or a damaged line, by its number.
    """
    _refuse_link(Path(path))
    lines, tail = _split(read_bytes(path))
    events = [_event(line, f"{path}, line {n}") for n, line in enumerate(lines, start=1)]
    with contextlib.suppress(WorkbenchError):
        events.extend([_event(tail, str(path))] if tail else [])
    return events


class Journal:
    """An open journal, held by this process alone. Made by `Journal.open`."""

    def __init__(self, path: Path, events: list[Event]) -> None:
        self.path = path
        self.events = events
        self.saved_at: str | None = events[-1]["at"] if events else None

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: PathLike, *, annotator: str) -> Iterator[Journal]:
        """The journal at `path`, made when it is missing, locked until the block ends.

        Raises WorkbenchError when another process holds it (naming process, host and time) or when it is damaged.
        """
        target = Path(path)
        make_folder(target.parent)
        lock, holder = target.with_suffix(".lock"), target.with_suffix(".holder.json")
        for place in (target.parent, target, lock):
            _refuse_link(place)

        def busy(who: str) -> WorkbenchError:
            remedy = "end the other session, or annotate under your own name"
            return WorkbenchError(f"{annotator}'s journal {target} is in use by {who}", "one session per annotator", remedy)

        with exclusive(lock, holder, busy, annotator=annotator):
            events = read_journal(target) if target.exists() else []
            _mend(target)
            yield cls(target, events)

    def append(self, event: Mapping[str, Any]) -> Event:
        """Write one event with the time and wait until it is on the disk; returns what was written."""
        written = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), **plain(event)}
        line = json.dumps(written, ensure_ascii=False, allow_nan=False) + "\n"
        _append(self.path, line.encode("utf-8", "replace"))
        self.events.append(written)
        self.saved_at = written["at"]
        return written


def _refuse_link(path: Path) -> None:
    """What is written here stays here: a link would have another file written to, or a pipe waited for."""
    if path.is_symlink() or (path.exists() and not path.is_dir() and not path.is_file()):
        raise WorkbenchError(f"{path} is a link or no ordinary file", "a journal in a folder of its own", "move it away")


def _append(path: Path, data: bytes) -> None:
    """All of `data` on the disk, or the file as it was."""
    try:
        with open(path, "ab", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            try:
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(before)
                raise
    except OSError as error:
        raise describe_os_error(error, path) from error


def _mend(path: Path) -> None:
    """Take a cut-off last line away, or end it if it is complete, so that the next line starts on its own."""
    if not path.exists():
        _append(path, b"")
        _flush_folder(path.parent)
        return
    data = read_bytes(path)
    _, tail = _split(data)
    if not tail:
        return
    try:
        _event(tail, str(path))
    except WorkbenchError:
        if not tail.startswith((b"{", b"\0")):  # no beginning of an entry, nor the zeros that a power cut leaves
            raise
        os.truncate(path, len(data) - len(tail))
    else:
        _append(path, b"\n")


def _flush_folder(folder: Path) -> None:
    """A new file's name reaches the disk too, where folders can be flushed (not on Windows)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _split(data: bytes) -> tuple[list[bytes], bytes]:
    *lines, tail = data.split(b"\n")
    return lines, tail


def _event(line: bytes, place: str) -> Event:
    try:
        value = json.loads(line.decode("utf-8"))
        problem = event_problem(value)
    except (ValueError, RecursionError):  # UnicodeDecodeError and JSONDecodeError are such
        value, problem = {}, "no JSON"
    if not problem:
        return value
    raise WorkbenchError(
        f"{place}: not an entry of an annotator's journal ({problem})",
        'a JSON object with "at", "event" and what belongs to that event',
        "restore the file from a copy, or take that line out by hand",
    )
