"""What a fine-tune changed, as pictures: shifts along traits beside the nulls, and predicted against measured change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from workbench.reports.figures import _cut, _frame
from workbench.reports.svg import Figure, Scale, drawing, signed, tag, words

if TYPE_CHECKING:
    from workbench.steering.diff.result import ModelDiff
    from workbench.steering.diff.shifts import TraitShift
    from workbench.steering.diff.study import Tuned

_ROW, _TOP, _LEFT, _RIGHT, _WIDTH = 30, 46, 150, 560, 700
_NAMES = {
    "prompt": "last prompt token", "reply": "reply", "opening": "first tokens of unrelated text", "unrelated": "unrelated text",
}  # fmt: skip


def diff_figure(found: ModelDiff, place: str | None = None) -> Figure:
    """Shift along each trait at one place (default: the main one), in standard deviations of a token.

    Dots with 95% intervals; the band of a row is what placebos and random directions reach in 95% of the families. A filled
    diamond marks what goes beyond it toward the trait.
    """
    place = place or found.main_place
    rows = found.at(place)
    if not rows:
        return drawing(_WIDTH, 60, [words("no persona vectors were given", 20, 34)], title="Shifts", description="none")
    reach = [edge for row in rows for edge in (*row.z_interval, row.limit, -row.limit, row.z)]
    pad = (max(reach) - min(reach)) * 0.05 or 1.0
    x, bottom = Scale(min(reach) - pad, max(reach) + pad, _LEFT, _RIGHT), _TOP + _ROW * len(rows)
    body = [words(f"Shift at the {_NAMES[place]}", 8, 18, font_size=14), *_ticks(x, bottom)]
    for index, row in enumerate(rows):
        body += _row(row, x, _TOP + _ROW * (index + 0.5))
    body.append(words("standard deviations of a token, after − before", _RIGHT, bottom + 36, anchor="end", class_="wbf-soft",
                      font_size=11.5))  # fmt: skip
    spoken = "; ".join(f"{row.trait} {signed(row.z, 2)} (nulls reach {row.limit:.2f})" for row in rows)
    return drawing(_WIDTH, bottom + 46, body, title=f"What {found.after['name']} moved toward", description=spoken)


def _ticks(x: Scale, bottom: float) -> list[str]:
    body = []
    for value in x.ticks(6):
        zero = abs(value) < 1e-9
        body.append(tag("line", x1=x(value), x2=x(value), y1=_TOP - 6, y2=bottom, class_="wbf-axis" if zero else "wbf-grid"))
        body.append(words(signed(value, 1), x(value), bottom + 18, anchor="middle", class_="wbf-soft wbf-num", font_size=11))
    return body


def _row(row: TraitShift, x: Scale, y: float) -> list[str]:
    low, high = (x(edge) for edge in row.z_interval)
    left, right = x(-row.limit), x(row.limit)
    band = tag("rect", x=left, y=y - 9, width=right - left, height=18.0, class_="wbf-band")
    mark = tag("path", d=f"M{x(row.z):.1f} {y - 6:.1f}l6 6l-6 6l-6 -6Z", class_="wbf-mark" if row.installed else "wbf-total")
    return [
        words(_cut(row.trait, 20), _LEFT - 12, y + 4, anchor="end"),
        band,
        tag("path", d=f"M{low:.1f} {y:.1f}H{high:.1f}", class_="wbf-whisker"),
        mark,
        words(f"{signed(row.z, 2)}{'  installed' if row.installed else ''}", _RIGHT + 12, y + 4, class_="wbf-num", font_size=12),
    ]


def study_figure(rows: Sequence[Tuned], summary: Mapping[str, Any], place: str) -> Figure:
    """Predicted shift against measured change: one dot per fine-tune and trait.

    Diamonds: the trait in the fine-tune's own data. Circles: other traits. Hollow squares: shams.
    """
    points = [
        (row.predicted[place][trait], cell["change"], _kind(row, trait)) for row in rows for trait, cell in row.measured.items()
    ]
    across, along = [p[0] for p in points], [p[1] for p in points]
    x, y = (Scale(min(v) - 0.05 * (max(v) - min(v)), max(v) + 0.05 * (max(v) - min(v)), *ends) for v, ends in
            ((across, (56, 440)), (along, (270, 40))))  # fmt: skip
    body = _frame(x, y, f"shift at the {_NAMES[place]} (standard deviations)", "")
    body += [words("measured change, judge's points", 4, 26, class_="wbf-soft", font_size=11.5)]
    body += [_point(kind, x(a), y(b)) for a, b, kind in sorted(points, key=lambda point: point[2] == "own")]
    for index, (kind, name) in enumerate((("own", "trait in the data"), ("other", "other traits"), ("sham", "shams"))):
        body += [_point(kind, 466.0, 60.0 + 22 * index), words(name, 480, 64 + 22 * index, font_size=12)]
    told = summary[place]
    agreement, top = told["agreement"], told["identified"]
    lines = (
        f"correlation {signed(agreement['correlation'], 2)}", f"named first: {top['n']} of {top['of']}",
        f"(by chance {top['by_chance']:.1f})", f"shams alarmed: {told['shams']['n_alarmed']} of {told['shams']['of']}",
    )  # fmt: skip
    body += [words(line, 460, 150 + 18 * index, font_size=12) for index, line in enumerate(lines)]
    return drawing(640, 316, body, title="Predicted and measured change of traits", description="; ".join(lines))


def _kind(row: Tuned, trait: str) -> str:
    return "sham" if row.trait is None else "own" if row.trait == trait else "other"


def _point(kind: str, px: float, py: float) -> str:
    if kind == "own":
        return tag("path", d=f"M{px:.1f} {py - 6:.1f}l6 6l-6 6l-6 -6Z", class_="wbf-mark")
    if kind == "sham":
        return tag("rect", x=px - 3.5, y=py - 3.5, width=7, height=7, class_="wbf-edge")
    return tag("circle", cx=px, cy=py, r=2.8, class_="wbf-dot")
