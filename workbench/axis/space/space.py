"""The persona space of a model: its components, the axis in it, clusters, and where every character stands."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from workbench.axis.space.clusters import clusters
from workbench.axis.space.components import (
    N_BOOTSTRAP,
    components,
    curve,
    n_for_share,
    noise_floor,
    standardised_cosine,
)
from workbench.axis.space.ends import axis_positions, ends_agreement, positions
from workbench.axis.space.placing import place_vectors
from workbench.axis.space.role_vectors import RoleVectors
from workbench.axis.space.sensitivity import equal_answers, without_ends
from workbench.base.display import Shown
from workbench.base.progress import track
from workbench.base.provenance import provenance
from workbench.base.tensors import load_artifact, save_artifact, tensor_hash
from workbench.base.untrusted import refuses_damage
from workbench.models.hookpoints import HookPoint
from workbench.personas.placebos import PlaceboVectors
from workbench.personas.vectors import PersonaVector

KIND, SCHEMA = "persona_space", 1
N_SCORES = 10
EQUAL_COUNTS = (20, 40)


@dataclass(frozen=True, eq=False, repr=False)
class PersonaSpace(Shown):
    """What was found about the space of `names`, at `hook` unless said otherwise; every part is JSON but the tensors.

    scores `[n_roles, k]`: coordinates on the first components (at most ten; float32). axis, centre `[d_model]`: the axis toward
    the assistant and the mean role. variance: {centred, standardised: {shares, n_for_70}, n_for_70_at: {n_roles: mean}, noise}
    (`components`). blocks: per hook |cos| of axis and first component with its null. ranking: the roles along the axis
    (`ends.positions`), from the assistant on. ends, clusters, traits: see `ends`, `clusters` and `placing`. sensitivity:
    {equal_answers, without_ends}, what |cos| at `hook` owes to the design (`sensitivity`).
    """

    model: dict[str, Any]
    hook: HookPoint
    names: tuple[str, ...]
    scores: Tensor
    axis: Tensor
    centre: Tensor
    variance: dict[str, Any]
    blocks: list[dict[str, Any]]
    ranking: list[dict[str, Any]]
    ends: dict[str, Any]
    clusters: dict[str, Any]
    traits: dict[str, Any]
    adherence: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    sensitivity: dict[str, Any] = field(default_factory=dict)

    @property
    def at_hook(self) -> dict[str, Any]:
        """The row of `blocks` at the chosen hook."""
        return next(row for row in self.blocks if row["hook"] == str(self.hook))

    def position(self, points: Tensor) -> Tensor:
        """Positions on the axis of points `[..., d_model]`: 0 the mean role, 1 the default assistant."""
        return axis_positions(points, self.centre, self.axis)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write persona_space.safetensors and, last, persona_space.json; returns the JSON's path."""
        tensors = {name: getattr(self, name) for name in ("scores", "axis", "centre")}
        document = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in tensors}
        return save_artifact(Path(folder), KIND, SCHEMA, document | {"hook": str(self.hook)}, tensors)

    @classmethod
    @refuses_damage
    def load(cls, folder: str | os.PathLike[str]) -> PersonaSpace:
        """The space saved in `folder`."""
        document, tensors = load_artifact(Path(folder), KIND, SCHEMA)
        values: dict[str, Any] = {name: document[name] for name in cls.__dataclass_fields__ if name in document}
        values |= {**tensors, "hook": HookPoint.parse(document["hook"]), "names": tuple(document["names"])}
        return cls(**values)


def persona_space(
    vectors: RoleVectors,
    *,
    traits: Sequence[PersonaVector] = (),
    placebos: PlaceboVectors | None = None,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
) -> PersonaSpace:
    """The space of the roles of `vectors`; `traits` are placed in it, beside `placebos`.

    The default assistant takes no part in the components. Everything is at the chosen hook of the role vectors, but for
    `blocks`. Source: rule 9 of rigour; Lu et al. 2026 (arXiv 2601.10387), section 3.
    """
    roles, default, names = vectors.at(), vectors.default_at(), vectors.names
    found = components(roles)
    axis = vectors.axis()
    first = found.directions[0]
    if float(first @ axis) < 0:  # the first component points toward the assistant, as the axis does
        found.directions[0] = -first
    scores = found.scores(roles)
    with track("persona space", 4, "steps") as step:
        blocks = curve(vectors.means, vectors.default, vectors.hooks, n_bootstrap=n_bootstrap, seed=seed)
        step()
        ranking = positions(vectors, n_bootstrap=n_bootstrap, seed=seed)
        step()
        grouped = clusters(scores[:, : max(2, found.n_for())], names, seed=seed)
        step()
        placed = place_vectors(vectors, traits, placebos)
        step()
    place = {row["role"]: row["position"] for row in ranking}
    ends = ends_agreement(names, _in_order(place, names), seed=seed)
    return PersonaSpace(
        vectors.model, vectors.hook, names, scores[:, :N_SCORES].float(), axis.float(), found.centre.float(),
        _variance(vectors, roles, default, seed), blocks, ranking, ends, grouped, placed, vectors.evidence,
        provenance(seed=seed, inputs={"role_vectors": tensor_hash(vectors.means)}, config={"n_bootstrap": n_bootstrap}),
        {"equal_answers": equal_answers(vectors), "without_ends": without_ends(vectors, n_bootstrap=n_bootstrap, seed=seed)},
    )  # fmt: skip


def _in_order(place: dict[str, float], names: Sequence[str]) -> Tensor:
    import torch

    return torch.tensor([place[name] for name in names])


def _variance(vectors: RoleVectors, roles: Tensor, default: Tensor, seed: int) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for name in ("centred", "standardised"):
        found = components(roles, standardised=name == "standardised")
        told[name] = {"shares": found.shares[:N_SCORES].tolist(), "n_for_70": found.n_for()}
    told["standardised"]["cos_axis_pc1"] = standardised_cosine(roles, default)
    equal = {str(n): n_for_share(roles, n, seed=seed) for n in EQUAL_COUNTS if n < len(roles)}
    both = (vectors.n_half > 0).all(dim=0)
    noise = noise_floor(vectors.halves[:, both, vectors.index()]) if int(both.sum()) >= 3 else None
    return {**told, "n_for_70_at": equal, "noise": noise, "n_roles": len(roles)}
