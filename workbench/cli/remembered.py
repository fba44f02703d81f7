"""Studies that are kept: a result stands as long as what it was made from stays the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from workbench import __version__
from workbench.base.store import content_hash, read_json, write_json

from .console import note

KEY = "key"


def remembered(file: Path, sources: dict[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The study in `file` when it was made from `sources` by this version, else the one made now and written there."""
    key = content_hash({"version": __version__, **sources})
    if file.is_file() and isinstance(known := read_json(file), dict) and known.get(KEY) == key:
        note(f"{file} is up to date")
        return known
    value = {**make(), KEY: key}
    write_json(file, value)
    return value
