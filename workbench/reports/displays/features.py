"""Displays of one feature seen from all sides, and of several side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from workbench.reports.displays.frame import Display, Listing, listing
from workbench.reports.displays.labels import contexts_html
from workbench.reports.feature_view import ablation_lines, direction_lists, usually
from workbench.reports.svg import percent
from workbench.reports.text import clean_token

if TYPE_CHECKING:
    from markupsafe import Markup

    from workbench.labeling.views.values import Near, Tally
    from workbench.labeling.views.view import FeatureView, FeatureViews

N_LISTED = 8
KINDS = {"rollouts": "Fires in the replies behind the vector", "chat": "Fires in other chats", "corpus": "Fires in plain text"}


def view_display(view: FeatureView) -> Display:
    """Where the feature fires, what it writes, and what taking it out does."""
    return Display(
        f"Feature {view.feature} of {view.sae.get('id', 'an SAE')}",
        [_firing_line(view), *ablation_lines(view.ablation)],
        [listing(("its direction", "", "usual"), _lists(view)), *_tables(view)],
        notes=[f"{name.replace('_', ' ')}: {why}" for name, why in view.missing.items()],
        body=_contexts(view),
    )


def views_display(views: FeatureViews) -> Display:
    """One line per feature: how often it fires, its strongest context, what it makes likelier."""
    rows = [
        (str(view.feature), percent(view.density, 2), _strongest(view),
         " ".join(f"“{clean_token(one.token)}”" for one in view.direction.promoted[:5]))
        for view in views
    ]  # fmt: skip
    return Display(
        f"{len(views)} features",
        tables=[listing(("feature", "fires on", "strongest context", "makes likelier"), rows, most=20)],
    )


def _strongest(view: FeatureView) -> str:
    contexts = [context for listed in view.contexts.values() for context in listed if context.tokens]
    if not contexts:
        return "–"
    best = max(contexts, key=lambda context: context.peak_value)
    around = range(max(0, best.peak - 8), min(len(best.tokens), best.peak + 6))
    return "".join(f"«{best.tokens[i]}»" if i == best.peak else best.tokens[i] for i in around).strip()


def _firing_line(view: FeatureView) -> str:
    if view.density is None:
        return f"{view.model}. How often it fires is not known."
    largest = "" if view.max_activation is None else f", at most {view.max_activation:.3g}"
    return f"{view.model}. It fires on {percent(view.density, 2)} of {view.n_tokens:,} tokens read{largest}."


def _contexts(view: FeatureView) -> Markup:
    from markupsafe import Markup

    parts = [
        Markup("<p>{}</p>{}").format(KINDS.get(kind, clean_token(kind)), contexts_html(listed, highest=view.max_activation))
        for kind, listed in view.contexts.items()
        if listed
    ]
    return Markup("").join(parts)


def _lists(view: FeatureView) -> Iterator[tuple[str, str, str]]:
    for name, tokens, note in direction_lists(view, N_LISTED):
        if tokens:
            yield name, " ".join(f"“{token}”" for token, _ in tokens), note
    near, usual = view.direction, view.usual
    for name, found, usually_is in (("Nearest decoder directions", near.nearest, usual.nearest),
                                    ("Most opposite", near.opposite, usual.opposite)):  # fmt: skip
        if found:
            yield name, _near(found), usually(usually_is, found)


def _near(listed: Sequence[Near]) -> str:
    return ", ".join(f"{one.feature} ({one.cosine:+.2f})".replace("-", "−") for one in listed[:N_LISTED])


def _tables(view: FeatureView) -> Iterator[Listing]:
    columns = ("", "tokens", "fires on", "95% interval", "mean where it fires")
    yield listing(columns, map(_row, view.by_role), title="By speaker")
    for trait, arms in view.by_trait.items():
        rows = [(*_row(one), one.n_units or 0) for one in arms]
        yield listing((*columns, "questions"), rows, title=f"Rollouts of {trait}")
    yield listing(columns, map(_row, view.by_position), title="By position in the document")
    partners = [(str(one.feature), percent(one.share), percent(one.expected, 2), one.n) for one in view.partners]
    columns = ("feature", "of its tokens", "of all tokens", "tokens together")
    yield listing(columns, partners, title="Fires together with", most=N_LISTED)


def _row(one: Tally) -> tuple[Any, ...]:
    interval = "–" if one.interval is None else f"{percent(one.interval[0], 2)} to {percent(one.interval[1], 2)}"
    return one.name, one.n_tokens, percent(one.rate, 2), interval, one.mean
