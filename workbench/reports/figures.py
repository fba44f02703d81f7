"""The figures, as SVG made from numbers: the same drawing in the report, in notebooks and in the docs."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

from workbench.reports.shares import GROUP_NAMES, Slice
from workbench.reports.svg import Figure, Scale, drawing, percent, tag, words

_ROW, _TOP, _LABELS, _PLOT_END, _WIDTH = 27, 24, 190, 522, 776


def waterfall(slices: Sequence[Slice], *, trait: str) -> Figure:
    """Shares of |v|^2 one after the other, from 0 to 1: each bar starts where the one above ended.

    A share may be negative (its bar runs to the left). Whiskers are the intervals of the shares and dots the estimates they
    belong to, both drawn from the beginning of the bar. The last row is the sum: the whole vector.
    """
    ends = list(accumulate(row.value for row in slices))
    starts = [0.0, *ends[:-1]]
    scale = _waterfall_scale(slices, starts, ends)
    bottom = _TOP + _ROW * (len(slices) + 1)
    body = [*_hatch(_key(trait, slices)), *_ticks(scale, _TOP - 8, bottom)]
    for index, row in enumerate(slices):
        body += _waterfall_row(row, starts[index], scale, _TOP + index * _ROW, _key(trait, slices))
        body.append(_link(scale(ends[index]), _TOP + index * _ROW))
    body += _total_row(ends[-1] if ends else 0.0, scale, _TOP + len(slices) * _ROW)
    return drawing(
        _WIDTH,
        bottom + 12,
        body,
        title=f"What the {trait} vector is made of",
        description="Shares of its squared length: " + "; ".join(_spoken(row) for row in slices),
    )


def _key(trait: str, slices: Sequence[Slice]) -> str:
    """A name for this drawing's patterns, so that two drawings on one page do not share identifiers."""
    return "w" + hashlib.sha256(repr((trait, slices)).encode()).hexdigest()[:8]


def _spoken(row: Slice) -> str:
    return f"{row.name} {percent(row.value)}{_interval_text(row.low, row.high)}"


def _interval_text(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{percent(low)[:-1]}, {percent(high)[:-1]}]"


def _waterfall_scale(slices: Sequence[Slice], starts: list[float], ends: list[float]) -> Scale:
    reach = [
        start + edge
        for start, row in zip(starts, slices, strict=True)
        for edge in (row.low, row.high)
        if edge is not None
    ]
    low, high = min([0.0, *ends, *reach]), max([1.0, *ends, *reach])
    return Scale(low, high, _LABELS, _PLOT_END)


def _ticks(scale: Scale, top: float, bottom: float) -> list[str]:
    body = []
    for value in scale.ticks(7):
        x, zero = scale(value), abs(value) < 1e-9
        body.append(tag("line", x1=x, x2=x, y1=top, y2=bottom, class_="wbf-axis" if zero else "wbf-grid"))
        body.append(
            words(percent(value, 0), x, top - 6, anchor="middle", class_="wbf-soft wbf-num", font_size=11)
        )
    return body


def _hatch(key: str) -> list[str]:
    """Stripes over a fill: error is hatched, negative shares are cross-striped, so colour is never alone."""
    stripe = tag("path", d="M-2 10L10 -2M4 16L16 4", class_="wbf-stripe")
    back = tag("path", d="M-2 2L10 14M4 -4L16 8", class_="wbf-stripe")
    frame = {"width": 12, "height": 12, "patternUnits": "userSpaceOnUse"}
    return [
        tag(
            "defs", tag("pattern", stripe, id=f"{key}e", **frame), tag("pattern", back, id=f"{key}n", **frame)
        )
    ]


def _waterfall_row(row: Slice, start: float, scale: Scale, top: float, key: str) -> list[str]:
    left, right = sorted((scale(start), scale(start + row.value)))
    box = {"x": left, "y": top + 5.0, "width": max(right - left, 1.5), "height": _ROW - 10.0, "rx": 1.5}
    pattern = f"url(#{key}n)" if row.value < 0 else f"url(#{key}e)" if row.group == "error" else None
    base, soft = top + 17.5, {"class_": "wbf-soft wbf-num", "font_size": 11.5}
    body = [
        words(_cut(row.name), _LABELS - 12, base, anchor="end"),
        tag("rect", class_=f"wbf-{row.group}", **box),
        tag("rect", class_="wbf-edge", **box) if row.group == "open" else "",
        tag("rect", fill=pattern, **box) if pattern else "",
        words(percent(row.value), _PLOT_END + 58, base, anchor="end", class_="wbf-ink wbf-num", font_weight=600),
        words(_interval_text(row.low, row.high).strip(), _PLOT_END + 68, base, **soft),
        words(_counted(row), _WIDTH - 4.0, base, anchor="end", **soft),
    ]
    return [*body, *_whisker(row, start, scale, top + _ROW / 2)]


def _cut(name: str, limit: int = 27) -> str:
    return name if len(name) <= limit else name[: limit - 1].rstrip() + "…"


def _counted(row: Slice) -> str:
    return f"{row.n_features:,} feature{'' if row.n_features == 1 else 's'}" if row.n_features else ""


def _whisker(row: Slice, start: float, scale: Scale, y: float) -> list[str]:
    if row.low is None or row.high is None:
        return []
    left, right = scale(start + row.low), scale(start + row.high)
    ends = f"M{left:.1f} {y - 4:.1f}V{y + 4:.1f}M{right:.1f} {y - 4:.1f}V{y + 4:.1f}"
    line = tag("path", d=f"M{left:.1f} {y:.1f}H{right:.1f}{ends}", class_="wbf-whisker")
    if row.corrected is None:
        return [line]
    return [line, tag("circle", cx=scale(start + row.corrected), cy=y, r=2.6, class_="wbf-total")]


def _link(x: float, top: float) -> str:
    return tag("line", x1=x, x2=x, y1=top + _ROW - 5, y2=top + _ROW + 5, class_="wbf-link")


def _total_row(total: float, scale: Scale, top: float) -> list[str]:
    left, right = sorted((scale(0.0), scale(total)))
    base = top + 17.5
    return [
        words("the whole vector", _LABELS - 12, base, anchor="end", font_weight=600),
        tag("rect", x=left, y=top + 10.0, width=right - left, height=_ROW - 20.0, rx=1.5, class_="wbf-total"),
        words(percent(total), _PLOT_END + 58, base, anchor="end", class_="wbf-ink wbf-num", font_weight=600),
    ]


def made_of_strip(slices: Sequence[Slice], *, trait: str) -> Figure:
    """The waterfall in small, by kind of label, for a line of an overview: 0 to 1 on every line alike, no words inside."""
    rows = [(group, math.fsum(row.value for row in slices if row.group == group)) for group in GROUP_NAMES]
    rows = [row for row in rows if any(one.group == row[0] for one in slices)]
    ends = list(accumulate(value for _, value in rows))
    scale, key = Scale(min(0.0, *ends), max(1.0, *ends), 1, 259), "s" + _key(trait, slices)
    body = [*_hatch(key), *(tag("line", x1=scale(v), x2=scale(v), y1=0, y2=44, class_="wbf-grid") for v in (0.0, 0.5, 1.0))]
    for (group, value), start, n in zip(rows, [0.0, *ends], range(9), strict=False):
        left, right = sorted((scale(start), scale(start + value)))
        box = {"x": left, "y": 1.0 + 8.6 * n, "width": max(right - left, 1.0), "height": 7.6}
        pattern = f"url(#{key}n)" if value < 0 else f"url(#{key}e)" if group == "error" else None
        body.append(tag("rect", class_=f"wbf-{group}", **box))
        body.append(tag("rect", class_="wbf-edge", **box) if group == "open" else "")
        body.append(tag("rect", fill=pattern, **box) if pattern else "")
    spoken = "; ".join(f"{GROUP_NAMES[group]} {percent(value)}" for group, value in rows)
    return drawing(260, 45, body, title=f"What {trait} is made of, by kind of label", description=spoken)


def layer_curve(
    points: Sequence[tuple[float, float, float | None, float | None]], *, chosen: float | None = None
) -> Figure:
    """Cross-validated AUC per block: `points` are (block, auc, low, high); the chosen block is marked."""
    spoken = "; ".join(f"block {p[0]:g}: {p[1]:.2f}" for p in points)
    return drawing(450, 250, _auc_panel(points, chosen), title="Separability by block", description=spoken)


def layer_choice(
    separability: Sequence[tuple[float, float, float | None, float | None]],
    causal: Sequence[tuple[float, float, float | None, float | None]],
    *,
    chosen: float | None = None,
) -> Figure:
    """AUC and causal effect (odd part, nats per token) over the same blocks, one above the other, with intervals.

    Points are (block, value, low, high); the chosen block is marked in both.
    """
    edges = [0.0, *(edge for point in causal for edge in point[1:] if edge is not None)]
    effects = _panel(
        causal, chosen, "causal effect (nats per token)", (min(edges), max(edges)), (0.0, "no effect")
    )
    body = [*_auc_panel(separability, chosen), tag("g", *effects, transform="translate(0 255)")]
    spoken = "; ".join(f"block {a[0]:g}: AUC {a[1]:.2f}" for a in separability)
    spoken += "; " + "; ".join(f"block {c[0]:g}: effect {c[1]:.3f}" for c in causal)
    return drawing(450, 505, body, title="Separability and causal effect by block", description=spoken)


def _auc_panel(
    points: Sequence[tuple[float, float, float | None, float | None]], chosen: float | None
) -> list[str]:
    edges = [edge for point in points for edge in point[1:] if edge is not None]
    return _panel(points, chosen, "AUC", (min([0.45, *edges]), max([1.0, *edges])), (0.5, "chance"))


def _panel(
    points: Sequence[tuple[float, float, float | None, float | None]], chosen: float | None, name: str,
    ends: tuple[float, float], reference: tuple[float, str],
) -> list[str]:  # fmt: skip
    """A curve over blocks with its band, a named reference line and a mark at the chosen block."""
    x = Scale(min(p[0] for p in points), max(p[0] for p in points), 40, 440)
    y = Scale(*ends, 206, 28)
    level, meaning = reference
    body = _frame(x, y, "block", name)
    body.append(tag("line", x1=x.left, x2=x.right, y1=y(level), y2=y(level), class_="wbf-ref"))
    body.append(words(meaning, x.right, y(level) - 5, anchor="end", class_="wbf-soft", font_size=11))
    banded = [(p[0], p[2], p[3]) for p in points if p[2] is not None and p[3] is not None]
    if banded:
        outline = [(x(b), y(high)) for b, _, high in banded] + [
            (x(b), y(low)) for b, low, _ in reversed(banded)
        ]
        body.append(tag("path", d=_path(outline) + "Z", class_="wbf-band"))
    body.append(tag("path", d=_path([(x(p[0]), y(p[1])) for p in points]), class_="wbf-line-a"))
    return body + [_diamond(x(p[0]), y(p[1])) for p in points if p[0] == chosen]


def energy_curve(curves: Sequence[tuple[str, Sequence[tuple[float, float]]]]) -> Figure:
    """Share of |v|^2 that pursuit explains with n atoms, one line per dictionary (the first is the SAE's).

    `curves` are (name, [(atoms, energy)]); each line is named at its end.
    """
    longest = max(points[-1][0] for _, points in curves)
    x, y = Scale(0, longest, 40, 400), Scale(0, 1, 206, 28)
    body = _frame(x, y, "atoms", "energy explained")
    heights = _apart([y(points[-1][1]) for _, points in curves])
    for index, (name, points) in enumerate(curves):
        path = [(x(0), y(0.0)), *((x(n), y(value)) for n, value in points)]
        body.append(
            tag("path", d=_path(path), class_=("wbf-line-a", "wbf-line-b", "wbf-line-c")[min(index, 2)])
        )
        body.append(words(f"{name} {points[-1][1]:.2f}", path[-1][0] + 10, heights[index] + 4, font_size=12))
    spoken = "; ".join(f"{name}: {points[-1][1]:.2f} with {points[-1][0]:g} atoms" for name, points in curves)
    return drawing(580, 250, body, title="Energy explained by signed pursuit", description=spoken)


def _apart(heights: Sequence[float], least: float = 15.0) -> list[float]:
    """Heights of words moved just enough that no two lie closer than `least` pixels, in their order."""
    moved = list(heights)
    order = sorted(range(len(moved)), key=moved.__getitem__)
    for above, below in pairwise(order):
        moved[below] = max(moved[below], moved[above] + least)
    return moved


def strip(
    controls: Sequence[float], value: float, low: float | None, high: float | None, *, name: str
) -> Figure:
    """One effect against the effects of its matched control features, on one line. Dots are controls."""
    reach = [*controls, value, 0.0, *(edge for edge in (low, high) if edge is not None)]
    pad = (max(reach) - min(reach)) * 0.04 or 1.0
    x = Scale(min(reach) - pad, max(reach) + pad, 10, 430)
    dots = "".join(f"M{x(v):.0f} {24.0 + _jitter(k):.0f}h0" for k, v in enumerate(controls))
    body = [tag("line", x1=x(0.0), x2=x(0.0), y1=6, y2=52, class_="wbf-axis"), tag("path", d=dots, class_="wbf-dots")]
    if low is not None and high is not None:
        body.append(tag("path", d=f"M{x(low):.1f} 24H{x(high):.1f}", class_="wbf-whisker"))
    body.append(_diamond(x(value), 24.0))
    for tick in x.ticks(6):
        body.append(
            words(
                f"{tick:.3g}".replace("-", "−"),
                x(tick),
                66,
                anchor="middle",
                class_="wbf-soft wbf-num",
                font_size=11,
            )
        )
    described = f"{name}: {value:.3f} nats per token, against {len(controls)} matched controls"
    return drawing(440, 72, body, title=f"Causal effect of {name}", description=described)


def _jitter(index: int) -> float:
    """A fixed scatter in [-13, 13] (golden ratio sequence), so that dots do not hide each other."""
    return ((index * 0.6180339887) % 1.0 - 0.5) * 26


def _frame(x: Scale, y: Scale, x_name: str, y_name: str) -> list[str]:
    body = []
    for value in y.ticks(4):
        body.append(tag("line", x1=x.left, x2=x.right, y1=y(value), y2=y(value), class_="wbf-grid"))
        body.append(
            words(
                f"{value:.2g}",
                x.left - 8,
                y(value) + 4,
                anchor="end",
                class_="wbf-soft wbf-num",
                font_size=11,
            )
        )
    for value in x.ticks(6):
        body.append(
            words(
                f"{value:g}", x(value), y.left + 18, anchor="middle", class_="wbf-soft wbf-num", font_size=11
            )
        )
    body.append(words(x_name, x.right, y.left + 34, anchor="end", class_="wbf-soft", font_size=11.5))
    return [*body, words(y_name, 4, 12, class_="wbf-soft", font_size=11.5)]


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in points)


def _diamond(px: float, py: float) -> str:
    return tag("path", d=f"M{px:.1f} {py - 6:.1f}l6 6l-6 6l-6 -6Z", class_="wbf-mark")
