"""The best places of every group in bounded memory: vectorised, and the same whatever order they are offered in."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np

from workbench.base.display import Shown

_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB), np.uint64(0x9E3779B97F4A7C15))


BLOCK = 1 << 17
"""Rows that are sorted at a time: what is kept is never copied more than once."""


@dataclass(frozen=True, eq=False, repr=False)
class Places(Shown):
    """Places in documents, one a row: `group` (what they compete in), `score` (the largest ones are kept), `token` (number in the
    whole index), `document` and `source` (numbers as well), and `text`, the hash of the window around it; int64, but for
    `document` and `source`, which are kept as int32."""

    group: np.ndarray
    score: np.ndarray
    token: np.ndarray
    document: np.ndarray
    source: np.ndarray
    text: np.ndarray

    def __post_init__(self) -> None:
        for name in ("document", "source"):
            object.__setattr__(self, name, getattr(self, name).astype(np.int32, copy=False))

    def __len__(self) -> int:
        return len(self.group)

    def __getitem__(self, rows: np.ndarray | slice) -> Places:
        return Places(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @staticmethod
    def joined(parts: list[Places]) -> Places:
        return Places(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Places)})

    @staticmethod
    def none() -> Places:
        return Places(*(np.zeros(0, np.int64) for _ in fields(Places)))


class BestPlaces:
    """At most `capacity` places of each group: those of the largest scores, no text of one source twice, and at most
    `per_source` of one source.

    What is kept depends on what was offered alone, not on the order: of equal texts of a source the largest score stands, and a
    place that is dropped is beaten by others that no later one can remove. Ask `wanted` first: most places are not.
    """

    def __init__(self, capacity: int, per_source: int):
        self.capacity, self.per_source = capacity, per_source
        self.kept = Places.none()  # sorted by group, then from the largest score down
        self.full = (np.zeros(0, np.int64), np.zeros(0, np.int64))  # groups with no place left, and the score to beat

    def wanted(self, group: np.ndarray, score: np.ndarray) -> np.ndarray:
        """Which of the places could still be kept (bool)."""
        groups, least = self.full
        if not len(groups):
            return np.ones(len(group), bool)
        at = np.minimum(np.searchsorted(groups, group), len(groups) - 1)
        return (groups[at] != group) | (score > least[at])

    def offer(self, places: Places) -> None:
        """Take places in; only the groups that they belong to are sorted again, BLOCK rows or so at a time."""
        if not len(places):
            return
        places = places[np.argsort(places.group, kind="stable")]
        edges = np.unique(np.sort(np.concatenate([self.kept.group, places.group]))[::BLOCK][1:])
        old, new = _slices(self.kept.group, edges), _slices(places.group, edges)
        self.kept = Places.joined([self._merged(self.kept[a], places[b]) for a, b in zip(old, new, strict=True)])
        starts, sizes = _segments(self.kept.group)
        filled = sizes >= self.capacity
        self.full = self.kept.group[starts[filled]], self.kept.score[starts[filled] + self.capacity - 1]

    def _merged(self, kept: Places, places: Places) -> Places:
        if not len(places):
            return kept
        touched = np.unique(places.group)
        at = np.minimum(np.searchsorted(touched, kept.group), len(touched) - 1)
        again = touched[at] == kept.group
        merged = Places.joined([kept[~again], self._best(Places.joined([kept[again], places]))])
        return merged[np.argsort(merged.group, kind="stable")]

    def _best(self, places: Places) -> Places:
        places = places[np.lexsort((places.token, -places.score, places.group))]
        same = scrambled(places.group, places.source, places.text)
        places = places[np.sort(np.unique(same, return_index=True)[1])]
        places = places[_rank(scrambled(places.group, places.source)) < self.per_source]
        return places[_rank(places.group) < self.capacity]


def scrambled(*parts: np.ndarray | int) -> np.ndarray:
    """A 64-bit number (uint64) for each row that is random in all of its parts; source: the finaliser of SplitMix64."""
    mixed = np.zeros(1, np.uint64)
    for part in parts:
        wide = np.asarray(part)
        wide = wide.astype(np.uint64) if wide.dtype != np.uint64 else wide
        mixed = _finalised(mixed * _MIX[2] + wide + _MIX[2])
    return mixed


def _finalised(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * _MIX[0]
    x = (x ^ (x >> np.uint64(27))) * _MIX[1]
    return x ^ (x >> np.uint64(31))


def positive(numbers: np.ndarray) -> np.ndarray:
    """Random 64-bit numbers as scores: int64, not negative."""
    return (numbers >> np.uint64(1)).astype(np.int64)


def value_scores(values: np.ndarray, ties: np.ndarray) -> np.ndarray:
    """Scores that order by value (float32, positive) first, and by the random numbers `ties` among equals."""
    bits = np.ascontiguousarray(values, np.float32).view(np.int32).astype(np.int64)
    return (bits << 31) | (ties >> np.uint64(33)).astype(np.int64)


def window_texts(ids: np.ndarray, begin: np.ndarray, end: np.ndarray, width: int) -> np.ndarray:
    """The hash (int64) of each window `ids[begin:end]` of at most `width` tokens."""
    steps = np.arange(width)
    weights = scrambled(steps) | np.uint64(1)
    hashes = np.empty(len(begin), np.int64)
    for first in range(0, len(begin), 1 << 16):
        part = slice(first, first + (1 << 16))
        at = begin[part, None] + steps
        tokens = np.where(at < end[part, None], ids[np.minimum(at, len(ids) - 1)], -1)
        hashes[part] = (_finalised(tokens.astype(np.uint64)) * weights).sum(1, dtype=np.uint64).view(np.int64)
    return hashes


def window_bounds(token: np.ndarray, start: np.ndarray, stop: np.ndarray, context: int) -> tuple[np.ndarray, np.ndarray]:
    """(begin, end) of the windows around tokens of documents that go from `start` to `stop`.

    About two thirds of the window lie before the token, a third after it: a code depends on what came before.
    """
    begin = np.maximum(np.minimum(token - (2 * context) // 3, stop - context), start)
    return begin, np.minimum(begin + context, stop)


def _slices(keys: np.ndarray, edges: np.ndarray) -> list[slice]:
    """The parts of sorted keys between the edges, each edge the beginning of a part."""
    ends = [0, *np.searchsorted(keys, edges).tolist(), len(keys)]
    return [slice(a, b) for a, b in pairwise(ends)]


def _segments(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(starts, sizes) of the runs of equal keys."""
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.zeros(0, np.int64)
    return starts, np.diff(np.append(starts, len(keys)))


def _rank(keys: np.ndarray) -> np.ndarray:
    """How many rows of the same key stand before each row."""
    order = np.argsort(keys, kind="stable")
    starts, sizes = _segments(keys[order])
    ranks = np.empty(len(keys), np.int64)
    ranks[order] = np.arange(len(keys)) - np.repeat(starts, sizes)
    return ranks
