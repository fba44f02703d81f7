"""The audit as a picture: what the first k features keep of the vector's effect, and predicted effects against measured ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.reports.figures import _apart, _frame, _path
from workbench.reports.shares import finite
from workbench.reports.svg import Figure, Scale, drawing, percent, signed, tag, words

_WIDTH, _HEIGHT = 880, 268


def audit_figure(behaviour: Mapping[str, Any], screen: Mapping[str, Any] | None = None) -> Figure:
    """One or two panels from the values of `causal.audit` and `causal.screen`.

    Left: share of the vector's odd effect that the sum of its first k features keeps at equal dose, and its cosine with the
    vector. Right: predicted (first-order) against measured effect of every pushed feature, nats per token.
    """
    body, title = _kept(behaviour), "Audit of a decomposition"
    told = f"effect kept with {', '.join(str(row['k']) for row in behaviour['curve'])} features"
    if screen is None:
        return drawing(_WIDTH // 2, _HEIGHT, body, title=title, description=told)
    body.append(tag("g", *_agreement(screen), transform="translate(440 0)"))
    told += f"; {len(screen['features'])} features pushed"
    return drawing(_WIDTH, _HEIGHT, body, title=title, description=told)


def _kept(behaviour: Mapping[str, Any]) -> list[str]:
    curve = [row for row in behaviour["curve"] if row["kept"] is not None]
    if not curve:
        return [words("the vector has no effect toward the trait", 20, 120)]
    top = max(1.0, *(row["kept"] for row in curve))
    low = min(0.0, *(row["kept"] for row in curve))
    places = {row["k"]: n for n, row in enumerate(curve)}
    x, y = Scale(0, max(len(curve) - 1, 1), 40, 330), Scale(low, top, 206, 28)
    soft = {"class_": "wbf-soft wbf-num", "font_size": 11}
    body = [tag("line", x1=x.left, x2=x.right, y1=y(v), y2=y(v), class_="wbf-grid") for v in (0.0, 0.5, 0.8, 1.0)]
    body += [words(f"{v:g}", x.left - 8, y(v) + 4, anchor="end", **soft) for v in (0.0, 0.5, 0.8, 1.0)]
    body += [words(str(k), x(n), 224, anchor="middle", **soft) for k, n in places.items()]
    named = []
    for key, style, name in (("kept", "wbf-line-a", "effect kept"), ("cosine", "wbf-line-b", "cosine")):
        path = [(x(places[row["k"]]), y(row[key])) for row in curve]
        body.append(tag("path", d=_path(path), class_=style))
        named.append((name, path[-1]))
    heights = _apart([point[1] + 4 for _, point in named])
    body += [words(name, point[0] + 8, height, font_size=12) for (name, point), height in zip(named, heights, strict=True)]
    body.append(words("features", x.right, 240, anchor="end", class_="wbf-soft", font_size=11.5))
    return [*body, words("of the vector, select pairs", 4, 12, class_="wbf-soft", font_size=11.5)]


def _agreement(screen: Mapping[str, Any]) -> list[str]:
    rows = screen["features"]
    values = [row[key] for row in rows for key in ("predicted", "specific")]
    pad = (max(values) - min(values)) * 0.06 or 1.0
    x = Scale(min(values) - pad, max(values) + pad, 50, 400)
    y = Scale(min(values) - pad, max(values) + pad, 206, 28)
    body = _frame(x, y, "predicted, nats per token", "measured")
    body.append(tag("path", d=_path([(x(v), y(v)) for v in (min(values), max(values))]), class_="wbf-whisker"))
    return body + [tag("circle", cx=x(row["predicted"]), cy=y(row["specific"]), r=2.8, class_="wbf-dot") for row in rows]


def audit_sentences(audit: Mapping[str, Any]) -> list[str]:
    """What the audit found, in words: the vector's own effect, how few features keep it, and what random mixtures keep."""
    behaviour = audit.get("behaviour") or {}
    told = []
    if own := behaviour.get("vector"):
        low, high = own["interval"]
        told.append(
            f"Added at a quarter of the median norm, the whole vector shifts sealed pairs by {signed(own['odd'], 2)} "
            f"[{signed(low, 2)}, {signed(high, 2)}] nats per token toward the trait (control pairs: "
            f"{signed(own['control_odd'], 2)}, not subtracted here)."
        )
    if found := behaviour.get("denoised"):
        low, high = found["interval"]
        mixed = found["mixtures_kept"]
        told.append(
            f"Its {found['k']} largest features alone keep {percent(found['effect_kept'], 0)} [{percent(low, 0)[:-1]}, "
            f"{percent(high, 0)[:-1]}] of that at equal dose; random vectors that are as close to it keep "
            f"{percent(mixed['mean'], 0)} on average and {percent(mixed['most'], 0)} at most (p {mixed['p']:.2g})."
        )
    agreement = (audit.get("screen") or {}).get("agreement") or {}
    correlation, beyond = finite(agreement.get("predicted")), finite(agreement.get("beyond_controls"))
    if correlation is not None and beyond is not None:
        told.append(
            f"Predicted and measured effects of single features correlate at {signed(correlation, 2)}; {percent(beyond, 0)} of "
            f"them do more than their controls at p .05 (chance alone: {percent(finite(agreement.get('by_chance')), 0)})."
        )
    return told
