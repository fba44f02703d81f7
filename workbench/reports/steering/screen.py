"""A screened data set as one page: what was flagged, how scores lie, which features make them, and what could not be scored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.base.store import atomic_write
from workbench.reports.svg import Figure, Scale, drawing, signed, tag, words
from workbench.reports.tables import flat_rows

if TYPE_CHECKING:
    from workbench.steering.screen.screening import Screening
    from workbench.steering.screen.thresholds import Threshold

N_BINS, N_PROBLEMS = 60, 100
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 204, 46, 744, 26, 150
AGAINST = {"own": "the model’s own reply to the same prompt", "prompt": "the last token of the prompt"}
MEANING = {
    "own": "Above zero the data pull a model that is trained on them toward the trait.",
    "prompt": "Only the order of the samples has a meaning: a token of the prompt is no reply, so zero is no neutral point.",
}


def render(found: Screening) -> str:
    """The whole page as one HTML file without network or script; every word of the data's is escaped."""
    from workbench.reports.html import assets, environment

    value = found.to_json()
    traits = [{"name": name, "picture": _trusted(screen_figure(found, name)), "slug": f"trait-{place}",
               "how": how(one["threshold"]), "beside": _beside(one["evaluation"]), "n_scored": value["counts"]["scored"], **one}
              for place, (name, one) in enumerate(value["traits"].items())]  # fmt: skip
    return environment().get_template("screen.html.jinja").render(
        **assets(script=False), data=value["data"], counts=value["counts"], model=value["model"], traits=traits,
        against=AGAINST[value["against"]], meaning=MEANING[value["against"]], combine=value["combine"],
        several=bool((found.samples.n_replies > 1).any()),
        unscored=value["unscored"], n_problems=N_PROBLEMS, signed=signed, provenance=flat_rows(value["provenance"]),
        headline=headline(value),
    )  # fmt: skip


def save(found: Screening, path: str | Path) -> Path:
    """Write the page to `path`; returns it."""
    return atomic_write(path, render(found))


def headline(value: dict[str, Any]) -> str:
    """What was found, in a sentence or two."""
    counts, traits = value["counts"], value["traits"]
    each = ", ".join(f"{one['n_flagged']:,} for {name}" for name, one in traits.items())
    said = f"{counts['flagged']:,} of {counts['scored']:,} scored samples are flagged"
    said += f": {each}." if len(traits) > 1 else "."
    left = counts["unscored"] + counts["malformed"]
    return said + (f" Nothing can be said about {left:,} {'line' if left == 1 else 'lines'}." if left else "")


def how(limit: dict[str, Any]) -> str:
    """How a threshold was set, in words."""
    if limit["kind"] == "percentile":
        return f"percentile {limit['level']:g} of these data"
    return f"at most {100 * limit['level']:g}% of samples like the {limit['n_reference']:,} clean ones"


def _beside(told: dict[str, Any] | None) -> list[tuple[str, str, str]]:
    """(what, AUROC, interval or remark) of the vector and of everything it has to beat."""
    if told is None:
        return []
    rows = [("the trait’s vector", f"{told['auroc']:.3f}", _ends(told["interval"]))]
    for name, said in (("placebos", "vectors that are no trait"), ("random", "random directions with the replies’ covariance")):
        if null := told[name]:
            remark = f"median {null['median']:.3f}, rank p {null['rank_p']:.3g}"
            rows.append((f"{null['n']} {said}: 95% are below", f"{null['q95']:.3f}", remark))
    for name, said in (("text", "words (TF-IDF, learnt from the vector’s own replies)"), ("length", "length of the reply")):
        if told[name]:
            rows.append((said, f"{told[name]['value']:.3f}", _ends(told[name]["interval"])))
    return rows


def _ends(interval: list[float]) -> str:
    return f"[{interval[0]:.3f}, {interval[1]:.3f}]"


def screen_figure(found: Screening, trait: str) -> Figure:
    """How the samples' scores along one trait lie: a histogram, what is flagged filled, and the threshold.

    Where samples have labels, those that bear the trait are drawn as ticks below the axis.
    """
    score = found.samples.score[found.scores.traits.index(trait)]
    known = score[np.isfinite(score)]
    limit = found.thresholds[trait]
    low, high = float(min(known.min(), limit.value)), float(max(known.max(), limit.value))
    edges = np.linspace(low, high if high > low else low + 1.0, N_BINS + 1)
    counts, _ = np.histogram(known, edges)
    x, y = Scale(edges[0], edges[-1], _LEFT, _RIGHT), Scale(0.0, float(max(counts.max(), 1)), _BOTTOM, _TOP)
    body = [_bar(x, y, edges[i], edges[i + 1], int(n), limit) for i, n in enumerate(counts) if n]
    body += _axis(x)
    body.append(tag("line", x1=x(limit.value), x2=x(limit.value), y1=_TOP - 6, y2=_BOTTOM + 5, class_="wbf-whisker"))
    anchor = "end" if x(limit.value) > (_LEFT + _RIGHT) / 2 else "start"
    beside = x(limit.value) + (-6 if anchor == "end" else 6)
    body.append(words(f"threshold {signed(limit.value, 2)}", beside, _TOP + 2, anchor=anchor, font_size=12))
    body += _ticks_of_bearing(found, score, x)
    spoken = (f"{len(known)} scored samples from {low:.2f} to {high:.2f} norms, median {float(np.median(known)):.2f}; "
              f"{int(found.flagged_by[trait].sum())} above the threshold of {limit.value:.2f}")  # fmt: skip
    return drawing(_WIDTH, _HEIGHT, body, title=f"Scores along {trait}", description=spoken)


def _bar(x: Scale, y: Scale, left: float, right: float, n: int, limit: Threshold) -> str:
    flagged = (left + right) / 2 > limit.value
    box = {"x": x(left) + 0.5, "y": y(n), "width": max(x(right) - x(left) - 1, 0.8), "height": y(0.0) - y(n)}
    return tag("rect", class_="wbf-trait" if flagged else "wbf-unclear", **box)


def _axis(x: Scale) -> list[str]:
    body = [tag("line", x1=float(_LEFT), x2=float(_RIGHT), y1=float(_BOTTOM), y2=float(_BOTTOM), class_="wbf-axis")]
    for value in x.ticks(7):
        body.append(words(signed(value, 2), x(value), _BOTTOM + 16, anchor="middle", class_="wbf-soft wbf-num", font_size=11))
    body.append(words("norms", _RIGHT, _BOTTOM + 46, anchor="end", class_="wbf-soft", font_size=11))
    return body


def _ticks_of_bearing(found: Screening, score: np.ndarray, x: Scale) -> list[str]:
    bearing = score[(found.samples.label == 1) & np.isfinite(score)]
    if not len(bearing):
        return []
    path = "".join(f"M{x(float(value)):.1f} {_BOTTOM + 22}v9" for value in bearing[:2000])
    name = words("ticks: labelled samples", _LEFT, _BOTTOM + 46, class_="wbf-soft", font_size=11)
    return [tag("path", d=path, class_="wbf-line-a"), name]


def detection_figure(told: Mapping[str, Mapping[str, Any]]) -> Figure:
    """How well planted samples are found, trait by trait: AUROC from .4 to 1.

    Diamond with its 95% interval: the trait's vector against the prompt. Circle: against own replies. Square: words. The band
    reaches to what 95% of the random directions get, the dashed line is chance. `told {trait: {auroc, interval, own: {auroc},
    text, random}}`.
    """
    left, right, top, row = 132.0, 600.0, 50.0, 30
    x, bottom = Scale(0.4, 1.0, left, right), top + row * len(told)
    body = []
    for value in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        line = "wbf-ref" if value == 0.5 else "wbf-grid"
        body.append(tag("line", x1=x(value), x2=x(value), y1=top - 6, y2=bottom, class_=line))
        body.append(words(f"{value:.1f}", x(value), bottom + 16, anchor="middle", class_="wbf-soft wbf-num", font_size=11))
    for place, (trait, one) in enumerate(told.items()):
        body += _detected(trait, one, x, top + row * (place + 0.5))
    body += _detection_key(left, 22.0)
    spoken = "; ".join(
        f"{trait} {one['auroc']:.2f} (random directions reach {one['random']['q95']:.2f}, words {one['text']['value']:.2f})"
        for trait, one in told.items()
    )
    return drawing(660, round(bottom + 30), body, title="Finding trait-bearing samples: AUROC", description=spoken)


def _detected(trait: str, one: Mapping[str, Any], x: Scale, y: float) -> list[str]:
    def at(value: float) -> float:
        return x(min(max(value, 0.4), 1.0))

    low, high = (at(end) for end in one["interval"])
    return [
        words(trait, 120, y + 4, anchor="end"),
        tag("rect", x=at(0.5), y=y - 9, width=at(one["random"]["q95"]) - at(0.5), height=18.0, class_="wbf-band"),
        tag("path", d=f"M{low:.1f} {y:.1f}H{high:.1f}", class_="wbf-whisker"),
        tag("circle", cx=at(one["own"]["auroc"]), cy=y, r=4.0, class_="wbf-other"),
        tag("rect", x=at(one["text"]["value"]) - 3.5, y=y - 3.5, width=7.0, height=7.0, class_="wbf-unclear"),
        tag("path", d=_DIAMOND.format(at(one["auroc"]), y - 6), class_="wbf-mark"),
        words(f"{one['auroc']:.2f}", 616, y + 4, class_="wbf-num", font_size=12),
    ]


def _detection_key(left: float, y: float) -> list[str]:
    return [
        tag("path", d=_DIAMOND.format(left + 6, y - 10), class_="wbf-mark"), words("vector", left + 17, y, font_size=12),
        tag("circle", cx=left + 82, cy=y - 4, r=4.0, class_="wbf-other"), words("own reply", left + 92, y, font_size=12),
        tag("rect", x=left + 172, y=y - 8, width=7.0, height=7.0, class_="wbf-unclear"),
        words("words", left + 185, y, font_size=12),
        tag("rect", x=left + 240, y=y - 12, width=22.0, height=15.0, class_="wbf-band"),
        words("95% of random directions", left + 268, y, font_size=12),
    ]  # fmt: skip


_DIAMOND = "M{:.1f} {:.1f}l6 6l-6 6l-6 -6Z"


def _trusted(figure: Figure) -> Any:
    from markupsafe import Markup

    return Markup(figure.inline)
