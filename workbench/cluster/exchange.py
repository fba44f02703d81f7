"""Files of tasks through an object store (any that fsspec knows), for machines that share no file system.

The machine that gives the tasks puts what they read into the store; a task takes that into a folder of its own, works there, and
puts back what it wrote; the first machine takes it into the folder where it would have been written. Objects are named after the
SHA-256 of their bytes and checked on arrival; a list of names is written last, so that nothing half-written is ever taken. All of
it lies in a folder of that one call, which is removed at its end.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import wraps
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import urlsplit

from workbench.base.errors import WorkbenchError
from workbench.base.runs import HOLDER, LOCK
from workbench.base.store import atomic_path, content_hash, sha256_file

Task = TypeVar("Task")
Result = TypeVar("Result")
Run = Callable[[Callable[[Task], Result], Iterable[Task]], Iterable[Result]]
Paths = Callable[[Any], Sequence[Path]]
NOT_SENT = (".lock", ".part", ".log")
SETTING = "task_store"


@dataclass(frozen=True)
class ObjectStore:
    """A folder of an object store: "s3://bucket/folder", "gs://...", "file:///mnt/share". Keys come from the environment."""

    url: str

    def put(self, name: str, folder: Path, paths: Iterable[Path], known: dict[tuple[Any, ...], str] | None = None) -> None:
        """Store all files under `paths`, which lie in `folder`, and then the list `name` of them.

        known: the hashes of files that were put before, by path, size and time; filled.
        """
        listed, known = {}, {} if known is None else known
        for file in _files(paths):
            status = file.stat()
            state = str(file), status.st_size, status.st_mtime_ns
            relative = file.relative_to(folder).as_posix()
            if state in known:
                listed[relative] = known[state]
                continue
            digest = listed[relative] = sha256_file(file)
            with self._files() as (fs, root):
                place = f"{root}/objects/{digest}"
                if not fs.exists(place) or fs.size(place) != status.st_size:
                    fs.makedirs(f"{root}/objects", exist_ok=True)
                    fs.put_file(str(file), place)
            known[state] = digest
        with self._files() as (fs, root):
            fs.makedirs(f"{root}/lists", exist_ok=True)
            fs.pipe_file(f"{root}/lists/{name}", json.dumps(listed).encode())

    def take(self, name: str, folder: Path) -> None:
        """Write the files of the list `name` below `folder`; what is there already with the same bytes stays.

        Raises:
            WorkbenchError: a store that cannot be read, an object with other bytes than its name says, a name that leads out.
        """
        with self._files() as (fs, root):
            listed = json.loads(fs.cat_file(f"{root}/lists/{name}"))
        for relative, digest in listed.items():
            place = PurePosixPath(relative)
            if place.is_absolute() or ".." in place.parts or "\\" in relative:
                found = f"a list in {self.url} names {relative!r}"
                raise WorkbenchError(found, "names below the run's folder", "do not trust it")
            target = folder / place
            if target.is_file() and sha256_file(target) == digest:
                continue
            with atomic_path(target) as temporary:
                with self._files() as (fs, root):
                    fs.get_file(f"{root}/objects/{digest}", str(temporary))
                if sha256_file(temporary) != digest:
                    raise WorkbenchError(f"{relative} arrived from {self.url} with other bytes", "the bytes that were put there",
                                         "start it again: finished work is kept")  # fmt: skip

    def remove(self) -> None:
        """Delete all of it."""
        with contextlib.suppress(WorkbenchError), self._files() as (fs, root):
            fs.rm(root, recursive=True)

    @contextlib.contextmanager
    def _files(self) -> Iterator[tuple[Any, str]]:
        """(its file system, the path in that); what goes wrong there is a WorkbenchError."""
        from fsspec.core import url_to_fs

        try:
            fs, root = url_to_fs(self.url, use_listings_cache=False)
            yield fs, root
        except WorkbenchError:
            raise
        except ImportError as error:
            raise WorkbenchError(f"{self.url} needs a package that is not here: {error}", "the driver of that store",
                                 "install it on every machine (s3fs for s3://, gcsfs for gs://)") from error  # fmt: skip
        except Exception as error:  # drivers raise their own
            told = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise WorkbenchError(f"the object store {self.url} cannot be used ({told})", "a store that can be read and written",
                                 f"check the setting {SETTING}, and the keys in the environment") from error  # fmt: skip


def check_url(url: str) -> str:
    """The address of an object store, refused when it holds a key, a chain of drivers or no scheme."""
    parts = urlsplit(url)
    has_key = bool(parts.username or parts.password or parts.query)
    if not parts.scheme or "::" in url or has_key:
        found = "an address with a key in it" if has_key else f"the object store {url!r}"
        raise WorkbenchError(found, "the address of a folder, as in s3://bucket/folder",
                             f"correct the setting {SETTING}; keys belong into the environment")  # fmt: skip
    return url.rstrip("/")


def carried(
    function: Callable[[Task], Result], folder: Path, store: ObjectStore, *, reads: Paths, writes: Paths
) -> Callable[[Task], Result]:
    """`function` for machines that have not got `folder`: what a task reads is taken from the store, what it wrote put back."""

    @wraps(function)
    def elsewhere(task: Task) -> Result:
        with tempfile.TemporaryDirectory(prefix="workbench-task-") as scratch:
            here = Path(scratch).resolve()
            mine = moved(task, folder, here)
            store.take(_name("reads", reads(task)), here)
            result = function(mine)
            store.put(_name("writes", writes(task)), here, writes(mine))
            return moved(result, here, folder)

    return elsewhere


def exchanged(run: Run[Any, Any], folder: Path, *, reads: Paths, writes: Paths) -> Run[Any, Any]:
    """`run` (`on_ray`), with the files of `folder` going through the object store of the setting `task_store`, if there is one.

    reads, writes: the files and folders below `folder` that a task needs and makes. What a machine that dies had not put back is
    done again. Models and SAEs are loaded by name on every machine; paths outside of `folder` mean what they mean there.
    """
    from workbench.base.settings import setting

    url = setting(SETTING)
    if not url:
        return run
    place, folder = f"{check_url(url)}/{uuid.uuid4().hex}", folder.resolve()

    def running(function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[Any]:
        store, known = ObjectStore(place), {}
        given: deque[Any] = deque()

        def handed_out() -> Iterator[Any]:
            for task in tasks:
                store.put(_name("reads", reads(task)), folder, reads(task), known)
                given.append(task)
                yield task

        try:
            for result in run(carried(function, folder, store, reads=reads, writes=writes), handed_out()):
                store.take(_name("writes", writes(given.popleft())), folder)
                yield result
        finally:
            store.remove()

    return running


def _name(kind: str, paths: Sequence[Path]) -> str:
    """The name of the list of what a task reads, or writes."""
    return f"{kind}-{content_hash([str(path) for path in paths])[:32]}"


def _files(paths: Iterable[Path]) -> list[Path]:
    found = {file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])}
    return sorted(file for file in found if file.is_file() and file.suffix not in NOT_SENT and file.name not in (LOCK, HOLDER))


def moved(value: Any, old: Path, new: Path) -> Any:
    """`value` with every path below `old` (as Path or text, in tuples, lists, dicts and dataclasses) below `new` instead."""
    if isinstance(value, Path):
        return new / value.relative_to(old) if value.is_relative_to(old) else value
    if isinstance(value, str):
        return str(new) + value[len(str(old)) :] if value == str(old) or value.startswith(f"{old}/") else value
    if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
        return type(value)(moved(one, old, new) for one in value)
    if isinstance(value, dict):
        return {key: moved(one, old, new) for key, one in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        every = {one.name: getattr(value, one.name) for one in fields(value) if one.init}
        changed = {name: other for name, one in every.items() if (other := moved(one, old, new)) is not one}
        changed = {name: one for name, one in changed.items() if one != every[name]}
        return replace(value, **changed) if changed else value
    return value
