"""Three real examples for the first screen: the first features of the declared ranking, each in a text of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.labeling.evidence import Context
    from workbench.labeling.labels import FeatureLabel
    from workbench.reports.content import Report

N_EXAMPLES = 3
RULE = (
    "the first features by the declared ranking that fire in a text that may be shown, each where it fires hardest in the "
    "replies of the arm that has more of it (else in other replies of the trait, else elsewhere), no text twice"
)
"""How examples are chosen: nobody picked them."""


@dataclass(frozen=True)
class Example:
    """A feature where it fires. `rank` is its place in `ranking.RANKED_BY`, `share` of |v|^2; `label` is None without one."""

    feature: int
    rank: int
    share: float
    label: FeatureLabel | None
    context: Context

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; `text` has the token on which it fires hardest between « and »."""
        known, context = self.label, self.context
        return {
            "feature": self.feature,
            "rank": self.rank,
            "share": self.share,
            "label": known.label if known else None,
            "source": context.source,
            "document": context.document,
            "activation": context.peak_value,
            "text": context.marked(),
        }


def examples(report: Report, n: int = N_EXAMPLES) -> tuple[Example, ...]:
    """At most `n` examples, chosen by `RULE`; none for a bare vector, whose features have no shares to rank by."""
    from workbench.labeling.taxonomy.ranking import ranked

    if not report.parts.has_shares:
        return ()
    found: list[Example] = []
    shown: set[str] = set()
    for row in ranked(report.parts):
        context = next((one for one in contexts_of(report, row.feature) if _text(one) not in shown), None)
        if context is not None:
            shown.add(_text(context))
            found.append(Example(row.feature, row.rank, row.share, _label(report, row.feature), context))
        if len(found) == n:
            break
    return tuple(found)


def contexts_of(report: Report, feature: int) -> Iterator[Context]:
    """Contexts of a feature that may be shown: of the arm of the trait that has more of it, of its other replies, of all else;
    the strongest first within each."""
    view, label = report.views.get(feature), report.labels.get(feature)
    if view is not None:
        known = [context for listed in view.contexts.values() for context in listed]
    else:
        known = list(label.evidence.contexts) if label is not None and label.evidence is not None else []
    own = f"rollouts:{report.trait}:"
    arm = own + ("positive" if float(report.parts.delta_code[feature]) > 0 else "negative")
    readable = (context for context in known if not context.is_withheld and context.is_redistributable)

    def order(context: Context) -> tuple[bool, bool, float]:
        return context.source != arm, not context.source.startswith(own), -context.peak_value

    yield from sorted(readable, key=order)


def _text(context: Context) -> str:
    return context.document or context.text


def _label(report: Report, feature: int) -> FeatureLabel | None:
    label = report.labels.get(feature)
    return None if label is None or label.status == "rejected" or not label.label else label
