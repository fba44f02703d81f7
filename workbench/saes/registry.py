"""Where SAEs are found: an explicit shelf, the checkout's `saes/`, the installed package, the user's cache.

Listing reads only small JSON files: no torch.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.settings import cache_dir, setting
from workbench.base.store import read_json
from workbench.models.hookpoints import HookPoint
from workbench.saes.published import PublishedSae, find_published

if TYPE_CHECKING:
    from workbench.saes.interface import SparseAutoencoder

logger = logging.getLogger(__name__)

DEFAULT = "smollm2-135m-instruct/blocks.15.hook_resid_post"


@dataclass(frozen=True)
class SaeEntry:
    """An SAE on the shelf, as far as its small files tell."""

    id: str
    folder: Path
    hook: HookPoint
    model: str
    d_sae: int
    card: dict[str, Any]


def shelf_folders(kind: str = "saes") -> list[Path]:
    """The folders searched, first match wins: WORKBENCH_SHELF/<kind>, the checkout, the package, the cache."""
    package = Path(__file__).resolve().parents[1]
    places = [package.parent / kind, package / "_shelf" / kind, cache_dir() / kind]
    explicit = setting("shelf")
    if explicit:
        places.insert(0, Path(str(explicit)).expanduser() / kind)
    return [place for place in places if place.is_dir()]


def user_shelf() -> Path:
    """Where imported and pulled SAEs go: WORKBENCH_SHELF/saes when that is set, else saes/ in the cache (not created)."""
    explicit = setting("shelf")
    return (Path(str(explicit)).expanduser() if explicit else cache_dir()) / "saes"


class Shelf(Shown, list[SaeEntry]):
    """The SAEs that were found, by id: a list that shows itself as a table."""

    def __repr__(self) -> str:
        return f"{len(self)} SAEs: {', '.join(entry.id for entry in self)}"


def list_saes() -> Shelf:
    """Every SAE on the shelf, by id; the first folder of `shelf_folders` that holds an id wins."""
    found: dict[str, SaeEntry] = {}
    for shelf in shelf_folders():
        for config in sorted(shelf.glob("**/cfg.json")):
            id = config.parent.relative_to(shelf).as_posix()
            if id in found or any(part.startswith(".") for part in id.split("/")):  # hidden: being written
                continue
            try:
                found[id] = _entry(id, config.parent)
            except WorkbenchError as error:  # one damaged folder does not hide the others
                logger.warning("left out of the list: %s", error)
    return Shelf(sorted(found.values(), key=lambda entry: entry.id))


def _entry(id: str, folder: Path) -> SaeEntry:
    cfg = read_json(folder / "cfg.json")
    card = read_json(folder / "card.json") if (folder / "card.json").is_file() else {}
    if not isinstance(cfg, dict) or type(cfg.get("d_sae")) is not int or not isinstance(card, dict):
        raise _no_description(folder)
    metadata = cfg.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise _no_description(folder)
    hook = metadata.get("hook_name") or cfg.get("hook_name") or cfg.get("hook_point") or ""  # before version 6 at the top
    model = metadata.get("model_name") or cfg.get("model_name") or "unknown"
    if not isinstance(hook, str) or not isinstance(model, str):
        raise _no_description(folder)
    return SaeEntry(id, folder, HookPoint.parse(hook), model, cfg["d_sae"], card)


def _no_description(folder: Path) -> WorkbenchError:
    return WorkbenchError(
        f"{folder / 'cfg.json'} does not describe an SAE",
        "d_sae (a number), metadata (an object) with hook_name and model_name (texts), and an object in card.json",
        "copy the folder again",
    )


def find_sae(id_or_path: str | os.PathLike[str]) -> SaeEntry:
    """The entry of a shelf id or of a folder; an unknown name lists the known ones, nearest first."""
    path = Path(id_or_path)
    if (path / "cfg.json").is_file():
        known = {entry.folder.resolve(): entry for entry in list_saes()}
        return known.get(path.resolve()) or _entry(str(path), path)
    if path.is_dir():
        raise WorkbenchError(
            f"{path} holds no cfg.json",
            "a SAELens folder (cfg.json, sae_weights.safetensors)",
            "check the path",
        )
    entries = {entry.id: entry for entry in list_saes()}
    if str(id_or_path) not in entries:
        _check_named(str(id_or_path))
        if known := find_published(str(id_or_path)):
            raise WorkbenchError(
                f"{known.id} is in the SAELens registry, not on the shelf",
                "an SAE on the shelf, or a folder",
                f"`workbench sae pull {known.id}` brings it there (from the hub repository {known.repo})",
            )
        raise unknown_name("SAE", str(id_or_path), entries)
    return entries[str(id_or_path)]


def find_unshelved(id: str | os.PathLike[str]) -> PublishedSae | None:
    """The entry of the SAELens registry that `id` names, unless it is a folder or on the shelf; else None."""
    if Path(id).is_dir() or any(entry.id == str(id) for entry in list_saes()):
        return None
    _check_named(str(id))
    return find_published(str(id))


def _check_named(id: str) -> None:
    """Say what is wrong with the shelf's folder of this id, where there is one that the list passes over."""
    for shelf in shelf_folders():
        if (shelf / id / "cfg.json").is_file():
            _entry(id, shelf / id)


def load_sae(id_or_path: str | os.PathLike[str] = DEFAULT, *, device: str = "cpu") -> SparseAutoencoder:
    """The SAE with this shelf id, in this SAELens folder, or of the SAELens registry (release/id); float32 on `device`.

    Raises WorkbenchError for unknown names (nearest offered), missing or damaged files, layouts that are not read, and
    files of the registry that are neither cached nor to be had.
    """
    if known := find_unshelved(id_or_path):
        from workbench.saes.fetching import load_published

        return load_published(known, device=device)
    from workbench.saes.formats import saelens

    entry = find_sae(id_or_path)
    return saelens.load(entry.folder, id=entry.id, device=device)
