"""Pieces of an index on disk: documents as token ids, and every feature that fires on them as sparse triples."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.store import read_json, sha256_file
from workbench.base.tensors import load_artifact, save_artifact
from workbench.labeling.contexts.streams import KINDS, ROLES, is_scoring, kind_of

KIND, SCHEMA = "feature_codes", 1
_ARRAYS = {
    "ids": np.int32,
    "roles": np.uint8,
    "counted": np.uint8,
    "starts": np.int64,
    "code_starts": np.int64,
    "features": np.int32,
    "values": np.float32,
    "first_features": np.int32,
}


@dataclass(frozen=True, eq=False, repr=False)
class Shard(Shown):
    """Documents one behind the other, and what fires on their tokens.

    `documents` are (id, source, group) each; document d has the tokens `starts[d]` to `starts[d + 1]` of `ids`, `roles` and
    `counted` [n_tokens]. `counted` is 0 on special tokens, first tokens and attention sinks: nothing fires there. Token t has the
    triples `code_starts[t]` to `code_starts[t + 1]` of `features` and `values`, features ascending, values above 0.
    `first_features` are the features that fire on first tokens of texts (one entry per feature and text), of which there are
    `n_first`. `given` is the hash of the activations that the documents brought themselves (None: not known).
    """

    documents: tuple[tuple[str, str, str], ...]
    ids: np.ndarray
    roles: np.ndarray
    counted: np.ndarray
    starts: np.ndarray
    code_starts: np.ndarray
    features: np.ndarray
    values: np.ndarray
    first_features: np.ndarray
    n_first: int
    given: str | None = None

    @property
    def n_tokens(self) -> int:
        return len(self.ids)

    @cached_property
    def document_of_token(self) -> np.ndarray:
        """The number of each token's document [n_tokens]."""
        return np.repeat(np.arange(len(self.documents)), np.diff(self.starts))

    @cached_property
    def token_of_code(self) -> np.ndarray:
        """The token of each triple [n_codes]."""
        return np.repeat(np.arange(self.n_tokens), np.diff(self.code_starts))

    @cached_property
    def pools(self) -> np.ndarray:
        """The pool of each document [n_documents]: 2 x its kind + whether it is of the scoring half."""
        return np.array(
            [2 * KINDS.index(kind_of(source)) + is_scoring(group) for _, source, group in self.documents], dtype=np.int64
        )

    def save(self, folder: Path) -> None:
        """Write the shard to a folder of its own; the JSON comes last and vouches for the rest."""
        tensors = {name: torch.from_numpy(np.ascontiguousarray(getattr(self, name), kind)) for name, kind in _ARRAYS.items()}
        document = {"documents": [list(one) for one in self.documents], "n_first": self.n_first, "given": self.given}
        save_artifact(folder, KIND, SCHEMA, document, tensors)

    @staticmethod
    def load(folder: Path, *, d_sae: int, vocab_size: int) -> Shard:
        """A shard with its hash verified; WorkbenchError when its files do not fit each other, the SAE or the vocabulary."""
        document, tensors = load_artifact(folder, KIND, SCHEMA)
        missing = [name for name in _ARRAYS if name not in tensors]
        if missing:
            raise _damaged(folder, f"lacks {missing[0]}")
        arrays = {name: tensors[name].numpy() for name in _ARRAYS}
        names, n_first, given = _names(folder, document), document.get("n_first"), document.get("given")
        if type(n_first) is not int or n_first < 0 or not (given is None or isinstance(given, str)):
            raise _damaged(folder, "does not say how many first tokens it holds, or what its activations were")
        _check(folder, len(names), arrays, d_sae, vocab_size)
        return Shard(documents=names, n_first=n_first, given=given, **arrays)


def shard_folder(index: Path, number: int) -> Path:
    """Where shard `number` of an index lies."""
    return index / "shards" / f"{number:05d}"


def is_written(folder: Path) -> bool:
    """Whether the shard in this folder was finished, and neither of its files is gone."""
    return (folder / f"{KIND}.json").is_file() and (folder / f"{KIND}.safetensors").is_file()


def shard_hash(folder: Path) -> str:
    """The hash of a shard's JSON, which holds that of its tensors."""
    return sha256_file(folder / f"{KIND}.json")


def documents_of(folder: Path) -> tuple[tuple[str, str, str], ...]:
    """(id, source, group) of a written shard's documents."""
    return _names(folder, read_json(folder / f"{KIND}.json"))


def _names(folder: Path, document: Any) -> tuple[tuple[str, str, str], ...]:
    listed = document.get("documents") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise _damaged(folder, "names no documents")
    for one in listed:
        if not (isinstance(one, list) and len(one) == 3 and all(isinstance(part, str) for part in one)):
            raise _damaged(folder, "names a document without its id, source and group")
    return tuple(map(tuple, listed))


def _check(folder: Path, n_documents: int, arrays: dict[str, np.ndarray], d_sae: int, vocab_size: int) -> None:
    for name, kind in _ARRAYS.items():
        if arrays[name].ndim != 1 or arrays[name].dtype != kind:
            raise _damaged(folder, f"holds {name} that are no row of {np.dtype(kind).name}")
    n_tokens, n_codes = len(arrays["ids"]), len(arrays["features"])
    fit = (_rises(arrays["starts"], n_documents, n_tokens) and _rises(arrays["code_starts"], n_tokens, n_codes)
           and len(arrays["values"]) == n_codes and len(arrays["roles"]) == len(arrays["counted"]) == n_tokens)  # fmt: skip
    if not fit:
        raise _damaged(folder, "holds arrays that do not fit each other")
    limits = {"features": d_sae, "first_features": d_sae, "ids": vocab_size, "roles": len(ROLES), "counted": 2}
    for name, limit in limits.items():
        if len(arrays[name]) and not 0 <= int(arrays[name].min()) <= int(arrays[name].max()) < limit:
            raise _damaged(folder, f"holds {name} outside 0 to {limit - 1}")
    if not (arrays["values"] > 0).all():
        raise _damaged(folder, "holds activations that are not above 0")


def _rises(starts: np.ndarray, n: int, last: int) -> bool:
    """Whether these are the beginnings of n parts of `last` things, and the end."""
    return len(starts) == n + 1 and starts[0] == 0 and starts[-1] == last and bool((np.diff(starts) >= 0).all())


def _damaged(folder: Path, what: str) -> WorkbenchError:
    return WorkbenchError(
        f"the piece of an index in {folder} {what}",
        "a piece as `workbench features index` writes it",
        "delete the folder of that piece and build the index again: the other pieces are kept",
    )
