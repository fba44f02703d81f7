"""Where features were seen firing: bounded memory per feature, the same result in whatever order the documents come."""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

N_BINS = 101
_PER_OCTAVE, _LOWEST = 4, -40


@dataclass(frozen=True)
class Sighting:
    """A window of a document around one token: ids and values as read, and which of the tracked features fire in it."""

    ids: tuple[int, ...]
    values: tuple[float, ...]
    peak: int
    position: int
    source: str
    document: str
    active: frozenset[int]

    @property
    def peak_value(self) -> float:
        return self.values[self.peak]


def priority(*parts: object) -> int:
    """A number that is random in its parts and the same everywhere: the smallest ones make a fair sample."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big")


def window_bounds(n_tokens: int, token: int, size: int) -> tuple[int, int]:
    """Start and stop of a window: about two thirds of it before the token, a third after: a code depends on what came before."""
    start = max(min(token - (2 * size) // 3, n_tokens - size), 0)
    return start, min(start + size, n_tokens)


def activation_bin(value: float) -> int:
    """The bin of an activation: four to the octave, from 2^-10 to 2^15."""
    return min(max(math.floor(_PER_OCTAVE * math.log2(value)) - _LOWEST, 0), N_BINS - 1)


@dataclass
class Sightings:
    """The strongest windows of one feature, and a few from each activation bin, at most one per document in each.

    Offering costs nothing for a window that would not be kept: ask `wants_*` first.
    """

    capacity: int
    per_bin: int = 3
    strongest: list[tuple[float, int, int, Sighting]] = field(default_factory=list)
    bins: dict[int, list[tuple[int, Sighting]]] = field(default_factory=dict)
    n_offered: int = 0

    def wants_top(self, value: float, tie: int) -> bool:
        return len(self.strongest) < self.capacity or (value, tie) > self.strongest[0][:2]

    def add_top(self, tie: int, sighting: Sighting) -> None:
        self.n_offered += 1  # only so that two equal windows are never compared
        heapq.heappush(self.strongest, (sighting.peak_value, tie, self.n_offered, sighting))
        if len(self.strongest) > self.capacity:
            heapq.heappop(self.strongest)

    def wants_bin(self, index: int, order: int) -> bool:
        kept = self.bins.get(index, [])
        return len(kept) < self.per_bin or order < kept[-1][0]

    def add_bin(self, index: int, order: int, sighting: Sighting) -> None:
        kept = self.bins.setdefault(index, [])
        kept.append((order, sighting))
        kept.sort(key=lambda item: item[0])
        del kept[self.per_bin :]

    def top(self, n: int) -> list[Sighting]:
        """The `n` strongest windows with different texts, strongest first."""
        ordered = (item[-1] for item in sorted(self.strongest, key=lambda item: item[:3], reverse=True))
        return distinct(ordered, n)

    def across_quantiles(
        self, counts: list[int], n: int, *, besides: Iterable[Sighting] = ()
    ) -> list[Sighting]:
        """`n` windows from the middles of `n` activation quantiles, weakest first.

        `counts` says how many tokens fell into each bin. A quantile whose bin has nothing left takes the nearest bin's.
        """
        taken = {sighting.document for sighting in besides}
        texts = {sighting.ids for sighting in besides}
        chosen: list[Sighting] = []
        for index in _quantile_bins(counts, n):
            found = self._nearest(index, taken, texts)
            if found is not None:
                chosen.append(found)
                taken.add(found.document)
                texts.add(found.ids)
        return sorted(chosen, key=lambda sighting: sighting.peak_value)

    def _nearest(self, index: int, taken: set[str], texts: set[tuple[int, ...]]) -> Sighting | None:
        for near in sorted(self.bins, key=lambda other: (abs(other - index), other)):
            for _, sighting in self.bins[near]:
                if sighting.document not in taken and sighting.ids not in texts:
                    return sighting
        return None


def distinct(sightings: Iterable[Sighting], n: int) -> list[Sighting]:
    """The first `n` windows, no document and no text twice."""
    seen: set[object] = set()
    chosen: list[Sighting] = []
    for sighting in sightings:
        if len(chosen) == n:
            break
        if sighting.document in seen or sighting.ids in seen:
            continue
        seen |= {sighting.document, sighting.ids}
        chosen.append(sighting)
    return chosen


def _quantile_bins(counts: list[int], n: int) -> list[int]:
    total = sum(counts)
    if not total:
        return []
    wanted = [(i + 0.5) / n * total for i in range(n)]
    result, running, index = [], 0, 0
    for target in wanted:
        while running + counts[index] < target:
            running += counts[index]
            index += 1
        result.append(index)
    return result
