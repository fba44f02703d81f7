"""What steering costs as a picture: change of the trait against loss of capability, a line per method, the front marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from workbench.reports.figures import _apart, _path
from workbench.reports.svg import Figure, Scale, drawing, signed, tag, words

if TYPE_CHECKING:
    from workbench.steering.cost.pareto import Front, Point

_WIDTH, _PANEL, _LEFT, _RIGHT, _TOP, _BOTTOM = 776, 372, 60, 560, 40, 316
_OWN = {"add": "wbf-line-a", "denoised": "wbf-line-b", "incremental": "wbf-line-b"}
_FAR = 3.0
_NULLS = ("random", "random features", "placebo")
_STARTS = {"neutral": "no system prompt", "persona": "requests behind personas"}


def pareto_figure(fronts: Sequence[Front]) -> Figure:
    """One panel per sweep, below each other. Right: dearer (nats per token lost on held-out documents). Up: more of the wanted
    change (points of 0-100). Whiskers: 95%. Filled marks lie on the front; dotted lines are nulls.
    """
    body = [tag("g", *_panel(front), transform=f"translate(0 {number * _PANEL})") for number, front in enumerate(fronts)]
    told = "; ".join(_spoken(front) for front in fronts)
    return drawing(_WIDTH, _PANEL * max(len(fronts), 1), body, title="What steering costs", description=told)


def front_sentences(front: Front) -> list[str]:
    """What a front says, in words: what there was to change, the cheapest ways, and where nothing is told apart."""
    wanted = "grow" if front.wanted > 0 else "shrink"
    told = [f"{front.trait} from the {front.start} start ({signed(front.base_points, 1)} points of 100), to {wanted}."]
    if not front.best:
        return [*told, "No treatment moves it as wanted."]
    largest = max(front.points, key=lambda point: point.change)
    price = f"{_change(largest)} points at {signed(largest.loss, 3)} nats per token"
    told.append(f"The largest change is that of {_named(largest)}: {price}.")
    told.append("On the front, cheapest first: " + ", ".join(_named(point) for point in front.best) + ".")
    return told


def _named(point: Point) -> str:
    return point.method + ("" if point.level is None else f" {signed(point.level, 2)}")


def _change(point: Point) -> str:
    low, high = point.change_interval
    return f"{signed(point.change, 1)} [{signed(low, 1)}, {signed(high, 1)}]"


def _spoken(front: Front) -> str:
    return " ".join(front_sentences(front))


def _panel(front: Front) -> list[str]:
    shown, far = _shown(front.points)
    x, y = _scales(shown)
    verb = "more" if front.wanted > 0 else "less"
    title = f"{front.trait}, {verb} of it: from {_STARTS.get(front.start, 'the trait’s own prompts')}"
    body = [words(title, 4, 16, font_weight=600), *_axes(x, y, verb)]
    if far:
        told = ", ".join(f"{_named(p)} ({signed(p.change, 0)} points at {p.loss:.1f})" for p in far)
        body.append(words(f"off the chart: {told}", _RIGHT, 32, anchor="end", class_="wbf-soft", font_size=11.5))
    ends = []
    for method in dict.fromkeys(point.method for point in shown):
        points = sorted((p for p in shown if p.method == method), key=lambda p: abs(p.level or 0.0))
        body += _curve(points, x, y, front)
        at = (x(points[-1].loss), y(points[-1].change))
        if len(points) == 1 and at[0] < _RIGHT - 110:  # no curve to follow: the name stands at the mark
            body.append(words(method, at[0] + 8, at[1] - 6, font_size=12))
        else:
            ends.append((method, *at))
    heights = _apart([height + 4 for *_, height in ends], 14.0)
    shift = max(0.0, max(heights, default=0.0) - (_BOTTOM + 8))
    for (method, right, height), label in zip(ends, heights, strict=True):
        at = label - shift
        body.append(tag("path", d=_path([(right, height), (_RIGHT + 8, at - 4)]), class_="wbf-link", fill="none"))
        body.append(words(method, _RIGHT + 12, at, font_size=12, class_="wbf-soft" if method in _NULLS else "wbf-ink"))
    return body


def _shown(points: Sequence[Point]) -> tuple[list[Point], list[Point]]:
    """(what is drawn, what is only told): a point that costs three times as much as all others would press them together."""
    shown, far = sorted(points, key=lambda point: point.loss), []
    while len(shown) > 2 and shown[-1].loss > _FAR * max(shown[-2].loss, 0.05):
        far.append(shown.pop())
    return [point for point in points if point in shown], far


def _scales(points: Sequence[Point]) -> tuple[Scale, Scale]:
    losses = [0.0, *(end for p in points for end in (p.loss, *p.loss_interval) if end is not None)]
    changes = [0.0, *(end for p in points for end in (p.change, *p.change_interval) if end is not None)]
    across, up = (max(values) - min(values) or 1.0 for values in (losses, changes))
    x = Scale(min(losses) - 0.03 * across, max(losses) + 0.03 * across, _LEFT, _RIGHT)
    return x, Scale(min(changes) - 0.04 * up, max(changes) + 0.04 * up, _BOTTOM, _TOP)


def _axes(x: Scale, y: Scale, verb: str) -> list[str]:
    soft = {"class_": "wbf-soft wbf-num", "font_size": 11}
    body = []
    for value in y.ticks(5):
        class_ = "wbf-axis" if abs(value) < 1e-9 else "wbf-grid"
        body.append(tag("line", x1=x.left, x2=x.right, y1=y(value), y2=y(value), class_=class_))
        body.append(words(signed(value, 0), x.left - 8, y(value) + 4, anchor="end", **soft))
    for value in x.ticks(6):
        if abs(value) < 1e-9:
            body.append(tag("line", x1=x(value), x2=x(value), y1=_TOP, y2=_BOTTOM, class_="wbf-axis"))
        body.append(words(f"{value:g}".replace("-", "−"), x(value), _BOTTOM + 18, anchor="middle", **soft))
    cost = "capability lost, nats per token on held-out documents (edits on all tokens)"
    return [*body, words(cost, x.right, _BOTTOM + 36, anchor="end", class_="wbf-soft", font_size=11.5),
            words(f"points of 100 {verb} of the trait", 4, 32, class_="wbf-soft", font_size=11.5)]  # fmt: skip


def _curve(points: Sequence[Point], x: Scale, y: Scale, front: Front) -> list[str]:
    method = points[0].method
    line = _OWN.get(method, "wbf-line-c" if method in _NULLS else "wbf-whisker")
    path = [(x(0.0), y(0.0)), *((x(p.loss), y(p.change)) for p in points)]
    body = [tag("path", d=_path(path), class_=line, opacity=None if method in _OWN else 0.55)] if len(points) > 1 else []
    for point in points:
        body += _whiskers(point, x, y)
        shape = {"cx": x(point.loss), "cy": y(point.change), "r": 4.0}
        body.append(tag("circle", class_="wbf-mark" if point in front.best else "wbf-paper", **shape))
        body.append(tag("circle", class_="wbf-edge", **shape))
    return body


def _whiskers(point: Point, x: Scale, y: Scale) -> list[str]:
    px, py = x(point.loss), y(point.change)
    low, high = point.change_interval
    left, right = point.loss_interval
    lines = [[(px, y(low)), (px, y(high))]] if low is not None and high is not None else []
    lines += [[(x(left), py), (x(right), py)]] if left is not None and right is not None else []
    return [tag("path", d=_path(line), class_="wbf-link", fill="none") for line in lines]
