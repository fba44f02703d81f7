"""Files of tasks through an object store (any that fsspec knows), for machines that share no file system.

The machine that gives the tasks puts what one reads into the store; the task takes that into a folder of its own, works there,
and puts back what it wrote, finished or not; the first machine takes it into the folder where it would have been written. Objects
are named after the SHA-256 of their bytes and checked on arrival; a list of names is written last. All of it lies in a folder of
that one call, which is removed at its end.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import json
import logging
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import wraps
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import urlsplit

from workbench.base.errors import WorkbenchError
from workbench.base.runs import HOLDER, LOCK
from workbench.base.settings import cache_dir, setting
from workbench.base.store import describe_os_error, make_folder, sha256_file

Task = TypeVar("Task")
Result = TypeVar("Result")
Run = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
Paths = Callable[[Any], Sequence[Path]]
Listed = dict[str, str]
NOT_SENT = (".lock", ".part", ".log")
SETTING = "task_store"
_LOCAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ObjectStore:
    """A folder of an object store: "s3://bucket/folder", "gs://...", "file:///mnt/share". Keys come from the environment."""

    url: str

    def put(self, name: str, folder: Path, paths: Iterable[Path], known: dict[tuple[Any, ...], str] | None = None) -> Listed:
        """Store all files under `paths`, which lie in `folder`, and then the list `name` of them, the oldest file first.

        known: the hashes of files that were put before, by path, size and time; filled.
        """
        listed, known = {}, {} if known is None else known
        for file in _files(paths):
            status = file.stat()
            state = str(file), status.st_size, status.st_mtime_ns
            if not file.is_relative_to(folder):
                raise WorkbenchError(f"{file} is not in {folder}", "files of one folder", "leave out symbolic links to elsewhere")
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
        return listed

    def take(
        self, name: str, folder: Path, within: Sequence[Path] | None = None, *, had: Iterable[str] = (), may_lack: bool = False
    ) -> None:
        """Write the files of the list `name` below `folder`; what is there already with the same bytes stays.

        All are fetched before the first is replaced. What is replaced is removed first, the newest at the source before the rest,
        and the new ones follow from the oldest on: files that vouch for others are written last, and go first.

        within: where the files may lie. had: names of an earlier list; those within that are gone from this one are removed,
        before anything is replaced. may_lack: a list that is not there changes nothing.

        Raises:
            WorkbenchError: a store that cannot be read, an object with other bytes than its name says, a name that leads out.
        """
        with self._files() as (fs, root):
            if may_lack and not fs.exists(f"{root}/lists/{name}"):
                return
            listed = json.loads(fs.cat_file(f"{root}/lists/{name}"))
        targets = {relative: self._target(relative, folder, within) for relative in _checked(listed, self.url)}
        differing = {relative: target for relative, target in targets.items()
                     if not (target.is_file() and sha256_file(target) == listed[relative])}  # fmt: skip
        gone = [folder / relative for relative in set(had) - listed.keys()]
        with tempfile.TemporaryDirectory(prefix=".arriving-", dir=make_folder(folder)) as place:
            for number, relative in enumerate(differing):
                arrived = Path(place) / str(number)
                with self._files() as (fs, root):
                    fs.get_file(f"{root}/objects/{listed[relative]}", str(arrived))
                if sha256_file(arrived) != listed[relative]:
                    raise WorkbenchError(f"{relative} arrived from {self.url} with other bytes", "the bytes that were put there",
                                         "start it again: finished work is kept")  # fmt: skip
            for target in [*(one for one in gone if _lies(one, within)), *reversed(differing.values())]:
                target.unlink(missing_ok=True)
            for number, target in enumerate(differing.values()):
                os.replace(Path(place) / str(number), make_folder(target.parent) / target.name)

    def _target(self, relative: str, folder: Path, within: Sequence[Path] | None) -> Path:
        place, target = PurePosixPath(relative), folder / relative
        leads_out = place.is_absolute() or ".." in place.parts or any(sign in relative for sign in "\\:\0")
        if leads_out or not _lies(target, within):
            found = f"a list in {self.url} names {relative!r}"
            raise WorkbenchError(found, "names of what the task writes", "do not trust it")
        return target

    def remove(self) -> None:
        """Delete all of it; what stays is named in a warning."""
        try:
            with self._files() as (fs, root):
                if fs.exists(root):
                    fs.rm(root, recursive=True)
        except WorkbenchError as error:
            logger.warning("%s could not be removed and stays there: %s", self.url, error.found)

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
            if isinstance(error, OSError) and error.errno in _LOCAL:
                raise describe_os_error(error, error.filename or tempfile.gettempdir()) from error
            told = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise WorkbenchError(f"the object store {self.url} cannot be used ({told})", "a store that can be read and written",
                                 f"check the setting {SETTING}, and the keys in the environment") from error  # fmt: skip


def _lies(target: Path, within: Sequence[Path] | None) -> bool:
    return within is None or any(target.is_relative_to(path) for path in within)


def _checked(listed: Any, url: str) -> Listed:
    if not isinstance(listed, dict) or not all(isinstance(one, str) for pair in listed.items() for one in pair):
        raise WorkbenchError(f"a list in {url} holds no names and hashes", "a list that a task wrote", "start it again")
    return listed


def store_address() -> str | None:
    """The setting `task_store`, None without one.

    Raises WorkbenchError (which does not repeat it) for an address without a scheme, a chain of drivers, or a key in it.
    """
    url = setting(SETTING)
    if not url:
        return None
    try:
        parts = urlsplit(url)
        sound = "://" in url and "::" not in url and bool(parts.netloc or parts.path.strip("/"))
        sound = sound and not (parts.password or parts.query or parts.fragment)
    except ValueError:
        sound = False
    if not sound:
        found = f"the setting {SETTING} is no address of a folder, or holds a key"
        raise WorkbenchError(found, "an address as in s3://bucket/folder", "correct it; keys belong into the environment")
    return url.rstrip("/")


def exchanged(run: Run, folder: Path, *, reads: Paths, writes: Paths) -> Run:
    """`run` (`on_ray`), with the files of `folder` going through the object store of the setting `task_store`, if there is one.

    reads, writes: the files and folders below `folder` that a task needs and makes. What a task deletes of them is deleted here,
    and what it had made when it failed is kept; what a machine that dies had not put back is done again. Models and SAEs are
    loaded by name on every machine; paths that are not among those mean what they mean there.
    """
    address = store_address()
    if address is None:
        return run
    folder = folder.resolve()

    def running(function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[Any]:
        store, known = ObjectStore(f"{address}/{uuid.uuid4().hex}"), {}
        given: dict[int, tuple[Any, Listed]] = {}

        def handed_out() -> Iterator[_Sent]:
            for number, task in enumerate(tasks):
                paths = tuple(dict.fromkeys([*reads(task), *writes(task)]))
                given[number] = task, store.put(f"reads-{number}", folder, paths, known)
                yield _Sent(number, task, paths, tuple(writes(task)))

        def take(number: int, *, may_lack: bool) -> None:
            task, sent = given.pop(number)
            store.take(f"writes-{number}", folder, writes(task), had=sent, may_lack=may_lack)

        results = iter(run(_carried(function, folder, store), handed_out()))
        try:
            for number, result in enumerate(results):
                take(number, may_lack=False)
                yield result
        finally:
            if (close := getattr(results, "close", None)) is not None:
                close()
            for number in list(given):  # ended before their turn, or stopped half-way
                try:
                    take(number, may_lack=True)
                except WorkbenchError as error:
                    logger.warning("what task %d made could not be taken, and will be done again: %s", number, error.found)
            store.remove()

    return running


@dataclass(frozen=True)
class _Sent:
    """A task with its number, and what it reads and writes in the folder of who gives it."""

    number: int
    task: Any
    paths: tuple[Path, ...]
    writes: tuple[Path, ...]


def _carried(function: Callable[[Task], Result], folder: Path, store: ObjectStore) -> Callable[[_Sent], Result]:
    """`function` for machines that have not got `folder`."""

    @wraps(function)
    def elsewhere(sent: _Sent) -> Result:
        with _scratch() as here:
            store.take(f"reads-{sent.number}", here)
            try:
                result = function(moved(sent.task, folder, here, sent.paths))
            except WorkbenchError as error:
                raise moved(error, here, folder, ()) from error
            finally:
                written = [here / path.relative_to(folder) for path in sent.writes]
                store.put(f"writes-{sent.number}", here, written)
            return moved(result, here, folder, written)

    return elsewhere


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for a task, in the cache; those that dead processes of this machine left are removed."""
    place, host = make_folder(cache_dir() / "tasks"), socket.gethostname()
    for left in place.glob(f"{host}-*-*"):
        if not _lives(left.name.removeprefix(f"{host}-").partition("-")[0]):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{host}-{os.getpid()}-", dir=place) as scratch:
        yield Path(scratch).resolve()


def _lives(pid: str) -> bool:
    if not pid.isdigit():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _files(paths: Iterable[Path]) -> list[Path]:
    """The files to be sent, the oldest first."""
    found = {file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])}
    sent = (file for file in found if file.is_file() and file.suffix not in NOT_SENT and file.name not in (LOCK, HOLDER))
    return sorted(sent, key=lambda file: (file.stat().st_mtime_ns, str(file)))


def moved(value: Any, old: Path, new: Path, among: Sequence[Path]) -> Any:
    """`value` with paths below `old` (as Path or text, in tuples, lists, mappings and dataclasses) below `new` instead: those at
    or below a path of `among`, and the folders that hold one. Of an error of ours all that it says is moved."""
    if isinstance(value, WorkbenchError):
        told = copy.copy(value)
        told.found, told.expected, told.remedy = (
            part.replace(str(old), str(new)) for part in (value.found, value.expected, value.remedy)
        )
        told.args = (told.found, told.expected, told.remedy)
        return told
    if isinstance(value, (str, Path)):
        if not str(value).startswith(str(old)):
            return value
        path = Path(value)
        meant = any(path.is_relative_to(one) or one.is_relative_to(path) for one in among) and path.is_relative_to(old)
        return type(value)(new / path.relative_to(old)) if meant else value
    if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
        return type(value)(moved(one, old, new, among) for one in value)
    if isinstance(value, Mapping):
        return {key: moved(one, old, new, among) for key, one in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        every = {one.name: getattr(value, one.name) for one in fields(value) if one.init}
        changed = {name: other for name, one in every.items() if _differs(other := moved(one, old, new, among), one)}
        return replace(value, **changed) if changed else value
    return value


def _differs(one: Any, other: Any) -> bool:
    """Whether moving changed anything: compared by identity where nothing that holds paths can be inside."""
    return one is not other and (not isinstance(one, (str, Path, tuple, list, dict)) or one != other)
