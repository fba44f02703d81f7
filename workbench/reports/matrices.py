"""Matrices as pictures: cosines between vectors, similarity between the blocks of two models."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.reports.svg import Figure, drawing, tag, words

_CELL, _SMALL, _LEFT, _TOP = 56, 17, 132, 74
_WRITTEN = 12  # up to so many rows, every cell has its number


def heat_map(
    values: Sequence[Sequence[float | None]],
    *,
    title: str,
    rows: str = "",
    columns: str = "",
    row_names: Sequence[str] | None = None,
    column_names: Sequence[str] | None = None,
) -> Figure:
    """A matrix of numbers between -1 and 1: full colour is 1, nothing is 0, and negative cells are blue with a minus.

    Small matrices have their numbers written in; larger ones a number at the largest cell of each row. Unknown is blank.
    """
    n, m = len(values), max((len(row) for row in values), default=0)
    large = max(n, m) > _WRITTEN
    cell = _SMALL if large else _CELL
    names = [list(given or map(str, range(count))) for given, count in ((row_names, n), (column_names, m))]
    body = [words(title, _LEFT, 18, class_="wbf-ink", font_size=14)]
    body += [words(columns, _LEFT + m * cell / 2, 40, anchor="middle", class_="wbf-soft")]
    body += [words(rows, 8, 58, class_="wbf-soft")] if rows else []
    for i, row in enumerate(values):
        y = _TOP + i * cell
        if not large or i % 5 == 0:
            body.append(words(names[0][i], _LEFT - 8, y + cell / 2 + 4, anchor="end"))
        for j, value in enumerate(row):
            body += _cell(value, _LEFT + j * cell, y, cell, written=not large)
    body.append(_grid(n, m, cell))
    for j, name in enumerate(names[1]):
        if not large or j % 5 == 0:
            body.append(words(name[:9] if not large else name, _LEFT + (j + 0.5) * cell, _TOP - 8, anchor="middle",
                              font_size=11))  # fmt: skip
    return drawing(_LEFT + m * cell + 24, _TOP + n * cell + 16, body, title=title, description=_spoken(values, names))


def _cell(value: float | None, x: float, y: float, size: int, *, written: bool) -> list[str]:
    if value is None or value != value:
        return []
    colour = "wbf-trait" if value >= 0 else "wbf-other"
    # Paler than full colour, so that the number on it keeps its contrast.
    strength = f"{min(abs(value), 1.0) * (0.55 if written else 1.0):.3f}"
    drawn = [tag("rect", x=x, y=y, width=size, height=size, class_=colour, fill_opacity=strength)]
    if written:
        text = f"{value:.2f}".replace("-", "−")
        drawn.append(words(text, x + size / 2, y + size / 2 + 4, anchor="middle", class_="wbf-ink wbf-num", font_size=12))
    return drawn


def _grid(n: int, m: int, cell: int) -> str:
    """The edges of all cells, as one path."""
    across = [f"M{_LEFT} {_TOP + i * cell}h{m * cell}" for i in range(n + 1)]
    down = [f"M{_LEFT + j * cell} {_TOP}v{n * cell}" for j in range(m + 1)]
    return tag("path", d="".join([*across, *down]), class_="wbf-edge", stroke_opacity=0.25)


def _spoken(values: Sequence[Sequence[float | None]], names: Sequence[Sequence[str]]) -> str:
    known = [(v, i, j) for i, row in enumerate(values) for j, v in enumerate(row) if v is not None and v == v]
    if not known:
        return "An empty matrix."
    low, high = min(known), max(known)
    return (f"{len(values)} rows; from {low[0]:.2f} ({names[0][low[1]]}, {names[1][low[2]]}) "
            f"to {high[0]:.2f} ({names[0][high[1]]}, {names[1][high[2]]})")  # fmt: skip


def pair_matrix(
    names: Sequence[str], cells: Sequence[Sequence[tuple[float | None, str, str]]], *, title: str, description: str
) -> Figure:
    """What every two of `names` have in common: a cell is (how strong its colour is, between -1 and 1, its word, a smaller word).

    The smaller word is what chance gives. A cell without a strength has no colour.
    """
    width, height, left, top = 62, 40, 104, 78
    n = len(names)
    body = []
    for i, name in enumerate(names):
        shown = name if len(name) <= 15 else name[:14] + "…"
        x, y = left + (i + 0.5) * width, top + i * height
        body.append(words(shown, left - 8, y + height / 2 + 4, anchor="end", font_size=12.5))
        body.append(words(shown, x - 8, top - 8, font_size=12.5, transform=f"rotate(-38 {x - 8} {top - 8})"))
        for j, (value, word, small) in enumerate(cells[i]):
            box = {"x": float(left + j * width + 1), "y": float(y + 1), "width": width - 2, "height": height - 2, "rx": 2}
            if value is not None:
                strength = f"{min(abs(value), 1.0) * 0.5:.3f}"
                body.append(tag("rect", **box, class_="wbf-trait" if value >= 0 else "wbf-other", fill_opacity=strength))
            body.append(tag("rect", **box, class_="wbf-edge", stroke_opacity=0.3))
            middle = left + (j + 0.5) * width
            base = y + (18 if small else 25)
            body.append(words(word, middle, base, anchor="middle", class_="wbf-ink wbf-num", font_size=13))
            if small:
                body.append(words(small, middle, y + 32, anchor="middle", class_="wbf-soft wbf-num", font_size=11))
    return drawing(left + n * width + 44, top + n * height + 4, body, title=title, description=description)
