"""Displays of conversations and their drift."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.axis.drift.result import end_of
from workbench.reports.axis.drift import conversation_figure, speeds_figure
from workbench.reports.displays.frame import Display, ends, listing
from workbench.reports.svg import percent

if TYPE_CHECKING:
    from workbench.axis.drift.alarm import DriftAlarm
    from workbench.axis.drift.attribution import Moved, ReplyCodes
    from workbench.axis.drift.conversation import Conversation
    from workbench.axis.drift.reading import Readings
    from workbench.axis.drift.result import DriftStudy, Trace


def conversation_display(one: Conversation) -> Display:
    """What was said."""
    rows = [(number, turn.user, turn.reply) for number, turn in enumerate(one.turns, start=1)]
    lines = [f"{one.domain or 'no domain'}{', behind a system prompt' if one.system else ''}"]
    return Display(f"Conversation {one.id}", lines, [listing(("turn", "user", "reply"), rows)])


def trace_display(trace: Trace) -> Display:
    """The conversation along the axis, drawn, and its figures turn by turn."""
    columns = zip(trace.conversation.turns, trace.position.tolist(), trace.alone.tolist(), trace.drift.tolist(), strict=True)
    rows = [(number, *figures, turn.user) for number, (turn, *figures) in enumerate(columns, start=1)]
    table = listing(("turn", "position", "alone", "drift", "user"), rows)
    told = [f"In median token norms, positive toward {end_of(trace.axis)}."]
    return Display(f"{trace.conversation.id} along {trace.axis}", told, [table], conversation_figure(trace))


def study_display(study: DriftStudy) -> Display:
    """How fast every group drifts."""
    from workbench.reports.axis.drift_page import headline

    rows = []
    for name, one in study.groups.items():
        slope, level = (one["effects"].get(kind, {}) for kind in ("drift_per_turn", "drift"))
        rows.append((name, one["n"], slope.get("value"), ends(slope.get("interval"), 4), slope.get("p"), level.get("value"),
                     ends(level.get("interval"), 4)))  # fmt: skip
    columns = ("group", "conversations", "drift per turn", "95% interval", "p", "drift", "95% of it")
    table = listing(columns, rows, only_known=True)
    return Display(f"Drift along {study.axis}", [headline(study)], [table], speeds_figure(study))


def moved_display(moved: Moved) -> Display:
    """The largest parts, the rest and the error."""
    rows = [(str(one.feature), one.label or "–", one.part, ends(one.interval, 4),
             None if one.share is None else percent(one.share), one.p_random) for one in moved.features]  # fmt: skip
    rows += [("others", "–", moved.rest, ends(moved.intervals.get("rest"), 4), None, None),
             ("error", "–", moved.error, ends(moved.intervals.get("error"), 4), None, None)]  # fmt: skip
    columns = ("feature", "label", "part, norms", "95% interval", "of the drift", "p, random")
    return Display(f"What moved in {moved.group}: {moved.total:+.4f} norms", [f"{moved.n} conversations, {moved.what}."],
                   [listing(columns, rows, most=24)])  # fmt: skip


def codes_display(codes: ReplyCodes) -> Display:
    """How many replies were encoded, and on what."""
    return Display(f"Mean codes of {len(codes.places):,} replies on {codes.sae.id}",
                   [f"{len(codes.conversations):,} conversations along {codes.axis}."])  # fmt: skip


def readings_display(read: Readings) -> Display:
    """How many replies have which context."""
    rows = [(name, int(means.isfinite().all(dim=1).sum())) for name, means in read.means.items()]
    return Display(f"{len(read.row):,} replies read", tables=[listing(("context", "replies"), rows)])


def alarm_display(found: DriftAlarm) -> Display:
    """How often every group raises it."""
    rows = [(name, percent(one["replies"]["rate"]), ends(one["replies"]["interval"]), percent(one["conversations"]),
             one["first_turn"]) for name, one in found.groups.items()]  # fmt: skip
    columns = ("group", "replies", "95% interval", "conversations", "first at turn")
    told = f"Set on {', '.join(found.quiet)} for at most {percent(found.alarm.rate)} of replies."
    return Display(f"Alarm: {found.alarm.signal}", [told], [listing(columns, rows)])
