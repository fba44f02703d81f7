"""Other directions in the space of characters: trait vectors beside the axis, the components and the roles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from workbench.axis.space.components import Components, components
from workbench.axis.space.role_vectors import RoleVectors
from workbench.maths.statistics import rank_p
from workbench.personas.placebos import PlaceboVectors
from workbench.personas.vectors import PersonaVector

N_COMPONENTS = 5
N_NEAREST = 5


def place_vectors(
    vectors: RoleVectors, others: Sequence[PersonaVector], placebos: PlaceboVectors | None = None
) -> dict[str, Any]:
    """Where the directions `others` lie: {vectors: [{trait, cos_axis, p, along_axis, in_space, cos_components, nearest}], null}.

    At the role vectors' chosen hook. cos_axis: positive = toward the assistant. along_axis: <v, axis> / |axis|^2, the move in
    units of the way from the mean role to the default. in_space: the share of |v|^2 in the span of the role vectors. nearest:
    the roles with the largest cos(v, role - mean role). p: two-sided rank among placebo contrasts of |cos_axis|; without
    placebos None. null: the 95th percentile of |cos_axis| and of in_space over the placebos.
    """
    roles, centre, axis = vectors.at(), vectors.at().mean(dim=0), vectors.axis()
    space = components(roles)
    drawn = None if placebos is None else placebos.at(vectors.hook).double()
    null = None if drawn is None else _cosines(drawn, axis[None])[:, 0].abs()
    found = []
    for one in others:
        direction = one.at(vectors.hook).double()
        cosine = float(_cosines(direction[None], axis[None])[0, 0])
        near = _cosines(direction[None], roles - centre)[0]
        order = near.argsort(descending=True)[:N_NEAREST].tolist()
        own = null if placebos is None or null is None else null[placebos.unrelated(one.trait)]
        found.append({
            "trait": one.trait, "cos_axis": cosine, "p": None if own is None else float(rank_p(abs(cosine), own)),
            "along_axis": float(direction @ axis / axis.square().sum()), "in_space": float(_inside(direction[None], space)[0]),
            "cos_components": _cosines(direction[None], space.directions[:N_COMPONENTS])[0].tolist(),
            "nearest": [{"role": vectors.names[i], "cos": float(near[i])} for i in order],
        })  # fmt: skip
    return {"vectors": found, "null": None if drawn is None or null is None else _null(null, drawn, space)}


def _null(cosines: Tensor, placebos: Tensor, space: Components) -> dict[str, Any]:
    ends = {"cos_axis_q95": cosines, "in_space_q95": _inside(placebos, space)}
    return {name: float(torch.quantile(values, 0.95)) for name, values in ends.items()} | {"n": len(placebos)}


def _inside(directions: Tensor, space: Components) -> Tensor:
    """The share of |v|^2 of each row that lies in the span of the components."""
    return (directions @ space.directions.T).square().sum(dim=1) / directions.square().sum(dim=1)


def _cosines(one: Tensor, other: Tensor) -> Tensor:
    return torch.nn.functional.normalize(one, dim=1) @ torch.nn.functional.normalize(other.double(), dim=1).T
