"""Small pieces of SVG: tags, scales, ticks, colours. No numbers of ours are computed here.

Colours follow Okabe and Ito (2008), darkened or lightened until text and marks reach a contrast of 3:1 on
white and on near black; every colour is doubled by a pattern or a word, so that nothing depends on hue.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from pathlib import Path

from workbench.reports.text import clean

STYLE = """
.wbf{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;font-size:13px}
.wbf-paper{fill:#fff}.wbf-ink{fill:#1f2328}.wbf-soft{fill:#59616b}.wbf-num{font-variant-numeric:tabular-nums}
.wbf-grid{stroke:#e3e6ea;stroke-width:1}.wbf-axis{stroke:#8a919a;stroke-width:1}.wbf-link{stroke:#b4bac2;stroke-width:1}
.wbf-whisker{stroke:#1f2328;stroke-width:1.4;fill:none}
.wbf-trait{fill:#c8500a}.wbf-other{fill:#0072b2}.wbf-unclear{fill:#8c939c}.wbf-open{fill:#dfe3e8}.wbf-error{fill:#59616b}
.wbf-total{fill:#1f2328}.wbf-stripe{stroke:#fff;stroke-width:2.2}.wbf-edge{fill:none;stroke:#8a919a;stroke-width:1}
.wbf-line-a{stroke:#c8500a;stroke-width:2;fill:none}.wbf-line-b{stroke:#0072b2;stroke-width:2;fill:none;stroke-dasharray:6 4}
.wbf-line-c{stroke:#59616b;stroke-width:1.6;fill:none;stroke-dasharray:1.5 4}
.wbf-band{fill:#c8500a;opacity:.16}.wbf-dot{fill:#0072b2;opacity:.42}.wbf-mark{fill:#c8500a;stroke:#fff;stroke-width:1}
.wbf-ref{stroke:#59616b;stroke-width:1.2;stroke-dasharray:2 4}
@media screen and (prefers-color-scheme:dark){
.wbf-paper{fill:#15181c}.wbf-ink{fill:#eceff2}.wbf-soft{fill:#a9b1bb}.wbf-grid{stroke:#2a3037}.wbf-axis{stroke:#69727d}
.wbf-link{stroke:#4b545e}.wbf-whisker{stroke:#eceff2}.wbf-trait{fill:#f2894a}.wbf-other{fill:#56b4e9}.wbf-unclear{fill:#8c949e}
.wbf-open{fill:#343b44}.wbf-error{fill:#a9b1bb}.wbf-total{fill:#eceff2}.wbf-stripe{stroke:#15181c}.wbf-edge{stroke:#69727d}
.wbf-line-a{stroke:#f2894a}.wbf-line-b{stroke:#56b4e9}.wbf-line-c{stroke:#a9b1bb}.wbf-band{fill:#f2894a;opacity:.2}.wbf-dot{fill:#56b4e9;opacity:.5}
.wbf-mark{fill:#f2894a;stroke:#15181c}.wbf-ref{stroke:#a9b1bb}}
""".strip()


@dataclass(frozen=True)
class Figure:
    """One drawing. `inline` is for pages which carry `STYLE` once; `svg` stands alone (notebook, docs, files)."""

    inline: str
    title: str

    @property
    def svg(self) -> str:
        head, rest = self.inline.split(">", 1)
        return f"{head}><style>{STYLE}</style>{rest}"

    def save(self, path: str | Path) -> Path:
        from workbench.base.store import atomic_write

        atomic_write(Path(path), self.svg)
        return Path(path)

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
