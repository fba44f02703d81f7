"""Displays of a monitor, of what it saw, and of a transcript that it read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.reports.displays.frame import Display, ends, listing, number
from workbench.reports.steering.monitor import reply_figure
from workbench.reports.svg import percent

if TYPE_CHECKING:
    from workbench.steering.monitor.monitor import Monitor
    from workbench.steering.monitor.streaming import Step
    from workbench.steering.monitor.transcripts import TranscriptReading
    from workbench.steering.monitor.watching import AlarmRaised, Watch, WatchedReply


def monitor_display(monitor: Monitor) -> Display:
    """Its signals, and the alarms with the rate that they were calibrated to and the one that they achieved."""
    signals = [(signal.name, signal.kind, str(signal.hook)) for signal in monitor.signals]
    alarms = [
        (alarm.signal, alarm.rule.statistic + (f", {alarm.rule.window} tokens" if alarm.rule.statistic == "running" else ""),
         alarm.threshold, percent(alarm.rate), percent(alarm.check.get("rate")), ends(alarm.check.get("interval"), 3))
        for alarm in monitor.alarms
    ]  # fmt: skip
    columns = ("signal", "rule", "threshold", "false alarms: stated", "measured", "interval")
    title = f"Monitor of {monitor.model.get('name')}: {len(monitor.signals)} signal{'s' * (len(monitor.signals) != 1)}"
    told = [] if monitor.alarms else ["No alarms: no threshold was calibrated."]
    return Display(title, told, [listing(("signal", "kind", "read at"), signals), listing(columns, alarms, title="Alarms")])


def reply_display(reply: WatchedReply) -> Display:
    """The reply's projections, drawn, and its alarms."""
    means = reply.monitor.in_norms(reply.mean).tolist()
    rows = [(name, mean) for name, mean in zip(reply.monitor.names, means, strict=True)]
    raised = [f"Alarm for {one.alarm.signal} at token {one.position}." for one in reply.alarms()]
    table = listing(("signal", "mean (vectors in norms)"), rows)
    return Display(f"A reply of {len(reply.values)} tokens", raised, [table], reply_figure(reply))


def watch_display(watch: Watch) -> Display:
    """Every reply that was seen: means and alarms."""
    replies = watch.replies()
    names = watch.monitor.names
    rows = [
        (reply.turn, reply.row, len(reply.values), *watch.monitor.in_norms(reply.mean).tolist(),
         ", ".join(f"{one.alarm.signal} at {one.position}" for one in reply.alarms()) or "–")
        for reply in replies
    ]  # fmt: skip
    title = f"{len(replies)} repl{'y' if len(replies) == 1 else 'ies'} watched"
    return Display(title, ["Means over the tokens, projections in median token norms."],
                   [listing(("turn", "row", "tokens", *names, "alarms"), rows)])  # fmt: skip


def alarm_display(raised: AlarmRaised) -> Display:
    """Which alarm, where, and how often it is wrong."""
    alarm, where = raised.alarm, f"token {raised.position} of the reply" if raised.position else "the prompt"
    told = f"Row {raised.row}, turn {raised.turn}. Stated rate of false alarms: {percent(alarm.rate)} of neutral replies"
    measured = "" if alarm.check.get("rate") is None else f"; measured: {percent(alarm.check['rate'])}"
    return Display(f"Alarm for {alarm.signal} at {where}", [f"{told}{measured}."])


def step_display(step: Step) -> Display:
    """What the rows of a stream have said so far, and the alarms of this step."""
    rows = [(row, len(reply.response_ids), reply.text) for row, reply in enumerate(step.replies)]
    raised = [f"Alarm for {one.alarm.signal} in row {one.row} at token {one.position}." for one in step.alarms]
    return Display("A step of a watched stream", raised, [listing(("row", "tokens", "said so far"), rows)])


def transcript_display(read: TranscriptReading) -> Display:
    """Its pieces in order."""
    rows = []
    for one in read.spans:
        means = [number(value) for value in read.monitor.in_norms(one.reply.mean).tolist()]
        raised = ", ".join(f"{a.alarm.signal} at {a.position}" for a in one.reply.alarms()) if one.written else ""
        kind = one.span.kind if one.span.tool is None else f"{one.span.kind} of {one.span.tool}"
        rows.append((one.span.message, one.span.role, kind, len(one.reply.values), *means, raised or "–"))
    told = ["Tool calls stand as the model's template prints them." if read.rendering == "template" else
            "The model's template knows no tools: calls and results stand as text."]  # fmt: skip
    columns = ("message", "role", "piece", "tokens", *read.monitor.names, "alarms")
    return Display(f"A transcript of {read.n_tokens} tokens", told, [listing(columns, rows)])
