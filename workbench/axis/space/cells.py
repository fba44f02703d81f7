"""Sums by role, prompt and question: enough to make role vectors again under any draw of questions and prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.axis.space.sums import group_sums
from workbench.base.display import Shown
from workbench.maths.statistics import bootstrap_counts
from workbench.models.hookpoints import HookPoint
from workbench.personas.rollouts import Rollouts

if TYPE_CHECKING:
    import pandas

MAX_QUESTION_GROUPS = 24
"""Of more questions, some are drawn together, which bounds the memory and leaves the intervals as they are."""
_NAMES = ("role", "prompt", "question", "count")


@dataclass(frozen=True, eq=False, repr=False)
class Cells(Shown):
    """One entry per role x prompt x question that has rollouts: codes `role`, `prompt`, `question`, `count` (int64 `[n_cells]`).

    `sums [n_cells, d_model]` (float32) are of the `count` rollouts' mean activations. The default assistant has the largest role
    code; prompts of two roles never share a code.
    """

    role: Tensor
    prompt: Tensor
    question: Tensor
    count: Tensor
    sums: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by name, to be saved."""
        return {f"cells.{name}": getattr(self, name) for name in (*_NAMES, "sums")}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Cells:
        """What `tensors` holds of it."""
        return cls(**{name: tensors[f"cells.{name}"] for name in (*_NAMES, "sums")})

    def only(self, roles: Sequence[int]) -> Cells:
        """The cells of these roles, which get the codes 0, 1, ..., and of the default."""
        code = torch.full((int(self.role.max()) + 1,), -1)
        code[list(roles)] = torch.arange(len(roles))
        code[-1] = len(roles)
        kept = code[self.role] >= 0
        return Cells(code[self.role][kept], *(getattr(self, name)[kept] for name in ("prompt", "question", "count", "sums")))

    def replicates(self, n_bootstrap: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """`n_bootstrap` draws of questions (the same for all roles) crossed with prompts: (means `[n_roles, d_model]`, default).

        float64. A role left without rollouts is NaN. Of n units n - 1 are drawn (of one, one), so that few prompts do not make
        the variance too small.
        """
        questions = _drawn(int(self.question.max()) + 1, n_bootstrap, generator)
        prompts = self._drawn_prompts(n_bootstrap, generator)
        for drawn, chosen in zip(questions, prompts, strict=True):
            yield self._weighted(drawn[self.question] * chosen[self.prompt])

    def means(self, used: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(means `[n_roles, d_model]`, default), float64, of all cells or of those `used` (bool `[n_cells]`)."""
        return self._weighted(torch.ones(len(self.role), dtype=torch.float64) if used is None else used.double())

    def half(self, which: int) -> Cells:
        """The cells of every other question: `which` is 0 or 1; the two have no reply in common."""
        own = self.question % 2 == which
        parts = {name: getattr(self, name)[own] for name in (*_NAMES, "sums")}
        return Cells(**{**parts, "question": parts["question"] // 2})

    def _weighted(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        n_roles, n_questions = int(self.role.max()), int(self.question.max()) + 1
        sums, count = self.sums.double(), self.count.double()
        totals = torch.zeros(n_roles + 1, sums.shape[1], dtype=torch.float64).index_add_(0, self.role, sums * weight[:, None])
        by_role = torch.zeros(n_roles + 1, dtype=torch.float64).index_add_(0, self.role, count * weight)
        return totals[:-1] / by_role[:-1, None], self._default(sums, count * weight, by_role, n_questions)

    def _default(self, sums: Tensor, weight: Tensor, by_role: Tensor, n_questions: int) -> Tensor:
        """The default's mean with the weights that the roles' questions have in this draw."""
        of_default = self.role == len(by_role) - 1
        share = torch.where(of_default, 0.0, weight / by_role[self.role].clamp_min(1e-300))
        mass = torch.zeros(n_questions, dtype=torch.float64).index_add_(0, self.question, share)
        own = torch.zeros(n_questions, dtype=torch.float64).index_add_(0, self.question, torch.where(of_default, weight, 0.0))
        per_row = torch.where(own > 0, mass / own.clamp_min(1e-300), 0.0)
        return (per_row[self.question] * of_default * weight / self.count) @ sums / mass[own > 0].sum()

    def _drawn_prompts(self, n_bootstrap: int, generator: torch.Generator) -> Tensor:
        counts = torch.zeros(n_bootstrap, int(self.prompt.max()) + 1, dtype=torch.float64)
        for role in self.role.unique():
            own = self.prompt[self.role == role].unique()
            counts[:, own] = _drawn(len(own), n_bootstrap, generator)
        return counts


def _drawn(n_items: int, n_bootstrap: int, generator: torch.Generator) -> Tensor:
    return bootstrap_counts(n_items, n_bootstrap, generator, n_drawn=max(1, n_items - 1))


def collect_cells(rollouts: Rollouts, judged: pandas.DataFrame, role: Tensor, hook: HookPoint) -> Cells:
    """The cells of the rows with a role code (-1: left out) at `hook`."""
    questions = {name: i % MAX_QUESTION_GROUPS for i, name in enumerate(sorted(set(judged["question_id"])))}
    prompts = {name: i for i, name in enumerate(dict.fromkeys(judged["instruction_id"]))}
    used = (role >= 0).nonzero().flatten().tolist()
    keys = [(int(role[i]), prompts[judged["instruction_id"].iloc[i]], questions[judged["question_id"].iloc[i]]) for i in used]
    places = {key: i for i, key in enumerate(sorted(set(keys)))}
    group = torch.full_like(role, -1)
    group[used] = torch.tensor([places[key] for key in keys])
    sums = group_sums(rollouts, group, torch.ones(len(role)), len(places), hooks=(hook,))[:, 0].float()
    columns = torch.tensor(list(places)).T
    return Cells(columns[0], _dense(columns[1]), _dense(columns[2]), torch.bincount(group[used], minlength=len(places)), sums)


def _dense(codes: Tensor) -> Tensor:
    return codes.unique(return_inverse=True)[1]
