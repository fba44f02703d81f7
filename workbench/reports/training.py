"""Pictures of SAE training: the curves of a run, and what many SAEs reach at their sparsity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import escape

from workbench.reports.figures import _apart, _frame, _path
from workbench.reports.svg import Figure, Scale, drawing, tag, words

LINES = ("wbf-line-a", "wbf-line-b", "wbf-line-c")
CURVES = (("variance_explained", "variance explained"), ("dead_share", "dead share"))
LEFT, RIGHT, BOTTOM, TOP = 52, 420, 236, 30


def training_curves(log: Sequence[Mapping[str, Any]], *, name: str) -> Figure:
    """Variance explained and share of dead features against the step; `log` are the rows of log.jsonl."""
    last = max((row["step"] for row in log), default=1)
    x, y = Scale(0, last, LEFT, RIGHT), Scale(0, 1, BOTTOM, TOP)
    body = _frame(x, y, "step", "share")
    ends = []
    for (key, label), line in zip(CURVES, LINES, strict=False):
        known = [(row["step"], row[key]) for row in log if row.get(key) is not None]
        points = [(x(step), y(min(1.0, max(0.0, value)))) for step, value in known]
        if points:
            body.append(tag("path", d=_path(points), class_=line))
            ends.append((f"{label} {known[-1][1]:.3f}", points[-1][1]))
    for (text, _), height in zip(ends, _apart([end for _, end in ends]), strict=True):
        body.append(words(text, RIGHT + 8, height + 4, font_size=12))
    spoken = ", ".join(text for text, _ in ends) or "no steps yet"
    return drawing(600, 284, body, title=f"Training of {name}", description=f"after {last} steps: {spoken}")


def frontier(points: Sequence[Mapping[str, Any]], *, value: str, label: str) -> Figure:
    """A value of every SAE against its L0. Each point: {id, l0, kind, <value>}; SAEs of one kind are joined by a line.

    The first kind is drawn in the accent colour; every point says its numbers in a title for readers that show one.
    """
    kinds = list(dict.fromkeys(point["kind"] for point in points))
    low, high = (pick(point[value] for point in points) for pick in (min, max))
    pad = 0.08 * ((high - low) or 0.1)
    x = Scale(0, 1.08 * max(point["l0"] for point in points), LEFT, RIGHT)
    y = Scale(low - pad, high + pad, BOTTOM, TOP)
    body, ends = _frame(x, y, "L0 (active features per token)", label), []
    for index, kind in enumerate(kinds):
        members = sorted((p for p in points if p["kind"] == kind), key=lambda p: p["l0"])
        places = [(x(p["l0"]), y(p[value])) for p in members]
        if len(places) > 1:
            body.append(tag("path", d=_path(places), class_=LINES[min(index, len(LINES) - 1)]))
        for point, (px, py) in zip(members, places, strict=True):
            title = tag("title", str(escape(f"{point['id']}: {label} {point[value]:.3f} at L0 {point['l0']:.1f}")))
            body.append(tag("circle", title, cx=px, cy=py, r=4, class_="wbf-mark" if index == 0 else "wbf-dot"))
        ends.append((kind, places[-1][1]))
    for (kind, _), height in zip(ends, _apart([end for _, end in ends]), strict=True):
        body.append(words(kind, RIGHT + 8, height + 4, font_size=12))
    spoken = "; ".join(f"{p['id']}: {p[value]:.3f} at L0 {p['l0']:.1f}" for p in points)
    return drawing(620, 284, body, title=f"{label} against sparsity", description=spoken)
