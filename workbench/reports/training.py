"""The curves of an SAE's training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workbench.reports.figures import _apart, _frame, _path
from workbench.reports.svg import Figure, Scale, drawing, tag, words

LINES = ("wbf-line-a", "wbf-line-b")
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
