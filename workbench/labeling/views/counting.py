"""Where features fire, counted in an index: by position in the document, by who speaks, by the arms of each trait.

The tokens of a document are not independent, so the 95% interval of a rate is Wilson's with the effective number of tokens that
the spread between units leaves (documents; for the arms of a trait questions, which several answers share):

    n_effective = rate (1 - rate) / var        var = sum_u (fired_u - rate tokens_u)^2 / tokens^2 x n_units / (n_units - 1)

(the linearised variance of a ratio of totals; Kish 1965, chapter 6, for the effective sample size). A feature that never or
always fires has no spread, and a single unit has none: each unit then counts once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from workbench.labeling.contexts.stats import arm_of
from workbench.labeling.contexts.streams import ROLES
from workbench.labeling.contexts.tallies import N_POSITIONS, position_bin
from workbench.labeling.views.values import Tally

if TYPE_CHECKING:
    from workbench.labeling.contexts.index import FeatureIndex
    from workbench.labeling.contexts.shards import Shard

ARMS = ("positive", "neutral", "negative")
POSITIONS = tuple(
    str(i) if i < 2 else f"{2 ** (i - 1)}+" if i == N_POSITIONS - 1 else f"{2 ** (i - 1)}-{2**i - 1}" for i in range(N_POSITIONS)
)
"""The bins of token positions in a document, counted from 0, as words."""
_Z = 1.959964
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Tallies:
    """Of one feature; `by_trait` maps a trait to its arms, positive first."""

    by_position: tuple[Tally, ...]
    by_role: tuple[Tally, ...]
    by_trait: Mapping[str, tuple[Tally, ...]]


def count(index: FeatureIndex, features: Sequence[int]) -> dict[int, Tallies]:
    """The tallies of `features` over everything that the index read, in one pass over its pieces."""
    n = len(features)
    positions, roles = _Parts(N_POSITIONS, n), _Parts(len(ROLES), n)
    arms: dict[str, _Units] = {}
    for _, shard in index.pieces():
        firing = _firing(shard, features)
        start_of_token = shard.starts[shard.document_of_token]
        positions.add(shard, firing, position_bin(np.arange(shard.n_tokens) - start_of_token))
        roles.add(shard, firing, shard.roles.astype(np.int64))
        for number, (_, source, group) in enumerate(shard.documents):
            if len(source.split(":")) == 3:
                arms.setdefault(source, _Units(n)).add(shard, firing, number, group)
    traits = {trait: [_arm(arms, trait, arm) for arm in ARMS] for trait in index.traits}
    return {
        feature: Tallies(
            positions.tallies(column, POSITIONS),
            roles.tallies(column, ROLES),
            {t: tuple(u.tally(arm, column) for arm, u in zip(ARMS, units, strict=True) if u) for t, units in traits.items()},
        )
        for column, feature in enumerate(features)
    }


@dataclass(frozen=True, eq=False)
class _Firing:
    """The triples of the asked features: `column` of the feature, `token` (ascending), `value`."""

    column: np.ndarray
    token: np.ndarray
    value: np.ndarray


def _firing(shard: Shard, features: Sequence[int]) -> _Firing:
    asked = np.asarray(features)
    order = np.argsort(asked)
    at = np.minimum(np.searchsorted(asked[order], shard.features), len(asked) - 1)
    mine = np.flatnonzero(asked[order][at] == shard.features)
    return _Firing(order[at[mine]], shard.token_of_code[mine], shard.values[mine])


class _Parts:
    """Sums over documents of how often each feature fires on each part of their tokens, and of the squares."""

    def __init__(self, n_parts: int, n_features: int):
        self.tokens, self.squares, self.n_units = np.zeros((3, n_parts))
        self.fired, self.total, self.fired_squared, self.crossed = np.zeros((4, n_parts, n_features))

    def add(self, shard: Shard, firing: _Firing, part: np.ndarray) -> None:
        """`part` of every token of the shard."""
        n_parts, n = self.fired.shape
        document, n_documents = shard.document_of_token, len(shard.documents)
        cells = document * n_parts + part
        tokens = np.bincount(cells[shard.counted.astype(bool)], minlength=n_documents * n_parts).reshape(n_documents, n_parts)
        keys = cells[firing.token] * n + firing.column
        fired = np.bincount(keys, minlength=tokens.size * n).reshape(n_documents, n_parts, n)
        total = np.bincount(keys, weights=firing.value, minlength=tokens.size * n).reshape(n_documents, n_parts, n)
        self.tokens += tokens.sum(0)
        self.squares += (tokens**2).sum(0)
        self.n_units += (tokens > 0).sum(0)
        self.fired += fired.sum(0)
        self.total += total.sum(0)
        self.fired_squared += (fired**2).sum(0)
        self.crossed += (fired * tokens[..., None]).sum(0)

    def tallies(self, column: int, names: Sequence[str]) -> tuple[Tally, ...]:
        """Of one feature, the parts that have any tokens."""
        return tuple(
            tally(
                name, self.tokens[i], self.fired[i, column], self.total[i, column], int(self.n_units[i]),
                (self.fired_squared[i, column], self.crossed[i, column], self.squares[i]),
            )
            for i, name in enumerate(names) if self.tokens[i]
        )  # fmt: skip


class _Units:
    """The tokens and firings of each question of one arm: questions may be spread over pieces."""

    def __init__(self, n_features: int):
        self.n_features = n_features
        self.tokens: dict[str, float] = {}
        self.fired: dict[str, np.ndarray] = {}
        self.total = np.zeros(n_features)

    def add(self, shard: Shard, firing: _Firing, number: int, group: str) -> None:
        """Document `number` of the shard, which belongs to that question."""
        start, stop = int(shard.starts[number]), int(shard.starts[number + 1])
        mine = slice(*np.searchsorted(firing.token, [start, stop]))
        fired = np.bincount(firing.column[mine], minlength=self.n_features)
        self.tokens[group] = self.tokens.get(group, 0.0) + float(shard.counted[start:stop].astype(bool).sum())
        self.fired[group] = self.fired.get(group, np.zeros(self.n_features)) + fired
        self.total += np.bincount(firing.column[mine], weights=firing.value[mine], minlength=self.n_features)

    def tally(self, name: str, column: int) -> Tally:
        """Of one feature."""
        tokens = np.array([self.tokens[group] for group in self.tokens])
        fired = np.array([self.fired[group][column] for group in self.tokens])
        sums = (float(fired @ fired), float(fired @ tokens), float(tokens @ tokens))
        return tally(name, tokens.sum(), fired.sum(), self.total[column], int((tokens > 0).sum()), sums)


def tally(
    name: str, tokens: float, fired: float, total: float, n_units: int, sums: tuple[float, float, float]
) -> Tally:
    """A tally with its interval; `sums` over units of fired^2, fired x tokens and tokens^2."""
    rate = float(fired / tokens) if tokens else 0.0
    return Tally(
        name=name,
        n_tokens=int(tokens),
        n_fired=int(fired),
        rate=rate,
        mean=float(total / fired) if fired else 0.0,
        interval=_interval(rate, float(tokens), n_units, sums) if tokens else None,
        n_units=n_units,
    )


def _interval(rate: float, tokens: float, n_units: int, sums: tuple[float, float, float]) -> tuple[float, float]:
    squared, crossed, squares = sums
    spread = squared - 2 * rate * crossed + rate**2 * squares
    if n_units < 2 or spread <= _ROUNDING * (squared + rate**2 * squares):  # relative: a rare feature's variance is tiny
        return wilson(rate, float(n_units))
    variance = spread / tokens**2 * n_units / (n_units - 1)
    return wilson(rate, min(tokens, rate * (1 - rate) / variance))


def wilson(rate: float, n: float) -> tuple[float, float]:
    """Wilson's 95% interval of a rate among `n` independent trials (any positive number)."""
    middle, width = rate + _Z**2 / (2 * n), _Z * (rate * (1 - rate) / n + _Z**2 / (4 * n**2)) ** 0.5
    return max(0.0, (middle - width) / (1 + _Z**2 / n)), min(1.0, (middle + width) / (1 + _Z**2 / n))


def _arm(arms: Mapping[str, _Units], trait: str, arm: str) -> _Units | None:
    return next((units for source, units in arms.items() if arm_of(source, trait) == arm), None)
