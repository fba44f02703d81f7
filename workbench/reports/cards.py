"""One card per feature: what it fires on, what it says, what it does, who named it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from workbench.reports.evidence import control_effects
from workbench.reports.figures import strip
from workbench.reports.shares import CategoryName, category_name
from workbench.reports.tables import share_text, signed
from workbench.reports.text import clean, clean_token

if TYPE_CHECKING:
    from workbench.labeling.files.store import Context, FeatureEvidence
    from workbench.reports.content import Report

MAX_TOKENS_LISTED = 16


@dataclass(frozen=True)
class Piece:
    """A run of text in a context: plain when `strength` is None, else shaded by strength in [0, 1]."""

    text: str
    strength: float | None = None
    value: str = ""
    peak: bool = False


@dataclass(frozen=True)
class Passage:
    """One context as it is shown; without pieces its text may not be passed on."""

    pieces: tuple[Piece, ...]
    source: str
    value: str


@dataclass(frozen=True)
class Card:
    """Everything on one feature, in words and drawings."""

    feature: int
    title: str
    category: CategoryName
    share: str
    facts: tuple[tuple[str, str], ...]
    explanation: str
    notes: str
    promoted: tuple[str, ...]
    suppressed: tuple[str, ...]
    top: tuple[Passage, ...]
    quantiles: tuple[Passage, ...]
    effect: Markup | None
    effect_text: str


def card(report: Report, row: dict[str, Any], *, n_contexts: int, window: int) -> Card:
    """The card of one table row; at most `n_contexts` contexts per list, `window` tokens either side of the peak."""
    label = report.label(row["feature"])
    evidence = label.evidence if label else None
    highest = _highest(evidence)

    def passages(contexts: Sequence[Context]) -> tuple[Passage, ...]:
        return tuple(passage(context, window=window, highest=highest) for context in contexts[:n_contexts])

    return Card(
        row["feature"],
        clean(row["label"] or "no label yet"),
        category_name(report.taxonomy, row["category"]),
        share_text(row["share"]),
        _facts(report, row),
        clean(label.explanation if label else ""),
        clean(label.notes if label else ""),
        _tokens(evidence, "promoted"),
        _tokens(evidence, "suppressed"),
        passages(evidence.top if evidence else ()),
        passages(evidence.quantiles if evidence else ()),
        *_effect(report, row),
    )


def _highest(evidence: FeatureEvidence | None) -> float:
    values = [value for context in (evidence.contexts if evidence else ()) for value in context.values]
    return max([*values, (evidence.max_activation or 0.0) if evidence else 0.0, 1e-9])


def _tokens(evidence: FeatureEvidence | None, kind: str) -> tuple[str, ...]:
    return tuple(clean_token(token) for token in getattr(evidence, kind, ())[:MAX_TOKENS_LISTED])


def _facts(report: Report, row: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    label = report.label(row["feature"])
    facts = [("Author", "nobody has labelled this feature")]
    if label:
        facts = [
            ("Author", f"{label.author.get('kind')}: {label.author.get('name')}"),
            ("Status", label.status),
        ]
        facts.append(("Label score", _score(row["label_score"])))
    if label and label.evidence and label.evidence.density is not None:
        facts.append(("Fires on", f"{share_text(label.evidence.density)} of the tokens read"))
    return tuple((name, clean(text)) for name, text in facts)


def _score(score: dict[str, Any] | None) -> str:
    if not score or score["value"] is None:
        return "not scored"
    ends = f" [{score['interval'][0]:.2f}, {score['interval'][1]:.2f}]" if score["interval"] else ""
    return f"{score['value']:.2f}{ends} ({str(score['kind']).replace('_', ' ')})"


def passage(context: Context, *, window: int, highest: float) -> Passage:
    """One context, cut around its peak; neighbouring tokens on which the feature is silent are joined."""
    first, last = max(0, context.peak - window), context.peak + window + 1
    pieces: list[Piece] = [Piece("… ")] if first > 0 and context.tokens else []
    for index, (token, value) in enumerate(zip(context.tokens, context.values, strict=False)):
        if first <= index < last:
            _append(pieces, clean_token(token), float(value), index == context.peak, highest)
    if last < len(context.tokens):
        pieces.append(Piece(" …"))
    source = f"{context.source} · {context.document[:12]}"
    return Passage(tuple(pieces), clean(source, limit=90), f"{context.peak_value:.2f}")


def _append(pieces: list[Piece], text: str, value: float, peak: bool, highest: float) -> None:
    if value <= 0 and not peak:
        silent = pieces and pieces[-1].strength is None
        pieces[-1:] = [Piece(pieces[-1].text + text)] if silent else [*pieces[-1:], Piece(text)]
        return
    pieces.append(Piece(text, round(min(1.0, max(0.0, value / highest)), 2), f"{value:.2f}", peak))


def _effect(report: Report, row: dict[str, Any]) -> tuple[Markup | None, str]:
    """The strip of this feature against its controls, and the same in words."""
    odd = row["causal_odd"]
    if odd is None:
        return None, "Not tested: only the candidates with the largest shares are."
    found = next(item for item in report.parts.causal if item.feature == row["feature"])
    controls = control_effects(report.parts.controls, row["feature"])
    ends = row["causal_interval"] or (None, None)
    drawing = strip(controls, odd, ends[0], ends[1], name=f"feature {row['feature']}") if controls else None
    shown = f" [{signed(ends[0], 3)}, {signed(ends[1], 3)}]" if ends[0] is not None else ""
    limit = "" if math.isnan(found.q) else f": q {found.q:.3f} against matched control features, limit .05"
    outcome = {True: "passes", False: "does not pass", None: "was not judged by"}[row["verified"]]
    text = (
        f"Odd effect {signed(odd, 3)}{shown} nats per token toward the trait’s replies, control pairs subtracted, at KL "
        f"{found.kl:.2g}; damage (even part) {signed(row['damage'], 3)}. It {outcome} the rule{limit}."
    )
    return (Markup(drawing.inline) if drawing else None), text
