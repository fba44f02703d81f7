"""The SAELens directory: cfg.json and sae_weights.safetensors, read without importing sae_lens, written by its rules."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError
from workbench.base.store import read_json, sha256_file, write_json
from workbench.models.hookpoints import HookPoint
from workbench.saes.interface import ARCHITECTURES, SparseAutoencoder

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "sae_weights.safetensors"


def read(folder: Path, *, id: str | None = None, device: str = "cpu") -> SparseAutoencoder:
    """The SAE in a SAELens folder, float32 on `device`, with its card when there is one.

    Raises WorkbenchError for missing files, architectures or normalisations that are not read here, and wrong shapes.
    """
    folder = Path(folder)
    for name in ("cfg.json", WEIGHTS):
        if not (folder / name).is_file():
            raise WorkbenchError(
                f"{folder} has no {name}",
                f"a SAELens folder with cfg.json and {WEIGHTS}",
                "check the path given to load_sae",
            )
    cfg = read_json(folder / "cfg.json")
    architecture = cfg.get("architecture", "standard")
    _check_config(folder, cfg, architecture)
    tensors = _load(folder / WEIGHTS, device)
    _check_shapes(folder, cfg, tensors, architecture)
    metadata = cfg.get("metadata") or {}
    card = read_json(folder / "card.json") if (folder / "card.json").is_file() else {}
    return SparseAutoencoder(
        id=id or str(folder),
        hook=HookPoint.parse(metadata.get("hook_name") or cfg.get("hook_name", "")),
        model_name=metadata.get("model_name") or cfg.get("model_name", "unknown"),
        architecture=architecture,
        encoder=tensors["W_enc"],
        encoder_bias=tensors["b_enc"],
        decoder_directions=tensors["W_dec"],
        decoder_bias=tensors["b_dec"],
        weights_hash=sha256_file(folder / WEIGHTS),
        threshold=tensors.get("threshold"),
        k=cfg.get("k"),
        subtract_bias=bool(cfg.get("apply_b_dec_to_input", True)),
        density=_density(folder),
        card=card,
        folder=folder,
    )


def write(
    sae: SparseAutoencoder, folder: Path, *, dtype: str = "float16", metadata: dict[str, Any] | None = None
) -> Path:
    """Write a SAELens inference folder; weights are stored in `dtype` (SAELens loads them into the cfg's float32).

    cfg.json is written last: a folder without it is unfinished.
    """
    import torch

    from workbench.base.tensors import save_tensors

    tensors = {
        "W_enc": sae.encoder,
        "b_enc": sae.encoder_bias,
        "W_dec": sae.decoder_directions,
        "b_dec": sae.decoder_bias,
    }
    if sae.threshold is not None:
        tensors["threshold"] = sae.threshold
    kind = getattr(torch, dtype)
    save_tensors(
        Path(folder) / WEIGHTS, {k: v.detach().to("cpu", kind).contiguous() for k, v in tensors.items()}
    )
    if sae.density is not None:
        log_density = torch.log10(sae.density.float().cpu() + 1e-10)
        save_tensors(Path(folder) / "sparsity.safetensors", {"sparsity": log_density})
    cfg: dict[str, Any] = {
        "architecture": sae.architecture,
        "d_in": sae.d_model,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.subtract_bias,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"model_name": sae.model_name, "hook_name": str(sae.hook), **(metadata or {})},
    }
    if sae.architecture == "topk":
        cfg |= {"k": sae.k, "rescale_acts_by_decoder_norm": False}
    if sae.card:
        write_json(Path(folder) / "card.json", sae.card)
    write_json(Path(folder) / "cfg.json", cfg)
    return Path(folder)


def _load(path: Path, device: str) -> dict[str, Tensor]:
    import torch

    from workbench.base.tensors import load_tensors

    tensors = {name: tensor.to(device, torch.float32) for name, tensor in load_tensors(path).items()}
    damaged = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if damaged:
        raise WorkbenchError(
            f"{path} holds NaN or infinite values in {', '.join(damaged)}", "finite weights", "fetch it again"
        )
    return tensors


def _density(folder: Path) -> Tensor | None:
    from workbench.base.tensors import load_tensors

    path = folder / "sparsity.safetensors"
    return (10.0 ** load_tensors(path)["sparsity"].float()) if path.is_file() else None


def _check_config(folder: Path, cfg: dict[str, Any], architecture: str) -> None:
    if architecture not in ARCHITECTURES:
        raise WorkbenchError(
            f"{folder} holds an SAE of architecture {architecture!r}",
            f"one of {', '.join(ARCHITECTURES)} (batchtopk SAEs are saved as jumprelu)",
            "save it with save_inference_model",
        )
    normalisation = cfg.get("normalize_activations", "none")
    if normalisation not in ("none", None) or cfg.get("rescale_acts_by_decoder_norm"):
        raise WorkbenchError(
            f"{folder} normalises its input at run time (normalize_activations={normalisation!r}, "
            f"rescale_acts_by_decoder_norm={cfg.get('rescale_acts_by_decoder_norm', False)})",
            "an SAE on raw activations",
            "fold the normalisation into the weights before saving",
        )


def _check_shapes(folder: Path, cfg: dict[str, Any], tensors: dict[str, Tensor], architecture: str) -> None:
    d_in, d_sae = cfg.get("d_in"), cfg.get("d_sae")
    expected = {"W_enc": (d_in, d_sae), "b_enc": (d_sae,), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
    if architecture == "jumprelu":
        expected["threshold"] = (d_sae,)
    for name, shape in expected.items():
        found = tuple(tensors[name].shape) if name in tensors else None
        if found != shape:
            raise WorkbenchError(
                f"{folder / WEIGHTS}: {name} has shape {found}",
                f"{shape}, from d_in={d_in} and d_sae={d_sae} in cfg.json",
                "the weights and cfg.json belong to different SAEs: copy both from one source",
            )
