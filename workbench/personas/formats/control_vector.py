"""GGUF control vectors of llama.cpp and repeng: tensors direction.{b} f32 [d_model], added to the output of block b.

The index is that of llama.cpp (src/llama-adapter.cpp: direction.b is added at layer b, counted from 0; 0 is refused)
and of repeng (ControlModel wraps layers[b]). repeng measures its last direction after the final norm, and the file
does not say so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.base.errors import WorkbenchError
from workbench.base.store import atomic_path
from workbench.models.gguf_header import TensorPlace, read_header
from workbench.models.hookpoints import RESIDUAL_POST
from workbench.personas.formats.files import (
    Format,
    Opened,
    Parsed,
    block_outputs,
    left_out,
    nothing_to_write,
)
from workbench.personas.formats.layered import LayeredVectors

ARCHITECTURE = "controlvector"
_NAME = re.compile(r"direction\.(\d{1,6})")
_TYPES = {0: torch.float32, 1: torch.float16}
_OWN = {"name": "workbench.model", "weights_hash": "workbench.weights_hash"}
_TRAIT = "workbench.trait"


def claims(opened: Opened, n_blocks: int | None) -> bool:
    """Any GGUF file: other architectures are refused when it is read."""
    return opened.kind == "gguf"


def read(opened: Opened) -> Parsed:
    """The directions as block outputs; `model` only in files that the workbench wrote (others give a model type)."""
    path = opened.path
    keys, places = read_header(opened.value, path)
    if keys.get("general.architecture") != ARCHITECTURE:
        raise WorkbenchError(
            f"{path} is a GGUF file of the architecture {keys.get('general.architecture')!r}",
            f"a control vector (architecture {ARCHITECTURE!r})",
            "pass the control vector, not the model",
        )
    named = {name: match for name in places if (match := _NAME.fullmatch(name))}
    layers = {int(match[1]): _tensor(opened.value, places[name], name, path) for name, match in named.items()}
    strange = sorted(set(places) - set(named))
    hint = keys.get("controlvector.model_hint")
    notes = [f"not read: {', '.join(strange[:4])}"] if strange else []
    notes += ["llama.cpp refuses files with direction.0"] if 0 in layers else []
    return Parsed(
        block_outputs(layers, path),
        "directions",
        trait=_text(keys.get(_TRAIT)),
        model={ours: keys[key] for ours, key in _OWN.items() if _text(keys.get(key))},
        notes=(f"made for the model type {hint!r}", *notes) if _text(hint) else tuple(notes),
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _tensor(data: bytes, place: TensorPlace, name: str, path: Path) -> Tensor:
    dtype, size = _TYPES.get(place.type), place.shape[0] if len(place.shape) == 1 else 0
    if dtype is None or not size:
        raise WorkbenchError(
            f"{path}: {name} has the shape {place.shape} and the ggml type {place.type}",
            "a tensor [d_model] of the type F32 (0) or F16 (1)",
            "write the control vector as float32",
        )
    end = place.start + size * dtype.itemsize
    if end > len(data):
        raise WorkbenchError(f"{path} ends within {name}", "a complete file", "download or write it again")
    return torch.frombuffer(bytearray(data[place.start : end]), dtype=dtype)


def write(vectors: LayeredVectors, path: Path) -> list[str]:
    """Write directions 1 and above as llama.cpp reads them; the model's type goes into the hint."""
    fits = [hook for hook in vectors.hooks if hook.site == RESIDUAL_POST and hook.block >= 1]
    if not fits:
        raise nothing_to_write(vectors, "a control vector (outputs of block 1 and above)")
    hint = _hint(vectors.model)
    with atomic_path(path) as temporary:
        _write(temporary, hint, vectors, {hook.block: vectors.at(hook) for hook in fits})
    first = [hook for hook in vectors.hooks if hook not in fits]
    notes = left_out(first, "llama.cpp takes outputs of block 1 and above only")
    return notes + [
        "llama.cpp adds each direction times its --control-vector-scaled factor: lengths are kept as they are"
    ]


def _hint(model: Mapping[str, Any]) -> str:
    """The model's type, such as "llama"; LlamaForCausalLM tells it as well."""
    stem = str(model.get("architecture") or "").split("For")[0].lower()
    return str(model.get("model_type") or stem or model.get("name"))


def _write(path: Path, hint: str, vectors: LayeredVectors, directions: dict[int, Tensor]) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(str(path), ARCHITECTURE)
    writer.add_string("controlvector.model_hint", hint)
    writer.add_uint32("controlvector.layer_count", len(directions))
    writer.add_string(_TRAIT, vectors.trait)
    for ours, key in _OWN.items():
        if vectors.model.get(ours):
            writer.add_string(key, str(vectors.model[ours]))
    for block, vector in directions.items():
        writer.add_tensor(f"direction.{block}", vector.detach().float().contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


FORMAT = Format("llama.cpp / repeng control vector .gguf: direction.{b}", ("gguf",), claims, read, write)
