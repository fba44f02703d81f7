"""One card per feature: what it fires on, what it says, what it does, who named it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from workbench.reports.card_figures import activation_histogram, firing_rates
from workbench.reports.evidence import control_effects
from workbench.reports.feature_view import ablation_lines, direction_lists
from workbench.reports.figures import strip
from workbench.reports.measures import drawn
from workbench.reports.passages import Passage, passage
from workbench.reports.shares import CategoryName, category_name
from workbench.reports.svg import percent, signed
from workbench.reports.tables import change_of, share_text
from workbench.reports.text import clean, clean_token

if TYPE_CHECKING:
    from workbench.labeling.evidence import Context
    from workbench.labeling.labels import FeatureLabel
    from workbench.labeling.views.values import Tally
    from workbench.labeling.views.view import FeatureView
    from workbench.reports.content import Report

N_TOKENS, N_NEIGHBOURS = 12, 6
KINDS = {"rollouts": "In replies of the model", "chat": "In other chats", "corpus": "In plain text"}


@dataclass(frozen=True)
class TokenList:
    """Tokens (or features) with a number each, and what is usual for other features."""

    name: str
    tokens: tuple[tuple[str, str], ...]
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """A small figure under a heading, with a caption where one is needed."""

    title: str
    drawing: Markup | None
    caption: str = ""


@dataclass(frozen=True)
class Near:
    """Another feature: how near it is, its label, and whether this page has a card of it."""

    feature: int
    cosine: str
    label: str
    in_page: bool


@dataclass(frozen=True)
class Said:
    """One label in the history of a feature."""

    date: str
    label: str
    author: str
    status: str
    score: str
    counts: bool


@dataclass(frozen=True)
class Card:
    """Everything on one feature, in words and drawings."""

    feature: int
    title: str
    category: CategoryName
    share: str
    ends: str
    change: str
    verified: bool | None
    facts: tuple[tuple[str, str], ...]
    explanation: str
    notes: str
    lists: tuple[TokenList, ...]
    contexts: tuple[tuple[str, tuple[Passage, ...]], ...]
    pictures: tuple[Picture, ...]
    effect: Markup | None
    effect_text: str
    ablation: tuple[str, ...]
    near: tuple[Near, ...]
    history: tuple[Said, ...]
    missing: tuple[str, ...]
    cautions: tuple[str, ...]
    by_trait: Picture | None = None
    same_as: str = ""
    """The trait (as in addresses) whose card of this feature says the same of it; empty where this card says it itself."""

    @property
    def of_the_feature(self) -> str:
        """All that does not depend on the trait, as one text to compare."""
        return repr((self.title, self.explanation, self.notes, self.contexts, self.pictures, self.lists, self.ablation,
                     self.history, self.missing))  # fmt: skip


def shown_cards(report: Report, *, n_contexts: int, window: int) -> list[Card]:
    """One card per feature about which there is something to say: a label, a view or a causal test."""
    known = [row for row in report.features if has_card(report, row)]
    pages = {row["feature"] for row in known}
    return [card(report, row, pages, n_contexts=n_contexts, window=window) for row in known]


def has_card(report: Report, row: dict[str, Any]) -> bool:
    """Whether there is anything to say of that feature beside its line in the table."""
    return bool(row["label"]) or row["causal_odd"] is not None or row["feature"] in report.views


def card(report: Report, row: dict[str, Any], pages: set[int], *, n_contexts: int, window: int) -> Card:
    """The card of one feature; at most `n_contexts` contexts of each kind, cut to `window` tokens either side of the peak.

    `pages` are the features that have a card of their own, for links.
    """
    feature = row["feature"]
    label, view = report.label(feature), report.views.get(feature)
    drawing, text = _effect(report, row)
    return Card(
        feature=feature,
        title=clean(label.label if label and label.label else "No label", limit=300),
        category=category_name(report.taxonomy, row["category"]),
        share=percent(row["share"], 2),
        ends=f"[{signed(100 * row['share_interval'][0], 2)}, {signed(100 * row['share_interval'][1], 2)}]"
        if row["share_interval"] else "",
        change=change_of(report, feature),
        verified=row["verified"],
        facts=_facts(row, label, view),
        explanation=clean(label.explanation) if label else "",
        notes=clean(label.notes) if label else "",
        lists=tuple(_lists(label, view)),
        contexts=tuple(_contexts(label, view, n_contexts, window)),
        pictures=tuple(_pictures(view)),
        by_trait=_by_trait(report, view),
        effect=drawing,
        effect_text=text,
        ablation=tuple(ablation_lines(view.ablation)) if view else (),
        near=_near(report, view, pages),
        history=tuple(_said(one, label) for one in report.label_history.get(feature, ())),
        missing=tuple(f"{name.replace('_', ' ').capitalize()}: {why}." for name, why in view.missing.items()) if view else (),
        cautions=report.warnings_on(feature),
    )  # fmt: skip


def _facts(row: dict[str, Any], label: FeatureLabel | None, view: FeatureView | None) -> tuple[tuple[str, str], ...]:
    facts = []
    if label:
        author = f"{label.author.get('kind')}: {label.author.get('name')}; {label.status}"
        facts += [("Label by", author), ("Label score", score_text(row["label_score"]))]
    density = view.density if view else label.evidence.density if label and label.evidence else None
    n_tokens = view.n_tokens if view else label.evidence.n_tokens if label and label.evidence else 0
    if density is not None:
        facts.append(("Fires on", f"{share_text(density)} of {n_tokens:,} tokens read"))
    if row["cosine"] is not None:
        facts.append(("Cosine with the vector", signed(row["cosine"], 2)))
    return tuple((name, clean(text)) for name, text in facts)


def score_text(score: Any) -> str:
    """A label's score with interval and kind."""
    if not score or score.get("value") is None:
        return "not scored"
    ends = score.get("interval")
    shown = f" [{ends[0]:.2f}, {ends[1]:.2f}]" if ends else ""
    return f"{score['value']:.2f}{shown} ({str(score.get('kind')).replace('_', ' ')})"


def _lists(label: FeatureLabel | None, view: FeatureView | None) -> Iterator[TokenList]:
    if view:
        for name, tokens, note in direction_lists(view, N_TOKENS):
            yield TokenList(name, tuple(tokens), note)
    elif label and label.evidence:
        for name, tokens in (("Makes likelier", label.evidence.promoted), ("Makes unlikelier", label.evidence.suppressed)):
            if tokens:
                yield TokenList(name, tuple((clean_token(token), "") for token in tokens[:N_TOKENS]))


def _contexts(
    label: FeatureLabel | None, view: FeatureView | None, n: int, window: int
) -> Iterator[tuple[str, tuple[Passage, ...]]]:
    evidence = label.evidence if label else None
    groups: list[tuple[str, Sequence[Context]]] = []
    if view and view.contexts:
        groups = [(KINDS.get(kind, kind), listed) for kind, listed in view.contexts.items()]
    elif evidence:
        groups = [("Where it fires hardest", evidence.top)]
    if evidence and evidence.quantiles:
        groups.append(("From weak to strong", evidence.quantiles))
    values = [value for _, listed in groups for context in listed for value in context.values]
    highest = max([*values, (view.max_activation if view else evidence.max_activation if evidence else None) or 0.0, 1e-9])
    withheld = sum(context.is_withheld for _, listed in groups for context in listed)
    for name, listed in groups:
        shown = [context for context in listed if not context.is_withheld][:n]
        if shown:
            yield clean(name), tuple(passage(context, window=window, highest=highest) for context in shown)
    if withheld:
        plural = "s are" if withheld > 1 else " is"
        yield f"{withheld} more place{plural} known whose text may not be passed on", ()


def _pictures(view: FeatureView | None) -> Iterator[Picture]:
    if view is None:
        return
    name = f"feature {view.feature}"
    if view.histogram:
        drawing = activation_histogram(view.histogram, name=name)
        yield Picture("How strongly it fires", drawn(drawing), "Tokens per activation, on a logarithmic scale.")
    if view.by_role:
        drawing = firing_rates(view.by_role, title=f"How often {name} fires, by speaker")
        yield Picture("By speaker", drawn(drawing), "Share of tokens on which it fires, 95% interval.")


def _by_trait(report: Report, view: FeatureView | None) -> Picture | None:
    arms = _arms(view.by_trait, report.trait) if view else []
    if view is None or not arms:
        return None
    n_own = len(view.by_trait.get(report.trait, ()))
    drawing = firing_rates(arms, title=f"How often feature {view.feature} fires, by trait", n_coloured=n_own)
    said = f"Share of tokens in replies: the arms of {clean(report.trait, limit=40)}" if n_own else "Share of tokens in replies"
    more = "; of other traits the positive arm." if len(arms) > n_own else "."
    return Picture("By trait", drawn(drawing), said + more)


def said_once(cards: Mapping[str, Sequence[Card]]) -> dict[str, list[Card]]:
    """The same cards {trait in addresses: cards}; one that says of a feature what an earlier trait's card said points there."""
    first: dict[tuple[int, str], str] = {}
    found: dict[str, list[Card]] = {}
    for slug, listed in cards.items():
        told = [(one, first.setdefault((one.feature, one.of_the_feature), slug)) for one in listed]
        found[slug] = [one if place == slug else replace(one, same_as=place) for one, place in told]
    return found


def _arms(by_trait: Any, trait: str) -> list[Tally]:
    """All arms of this trait under their own names, then the positive arm of every other under the trait's."""
    own = list(by_trait.get(trait, ()))
    others = [(name, one) for name, arms in by_trait.items() if name != trait for one in arms if one.name == "positive"]
    return [*own, *(replace(one, name=name) for name, one in others)]


def _near(report: Report, view: FeatureView | None, pages: set[int]) -> tuple[Near, ...]:
    listed = (*view.direction.nearest[:N_NEIGHBOURS], *view.direction.opposite[:2]) if view else ()
    labels = {one.feature: report.label(one.feature) for one in listed}
    words = {feature: clean(label.label, limit=120) if label and label.label else "" for feature, label in labels.items()}
    return tuple(Near(one.feature, signed(one.cosine, 2), words[one.feature], one.feature in pages) for one in listed)


def _said(one: FeatureLabel, counting: FeatureLabel | None) -> Said:
    author = clean(f"{one.author.get('kind')}: {one.author.get('name')}", limit=80)
    counts = counting is not None and (one.label, one.author, one.status) == (counting.label, counting.author, counting.status)
    return Said(clean(one.date, limit=10) or "undated", clean(one.label, limit=300), author, clean(one.status, limit=40),
                score_text(one.score), counts)  # fmt: skip


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
    limit = "" if math.isnan(found.q) else f": q {found.q:.3f} against {len(controls) or 'matched'} control features, limit .05"
    outcome = {True: "passes", False: "does not pass", None: "was not judged by"}[row["verified"]]
    text = (
        f"Pushed the way {report.trait} moves it: {signed(odd, 3)}{shown} nats per token toward the trait’s replies, control "
        f"pairs subtracted, at KL {found.kl:.2g}; damage {signed(row['damage'], 3)}. It {outcome} the rule{limit}."
    )
    return drawn(drawing), text
