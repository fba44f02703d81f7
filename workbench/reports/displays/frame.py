"""The frame of every display: a headline, a line or two, one figure, a short table, notes. All words are escaped.

A display is drawn twice: as one piece of HTML with the figure inside, and as the separate outputs of a notebook, where the figure
is an SVG of its own (see `base.display.Shown`). Colours follow JupyterLab's theme, elsewhere the system's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from workbench.reports.shares import finite

if TYPE_CHECKING:
    from markupsafe import Markup

    from workbench.reports.svg import Figure

N_ROWS = 12
MAX_CELL = 160
_NUMBER = re.compile(r"[−+–-]?[\d.,]*(e[−+-]?\d+)?[%×]?( [\[(].*[\])])?")


@dataclass(frozen=True)
class Listing:
    """A table of plain words; `rest` rows more were left out. Columns that hold only numbers are aligned to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    rest: int = 0

    @property
    def numeric(self) -> list[bool]:
        """Per column, whether all its cells are numbers (or dashes)."""
        return [all(_NUMBER.fullmatch(row[i]) for row in self.rows) for i in range(len(self.columns))]


@dataclass(frozen=True)
class Display:
    """What a value shows; `body` is HTML that was escaped where it was made."""

    title: str
    lines: Sequence[str] = ()
    tables: Sequence[Listing] = ()
    figure: Figure | None = None
    notes: Sequence[str] = ()
    body: Markup | str = ""

    def html(self) -> str:
        """Everything in one piece."""
        return self._drawn(self.title, self.lines, figure=self.figure, rest=True)

    def outputs(self, text: str) -> list[dict[str, str]]:
        """The MIME bundles of a notebook's outputs, in order; `text` stands in where no HTML is shown."""
        if self.figure is None:
            return [{"text/html": self.html(), "text/plain": text}]
        head = {"text/html": self._drawn(self.title, self.lines), "text/plain": text}
        drawn = {"image/svg+xml": self.figure.svg, "text/plain": repr(self.figure)}
        return [head, drawn, *self._after()]

    def _after(self) -> list[dict[str, str]]:
        if not (any(table.rows for table in self.tables) or self.notes or self.body):
            return []
        plain = "\n".join(" | ".join(row) for table in self.tables for row in [table.columns, *table.rows])
        return [{"text/html": self._drawn("", (), rest=True), "text/plain": plain or "\n".join(self.notes)}]

    def _drawn(self, title: str, lines: Sequence[str], *, figure: Figure | None = None, rest: bool = False) -> str:
        from markupsafe import Markup

        from workbench.reports.html import environment

        return environment().get_template("display.html.jinja").render(
            css=Markup(display_css()), title=title, lines=lines, figure=figure and Markup(figure.svg),
            tables=[table for table in self.tables if table.rows] if rest else (), notes=self.notes if rest else (),
            body=Markup(self.body) if rest else "",
        )  # fmt: skip


@cache
def display_css() -> str:
    """The style of displays, with the tokens that it uses; the theme of JupyterLab decides between light and dark."""
    from workbench.reports.tokens import DARK_SCREEN, template_text, tokens

    source = template_text("display.css").strip()
    used = [name for name in tokens()[0] if f"var(--{name})" in source]
    light, dark = (";".join(f"--{name}:{half[name]}" for name in used if name in half) for half in tokens())
    scope = ".workbench-display"
    system = f"{DARK_SCREEN}{{body:not([data-jp-theme-light]) {scope}{{{dark}}}}}"
    return f"{scope}{{{light}}}{system}[data-jp-theme-light=false] {scope}{{{dark}}}\n{source}"


def number(value: Any, digits: int = 3) -> str:
    """Three digits, a real minus sign; a dash for what is not known."""
    known = finite(value)
    return "–" if known is None else f"{known + 0.0:.{digits}g}".replace("-", "−")


def ends(interval: Iterable[Any] | None, digits: int = 2) -> str:
    """`0.12 to 0.34`; a dash when there is no interval."""
    known = None if interval is None else [finite(end) for end in interval]
    if not known or None in known:
        return "–"
    return " to ".join(f"{end:.{digits}f}".replace("-", "−") for end in known)


def listing(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str = "", most: int = N_ROWS, only_known: bool = False
) -> Listing:
    """The first rows as words; what is left out is counted. With `only_known`, columns that hold nothing but dashes go."""
    words = [[shown(cell) for cell in row] for row in rows]
    kept = range(len(columns))
    if only_known:
        kept = [i for i in kept if any(row[i] != "–" for row in words)]
    listed = [[row[i] for i in kept] for row in words[:most]]
    return Listing([columns[i] for i in kept], listed, title, max(0, len(words) - most))


def shown(cell: Any) -> str:
    """A cell as words: numbers to three digits, a dash for None, long texts cut."""
    if cell is None or isinstance(cell, float):
        return number(cell)
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}".replace("-", "−")
    text = str(cell)
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - 1] + "…"
