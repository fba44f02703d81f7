"""The small pictures of a card: how strongly a feature fires, and where."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from workbench.reports.svg import Figure, Scale, drawing, percent, tag, words
from workbench.reports.text import clean

if TYPE_CHECKING:
    from workbench.labeling.views.values import Tally

_SOFT = {"class_": "wbf-soft wbf-num", "font_size": 11}
_ROW, _NAME = 19, 120


def activation_histogram(bins: Sequence[tuple[float, float, int]], *, name: str) -> Figure:
    """Counts of tokens by activation, one bar per (low, high, count); heights are logarithmic, so that rare strong firings show.

    Tokens on which the feature is silent are not drawn.
    """
    shown = [(low, high, n) for low, high, n in bins if n > 0 and high > low]
    if not shown:
        empty = [words("fires on nothing that was read", 4, 24, class_="wbf-soft")]
        return drawing(300, 40, empty, title=name, description="empty")
    most = max(n for _, _, n in shown)
    x = Scale(0.0, max(high for _, high, _ in shown), 34, 292)
    y = Scale(0.0, math.log10(most) + 0.15, 96, 12)
    marks = [10**k for k in range(int(math.log10(most)) + 1)]
    marks = marks if len(marks) <= 4 else marks[:: math.ceil(len(marks) / 4)]
    heights = [y(math.log10(mark)) for mark in marks]
    body = [tag("path", d="".join(f"M{x.left:.0f} {height:.1f}H{x.right:.0f}" for height in heights), class_="wbf-grid")]
    counts = [tag("text", _count(mark), x=x.left - 5, y=height + 4) for mark, height in zip(marks, heights, strict=True)]
    values = [tag("text", f"{value:.3g}", x=x(value), y=111) for value in x.ticks(5)]
    body += [tag("g", *counts, text_anchor="end", **_SOFT), tag("g", *values, text_anchor="middle", **_SOFT)]
    bars = "".join(
        f"M{x(low):.1f} 96V{y(max(math.log10(n), 0.03)):.1f}H{max(x(high) - 0.8, x(low) + 0.8):.1f}V96Z" for low, high, n in shown
    )
    body.append(tag("path", d=bars, class_="wbf-trait"))
    body.append(words("activation", x.right, 124, anchor="end", class_="wbf-soft", font_size=11))
    total = sum(n for _, _, n in shown)
    return drawing(300, 128, body, title=f"Activations of {name}", description=f"{total:,} tokens, at most {x.high:.3g}")


def _count(value: int) -> str:
    return f"{value // 1000}k" if value >= 1000 else str(value)


def firing_rates(tallies: Sequence[Tally], *, title: str, n_coloured: int | None = None) -> Figure:
    """The share of tokens on which a feature fires, one line per kind of token: a dot with its 95% interval, and the number.

    The first `n_coloured` (all of them without it) are drawn in the colour of the trait.
    """
    rates = [one.rate for one in tallies] + [one.interval[1] for one in tallies if one.interval]
    x = Scale(0.0, max([*rates, 1e-6]) * 1.04, _NAME, 250)
    middles = [6 + _ROW * (n + 0.5) for n in range(len(tallies))]
    bottom, rows = 6 + _ROW * len(tallies), list(zip(tallies, middles, strict=True))
    lines = "".join(f"M{x.left:.0f} {middle:.1f}H{x.right:.0f}" for middle in middles)
    whiskers = "".join(f"M{x(one.interval[0]):.1f} {y:.1f}H{x(one.interval[1]):.1f}" for one, y in rows if one.interval)
    body = [
        tag("path", d=lines, class_="wbf-grid"),
        tag("line", x1=x.left, x2=x.left, y1=2, y2=bottom, class_="wbf-axis"),
        tag("path", d=whiskers, class_="wbf-whisker"),
    ]
    for own, class_ in ((True, "wbf-dots-own"), (False, "wbf-dots-others")):
        of_kind = rows[:n_coloured] if own else rows[len(rows) if n_coloured is None else n_coloured :]
        if of_kind:
            body.append(tag("path", d="".join(f"M{x(one.rate):.1f} {y:.1f}h0" for one, y in of_kind), class_=class_))
    names = [tag("text", escape(_short(one.name)), x=x.left - 7, y=y + 4) for one, y in rows]
    numbers = [tag("text", percent(one.rate, 2), x=300, y=y + 4) for one, y in rows]
    body.append(tag("g", *names, class_="wbf-ink", text_anchor="end", font_size=11.5))
    body.append(tag("g", *numbers, text_anchor="end", **_SOFT))
    spoken = "; ".join(f"{one.name} {percent(one.rate, 2)}" for one in tallies)
    return drawing(304, int(bottom) + 4, body, title=title, description=spoken)


def _short(name: str) -> str:
    known = clean(name, limit=200)
    return known if len(known) <= 19 else known[:18] + "…"
