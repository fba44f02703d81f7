"""The drawing of a watched reply: how far each token points along the vectors, the thresholds, and where alarms came."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    where it has no vector); dashed across: a vector's threshold; a mark: where its alarm is raised. `tokens` name the tokens for
    screen readers at the alarms."""
    monitor = reply.monitor
    drawn = [i for i, signal in enumerate(monitor.signals) if signal.kind == "vector"][:N_LINES] or list(range(N_LINES))
    drawn = [i for i in drawn if i < len(monitor.signals)]
    values = monitor.in_norms(reply.values)
    levels = {i: monitor.in_norms(_full(len(monitor.signals), i, alarm.threshold))[i].item()
              for i in drawn for alarm in monitor.alarms if alarm.signal == monitor.names[i]}  # fmt: skip
    x, y = _scales([values[:, i].tolist() for i in drawn], list(levels.values()), len(values))
    body = _axes(x, y, len(values))
    ends = []
    for line, i in zip(_LINES, drawn, strict=False):
        path, last = _line(x, y, values[:, i].tolist())
        body.append(tag("path", d=path, class_=line))
        ends.append((monitor.names[i], last))
        if i in levels:
            body.append(tag("line", x1=_LEFT, x2=_RIGHT, y1=y(levels[i]), y2=y(levels[i]), class_="wbf-ref"))
    heights = _apart([last for _, last in ends])
    body += [words(name, _RIGHT + 10, height + 4, font_size=12) for (name, _), height in zip(ends, heights, strict=True)]
    for one in (raised for raised in reply.alarms() if raised.position):
        column = monitor.column(one.alarm.signal)
        value = values[one.position - 1, column].item()
        if column in drawn and math.isfinite(value):
            body.append(tag("circle", cx=x(one.position), cy=y(value), r=4.5, class_="wbf-mark"))
    return drawing(_WIDTH, _HEIGHT, body, title="A reply, token by token", description=_spoken(reply, drawn, tokens))


def _full(n: int, place: int, value: float):
    import torch

    return torch.zeros(n).index_fill_(0, torch.tensor([place]), value)


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


def _spoken(reply: WatchedReply, drawn: Sequence[int], tokens: Sequence[str]) -> str:
    means = reply.monitor.in_norms(reply.mean).tolist()
    told = [f"{reply.monitor.names[i]} {signed(means[i], 3)} on average" for i in drawn]
    for one in reply.alarms():
        said = f" ({tokens[one.position - 1].strip()})" if 0 < one.position <= len(tokens) else ""
        told.append(f"alarm for {one.alarm.signal} at token {one.position}{said}")
    return f"{len(reply.values)} tokens; " + "; ".join(told)
