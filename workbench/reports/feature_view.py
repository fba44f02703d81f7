"""A feature's view in words: tokens, and the ablation effect beside its controls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from workbench.reports.text import clean_token

if TYPE_CHECKING:
    from workbench.labeling.views.values import Ablation, Compared, Near, TokenValue, Typical
    from workbench.labeling.views.view import FeatureView

def direction_lists(view: FeatureView, n: int) -> Iterator[tuple[str, list[tuple[str, str]], str]]:
    """(name, (token, number) pairs, what is usual) of the logit lens and, where it was measured, of the ablation."""
    direction, usual = view.direction, view.usual
    yield "Makes likelier (logit lens)", _tokens(direction.promoted, n), usually(usual.promoted, direction.promoted)
    yield "Makes unlikelier", _tokens(direction.suppressed, n), usually(usual.suppressed, direction.suppressed)
    if view.ablation:
        yield "Taken out: loses", _tokens(view.ablation.losing, n), against(view.ablation.loss)
        yield "Taken out: gains", _tokens(view.ablation.gaining, n), against(view.ablation.gain)


def _tokens(listed: Sequence[TokenValue], n: int) -> list[tuple[str, str]]:
    return [(clean_token(one.token), f"{one.value:+.3f}") for one in listed[:n]]


def usually(usual: Typical, listed: Sequence[TokenValue] | Sequence[Near]) -> str:
    """The first entry beside the median and the 95th percentile of other features."""
    if not listed:
        return ""
    first = abs(getattr(listed[0], "value", getattr(listed[0], "cosine", 0.0)))
    others = f"{usual.median:.2f} in the middle, at most {usual.q95:.2f} in 95% of them"
    return f"the largest here: {first:.2f}; of {usual.n} other features: {others}"


def ablation_lines(effect: Ablation | None) -> list[str]:
    """What taking the feature out does, beside its controls, in words."""
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
