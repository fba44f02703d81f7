"""Displays of characters on a model: designs, runs, role vectors, the space, two spaces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.reports.displays.frame import Display, ends, listing

if TYPE_CHECKING:
    from workbench.axis.space.comparison import SpaceComparison
    from workbench.axis.space.design import RoleDesign
    from workbench.axis.space.mapping import RoleRun
    from workbench.axis.space.role_vectors import RoleVectors
    from workbench.axis.space.space import PersonaSpace

N_ENDS = 6


def design_display(design: RoleDesign) -> Display:
    """Who is asked what, and how many answers that is."""
    n_roles, asked = len(design.roles), len(design.questions(default=False))
    answers = n_roles * design.n_prompts * asked * design.n_samples
    rows = [
        ("characters", n_roles), ("system prompts of each", design.n_prompts), ("questions to each", asked),
        ("answers per prompt and question", design.n_samples), ("tokens of an answer, at most", design.sampling.max_new_tokens),
        ("kept answers that make a vector", design.min_count),
    ]  # fmt: skip
    return Display("Design of role rollouts", [f"{answers:,} answers, and those of the default assistant."],
                   [listing(("what", "value"), rows)])  # fmt: skip


def vectors_display(vectors: RoleVectors) -> Display:
    """How many answers stand behind each role, and who was left out."""
    rows = list(zip([name.replace("_", " ") for name in vectors.names], vectors.n_kept, strict=True))
    where = f"{vectors.model.get('name', 'a model')}, {vectors.hook}, one of {len(vectors.hooks)} hook points"
    out = ", ".join(f"{name} ({count})" for name, count in vectors.left_out.items())
    return Display(f"{len(vectors)} role vectors", [f"{where}; {vectors.n_default} answers of the default assistant."],
                   [listing(("role", "answers"), rows)], notes=[f"Left out, too few kept: {out}."] if out else [])  # fmt: skip


def run_display(run: RoleRun) -> Display:
    """The run's counts, and what the filter is worth."""
    rows = [(name, one["rows"], one["kept"]) for name, one in run.told["counts"].items()]
    lines = [f"{len(run.rollouts):,} answers, graded by {run.told['judge']['name']}; {len(run.vectors)} role vectors."]
    if found := run.told["validation"]:
        rates = [f"{found[f'rate_{name}']:.0%} of {said}" for name, said in _SAID.items() if f"rate_{name}" in found]
        lines.append(f"Counted as fully played: {', '.join(rates)}.")
    return Display("Characters on a model", lines, [listing(("role", "answers", "kept"), rows)])


_SAID = {"own": "their own answers", "swapped": "another character’s", "default": "the default assistant’s"}


def space_display(space: PersonaSpace) -> Display:
    """The answer, the map, and both ends of the axis."""
    from workbench.reports.axis.space import answer, cautions, map_figure

    shown = space.ranking if len(space.ranking) <= 2 * N_ENDS else space.ranking[:N_ENDS] + space.ranking[-N_ENDS:]
    rows = [(row["role"].replace("_", " "), row["position"], ends((row["low"], row["high"]))) for row in shown]
    table = listing(("character", "position", "95% interval"), rows)
    title = f"Characters of {space.model.get('name', 'a model')}"
    return Display(title, [answer(space)], [table], figure=map_figure(space), notes=cautions(space))


def comparison_display(found: SpaceComparison) -> Display:
    """How alike the places of the same characters are in two models."""
    from workbench.reports.axis.space import positions_figure

    rows = [(name.replace("_", " "), one["value"], ends(one["interval"]), one["p"]) for name, one in found.measures.items()]
    rows += [("cosine of the axes", found.axes["cos"], "–", found.axes["p"])] if found.axes else []
    rows.append(("axis carried by a linear map", found.carried["cos"], "–", found.carried["p"]))
    return Display(f"{found.models[0]} and {found.models[1]}", [f"{len(found.names)} characters that both have."],
                   [listing(("measure", "value", "95% interval", "p"), rows)], figure=positions_figure(found))  # fmt: skip
