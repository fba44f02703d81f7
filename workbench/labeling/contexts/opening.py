"""An index read from its folder: what must be there, and that nothing was changed since."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workbench.base.errors import WorkbenchError
from workbench.base.store import read_json, sha256_file
from workbench.base.tensors import load_artifact
from workbench.labeling.contexts.places import Places
from workbench.labeling.contexts.sightings import N_BINS
from workbench.labeling.contexts.streams import KINDS, ROLES
from workbench.labeling.contexts.tallies import N_POSITIONS, SAMPLE_BINS

PLACES = ("top", "spread", "random")
MOST = 2**40
"""No count of an index is larger."""
KIND, SCHEMA = "feature_index", 2
"""Schema 1 counted the random tokens of the scoring half as the explaining one's: `build_index` counts its pieces anew."""


def is_finished(folder: Path) -> bool:
    """Whether the folder holds an index that was built to its end."""
    return (folder / f"{KIND}.json").is_file()


def read_index(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(document, arrays) of a finished index, hashes verified; the pieces are verified when they are read."""
    if not is_finished(folder):
        begun = (folder / "settings.json").is_file()
        raise WorkbenchError(
            f"{folder} holds {'an index that was not finished' if begun else 'no index of features'}",
            "a folder that `workbench features index` wrote",
            "run that command again: it goes on where it stopped" if begun else "make one with `workbench features index`",
        )
    found = read_json(folder / f"{KIND}.json")
    if not isinstance(found, dict) or type(found.get("schema")) is not int:
        raise _damaged(folder, "does not say its schema")
    if schema_of(found) < SCHEMA:
        raise WorkbenchError(
            f"{folder} holds an index that an older version counted",
            f"an index of schema {SCHEMA}",
            "run `workbench features index` again with the same settings: its pieces are kept, nothing is read through the model",
        )
    document, tensors = load_artifact(folder, KIND, SCHEMA)
    if any(tensor.dtype == torch.bfloat16 for tensor in tensors.values()):
        raise _damaged(folder, "holds counts as bfloat16")
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    _check(folder, document, arrays)
    return document, arrays


def schema_of(document: Any) -> int:
    """The schema of an index's JSON or of its settings, which did not name it at first."""
    schema = document.get("schema", 1) if isinstance(document, dict) else SCHEMA
    return schema if type(schema) is int else SCHEMA


def stored_tokenizer(folder: Path) -> Any:
    """The tokenizer that an index keeps beside its texts (JSON, read as data)."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise WorkbenchError(f"{folder} holds no tokenizer", "tokenizer.json, or the model", "open the index with model=")
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    try:
        core = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain exceptions
        raise _damaged(folder, "has a tokenizer.json that is none") from error
    return PreTrainedTokenizerFast(tokenizer_object=core)


_FIELDS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "": {"sources": list, "shards": list, "files": dict, "key": str, "vocab_size": int, "n_documents": int},
    "sae": {"id": str, "d_sae": int, "weights_hash": str},
    "model": {"name": str, "weights_hash": str, "dtype": str},
    "sizes": {"context": int, "n_top": int, "per_bin": int},
    "coactivation": {"n_tokens": int, "share": (int, float)},
}


def _check(folder: Path, document: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Refuse a document or arrays that no `build_index` wrote: every field by its type, every array by its shape and range."""
    for part, known in _FIELDS.items():
        found = document.get(part) if part else document
        for name, kind in known.items():
            value = found.get(name) if isinstance(found, dict) else None
            odd = isinstance(value, bool) or (isinstance(value, (int, float)) and not 0 <= value < MOST)
            if not isinstance(value, kind) or odd:
                raise _damaged(folder, f"lacks {part or 'its'} {name}, or has it as something else")
    if not all(isinstance(name, str) for name in document["sources"]):
        raise _damaged(folder, "has sources that are no names")
    for one in document["shards"]:
        if not (isinstance(one, dict) and type(one.get("n_tokens")) is int and one["n_tokens"] > 0 and "sha256" in one):
            raise _damaged(folder, "does not say what its pieces are")
    if document["sizes"]["context"] < 1 or min(document["sae"]["d_sae"], document["vocab_size"]) < 1:
        raise _damaged(folder, "is of no features, no tokens or no context")
    _check_shapes(folder, document, arrays)
    _check_ranges(folder, document, arrays)
    for name, known in document["files"].items():
        if Path(name).name != name or not (folder / name).is_file() or sha256_file(folder / name) != known:
            raise WorkbenchError(
                f"{folder / name} is missing or was changed", "the file as it was written", "run `workbench features index` again"
            )
    if "words.json" not in document["files"]:
        raise _damaged(folder, "does not name words.json")


def _check_shapes(folder: Path, document: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    d_sae, n_pools = document["sae"]["d_sae"], 2 * len(KINDS)
    rows = {"pools": n_pools, "roles": len(ROLES), "positions": N_POSITIONS, "sources": len(document["sources"])}
    wanted: dict[str, tuple[int, ...]] = {f"{split}_tokens": (n,) for split, n in rows.items()}
    wanted |= {f"{split}_{what}": (n, d_sae) for split, n in rows.items() for what in ("fired", "total")}
    wanted |= {"largest": (n_pools, d_sae), "first_fired": (d_sae,), "token_missed": (d_sae,), "partners_fired": (d_sae,)}
    joint = [("histogram_keys", "histogram_counts"), ("token_keys", "token_counts")]
    joint += [tuple(f"{name}_{part.name}" for part in fields(Places)) for name in PLACES]
    for names in joint:
        wanted |= {name: (len(arrays.get(names[0], ())),) for name in names}
    n_partners = arrays["partners"].shape[-1] if "partners" in arrays and arrays["partners"].ndim else 0
    wanted |= {"partners": (d_sae, n_partners), "together": (d_sae, n_partners)}
    for name, shape in wanted.items():
        found = arrays.get(name)
        if found is None or found.shape != shape:
            raise _damaged(folder, f"has {name} of the shape {'none' if found is None else found.shape} instead of {shape}")
        if found.dtype.kind != ("f" if name.endswith("_total") or name == "largest" else "i"):
            raise _damaged(folder, f"has {name} as {found.dtype}")


def _check_ranges(folder: Path, document: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    d_sae, n_pools = document["sae"]["d_sae"], 2 * len(KINDS)
    limits = {"partners": (-1, d_sae), "token_keys": (0, d_sae * document["vocab_size"]),
              "histogram_keys": (0, n_pools * d_sae * N_BINS)}  # fmt: skip
    n_tokens = sum(one["n_tokens"] for one in document["shards"])
    for name, n_groups in zip(PLACES, (n_pools * d_sae, n_pools * d_sae * SAMPLE_BINS, 2), strict=True):
        limits |= {f"{name}_group": (0, n_groups), f"{name}_token": (0, n_tokens)}
        limits[f"{name}_source"] = (0, len(document["sources"]))
    for name, (least, limit) in limits.items():
        found = arrays[name]
        if found.size and not least <= int(found.min()) <= int(found.max()) < limit:
            raise _damaged(folder, f"has {name} outside {least} to {limit - 1}")
    for name in ("histogram_keys", "token_keys", *(f"{name}_group" for name in PLACES)):
        if (np.diff(arrays[name]) < 0).any():
            raise _damaged(folder, f"has {name} out of order")


def _damaged(folder: Path, what: str) -> WorkbenchError:
    return WorkbenchError(
        f"the index in {folder} {what}", "an index as `workbench features index` writes it", "run that command again"
    )
