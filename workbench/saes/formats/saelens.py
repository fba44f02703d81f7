"""The SAELens directory: cfg.json and sae_weights.safetensors, read without importing sae_lens, written by its rules.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError
from workbench.base.store import read_json, sha256_file, write_json
from workbench.saes.interface import SparseAutoencoder

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from workbench.saes.formats.files import Foreign

WEIGHTS, CONFIG = "sae_weights.safetensors", "cfg.json"


def claims(folder: Path) -> bool:
    """A folder with `sae_weights.safetensors`."""
    return (folder / WEIGHTS).is_file()


def read(folder: Path, file: Path | None = None) -> Foreign:
    """The SAE in a SAELens folder, all its preprocessing folded in.

    Raises WorkbenchError for missing files, architectures or normalisations that cannot be read, and wrong shapes.
    """
    from workbench.base.tensors import load_tensors
    from workbench.saes.formats.saelens_state import assemble, beside, modern

    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise WorkbenchError(
                f"{folder} has no {name}",
                f"a SAELens folder with cfg.json and {WEIGHTS}",
                "check the path given to load_sae",
            )
    cfg = modern(read_json(folder / CONFIG))
    return assemble(
        cfg,
        load_tensors(folder / WEIGHTS),
        where=folder / WEIGHTS,
        files=(folder / WEIGHTS, folder / CONFIG, *beside(folder, cfg)),
        density=_density(folder),
    )


def load(folder: Path, *, id: str | None = None, device: str = "cpu") -> SparseAutoencoder:
    """The SAE in a SAELens folder, float32 on `device`, with its card when there is one."""
    folder = Path(folder)
    sae = read(folder)
    if sae.hook is None:
        raise WorkbenchError(
            f"{folder / CONFIG} does not say where the SAE reads",
            "metadata.hook_name, such as blocks.15.hook_resid_post",
            "add it, or bring the SAE to the shelf with `workbench sae import FOLDER --hook ...`",
        )
    card = read_json(folder / "card.json") if (folder / "card.json").is_file() else {}
    return finished(sae, id=id or str(folder), hash=sha256_file(folder / WEIGHTS), card=card, folder=folder).to(device)


def finished(
    sae: Foreign, *, id: str, hash: str, card: dict[str, Any], folder: Path | None = None
) -> SparseAutoencoder:
    """A foreign SAE that knows its place as the workbench's own kind."""
    assert sae.hook is not None
    weights = sae.weights
    return SparseAutoencoder(
        id=id,
        hook=sae.hook,
        model_name=sae.model or "unknown",
        architecture=sae.architecture,
        encoder=weights.encoder,
        encoder_bias=weights.encoder_bias,
        decoder_directions=weights.decoder,
        decoder_bias=weights.decoder_bias,
        weights_hash=hash,
        threshold=weights.threshold,
        k=sae.k,
        subtract_bias=sae.subtract_bias,
        density=sae.density,
        card=card,
        folder=folder,
    )


def write(
    sae: SparseAutoencoder, folder: Path, *, dtype: str = "float16", metadata: dict[str, Any] | None = None
) -> Path:
    """Write a SAELens inference folder; weights are stored in `dtype` (SAELens loads them into the cfg's float32).

    With an 8-bit `dtype` (float8_e4m3fn: half the size, three significant bits) biases and thresholds stay in float32.
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
    stored = {name: tensor.detach().to("cpu", _kind(tensor, dtype)).contiguous() for name, tensor in tensors.items()}
    save_tensors(Path(folder) / WEIGHTS, stored)
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


def rounded(sae: SparseAutoencoder, dtype: str) -> SparseAutoencoder:
    """The SAE as it will be read back from weights stored in `dtype`: what thresholds and figures should be taken on."""
    names = ("encoder", "encoder_bias", "decoder_directions", "decoder_bias", "threshold")
    tensors = {name: value for name in names if (value := getattr(sae, name)) is not None}
    return replace(sae, **{name: value.to(_kind(value, dtype)).float() for name, value in tensors.items()})


def _kind(tensor: Tensor, dtype: str) -> torch.dtype:
    import torch

    kind = getattr(torch, dtype)
    return torch.float32 if kind.itemsize == 1 and tensor.dim() == 1 else kind


def _density(folder: Path) -> Tensor | None:
    from workbench.base.tensors import load_tensors

    path = folder / "sparsity.safetensors"
    return (10.0 ** load_tensors(path)["sparsity"].float()) if path.is_file() else None
