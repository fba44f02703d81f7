"""Gemma Scope: `params.npz` (W_enc [d, d_sae], W_dec, b_enc, b_dec, threshold); Gemma Scope 2: `params.safetensors`.

Both are JumpReLU SAEs on raw activations that do not subtract b_dec: f = relu(p) where p = x W_enc + b_enc > threshold
(arXiv 2408.05147, section 2). The second release names its tensors in lower case and has a `config.json`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from workbench.base.errors import WorkbenchError
from workbench.base.tensors import load_tensors
from workbench.models.hookpoints import HookPoint
from workbench.saes.formats.files import Foreign, checked, load_npz, need, read_config
from workbench.saes.formats.folding import Weights

FIRST, SECOND, CONFIG = "params.npz", "params.safetensors", "config.json"
NAMES = ("w_enc", "b_enc", "w_dec", "b_dec", "threshold")
_REPOSITORY = re.compile(r"gemma-scope-(2b|9b|27b)-(pt|it)-(\w+)")
_SITES = {"res": "hook_resid_post", "mlp": "hook_mlp_out"}


def claims(folder: Path) -> bool:
    """A folder with `params.npz` or `params.safetensors`."""
    return (folder / FIRST).is_file() or (folder / SECOND).is_file()


def read(folder: Path, file: Path | None = None) -> Foreign:
    """The SAE in a folder of either release; transcoders and SAEs of attention heads are refused."""
    path = file or next(p for p in (folder / FIRST, folder / SECOND) if p.is_file())
    config = read_config(path.parent / CONFIG) if path.suffix == ".safetensors" else {}
    model, hook = _second_place(path, config) if path.suffix == ".safetensors" else _first_place(path)
    loaded = load_npz(path) if path.suffix == ".npz" else load_tensors(path)
    tensors = {name.lower(): tensor for name, tensor in loaded.items()}
    if "affine_skip_connection" in tensors:
        raise _not_read(path, "a transcoder")
    need(tensors, NAMES, path, "a Gemma Scope SAE")
    scale = tensors.get("scaling_factor")
    if scale is not None and not bool((scale == 1).all()):
        raise WorkbenchError(f"{path} scales its codes (scaling_factor)", "an SAE without", "choose another")
    encoder, encoder_bias, decoder, bias, threshold = (tensors[name] for name in NAMES)
    return Foreign(
        checked(Weights(encoder, encoder_bias, decoder, bias, threshold), path),
        architecture="jumprelu",
        layout="Gemma Scope 2" if path.suffix == ".safetensors" else "Gemma Scope",
        files=(path, *([path.parent / CONFIG] if config else [])),
        config=config,
        subtract_bias=False,
        model=model,
        hook=hook,
        dtype=encoder.dtype,
    )


def _first_place(path: Path) -> tuple[str | None, HookPoint | None]:
    """Model and hook as the repository's name (gemma-scope-2b-pt-res) and the folder (layer_20) tell them."""
    text = path.as_posix()
    found, layer = _REPOSITORY.search(text), re.search(r"/layer_(\d+)/", text)
    if "/embedding/" in text:
        raise _not_read(path, "an SAE of the token embeddings")
    if found is None:
        return None, None
    if found[3] not in _SITES:
        raise _not_read(path, {"att": "an SAE of attention heads (hook_z)"}.get(found[3], f"of the kind {found[3]!r}"))
    model = f"google/gemma-2-{found[1]}" + ("-it" if found[2] == "it" else "")
    return model, HookPoint(int(layer[1]), _SITES[found[3]]) if layer else None


def _second_place(path: Path, config: dict[str, Any]) -> tuple[str | None, HookPoint | None]:
    if config.get("architecture", "jump_relu") != "jump_relu":
        raise _not_read(path, f"of the architecture {config['architecture']!r}")
    read_at, written_at = str(config.get("hf_hook_point_in") or ""), config.get("hf_hook_point_out")
    if config.get("affine_connection") or (written_at and written_at != read_at):
        raise _not_read(path, "a transcoder")
    model = config.get("model_name")
    match = re.search(r"(?:^|\.)layers\.(\d+)\.(.+)$", read_at)
    if match is None:
        return model, None
    sites = {"output": "hook_resid_post", "post_feedforward_layernorm.output": "hook_mlp_out"}
    if match[2] not in sites:
        raise _not_read(path, f"of {read_at}")
    return model, HookPoint(int(match[1]), sites[match[2]])


def _not_read(path: Path, what: str) -> WorkbenchError:
    return WorkbenchError(
        f"{path} is {what}", "an SAE of the residual stream or of an MLP's output", "choose another"
    )
