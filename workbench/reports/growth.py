"""How time and memory grow, as one small figure: logarithmic axes, so that a power law is a straight line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from workbench.reports.svg import Figure, Scale, drawing, tag, words

_WIDTH, _HEIGHT = 300, 200


def growth_figure(curves: Mapping[str, Any]) -> Figure:
    """One panel per curve of benchmarks/streaming.py: processor seconds (solid) and peak memory in GiB (dashed).

    `curves` are {name: {points: [{<axis>: ..., processor_seconds, peak_bytes}], time_exponent, memory_exponent}}, two in a row.
    """
    body = [
        tag("g", *_panel(name, curve), transform=f"translate({_WIDTH * (index % 2)} {_HEIGHT * (index // 2)})")
        for index, (name, curve) in enumerate(curves.items())
    ]
    spoken = "; ".join(f"{n}: time {c['time_exponent']:.2f}, memory {c['memory_exponent']:.2f}" for n, c in curves.items())
    return drawing(2 * _WIDTH, _HEIGHT * -(-len(curves) // 2), body, title="Exponents of time and memory", description=spoken)


def _panel(name: str, curve: Mapping[str, Any]) -> list[str]:
    points = curve["points"]
    sizes = [float(next(iter(point.values()))) for point in points]
    lines = [[p["processor_seconds"] for p in points], [p["peak_bytes"] / 2**30 for p in points]]
    logs = [math.log10(value) for line in lines for value in line]
    x, y = Scale(math.log10(sizes[0]), math.log10(sizes[-1]), 44, 280), Scale(min(logs) - 0.1, max(logs) + 0.1, 160, 40)
    told = f"time {curve['time_exponent']:.2f}, memory {curve['memory_exponent']:.2f}"
    body = [words(name.replace("_", ", in "), 8, 16, font_weight=600), words(told, 8, 31, class_="wbf-soft", font_size=11)]
    body += [words(f"{v:,.0f}", x(math.log10(v)), 178, anchor="middle", class_="wbf-soft wbf-num", font_size=10) for v in sizes]
    for line, class_ in zip(lines, ("wbf-line-a", "wbf-line-b"), strict=True):
        path = "L".join(f"{x(math.log10(a)):.1f} {y(math.log10(b)):.1f}" for a, b in zip(sizes, line, strict=True))
        body.append(tag("path", d="M" + path, class_=class_))
        body.append(words(f"{line[-1]:.2g}", 284, y(math.log10(line[-1])) - 5, anchor="end", class_="wbf-num", font_size=10))
    return body
