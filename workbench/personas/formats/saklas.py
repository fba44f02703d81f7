"""saklas profiles, read only: safetensors with keys layer_{i} (block i's output) and a JSON document beside it.

The vectors are "baked": each layer's weight is folded into its length.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from workbench.base.errors import WorkbenchError
from workbench.base.store import read_json, sha256_file
from workbench.personas.formats.files import Format, Opened, Parsed, block_outputs

_KEY = re.compile(r"layer_(\d{1,6})")


def claims(opened: Opened, n_blocks: int | None) -> bool:
    """Safetensors whose keys are all layer_{i}."""
    return opened.kind == "safetensors" and bool(opened.value) and all(map(_KEY.fullmatch, opened.value))


def read(opened: Opened) -> Parsed:
    """The vectors at the blocks' outputs; the JSON's hash must fit the tensors."""
    numbers = {key: _KEY.fullmatch(key) for key in opened.value}
    strange = sorted(key for key, match in numbers.items() if match is None)
    if strange:
        raise WorkbenchError(
            f"{opened.path} holds the tensors {', '.join(strange[:4])}",
            "the keys layer_0, layer_1, ...",
            "name another format",
        )
    layers = {int(match[1]): opened.value[key] for key, match in numbers.items() if match}
    document = _sidecar(opened.path)
    provenance = document.get("provenance")
    told = {**document, **(provenance if isinstance(provenance, dict) else {})}
    notes = ("the lengths are saklas' layer weights, not those of a mean difference",)
    return Parsed(
        block_outputs(layers, opened.path),
        str(told.get("method", "profile")),
        trait=_text(told, "concept", "name", "trait"),
        model={"name": name} if (name := _text(told, "model_id", "model")) else {},
        notes=notes
        if document
        else (*notes, f"there is no {opened.path.with_suffix('.json').name} beside it"),
    )


def _sidecar(path: Path) -> dict[str, Any]:
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return {}
    document = read_json(beside)
    if not isinstance(document, dict):
        raise WorkbenchError(f"{beside} holds no JSON object", "the document that saklas wrote", "restore it")
    stated = document.get("tensor_sha256")
    if stated is not None and stated != sha256_file(path):
        raise WorkbenchError(
            f"{path} does not match the hash in {beside.name}",
            "the two files of one profile",
            "restore the pair",
        )
    return document


def _text(told: dict[str, Any], *names: str) -> str | None:
    return next((told[name] for name in names if isinstance(told.get(name), str) and told[name]), None)


FORMAT = Format("saklas profile .safetensors: keys layer_{i} (read only)", ("safetensors",), claims, read)
