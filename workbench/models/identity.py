"""Which model a name means, with its weights hash and size, without loading it."""

from __future__ import annotations

from collections.abc import Mapping
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import unknown_name
from ..base.store import read_json, sha256_file
from . import assets
from .at_hand import hub_file
from .gguf_header import read_header
from .loading import _HUB_ID, _check_gguf, _hash_of_folder

if TYPE_CHECKING:
    from .model import Model


def identify(model: str | Model | Mapping[str, Any]) -> dict[str, Any]:
    """{"name", "source", "weights_hash", "n_blocks", "d_model", "model_type"} of what `load_model` takes.

    What cannot be known without a download is None. A Model or a description is passed on. Raises WorkbenchError for
    an unknown name.
    """
    if isinstance(model, Mapping):
        return {"weights_hash": None, "n_blocks": None, "d_model": None, **model}
    if not isinstance(model, str | Path):
        return {**model.description(), "model_type": getattr(model.config, "model_type", None)}
    return _of_name(str(model))


def _of_name(name: str) -> dict[str, Any]:
    models, path = assets.model_names(), Path(name).expanduser()
    if name in models:
        cached = assets.is_cached(models[name])
        file = next(assets.asset_path(models[name]).rglob("*.gguf"), None) if cached else None
        return _facts(name, "catalogue", file)
    if path.is_file():
        _check_gguf(path)
        return _facts(path.stem, "gguf", path)
    if path.is_dir():
        return _facts(path.resolve().name, "folder", path)
    if _HUB_ID.fullmatch(name) and not name.startswith("."):
        config = hub_file(name, "config.json")
        return _facts(name, "hub", config and config.parent)
    raise unknown_name(
        "model", name, models, remedy="a folder, a GGUF file or a hub id (owner/name) serve as well"
    )


def _facts(name: str, source: str, place: Path | None) -> dict[str, Any]:
    facts: dict[str, Any] = {"name": name, "source": source}
    sizes: dict[str, Any] = dict.fromkeys(("weights_hash", "n_blocks", "d_model", "model_type"))
    if place is not None and place.is_file():
        sizes |= {"weights_hash": sha256_file(place), **_sizes_of_gguf(place)}
    elif place is not None:
        sizes |= {"weights_hash": _hash_of_weights(place), **_sizes_of_config(place)}
    return {**facts, **sizes}


def _hash_of_weights(folder: Path) -> str | None:
    present = any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin"))
    return _hash_of_folder(folder) if present else None


def _sizes_of_config(folder: Path) -> dict[str, Any]:
    if not (folder / "config.json").is_file():
        return {}
    config = read_json(folder / "config.json")
    text = config.get("text_config") or config
    return {
        "n_blocks": text.get("num_hidden_layers", text.get("n_layer")),
        "d_model": text.get("hidden_size", text.get("n_embd")),
        "model_type": text.get("model_type"),
    }


def _sizes_of_gguf(file: Path) -> dict[str, Any]:
    with open(file, "rb") as stream, mmap(stream.fileno(), 0, access=ACCESS_READ) as data:
        keys, _ = read_header(data, file)
    kind = keys.get("general.architecture")
    sizes = {"n_blocks": keys.get(f"{kind}.block_count"), "d_model": keys.get(f"{kind}.embedding_length")}
    return {**sizes, "model_type": kind}
