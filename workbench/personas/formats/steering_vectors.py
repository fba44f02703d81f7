"""steering-vectors: {"layer_activations": {layer: [d_model]}, "layer_type"}, layer b being block b.

The package has no file format of its own. Read are a pickled SteeringVector, its two fields as a dict, and the bare
{layer: tensor}; written are the two fields, for `SteeringVector(**torch.load(path, weights_only=True))`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from workbench.base.errors import unknown_name
from workbench.models.hookpoints import RESIDUAL_POST
from workbench.personas.formats.files import (
    Format,
    Opened,
    Parsed,
    SteeringVectorState,
    block_outputs,
    left_out,
    nothing_to_write,
    save_torch,
)
from workbench.personas.formats.layered import LayeredVectors

SITES = {"decoder_block": RESIDUAL_POST, "self_attn": "hook_attn_out", "mlp": "hook_mlp_out"}
_TYPES = {site: layer_type for layer_type, site in SITES.items()}


def claims(opened: Opened, n_blocks: int | None) -> bool:
    """A SteeringVector, its fields, or whole numbers with tensors."""
    value = opened.value
    if isinstance(value, SteeringVectorState):
        return True
    return isinstance(value, dict) and (
        "layer_activations" in value or (bool(value) and all(map(_is_layer, value.items())))
    )


def _is_layer(item: tuple[Any, Any]) -> bool:
    return type(item[0]) is int and isinstance(item[1], Tensor)


def read(opened: Opened) -> Parsed:
    """The vectors at the site that `layer_type` names (decoder_block when nothing does)."""
    value = opened.value
    layout, fields = _fields(value)
    layer_type = fields.get("layer_type", "decoder_block")
    if layer_type not in SITES:
        raise unknown_name("layer type that is read here", str(layer_type), SITES)
    activations = fields.get("layer_activations")
    activations = activations if isinstance(activations, dict) else {}
    return Parsed(block_outputs(activations, opened.path, SITES[layer_type]), layout)


def _fields(value: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(value, SteeringVectorState):
        return "object", {"layer_activations": value.layer_activations, "layer_type": value.layer_type}
    if isinstance(value, dict) and "layer_activations" in value:
        return "fields", value
    return "layers", {"layer_activations": value}


def write(vectors: LayeredVectors, path: Path) -> list[str]:
    """Write the vectors of one site: block outputs if there are any, else what attention or MLPs add."""
    present = {hook.site for hook in vectors.hooks}
    site = next((site for site in _TYPES if site in present), None)
    if site is None:
        raise nothing_to_write(vectors, "steering-vectors")
    fits = {hook.block: vectors.at(hook).clone() for hook in vectors.hooks if hook.site == site}
    save_torch(path, {"layer_activations": fits, "layer_type": _TYPES[site]})
    others = [hook for hook in vectors.hooks if hook.site != site]
    return left_out(others, f"a file has one layer type, here {_TYPES[site]}")


FORMAT = Format("steering-vectors .pt: {layer_activations, layer_type}", ("torch",), claims, read, write)
