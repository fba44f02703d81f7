"""Finished pieces of docs/evidence/axis.json: taken from their files as long as what they were made from stands.

With AXIS_ONLY_FINISHED=1 in the environment nothing is made: what is not there is missing. Each file also says on which machine
it was made: `MEASURED_ON`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from workbench.base.provenance import cpu_name, package_versions
from workbench.base.store import content_hash, plain, read_json, write_json

MEASURED_ON: dict[str, dict[str, Any]] = {}
"""{piece: {cpu, gpu, torch, transformers, seconds}} of every piece that was taken from a file or made; seconds of its last
making, without the rollouts and readings that lay there already."""


class Missing(Exception):
    """A piece that is not finished, where only finished ones are wanted."""


def kept(file: Path, made_from: list[Any], make: Callable[[], Any]) -> dict[str, Any]:
    """The value in `file`, if it was made from this by this version of the package; else made now."""
    key = content_hash([*made_from, package_versions().get("persona-workbench")])
    if file.is_file() and (stored := read_json(file)).get("key") == key:
        MEASURED_ON[file.stem] = {**stored.get("machine", {}), "seconds": stored["seconds"]}
        return stored["value"]
    if os.environ.get("AXIS_ONLY_FINISHED"):
        raise Missing(file.stem)
    started = time.perf_counter()
    value = plain(make())
    write_json(file, {"key": key, "seconds": round(time.perf_counter() - started, 1), "machine": _machine(), "value": value})
    return kept(file, made_from, make)


def _machine() -> dict[str, Any]:
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": cpu_name(), "gpu": gpu, **{name: package_versions()[name] for name in ("torch", "transformers")}}


def pieces(names: Iterable[str], piece: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """{name: value} of pieces; those that are missing are left out."""
    found = {}
    for name in names:
        try:
            found[name] = piece(name)
        except Missing:
            continue
    return found
