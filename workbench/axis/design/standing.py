"""Where a prompt stands among the roles: its position on the axis and its nearest archetypes, with what chance would give.

A prompt is compared with the default assistant on the same questions, none of which made the axis. With D its mean shift from the
default, a = mean(default) - mean(roles) the axis, r_i the role means and c their mean,

    position = 1 + <D, a> / <a_1, a_2>            0 the mean role, 1 the default assistant
    cos_i    = cos(D + a, r_i - c)                centred vectors: D + a is the prompt as seen from the mean role

a_1 and a_2 are the axes of either half of the roles' questions. |a|^2 itself is too large by the noise of a, and would draw every
prompt toward the default; two halves have no reply in common. The roles that a prompt is ranked among are placed in the same way,
each half on the other's axis: (<r_1 - c_1, a_2> + <r_2 - c_2, a_1>) / (2 <a_1, a_2>).

Intervals draw the prompt's questions again, and the roles' questions (within each half) crossed with their prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from workbench.axis.space.cells import Cells
from workbench.axis.space.role_vectors import RoleVectors
from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.randomness import derive_seed, generator
from workbench.maths.statistics import basic_interval, bootstrap_counts, percentile_interval, rank_p

N_BOOTSTRAP = 300
N_SETS = 10_000
TIED = 0.05
"""A role that is the nearest in at least this share of the draws cannot be told from the nearest one."""


def standing(shifts: Tensor, vectors: RoleVectors, *, n_bootstrap: int = N_BOOTSTRAP, seed: int = 0) -> dict[str, Any]:
    """{position, rank, nearest, n_questions, axis_reliability} of a prompt's shifts from the default `[n_questions, d_model]`.

    position and rank {value, low, high}; rank 1 is nearest to the assistant, of `of` characters with the prompt. nearest: every
    role {role, cos, low, high, rank, nearest_share}, nearest first; nearest_share: in how many draws it is the nearest.
    axis_reliability: cos(a_1, a_2). Raises WorkbenchError where the halves of the axis do not point the same way.
    """
    halves = _halves(vectors)
    position, cosines, rank = _placed(shifts.double().mean(dim=0), *(half.means() for half in halves))
    random = generator(derive_seed("standing", seed))
    counts = bootstrap_counts(len(shifts), n_bootstrap, random, n_drawn=max(1, len(shifts) - 1))
    drawn = counts / counts.sum(dim=1, keepdim=True) @ shifts.double()
    again = [half.replicates(n_bootstrap, generator(derive_seed("halves", seed))) for half in halves]  # the same prompts in both
    made = [_placed(one, *some) for one, *some in zip(drawn, *again, strict=True)]
    positions, draws, ranks = (torch.stack(parts) for parts in zip(*made, strict=True))
    low, high = basic_interval(draws, cosines)
    first = torch.bincount(draws.nan_to_num(-2.0).argmax(dim=1), minlength=len(cosines)).double() / len(draws)
    order = cosines.nan_to_num(-2.0).argsort(descending=True).tolist()
    nearest = [
        {"role": vectors.names[i], "cos": float(cosines[i]), "low": max(-1.0, float(low[i])), "high": min(1.0, float(high[i])),
         "rank": place, "nearest_share": float(first[i])} for place, i in enumerate(order, start=1)
    ]  # fmt: skip
    axes = torch.stack([_axis(*half.means()) for half in halves])
    return {"position": _told(position, positions), "rank": {**_told(rank, ranks), "of": len(cosines) + 1}, "nearest": nearest,
            "n_questions": len(shifts), "axis_reliability": float(torch.cosine_similarity(axes[0], axes[1], dim=0))}  # fmt: skip


def axis_covector(vectors: RoleVectors) -> Tensor:
    """a / <a_1, a_2> `[d_model]` (float64): the product with a shift is its move along the axis, 1 from mean role to default.

    Raises WorkbenchError where the halves of the axis do not point the same way.
    """
    first, second = (_axis(*half.means()) for half in _halves(vectors))
    product = float(first @ second)
    if not product > 0:
        raise WorkbenchError("the axes of either half of the questions point apart: there is no axis to place anything on",
                             "an axis beyond noise", "sample more questions or prompts per role")  # fmt: skip
    return (first + second) / 2 / product


def _halves(vectors: RoleVectors) -> tuple[Cells, Cells]:
    if int(vectors.cells.question.max()) < 1:
        raise WorkbenchError("role vectors from one question", "at least two questions", "sample more questions")
    return vectors.cells.half(0), vectors.cells.half(1)


def _axis(roles: Tensor, default: Tensor) -> Tensor:
    return default - roles[roles.isfinite().all(dim=1)].mean(dim=0)


def _placed(shift: Tensor, one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """(position, cosine with each role, rank along the axis) of a shift; NaN for a role without replies in a half of this draw,
    and everywhere where the halves of the axis point apart."""
    axes = [_axis(*half) for half in (one, other)]
    centred = [half[0] - (half[1] - axis) for half, axis in zip((one, other), axes, strict=True)]
    product, axis = axes[0] @ axes[1], (axes[0] + axes[1]) / 2
    scale = torch.where(product > 0, 1 / product, torch.nan)
    position = 1 + shift @ axis * scale
    places = (centred[0] @ axes[1] + centred[1] @ axes[0]) * scale / 2
    cosines = normalize((centred[0] + centred[1]) / 2, dim=1) @ normalize(shift + axis, dim=0)
    rank = torch.where(position.isfinite(), 1.0 + (places > position).sum(), torch.nan)
    return position, cosines, rank


def _told(value: Tensor, draws: Tensor) -> dict[str, float]:
    low, high = percentile_interval(draws)
    return {"value": float(value), "low": float(low), "high": float(high)}


def tied_with_nearest(nearest: Sequence[dict[str, Any]]) -> list[str]:
    """The roles that cannot be told from the nearest one: nearest in at least 5% of the draws, the nearest among them."""
    return [one["role"] for one in nearest if one["nearest_share"] >= TIED or one["rank"] == 1]


def self_retrieval(vectors: RoleVectors) -> dict[str, Any]:
    """How near a role's own held-out half comes to it: {n, self_cos, other_cos_95, rank_1, median_rank}.

    Every role's vector from every other question is looked up among all roles' vectors from the rest, both centred. self_cos:
    the 10th, 50th and 90th percentile of the cosine with itself. other_cos_95: the 95th percentile of the cosine with the nearest
    other role. rank_1: the share that finds itself first; chance is 1 / n. A prompt cannot be placed more surely than that.
    """
    known = (vectors.n_half > 0).all(dim=0)
    halves = vectors.halves[:, known, vectors.index()].double()
    first, second = (normalize(half - half.mean(dim=0), dim=1) for half in halves)
    cosines = first @ second.T
    own = cosines.diagonal()
    others = cosines.clone().fill_diagonal_(-2.0)
    ranks = torch.cat([1 + (some > own[:, None]).sum(dim=1) for some in (others, others.T)]).double()
    spread = torch.quantile(own, torch.tensor([0.1, 0.5, 0.9], dtype=own.dtype))
    return {"n": int(known.sum()), "self_cos": spread.tolist(), "other_cos_95": float(others.amax(dim=1).quantile(0.95)),
            "rank_1": float((ranks == 1).double().mean()), "median_rank": float(ranks.median())}  # fmt: skip


def expected_ranks(nearest: Sequence[dict[str, Any]], expected: Sequence[str], *, seed: int = 0) -> dict[str, Any]:
    """Whether roles that were named beforehand are near: {ranks, mean_rank, by_chance, p, missing}.

    p: the share of random sets of as many roles whose mean rank is as small. by_chance: the mean rank of such a set.
    Roles that are like each other rank alike, so that a set of such roles is extreme more often than p says.
    """
    rank = {one["role"]: one["rank"] for one in nearest}
    ranks = {name: rank[name] for name in expected if name in rank}
    missing = [name for name in expected if name not in rank]
    if not ranks:
        raise unknown_name("role with a vector", missing[0] if missing else "", rank)
    random = generator(derive_seed("expected roles", seed))
    sets = torch.rand(N_SETS, len(rank), generator=random).argsort(dim=1)[:, : len(ranks)].double() + 1
    mean = sum(ranks.values()) / len(ranks)
    p = float(rank_p(-mean - 1e-12, -sets.mean(dim=1)))
    return {"ranks": ranks, "of": len(rank), "mean_rank": mean, "by_chance": (len(rank) + 1) / 2, "p": p, "missing": missing}
