"""Displays of what steering costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.reports.displays.frame import Display, ends, listing

if TYPE_CHECKING:
    from workbench.steering.cost.capability import Capability, Exam
    from workbench.steering.cost.pareto import Front
    from workbench.steering.cost.replies import Replies
    from workbench.steering.cost.sweep import Cell, Sweep

N_SHOWN = 5


def front_display(found: Front) -> Display:
    """The figure, and every point with its intervals."""
    from workbench.reports.steering.pareto import front_sentences, pareto_figure

    rows = [
        (point.method, point.level, point.change, ends(point.change_interval, 1), point.loss, ends(point.loss_interval, 3),
         point.kl, point.coherence, point.on_front)
        for point in found.points
    ]  # fmt: skip
    columns = ("method", "level", "change, points", "95% interval", "loss, nats per token", "95% interval", "KL", "coherence",
               "on the front")  # fmt: skip
    return Display(f"What steering {found.trait} costs", front_sentences(found), [listing(columns, rows)],
                   figure=pareto_figure([found]))  # fmt: skip


def sweep_display(found: Sweep) -> Display:
    """The cells of a sweep."""
    cells = (found.base, *found.cells)
    rows = [(cell.name, cell.replies.mean("points"), cell.replies.mean("coherence"), cell.kl) for cell in cells]
    lines = [f"{len(found.cells)} treatments from the {found.start} start, scored by {found.judge}."]
    return Display(f"Sweep of {found.trait}", lines, [listing(("treatment", "points", "coherence", "KL"), rows)])


def cell_display(found: Cell) -> Display:
    """One treatment's measures and a few of its replies."""
    return Display(f"Under {found.name}", [f"KL on neutral text: {found.kl:.3f} nats per token."],
                   replies_display(found.replies).tables)  # fmt: skip


def replies_display(found: Replies) -> Display:
    """The first replies with what was measured on them."""
    columns = ("question", "reply", "points", "coherence")
    rows = [(row["question"], row["response"], row["points"], row["coherence"]) for row in found.rows[:N_SHOWN]]
    return Display("Replies", [f"{len(found.rows)} replies."], [listing(columns, rows)])


def capability_display(found: Capability) -> Display:
    """Surprise and right answers."""
    rows = [("surprise, nats per token", float(found.surprise.mean()), len(found.surprise))]
    rows += [(f"right in {name}", float(values.mean()), len(values)) for name, values in found.correct.items()]
    lines = ["Measured as the model was, edits in force included."]
    return Display("Capability", lines, [listing(("measure", "mean", "n"), rows)])


def exam_display(found: Exam) -> Display:
    """Which question sets count, and why."""
    rows = [(row["name"], row["n"], row["chance"], row["accuracy"], row["counts"]) for row in found.considered]
    lines = [f"{len(found.documents)} documents and {len(found.sets)} question sets; sets count 10 points above chance."]
    return Display("What capability is measured on", lines, [listing(("set", "items", "chance", "unedited", "counts"), rows)])
