"""Which treatments buy a change of the trait at the lowest price: the front, and what methods cost at an equal change.

A point is (change of the trait in judge's points, in the wanted direction; loss of capability in nats per token). Replicates
draw questions for the change and documents for the loss, the same ones for every point, so that differences are paired.

A method's curve runs from (0, 0) through its points by strength, straight in between. Its cost at a change is the loss where the
curve first reaches it: infinite where it never does, also inside a replicate. What has one level only (ablation, words) costs
all or nothing. Read the other way, a curve gives the change at a KL on neutral text (over sqrt(KL), nearly linear in the dose).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.randomness import derive_seed, generator
from workbench.maths.statistics import bootstrap_counts, percentile_interval

if TYPE_CHECKING:
    from .sweep import Cell, Sweep

N_BOOTSTRAP = 2000
EQUAL_CHANGES, EQUAL_KLS = (5.0, 10.0, 20.0), (0.05, 0.15, 0.3)
"""Where methods are compared: points of 0-100, and nats per token on neutral text; all are reported."""
Ends = tuple[float | None, float | None]


@dataclass(frozen=True)
class Point:
    """One treatment: change of the trait (points of 0-100, positive as wanted) against loss (nats per token)."""

    method: str
    level: float | None
    change: float
    change_interval: Ends
    loss: float
    loss_interval: Ends
    kl: float
    coherence: float
    """Mean readability of the replies, 0-100."""
    on_front: float
    """The share of replicates in which the trait changes as wanted and no other point changes it as much at no higher loss, one
    of them better."""


@dataclass(frozen=True)
class MethodCost:
    """What a method gives at an equal level of something, beside the reference method."""

    method: str
    value: float | None
    """The loss at an equal change, or the change at an equal KL; None where the curve does not reach it."""
    interval: Ends
    """None at an end: infinite there."""
    reached: float
    """The share of replicates that reach it."""
    difference: float | None
    """Value less that of the reference."""
    difference_interval: Ends


@dataclass(frozen=True, eq=False, repr=False)
class Front(Shown):
    """The points of a sweep, with replicates `changes` and `losses` [B, n_points] behind every interval."""

    trait: str
    start: str
    wanted: int
    """1: the trait is to grow; -1: to shrink."""
    base_points: float
    """The trait without treatment, points of 0-100: a reduction cannot be larger."""
    points: tuple[Point, ...]
    changes: Tensor
    losses: Tensor
    missing: tuple[str, ...] = ()
    """Names of cells of the sweep that are not measured yet."""

    @property
    def best(self) -> tuple[Point, ...]:
        """The points on the front, cheapest first."""
        return tuple(sorted((p for p in self.points if self._undominated(p)), key=lambda p: p.loss))

    def _undominated(self, one: Point) -> bool:
        return one.change > 0 and not any(
            p.change >= one.change and p.loss <= one.loss and (p.change, p.loss) != (one.change, one.loss) for p in self.points
        )

    def at_equal_change(self, change: float, *, reference: str = "add") -> tuple[MethodCost, ...]:
        """The loss of every method where it changes the trait by `change` points, cheapest first."""
        found = [self._crossing(method, change) for method in self._methods()]
        return _compared(self._methods(), found, reference)

    def at_equal_kl(self, kl: float, *, reference: str = "add") -> tuple[MethodCost, ...]:
        """The change of the trait under every method where it moves neutral text by `kl` nats per token, largest first."""
        found = [self._at_kl(method, kl) for method in self._methods()]
        return _compared(self._methods(), found, reference, largest_first=True)

    def _methods(self) -> list[str]:
        return list(dict.fromkeys(point.method for point in self.points))

    def _curve(self, method: str) -> list[int]:
        chosen = [place for place, point in enumerate(self.points) if point.method == method]
        return sorted(chosen, key=lambda place: abs(self.points[place].level or 0.0))

    def _stacked(self, places: list[int]) -> tuple[Tensor, Tensor]:
        """(changes, losses) [1 + B, n]: the estimate first."""
        own = torch.tensor([[self.points[i].change, self.points[i].loss] for i in places], dtype=torch.float64)
        return torch.cat([own[None, :, 0], self.changes[:, places]]), torch.cat([own[None, :, 1], self.losses[:, places]])

    def _crossing(self, method: str, change: float) -> Tensor:
        places = self._curve(method)
        changes, losses = self._stacked(places)
        if self.points[places[0]].level is None:  # nothing lies between all of it and none
            return torch.where(changes[:, 0] >= change, losses[:, 0], torch.inf)
        return first_crossing(_from_zero(changes), _from_zero(losses), change)

    def _at_kl(self, method: str, kl: float) -> Tensor:
        places = self._curve(method)
        changes, _ = self._stacked(places)
        if self.points[places[0]].level is None:  # a KL of its own, which cannot be set
            return torch.full((len(changes),), torch.inf, dtype=torch.float64)
        roots = torch.tensor([max(self.points[i].kl, 0.0) for i in places], dtype=torch.float64).sqrt().expand_as(changes)
        return first_crossing(_from_zero(roots), _from_zero(changes), math.sqrt(kl))


def front(sweep: Sweep, *, wanted: int, n_bootstrap: int = N_BOOTSTRAP, seed: int = 0) -> Front:
    """The points of a sweep with an exam. `wanted`: 1 where the trait is to grow, -1 where it is to shrink."""
    if sweep.base.capability is None or wanted not in (1, -1):
        raise WorkbenchError(f"a sweep without an exam, or wanted={wanted}", "capability beside the replies, and 1 or -1",
                             "give the bench an exam (`make_exam`)")  # fmt: skip
    if not sweep.cells:
        raise WorkbenchError("a sweep without any cell", "one treatment or more", "measure some")
    gains = torch.stack([wanted * _gain(cell, sweep.base, "points") for cell in sweep.cells])
    gaps = torch.stack([_surprise_gap(cell, sweep.base) for cell in sweep.cells])
    random = generator(derive_seed("steering front", seed))
    changes, losses = (_replicates(values, n_bootstrap, random) for values in (gains, gaps))
    shares = _front_shares(changes, losses)
    points = tuple(
        Point(cell.treatment["method"], cell.treatment["level"], float(gains[i].nanmean()), _ends(changes[:, i]),
              float(gaps[i].mean()), _ends(losses[:, i]), cell.kl, cell.replies.mean("coherence"), float(shares[i]))
        for i, cell in enumerate(sweep.cells)
    )  # fmt: skip
    return Front(sweep.trait, sweep.start, wanted, sweep.base.replies.mean("points"), points, changes, losses, sweep.missing)


def first_crossing(x: Tensor, y: Tensor, target: float) -> Tensor:
    """y `[n]` where each row's curve through (x, y) `[n, k]` first reaches x = target, straight between points; inf if never."""
    found = torch.full((len(x),), torch.inf, dtype=torch.float64)
    for i in range(x.shape[1] - 2, -1, -1):
        crosses = (x[:, i] < target) & (x[:, i + 1] >= target)
        share = (target - x[:, i]) / (x[:, i + 1] - x[:, i])
        found = torch.where(crosses, y[:, i] + share * (y[:, i + 1] - y[:, i]), found)
    return found


def rows_of(costs: Sequence[MethodCost]) -> list[dict[str, Any]]:
    """JSON types of method costs."""
    return [asdict(cost) for cost in costs]


def _gain(cell: Cell, base: Cell, measure: str) -> Tensor:
    return cell.replies.by_question(measure) - base.replies.by_question(measure)


def _surprise_gap(cell: Cell, base: Cell) -> Tensor:
    assert cell.capability is not None and base.capability is not None
    return cell.capability.surprise - base.capability.surprise


def _replicates(values: Tensor, n_bootstrap: int, random: torch.Generator) -> Tensor:
    """Means `[B, n_points]` of values `[n_points, n_items]` over drawn items; unknown items are left out."""
    draws, known = bootstrap_counts(values.shape[1], n_bootstrap, random), values.isfinite()
    return (draws @ values.nan_to_num().T) / (draws @ known.double().T)


def _front_shares(changes: Tensor, losses: Tensor) -> Tensor:
    """How often `[n_points]` no other point has at least the change at no higher loss, one of them better, and the change is
    wanted at all."""
    changed, lost, own_change, own_loss = changes[:, None, :], losses[:, None, :], changes[:, :, None], losses[:, :, None]
    better = (changed >= own_change) & (lost <= own_loss) & ((changed > own_change) | (lost < own_loss))
    return ((~better.any(dim=2)) & (changes > 0)).double().mean(dim=0)


def _from_zero(values: Tensor) -> Tensor:
    return torch.cat([torch.zeros(len(values), 1, dtype=values.dtype), values], dim=1)


def _ends(replicates: Tensor) -> Ends:
    """The 95% interval; an end that is infinite or unknown is None."""
    known = replicates[~replicates.isnan()]
    if not len(known):
        return None, None
    low, high = percentile_interval(known) if bool(known.isfinite().all()) else _with_infinite(known)
    return tuple(float(end) if math.isfinite(end) else None for end in (low, high))  # pyright: ignore[reportReturnType]


def _with_infinite(known: Tensor) -> tuple[Tensor, Tensor]:
    """Percentiles without interpolation, which infinity does not bear."""
    ordered = known.sort().values
    last = len(ordered) - 1
    return ordered[math.floor(0.025 * last)], ordered[math.ceil(0.975 * last)]


def _compared(
    methods: Sequence[str], found: Sequence[Tensor], reference: str, *, largest_first: bool = False
) -> tuple[MethodCost, ...]:
    known = dict(zip(methods, found, strict=True))
    own = known.get(reference, torch.full_like(found[0], torch.nan))
    costs = [
        MethodCost(method, _finite(values[0]), _ends(values[1:]), float(values[1:].isfinite().double().mean()),
                   _finite(values[0] - own[0]), _ends(values[1:] - own[1:]) if method != reference else (None, None))
        for method, values in known.items()
    ]  # fmt: skip
    sign = -1 if largest_first else 1
    return tuple(sorted(costs, key=lambda cost: math.inf if cost.value is None else sign * cost.value))


def _finite(value: Tensor) -> float | None:
    return float(value) if bool(value.isfinite()) else None


def front_summary(front: Front, *, changes: Sequence[float] = EQUAL_CHANGES, kls: Sequence[float] = EQUAL_KLS) -> dict[str, Any]:
    """JSON types: {trait, start, wanted, base_points, missing, points, front, at_equal_change, at_equal_kl: [{change or kl,
    methods}]}."""
    return {
        "trait": front.trait, "start": front.start, "wanted": front.wanted, "base_points": front.base_points,
        "missing": list(front.missing),
        "points": [asdict(point) for point in front.points],
        "front": [[point.method, point.level] for point in front.best],
        "at_equal_change": [{"change": one, "methods": rows_of(front.at_equal_change(one))} for one in changes],
        "at_equal_kl": [{"kl": one, "methods": rows_of(front.at_equal_kl(one))} for one in kls],
    }  # fmt: skip
