"""An SAE of the SAELens registry as the workbench's own kind, through SAELens' loader."""

from __future__ import annotations

import logging
import os
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError
from workbench.base.settings import setting
from workbench.saes.published import PublishedSae
from workbench.saes.search import local_files

if TYPE_CHECKING:
    from workbench.saes.formats.files import Foreign
    from workbench.saes.interface import SparseAutoencoder

logger = logging.getLogger(__name__)


# What SAELens and the libraries below it end with on files that they cannot read, beside refused pickles.
_UNREADABLE = (ValueError, RuntimeError, LookupError, TypeError, AttributeError, AssertionError, EOFError, zipfile.BadZipFile)


def load_published(entry: PublishedSae, *, device: str = "cpu") -> SparseAutoencoder:
    """The SAE of a registry entry, float32 on `device`; downloads what the hub cache lacks.

    Raises WorkbenchError, naming the files, when they cannot be had, and for kinds that are not read.
    """
    from workbench.base.tensors import tensor_hash
    from workbench.saes.formats import saelens

    sae, origin = fetch_published(entry)
    weights = {name: tensor for name, tensor in vars(sae.weights).items() if tensor is not None}
    return saelens.finished(sae, id=entry.id, hash=tensor_hash(weights), card={"imported": origin}).to(device)


def fetch_published(entry: PublishedSae) -> tuple[Foreign, dict[str, Any]]:
    """(the SAE, where it came from) of a registry entry."""
    from workbench.base.store import sha256_file
    from workbench.saes.formats import saelens_state

    if not entry.readable:
        raise WorkbenchError(
            f"{entry.id} reads {entry.hook} and is no SAE of a site that is read here",
            "an SAE of the residual stream, or of what attention or an MLP adds to it",
            "choose another (`workbench sae search`)",
        )
    _check_offline(entry)
    cfg, tensors, sparsity = _by_saelens(entry)
    density = None if sparsity is None else 10.0 ** sparsity.float()
    sae = saelens_state.assemble(saelens_state.modern(cfg), tensors, where=Path(entry.id), density=density)
    if sae.model is None or sae.model.split("/")[-1].lower() == entry.model.split("/")[-1].lower():
        sae = replace(sae, model=entry.model)  # some loaders drop the owner of the model
    files = {file["file"]: sha256_file(file["path"]) for file in local_files(entry) if file["path"]}
    origin = {"format": "saelens_registry", "layout": entry.conversion, "source": entry.id, "repo": entry.repo,
              "files": files, "config": dict(cfg), "notes": list(sae.notes)}  # fmt: skip
    return sae, origin


def is_offline() -> bool:
    """Whether downloads are switched off, for the workbench or for the hub's client."""
    said = (str(setting("offline", None, "")), os.environ.get("HF_HUB_OFFLINE", ""))
    return any(value.lower() in ("1", "true", "yes", "on") for value in said)


def _check_offline(entry: PublishedSae) -> None:
    missing = [file["file"] for file in local_files(entry) if not file["cached"]]
    # A config.json that was never published is not downloaded either: SAELens infers it from the names.
    if missing and is_offline() and not (entry.conversion == "gemma_3" and missing == [f"{entry.path}/config.json"]):
        raise _not_here(entry, "downloads are off")


def _by_saelens(entry: PublishedSae) -> tuple[dict[str, Any], dict[str, Any], Any]:
    import torch
    from huggingface_hub.errors import HfHubHTTPError
    from sae_lens import SAE
    from safetensors import SafetensorError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sae, _, sparsity = SAE.from_pretrained_with_cfg_and_sparsity(entry.release, entry.sae_id)
    except (OSError, HfHubHTTPError) as error:  # LocalEntryNotFoundError and connection errors are OSErrors
        if type(error) is OSError and all(file["cached"] for file in local_files(entry)):  # torch on half an archive
            raise _unreadable(entry, error) from error
        raise _not_here(entry, _reason(error)) from error
    except Exception as error:
        if isinstance(error, (*_UNREADABLE, SafetensorError)) or type(error).__name__ == "UnpicklingError":  # it needs code
            raise _unreadable(entry, error) from error
        raise
    tensors = {name: tensor.detach().to("cpu", torch.float32) for name, tensor in sae.state_dict().items()}
    return sae.cfg.to_dict(), tensors, sparsity


def _unreadable(entry: PublishedSae, error: Exception) -> WorkbenchError:
    return WorkbenchError(
        f"SAELens cannot load {entry.id} ({_reason(error)})",
        "an SAE that it reads",
        "choose another, update sae-lens, or delete its files from the hub cache where they are damaged",
    )


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__


def _not_here(entry: PublishedSae, reason: str) -> WorkbenchError:
    missing = [file["file"] for file in local_files(entry) if not file["cached"]] or list(entry.files)
    name = entry.files[0].rsplit("/", 1)[0]
    return WorkbenchError(
        f"{entry.id} is in the registry but not complete in the hub cache, and cannot be downloaded ({reason})",
        f"{', '.join(missing)} of the hub repository {entry.repo}",
        f"with a network, run `workbench sae pull {entry.id}`; or copy the cache of a machine that has them "
        f"(`hf download {entry.repo} --include '{name}*'`) to HF_HUB_CACHE",
    )
