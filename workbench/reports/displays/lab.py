"""Displays of the planted laboratory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.reports.displays.frame import Display, ends, listing, number

if TYPE_CHECKING:
    from workbench.lab.dictionaries import Truth
    from workbench.lab.difficulties import Difficulty
    from workbench.lab.experiment import Experiment
    from workbench.lab.methods import Findings, Trial
    from workbench.lab.mixture_study import MixtureResult
    from workbench.lab.mixtures import Answers
    from workbench.lab.result import LabResult, LabRow
    from workbench.lab.sub_personas import SubPersonas
    from workbench.lab.world import World

N_LISTED = 10


def lab_display(result: LabResult) -> Display:
    """The two matrices, and which aims the package's own tests miss."""
    from workbench.lab.methods import CROSSED, PRIMARY
    from workbench.reports.lab import lab_figure

    missed = [aim for method in (PRIMARY, CROSSED) for aim in result.aims(method) if not aim.met]
    columns = ("difficulty", "method", "aim missed", "value", "limit")
    return Display(
        f"Planted truth: {result.sae} SAE, {len(result.seeds)} worlds per difficulty",
        ["Left: how much of what is found is false. Right: how much of what the oracle finds is found."],
        [listing(columns, [(aim.difficulty, aim.method, aim.name, aim.value, aim.limit) for aim in missed])],
        figure=lab_figure(result),
    )


def row_display(row: LabRow) -> Display:
    """The figures of one method in one difficulty."""
    rows = [
        ("found", row.n_discoveries), ("of it false", row.fdr_at_05), ("of it with the wrong sign", row.sign_errors),
        ("of what changed, found", row.power), ("  over the same of the oracle", row.power_vs_oracle),
        ("precision of the first ten", row.precision_at_10),
    ]  # fmt: skip
    how = "has error rates (here at q = .05)" if row.controlled else "ranks only: it is told how many features to list"
    return Display(
        f"{row.method} in {row.difficulty}",
        [f"The method {how}; mean of {row.n_seeds} worlds."],
        [listing(("figure", "value"), rows)],
    )


def mixtures_display(result: MixtureResult) -> Display:
    """Known against estimated proportions, and every method's figures."""
    from workbench.reports.mixtures import mixture_figure

    rows = [
        (one.method, one.share_error, ends(one.share_error_interval), one.order_right, ends(one.order_right_interval),
         one.largest_error)
        for one in result.scores
    ]  # fmt: skip
    columns = ("method", "share error", "95% interval", "order right", "95% interval", "largest error")
    return Display(
        f"Known mixtures of {', '.join(result.names)}",
        ["Known against estimated proportions: two readings of the decomposition, and regression without an SAE."],
        [listing(columns, rows)],
        figure=mixture_figure(result),
    )


def answers_display(answers: Answers) -> Display:
    """How many answers every sub-persona gave."""
    rows = [(name, int((answers.persona == name).sum())) for name in (*answers.names, answers.neutral)]
    return Display("Answers of sub-personas", tables=[listing(("sub-persona", "answers"), rows)])


def sub_personas_display(found: SubPersonas) -> Display:
    """The sub-personas, and how many questions they answer."""
    rows = [(one.name, len(one.instructions), one.instructions[0]) for one in (*found.personas, found.neutral)]
    lines = [f"{len(found.questions)} questions, answered by all of them."]
    return Display("Sub-personas", lines, [listing(("name", "instructions", "the first"), rows)])


def difficulty_display(one: Difficulty) -> Display:
    """What is hard about it, and its size."""
    rows = [
        ("features", one.n_features), ("changed by the persona", one.n_planted), ("changed by accident", one.n_nuisance),
        ("questions", one.n_questions), ("pairs of instructions", one.n_instructions), ("tokens of a reply", one.n_tokens),
    ]  # fmt: skip
    return Display(f"Difficulty: {one.name}", [one.note], [listing(("what", "number"), rows)])


def world_display(world: World) -> Display:
    """How many features there are, and what the persona does to them."""
    changed = (world.rate_change != 0) | (world.strength_change != 0)
    planted = [int(f) for f in changed.nonzero().flatten() if not bool(world.nuisance[f])]
    rows = [(str(f), float(world.rate_change[f]), float(world.strength_change[f])) for f in planted]
    return Display(
        f"A planted world: {world.difficulty.name}",
        [f"{len(world.log_odds):,} features in {world.directions.shape[1]} dimensions; the persona changes {len(planted)}."],
        [listing(("feature", "change of its rate (log-odds)", "change of its strength (log ratio)"), rows)],
    )


def experiment_display(one: Experiment) -> Display:
    """The size of the experiment."""
    length = float(one.vector.direction.norm())
    lines = [f"{len(one.vector.rows):,} replies, seed {one.seed}; the vector’s length is {number(length)}."]
    return Display(f"An experiment in the world {one.world.difficulty.name}", lines)


def trial_display(trial: Trial) -> Display:
    """The SAE's latents and how many of them truly change."""
    return Display("A trial", [f"{trial.sae.d_sae:,} latents of {trial.sae.id}."], truth_display(trial.truth).tables)


def truth_display(truth: Truth) -> Display:
    """How many latents change, with which sign."""
    rows = [(name, int((truth.change == sign).sum())) for name, sign in (("more", 1), ("less", -1), ("unchanged", 0))]
    return Display(f"The truth, by {truth.by}", tables=[listing(("the persona has of the latent", "latents"), rows)])


def findings_display(found: Findings) -> Display:
    """The surest latents."""
    order = found.ranking.argsort(descending=True)[:N_LISTED].tolist()
    rows = [(str(f), float(found.coefficients[f]), None if found.q is None else float(found.q[f])) for f in order]
    told = "" if found.q is None else f"; {int((found.q <= 0.05).sum())} at q .05"
    title = f"Findings on {len(found.coefficients):,} latents{told}"
    return Display(title, tables=[listing(("latent", "coefficient", "q"), rows)])
