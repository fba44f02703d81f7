"""A feature's view as HTML: highlighted contexts, tokens, tallies, and the ablation effect beside its controls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.reports.cards import Passage, passage
from workbench.reports.svg import percent
from workbench.reports.text import clean_token

if TYPE_CHECKING:
    from workbench.labeling.views.values import Ablation, Compared, Near, Tally, TokenValue, Typical
    from workbench.labeling.views.view import FeatureView

N_CONTEXTS, WINDOW, N_LISTED = 5, 16, 8


@dataclass(frozen=True)
class Table:
    """Rows of plain words under a title."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def feature_view_html(view: FeatureView) -> str:
    """The whole display; the template escapes every word of it."""
    from workbench.reports.html import environment

    return environment().get_template("feature.html.jinja").render(
        title=f"Feature {view.feature} of {view.sae.get('id', 'an SAE')}",
        lines=[_firing_line(view), *_ablation_lines(view.ablation)],
        contexts=_contexts(view),
        lists=list(_lists(view)),
        tables=[table for table in _tables(view) if table.rows],
        notes=[f"{name.replace('_', ' ')}: {why}" for name, why in view.missing.items()],
    )  # fmt: skip


def _firing_line(view: FeatureView) -> str:
    if view.density is None:
        return f"{view.model}. How often it fires is not known."
    largest = "" if view.max_activation is None else f", at most {view.max_activation:.3g}"
    return f"{view.model}. It fires on {percent(view.density, 2)} of {view.n_tokens:,} tokens read{largest}."


def _contexts(view: FeatureView) -> list[tuple[str, tuple[Passage, ...]]]:
    values = [value for listed in view.contexts.values() for context in listed for value in context.values]
    highest = max([*values, view.max_activation or 0.0, 1e-9])
    return [
        (kind, tuple(passage(context, window=WINDOW, highest=highest) for context in listed[:N_CONTEXTS]))
        for kind, listed in view.contexts.items()
        if listed
    ]


def _lists(view: FeatureView) -> Iterator[tuple[str, list[tuple[str, str]], str]]:
    direction, usual = view.direction, view.usual
    yield "Makes likelier (logit lens)", _tokens(direction.promoted), _usually(usual.promoted, direction.promoted)
    yield "Makes unlikelier", _tokens(direction.suppressed), _usually(usual.suppressed, direction.suppressed)
    if view.ablation:
        yield "Taken out: loses", _tokens(view.ablation.losing), against(view.ablation.loss)
        yield "Taken out: gains", _tokens(view.ablation.gaining), against(view.ablation.gain)
    yield "Nearest decoder directions", _near(direction.nearest), _usually(usual.nearest, direction.nearest)
    yield "Most opposite", _near(direction.opposite), _usually(usual.opposite, direction.opposite)


def _tokens(listed: Sequence[TokenValue]) -> list[tuple[str, str]]:
    return [(clean_token(one.token), f"{one.value:+.3f}") for one in listed[:N_LISTED]]


def _near(listed: Sequence[Near]) -> list[tuple[str, str]]:
    return [(f"{one.feature} ({one.cosine:+.2f})", f"{one.cosine:+.3f}") for one in listed[:N_LISTED]]


def _usually(usual: Typical, listed: Sequence[TokenValue] | Sequence[Near]) -> str:
    """The first entry beside the median and the 95th percentile of other features."""
    if not listed:
        return ""
    first = abs(getattr(listed[0], "value", getattr(listed[0], "cosine", 0.0)))
    return f"first {first:.2f}; of {usual.n} other features: median {usual.median:.2f}, 95% below {usual.q95:.2f}"


def _ablation_lines(effect: Ablation | None) -> list[str]:
    if effect is None:
        return []
    return [
        f"Taken out of the residual on {effect.n_tokens} tokens of {effect.n_contexts} contexts: KL of the next token "
        f"{measured(effect.kl)} nats ({against(effect.kl)}); log-probability of the token that came "
        f"{measured(effect.next_token, signed=True)} ({against(effect.next_token)}).",
        f"Controls: {effect.n_draws} draws ({effect.n_distinct} different) of other features that fire on the same tokens, "
        f"median size {effect.size_ratio:.2f} of this one’s; {effect.n_unmatched} tokens without a match were left out.",
    ]


def measured(one: Compared, *, signed: bool = False) -> str:
    """A value with its interval."""
    form = "+.4f" if signed else ".4f"
    ends = "" if one.interval is None else f" [{one.interval[0]:{form}}, {one.interval[1]:{form}}]"
    return f"{one.value:{form}}{ends}"


def against(one: Compared) -> str:
    """The controls that stand beside a value."""
    low, high = one.control_interval
    return f"controls {one.control:.4f} [{low:.4f}, {high:.4f}], p {one.p:.3f}"


def _tables(view: FeatureView) -> Iterator[Table]:
    columns = ("", "tokens", "fires on", "95%", "mean where it fires")
    yield Table("By speaker", columns, _rows(view.by_role))
    for trait, arms in view.by_trait.items():
        yield Table(f"Rollouts of {trait}", (*columns, "questions"), _rows(arms, units=True))
    yield Table("By position in the document", columns, _rows(view.by_position))
    partners = tuple(
        (str(one.feature), percent(one.share), percent(one.expected, 2), f"{one.n:,}") for one in view.partners[:N_LISTED]
    )
    yield Table("Fires together with", ("feature", "of its tokens", "of all tokens", "tokens together"), partners)


def _rows(tallies: Sequence[Tally], *, units: bool = False) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (
            one.name, f"{one.n_tokens:,}", percent(one.rate, 2),
            "–" if one.interval is None else f"{percent(one.interval[0], 2)} to {percent(one.interval[1], 2)}",
            f"{one.mean:.3g}", *((f"{one.n_units or 0:,}",) if units else ()),
        )
        for one in tallies
    )  # fmt: skip
