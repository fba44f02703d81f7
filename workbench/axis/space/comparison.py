"""The spaces of two models: do the same characters stand in the same places, and do the axes agree?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from workbench.axis.space.carrying import carried_axis
from workbench.axis.space.components import components
from workbench.axis.space.ends import axis_positions
from workbench.axis.space.role_vectors import RoleVectors
from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.randomness import derive_seed, generator
from workbench.maths.similarity import cka_profile, pair_order, rsa_profile
from workbench.maths.statistics import percentile_interval, rank_p

MIN_SHARED = 8
N_PERMUTATIONS, N_BOOTSTRAP = 500, 200


@dataclass(frozen=True, eq=False, repr=False)
class SpaceComparison(Shown):
    """Two models at their chosen hooks, over the `names` that both have.

    measures: {positions, first_component, rsa, cka: {value, interval, p, null_q95}}: Spearman correlation of the positions on the
    axes, |Pearson| of the scores on the first components, and how alike the patterns of distances are. Null: one model's roles
    permuted. Intervals: roles drawn again. axes: {cos, null_q95, percentile, p} where both models have the same width and the
    hooks are of the same kind, else None; null: the cosines of the leave-one-role axes of the same character in both models.
    carried: the first model's axis taken to the second by a linear map fitted on the roles (`carrying.carried_axis`).
    roles: [{role, a, b, cos}]: positions, and the cosine of role - mean role (same width only).
    """

    models: tuple[str, str]
    hooks: tuple[str, str]
    names: tuple[str, ...]
    measures: dict[str, dict[str, Any]]
    axes: dict[str, Any] | None
    carried: dict[str, Any] = field(default_factory=dict)
    roles: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {"models": list(self.models), "hooks": list(self.hooks), "n_roles": len(self.names), **self.measures,
                "axes": self.axes, "carried": self.carried, "roles": self.roles}  # fmt: skip


def compare_spaces(a: RoleVectors, b: RoleVectors, *, seed: int = 0) -> SpaceComparison:
    """How alike the spaces of two models are: base and tuned, or of different families. Only the roles that both have count.

    Components and axes are made again from those. Equal widths do not make two models' coordinates the same: the cosine of the
    axes says something for models with a common ancestor, and its null stands beside it. Raises WorkbenchError for fewer than
    eight shared roles.
    """
    names = tuple(name for name in a.names if name in set(b.names))
    if len(names) < MIN_SHARED:
        raise WorkbenchError(
            f"{len(names)} roles have vectors in both models", f"at least {MIN_SHARED}", "make more vectors, of the same roles"
        )
    a, b = a.only(names), b.only(names)
    placed = [axis_positions(one.at(), one.at().mean(dim=0), one.axis()) for one in (a, b)]
    axes = _axes(a, b) if a.means.shape[2] == b.means.shape[2] else None
    return SpaceComparison(
        (str(a.model.get("name")), str(b.model.get("name"))), (str(a.hook), str(b.hook)), names,
        _measures(a.at(), b.at(), placed, seed), axes,
        carried_axis(a.at(), a.default_at(), b.at(), b.default_at(), seed=seed), _rows(names, a, b, placed),
    )  # fmt: skip


def _measures(a: Tensor, b: Tensor, placed: list[Tensor], seed: int) -> dict[str, dict[str, Any]]:
    first = [components(one).scores(one)[:, 0] for one in (a, b)]
    random, n = generator(derive_seed("two spaces", seed)), len(a)
    orders = [torch.randperm(n, generator=random) for _ in range(N_PERMUTATIONS)]
    # A role that is drawn twice has a distance of 0 to itself in both models, which would look like agreement.
    draws = [torch.randint(n, (n,), generator=random).unique() for _ in range(N_BOOTSTRAP)]

    def by_profile(profile: Any, diagonal: bool) -> dict[str, Any]:
        one, other = profile(a), profile(b)
        null = [float(one @ other[pair_order(order, diagonal=diagonal)]) for order in orders]
        return _measured(float(one @ other), null, [float(profile(a[some]) @ profile(b[some])) for some in draws])

    def by_score(measure: Any, one: Tensor, other: Tensor) -> dict[str, Any]:
        null = [measure(one, other[order]) for order in orders]
        return _measured(measure(one, other), null, [measure(one[some], other[some]) for some in draws])

    return {
        "positions": by_score(_spearman, *placed),
        "first_component": by_score(lambda one, other: abs(_pearson(one, other)), *first),
        "rsa": by_profile(rsa_profile, False), "cka": by_profile(cka_profile, True),
    }  # fmt: skip


def _measured(value: float, null: list[float], drawn: list[float]) -> dict[str, Any]:
    by_chance = torch.tensor(null, dtype=torch.float64)
    low, high = percentile_interval(torch.tensor(drawn, dtype=torch.float64))
    return {"value": value, "interval": [float(low), float(high)], "p": float(rank_p(value, by_chance)),
            "null_q95": float(torch.quantile(by_chance, 0.95))}  # fmt: skip


def _axes(a: RoleVectors, b: RoleVectors) -> dict[str, Any]:
    found = _cosine(a.axis(), b.axis())
    null = torch.tensor([_cosine(_apart(a.at(), i), _apart(b.at(), i)) for i in range(len(a))])
    return {"cos": found, "null_q95": float(torch.quantile(null, 0.95)), "percentile": float((null < found).double().mean()),
            "p": float(rank_p(found, null))}  # fmt: skip


def _apart(roles: Tensor, i: int) -> Tensor:
    return roles[i] - (roles.sum(dim=0) - roles[i]) / (len(roles) - 1)


def _rows(names: tuple[str, ...], a: RoleVectors, b: RoleVectors, placed: list[Tensor]) -> list[dict[str, Any]]:
    same = a.means.shape[2] == b.means.shape[2]
    offsets = [one.at() - one.at().mean(dim=0) for one in (a, b)]
    return [
        {"role": name, "a": float(placed[0][i]), "b": float(placed[1][i]),
         "cos": _cosine(offsets[0][i], offsets[1][i]) if same else None}
        for i, name in enumerate(names)
    ]  # fmt: skip


def _cosine(one: Tensor, other: Tensor) -> float:
    return float(torch.cosine_similarity(one.double(), other.double(), dim=0))


def _pearson(one: Tensor, other: Tensor) -> float:
    return _cosine(one - one.mean(), other - other.mean())


def _spearman(one: Tensor, other: Tensor) -> float:
    from scipy.stats import rankdata

    return _pearson(*(torch.from_numpy(rankdata(side.numpy())) for side in (one, other)))
