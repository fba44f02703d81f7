"""Drift as one vector per conversation, so that any direction's drift is an inner product with it.

With h_k(c) the mean activation of reply k in context c, and d_k = h_k(history) - h_k(alone), for the turns k >= 2 (turn 1 has no
history, so d_1 = 0 by definition and would pass for the beginning of a slope):

    drift            mean over k of d_k
    drift_per_turn   least-squares slope of d_k on k
    per_1000_tokens  least-squares slope of d_k on the tokens in front of reply k, per 1,000
    raw_per_turn     least-squares slope of h_k(history) on k, turn 1 too: what the paper follows, no control for what is asked
    order            mean over k of h_k(history) - h_k(shuffled), k with two earlier turns: what the order of the turns does
    content          mean over k of h_k(history) - h_k(swapped): what this history does that another of its length does not

The unit of all inference is the conversation. Conversations of a domain have the same turns, so the mean of their slopes is the
fixed effect of a mixed model with random intercepts and slopes (balanced data; Laird and Ware 1982, "Random-effects models for
longitudinal data"), without its normality and without a fit that may not converge. Where their lengths differ each conversation
still weighs the same. Intervals resample conversations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.axis.drift.reading import Readings
from workbench.base.randomness import derive_seed, generator
from workbench.maths.statistics import bootstrap_counts, percentile_interval

N_BOOTSTRAP = 2000
MIN_CONVERSATIONS = 5
"""Fewer have no interval."""


@dataclass(frozen=True)
class Kind:
    """One quantity: the contexts whose difference it is of (None: no second one), the fewest earlier turns, and what it does with
    the differences ("mean", or the slope on "turn" or "tokens")."""

    context: str
    minus: str | None
    earliest: int
    over: str


KINDS: Mapping[str, Kind] = {
    "drift": Kind("history", "alone", 1, "mean"),
    "drift_per_turn": Kind("history", "alone", 1, "turn"),
    "per_1000_tokens": Kind("history", "alone", 1, "tokens"),
    "raw_per_turn": Kind("history", None, 0, "turn"),
    "order": Kind("history", "shuffled", 2, "mean"),
    "content": Kind("history", "swapped", 1, "mean"),
}


def differences(read: Readings, context: str, minus: str | None) -> Tensor:
    """h(context) - h(minus) of every reply [n, d_model] (float64); NaN where one of the two is missing."""
    found = read.means[context].double()
    return found if minus is None else found - read.means[minus].double()


def effect_vectors(read: Readings, kind: str, n_conversations: int) -> Tensor:
    """The quantity of every conversation [n_conversations, d_model] (float64); NaN for one that has none (too few turns)."""
    how, width = KINDS[kind], next(iter(read.means.values())).shape[1]
    nothing = torch.full((width,), torch.nan, dtype=torch.float64)
    if how.context not in read.means or (how.minus and how.minus not in read.means):
        return nothing.repeat(n_conversations, 1)
    values = differences(read, how.context, how.minus)
    known = values.isfinite().all(dim=1) & (read.turn >= how.earliest)
    scale = read.turn.double() if how.over == "turn" else read.n_before.double() / 1000
    found = []
    for row in range(n_conversations):
        own = known & (read.row == row)
        if how.over == "mean":
            found.append(values[own].mean(dim=0) if own.any() else nothing)
        else:
            found.append(_slope(scale[own], values[own], nothing))
    return torch.stack(found) if found else torch.zeros(0, width, dtype=torch.float64)


def _slope(x: Tensor, y: Tensor, nothing: Tensor) -> Tensor:
    """The least-squares slope of y [n, d] on x [n]; NaN where x does not vary."""
    centred = x - x.mean()
    spread = centred.square().sum()
    return centred @ y / spread if len(x) > 1 and spread > 0 else nothing


def told(values: Tensor, seed: int, *, n_bootstrap: int = N_BOOTSTRAP) -> dict[str, Any]:
    """{value, interval, n} of a quantity [n] of conversations: its mean, 95% (conversations redrawn; None for too few)."""
    known = values[values.isfinite()]
    if not len(known):
        return {"value": None, "interval": None, "n": 0}
    means = replicates(known, seed, n_bootstrap=n_bootstrap)
    ends = None if len(known) < MIN_CONVERSATIONS else [float(end) for end in percentile_interval(means)]
    return {"value": float(known.mean()), "interval": ends, "n": len(known)}


def replicates(values: Tensor, seed: int, *, n_bootstrap: int = N_BOOTSTRAP) -> Tensor:
    """Means [n_bootstrap] of conversations drawn again from `values` [n]."""
    return bootstrap_counts(len(values), n_bootstrap, generator(seed)) @ values.double() / len(values)


def against(
    values: Mapping[str, Tensor], group: str, reference: str, scripts: Mapping[str, Sequence[str]], seed: int
) -> dict[str, Any]:
    """{against, difference, ratio, why} of a group's mean to that of its `reference`, both a quantity per conversation.

    difference {value, interval, n, paired}: paired where both groups follow the same scripts, else the two are redrawn apart.
    ratio {value, interval}: only where the reference's own interval excludes 0, else None and `why` says so.
    """
    own, base = values[group], values[reference]
    stands = told(base, derive_seed("reference", reference, seed))
    paired = _paired(own, base, scripts[group], scripts[reference])
    difference = _apart(own, base, group, seed) if paired is None else told(paired, derive_seed("paired", group, seed))
    difference["paired"] = paired is not None
    return {"against": reference, "difference": difference, **_ratio(own, base, stands, reference, group, seed)}


def _paired(own: Tensor, base: Tensor, scripts: Sequence[str], others: Sequence[str]) -> Tensor | None:
    place = {script: i for i, script in enumerate(others)}
    if len(place) < len(others) or set(scripts) != set(others) or len(scripts) != len(others):
        return None
    return own - base[[place[script] for script in scripts]]


def _both(
    own: Tensor, base: Tensor, combine: Callable[[Tensor, Tensor], Tensor], group: str, seed: int
) -> tuple[float | None, Any]:
    """(value, interval) of a function of two means whose conversations are drawn apart; no interval for too few."""
    a, b = own[own.isfinite()], base[base.isfinite()]
    if not (len(a) and len(b)):
        return None, None
    value = float(combine(a.mean(), b.mean()))
    drawn = combine(replicates(a, derive_seed("own", group, seed)), replicates(b, derive_seed("base", group, seed)))
    few = min(len(a), len(b)) < MIN_CONVERSATIONS
    return value, None if few else [float(end) for end in percentile_interval(drawn)]


def _apart(own: Tensor, base: Tensor, group: str, seed: int) -> dict[str, Any]:
    value, ends = _both(own, base, torch.sub, group, seed)
    return {"value": value, "interval": ends, "n": int(own.isfinite().sum())}


def _ratio(own: Tensor, base: Tensor, stands: dict[str, Any], reference: str, group: str, seed: int) -> dict[str, Any]:
    ends = stands["interval"]
    if ends is None or ends[0] <= 0 <= ends[1]:
        why = "has too few conversations" if ends is None else f"[{ends[0]:.4f}, {ends[1]:.4f}] includes 0"
        return {"ratio": None, "why": f"no ratio: {reference} {why}"}
    value, interval = _both(own, base, torch.div, group, seed)
    return {"ratio": {"value": value, "interval": interval}, "why": None}
