"""Characters along the axis: where each stands, how surely, and whether the published ends are at the ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from workbench.axis.roles import ASSISTANT_END, FAR_END
from workbench.axis.space.role_vectors import RoleVectors
from workbench.base.randomness import derive_seed, generator
from workbench.maths.statistics import basic_interval, rank_p

N_BOOTSTRAP = 300
N_PERMUTATIONS = 10_000


def axis_positions(points: Tensor, centre: Tensor, axis: Tensor) -> Tensor:
    """<x - centre, axis> / |axis|^2 of points `[..., d_model]`: the mean role is at 0, the default assistant at 1 (float64)."""
    axis = axis.double()
    return (points.double() - centre.double()) @ axis / axis.square().sum()


def positions(vectors: RoleVectors, *, n_bootstrap: int = N_BOOTSTRAP, seed: int = 0) -> list[dict[str, Any]]:
    """[{role, position, low, high, n_kept}] at the chosen hook, nearest to the assistant first.

    Intervals (95%): questions, crossed with prompts, are drawn again, and centre, axis and role are all recomputed; basic ones,
    because a replicate's axis is noisier than the axis, which pulls its positions toward 0.
    """
    roles, default = vectors.at(), vectors.default_at()
    centre = roles.mean(dim=0)
    found = axis_positions(roles, centre, default - centre)
    random = generator(derive_seed("positions on the axis", seed))
    drawn = torch.stack([_drawn(some, spoken) for some, spoken in vectors.cells.replicates(n_bootstrap, random)])
    low, high = basic_interval(drawn, found)
    order = found.argsort(descending=True).tolist()
    return [
        {"role": vectors.names[i], "position": float(found[i]), "low": float(low[i]), "high": float(high[i]),
         "n_kept": vectors.n_kept[i]} for i in order
    ]  # fmt: skip


def _drawn(roles: Tensor, default: Tensor) -> Tensor:
    centre = roles[torch.isfinite(roles).all(dim=1)].mean(dim=0)
    return axis_positions(roles, centre, default - centre)


def ends_agreement(
    names: Sequence[str], placed: Tensor, *, near: Sequence[str] = ASSISTANT_END, far: Sequence[str] = FAR_END, seed: int = 0
) -> dict[str, Any]:
    """Whether the published ends of the axis stand at its ends here: {rank_correlation, highest, auc, p, n_near, n_far, missing}.

    rank_correlation: Spearman, of the position `placed [n]` with the end (assistant 1, far 0), over the roles that have one;
    highest: what it is where the ends are parted without exception, below 1 because each end is one tie.
    auc: how often a role of the assistant's end stands nearer to the assistant than one of the far end. p: share of random
    assignments of the same roles to both ends with as high a rank correlation (one-sided). Source: Lu et al. 2026, section 3.
    """
    place = {name: i for i, name in enumerate(names)}
    known = [(place[name], name in near) for name in (*near, *far) if name in place]
    missing = [name for name in (*near, *far) if name not in place]
    counts = {"n_near": sum(end for _, end in known), "n_far": sum(not end for _, end in known), "missing": missing}
    if min(counts["n_near"], counts["n_far"]) < 2:
        return {"rank_correlation": None, "highest": None, "auc": None, "p": None, **counts}
    values = torch.tensor([float(placed[i]) for i, _ in known], dtype=torch.float64)
    end = torch.tensor([float(is_near) for _, is_near in known], dtype=torch.float64)
    ranks = _ranks(values)
    random = generator(derive_seed("published ends", seed))
    shuffled = end[torch.rand(N_PERMUTATIONS, len(end), generator=random).argsort(dim=1)]
    found, null = _correlation(end[None], ranks)[0], _correlation(shuffled, ranks)
    n_near, n_far = counts["n_near"], counts["n_far"]
    area = (float(ranks @ end) - n_near * (n_near + 1) / 2) / (n_near * n_far)
    highest = float(_correlation(end.sort().values[None], torch.arange(len(end)).double())[0])
    return {"rank_correlation": float(found), "highest": highest, "auc": area, "p": float(rank_p(found - 1e-12, null)), **counts}


def _ranks(values: Tensor) -> Tensor:
    from scipy.stats import rankdata

    return torch.from_numpy(rankdata(values.numpy())).double()


def _correlation(ends: Tensor, ranks: Tensor) -> Tensor:
    """Pearson correlation `[b]` of ends `[b, n]` (0 or 1) with ranks `[n]`: Spearman's, for ends are as good as their ranks."""
    one, other = ends - ends.mean(dim=1, keepdim=True), ranks - ranks.mean()
    return one @ other / (one.norm(dim=1) * other.norm())
