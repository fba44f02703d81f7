"""Before and after: two vectors of one trait at one site, on the same SAE."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.randomness import derive_seed, generator
from workbench.maths.geometry import projections, signed_cosines
from workbench.maths.statistics import basic_interval

from ..result import Decomposition

N_SHOWN = 20


@dataclass(frozen=True)
class ShareChange:
    """A feature's share before and after, the `difference` with its 95% interval (None where replicates were not kept), and its
    `share_of_change` in the vector after - before."""

    feature: int
    before: float
    after: float
    difference: float
    interval: tuple[float, float] | None
    share_of_change: float


@dataclass(frozen=True, repr=False)
class BeforeAfter(Shown):
    """One trait's vector before and after (an adapter, other rollouts, another judge).

    `cosine` of the two, `norm_ratio` = |after| / |before|, `change_size` = |after - before| / |before|. `features` have the
    largest |difference| of shares, `of_change` are the largest shares of after - before. `n_apart` of the `n_compared` features
    whose replicates were kept on both sides have an interval that excludes 0; `n_by_chance` is a twentieth of them. `error` are
    the shares of the SAE's own error before and after, `error_interval` that of their difference, `error_of_change` its share of
    after - before.
    """

    sae: str
    trait: str
    vectors: tuple[dict[str, Any], dict[str, Any]]
    cosine: float
    norm_ratio: float
    change_size: float
    features: tuple[ShareChange, ...]
    of_change: tuple[ShareChange, ...]
    error: tuple[float, float]
    error_interval: tuple[float, float]
    error_of_change: float
    n_compared: int
    n_apart: int
    n_by_chance: float
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, by the names of the fields, with `kind`."""
        return {"kind": "change", **asdict(self)}


def compare_change(before: Decomposition, after: Decomposition, decoder: Tensor, *, seed: int = 0) -> BeforeAfter:
    """What became of a vector: differences of shares with intervals, and the shares of the change itself.

    A share is relative to its own vector: a vector that only grows keeps its shares, so read `norm_ratio` beside them. The
    change w = after - before is a difference of means too; its shares (dz'_j - dz_j) <d_j, w> / |w|^2 are exact and, with
    `error_of_change`, sum to 1. Intervals of differences take the replicates of both sides as independent (each is shuffled
    against the other): where the same questions stand behind both that is too wide rather than too narrow. They are per feature,
    not corrected for many; compare `n_apart` with `n_by_chance`. The SAE has usually been trained on the model *before*: a
    rising share of its error says that it fits the changed model less well.
    """
    change = (after.direction - before.direction).double()
    energy = change.square().sum()
    scale = 1 / energy if energy > 0 else torch.zeros_like(energy)
    of_change = (after.delta_code - before.delta_code).double() * projections(change[None], decoder)[0] * scale
    intervals, error_interval = _intervals(before, after, seed)
    difference = after.share - before.share

    def row(j: int) -> ShareChange:
        values = (before.share[j].item(), after.share[j].item(), difference[j].item())
        return ShareChange(j, *values, intervals.get(j), of_change[j].item())

    assert before.share_error is not None and after.share_error is not None
    apart = sum(low > 0 or high < 0 for low, high in intervals.values())
    n = min(N_SHOWN, len(difference))
    return BeforeAfter(
        sae=str(before.sae.get("id")),
        trait=before.trait,
        vectors=(before.vector, after.vector),
        cosine=signed_cosines(before.direction[None].double(), after.direction[None].double()).item(),
        norm_ratio=(after.direction.norm() / before.direction.norm()).item(),
        change_size=(energy.sqrt() / before.direction.double().norm()).item(),
        features=tuple(map(row, difference.abs().topk(n).indices.tolist())),
        of_change=tuple(map(row, of_change.topk(n).indices.tolist())),
        error=(before.share_error, after.share_error),
        error_interval=error_interval,
        error_of_change=float(energy > 0) - of_change.sum().item(),
        n_compared=len(intervals),
        n_apart=apart,
        n_by_chance=0.05 * len(intervals),
        warnings=_told(before, after),
    )


def _intervals(
    before: Decomposition, after: Decomposition, seed: int
) -> tuple[dict[int, tuple[float, float]], tuple[float, float]]:
    """95% intervals of the difference, per feature kept on both sides, and of the error's."""
    n = min(len(before.replicate_error), len(after.replicate_error))
    source = generator(derive_seed("before and after", seed))
    first, second = (torch.randperm(len(one.replicate_error), generator=source)[:n] for one in (before, after))
    moved = after.replicate_error[second].double() - before.replicate_error[first].double()
    error = basic_interval(moved, (after.share_error or 0.0) - (before.share_error or 0.0))
    places = [{j: k for k, j in enumerate(one.replicate_features.tolist())} for one in (before, after)]
    both = sorted(places[0].keys() & places[1].keys())
    if not both:
        return {}, (error[0].item(), error[1].item())
    old = before.replicate_shares[first][:, [places[0][j] for j in both]].double()
    new = after.replicate_shares[second][:, [places[1][j] for j in both]].double()
    low, high = basic_interval(new - old, (after.share[both] - before.share[both]).double())
    return dict(zip(both, zip(low.tolist(), high.tolist(), strict=True), strict=True)), (error[0].item(), error[1].item())


def _told(before: Decomposition, after: Decomposition) -> tuple[str, ...]:
    models = [str((one.vector.get("model") or {}).get("weights_hash")) for one in (before, after)]
    if models[0] == models[1]:
        return ("both vectors come from the same weights: what differs is how they were made, not the model",)
    return ()
