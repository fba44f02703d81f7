"""Drift drawn: one conversation along the axis, the turns of every group, and how fast each group drifts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from workbench.axis.drift.result import end_of
from workbench.reports.svg import Figure, Scale, drawing, signed, tag, words
from workbench.reports.text import clean

if TYPE_CHECKING:
    from workbench.axis.drift.result import DriftStudy, Trace

_WIDTH, _LEFT, _RIGHT = 776, 52, 756
_SOFT: dict[str, Any] = {"class_": "wbf-soft wbf-num", "font_size": 11}
_DIAMOND = "M{:.1f} {:.1f}l6 6l-6 6l-6 -6Z"


def conversation_figure(trace: Trace) -> Figure:
    """A conversation along the axis: dots are the tokens of the replies in order, the line the mean of each reply with all its
    history, the dashed line the same reply with the user's last message only. Where the two part, history did it."""
    lengths = [len(values) for values in trace.values]
    n = max(sum(lengths), 1)
    x, top, bottom = Scale(0, n, _LEFT, _RIGHT), 40, 220
    known = [value for values in trace.values for value in values.tolist() if math.isfinite(value)]
    y = _vertical([*known, *trace.position.tolist(), *trace.alone.tolist()], bottom, top)
    body = _axes(y)
    start = 0
    for turn, (length, values) in enumerate(zip(lengths, trace.values, strict=True)):
        body.append(words(str(turn + 1), x(start + length / 2), bottom + 18, anchor="middle", **_SOFT))
        if start:
            body.append(tag("line", x1=x(start), x2=x(start), y1=top, y2=bottom, class_="wbf-grid"))
        dots = "".join(f"M{x(start + i + 0.5):.1f} {y(value):.1f}h0" for i, value in enumerate(values.tolist())
                       if math.isfinite(value))  # fmt: skip
        body.append(tag("path", d=dots or "M0 0", class_="wbf-dots"))
        for line, level in (("wbf-line-b", trace.alone), ("wbf-line-a", trace.position)):
            if math.isfinite(height := float(level[turn])):
                body.append(tag("path", d=f"M{x(start):.1f} {y(height):.1f}H{x(start + length):.1f}", class_=line))
        start += length
    body += [words("turn", _RIGHT, bottom + 36, anchor="end", class_="wbf-soft", font_size=11.5), *_key(trace.axis)]
    spoken = "; ".join(f"turn {i + 1}: {signed(float(with_), 2)}, without history {signed(float(alone), 2)}"
                       for i, (with_, alone) in enumerate(zip(trace.position, trace.alone, strict=True)))  # fmt: skip
    return drawing(_WIDTH, 264, body, title=f"{trace.conversation.id} along {trace.axis}", description=spoken or "no reply")


def _unit(axis: str) -> str:
    return f"median token norms; up is toward {end_of(axis)}"


def _key(axis: str) -> list[str]:
    return [
        words(_unit(axis), 4, 14, class_="wbf-soft", font_size=11.5),
        tag("path", d=f"M{_RIGHT - 306} 11h26", class_="wbf-line-a"),
        words("reply in its conversation", _RIGHT - 274, 15, font_size=11.5),
        tag("path", d=f"M{_RIGHT - 130} 11h26", class_="wbf-line-b"),
        words("last message only", _RIGHT, 15, anchor="end", font_size=11.5),
    ]  # fmt: skip


def _vertical(values: Sequence[float], bottom: float, top: float) -> Scale:
    known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    pad = (max(known) - min(known)) * 0.08 or 0.1
    return Scale(min(known) - pad, max(known) + pad, bottom, top)


def _axes(y: Scale, left: float = _LEFT, right: float = _RIGHT, *, labels: bool = True) -> list[str]:
    body = []
    for value in y.ticks(5):
        body.append(tag("line", x1=left, x2=right, y1=y(value), y2=y(value), class_="wbf-axis" if value == 0 else "wbf-grid"))
        if labels:
            said = f"{round(value, 9):g}".replace("-", "−")
            body.append(words(said, left - 8, y(value) + 4, anchor="end", **_SOFT))
    return body


def turns_figure(study: DriftStudy, name: str = "drift") -> Figure:
    """One panel per group: the mean over conversations turn by turn, with 95% intervals. `name`: "drift", "position", "alone"."""
    panels = {group: [(one["turn"], one[name]) for one in found["turns"]] for group, found in study.groups.items()}
    means = [one for row in panels.values() for _, one in row if one["value"] is not None]
    ends = [end for one in means for end in (one["value"], *(one["interval"] or ()))]
    columns = min(4, max(1, len(panels)))
    width, height = (_RIGHT - _LEFT + 14) / columns, 150
    body = [words(f"{name}, in {_unit(study.axis)}", 4, 14, class_="wbf-soft", font_size=11.5)]
    y_of = {row: _vertical([*ends, 0.0], 46 + row * (height + 44) + height, 46 + row * (height + 44))
            for row in range(-(-len(panels) // columns))}  # fmt: skip
    for place, (group, row) in enumerate(panels.items()):
        left, y = _LEFT + (place % columns) * width, y_of[place // columns]
        body += _panel(group, row, left, left + width - 14, y, labels=place % columns == 0)
    spoken = "; ".join(f"{group}: {', '.join(signed(one['value'], 3) or '–' for _, one in row)}" for group, row in panels.items())
    return drawing(_WIDTH, round(max(y.left for y in y_of.values()) + 40) if panels else 60, body,
                   title=f"Mean {name} by turn", description=spoken)  # fmt: skip


def _panel(
    group: str, row: Sequence[tuple[int, Mapping[str, Any]]], left: float, right: float, y: Scale, *, labels: bool
) -> list[str]:
    x = Scale(1, max([turn for turn, _ in row] + [2]), left + 8, right - 8)
    body = [*_axes(y, left, right, labels=labels), words(clean(group, limit=28), left, y.right - 8, font_size=12)]
    points = [(x(turn), one) for turn, one in row if one["value"] is not None]
    for at, one in points:
        if one["interval"]:
            body.append(tag("path", d=f"M{at:.1f} {y(one['interval'][0]):.1f}V{y(one['interval'][1]):.1f}", class_="wbf-whisker"))
    line = "M" + "L".join(f"{at:.1f} {y(one['value']):.1f}" for at, one in points) if points else "M0 0"
    body.append(tag("path", d=line, class_="wbf-line-a"))
    body += [tag("circle", cx=at, cy=y(one["value"]), r=3.4, class_="wbf-mark") for at, one in points]
    ticks = [turn for turn, _ in row if len(row) <= 8 or turn % 2]
    return body + [words(str(turn), x(turn), y.left + 16, anchor="middle", **_SOFT) for turn in ticks]


def speeds_figure(study: DriftStudy, kind: str = "drift_per_turn") -> Figure:
    """A quantity of every group with its 95% interval; the band is what 95% of random directions reach, either way."""
    rows = {group: found["effects"][kind] for group, found in study.groups.items() if kind in found["effects"]}
    limits = {group: _limit(one) for group, one in rows.items()}
    ends = [end for one in rows.values() for end in (one["value"], *(one["interval"] or ()))]
    ends += [sign * limit for limit in limits.values() for sign in (-1, 1)]
    left, row, top = 150.0, 30, 46.0
    pad = (max([*ends, 0.0]) - min([*ends, 0.0])) * 0.06 or 0.01
    x, bottom = Scale(min([*ends, 0.0]) - pad, max([*ends, 0.0]) + pad, left, 620.0), top + row * max(len(rows), 1)
    unit = f"{kind.replace('_', ' ')}, in median token norms; left is away from {end_of(study.axis)}"
    body = [words(unit, 4, 14, class_="wbf-soft", font_size=11.5)]
    for value in x.ticks(6):
        body.append(tag("line", x1=x(value), x2=x(value), y1=top - 8, y2=bottom, class_="wbf-axis" if value == 0 else "wbf-grid"))
        said = f"{round(value, 9):g}".replace("-", "−")
        body.append(words(said, x(value), bottom + 16, anchor="middle", **_SOFT))
    for place, (group, one) in enumerate(rows.items()):
        body += _effect(group, one, limits[group], x, top + row * (place + 0.5), left)
    spoken = "; ".join(f"{group} {signed(one['value'], 4)}" for group, one in rows.items()) or "nothing measured"
    return drawing(_WIDTH, round(bottom + 30), body, title=f"{kind.replace('_', ' ')} by group", description=spoken)


def _limit(one: Mapping[str, Any]) -> float:
    """What 95% of the random directions reach, in norms: z and value are proportional."""
    z, limit = one.get("z"), one.get("random_limit")
    return abs(one["value"] / z) * limit if z and limit is not None else 0.0


def _effect(group: str, one: Mapping[str, Any], limit: float, x: Scale, y: float, left: float) -> list[str]:
    body = [words(clean(group, limit=20), left - 12, y + 4, anchor="end")]
    if limit:
        body.append(tag("rect", x=x(-limit), y=y - 9, width=x(limit) - x(-limit), height=18.0, class_="wbf-band"))
    if one["interval"]:
        low, high = (x(end) for end in one["interval"])
        body.append(tag("path", d=f"M{low:.1f} {y:.1f}H{high:.1f}", class_="wbf-whisker"))
    body.append(tag("path", d=_DIAMOND.format(x(one["value"]), y - 6), class_="wbf-mark"))
    return [*body, words(signed(one["value"], 4), 640, y + 4, class_="wbf-ink wbf-num", font_size=12)]
