"""What the rollouts of roles take, said before the model is loaded: rows, tokens, time, memory, disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workbench.axis.roles import Role
from workbench.axis.space.design import RoleDesign, plan_role_rows
from workbench.axis.space.rollouts import keeps_tokens
from workbench.models.planning import PassPlan, plan_capture, plan_generation
from workbench.models.probe import Probe
from workbench.personas.reencoding import prompt_tokens
from workbench.personas.rows import PlannedRow, plan_batches


@dataclass(frozen=True)
class RolePlan:
    """`n_rows` rollouts of `n_roles` roles and the default; answers are counted as long as they may become.

    `n_bytes` on disk: means of every hook (float32), texts, and the tokens of one hook where they are kept.
    """

    n_roles: int
    n_rows: int
    n_answer_tokens: int
    sample: PassPlan
    n_bytes: int
    keeps_tokens: bool


def plan_roles(
    probe: Probe, design: RoleDesign, *, roles: Sequence[Role] | None = None, served: bool = False, budget: int | None = None,
    n_hooks: int | None = None, libraries: int = 0,
) -> RolePlan:  # fmt: skip
    """The plan of `collect_role_rollouts(model, folder, design=design)` on the model that `probe` stands for.

    served: a server samples, and the answers are read here. n_hooks: how many hooks keep means (default: every block).
    """
    rows = plan_role_rows(probe.model, design, roles=roles)
    lengths, longest = _lengths(rows, probe), design.sampling.max_new_tokens
    options = {"budget": budget, "libraries": libraries}
    kept = keeps_tokens(rows)
    if served:
        reading = [length + longest for length in lengths.values()]
        sample = plan_capture(probe, reading, n_token_hooks=int(kept), **options)
    else:
        batches = [[lengths[i] for i in ids] for ids in plan_batches(rows, lengths, design.batch_size)]
        sample = plan_generation(probe, batches, design.sampling, n_token_hooks=int(kept), **options)
    width, n_answers = probe.shape.d_model * 4, len(rows) * longest
    n_kept = longest * sum(row.split == "extraction" for row in rows) if kept else 0
    n_bytes = len(rows) * (width * (n_hooks or probe.shape.n_blocks) + 10 * longest) + n_kept * width
    n_roles = len({row.trait for row in rows}) - 1
    return RolePlan(n_roles, len(rows), n_answers, sample, n_bytes, kept)


def _lengths(rows: Sequence[PlannedRow], probe: Probe) -> dict[str, int]:
    """About how many tokens each prompt has: those of its system prompt with one question, and what its own question adds."""
    plain = rows[0].question
    systems = {system: len(prompt_tokens(probe.model, system, plain).ids) for system in {row.system for row in rows}}
    questions = {asked: len(prompt_tokens(probe.model, "", asked).ids) for asked in {row.question for row in rows}}
    return {row.id: systems[row.system] + questions[row.question] - questions[plain] for row in rows}
