"""What an index knows of one feature in numbers. Nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Rate:
    """How a feature fires on some tokens: on `n_fired` of `n_tokens`, with the mean activation `mean` where it fires."""

    n_tokens: int
    n_fired: int
    mean: float

    @property
    def density(self) -> float:
        """The share of tokens that it fires on; 0 where there are no tokens."""
        return self.n_fired / self.n_tokens if self.n_tokens else 0.0

    @property
    def mean_of_all(self) -> float:
        """The mean activation over all tokens, zeros included."""
        return self.density * self.mean


@dataclass(frozen=True)
class TokenShare:
    """A token that a feature fires on: its id, its text, how often, and as a share of all its firings."""

    token: int
    text: str
    count: int
    share: float


@dataclass(frozen=True)
class Partner:
    """A feature that fires with another one: on `together` tokens, `cosine` = together / sqrt(fired_f x fired_g), `share` =
    together / fired_f of the asked feature."""

    feature: int
    together: int
    cosine: float
    share: float


@dataclass(frozen=True)
class FeatureStats:
    """One feature over everything that an index read.

    Exact over the tokens that count (special tokens, first tokens of texts and attention sinks are left out): `density`, `mean`
    (where it fires), `maximum`, `histogram` as (low, high, count) per occupied activation bin, and the rates by `kinds` of
    source, by `roles`, by `positions` as (first, last, rate) with the last position included (None: no end) and by `sources`.

    `first_token_share`: of all its firings, first tokens included, the share on first tokens of texts. `top_tokens`: the tokens
    it fires on most; each count is too low by at most `tokens_missed` (0: exact). `partners`: co-activation, exact when
    `partners_share` is 1.0, otherwise counted on that share of the documents (`partners_tokens` tokens).
    """

    feature: int
    n_tokens: int
    n_fired: int
    mean: float
    maximum: float
    histogram: tuple[tuple[float, float, int], ...] = ()
    kinds: Mapping[str, Rate] = field(default_factory=dict)
    roles: Mapping[str, Rate] = field(default_factory=dict)
    positions: tuple[tuple[int, int | None, Rate], ...] = ()
    sources: Mapping[str, Rate] = field(default_factory=dict)
    first_token_share: float = 0.0
    top_tokens: tuple[TokenShare, ...] = ()
    tokens_missed: int = 0
    partners: tuple[Partner, ...] = ()
    partners_tokens: int = 0
    partners_share: float = 1.0

    @property
    def density(self) -> float:
        """The share of tokens that it fires on."""
        return self.n_fired / self.n_tokens if self.n_tokens else 0.0

    @property
    def single_token_share(self) -> float:
        """The share of its firings that fall on one token, the commonest."""
        return self.top_tokens[0].share if self.top_tokens else 0.0

    @property
    def is_dead(self) -> bool:
        """Whether it fired on nothing that was read."""
        return self.n_fired == 0

    @property
    def is_single_token(self) -> bool:
        """Whether nine of ten firings fall on one token."""
        return self.single_token_share >= 0.9

    @property
    def is_first_token(self) -> bool:
        """Whether half of its firings fall on first tokens."""
        return self.first_token_share >= 0.5

    def arms(self, trait: str) -> dict[str, Rate]:
        """The rate by arm (positive, negative, neutral) in the rollouts of a trait; {} when none were read."""
        return {arm: rate for name, rate in self.sources.items() for arm in [arm_of(name, trait)] if arm}


@dataclass(frozen=True)
class Contrast:
    """A feature in the rollouts of a trait: its rate in the positive, the negative and (None: not read) the neutral arm."""

    feature: int
    positive: Rate
    negative: Rate
    neutral: Rate | None = None

    @property
    def difference(self) -> float:
        """Mean activation over all tokens of the positive arm minus that of the negative arm: positive is with the trait."""
        return self.positive.mean_of_all - self.negative.mean_of_all

    @property
    def density_difference(self) -> float:
        """Density in the positive arm minus that in the negative arm."""
        return self.positive.density - self.negative.density


@dataclass(frozen=True)
class Firing:
    """What fires on one token of a text: (feature, activation), the strongest first. `counts` is False on tokens that an index
    leaves out (special tokens, the first one, sinks): nothing is listed there."""

    position: int
    token: str
    features: tuple[tuple[int, float], ...]
    counts: bool = True


def arm_of(source: str, trait: str) -> str | None:
    """The arm of a source "rollouts:TRAIT:ARM" (or "given:TRAIT:ARM"); None when it is none of this trait's."""
    parts = source.split(":")
    return parts[2] if len(parts) == 3 and parts[0] in ("rollouts", "given") and parts[1] == trait else None
