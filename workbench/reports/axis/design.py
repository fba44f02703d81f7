"""A placed system prompt, drawn and as one page: where it stands, what is near, what holds it there and what would change it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.axis.design.result import in_short
from workbench.base.store import atomic_write
from workbench.reports.svg import Figure, Scale, drawing, percent, signed, tag, words
from workbench.reports.tables import flat_rows

if TYPE_CHECKING:
    from workbench.axis.design.result import Placement

N_NEAREST = 12
_WIDTH, _LEFT, _MIDDLE, _RIGHT, _ROW = 776, 8, 300, 700, 24
_SMALL: dict[str, Any] = {"font_size": 11.5}


def nearest_figure(placement: Placement) -> Figure:
    """The nearest characters with the cosine and its interval; the solid line is where a character's own other half lies in the
    middle of cases, the dashed one how near the nearest other character comes to it in 95%."""
    shown, retrieval = placement.standing["nearest"][:N_NEAREST], placement.retrieval
    rows = [(one["role"].replace("_", " "), one["cos"], one["low"], one["high"]) for one in shown]
    limits = [retrieval["self_cos"][1], retrieval["other_cos_95"]]
    described = "; ".join(f"{name} {signed(value, 2)}" for name, value, *_ in rows[:5])
    key = "whisker: 95%; line: a character's own other half; dashed: the nearest other character, 95% below"
    return _rows(rows, f"Characters nearest to {placement.name}", described, key, limits)


def moves_figure(rows: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """What sentences move along the axis, in units of the way from the mean role to the default assistant; right is toward it."""
    told = [(one["name"], one["value"], one["low"], one["high"]) for one in rows]
    described = "; ".join(f"{name[:40]} {signed(value, 2)}" for name, value, *_ in told[:5])
    return _rows(told, title, described, "whisker: 95%; right of 0 is toward the assistant", [])


def _rows(
    rows: Sequence[tuple[str, float, float, float]], title: str, described: str, key: str, limits: Sequence[float]
) -> Figure:
    known = [end for row in rows for end in row[1:] if math.isfinite(end)] + [0.0, *limits]
    pad = (max(known) - min(known)) * 0.05 or 0.1
    x, top = Scale(min(known) - pad, max(known) + pad, _MIDDLE, _RIGHT), 34
    bottom = top + _ROW * len(rows)
    body = [words(key, _LEFT, 14, class_="wbf-soft", **_SMALL)]
    for value in x.ticks(5):
        kind = "wbf-axis" if abs(value) < 1e-9 else "wbf-grid"
        body.append(tag("line", x1=x(value), x2=x(value), y1=top - 6, y2=bottom, class_=kind))
        body.append(words(signed(value, 2), x(value), bottom + 16, anchor="middle", class_="wbf-soft wbf-num", font_size=11))
    for limit, kind in zip(limits, ("wbf-line-a", "wbf-line-b"), strict=False):
        body.append(tag("line", x1=x(limit), x2=x(limit), y1=top - 6, y2=bottom, class_=kind))
    for place, (name, value, low, high) in enumerate(rows):
        y = top + _ROW * (place + 0.5)
        body.append(words(_cut(name), _LEFT, y + 4, **_SMALL))
        if math.isfinite(low) and math.isfinite(high):
            body.append(tag("path", d=f"M{x(low):.1f} {y:.1f}H{x(high):.1f}", class_="wbf-whisker"))
        body.append(tag("path", d=f"M{x(value):.1f} {y - 6:.1f}l6 6l-6 6l-6 -6Z", class_="wbf-mark"))
        body.append(words(signed(value, 2), _WIDTH - 8, y + 4, anchor="end", class_="wbf-ink wbf-num", **_SMALL))
    return drawing(_WIDTH, bottom + 26, body, title=title, description=described or "nothing to show")


def _cut(name: str, limit: int = 46) -> str:
    return name if len(name) <= limit else f"{name[: limit - 1]}…"


def render(placement: Placement) -> str:
    """The page as one HTML file without network or script; the prompt and every label are escaped."""
    from workbench.reports.html import assets, environment

    chosen = placement.additions.get("chosen")
    measured = placement.additions.get("measured", [])
    return environment().get_template("place.html.jinja").render(
        **assets(script=False), found=placement, headline=in_short(placement), position=_ends(placement.position, 2),
        nearest=_trusted(nearest_figure(placement)), listed=[_near(one) for one in placement.standing["nearest"][:N_NEAREST]],
        traits=[_trait(one) for one in placement.traits], features=_features(placement.features), drift=_drift(placement.drift),
        sentences=_drawn(placement.sentences, "What each sentence moves"), moves=[_move(one) for one in placement.sentences],
        additions=_drawn(measured, "What each added sentence moves"), chosen=chosen and _chosen(chosen),
        steadied=_steadied(placement.drift), retrieval=placement.retrieval, percent=percent, signed=signed,
        provenance=flat_rows(placement.provenance),
    )  # fmt: skip


def save(placement: Placement, path: str | Path) -> Path:
    """Write the page to `path`; returns it."""
    return atomic_write(path, render(placement))


def _ends(three: Sequence[float | None], digits: int) -> str:
    value, low, high = three
    ends = "" if low is None or high is None else f" [{signed(low, digits)}, {signed(high, digits)}]"
    return (signed(value, digits) or "–") + ends


def _near(one: Mapping[str, Any]) -> tuple[str, ...]:
    three = (one["cos"], one["low"], one["high"])
    return str(one["rank"]), one["role"].replace("_", " "), _ends(three, 2), percent(one["nearest_share"], 0)


def _trait(one: Mapping[str, Any]) -> tuple[str, ...]:
    placebo = "–" if one["p_placebo"] is None else f"{one['p_placebo']:.3f}"
    return one["trait"], _ends((one["shift"], one["low"], one["high"]), 3), signed(one["z"], 2), placebo, f"{one['p_random']:.3f}"


def _features(features: Mapping[str, Any]) -> dict[str, Any] | None:
    if not features:
        return None
    rows = [(one["feature"], one["label"], percent(one["share"]), f"[{percent(one['low'])}, {percent(one['high'])}]",
             signed(one["along_axis"], 3), "–" if one["placebo_q"] is None else f"{one['placebo_q']:.3f}")
            for one in features["features"]]  # fmt: skip
    told = {name: signed(features[name], 3) for name in ("along_axis", "error_along_axis")}
    return {"sae": features["sae"], "error": percent(features["error"]), "rows": rows, **told}


def _drift(drift: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    rows = []
    for domain, effects in drift.get("domains", {}).items():
        for kind, one in effects.items():
            p = "–" if one.get("p") is None else f"{one['p']:.3f}"
            rows.append((domain, kind.replace("_", " "), _ends((one["value"], *(one["interval"] or (None, None))), 4), p))
    return rows


def _steadied(drift: Mapping[str, Any]) -> str | None:
    one = drift.get("steadied", {}).get("drift_per_turn")
    if not one:
        return None
    difference = one["difference"]
    return _ends((difference["value"], *(difference["interval"] or (None, None))), 4)


def _move(one: Mapping[str, Any]) -> tuple[str, str, str]:
    return one["name"], _ends((one["value"], one["low"], one["high"]), 2), f"{one['p_family']:.3f}"


def _chosen(one: Mapping[str, Any]) -> dict[str, str]:
    return {"sentence": one["sentence"], "moved": _ends((one["value"], one["low"], one["high"]), 2), "p": f"{one['p']:.3f}",
            "kept": signed(one["kept_character"], 2), "prompt": one["prompt"]}  # fmt: skip


def _drawn(rows: Sequence[Mapping[str, Any]], title: str) -> Any:
    return _trusted(moves_figure(rows, title)) if rows else None


def _trusted(figure: Figure) -> Any:
    from markupsafe import Markup

    return Markup(figure.inline)
