"""What is on the screen, as plain values: the one thing that the notebook and the terminal both draw."""

from __future__ import annotations

from typing import Any

from workbench.base.text import visible, visible_lines
from workbench.labeling.annotating.desk import Reading
from workbench.labeling.annotating.queue import Item
from workbench.labeling.annotating.session import AnnotationSession
from workbench.labeling.evidence import Context
from workbench.labeling.labels import UNCLEAR

MAX_CONTEXTS = 24


def view(session: AnnotationSession, message: str = "") -> dict[str, Any]:
    """The present feature as JSON values. While the proposed label is hidden, it is not in here at all.

    `contexts` are {"tokens": [[text, shade], ...], "peak", "value", "source", "document", "position"}; a shade is the activation
    as a share of the feature's largest one shown, 0 to 1. `message` is what the last action has to say.
    """
    item = session.current
    shared = {
        "annotator": session.annotator,
        "sae": session.sae_id,
        "trait": session.trait_name,
        "blind": session.blind,
        "n_features": len(session.order),
        "n_read": session.n_read,
        "allowed": list(session.allowed()),
        "categories": _categories(session),
        "saved_at": session.journal.saved_at,
        "message": visible_lines(session.problem or message),
        "feature": None,
    }
    return shared if item is None else {**shared, **_of_feature(session, item)}


def _of_feature(session: AnnotationSession, item: Item) -> dict[str, Any]:
    evidence, reading = item.evidence, session.desk.reading(item.feature)
    hidden = session.is_hidden(item.feature)
    return {
        "feature": item.feature,
        "position": session.order.index(item.feature) + 1,
        "density": None if evidence is None else evidence.density,
        "max_activation": None if evidence is None else evidence.max_activation,
        "contexts": [] if evidence is None else _contexts(evidence.contexts[:MAX_CONTEXTS]),
        "promoted": [] if evidence is None else [visible(t) for t in evidence.promoted],
        "suppressed": [] if evidence is None else [visible(t) for t in evidence.suppressed],
        "hidden": hidden,
        "proposed": None if hidden else _proposed(session, item),
        "own": _visible(None if reading.blind is None else reading.blind["label"]),
        "verdict": reading.verdict,
        "label": _visible(None if hidden else reading.label),
        "category": _category(session, reading),
        "note": visible(reading.note),
        "drafts": {field: visible(text) for field, text in reading.drafts.items()},
    }


def _visible(text: str | None) -> str | None:
    return None if text is None else visible(text)


def _category(session: AnnotationSession, reading: Reading) -> str | None:
    """The one picked; before anything is picked, that of the verdict."""
    trait = session.trait_name
    return None if trait is None else reading.chosen.get(trait) or reading.categories.get(trait)


def _proposed(session: AnnotationSession, item: Item) -> dict[str, Any] | None:
    label = item.proposed
    if label is None:
        return None
    return {
        "label": visible(label.label),
        "explanation": visible(label.explanation),
        "category": None if session.trait_name is None else label.category_for(session.trait_name),
        "author": " ".join(map(visible, (label.author["kind"], label.author["name"]))),
        "status": label.status,
    }


def _categories(session: AnnotationSession) -> list[dict[str, str]]:
    shown = [{"id": c.id, "name": visible(c.name), "description": visible(c.description)} for c in session.categories]
    if session.trait is not None and all(entry["id"] != UNCLEAR for entry in shown):
        shown.append({"id": UNCLEAR, "name": UNCLEAR, "description": "none of these, as far as can be told"})
    return shown


def _contexts(contexts: tuple[Context, ...]) -> list[dict[str, Any]]:
    largest = max((value for context in contexts for value in context.values), default=0.0) or 1.0
    return [_context(context, largest) for context in contexts]


def _context(context: Context, largest: float) -> dict[str, Any]:
    shades = [round(min(1.0, max(0.0, value / largest)), 3) for value in context.values]
    pairs = zip(map(visible, context.tokens), shades, strict=False)  # a withheld context has a value and no token
    return {
        "tokens": [list(pair) for pair in pairs],
        "peak": context.peak,
        "value": round(context.peak_value, 3),
        "source": visible(context.source),
        "document": visible(context.document),
        "position": context.position,
    }
