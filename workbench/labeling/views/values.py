"""The parts of a feature's view, as plain frozen values; nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Interval = tuple[float, float]


@dataclass(frozen=True)
class TokenValue:
    """A vocabulary token as a readable string, and a number for it (what number: see where it stands)."""

    token: str
    value: float


@dataclass(frozen=True)
class Typical:
    """What the same number is for other features of the same SAE: its median and its 95th percentile over `n` of them."""

    median: float
    q95: float
    n: int


@dataclass(frozen=True)
class Near:
    """Another feature, and the cosine of its decoder direction with this one's."""

    feature: int
    cosine: float


@dataclass(frozen=True)
class Direction:
    """Of one feature: `nearest` and `opposite` features (cosine above and below 0, extreme first), lens tokens (logits per unit
    of code, extreme first)."""

    nearest: tuple[Near, ...]
    opposite: tuple[Near, ...]
    promoted: tuple[TokenValue, ...]
    suppressed: tuple[TokenValue, ...]


@dataclass(frozen=True)
class Usual:
    """The first entry of each list of `Direction`, as it is for other features; sizes, so all are positive."""

    nearest: Typical
    opposite: Typical
    promoted: Typical
    suppressed: Typical


@dataclass(frozen=True)
class Partner:
    """Another feature that fires on the same tokens.

    `share` is the share of this feature's tokens on which the partner fires too, `expected` the partner's density (what the
    share would be if the two had nothing to do with each other), `n` how many common tokens that is.
    """

    feature: int
    share: float
    expected: float
    n: int

    @property
    def lift(self) -> float:
        """How many times as often as unrelated features would."""
        return self.share / self.expected if self.expected else float("inf")


@dataclass(frozen=True)
class Tally:
    """How a feature fires on one kind of tokens.

    `n_tokens` tokens of `n_units` units (documents; questions for rollouts), `n_fired` of them with an activation above 0;
    `rate` = n_fired / n_tokens with its 95% interval (None where it is not known), `mean` the mean activation over the tokens
    on which it fires (0.0 where it never does).
    """

    name: str
    n_tokens: int
    n_fired: int
    rate: float
    mean: float
    interval: Interval | None = None
    n_units: int | None = None


@dataclass(frozen=True)
class Compared:
    """A measured number beside the same number for matched controls.

    `interval` is the 95% bootstrap interval over contexts (None where there is none), `control` the mean over the control
    draws, `control_interval` their central 95%, and `p` = (1 + number of draws at least as large) / (1 + number of draws), over
    distinct draws: those that took out the same features are one.
    """

    value: float
    control: float
    control_interval: Interval
    p: float
    interval: Interval | None = None


@dataclass(frozen=True)
class Ablation:
    """What taking a feature's contribution out of the residual does to the prediction of the next token.

    At every firing token t near the marked one of a context its code times its decoder direction is subtracted at the SAE's
    hook; the rest of the residual, the SAE's error included, stays. `kl` is KL(before || after) in nats, `next_token` the change
    of the log-probability of the token that came next (below 0: the feature helped to predict it; its p compares sizes). Both are
    means over the edited tokens of a context, then over contexts. `losing` and `gaining` are the tokens whose log-probability
    changes most (mean change in nats); `loss` and `gain` compare the strongest of them with the strongest of each control draw.

    Controls are other features that fire on the same tokens with a contribution (code x decoder length) within a factor of
    two, taken out in the same way: `n_draws` draws, `n_distinct` different ones, so no p is below 1 / (1 + n_distinct).
    `size_ratio` is the median size of their contributions relative to this feature's. Tokens
    without any such feature are not edited (`n_unmatched`). `n_silent` contexts were left out: read here, without what
    stood before the document, the feature does not fire in them.
    """

    n_contexts: int
    n_tokens: int
    n_unmatched: int
    n_silent: int
    n_draws: int
    n_distinct: int
    size_ratio: float
    kl: Compared
    next_token: Compared
    losing: tuple[TokenValue, ...]
    gaining: tuple[TokenValue, ...]
    loss: Compared
    gain: Compared


def ablation_from(document: Mapping[str, Any]) -> Ablation:
    """The Ablation of a plain mapping, as `dataclasses.asdict` writes it."""
    compared = {name: compared_from(document[name]) for name in ("kl", "next_token", "loss", "gain")}
    tokens = {name: tokens_from(document[name]) for name in ("losing", "gaining")}
    return Ablation(**{**document, **compared, **tokens})


def compared_from(document: Mapping[str, Any]) -> Compared:
    """The Compared of a plain mapping."""
    ends = {"interval": pair(document["interval"]), "control_interval": pair(document["control_interval"])}
    return Compared(**{**document, **ends})


def tokens_from(rows: Any) -> tuple[TokenValue, ...]:
    """TokenValues of plain mappings."""
    return tuple(TokenValue(**row) for row in rows)


def pair(ends: Any) -> Any:
    """Two ends as a tuple, None stays."""
    return None if ends is None else tuple(ends)


def direction_from(document: Mapping[str, Any]) -> Direction:
    """The Direction of a plain mapping."""
    nearest, opposite = (tuple(Near(**row) for row in document[name]) for name in ("nearest", "opposite"))
    return Direction(nearest, opposite, tokens_from(document["promoted"]), tokens_from(document["suppressed"]))


def usual_from(document: Mapping[str, Any]) -> Usual:
    """The Usual of a plain mapping."""
    return Usual(**{name: Typical(**row) for name, row in document.items()})
