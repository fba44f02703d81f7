"""dictionary_learning (saprmarks): `ae.pt`, a state dict, beside `config.json` with the trainer's settings.

What each class computes, from its own `encode` (dictionary.py, trainers/): AutoEncoder, AutoEncoderTopK, BatchTopKSAE,
MatryoshkaBatchTopKSAE and GatedAutoEncoder subtract the decoder bias first; AutoEncoderNew and JumpReluAutoEncoder do
not. A batch top-k SAE in use is a jump at one threshold for all features. `trainSAE(normalize_activations=True)` scales
the biases before it saves, so that files read raw activations.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.base.errors import WorkbenchError
from workbench.models.hookpoints import HookPoint
from workbench.saes.formats.files import Foreign, checked, load_pt, need, read_config, whole_number
from workbench.saes.formats.folding import Weights, gated_as_jumprelu

WEIGHTS, CONFIG = "ae.pt", "config.json"
LINEAR = ("encoder.weight", "encoder.bias", "decoder.weight")
PLAIN = ("W_enc", "b_enc", "W_dec", "b_dec")
CLASSES: dict[str, tuple[str, ...]] = {
    "AutoEncoder": (*LINEAR, "bias"),
    "AutoEncoderNew": (*LINEAR, "decoder.bias"),
    "AutoEncoderTopK": (*LINEAR, "b_dec"),
    "BatchTopKSAE": (*LINEAR, "b_dec", "threshold"),
    "MatryoshkaBatchTopKSAE": (*PLAIN, "threshold"),
    "JumpReluAutoEncoder": (*PLAIN, "threshold"),
    "GatedAutoEncoder": ("encoder.weight", "decoder.weight", "decoder_bias", "r_mag", "gate_bias", "mag_bias"),
}
"""The library's classes, each with the tensors that it needs."""

_OTHERS = {"AutoEncoderTopK": "topk", "AutoEncoder": "standard", "AutoEncoderNew": "standard"}
_SITES = {"resid_post": "hook_resid_post", "resid_pre": "hook_resid_pre"}


def claims(folder: Path) -> bool:
    """A folder with `ae.pt`."""
    return (folder / WEIGHTS).is_file()


def read(folder: Path, file: Path | None = None) -> Foreign:
    """The SAE in a trainer's folder, or in one checkpoint `file` of it."""
    path = file or folder / WEIGHTS
    tensors = load_pt(path)
    if isinstance(tensors.get("ae"), Mapping) and "encoder.weight" not in tensors:
        raise WorkbenchError(
            f"{path} is a backup of an unfinished training (step {tensors.get('step')})",
            "the state dict that the finished training wrote",
            "finish the training, or take a file of its `checkpoints` folder",
        )
    config = _config(path)
    stated = config.get("trainer")
    trainer: dict[str, Any] = stated if isinstance(stated, dict) else config
    name = _class(tensors, trainer, path)
    need(tensors, CLASSES[name], path, name)
    weights, notes = _weights(name, tensors, path)
    k = _k(tensors, trainer, path) if "TopK" in name else None
    return Foreign(
        weights,
        architecture=_OTHERS.get(name, "jumprelu"),
        layout=name,
        files=(path, *([_config_path(path)] if config else [])),
        config=config,
        k=k if name == "AutoEncoderTopK" else None,
        subtract_bias=name not in ("AutoEncoderNew", "JumpReluAutoEncoder"),
        model=trainer.get("lm_name") if isinstance(trainer.get("lm_name"), str) else None,
        hook=_hook(path, trainer, config.get("buffer")),
        dtype=tensors[CLASSES[name][0]].dtype,
        changed=name == "GatedAutoEncoder",
        notes=notes,
    )


def _config_path(path: Path) -> Path:
    beside = path.parent / CONFIG
    return path.parent.parent / CONFIG if not beside.is_file() and path.parent.name == "checkpoints" else beside


def _config(path: Path) -> dict[str, Any]:
    return read_config(_config_path(path))


def _class(tensors: Mapping[str, Any], trainer: Mapping[str, Any], path: Path) -> str:
    """The class that config.json names, or the only one that writes such tensors."""
    named = trainer.get("dict_class")
    if named is not None:
        if named not in CLASSES:
            raise WorkbenchError(
                f"{path} holds a {named}", f"one of {', '.join(CLASSES)}", "this class is not read here"
            )
        return named
    if "gate_bias" in tensors:
        return "GatedAutoEncoder"
    if "W_enc" in tensors:
        return "MatryoshkaBatchTopKSAE" if "group_sizes" in tensors else "JumpReluAutoEncoder"
    if "k" in tensors:
        raise WorkbenchError(
            f"{path} may be an AutoEncoderTopK or a BatchTopKSAE: both write these tensors, and they encode differently",
            f"a {CONFIG} beside it that says which",
            f'download it, or write {CONFIG} with {{"trainer": {{"dict_class": "BatchTopKSAE"}}}}',
        )
    return "AutoEncoderNew" if "decoder.bias" in tensors else "AutoEncoder"


def _weights(name: str, tensors: Mapping[str, Any], path: Path) -> tuple[Weights, tuple[str, ...]]:
    bias = tensors[next(key for key in ("b_dec", "bias", "decoder.bias", "decoder_bias") if key in CLASSES[name])]
    if name == "GatedAutoEncoder":
        return _gated(tensors, bias, path)
    plain = "W_enc" in CLASSES[name]
    encoder = tensors["W_enc"] if plain else tensors["encoder.weight"].T
    decoder = tensors["W_dec"] if plain else tensors["decoder.weight"].T
    encoder_bias = tensors["b_enc" if plain else "encoder.bias"]
    threshold, notes = None, ()
    if "threshold" in CLASSES[name]:
        threshold, notes = _threshold(tensors["threshold"], encoder, name, path)
    return checked(Weights(encoder, encoder_bias, decoder, bias, threshold), path), notes


def _gated(tensors: Mapping[str, Any], bias: Tensor, path: Path) -> tuple[Weights, tuple[str, ...]]:
    encoder, decoder = tensors["encoder.weight"].T, tensors["decoder.weight"].T
    for key in ("gate_bias", "mag_bias", "r_mag"):  # each as an encoder bias would have to be
        checked(Weights(encoder, tensors[key], decoder, bias), path)
    folded = gated_as_jumprelu(*(t.float() for t in (encoder, tensors["gate_bias"], tensors["mag_bias"], tensors["r_mag"])))
    weights = Weights(folded[0], folded[1], decoder, bias, folded[2])
    return checked(weights, path), ("a gated SAE, written as the JumpReLU SAE that equals it",)


def _threshold(threshold: Tensor, encoder: Tensor, name: str, path: Path) -> tuple[Tensor, tuple[str, ...]]:
    if threshold.numel() != 1 or name == "JumpReluAutoEncoder":
        return threshold, ()
    notes = ()
    if float(threshold) < 0:
        notes = ("the threshold was never set in training: every positive pre-activation counts, as the library does",)
    return torch.full((encoder.shape[-1],), float(threshold)), notes


def _k(tensors: Mapping[str, Any], trainer: Mapping[str, Any], path: Path) -> int:
    found = [whole_number(place["k"], "k", path) for place in (tensors, trainer) if place.get("k") is not None]
    if not found:
        raise WorkbenchError(f"{path} does not say how many features fire at once", "k", f"add it to {CONFIG}: trainer.k")
    if len(set(found)) > 1:
        raise WorkbenchError(
            f"{path} says k = {found[0]}, {CONFIG} says k = {found[1]}", "one k", "the two files belong to different SAEs"
        )
    return found[0]


def _hook(path: Path, trainer: Mapping[str, Any], buffer: Any) -> HookPoint | None:
    """The site that the submodule's name, or else the folder's, states; None where it is not plainly the residual stream.

    `io: in` means the submodule's input, which these names do not describe; `in_and_out` is a transcoder.
    """
    io = buffer.get("io") if isinstance(buffer, dict) else None
    if io in ("in_and_out", "in_to_out"):
        raise WorkbenchError(
            f"{path} is a transcoder (buffer.io is {io!r}): it maps one activation to another",
            "an SAE, which reconstructs its own input",
            "choose an SAE",
        )
    if io == "in":
        return None
    stated = trainer.get("submodule_name")
    for text in (stated,) if stated else (part for part in reversed(path.parts)):
        match = re.fullmatch(r"(resid_post|resid_pre)_layer_(\d+)", str(text))
        if match and trainer.get("layer", int(match[2])) == int(match[2]):
            return HookPoint(int(match[2]), _SITES[match[1]])
    return None
