"""What a model answers as each character: the rollouts of a role design, appended to disk as they come."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from workbench.axis.roles import Role
from workbench.axis.space.axis import MAX_ROWS
from workbench.axis.space.design import RoleDesign, plan_role_rows
from workbench.models.hookpoints import HookPoint
from workbench.models.model import Model
from workbench.models.servers import ChatServer
from workbench.personas.rollouts import Rollouts, collect_rows
from workbench.personas.rows import PlannedRow


def collect_role_rollouts(
    model: Model,
    folder: str | Path,
    *,
    design: RoleDesign | None = None,
    roles: Sequence[Role] | None = None,
    default: Role | None = None,
    hooks: Sequence[HookPoint] | None = None,
    token_hooks: Sequence[HookPoint] = (),
    seed: int = 0,
    server: ChatServer | None = None,
) -> Rollouts:
    """Sample every rollout of the design that `folder` does not hold yet, and return them all, the default's first.

    hooks: where means are captured (default: every block output). token_hooks: where each token of the extraction rows is
    kept, for a decomposition; a design of more than 5,000 of those keeps none (a decomposition then reads its rows again).
    roles, default: instead of those of the design. server: who samples, as in `personas.rollouts.collect_rollouts`, which also
    says how a run is resumed and what is raised.
    """
    design = design or RoleDesign()
    rows = plan_role_rows(model, design, roles=roles, default=default, seed=seed, server=server)
    return collect_rows(
        rows, model, folder, sampling=design.sampling, batch_size=design.batch_size, server=server, label="rollouts of roles",
        hooks=tuple(hooks or every_block(model)), token_hooks=tuple(token_hooks) if keeps_tokens(rows) else (),
    )  # fmt: skip


def every_block(model: Model) -> tuple[HookPoint, ...]:
    """The output of each block."""
    return tuple(HookPoint(block) for block in range(model.n_blocks))


def keeps_tokens(rows: Sequence[PlannedRow]) -> bool:
    """Whether a design is small enough to keep the activations of every token."""
    return sum(row.split == "extraction" for row in rows) <= MAX_ROWS
