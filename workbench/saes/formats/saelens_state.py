"""SAELens' configuration and state dict as an SAE on raw activations, with what it does at run time folded in.

Folded: gates, `rescale_acts_by_decoder_norm`, and a scaling or whitening of the input that is fixed (training checkpoints
keep those beside the weights). Refused: normalisations that depend on the token. Configurations of before version 6 are
understood.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.base.errors import WorkbenchError
from workbench.base.tensors import load_tensors
from workbench.models.hookpoints import HookPoint
from workbench.saes.formats import folding
from workbench.saes.formats.files import Foreign, check_numbers, checked, need, read_config, whole_number
from workbench.saes.formats.folding import Weights

SCALER, WHITENING = "activation_scaler.json", "activation_whitening.safetensors"
BATCH_TOPK = ("batchtopk", "matryoshka_batchtopk")
READ = ("standard", "topk", "jumprelu", "gated", *BATCH_TOPK)
"""The architectures that are read; the last two in training checkpoints, with their one threshold."""


def beside(folder: Path, cfg: Mapping[str, Any]) -> tuple[Path, ...]:
    """The files beside the weights that the normalisation of the input is read from."""
    used = (folder / name for name in (SCALER, WHITENING) if (folder / name).is_file())
    return tuple(used) if _normalisation(cfg) != "none" else ()


def assemble(
    cfg: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    where: Path,
    files: tuple[Path, ...] = (),
    density: Tensor | None = None,
) -> Foreign:
    """The SAE of a configuration and its state dict; `where` names the weights in errors."""
    architecture, normalisation = str(cfg.get("architecture", "standard")), _normalisation(cfg)
    _check_config(where, cfg, architecture, normalisation, tensors)
    _check_shapes(where, cfg, tensors, architecture)
    rescaled = bool(cfg.get("rescale_acts_by_decoder_norm")) and (architecture == "topk" or architecture in BATCH_TOPK)
    metadata = cfg.get("metadata") or {}
    changed = architecture == "gated" or rescaled or normalisation != "none"
    k = whole_number(cfg.get("k"), "k", where.parent / "cfg.json") if architecture == "topk" else None
    return Foreign(
        _weights(where, cfg, tensors, architecture, normalisation, rescaled),
        architecture=architecture if architecture in ("standard", "topk") else "jumprelu",
        layout=architecture,
        files=files,
        config=dict(cfg),
        k=k,
        subtract_bias=bool(cfg.get("apply_b_dec_to_input", True)),
        model=metadata.get("model_name") or None,
        hook=HookPoint.parse(metadata["hook_name"]) if metadata.get("hook_name") else None,
        dtype=tensors["W_enc"].dtype,
        changed=changed,
        density=density,
        notes=_notes(architecture, normalisation, rescaled),
    )


def modern(cfg: dict[str, Any]) -> dict[str, Any]:
    """A configuration as version 6 writes it: names and hook under `metadata`, top-k as an architecture."""
    cfg = dict(cfg)
    moved = {"hook_name": cfg.get("hook_name") or cfg.get("hook_point"), "model_name": cfg.get("model_name")}
    cfg["metadata"] = {**{name: value for name, value in moved.items() if value}, **_object(cfg, "metadata")}
    for name in moved:
        if (told := cfg["metadata"].get(name)) and not isinstance(told, str):
            raise WorkbenchError(f"the configuration's {name} is {told!r:.60}", "a text", "mend cfg.json")
    activation = cfg.get("activation_fn") or cfg.get("activation_fn_str")
    if activation == "topk" and cfg.get("architecture", "standard") == "standard":
        cfg |= {"architecture": "topk", "k": _object(cfg, "activation_fn_kwargs").get("k", cfg.get("k"))}
    return cfg


def _object(cfg: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = cfg.get(name) or {}
    if not isinstance(value, dict):
        raise WorkbenchError(f"the configuration's {name} is {value!r:.60}", "an object", "mend cfg.json")
    return value


def _normalisation(cfg: Mapping[str, Any]) -> str:
    stated = cfg.get("normalize_activations")
    if isinstance(stated, bool):  # before version 4
        return "expected_average_only_in" if stated else "none"
    return str(stated or "none")


def _weights(
    where: Path,
    cfg: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    architecture: str,
    normalisation: str,
    rescaled: bool,
) -> Weights:
    """The tensors in our shapes, folded in SAELens' order: the input's scale, decoder norms, the input's whitening."""
    for name, tensor in tensors.items():
        check_numbers(tensor, name, where)
    encoder, bias, threshold = tensors["W_enc"], tensors.get("b_enc"), tensors.get("threshold")
    if architecture == "gated":
        gate = (tensors[name].float() for name in ("b_gate", "b_mag", "r_mag"))
        encoder, bias, threshold = folding.gated_as_jumprelu(encoder.float(), *gate)
    elif architecture in BATCH_TOPK:
        threshold = torch.full((encoder.shape[1],), float(tensors["topk_threshold"]))
    elif architecture != "jumprelu":
        threshold = None
    assert bias is not None
    weights = folding.Weights(encoder, bias, tensors["W_dec"], tensors["b_dec"], threshold)
    if normalisation == "none" and not rescaled:
        return checked(weights, where)
    weights = weights.single()
    if normalisation == "expected_average_only_in":
        weights = _fold_scale(weights, _scale(where, cfg) or 1.0, rescaled)
    if rescaled:
        weights = folding.fold_decoder_norms(weights)
    if normalisation == "covariance_whitening":
        weights = _fold_whitening(weights.double(), where, subtracts=bool(cfg.get("apply_b_dec_to_input", True)))
    return checked(weights, where)


def _fold_scale(weights: Weights, factor: float, rescaled: bool) -> Weights:
    if rescaled and weights.threshold is not None:  # in units of codes times decoder norms, and those shrink
        weights = replace(weights, threshold=weights.threshold / factor)
    return folding.fold_input_scale(weights, factor)


def _fold_whitening(weights: Weights, where: Path, *, subtracts: bool) -> Weights:
    path, d_model = where.parent / WHITENING, weights.encoder.shape[0]
    held = load_tensors(path)
    expected = {"mean": [d_model], "matrix": [d_model, d_model], "inverse_matrix": [d_model, d_model]}
    need(held, tuple(expected), path, "a whitening of the input")
    for name, shape in expected.items():
        check_numbers(held[name], name, path)
        if list(held[name].shape) != shape:
            found = f"{path}: {name} has the shape {list(held[name].shape)}"
            raise WorkbenchError(found, f"{shape}, from the encoder's {d_model} rows", "copy the files of one SAE")
    held = {name: held[name].double() for name in expected}
    return folding.fold_whitening(weights, held["mean"], held["matrix"], held["inverse_matrix"], subtracts_bias=subtracts)


def _scale(where: Path, cfg: Mapping[str, Any]) -> float | None:
    """What the input was multiplied by in training: beside the weights, or added to the configuration."""
    stated = cfg.get("norm_scaling_factor")
    if stated is None and (where.parent / SCALER).is_file():
        stated = read_config(where.parent / SCALER).get("scaling_factor")
    return float(stated) if isinstance(stated, (int, float)) and stated > 0 else None


def _notes(architecture: str, normalisation: str, rescaled: bool) -> tuple[str, ...]:
    told = {
        "a gated SAE, written as the JumpReLU SAE that equals it": architecture == "gated",
        "a batch top-k training checkpoint, read with its threshold": architecture in BATCH_TOPK,
        "decoder norms are folded into the codes": rescaled,
        f"the input's normalisation ({normalisation}) is folded into the weights": normalisation != "none",
    }
    return tuple(text for text, holds in told.items() if holds)


def _check_config(
    where: Path, cfg: Mapping[str, Any], architecture: str, normalisation: str, tensors: Mapping[str, Tensor]
) -> None:
    if architecture not in READ:
        raise WorkbenchError(
            f"{where.parent} holds an SAE of architecture {architecture!r}",
            f"one of {', '.join(READ)}",
            "choose an SAE that reconstructs its own input with non-negative codes",
        )
    if (found := tensors.get("scaling_factor")) is not None and not bool((found == 1).all()):
        raise WorkbenchError(f"{where} scales its codes (scaling_factor)", "an SAE without", "fold it into W_dec first")
    if normalisation == "none":
        return
    foldable = {
        "expected_average_only_in": (
            _scale(where, cfg) is not None,
            f"{SCALER} beside the weights, or norm_scaling_factor in cfg.json",
        ),
        "covariance_whitening": ((where.parent / WHITENING).is_file(), f"{WHITENING} beside the weights"),
    }
    if normalisation not in foldable:
        raise WorkbenchError(
            f"{where.parent} normalises its input token by token (normalize_activations={normalisation!r})",
            "an SAE on raw activations: such a normalisation is not affine and cannot be folded into the weights",
            "choose another SAE",
        )
    known, needed = foldable[normalisation]
    if not known:
        raise WorkbenchError(
            f"{where.parent} normalises its input (normalize_activations={normalisation!r}) and does not say by how much",
            needed,
            "add it, or save the SAE with save_inference_model after folding",
        )


def _check_shapes(where: Path, cfg: Mapping[str, Any], tensors: Mapping[str, Tensor], architecture: str) -> None:
    d_in, d_sae = cfg.get("d_in"), cfg.get("d_sae")
    expected = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
    vectors = {"gated": ("b_gate", "b_mag", "r_mag"), "jumprelu": ("b_enc", "threshold")}
    expected |= dict.fromkeys(vectors.get(architecture, ("b_enc",)), (d_sae,))
    if architecture in BATCH_TOPK:
        expected["topk_threshold"] = ()
    for name, shape in expected.items():
        found = tuple(tensors[name].shape) if name in tensors else None
        if found != shape:
            raise WorkbenchError(
                f"{where}: {name} has shape {found}",
                f"{shape}, from d_in={d_in} and d_sae={d_sae} in cfg.json",
                "the weights and cfg.json belong to different SAEs: copy both from one source",
            )
