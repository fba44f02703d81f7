"""Prevention as a picture: the trait after a fine-tune against the capability that was lost, an arm per mark."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from workbench.reports.figures import _apart, _path
from workbench.reports.svg import Figure, Scale, drawing, signed, tag, words
from workbench.steering.prevent.arms import NONE, RANDOM, SHAM, SUBTRACTION
from workbench.steering.prevent.cells import BASE

if TYPE_CHECKING:
    from workbench.steering.prevent.intervals import Estimate
    from workbench.steering.prevent.table import ArmRow, PreventionTable

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 776, 396, 60, 590, 44, 340
_OWN, _CONTROLS = ("preventative", "incremental", "denoised"), (BASE, NONE, SHAM, RANDOM)
_NAMES = {BASE: "before fine-tuning", NONE: "no intervention", RANDOM: "random vector in training", SHAM: "ordinary replies"}


def prevention_figure(found: PreventionTable) -> Figure:
    """Right: more capability lost (nats per token on held-out documents). Up: more of the trait (points of 0-100). Whiskers: 95%
    over seeds and questions or documents. The line is subtraction at growing doses; filled marks had the vector in training.
    """
    rows = [row for row in found.rows if row.surprise is not None and isfinite(row.points.value) and isfinite(row.surprise.value)]
    title = f"Keeping a fine-tune from installing {found.trait}"
    if not rows:
        return drawing(_WIDTH, 60, [words("Nothing was measured.", 4, 30)], title=title, description=found.sentence)
    x, y = _scales(rows)
    body = [words(title, 4, 18, font_weight=600), *_axes(x, y), *_curve(rows, x, y)]
    for row in rows:
        body += _mark(row, x, y)
    return drawing(_WIDTH, _HEIGHT, [*body, *_labels(found, rows, x, y)], title=title, description=found.sentence)


def _ends(found: Estimate) -> tuple[float, float]:
    """The ends of its whisker; an interval that nothing is known of has none."""
    return found.interval if all(map(isfinite, found.interval)) else (found.value, found.value)


def _loss(row: ArmRow) -> float:
    return row.surprise.value if row.surprise else 0.0


def _scales(rows: list[ArmRow]) -> tuple[Scale, Scale]:
    losses = [0.0, *(end for row in rows if row.surprise for end in (*_ends(row.surprise), row.surprise.value))]
    points = [end for row in rows for end in _ends(row.points)]
    across, up = max(losses) - min(losses) or 1.0, max(points) - min(points) or 1.0
    return (Scale(min(losses) - 0.03 * across, max(losses) + 0.03 * across, _LEFT, _RIGHT),
            Scale(min(points) - 0.04 * up, max(points) + 0.04 * up, _BOTTOM, _TOP))  # fmt: skip


def _axes(x: Scale, y: Scale) -> list[str]:
    soft, body = {"class_": "wbf-soft wbf-num", "font_size": 11}, []
    for value in y.ticks(5):
        body.append(tag("line", x1=x.left, x2=x.right, y1=y(value), y2=y(value), class_="wbf-grid"))
        body.append(words(f"{value:g}", x.left - 8, y(value) + 4, anchor="end", **soft))
    for value in x.ticks(6):
        if abs(value) < 1e-9:
            body.append(tag("line", x1=x(value), x2=x(value), y1=_TOP, y2=_BOTTOM, class_="wbf-axis"))
        body.append(words(signed(value, 2), x(value), _BOTTOM + 18, anchor="middle", **soft))
    cost = "capability lost, nats per token on held-out documents"
    return [*body, words(cost, x.right, _BOTTOM + 38, anchor="end", class_="wbf-soft", font_size=11.5),
            words("the trait, points of 100", 4, 36, class_="wbf-soft", font_size=11.5)]  # fmt: skip


def _curve(rows: list[ArmRow], x: Scale, y: Scale) -> list[str]:
    rows = [row for arm in (NONE, SUBTRACTION) for row in rows if row.arm == arm]
    path = _path([(x(_loss(row)), y(row.points.value)) for row in rows])
    return [tag("path", d=path, class_="wbf-whisker", opacity=0.55, fill="none")] if len(rows) > 1 else []


def _mark(row: ArmRow, x: Scale, y: Scale) -> list[str]:
    px, py = x(_loss(row)), y(row.points.value)
    lines = [[(px, y(end)) for end in _ends(row.points)]]
    lines += [[(x(end), py) for end in _ends(row.surprise)]] if row.surprise and row.arm != BASE else []
    shape = {"cx": px, "cy": py, "r": 4.0 if row.arm in (*_OWN, *_CONTROLS) else 3.0}
    fill = "wbf-mark" if row.arm in _OWN else "wbf-paper"
    return [*(tag("path", d=_path(line), class_="wbf-link", fill="none") for line in lines),
            tag("circle", class_=fill, **shape), tag("circle", class_="wbf-edge", **shape)]  # fmt: skip


def _labels(found: PreventionTable, rows: list[ArmRow], x: Scale, y: Scale) -> list[str]:
    """One name per arm at the right, joined to its mark; subtraction's at its largest dose."""
    last = {row.arm: row for row in rows}
    shown = sorted(last.values(), key=lambda row: y(row.points.value))
    heights = _apart([y(row.points.value) + 4 for row in shown], 15.0)
    shift, body = max(0.0, max(heights) - (_BOTTOM + 10)), []
    for row, height in zip(shown, heights, strict=True):
        ends = [(x(_loss(row)) + 5, y(row.points.value)), (_RIGHT + 8, height - shift - 4)]
        body.append(tag("path", d=_path(ends), class_="wbf-link", fill="none", stroke_dasharray="1 4"))
        name = _NAMES.get(row.arm) or (row.label if row.arm != SUBTRACTION else f"{SUBTRACTION}, to {row.strength:g}")
        ink = "wbf-soft" if row.arm in _CONTROLS else "wbf-ink"
        body.append(words(name, _RIGHT + 12, height - shift, font_size=12, class_=ink))
    return body
