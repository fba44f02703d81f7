"""Means over seeds crossed with questions, documents or items, and capability compared at equal trait.

Few seeds are the weak point: three fine-tunes say little about how fine-tunes vary. A plain mean therefore gets a t interval of
two crossed factors with Satterthwaite's degrees of freedom (`maths.crossed`); where something nonlinear is estimated, both
are resampled, each with one draw fewer than there are units, which keeps the variance from coming out too small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.randomness import derive_seed, generator
from workbench.maths.crossed import crossed_test
from workbench.maths.statistics import bootstrap_counts, percentile_interval

LEVEL = 0.95
N_BOOTSTRAP = 2000


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% interval and standard error; `n_seeds` x `n_units` numbers stand behind it."""

    value: float
    interval: tuple[float, float]
    standard_error: float
    n_seeds: int
    n_units: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.interval[0] > 0 or self.interval[1] < 0


def crossed_mean(values: Tensor) -> Estimate:
    """The mean of `values [n_seeds, n_units]` and its interval, seeds and units both taken as draws from many.

    Units with a NaN are left out. With one seed the interval is over units alone, and says nothing about other seeds; one unit
    says nothing about others: its interval is (-inf, inf).
    """
    kept = values.double()[:, values.isfinite().all(dim=0)]
    n_seeds, n_units = kept.shape
    mean, variance, df = float(kept.mean()), *_variance(kept)
    half = 0.0 if variance == 0 else _t_quantile(df) * variance**0.5
    return Estimate(mean, (mean - half, mean + half), variance**0.5, n_seeds, n_units)


def _variance(values: Tensor) -> tuple[float, float]:
    n_seeds, n_units = values.shape
    if n_units < 2:
        return float("inf"), 1.0
    by_unit, by_seed, mean = values.mean(dim=0), values.mean(dim=1), values.mean()
    if n_seeds == 1:
        return float(by_unit.var() / n_units), float(n_units - 1)
    residual = values - by_unit - by_seed[:, None] + mean
    found = crossed_test(mean[None], (by_unit - mean)[:, None] / n_units, (by_seed - mean)[:, None] / n_seeds,
                         residual.reshape(-1, 1) / values.numel())  # fmt: skip
    return float(found.variance), max(1.0, float(found.df))


def _t_quantile(df: float) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + LEVEL) / 2, df))


@dataclass(frozen=True, eq=False, repr=False)
class Measured(Shown):
    """An arm at one strength: `points [n_seeds, n_questions]` of the trait, `loss [n_seeds, n_documents]` of capability."""

    points: Tensor
    loss: Tensor


def at_equal_trait(arm: Measured, curve: Sequence[Measured], *, n_bootstrap: int = N_BOOTSTRAP, seed: int = 0) -> dict[str, Any]:
    """{kept, interval, reached, reached_share}: how much less capability the arm loses than the curve does at the arm's trait.

    `curve`: the other method at growing doses, the first one at dose 0; its loss is interpolated linearly where its mean trait
    first comes down to the arm's. kept = loss of the curve there - loss of the arm (positive: the arm keeps capability better).
    Where the curve never comes down that far, its lowest trait counts (`reached` is False): then the arm is held against less
    reduction than its own. The interval resamples seeds, questions and documents, the same for both.
    """
    kept, reached = _kept(arm, curve, _draws(arm, n_bootstrap, seed))
    whole, whole_reached = _kept(arm, curve, lambda values, _: values.nanmean()[None])
    low, high = percentile_interval(kept)
    return {"kept": float(whole), "interval": [float(low), float(high)], "reached": bool(whole_reached),
            "reached_share": float(reached.double().mean())}  # fmt: skip


def _draws(arm: Measured, n_bootstrap: int, seed: int) -> Callable[[Tensor, str], Tensor]:
    """(values `[n_seeds, n_units]`, "points" or "loss") -> their mean `[n_bootstrap]` under draws of seeds and of those units."""
    random = generator(derive_seed("equal trait", seed))
    seeds = _counts(len(arm.points), n_bootstrap, random)
    units = {kind: _counts(getattr(arm, kind).shape[1], n_bootstrap, random) for kind in ("points", "loss")}

    def mean(values: Tensor, kind: str) -> Tensor:
        known = values.isfinite().double()
        total, mass = (torch.einsum("bs,bu,su->b", seeds, units[kind], one) for one in (values.double().nan_to_num(0.0), known))
        return total / mass

    return mean


def _counts(n: int, n_bootstrap: int, random: torch.Generator) -> Tensor:
    """How often each of n units is drawn, in n - 1 draws (one where there is one): float64 `[n_bootstrap, n]`."""
    return bootstrap_counts(n, n_bootstrap, random, n_drawn=max(1, n - 1))


def _kept(arm: Measured, curve: Sequence[Measured], mean: Callable[[Tensor, str], Tensor]) -> tuple[Tensor, Tensor]:
    points, losses = (torch.stack([mean(getattr(one, kind), kind) for one in curve], dim=1) for kind in ("points", "loss"))
    loss, reached = interpolated(points, losses, mean(arm.points, "points"))
    return loss - mean(arm.loss, "loss"), reached


def interpolated(points: Tensor, losses: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """(loss, reached) `[b]` where each row of `points [b, n]` first comes down to `wanted [b]`, going along n.

    A row that begins at or below it gives its first loss; one that never gets there gives the loss at its lowest point.
    """
    below = points <= wanted[:, None]
    reached = below.any(dim=1)
    first = torch.where(reached, below.int().argmax(dim=1), points.argmin(dim=1))
    before = (first - 1).clamp(min=0)
    rows = torch.arange(len(points))
    drop = points[rows, before] - points[rows, first]
    share = torch.where(drop > 0, (points[rows, before] - wanted) / drop, torch.ones_like(drop)).clamp(0, 1)
    share = torch.where(reached, share, torch.ones_like(share))
    return losses[rows, before] + share * (losses[rows, first] - losses[rows, before]), reached
