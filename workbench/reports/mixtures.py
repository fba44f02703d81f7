"""Known mixtures as a picture: the proportion that went in against the one that was read back, method beside method."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.reports.svg import Figure, Scale, drawing, percent, tag, words

if TYPE_CHECKING:
    from workbench.lab.mixture_study import MixtureResult

_SIZE, _LEFT, _TOP, _GAP, _KEY = 256, 62, 52, 72, 30
_TITLES = {"shares": "Decomposition: grouped shares", "codes": "Decomposition: all codes", "residual": "Baseline: no SAE"}
_ALLOWED = 0.10


def mixture_figure(result: MixtureResult) -> Figure:
    """Two panels for the decomposition and one for the baseline: a mark per mixture and sub-persona.

    On the line the estimate is right; between the dotted lines it is off by .10 or less. Every sub-persona has its own shape.
    """
    scale = Scale(0.0, max(0.7, *(_estimates(result, method)[-1] for method in _TITLES)), 0.0, float(_SIZE))
    body = []
    for place, method in enumerate(_TITLES):
        left = _LEFT + place * (_SIZE + _GAP)
        body.append(tag("g", *_panel(result, method, scale), transform=f"translate({left} {_TOP})"))
    body += _key(result.names, _TOP + _SIZE + 62)
    spoken = (f"{_TITLES[one]}: mean error {result.score(one).share_error:.3f}" for one in _TITLES)
    n = len(_TITLES)
    width, height = _LEFT + n * _SIZE + (n - 1) * _GAP + 24, _TOP + _SIZE + 62 + _KEY
    title = f"{len(result.rows)} known mixtures of {len(result.names)} sub-personas"
    return drawing(width, height, body, title=title, description="; ".join(spoken))


def _estimates(result: MixtureResult, method: str) -> list[float]:
    return sorted(value for row in result.rows for value in row.found[method].values())


def _panel(result: MixtureResult, method: str, scale: Scale) -> list[str]:
    score = result.score(method)
    figures = f"mean error {score.share_error:.3f}, order right in {percent(score.order_right, 0)}"
    body = [words(_TITLES[method], 0, -28, font_weight="600"), words(figures, 0, -11, class_="wbf-soft", font_size=12)]
    body += _frame(scale)
    for row in result.rows:
        for number, name in enumerate(result.names):
            body.append(_mark(number, scale(row.known[name]) + 3.0 * (number - 1.5), _SIZE - scale(row.found[method][name])))
    return body


def _frame(scale: Scale) -> list[str]:
    body = []
    for value in scale.ticks(7):
        at, class_ = scale(value), "wbf-axis" if abs(value) < 1e-9 else "wbf-grid"
        body += [tag("line", x1=at, x2=at, y1=0, y2=_SIZE, class_=class_),
                 tag("line", x1=0, x2=_SIZE, y1=_SIZE - at, y2=_SIZE - at, class_=class_),
                 words(percent(value, 0), at, _SIZE + 16, anchor="middle", class_="wbf-soft wbf-num", font_size=11),
                 words(percent(value, 0), -6, _SIZE - at + 4, anchor="end", class_="wbf-soft wbf-num", font_size=11)]  # fmt: skip
    for shift, class_ in ((0.0, "wbf-axis"), (_ALLOWED, "wbf-ref"), (-_ALLOWED, "wbf-ref")):
        low, high = max(0.0, -shift), min(scale.high, scale.high - shift)
        body.append(tag("line", x1=scale(low), y1=_SIZE - scale(low + shift), x2=scale(high), y2=_SIZE - scale(high + shift),
                        class_=class_))  # fmt: skip
    return [*body, words("known proportion of answers", _SIZE / 2, _SIZE + 36, anchor="middle", class_="wbf-soft", font_size=12),
            words("estimated", -44, _SIZE / 2, anchor="middle", class_="wbf-soft", font_size=12,
                  transform=f"rotate(-90 -44 {_SIZE / 2})")]  # fmt: skip


def _mark(number: int, x: float, y: float) -> str:
    """Circle, square, triangle, diamond, then the same in the other colour."""
    class_ = "wbf-mark" if number % 2 else "wbf-dot"
    shapes = ("M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0", "M-4-4h8v8h-8z", "M0-5L5 4H-5z", "M0-5L5 0L0 5L-5 0z")
    return tag("path", d=shapes[number % len(shapes)], class_=class_, transform=f"translate({x:.1f} {y:.1f})")


def _key(names: tuple[str, ...], y: float) -> list[str]:
    step = (3 * _SIZE + 2 * _GAP) / max(1, len(names))
    return [
        part
        for number, name in enumerate(names)
        for part in (_mark(number, _LEFT + number * step, y), words(name.replace("_", " "), _LEFT + number * step + 12, y + 4))
    ]
