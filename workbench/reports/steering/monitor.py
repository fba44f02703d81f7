"""The drawing of a watched reply: how far each token points along the vectors, the thresholds, and where alarms came."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from workbench.reports.svg import Figure, Scale, drawing, number, signed, tag, words

if TYPE_CHECKING:
    from workbench.steering.monitor.watching import WatchedReply

N_LINES = 3
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 776, 250, 52, 640, 24, 206
_LINES = ("wbf-line-a", "wbf-line-b", "wbf-line-c")


def reply_figure(reply: WatchedReply, *, tokens: Sequence[str] = ()) -> Figure:
    """The projections of a reply's tokens, in median token norms, for the first three vectors of the monitor (its first signals
    where it has no vector). Where a signal has an alarm on a running mean, that mean is drawn, with its threshold across; a mark
    is where the alarm is raised. `tokens` name the tokens for screen readers at the alarms."""
    monitor = reply.monitor
    vectors = [i for i, signal in enumerate(monitor.signals) if signal.kind == "vector"]
    curves = [_curve(reply, i) for i in (vectors or range(len(monitor.signals)))[:N_LINES]]
    levels = [curve.level for curve in curves if curve.level is not None]
    x, y = _scales([curve.values for curve in curves], levels, len(reply.values))
    body = _axes(x, y, len(reply.values))
    ends = []
    for line, curve in zip(_LINES, curves, strict=False):
        path, last = _line(x, y, curve.values)
        body.append(tag("path", d=path, class_=line))
        ends.append(last)
        if curve.level is not None:
            height = y(curve.level)
            body.append(tag("line", x1=_LEFT, x2=_RIGHT, y1=height, y2=height, class_="wbf-ref"))
            body.append(words(f"alarm: {curve.signal}", _LEFT + 4, height - 4, class_="wbf-soft", font_size=11))
    heights = _apart(ends)
    body += [words(curve.name, _RIGHT + 10, height + 4, font_size=12) for curve, height in zip(curves, heights, strict=True)]
    for curve in curves:
        if curve.raised and math.isfinite(curve.values[curve.raised - 1]):
            body.append(tag("circle", cx=x(curve.raised), cy=y(curve.values[curve.raised - 1]), r=4.5, class_="wbf-mark"))
    described = _spoken(reply, [curve.signal for curve in curves], tokens)
    return drawing(_WIDTH, _HEIGHT, body, title="A reply, token by token", description=described)


@dataclass(frozen=True)
class _Curve:
    """One line: what it is of, its name, its values (NaN: none), the threshold, and the token at which its alarm is raised."""

    signal: str
    name: str
    values: list[float]
    level: float | None
    raised: int | None


def _curve(reply: WatchedReply, column: int) -> _Curve:
    monitor, signal = reply.monitor, reply.monitor.signals[column]
    scale = monitor.norms[signal.hook] if signal.kind == "vector" else 1.0
    alarm = next((one for one in monitor.alarms if one.signal == signal.name and one.rule.statistic == "running"), None)
    if alarm is None:
        return _Curve(signal.name, signal.name, (reply.values[:, column] / scale).tolist(), None, None)
    path = (alarm.rule.path(reply.values[:, column : column + 1])[:, 0] / scale).tolist()
    name = signal.name if alarm.rule.window == 1 else f"{signal.name}, mean of {alarm.rule.window}"
    return _Curve(signal.name, name, path, alarm.threshold / scale, alarm.first(reply.values[:, column]))


def _scales(lines: list[list[float]], levels: list[float], n: int) -> tuple[Scale, Scale]:
    known = [value for line in [*lines, levels] for value in line if math.isfinite(value)] or [0.0, 1.0]
    pad = (max(known) - min(known)) * 0.08 or 0.1
    return Scale(1, max(n, 2), _LEFT, _RIGHT), Scale(min(*known, 0) - pad, max(*known, 0) + pad, _BOTTOM, _TOP)


def _axes(x: Scale, y: Scale, n: int) -> list[str]:
    soft = {"class_": "wbf-soft wbf-num", "font_size": 11}
    body = [words("projection, in median token norms", 4, 12, class_="wbf-soft", font_size=11.5),
            words("token of the reply", _RIGHT, _HEIGHT - 8, anchor="end", class_="wbf-soft", font_size=11.5)]  # fmt: skip
    for value in y.ticks(5):
        body.append(tag("line", x1=_LEFT, x2=_RIGHT, y1=y(value), y2=y(value), class_="wbf-axis" if value == 0 else "wbf-grid"))
        body.append(words(number(float(value)).replace("-", "−"), _LEFT - 8, y(value) + 4, anchor="end", **soft))
    body += [words(str(int(t)), x(t), _BOTTOM + 18, anchor="middle", **soft) for t in x.ticks(8) if t == int(t) and 1 <= t <= n]
    return body


def _line(x: Scale, y: Scale, values: list[float]) -> tuple[str, float]:
    """(path that lifts the pen at what has no value, height of its last point)."""
    path, pen, last = "", "M", y(0.0)
    for position, value in enumerate(values, start=1):
        if not math.isfinite(value):
            pen = "M"
            continue
        last = y(value)
        path += f"{pen}{x(position):.1f} {last:.1f}"
        pen = "L"
    return path or "M0 0", last


def _apart(heights: list[float], least: float = 15.0) -> list[float]:
    """The same heights, no two nearer than a line of text, in the same order from the top."""
    order, placed = sorted(range(len(heights)), key=lambda i: heights[i]), list(heights)
    for before, after in pairwise(order):
        placed[after] = max(placed[after], placed[before] + least)
    return placed


def _spoken(reply: WatchedReply, drawn: Sequence[str], tokens: Sequence[str]) -> str:
    means = dict(zip(reply.monitor.names, reply.monitor.in_norms(reply.mean).tolist(), strict=True))
    told = [f"{name} {signed(means[name], 3)} on average" for name in drawn]
    for one in reply.alarms():
        said = f" ({tokens[one.position - 1].strip()})" if 0 < one.position <= len(tokens) else ""
        told.append(f"alarm for {one.alarm.signal} at token {one.position}{said}")
    return f"{len(reply.values)} tokens; " + "; ".join(told)
