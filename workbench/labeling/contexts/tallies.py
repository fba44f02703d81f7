"""Everything that an index counts of every feature, as arrays that grow with the SAE and never with the text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

import numpy as np

from workbench.base.display import Shown
from workbench.labeling.contexts.places import (
    BestPlaces,
    Places,
    positive,
    scrambled,
    value_scores,
    window_bounds,
    window_texts,
)
from workbench.labeling.contexts.shards import Shard
from workbench.labeling.contexts.sightings import N_BINS
from workbench.labeling.contexts.streams import KINDS, ROLES
from workbench.labeling.words import words_of

N_POOLS = 2 * len(KINDS)
N_POSITIONS = 12
"""Bins of token positions, doubling: 0, 1, 2-3, 4-7, ..., 1024 and later."""
MOST_SOURCES = 256
N_TOKENS_LISTED = 32
N_RANDOM = 60
MOST_WORDS = 100_000
SAMPLE_BINS = (N_BINS + 1) // 2
"""Bins that contexts are sampled from: two to the octave."""
BINS_OF_A_FEATURE = 5
"""Bins that places are sampled from in each pool of a usual feature (4.8 over 731,000 tokens)."""
OTHER = "(other sources)"


@dataclass(frozen=True)
class Sizes:
    """How much is kept: tokens of a context, the strongest contexts of each feature, kind of source and half, those of each
    activation bin, and how many of them one source may give."""

    context: int = 24
    n_top: int = 20
    per_bin: int = 3
    per_source: int | None = None

    @property
    def cap(self) -> int:
        """Places of one source among the strongest: three quarters of them unless said otherwise."""
        return self.per_source or max(1, -(-3 * self.n_top // 4))


    def bytes_per_feature(self, n_sources: int = 24) -> tuple[int, int]:
        """About how many bytes a feature takes on disk and, while it is built, in memory (places twice, dense histograms)."""
        places = 40 * N_POOLS * (self.n_top + BINS_OF_A_FEATURE * self.per_bin)
        counts = 16 * (N_POOLS + len(ROLES) + N_POSITIONS + n_sources) + 16 * N_TOKENS_LISTED + 8 * N_POOLS
        return places + counts + 16 * 64, 2 * places + counts + 4 * N_POOLS * N_BINS


@dataclass(eq=False, repr=False)
class Split(Shown):
    """One way to divide tokens: per part and feature how often it fires and its summed activations, and the tokens per part."""

    fired: np.ndarray
    total: np.ndarray
    tokens: np.ndarray

    @staticmethod
    def of(n_parts: int, d_sae: int) -> Split:
        return Split(np.zeros((n_parts, d_sae), np.int64), np.zeros((n_parts, d_sae)), np.zeros(n_parts, np.int64))

    def add(self, part_of_token: np.ndarray, counted: np.ndarray, tokens: np.ndarray, shard: Shard) -> None:
        """`part_of_token` [n_tokens]; `tokens` of each triple of the shard."""
        n_parts, d_sae = self.fired.shape
        self.tokens += np.bincount(part_of_token[counted], minlength=n_parts)
        keys = part_of_token[tokens] * d_sae + shard.features
        self.fired += np.bincount(keys, minlength=n_parts * d_sae).reshape(n_parts, d_sae)
        self.total += np.bincount(keys, weights=shard.values, minlength=n_parts * d_sae).reshape(n_parts, d_sae)


class TokenCounts:
    """Per feature the tokens that it fires on most, at most `capacity` each.

    Source: the mergeable summaries of Misra and Gries (Agarwal et al. 2012, section 3): a count is at most `missed[feature]` too
    low and never too high, and exact while the feature knows no more than `capacity` tokens.
    """

    def __init__(self, d_sae: int, vocab_size: int, capacity: int = N_TOKENS_LISTED):
        self.vocab_size, self.capacity = vocab_size, capacity
        self.keys, self.counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self.missed = np.zeros(d_sae, np.int64)

    def add(self, features: np.ndarray, tokens: np.ndarray) -> None:
        keys, counts = np.unique(features.astype(np.int64) * self.vocab_size + tokens, return_counts=True)
        merged, places = np.unique(np.concatenate([self.keys, keys]), return_inverse=True)
        total = np.bincount(places, weights=np.concatenate([self.counts, counts]), minlength=len(merged)).astype(np.int64)
        owners = merged // self.vocab_size
        order = np.lexsort((merged, -total, owners))
        starts = np.searchsorted(owners[order], np.arange(len(self.missed) + 1))
        over = np.flatnonzero(np.diff(starts) > self.capacity)
        cut = np.zeros(len(self.missed), np.int64)
        cut[over] = total[order][starts[over] + self.capacity]
        self.missed += cut
        left = total - cut[owners]
        self.keys, self.counts = merged[left > 0], left[left > 0]


@dataclass(eq=False)
class Tally:
    """The running state of an index: a function of the shards that were added, in their order."""

    d_sae: int
    vocab_size: int
    sizes: Sizes
    seed: int = 0
    n_read: int = 0
    n_documents: int = 0
    n_first: int = 0
    sources: list[str] = field(default_factory=list)
    words: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        d_sae = self.d_sae
        self.pools, self.roles = Split.of(N_POOLS, d_sae), Split.of(len(ROLES), d_sae)
        self.positions, self.by_source = Split.of(N_POSITIONS, d_sae), Split.of(0, d_sae)
        self.largest = np.zeros((N_POOLS, d_sae), np.float32)
        self.histogram = np.zeros((N_POOLS, d_sae, N_BINS), np.int32)
        self.first_fired = np.zeros(d_sae, np.int64)
        self.tokens = TokenCounts(d_sae, self.vocab_size)
        self.top = BestPlaces(self.sizes.n_top, self.sizes.cap)
        self.spread = BestPlaces(self.sizes.per_bin, self.sizes.per_bin)
        self.random = BestPlaces(N_RANDOM, N_RANDOM)

    def add(self, shard: Shard) -> None:
        """Take a shard in."""
        tokens, documents = shard.token_of_code, shard.document_of_token
        counted = shard.counted.astype(bool)
        pool, source = shard.pools[documents], self._sources(shard)
        position = np.arange(shard.n_tokens) - shard.starts[documents]
        self.pools.add(pool, counted, tokens, shard)
        self.roles.add(shard.roles.astype(np.int64), counted, tokens, shard)
        self.positions.add(position_bin(position), counted, tokens, shard)
        self.by_source.add(source[documents], counted, tokens, shard)
        self.first_fired += np.bincount(shard.first_features, minlength=self.d_sae)
        self.tokens.add(shard.features, shard.ids[tokens])
        bins = activation_bins(shard.values)
        np.maximum.at(self.largest, (pool[tokens], shard.features), shard.values)
        np.add.at(self.histogram, (pool[tokens], shard.features, bins), 1)
        self._offer(shard, tokens, bins, source)
        self.n_first += shard.n_first
        self.n_documents += len(shard.documents)
        self.n_read += shard.n_tokens

    def read_words(self, tokenizer: Any, shard: Shard) -> None:
        """Count the words of the documents; beyond MOST_WORDS the rarer half is forgotten."""
        for start, stop in zip(shard.starts[:-1], shard.starts[1:], strict=True):
            text = tokenizer.decode(shard.ids[start:stop].tolist(), clean_up_tokenization_spaces=False)
            self.words.update(words_of(text))
        if len(self.words) > MOST_WORDS:
            ordered = sorted(self.words.items(), key=lambda item: (-item[1], item[0]))
            self.words = Counter(dict(ordered[: MOST_WORDS // 2]))

    def _sources(self, shard: Shard) -> np.ndarray:
        """The number of each document's source; from the MOST_SOURCES-th on they count together."""
        for _, source, _ in shard.documents:
            if source not in self.sources:
                self.sources += [source if len(self.sources) < MOST_SOURCES - 1 else OTHER] * (OTHER not in self.sources)
        missing = len(self.sources) - len(self.by_source.tokens)
        if missing:
            old, new = self.by_source, Split.of(missing, self.d_sae)
            self.by_source = Split(np.concatenate([old.fired, new.fired]), np.concatenate([old.total, new.total]),
                                   np.concatenate([old.tokens, new.tokens]))  # fmt: skip
        known = {source: number for number, source in enumerate(self.sources)}
        return np.array([known.get(source, len(known) - 1) for _, source, _ in shard.documents], np.int64)

    # ---------------------------------------------------------------------------------------------- places

    def _offer(self, shard: Shard, tokens: np.ndarray, bins: np.ndarray, source: np.ndarray) -> None:
        """One place of every document and feature for the strongest (its peak), one for the sample (any token it fires on)."""
        names = document_numbers(shard.documents, self.seed)
        documents = shard.document_of_token[tokens]
        order, starts, sizes = _firings(documents * self.d_sae + shard.features)
        owner, feature = documents[order][starts], shard.features[order][starts].astype(np.int64)
        luck = scrambled(names[owner], feature)
        group = shard.pools[owner] * self.d_sae + feature
        values = shard.values[order]
        peaks = _first_largest(values, starts, sizes)
        score = value_scores(values[peaks], luck)
        self._keep(self.top, shard, Places(group, score, tokens[order[peaks]], owner, source[owner], owner))
        drawn = starts + (luck % sizes.astype(np.uint64)).astype(np.int64)
        group = group * SAMPLE_BINS + bins[order[drawn]] // 2
        score = positive(scrambled(luck, 1))
        self._keep(self.spread, shard, Places(group, score, tokens[order[drawn]], owner, source[owner], owner))
        self._offer_random(shard, names, source)

    def _offer_random(self, shard: Shard, names: np.ndarray, source: np.ndarray) -> None:
        """One counted token of every document; the two halves are groups."""
        counted = np.flatnonzero(shard.counted)
        documents, starts, sizes = np.unique(shard.document_of_token[counted], return_index=True, return_counts=True)
        luck = scrambled(names[documents], self.d_sae)
        token = counted[starts + (luck % sizes.astype(np.uint64)).astype(np.int64)]
        places = Places(shard.pools[documents] % 2, positive(luck), token, documents, source[documents], documents)
        self._keep(self.random, shard, places)

    def _keep(self, best: BestPlaces, shard: Shard, places: Places) -> None:
        """Offer what is wanted, with the numbers of the whole index and the hash of its text (both are the shard's before)."""
        places = places[best.wanted(places.group, places.score)]
        token, owner = places.token, places.document
        begin, end = window_bounds(token, shard.starts[owner], shard.starts[owner + 1], self.sizes.context)
        text = window_texts(shard.ids, begin, end, self.sizes.context)
        best.offer(replace(places, token=self.n_read + token, document=self.n_documents + owner, text=text))


def position_bin(position: np.ndarray) -> np.ndarray:
    """The bin of a token's position in its document: 0, 1, 2-3, 4-7, ..."""
    return np.minimum(np.frexp(position.astype(np.float64))[1], N_POSITIONS - 1).astype(np.int64)


def activation_bins(values: np.ndarray) -> np.ndarray:
    """The bins of activations as `sightings.activation_bin` counts them: four to the octave, from 2^-10 to 2^15."""
    return np.clip(np.floor(4 * np.log2(values.astype(np.float64))) + 40, 0, N_BINS - 1).astype(np.int64)


def document_numbers(documents: Sequence[tuple[str, str, str]], seed: int) -> np.ndarray:
    """A random number (uint64) for every document: a function of the seed, its source and its id."""
    digests = (blake2b(f"{seed}\n{source}\n{name}".encode(), digest_size=8).digest() for name, source, _ in documents)
    return np.array([int.from_bytes(digest, "big") for digest in digests], np.uint64)


def _firings(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(order, starts, sizes): the triples sorted by key, each key's in the order of the text."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(keys) else np.zeros(0, np.int64)
    return order, starts, np.diff(np.append(starts, len(keys)))


def _first_largest(values: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The place of the first largest value of every run."""
    if not len(values):
        return np.zeros(0, np.int64)
    largest = np.repeat(np.maximum.reduceat(values, starts), sizes)
    at = np.flatnonzero(values == largest)
    run = np.repeat(np.arange(len(starts)), sizes)[at]
    return at[np.unique(run, return_index=True)[1]]
