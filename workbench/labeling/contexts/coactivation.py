"""Which features fire together: for every feature its closest partners, from as many documents as a bound of work allows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.base.display import Shown
from workbench.labeling.contexts.shards import Shard
from workbench.labeling.contexts.tallies import document_numbers

N_PARTNERS = 8
LEAST_TOGETHER = 3
"""Tokens that two features must share before they are called partners."""
MOST_PAIRS = 5e8
MOST_TRIPLES = 1e7
"""Bounds of the work and of the memory (8 bytes a triple): beyond them a part of the documents is read, drawn by their names."""
_CELLS = 1 << 22


@dataclass(frozen=True, eq=False, repr=False)
class CoActivation(Shown):
    """`partners` [d_sae, n] (-1 where there is none), the `together` tokens on which both fire [d_sae, n], `fired` [d_sae] tokens
    of each feature, all among `n_tokens` tokens; `share` of the documents that was read (1.0: the counts are exact)."""

    partners: np.ndarray
    together: np.ndarray
    fired: np.ndarray
    n_tokens: int
    share: float


def share_to_read(n_triples: int, n_pairs: float) -> float:
    """The share of documents that keeps to the bounds."""
    return min(1.0, MOST_TRIPLES / max(n_triples, 1), MOST_PAIRS / max(n_pairs, 1.0))


def coactivation(shards: Iterable[Shard], d_sae: int, share: float, *, seed: int = 0) -> CoActivation:
    """Partners by the cosine of two features' firing indicators, together / sqrt(fired_f x fired_g), the largest first.

    Exact over the documents that are read; an estimate for all others when `share` is below 1.
    """
    matrix = _indicators(shards, d_sae, share, seed)
    fired = np.asarray(matrix.sum(0)).ravel().astype(np.int64)
    columns = matrix.tocsc()
    n = min(N_PARTNERS, d_sae - 1)
    partners, together = np.full((d_sae, n), -1, np.int32), np.zeros((d_sae, n), np.int64)
    block = max(1, _CELLS // d_sae)
    for first in range(0, d_sae, block):
        _closest((columns[:, first : first + block].T @ matrix).tocoo(), fired, first, partners, together)
    return CoActivation(partners, together, fired, matrix.shape[0], share)


def _indicators(shards: Iterable[Shard], d_sae: int, share: float, seed: int) -> Any:
    from scipy.sparse import csr_matrix

    per_token, features = [np.zeros(0, np.int64)], [np.zeros(0, np.int32)]
    for shard in shards:
        drawn = document_numbers(shard.documents, seed).astype(np.float64) <= share * 2.0**64
        used = drawn[shard.document_of_token] & shard.counted.astype(bool)
        per_token.append(np.diff(shard.code_starts)[used])
        features.append(shard.features[used[shard.token_of_code]])
    ends = np.concatenate([[0], np.cumsum(np.concatenate(per_token))])
    every = np.concatenate(features)
    return csr_matrix((np.ones(len(every), np.float32), every, ends), shape=(len(ends) - 1, d_sae))


def _closest(counts: Any, fired: np.ndarray, first: int, partners: np.ndarray, together: np.ndarray) -> None:
    """Fill in the partners of a block of features from `counts`, the tokens shared by each of them (from `first` on) and each
    feature (sparse): most pairs share none."""
    kept = (counts.data >= LEAST_TOGETHER) & (counts.row + first != counts.col)
    rows, others, shared = counts.row[kept] + first, counts.col[kept], counts.data[kept]
    cosines = shared / np.sqrt(fired[rows].astype(np.float64) * fired[others])
    order = np.lexsort((others, -cosines, rows))
    rows, others, shared = rows[order], others[order], shared[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    best = rank < partners.shape[1]
    partners[rows[best], rank[best]] = others[best]
    together[rows[best], rank[best]] = shared[best]
