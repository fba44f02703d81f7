"""Role vectors: the mean activation of each character over the replies in which it was played, and of the default assistant."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.axis.space.cells import Cells, collect_cells
from workbench.axis.space.sums import group_sums
from workbench.axis.space.weights import ROLE_ARM, axis_weights, vector_rows
from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.provenance import provenance
from workbench.base.tensors import load_artifact, save_artifact
from workbench.base.untrusted import refuses_damage
from workbench.models.hookpoints import HookPoint
from workbench.models.model import Model
from workbench.models.prompts import chat_template_hash
from workbench.personas.rollouts import Rollouts

if TYPE_CHECKING:
    import pandas

KIND, SCHEMA = "role_vectors", 1
MIN_COUNT = 8
MIN_ROLES = 3


@dataclass(frozen=True, eq=False, repr=False)
class RoleVectors(Shown):
    """`means [n_roles, n_hooks, d_model]` per role and `default [n_hooks, d_model]`, float32, in units of the residual stream.

    A role's mean is over the response tokens of its `n_kept` rollouts (first within, then over rollouts); the default assistant
    is averaged over the same questions with the roles' weights (`weights.axis_weights`). `halves [2, n_roles, n_hooks, d_model]`:
    the same from every other question, and `n_half [2, n_roles]` rollouts (a mean of none is 0). `cells`: sums at `hook` by
    prompt and question, which intervals are made from. `left_out`: roles with too few kept rollouts, with their counts.
    Source: Lu et al. 2026 (arXiv 2601.10387), section 3.
    """

    names: tuple[str, ...]
    hook: HookPoint
    hooks: tuple[HookPoint, ...]
    means: Tensor
    default: Tensor
    n_kept: tuple[int, ...]
    n_default: int
    halves: Tensor
    n_half: Tensor
    cells: Cells
    model: dict[str, Any]
    left_out: Mapping[str, int] = field(default_factory=dict)
    evidence: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    def index(self, hook: HookPoint | str | None = None) -> int:
        """The place of `hook` (default: the chosen one) in the tensors."""
        wanted = self.hook if hook is None else HookPoint.parse(hook)
        if wanted not in self.hooks:
            raise unknown_name("hook point of the role vectors", str(wanted), [str(known) for known in self.hooks])
        return self.hooks.index(wanted)

    def at(self, hook: HookPoint | str | None = None) -> Tensor:
        """The role means `[n_roles, d_model]` (float64) at `hook`."""
        return self.means[:, self.index(hook)].double()

    def default_at(self, hook: HookPoint | str | None = None) -> Tensor:
        """The mean of the default assistant `[d_model]` (float64) at `hook`."""
        return self.default[self.index(hook)].double()

    def axis(self, hook: HookPoint | str | None = None) -> Tensor:
        """mean(default) - mean over roles `[d_model]` (float64): points toward the assistant."""
        return self.default_at(hook) - self.at(hook).mean(dim=0)

    def only(self, names: Sequence[str]) -> RoleVectors:
        """The same with these roles alone, in this order; the default stays as it is."""
        places = [self._place(name) for name in names]
        return RoleVectors(
            tuple(names), self.hook, self.hooks, self.means[places], self.default, tuple(self.n_kept[i] for i in places),
            self.n_default, self.halves[:, places], self.n_half[:, places], self.cells.only(places), self.model, {},
            self.evidence, self.provenance,
        )  # fmt: skip

    def _place(self, name: str) -> int:
        if name not in self.names:
            raise unknown_name("role with a vector", name, self.names)
        return self.names.index(name)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write role_vectors.safetensors and, last, role_vectors.json; returns the JSON's path."""
        document = {
            "names": self.names, "hook": str(self.hook), "hooks": [str(hook) for hook in self.hooks], "n_kept": self.n_kept,
            "n_default": self.n_default, "left_out": dict(self.left_out), "model": self.model, "evidence": self.evidence,
            "provenance": self.provenance,
        }  # fmt: skip
        tensors = {name: getattr(self, name) for name in ("means", "default", "halves", "n_half")} | self.cells.tensors()
        return save_artifact(Path(folder), KIND, SCHEMA, document, tensors)

    @classmethod
    @refuses_damage
    def load(cls, folder: str | os.PathLike[str]) -> RoleVectors:
        """The role vectors saved in `folder`."""
        document, tensors = load_artifact(Path(folder), KIND, SCHEMA)
        return cls(
            names=tuple(document["names"]), hook=HookPoint.parse(document["hook"]), cells=Cells.of(tensors),
            hooks=tuple(map(HookPoint.parse, document["hooks"])), n_kept=tuple(document["n_kept"]),
            **{name: tensors[name] for name in ("means", "default", "halves", "n_half")},
            **{name: document[name] for name in ("n_default", "model", "left_out", "evidence", "provenance")},
        )  # fmt: skip


def role_vectors(
    rollouts: Rollouts,
    judged: pandas.DataFrame,
    model: Model,
    *,
    hook: HookPoint | str | None = None,
    min_count: int = MIN_COUNT,
    filter: bool = True,
    evidence: dict[str, Any] | None = None,
    seed: int = 0,
) -> RoleVectors:
    """The vectors of all roles with at least `min_count` kept rollouts, at every hook of `rollouts`.

    judged: the rows of `rollouts`, in their order, with a bool column `kept` (`adherence.judge_roles`). hook: the block that
    intervals are made at (default: the middle one). filter=False takes every rollout with tokens. The rollouts are read part by
    part: memory is that of the vectors. Raises WorkbenchError when fewer than three roles are left.
    """
    where = HookPoint.parse(hook) if hook is not None else rollouts.hooks[len(rollouts.hooks) // 2]
    used = vector_rows(judged, filter=filter)
    names, left_out = counted_roles(judged, used, min_count)
    weights = torch.from_numpy(axis_weights(judged, used, names))
    place = {name: i for i, name in enumerate(names)}
    of_role = (judged["arm"] == ROLE_ARM).tolist()
    owner = [place.get(name, -1) if role else len(names) for name, role in zip(judged["trait"], of_role, strict=True)]
    code = torch.where(weights != 0, torch.tensor(owner), -1)
    means, halves, kept = _means(rollouts, code, weights.abs(), _question_halves(judged["question_id"].tolist()), len(names) + 1)
    counts = kept.sum(dim=0).tolist()
    inputs = {"rollouts": rollouts.hash, "model": model.weights_hash, "chat_template": chat_template_hash(model)}
    return RoleVectors(
        names, where, rollouts.hooks, means[:-1], means[-1], tuple(counts[:-1]), counts[-1], halves[:, :-1], kept[:, :-1],
        collect_cells(rollouts, judged, code, where), model.description(), left_out, evidence or {},
        provenance(seed=seed, inputs=inputs, config={"min_count": min_count, "filter": filter}),
    )  # fmt: skip


def _means(rollouts: Rollouts, code: Tensor, weight: Tensor, half: Tensor, n_codes: int) -> tuple[Tensor, Tensor, Tensor]:
    """(weighted means [n_codes, n_hooks, d_model], the same of each half [2, ...], rows in each half [2, n_codes])."""
    group = torch.where(code >= 0, n_codes * half + code, -1)
    used = group >= 0
    sums = group_sums(rollouts, group, weight, 2 * n_codes).unflatten(0, (2, n_codes))
    mass = torch.zeros(2 * n_codes, dtype=torch.float64).index_add_(0, group[used], weight[used]).view(2, n_codes)
    means = sums.sum(dim=0) / mass.sum(dim=0)[:, None, None]
    halves = sums / mass.clamp_min(1e-300)[:, :, None, None]
    return means.float(), halves.float(), torch.bincount(group[used], minlength=2 * n_codes).view(2, n_codes)


def counted_roles(judged: pandas.DataFrame, used: Any, min_count: int) -> tuple[tuple[str, ...], dict[str, int]]:
    """(roles with at least `min_count` used rollouts, in order of first appearance; the others with their counts)."""
    roles: Any = judged[judged["arm"] == ROLE_ARM]
    counts = {name: int(used[rows.index].sum()) for name, rows in roles.groupby("trait", sort=False)}
    names = tuple(name for name, count in counts.items() if count >= max(1, min_count))
    if len(names) < MIN_ROLES:
        most = max(counts.values(), default=0)
        raise WorkbenchError(
            f"{len(names)} of {len(counts)} roles have {min_count} or more rollouts that count (the most any has is {most})",
            f"at least {MIN_ROLES} roles", "sample more questions or prompts, or ask for fewer rollouts per role (--min-count)",
        )  # fmt: skip
    return names, {name: count for name, count in counts.items() if name not in names}


def _question_halves(questions: Sequence[str]) -> Tensor:
    order = {name: i for i, name in enumerate(sorted(set(questions)))}
    return torch.tensor([order[name] % 2 for name in questions])
