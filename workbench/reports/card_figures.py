"""The small pictures of a card: how strongly a feature fires, and where."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from workbench.reports.svg import Figure, Scale, drawing, percent, tag, words
from workbench.reports.text import clean

if TYPE_CHECKING:
    from workbench.labeling.views.values import Tally

_SOFT = {"class_": "wbf-soft wbf-num", "font_size": 11}
_ROW, _NAME = 19, 120


def activation_histogram(bins: Sequence[tuple[float, float, int]], *, name: str) -> Figure:
    """Counts of tokens by activation, one bar per (low, high, count); the height is logarithmic, so that rare strong firings show.

    Tokens on which the feature is silent are not drawn.
    """
    shown = [(low, high, n) for low, high, n in bins if n > 0 and high > low]
    if not shown:
        return drawing(300, 40, [words("fires on nothing that was read", 4, 24, class_="wbf-soft")], title=name, description="empty")
    most = max(n for _, _, n in shown)
    x = Scale(0.0, max(high for _, high, _ in shown), 34, 292)
    y = Scale(0.0, math.log10(most) + 0.15, 96, 12)
    marks = [10**k for k in range(int(math.log10(most)) + 1)]
    marks = marks if len(marks) <= 4 else marks[:: math.ceil(len(marks) / 4)]
    body = []
    for mark in marks:
        height = y(math.log10(mark))
        body.append(tag("line", x1=x.left, x2=x.right, y1=height, y2=height, class_="wbf-grid"))
        body.append(words(_count(mark), x.left - 5, height + 4, anchor="end", **_SOFT))
    bars = "".join(
        f"M{x(low):.1f} 96V{y(max(math.log10(n), 0.03)):.1f}H{max(x(high) - 0.8, x(low) + 0.8):.1f}V96Z" for low, high, n in shown
    )
    body.append(tag("path", d=bars, class_="wbf-trait"))
    body += [words(f"{value:.3g}", x(value), 111, anchor="middle", **_SOFT) for value in x.ticks(5)]
    body.append(words("activation", x.right, 124, anchor="end", class_="wbf-soft", font_size=11))
    total = sum(n for _, _, n in shown)
    return drawing(300, 128, body, title=f"Activations of {name}", description=f"{total:,} tokens, at most {x.high:.3g}")


def _count(value: int) -> str:
    return f"{value // 1000}k" if value >= 1000 else str(value)


def firing_rates(tallies: Sequence[Tally], *, title: str, highlight: str = "") -> Figure:
    """The share of tokens on which a feature fires, one line per kind of token: a dot with its 95% interval, and the number.

    Names that begin with `highlight` are drawn in the colour of the trait.
    """
    rates = [one.rate for one in tallies] + [one.interval[1] for one in tallies if one.interval]
    x = Scale(0.0, max([*rates, 1e-6]) * 1.04, _NAME, 250)
    bottom = 6 + _ROW * len(tallies)
    body = [tag("line", x1=x.left, x2=x.left, y1=2, y2=bottom, class_="wbf-axis")]
    for n, one in enumerate(tallies):
        middle = 6 + _ROW * (n + 0.5)
        name = clean(one.name, limit=200)
        own = bool(highlight) and one.name.startswith(highlight)
        body.append(words(name if len(name) <= 19 else name[:18] + "…", x.left - 7, middle + 4, anchor="end", font_size=11.5))
        body.append(tag("line", x1=x.left, x2=x.right, y1=middle, y2=middle, class_="wbf-grid"))
        if one.interval:
            low, high = (x(end) for end in one.interval)
            body.append(tag("path", d=f"M{low:.1f} {middle:.1f}H{high:.1f}", class_="wbf-whisker"))
        body.append(tag("circle", cx=x(one.rate), cy=middle, r=3.4, class_="wbf-trait" if own or not highlight else "wbf-unclear"))
        body.append(words(percent(one.rate, 2), 300, middle + 4, anchor="end", **_SOFT))
    spoken = "; ".join(f"{one.name} {percent(one.rate, 2)} of {one.n_tokens:,}" for one in tallies)
    return drawing(304, int(bottom) + 4, body, title=title, description=spoken)
