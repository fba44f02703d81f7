"""Documents through the model and the encoder to sparse triples: what is left of a batch of dense codes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from workbench.base.tensors import tensor_hash
from workbench.labeling.contexts.shards import Shard
from workbench.labeling.contexts.streams import TokenDocument
from workbench.labeling.tokens import special_ids
from workbench.saes.token_rows import SINK_RATIO, activations_at

if TYPE_CHECKING:
    from workbench.models.model import Model
    from workbench.saes.interface import SparseAutoencoder

CODE_CELLS = 1 << 22
"""Dense codes in memory at a time (16 MiB): tokens x d_sae."""

Sparse = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Of some tokens: how many features fire on each, which (ascending), how strongly."""


class Encoder:
    """Turns documents into shards: one model, one SAE, and the rules of what counts as firing."""

    def __init__(self, sae: SparseAutoencoder, model: Model, *, batch_tokens: int):
        self.sae, self.model, self.batch_tokens = sae, model, batch_tokens
        self.sink_norm = SINK_RATIO * float(model.norm_medians([sae.hook])[0])
        self.special = torch.tensor(special_ids(model.tokenizer), dtype=torch.long)

    @torch.no_grad()
    def shard(self, documents: Sequence[TokenDocument]) -> Shard:
        """The documents in the order given, whatever the batches they were read in."""
        n = len(documents)
        parts: list[Sparse] = [_NOTHING] * n
        firsts: list[np.ndarray] = []
        counted = [np.zeros(0, np.uint8)] * n
        n_first = 0
        for places, rows, is_text in self._activations(documents):
            masks = []
            for place, activations in zip(places, rows, strict=True):
                counts = self._counts(documents[place], activations, first=int(is_text))
                masks.append(counts)
                counted[place] = counts.numpy().astype(np.uint8)
            for place, sparse in zip(places, self._codes(rows, masks), strict=True):
                parts[place] = sparse
            if is_text:
                n_first += len(rows)
                firsts += [self._sparse(torch.stack([activations[0] for activations in rows]).float())[1]]
        return _joined(documents, parts, counted, firsts, n_first)

    def _activations(
        self, documents: Sequence[TokenDocument]
    ) -> Iterator[tuple[list[int], list[Tensor], bool]]:
        """(places, activations [n_tokens, d_model] of each, whether the first token is the first of a text), batch by batch."""
        for place, document in enumerate(documents):
            if document.activations is not None:
                yield [place], [document.activations[: len(document.ids)]], False
        for places in length_batches(documents, self.batch_tokens):
            ids, mask = padded([documents[place].ids for place in places])
            found = activations_at(self.model, self.sae.hook, ids, mask)
            yield places, [row[: len(documents[place].ids)] for place, row in zip(places, found, strict=True)], True

    def _counts(self, document: TokenDocument, rows: Tensor, *, first: int) -> Tensor:
        counts = (rows.float().norm(dim=-1) <= self.sink_norm).cpu() & ~torch.isin(torch.tensor(document.ids), self.special)
        counts[:first] = False
        return counts

    def _codes(self, rows: list[Tensor], masks: list[Tensor]) -> Iterator[Sparse]:
        """The triples of each document: the counted tokens of all are encoded together, then dealt out again."""
        every = torch.cat([row[mask.to(row.device)] for row, mask in zip(rows, masks, strict=True)])
        per_token, features, values = self._sparse(every.float())
        ends = np.concatenate([[0], np.cumsum(per_token)])
        done = 0
        for mask in masks:
            full = np.zeros(len(mask), np.int64)
            n = int(mask.sum())
            full[mask.numpy()] = per_token[done : done + n]
            yield full, features[ends[done] : ends[done + n]], values[ends[done] : ends[done + n]]
            done += n

    def _sparse(self, rows: Tensor) -> Sparse:
        together = max(1, CODE_CELLS // self.sae.d_sae)
        pieces = [sparse_codes(self.sae.encode(piece)) for piece in rows.split(together)] if len(rows) else [_NOTHING]
        counts, features, values = (np.concatenate(part) for part in zip(*pieces, strict=True))
        return counts, features, values


_NOTHING: Sparse = (np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))


def sparse_codes(codes: Tensor) -> Sparse:
    """Dense codes [n, d_sae] as triples: how many features fire on each token, which, how strongly (CPU)."""
    flat = codes.flatten()
    places = flat.nonzero().squeeze(1)
    values = flat[places].float().cpu().numpy()
    rows, features = np.divmod(places.cpu().numpy(), codes.shape[1])
    return np.bincount(rows, minlength=len(codes)), features.astype(np.int32), values


def length_batches(documents: Sequence[TokenDocument], batch_tokens: int) -> Iterator[list[int]]:
    """Places of the documents without activations, those of similar length together, `batch_tokens` positions at most."""
    places = [place for place, document in enumerate(documents) if document.activations is None]
    places.sort(key=lambda place: len(documents[place].ids))  # stable: equal lengths keep their order
    batch: list[int] = []
    for place in places:
        if batch and len(documents[place].ids) * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Right-padded ids [n, longest] and their mask."""
    width = max(len(row) for row in rows)
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
        mask[place, : len(row)] = 1
    return ids, mask


def _joined(
    documents: Sequence[TokenDocument], parts: list[Sparse], counted: list[np.ndarray], firsts: list[np.ndarray], n_first: int
) -> Shard:
    per_token = np.concatenate([part[0] for part in parts])
    return Shard(
        documents=tuple((document.id, document.source, document.group) for document in documents),
        ids=np.concatenate([np.array(document.ids, np.int32) for document in documents]),
        roles=roles_of(documents),
        counted=np.concatenate(counted),
        starts=np.concatenate([[0], np.cumsum([len(document.ids) for document in documents])]).astype(np.int64),
        code_starts=np.concatenate([[0], np.cumsum(per_token)]).astype(np.int64),
        features=np.concatenate([part[1] for part in parts]),
        values=np.concatenate([part[2] for part in parts]),
        first_features=np.concatenate([np.zeros(0, np.int32), *firsts]),
        n_first=n_first,
        given=given_hash(documents),
    )


def given_hash(documents: Sequence[TokenDocument]) -> str:
    """SHA-256 of the activations that the documents bring, in their order; those that bring none count as such."""
    digest = hashlib.sha256()
    for document in documents:
        found = document.activations
        digest.update(b"none" if found is None else tensor_hash(found[: len(document.ids)]).encode())
    return digest.hexdigest()


def roles_of(documents: Sequence[TokenDocument]) -> np.ndarray:
    """The role of every token of the documents, one behind the other (uint8)."""
    return np.concatenate([np.array(document.roles or (0,) * len(document.ids), np.uint8) for document in documents])
