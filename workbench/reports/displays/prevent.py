"""Displays of prevention studies and fine-tunes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.reports.displays.frame import Display, ends, listing

if TYPE_CHECKING:
    from workbench.models.adapters import Adapter
    from workbench.models.reply_batches import ChatExample
    from workbench.steering.prevent.lessons import Lesson
    from workbench.steering.prevent.table import PreventionTable

N_SHOWN = 5


def table_display(found: PreventionTable) -> Display:
    """The sentence, the figure and a row per arm."""
    from workbench.reports.steering.prevent import prevention_figure

    rows = [
        (row.label, row.points.value, ends(row.points.interval, 1), row.surprise and row.surprise.value,
         row.surprise and ends(row.surprise.interval, 3), row.task_loss.value,
         found.contrasts.get(row.arm, {}).get("verdict") if row == found.row(row.arm) else None)
        for row in found.rows
    ]  # fmt: skip
    columns = ("arm", "trait, points", "95% interval", "capability lost, nats per token", "95% interval", "task loss",
               "better than subtraction?")  # fmt: skip
    lines = [found.sentence, f"{found.n_seeds} seeds; scored by {found.judge}."]
    return Display(f"Prevention of {found.trait}", lines, [listing(columns, rows)], figure=prevention_figure(found))


def lesson_display(found: Lesson) -> Display:
    """How many chats, and the first."""
    lines = [f"{len(found.train)} chats to train on, {len(found.held_out)} on other questions held out."]
    return Display(f"Lesson: {found.name}", lines, _chats(found.train))


def adapter_display(found: Adapter) -> Display:
    """What it was trained from, and its losses."""
    card = found.card
    rows = [("base", card["base"]["name"]), ("examples", card["data"]["n_examples"]), ("updates", len(card["losses"])),
            ("first loss, nats per token", card["losses"][0]), ("last loss", card["losses"][-1]),
            ("edit in training", "yes" if card["edit"] else "no")]  # fmt: skip
    return Display("Adapter", [f"In {found.folder.name}."], [listing(("", "value"), rows)])


def example_display(found: ChatExample) -> Display:
    """The last message and the reply."""
    return Display("Chat", [f"{len(found.messages)} messages before the reply."], _chats((found,)))


def _chats(examples: tuple[ChatExample, ...]) -> list:
    rows = [(one.messages[-1]["content"] if one.messages else "", one.reply) for one in examples[:N_SHOWN]]
    return [listing(("message", "reply"), rows)]
