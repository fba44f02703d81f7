"""Fetching what the catalogue lists: hash-checked, placed in one step, resumable, offline afterwards.

Looked for in this order: the cache, wheels in the folder named by WORKBENCH_ASSETS, an installed distribution of that
version, the package index. The order cannot change what is found: every way ends at the same hash of the contents.
The index is asked through pip, in a subprocess, with the user's own settings; nothing is installed or imported.
"""

from __future__ import annotations

import fnmatch
import importlib.metadata
import logging
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from ..base.errors import WorkbenchError, unknown_name
from ..base.settings import cache_dir, setting
from ..base.store import content_hash, describe_os_error, make_folder, read_json, sha256_file, write_json
from .catalogue import CATALOGUE, Asset, Assets
from .package_index import check_wheel, download

logger = logging.getLogger(__name__)

_verified: set[tuple[str, str]] = set()
"""Folders whose hashes this process has checked already."""


def list_assets() -> Assets:
    """Everything in the catalogue."""
    return Assets(CATALOGUE)


def model_names(catalogue: Iterable[Asset] = CATALOGUE) -> dict[str, str]:
    """The names that `load_model` takes from the catalogue -> the asset that holds the model."""
    return {asset.model: asset.name for asset in catalogue if asset.model}


def find_asset(name: str, catalogue: Iterable[Asset] = CATALOGUE) -> Asset:
    """The asset of that name (or that model name); an unknown one is an error that lists the nearest."""
    known = list(catalogue)
    for asset in known:
        if name in (asset.name, asset.model):
            return asset
    raise unknown_name("asset", name, [asset.name for asset in known])


def is_cached(name: str, *, catalogue: Iterable[Asset] = CATALOGUE) -> bool:
    """Whether the asset lies in the cache (not whether its hashes still hold)."""
    return _manifest_path(find_asset(name, catalogue)).is_file()


def asset_path(name: str) -> Path:
    """The folder that holds the asset's files at their paths inside the wheel; fetched if it is not there yet."""
    return fetch(name)


def fetch(
    name: str,
    *,
    offline: bool | None = None,
    accept_terms: bool = False,
    catalogue: Iterable[Asset] = CATALOGUE,
) -> Path:
    """The folder with the asset's files, checked against its hash; downloads them when needed.

    Damaged files in the cache are replaced by a new download, or with `offline` refused. An interrupted download
    leaves nothing half-written and goes on with the wheels that were complete. Raises WorkbenchError for an unknown
    name, terms not accepted, a wrong hash, no network, a full disk or an unwritable folder.
    """
    asset = find_asset(name, catalogue)
    folder = cache_dir() / "assets" / asset.folder_name
    key = (str(folder), asset.tree_sha256)
    if key in _verified and folder.is_dir():
        return folder
    damage = _damage(asset, folder)
    if damage is not None:
        offline = bool(setting("offline", offline, False))
        folder = _obtain(asset, folder, damage, offline=offline, accept_terms=accept_terms)
    _verified.add((str(folder), asset.tree_sha256))
    return folder


def _obtain(asset: Asset, folder: Path, damage: str, *, offline: bool, accept_terms: bool) -> Path:
    """Anything but a sound cache: wheels at hand, an installed distribution, the index."""
    if asset.terms and not (accept_terms or setting("accept_terms")):
        raise WorkbenchError(
            f"{asset.name} has terms of its own: {asset.terms}",
            "that you accept them",
            "read them, then pass accept_terms=True or set WORKBENCH_ACCEPT_TERMS=1",
        )
    if damage:
        logger.warning("%s in the cache is damaged (%s); getting it again.", asset.name, damage)
    with _locked(asset):
        if _damage(asset, folder) is None:  # another process was faster
            return folder
        wheels = _wheels_at_hand(asset)
        if wheels is None:
            if installed := _installed(asset):
                return installed
            if offline:
                raise _offline(asset, damage)
            wheels = download(asset, _partial_folder(asset))
        _place(asset, wheels, folder)
        shutil.rmtree(_partial_folder(asset), ignore_errors=True)
    return folder


@contextmanager
def _locked(asset: Asset) -> Iterator[None]:
    from filelock import FileLock

    root = make_folder(cache_dir() / "assets")
    try:
        with FileLock(root / f".{asset.folder_name}.lock"):
            yield
    except OSError as error:
        raise describe_os_error(error, root) from error


def _manifest_path(asset: Asset) -> Path:
    return cache_dir() / "assets" / f"{asset.folder_name}.json"


def _partial_folder(asset: Asset) -> Path:
    return cache_dir() / "assets" / f".{asset.folder_name}.partial"


def _damage(asset: Asset, folder: Path) -> str | None:
    """None when the cached files are exactly the catalogue's; "" when there are none; else what is wrong."""
    if not _manifest_path(asset).is_file():
        return ""
    try:
        tree = read_json(_manifest_path(asset))
    except WorkbenchError as error:
        return error.found
    if content_hash(tree) != asset.tree_sha256:
        return "its list of files does not have the catalogue's hash"
    for member, sha256 in tree.items():
        file = folder / member
        if not file.is_file() or sha256_file(file) != sha256:
            return f"{file} is missing or does not have its hash"
    return None


# Where it can come from


def _wheels_at_hand(asset: Asset) -> list[Path] | None:
    """The asset's wheels in the folder that WORKBENCH_ASSETS names; None unless all are there."""
    shelf = setting("assets")
    if not shelf:
        return None
    found = [sorted(Path(shelf).expanduser().glob(f"{wheel.stem}*.whl")) for wheel in asset.wheels]
    if not all(found):
        return None
    wheels = [files[0] for files in found]
    for wheel, path in zip(asset.wheels, wheels, strict=True):
        check_wheel(wheel, path, f"remove it from {shelf}, or put the right file there")
    return wheels


def _installed(asset: Asset) -> Path | None:
    """The site folder of an installed distribution whose files are exactly the catalogue's; it is never imported."""
    if asset.joined:
        return None
    wheel = asset.wheels[0]
    try:
        distribution = importlib.metadata.distribution(wheel.distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    names = [str(PurePosixPath(file)) for file in distribution.files or []]
    root = Path(str(distribution.locate_file("")))
    files = {name: root / name for name in _kept(asset, names)}
    if distribution.version != wheel.version or not all(file.is_file() for file in files.values()):
        return None
    tree = {name: sha256_file(file) for name, file in files.items()}
    return root if content_hash(tree) == asset.tree_sha256 else None


def _kept(asset: Asset, names: Iterable[str]) -> list[str]:
    data = [name for name in names if not name.endswith(("/", ".py", ".pyc"))]
    return sorted(
        name for name in data if any(fnmatch.fnmatchcase(name, pattern) for pattern in asset.members)
    )


def _offline(asset: Asset, damage: str) -> WorkbenchError:
    state = (
        f"in the cache is damaged ({damage})" if damage else f"is not in the cache {cache_dir() / 'assets'}"
    )
    return WorkbenchError(
        f"{asset.name} {state}, and downloads are off",
        "the asset in the cache",
        f"run `workbench models fetch {asset.name}` with a network, or set WORKBENCH_ASSETS to a folder with its wheel",
    )


# Into the cache


def _place(asset: Asset, wheels: list[Path], folder: Path) -> None:
    """Extract into a temporary folder, check the hash of the contents, then rename: all or nothing."""
    make_folder(folder.parent)
    temporary: Path | None = None
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{asset.folder_name}.", dir=folder.parent))
        tree = _extract(asset, wheels, temporary)
        if content_hash(tree) != asset.tree_sha256:
            raise WorkbenchError(
                f"the files inside the wheel of {asset.name} do not have the catalogue's hash",
                f"contents with the hash {asset.tree_sha256[:16]}...",
                "report this: the catalogue entry is wrong",
            )
        _manifest_path(asset).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
        write_json(_manifest_path(asset), tree)
    except OSError as error:
        raise describe_os_error(error, folder) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _extract(asset: Asset, wheels: list[Path], target: Path) -> Mapping[str, str]:
    """{member: sha256} of the members, written under `target`."""
    written: list[Path] = []
    for path in wheels:
        with zipfile.ZipFile(path) as archive:
            for name in _kept(asset, archive.namelist()):
                file = target / (asset.joined or name)
                if not file.resolve().is_relative_to(target.resolve()):
                    raise WorkbenchError(f"the wheel of {asset.name} holds {name!r}", "names inside it", "report this")
                file.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(name) as source, open(file, "ab" if asset.joined else "wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
                written.append(file)
    return {file.relative_to(target).as_posix(): sha256_file(file) for file in dict.fromkeys(written)}
