"""Pieces of an index on disk: documents as token ids, and every feature that fires on them as sparse triples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workbench.base.errors import WorkbenchError
from workbench.base.store import read_json, sha256_file
from workbench.base.tensors import load_artifact, save_artifact
from workbench.labeling.contexts.streams import KINDS, is_scoring, kind_of

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


@dataclass(frozen=True, eq=False)
class Shard:
    """Documents one behind the other, and what fires on their tokens.

    `documents` are (id, source, group) each; document d has the tokens `starts[d]` to `starts[d + 1]` of `ids`, `roles` and
    `counted` [n_tokens]. `counted` is 0 on special tokens, first tokens and attention sinks: nothing fires there. Token t has the
    triples `code_starts[t]` to `code_starts[t + 1]` of `features` and `values`, features ascending, values above 0.
    `first_features` are the features that fire on first tokens of texts (one entry per feature and text), of which there are
    `n_first`.
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
        document = {"documents": [list(one) for one in self.documents], "n_first": self.n_first}
        save_artifact(folder, KIND, SCHEMA, document, tensors)

    @staticmethod
    def load(folder: Path) -> Shard:
        """A shard with its hash verified; WorkbenchError when its files do not fit each other."""
        document, tensors = load_artifact(folder, KIND, SCHEMA)
        _check(folder, document, tensors)
        arrays = {name: tensors[name].numpy() for name in _ARRAYS}
        return Shard(documents=_names(document["documents"]), n_first=int(document["n_first"]), **arrays)


def shard_folder(index: Path, number: int) -> Path:
    """Where shard `number` of an index lies."""
    return index / "shards" / f"{number:05d}"


def is_written(folder: Path) -> bool:
    """Whether the shard in this folder was finished."""
    return (folder / f"{KIND}.json").is_file()


def shard_hash(folder: Path) -> str:
    """The hash of a shard's JSON, which holds that of its tensors."""
    return sha256_file(folder / f"{KIND}.json")


def documents_of(folder: Path) -> tuple[tuple[str, str, str], ...]:
    """(id, source, group) of a written shard's documents."""
    document = read_json(folder / f"{KIND}.json")
    try:
        return _names(document["documents"])
    except (KeyError, TypeError) as error:
        raise _damaged(folder, "names no documents") from error


def _names(listed: Iterable[Any]) -> tuple[tuple[str, str, str], ...]:
    return tuple((str(name), str(source), str(group)) for name, source, group in listed)


def _check(folder: Path, document: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    missing = [name for name in _ARRAYS if name not in tensors]
    if missing or "documents" not in document or "n_first" not in document:
        raise _damaged(folder, f"lacks {', '.join(missing) or 'its documents'}")
    n_tokens, n_codes = len(tensors["ids"]), len(tensors["features"])
    ends = (len(tensors["starts"]) == len(document["documents"]) + 1 and int(tensors["starts"][-1]) == n_tokens
            and len(tensors["code_starts"]) == n_tokens + 1 and int(tensors["code_starts"][-1]) == n_codes
            and len(tensors["values"]) == n_codes)  # fmt: skip
    if not ends:
        raise _damaged(folder, "holds arrays that do not fit each other")


def _damaged(folder: Path, what: str) -> WorkbenchError:
    return WorkbenchError(
        f"the piece of an index in {folder} {what}",
        "a piece as `workbench features index` writes it",
        "delete the folder of that piece and build the index again: the other pieces are kept",
    )
