"""Neutral replies to calibrate alarms on: those that stand in finished extractions, with the activations kept while they were
written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from workbench.base.errors import WorkbenchError
from workbench.steering.monitor.alarms import NeutralReply
from workbench.steering.monitor.monitor import Monitor

if TYPE_CHECKING:
    from workbench.personas.vectors import PersonaVector


def neutral_replies(monitor: Monitor, vectors: Sequence[PersonaVector]) -> list[NeutralReply]:
    """The replies of the neutral arms (no persona in the system prompt) of these vectors, as the monitor's signals see them.

    A run of another trait serves as well, and better: its questions made no vector. Raises WorkbenchError where none kept the
    activations of its tokens at the monitor's hook point, and for a monitor that reads at several.
    """
    if len(monitor.hooks) > 1:
        raise WorkbenchError(f"signals at {len(monitor.hooks)} hook points ({', '.join(map(str, monitor.hooks))})",
                             "signals at one hook point: runs keep the tokens at one",
                             "calibrate a monitor for each, or put the vectors at one block with --hook")  # fmt: skip
    hook, found = monitor.hooks[0], []
    for vector in vectors:
        of_this = vector.model.get("weights_hash") == monitor.model["weights_hash"]
        if not of_this or vector.tokens is None or hook not in vector.tokens.hooks:
            continue
        questions = dict(zip(vector.rows["id"], vector.rows["question"], strict=True))
        neutral = set(vector.rows.loc[vector.rows["arm"] == "neutral", "id"])
        for name, rows in vector.tokens.rows(hook):
            if name in neutral and len(rows):
                found.append(NeutralReply(str(questions[name]), monitor.read(rows, hook)))
    if not found:
        raise WorkbenchError(f"none of {len(vectors)} runs kept the tokens of neutral replies at {hook}",
                             "a finished extraction of this model with a neutral arm",
                             "run `workbench extract TRAIT`, and name its folder")  # fmt: skip
    return found
