"""Small pieces of SVG: tags, scales, ticks. No numbers of ours are computed here.

Colours come from `templates/tokens.css`; every colour is doubled by a pattern or a word, so that nothing depends on hue.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from html import escape, unescape
from pathlib import Path

from workbench.reports.standalone import standalone
from workbench.reports.text import clean

MAX_SPOKEN = 400


@dataclass(frozen=True, repr=False)
class Figure:
    """One drawing. `inline` is for pages which carry tokens.css and figure.css once; `svg` stands alone (notebook, docs, files).

    Its `repr` is the words that a screen reader gets.
    """

    inline: str
    title: str

    @property
    def svg(self) -> str:
        return standalone(self.inline)

    def save(self, path: str | Path) -> Path:
        from workbench.base.store import atomic_write

        atomic_write(Path(path), self.svg)
        return Path(path)

    def __repr__(self) -> str:
        spoken = re.search(r'aria-label="([^"]*)"', self.inline)
        words = unescape(spoken.group(1) if spoken else self.title)
        return f"Figure: {words if len(words) <= MAX_SPOKEN else words[: MAX_SPOKEN - 1] + '…'}"

    def _repr_svg_(self) -> str:
        return self.svg


def tag(name: str, *content: str, **attributes: object) -> str:
    """`tag("text", "a < b", x=3, class_="k")`: attributes are escaped, content is trusted (see `words`)."""
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{pairs}>{''.join(content)}</{name}>" if content else f"<{name}{pairs}/>"


def number(value: object) -> str:
    """Floats to two decimals without trailing zeros; everything else as text."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def words(
    value: str, x: float, y: float, *, anchor: str = "start", class_: str = "wbf-ink", **more: object
) -> str:
    """A text element; whatever the words are, they are escaped here."""
    return tag(
        "text", escape(clean(value)), x=float(x), y=float(y), text_anchor=anchor, class_=class_, **more
    )


def drawing(width: int, height: int, body: list[str], *, title: str, description: str) -> Figure:
    """The frame that every figure shares: paper, title and description for screen readers."""
    head = [tag("title", escape(clean(title))), tag("desc", escape(clean(description)))]
    paper = tag("rect", x=0, y=0, width=width, height=height, class_="wbf-paper")
    inline = tag(
        "svg",
        *head,
        paper,
        *body,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        class_="wbf",
        role="img",
        aria_label=f"{clean(title)}. {clean(description)}",
    )
    return Figure(inline, title)


@dataclass(frozen=True)
class Scale:
    """A linear map from [low, high] in data to [left, right] in pixels."""

    low: float
    high: float
    left: float
    right: float

    def __call__(self, value: float) -> float:
        span = (self.high - self.low) or 1.0
        return self.left + (value - self.low) / span * (self.right - self.left)

    def ticks(self, about: int = 5) -> list[float]:
        """Round numbers inside the range, some `about` of them."""
        rough = ((self.high - self.low) or 1.0) / about
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * k for k in (1, 2, 5, 10) if power * k >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [k * step for k in range(first, math.floor(self.high / step + 1e-9) + 1)]


def percent(value: float | None, digits: int = 1) -> str:
    """`.0312 -> 3.1%`, with a real minus sign; unknown is an en dash."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{100 * value:.{digits}f}"
    text = text.removeprefix("-") if float(text) == 0 else text
    return text.replace("-", "−") + "%"


def signed(value: float | None, digits: int) -> str:
    """A number with a real minus sign, and none before a zero."""
    text = "" if value is None else f"{value:.{digits}f}"
    return text.removeprefix("-") if text and float(text) == 0 else text.replace("-", "−")
