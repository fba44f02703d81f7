"""Which characters are asked what: a subset that two cores finish, or the full design of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TypeVar

from workbench.axis.questions import question_bank
from workbench.axis.roles import ASSISTANT_END, FAR_END, Role, default_role, load_roles
from workbench.axis.space.weights import DEFAULT_ARM, ROLE_ARM
from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.models.generation import Sampling
from workbench.models.model import Model
from workbench.models.servers import ChatServer
from workbench.personas.rows import PlannedRow, RowIdentity
from workbench.personas.traits import Question

Item = TypeVar("Item")


@dataclass(frozen=True, repr=False)
class RoleDesign(Shown):
    """Which rollouts to sample: roles x prompts x questions x samples, and the default assistant on the same questions."""

    n_roles: int | None = 60
    """How many roles: the 18 of the two published ends, then others spread evenly over the sorted names; None = all."""
    n_questions: int = 12
    """Extraction questions, spread evenly over the bank; vectors are made from these."""
    n_calibration: int = 12
    """Verification questions for the default alone: the offline adherence filter is calibrated on its replies."""
    held_out: bool = False
    """Whether the roles are asked the calibration and the sealed questions too, which make no vector."""
    n_prompts: int = 2
    """System prompts per role, the first ones."""
    n_samples: int = 1
    """Answers per prompt and question."""
    n_default_samples: int = 2
    """Answers of the default assistant per prompt of its own (all of them) and question."""
    min_count: int = 8
    """Kept rollouts that a role needs to get a vector."""
    sampling: Sampling = field(default_factory=lambda: Sampling(max_new_tokens=64, temperature=0.7, top_p=0.9))
    """Length, temperature and top-p; the paper's, but for the length."""
    batch_size: int = 32
    """Rows generated together; part of the identity of a run, because it fixes the batches."""

    def __post_init__(self) -> None:
        for name in ("n_roles", "n_questions", "n_prompts", "n_samples", "n_default_samples", "min_count", "batch_size"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise WorkbenchError(f"{name} = {count}", "a count of at least 1", "correct the design")

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles of the design, without the default."""
        return chosen_roles(load_roles(), self.n_roles)

    def questions(self, *, default: bool) -> tuple[Question, ...]:
        """What the default, or a role, is asked: extraction questions, and others that make no vector."""
        asked = spread(question_bank("extraction"), self.n_questions)
        if default or self.held_out:
            asked += spread(question_bank("verification"), self.n_calibration)
        return asked + question_bank("sealed") if self.held_out else asked


FULL = RoleDesign(
    n_roles=None, n_questions=120, n_calibration=60, held_out=True, n_prompts=5, n_default_samples=1, min_count=50,
    sampling=Sampling(max_new_tokens=512, temperature=0.7, top_p=0.9),
)  # fmt: skip
"""The paper's design: all roles x 5 prompts x 240 questions x 512 tokens. Half of the questions make the vectors."""


def chosen_roles(roles: Sequence[Role], n: int | None) -> tuple[Role, ...]:
    """`n` of the roles in their order: those of the published ends first, the rest spread evenly over the sorted names."""
    if n is None or n >= len(roles):
        return tuple(roles)
    ends = [role for role in roles if role.name in ASSISTANT_END + FAR_END]
    others = sorted((role for role in roles if role not in ends), key=lambda role: role.name)
    wanted = {role.name for role in (*ends, *spread(others, max(0, n - len(ends))))[:n]}
    return tuple(role for role in roles if role.name in wanted)


def spread(items: Sequence[Item], n: int) -> tuple[Item, ...]:
    """`n` of the items, evenly spaced."""
    if n >= len(items):
        return tuple(items)
    return tuple(items[(2 * i + 1) * len(items) // (2 * n)] for i in range(n))


def plan_role_rows(
    model: Model,
    design: RoleDesign,
    *,
    roles: Sequence[Role] | None = None,
    default: Role | None = None,
    seed: int = 0,
    server: ChatServer | None = None,
) -> tuple[PlannedRow, ...]:
    """Every rollout of the design, the default assistant's first, each content once.

    roles, default: instead of those of the design. A row's `trait` is its role's name, its `arm` "positive" for the default
    and "negative" for a role, its `instruction_id` NAME/K.
    """
    identity, default = RowIdentity(model, design.sampling, seed, server), default or default_role()
    rows: dict[str, PlannedRow] = {}
    for role in (default, *(roles if roles is not None else design.roles)):
        own = role.name == default.name
        arm, n_samples = (DEFAULT_ARM, design.n_default_samples) if own else (ROLE_ARM, design.n_samples)
        prompts = list(enumerate(role.called(model.name).prompts[: None if own else design.n_prompts], start=1))
        for (number, prompt), question, sample in product(prompts, design.questions(default=own), range(n_samples)):
            place = (role.name, question.split, question.id, f"{role.name}/{number}", arm, sample)
            row = identity.row(place, prompt, question.text)
            rows.setdefault(row.id, row)
    return tuple(rows.values())
