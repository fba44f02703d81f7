"""EleutherAI sparsify: `sae.safetensors` (encoder.weight [d_sae, d], encoder.bias, W_dec [d_sae, d], b_dec), `cfg.json`.

Its `encode` subtracts b_dec, applies ReLU and keeps the k largest; `decode` adds b_dec (sparse_coder.py,
fused_encoder.py). W_dec has a row per feature, as here: SAELens' `sparsify_disk_loader` transposes it, and switches the
subtraction off for normalised decoders.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from workbench.base.errors import WorkbenchError
from workbench.base.tensors import load_tensors
from workbench.models.hookpoints import HookPoint
from workbench.saes.formats.files import Foreign, checked, need, read_config, whole_number
from workbench.saes.formats.folding import Weights

WEIGHTS, CONFIG = "sae.safetensors", "cfg.json"


def claims(folder: Path) -> bool:
    """A folder with `sae.safetensors`."""
    return (folder / WEIGHTS).is_file()


def read(folder: Path, file: Path | None = None) -> Foreign:
    """The SAE in a hook point's folder; transcoders, group-max and signed SAEs are refused."""
    path = file or folder / WEIGHTS
    config = read_config(path.parent / CONFIG)
    if not config:
        raise WorkbenchError(f"{path.parent} has no {CONFIG}", f"{CONFIG} beside {path.name}", "download both")
    _refuse(config, path)
    tensors = load_tensors(path)
    if "W_skip" in tensors:
        raise _not_read(path, "has a skip connection (W_skip)", "it maps one activation to another")
    need(tensors, ("encoder.weight", "encoder.bias", "W_dec", "b_dec"), path, "a sparsify SAE")
    weights = checked(
        Weights(tensors["encoder.weight"].T, tensors["encoder.bias"], tensors["W_dec"], tensors["b_dec"]), path
    )
    _check_widths(weights, config, path)
    run_path = path.parent.parent / "config.json"
    run = read_config(run_path)
    return Foreign(
        weights,
        architecture="topk",
        layout="SparseCoder",
        files=(path, path.parent / CONFIG, *([run_path] if run else [])),
        config={**config, **({"run": run} if run else {})},
        k=whole_number(config.get("k"), "k", path.parent / CONFIG),
        model=run.get("model") if isinstance(run.get("model"), str) else None,
        hook=_hook(path.parent.name),
        dtype=tensors["encoder.weight"].dtype,
    )


def _refuse(config: dict[str, Any], path: Path) -> None:
    activation = config.get("activation", "topk")
    if activation != "topk":
        raise _not_read(path, f"uses the activation {activation!r}", "it keeps the largest of each group, not the k largest")
    if config.get("signed"):
        raise _not_read(path, "is signed", "its codes may be negative")
    if config.get("transcode") or config.get("skip_connection"):
        raise _not_read(path, "is a transcoder", "it maps one activation to another")


def _not_read(path: Path, what: str, why: str) -> WorkbenchError:
    return WorkbenchError(f"the sparse coder in {path} {what}: {why}", "a top-k SAE with non-negative codes", "choose another")


def _check_widths(weights: Weights, config: dict[str, Any], path: Path) -> None:
    d_model, d_sae = weights.encoder.shape
    sizes = {name: whole_number(config[name], name, path.parent / CONFIG) for name in ("num_latents", "d_in", "expansion_factor")
             if config.get(name)}  # fmt: skip
    stated = sizes.get("num_latents") or sizes.get("d_in", 0) * sizes.get("expansion_factor", 0)
    if config.get("d_in", d_model) != d_model or (stated and stated != d_sae):
        raise WorkbenchError(
            f"{path} is {d_model} wide with {d_sae} features; {CONFIG} says d_in={config.get('d_in')} and {stated} latents",
            "weights and settings of one SAE",
            "copy both from one source",
        )


def _hook(name: str) -> HookPoint | None:
    """layers.5, model.layers.5 or h.5 is the output of block 5; of other modules the file does not tell our name."""
    match = re.fullmatch(r"(?:.*\.)?(?:layers|h|blocks)\.(\d+)", name)
    return HookPoint(int(match[1])) if match else None
