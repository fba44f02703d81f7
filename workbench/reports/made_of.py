"""What a vector is made of, as a picture: all of |v|^2 above, the categories below, each beside what swapped labels get."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from workbench.reports.figures import _hatch, _interval_text, _ticks
from workbench.reports.svg import Figure, Scale, drawing, percent, tag, words
from workbench.reports.text import clean

if TYPE_CHECKING:
    from workbench.labeling.taxonomy.values import MadeOf, Part

_WIDTH, _ROW, _LEFT, _RIGHT = 912, 28, 232, 600
_SHARE, _ENDS, _COUNT, _P = 660, 670, 838, 908
_FILL = {"sub_trait": "trait", "other": "other", "open": "unclear", "unlabelled": "open", "error": "error"}
_SOFT = {"class_": "wbf-soft wbf-num", "font_size": 11.5}


def made_of_figure(made: MadeOf) -> Figure:
    """The answer as horizontal bars from 0 (a share may be negative, so it is no pie), all numbers beside them.

    Above: the shares by kind, which sum to 100%. Below, on a scale of their own: the categories that have features. A bar is the
    share in this vector; dot and line are the estimate and the 95% interval over questions and instructions; the pale band is
    the middle 95% of what permuted labels give, the triangle the median of placebo contrasts. Categories without a feature are
    named under the picture.
    """
    key = "m" + hashlib.sha256(repr((made.trait, made.parts)).encode()).hexdigest()[:8]
    shown = [part for part in made.parts if part.kind in ("sub_trait", "other", "open") and part.n_features]
    body = [*_hatch(key), *_panel(f"All of the {made.trait} vector, by kind", made.totals, 0, key)]
    second = 74 + _ROW * len(made.totals)
    body += _panel("By category: sub-traits, then other categories, then what has none", shown, second, key)
    bottom = second + 64 + _ROW * max(len(shown), 1)
    notes = _notes(made)
    body += [words(line, 8, bottom + 6 + 17 * n, class_="wbf-soft", font_size=11.5) for n, line in enumerate(notes)]
    spoken = "; ".join(f"{p.name} {percent(p.share)}{_interval_text(p.low, p.high)}" for p in (*made.totals, *shown))
    height = bottom + 4 + 17 * len(notes)
    title = f"What the {made.trait} vector is made of"
    return drawing(_WIDTH, height, body, title=title, description=f"Shares of |v|²: {spoken}")


def _panel(title: str, rows: Sequence[Part], top: int, key: str) -> list[str]:
    first = top + 50
    heads = [("share", _SHARE, "end"), ("95% interval", _ENDS, "start"), ("features", _COUNT, "end"), ("p", _P, "end")]
    body = [words(title, 8, top + 20, font_weight=600)]
    body += [words(name, x, top + 36, anchor=anchor, class_="wbf-soft", font_size=11) for name, x, anchor in heads]
    if not rows:
        return [*body, words("No feature has a label.", 8, first + 18, class_="wbf-soft")]
    scale = _scale(rows)
    body += _ticks(scale, first - 4, first + _ROW * len(rows))
    for n, row in enumerate(rows):
        if n and row.kind != rows[n - 1].kind and len({one.kind for one in rows}) < len(rows):
            body.append(tag("line", x1=8, x2=_P, y1=first + n * _ROW, y2=first + n * _ROW, class_="wbf-grid"))
        body += _row(row, scale, float(first + n * _ROW), key)
    return body


def _scale(rows: Sequence[Part]) -> Scale:
    ends = [end for row in rows for end in (row.low, row.high, row.share)]
    ends += [end for row in rows if row.swapped for end in (row.swapped.low, row.swapped.high)]
    low, high = min(0.0, *ends), max(0.02, *ends)
    return Scale(low, high + 0.02 * (high - low), _LEFT, _RIGHT)


def _row(row: Part, scale: Scale, top: float, key: str) -> list[str]:
    middle, base = top + _ROW / 2, top + 18.5
    p = "" if row.swapped is None else "<.001" if row.swapped.p < 0.001 else f"{row.swapped.p:.3f}"
    count = f"{row.n_features:,}" if row.n_features else ""
    drawn = row.n_features or row.kind == "error"
    return [
        *(_swapped(row, scale, top) + _bar(row, scale, top, key) + _whisker(row, scale, middle) if drawn else ()),
        *_placebo(row, scale, top),
        words(clean(row.name, limit=32), _LEFT - 12, base, anchor="end"),
        words(percent(row.share), _SHARE, base, anchor="end", class_="wbf-ink wbf-num", font_weight=600),
        words(_interval_text(row.low, row.high).strip() if drawn else "", _ENDS, base, **_SOFT),
        words(count, _COUNT, base, anchor="end", **_SOFT),
        words(p.replace("0.", "."), _P, base, anchor="end", **_SOFT),
    ]


def _bar(row: Part, scale: Scale, top: float, key: str) -> list[str]:
    left, right = sorted((scale(0.0), scale(row.share)))
    box = {"x": left, "y": top + 8.0, "width": max(right - left, 1.5), "height": _ROW - 16.0, "rx": 1.5}
    pattern = f"url(#{key}n)" if row.share < 0 else f"url(#{key}e)" if row.kind == "error" else None
    return [
        tag("rect", class_=f"wbf-{_FILL[row.kind]}", **box),
        tag("rect", class_="wbf-edge", **box) if row.kind == "unlabelled" else "",
        tag("rect", fill=pattern, **box) if pattern else "",
    ]


def _swapped(row: Part, scale: Scale, top: float) -> list[str]:
    if row.swapped is None:
        return []
    left, right = scale(row.swapped.low), scale(row.swapped.high)
    return [tag("rect", x=left, y=top + 4.0, width=max(right - left, 1.0), height=_ROW - 8.0, rx=3, class_="wbf-open")]


def _placebo(row: Part, scale: Scale, top: float) -> list[str]:
    if row.placebo is None:
        return []
    return [tag("path", d=f"M{scale(row.placebo.median):.1f} {top + _ROW - 8:.1f}l4 6h-8Z", class_="wbf-whisker")]


def _whisker(row: Part, scale: Scale, y: float) -> list[str]:
    left, right = scale(row.low), scale(row.high)
    ends = f"M{left:.1f} {y - 4:.1f}V{y + 4:.1f}M{right:.1f} {y - 4:.1f}V{y + 4:.1f}"
    line = tag("path", d=f"M{left:.1f} {y:.1f}H{right:.1f}{ends}", class_="wbf-whisker")
    return [line, tag("circle", cx=scale(row.corrected), cy=y, r=2.6, class_="wbf-total")]


def _notes(made: MadeOf) -> list[str]:
    has_placebos = any(part.placebo is not None for part in made.parts)
    notes = [
        "Bar: share of this vector. Dot and line: estimate and 95% interval over questions and instructions, labels as they are.",
        "(A bar may end outside its line: in a sample, noise takes from few large features and adds to the many others.)",
        "Pale band and p: the same labels, permuted among the labelled features (p: as much or more)."
        + (" Triangle: median of placebo contrasts." if has_placebos else ""),
    ]
    names = [part.name for part in made.parts if part.id in made.absent]
    if names:
        notes.append("No labelled feature belongs to:")
        notes += _wrapped([clean(name, limit=32) for name in names])
    return notes


def _wrapped(names: Sequence[str], width: int = 130) -> list[str]:
    """The names, comma by comma, in lines of at most `width` characters."""
    lines = [""]
    for n, name in enumerate(names):
        piece = name + ("." if n == len(names) - 1 else ", ")
        if lines[-1] and len(lines[-1] + piece) > width:
            lines.append("")
        lines[-1] += piece
    return [line.strip() for line in lines]
