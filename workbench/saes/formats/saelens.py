"""The SAELens directory: cfg.json and sae_weights.safetensors, read without importing sae_lens, written by its rules.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError
from workbench.base.store import describe_os_error, make_folder, read_json, sha256_file, write_json
from workbench.saes.interface import SparseAutoencoder

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from workbench.saes.formats.files import Foreign

logger = logging.getLogger(__name__)

WEIGHTS, CONFIG, SPARSITY, CARD = "sae_weights.safetensors", "cfg.json", "sparsity.safetensors", "card.json"
README = "README.md"
MADE_FROM_IT = ("training.svg", "placebos/placebo_codes.*", "causal_controls/*-kl*.json")
"""What this package writes beside an SAE and measures on its weights alone: patterns of files in its folder."""
LAYOUT = "6.54.0"  # the version of SAELens whose layout is written
_FIELDS = {
    "W_enc": "encoder",
    "b_enc": "encoder_bias",
    "W_dec": "decoder_directions",
    "b_dec": "decoder_bias",
    "threshold": "threshold",
}


def claims(folder: Path) -> bool:
    """A folder with `sae_weights.safetensors`."""
    return (folder / WEIGHTS).is_file()


def read(folder: Path, file: Path | None = None) -> Foreign:
    """The SAE in a SAELens folder, all its preprocessing folded in.

    Raises WorkbenchError for missing files, architectures or normalisations that cannot be read, and wrong shapes.
    """
    from workbench.base.tensors import load_tensors
    from workbench.saes.formats.files import read_config
    from workbench.saes.formats.saelens_state import assemble, beside, modern

    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise WorkbenchError(
                f"{folder} has no {name}",
                f"a SAELens folder with cfg.json and {WEIGHTS}",
                "check the path given to load_sae",
            )
    cfg = modern(read_config(folder / CONFIG))
    return assemble(
        cfg,
        load_tensors(folder / WEIGHTS),
        where=folder / WEIGHTS,
        files=(folder / WEIGHTS, folder / CONFIG, *beside(folder, cfg)),
        density=_density(folder, cfg),
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
    card = read_json(folder / CARD) if (folder / CARD).is_file() else {}
    card = card if isinstance(card, dict) else {}  # a stranger's
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
    Numbers that `dtype` cannot hold are refused before anything is written. A card is kept with the hash of the weights that
    it speaks of. An SAE that lies there is replaced: its cfg.json goes first and the new one comes last, so that a folder
    with a cfg.json is whole. Where the weights are others, what was measured on the old ones (MADE_FROM_IT) is deleted, and
    their README.md, in which people write too, becomes README.<first digits of their hash>.md; nothing else is touched.
    """
    from workbench.base.tensors import save_tensors

    folder = Path(folder)
    stored = {name: tensor.to("cpu").contiguous() for name, tensor in _stored(sae, dtype).items()}
    make_folder(folder)
    try:
        part = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
    except OSError as error:
        raise describe_os_error(error, folder) from error
    try:
        save_tensors(part / WEIGHTS, stored)
        if sae.density is not None:
            save_tensors(part / SPARSITY, {"sparsity": _log_density(sae.density)})
        if sae.card:
            write_json(part / CARD, {**sae.card, "weights_hash": sha256_file(part / WEIGHTS)})
        write_json(part / CONFIG, _config(sae, metadata))
        _move(part, folder)
    except OSError as error:
        raise describe_os_error(error, folder) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _move(part: Path, folder: Path) -> None:
    """The files of a complete SAE over those of an older one; what the new one has no file for is not left behind."""
    for name in (CONFIG, SPARSITY, CARD):
        (folder / name).unlink(missing_ok=True)
    old = sha256_file(folder / WEIGHTS) if (folder / WEIGHTS).is_file() else None
    if old is not None and old != sha256_file(part / WEIGHTS):
        _put_away(folder, old)
    for name in (WEIGHTS, SPARSITY, CARD, CONFIG):
        if (part / name).is_file():
            os.replace(part / name, folder / name)


def _put_away(folder: Path, old: str) -> None:
    """Nothing that speaks of the weights with the hash `old` stays beside others under a name that is read or uploaded."""
    for pattern in MADE_FROM_IT:
        for file in folder.glob(pattern):
            file.unlink()
        with contextlib.suppress(OSError):  # not there, or something of the user's is in it
            (folder / pattern).parent.rmdir()
    if (folder / README).is_file():
        kept = f"README.{old[:12]}.md"
        os.replace(folder / README, folder / kept)
        logger.warning("%s speaks of other weights and is called %s now.", folder / README, kept)


def _config(sae: SparseAutoencoder, metadata: dict[str, Any] | None) -> dict[str, Any]:
    cfg: dict[str, Any] = {
        "architecture": sae.architecture,
        "d_in": sae.d_model,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.subtract_bias,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": LAYOUT,  # SAELens takes a configuration without one for its old layout, and drops the rest
            "model_name": sae.model_name,
            "hook_name": str(sae.hook),
            **(metadata or {}),
        },
    }
    return cfg | ({"k": sae.k, "rescale_acts_by_decoder_norm": False} if sae.architecture == "topk" else {})


def rounded(sae: SparseAutoencoder, dtype: str) -> SparseAutoencoder:
    """The SAE as it will be read back from weights stored in `dtype`: what thresholds and figures should be taken on.

    Numbers that `dtype` cannot hold are refused, as by `write`.
    """
    stored = _stored(sae, dtype)
    return replace(sae, **{_FIELDS[name]: value.float() for name, value in stored.items()})


def _stored(sae: SparseAutoencoder, dtype: str) -> dict[str, Tensor]:
    """The tensors by their names in the file, in the types that they are stored in; finite, or refused."""
    import torch

    found: dict[str, Tensor] = {}
    for name, attribute in _FIELDS.items():
        if (tensor := getattr(sae, attribute)) is None:
            continue
        kind = _kind(tensor, dtype)
        found[name] = tensor.detach().to(kind)
        if not bool((tensor.abs() <= torch.finfo(kind).max).all()):  # some types turn the rest into NaN, some clip it
            raise _too_large(name, tensor, dtype)
    return found


def _too_large(name: str, tensor: Tensor, dtype: str) -> WorkbenchError:
    import torch

    if not bool(torch.isfinite(tensor.float()).all()):
        return WorkbenchError(
            f"{name} holds NaN or infinite values before it is stored as {dtype}", "finite weights", "train it again"
        )
    return WorkbenchError(
        f"{name} holds numbers up to {float(tensor.abs().max()):.4g}, which {dtype} cannot hold",
        f"numbers up to {torch.finfo(getattr(torch, dtype)).max:.4g}",
        "store it as float32 or bfloat16, which hold them",
    )


def _log_density(density: Tensor) -> Tensor:
    import torch

    return torch.log10(density.float().cpu() + 1e-10)


def _kind(tensor: Tensor, dtype: str) -> torch.dtype:
    import torch

    kind = getattr(torch, dtype)
    return torch.float32 if kind.itemsize == 1 and tensor.dim() == 1 else kind


def _density(folder: Path, cfg: dict[str, Any]) -> Tensor | None:
    from workbench.base.tensors import load_tensors
    from workbench.saes.formats.files import need

    path = folder / SPARSITY
    if not path.is_file():
        return None
    held = load_tensors(path)
    need(held, ("sparsity",), path, "how often each feature fires")
    found = held["sparsity"]
    if found.ndim != 1 or len(found) != cfg.get("d_sae", len(found)):
        raise WorkbenchError(
            f"{path}: sparsity has the shape {list(found.shape)}", f"[{cfg.get('d_sae')}], a number per feature",
            "copy the files of one SAE, or delete this one: it can be done without",
        )  # fmt: skip
    return 10.0 ** found.float()
