"""What the rollouts of a trait take, said before the model is loaded: rows, tokens, passes, memory, seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from workbench.models.planning import PassPlan, plan_capture, plan_generation, plan_neutral
from workbench.models.probe import Probe
from workbench.personas.placebos import list_placebos, placebo_design, placebo_trait
from workbench.personas.reencoding import prompt_tokens
from workbench.personas.rollouts import RolloutDesign, plan_rows
from workbench.personas.rows import PlannedRow, plan_batches, prompt_lengths
from workbench.personas.traits import Trait


@dataclass(frozen=True)
class VectorPlan:
    """The steps of an extraction by name ("sample", "read", "norms"), for `n_rows` rollouts.

    Answers are counted as long as they may become; rollouts that stop sooner cost less.
    """

    n_rows: int
    steps: Mapping[str, PassPlan]

    @property
    def seconds(self) -> float:
        """Of all steps."""
        return sum(step.seconds for step in self.steps.values())

    @property
    def n_tokens(self) -> int:
        """Of all steps, padding included."""
        return sum(step.n_tokens for step in self.steps.values())

    @property
    def n_passes(self) -> int:
        """Of all steps."""
        return sum(step.n_passes for step in self.steps.values())

    @property
    def largest(self) -> PassPlan:
        """The step that takes most memory."""
        return max(self.steps.values(), key=lambda step: step.memory.peak)


def plan_vector(
    trait: Trait,
    probe: Probe,
    *,
    design: RolloutDesign,
    budget: int | None = None,
    served: bool = False,
    libraries: int = 0,
) -> VectorPlan:
    """The plan of `extract(trait, model, design=design)` on the model that `probe` stands for.

    budget: bytes of `load_model(max_memory=...)`. served: a server samples, and the answers are read here instead.
    """
    rows = plan_rows(trait, probe.model, design=design, seed=0)
    with_system = prompt_lengths(rows, probe.model)
    longest = design.sampling.max_new_tokens
    options = {"budget": budget, "libraries": libraries}
    batches = [[with_system[i] for i in ids] for ids in plan_batches(rows, with_system, design.batch_size)]
    steps = {"norms": plan_neutral(probe, **options)}
    if served:
        lengths = [length + longest for batch in batches for length in batch]
        steps["read with the system prompt"] = plan_capture(probe, lengths, n_token_hooks=1, **options)
    else:
        steps["sample"] = plan_generation(probe, batches, design.sampling, n_token_hooks=1, **options)
    steps["read without the system prompt"] = plan_capture(
        probe, [length + longest for length in _without_system(rows, probe)], **options
    )
    return VectorPlan(len(rows), steps)


def plan_placebos(
    probe: Probe, *, design: RolloutDesign, budget: int | None = None, libraries: int = 0
) -> VectorPlan:  # fmt: skip
    """The plan of `placebo_vectors(model, design=design)`."""
    plan = placebo_design(design)
    batches = []
    for placebo in list_placebos():
        rows = plan_rows(placebo_trait(placebo), probe.model, design=plan, seed=0)
        lengths = prompt_lengths(rows, probe.model)
        batches += [[lengths[i] for i in ids] for ids in plan_batches(rows, lengths, plan.batch_size)]
    sampled = plan_generation(probe, batches, plan.sampling, budget=budget, libraries=libraries)
    return VectorPlan(sum(map(len, batches)), {"sample": sampled})


def _without_system(rows: Sequence[PlannedRow], probe: Probe) -> list[int]:
    """Prompt lengths of the rows that are read again: those of the positive and the negative arm."""
    again = [row.question for row in rows if row.arm != "neutral"]
    lengths = {question: len(prompt_tokens(probe.model, "", question).ids) for question in set(again)}
    return [lengths[question] for question in again]
