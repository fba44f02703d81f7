"""How many blocks a model has, from its configuration alone: no weights are read and nothing is fetched."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from workbench.models.assets import find_asset, is_cached, model_names
from workbench.models.at_hand import hub_file, name_and_adapter

_KEYS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_INNER = ("text_config", "llm_config", "language_config")
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_BLOCK_COUNT = b".block_count"


def n_blocks_of(name: str) -> int | None:
    """The number of blocks of a catalogue name, a folder, a GGUF file or a hub id; None where that is not at hand."""
    name, _ = name_and_adapter(name)
    known = model_names()
    if name in known:
        files = [] if not is_cached(known[name]) else sorted(_asset_folder(known[name]).rglob("*.gguf"))
        return _of_gguf(files[0]) if files else None
    path = Path(name).expanduser()
    if path.is_file():
        return _of_gguf(path)
    if path.is_dir():
        return _of_config(path / "config.json")
    config = hub_file(name, "config.json")
    return None if config is None else _of_config(config)


def _asset_folder(asset: str) -> Path:
    from workbench.base.settings import cache_dir

    return cache_dir() / "assets" / find_asset(asset).folder_name


def _of_config(file: Path) -> int | None:
    try:
        config = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None  # `load_model` says what is wrong with it
    inner = [config[key] for key in _INNER if key in config] if isinstance(config, Mapping) else []
    values = [
        part[key] for part in (config, *inner) if isinstance(part, Mapping) for key in _KEYS if key in part
    ]
    return next((value for value in values if isinstance(value, int)), None)


def _of_gguf(file: Path) -> int | None:
    """`<architecture>.block_count` in the head of a GGUF file (version 2 or 3, little-endian).

    The gguf package reads the vocabulary too, which takes seconds; the count stands before it.
    """
    try:
        with open(file, "rb") as stream:
            if stream.read(4) != b"GGUF" or _read(stream, "I") < 2:
                return None
            _, n_fields = _read(stream, "Q"), _read(stream, "Q")
            for _ in range(n_fields):
                key = stream.read(_read(stream, "Q"))
                value = _value(stream, _read(stream, "I"))
                if key.endswith(_BLOCK_COUNT):
                    return int(value)
    except (OSError, struct.error, KeyError, ValueError, OverflowError, MemoryError, RecursionError):
        pass  # cut short or damaged: `load_model` says so
    return None


def _value(stream: BinaryIO, kind: int) -> Any:
    """The next value; of strings and arrays only their end is looked for."""
    if kind == _STRING:
        stream.seek(_read(stream, "Q"), 1)
    elif kind == _ARRAY:
        item, n_items = _read(stream, "I"), _read(stream, "Q")
        if item in _SCALARS:
            stream.seek(struct.calcsize(_SCALARS[item]) * n_items, 1)
        else:
            for _ in range(n_items):
                _value(stream, item)
    else:
        return _read(stream, _SCALARS[kind])
    return 0


def _read(stream: BinaryIO, letter: str) -> Any:
    layout = f"<{letter}"
    return struct.unpack(layout, stream.read(struct.calcsize(layout)))[0]
