"""`workbench features show`: features seen from all sides, in the terminal or as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..options import DEFAULT_MODEL, JsonOption, ModelOption, PlanOption, QuietOption, SaeOption

if TYPE_CHECKING:
    from workbench.labeling.contexts.index import FeatureIndex
    from workbench.labeling.evidence import Context
    from workbench.labeling.views.values import Ablation, Compared, Near, Tally, TokenValue, Typical
    from workbench.labeling.views.view import FeatureView
    from workbench.models.model import Model
    from workbench.saes.interface import SparseAutoencoder

N_LISTED, WINDOW = 10, 16


def command(
    features: Annotated[list[int], typer.Argument(metavar="FEATURE", help="Features, by their numbers in the SAE.")],
    sae: SaeOption = None,
    model: ModelOption = None,
    index: Annotated[
        Path | None, typer.Option("--index", help="Folder of a feature index. [default: OpenWebText; less is known then]")
    ] = None,
    contexts: Annotated[int, typer.Option("--contexts", min=0, help="Contexts shown per kind of source.")] = 5,
    ablation: Annotated[
        int, typer.Option("--ablation", min=0, help="Contexts in which the feature is taken out; 0: do not measure that.")
    ] = 12,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the controls that are drawn.")] = 0,
    plan: PlanOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Features from all sides.

    Where they fire, what they write, what taking them out does. Effects stand beside those of matched other features.
    """
    from ..console import emit, reserved_output

    if plan:
        from workbench.base.settings import setting

        from ..short_plans import show_short_plan, views_plan

        name = str(setting("model", model, DEFAULT_MODEL))
        planned = views_plan(features, setting("sae", sae), name, ablation, index)
        return emit(planned, as_json=as_json, show=lambda: show_short_plan(planned))
    with reserved_output(as_json, quiet):
        from workbench.labeling.views.build import feature_views

        opened, dictionary, subject = _loaded(index, sae, model)
        views = feature_views(
            features, dictionary, subject, index=opened, n_contexts=contexts, n_ablation=ablation, seed=seed
        )
    emit({"features": [view.to_dict() for view in views]}, as_json=as_json, show=lambda: show_views(views))


def _loaded(
    folder: Path | None, sae: str | None, model: str | None
) -> tuple[FeatureIndex | None, SparseAutoencoder, Model]:
    """The index (if one is given), the SAE and the model: what no option names is what the index was made of."""
    from workbench.base.settings import setting
    from workbench.labeling.contexts.index import FeatureIndex
    from workbench.models.loading import load_model
    from workbench.saes.registry import load_sae

    from ..inputs import find_sae

    if folder is None:
        name = str(setting("model", model, DEFAULT_MODEL))
        dictionary = load_sae(find_sae(setting("sae", sae), name).reference)
        return None, dictionary, load_model(name)
    index = FeatureIndex.open(folder)
    dictionary = load_sae(sae or index.sae_id)
    subject = load_model(model or str(index.document["model"]["name"]), dtype=str(index.document["model"]["dtype"]))
    return FeatureIndex.open(folder, model=subject, sae=dictionary), dictionary, subject


def show_views(views: Sequence[FeatureView]) -> None:
    """Every view, one after the other."""
    from ..console import say

    for number, view in enumerate(views):
        if number:
            say()
        _show(view)


def _show(view: FeatureView) -> None:
    from ..console import say, table

    say(_headline(view))
    table("", ("kind", "activation", "source", "context"), list(_context_rows(view)), right=(1,))
    table("what its direction says", ("", "", "the first, in other features"), list(_direction_rows(view)))
    for title, tallies in _tallies(view):
        table(title, ("", "tokens", "fires on", "95%", "mean", "units"), list(map(_tally_row, tallies)), right=(1, 2, 3, 4, 5))
    if view.partners:
        columns = ("feature", "of its tokens", "of all tokens", "tokens together")
        table("fires together with", columns, list(map(_partner_row, view.partners)), right=(0, 1, 2, 3))
    if view.ablation:
        _show_ablation(view.ablation)
    for name, why in view.missing.items():
        say(f"{name.replace('_', ' ')}: {why}")


def _headline(view: FeatureView) -> str:
    from ..console import percent

    known = "" if view.density is None else f", fires on {percent(view.density)} of {view.n_tokens:,} tokens"
    largest = "" if view.max_activation is None else f", at most {view.max_activation:.3g}"
    return f"feature {view.feature} of {view.sae['id']} ({view.model}){known}{largest}"


def _context_rows(view: FeatureView) -> Iterator[tuple[Any, ...]]:
    for kind, listed in view.contexts.items():
        yield from ((kind, f"{context.peak_value:.2f}", _clean(context.source), _around(context)) for context in listed)


def _around(context: Context) -> str:
    """The text around the marked token, which stands between « and »."""
    if context.is_withheld:
        return "(the text of this source may not be passed on)"
    from dataclasses import replace

    first = max(0, context.peak - WINDOW)
    cut = slice(first, context.peak + WINDOW)
    near = replace(context, tokens=context.tokens[cut], values=context.values[cut], peak=context.peak - first)
    return _clean(near.marked())


def _direction_rows(view: FeatureView) -> Iterator[tuple[str, str, str]]:
    for name in ("promoted", "suppressed"):
        tokens = getattr(view.direction, name)
        yield f"{name} (logits)", _tokens(tokens), _usual(getattr(view.usual, name))
    for name in ("nearest", "opposite"):
        near: Sequence[Near] = getattr(view.direction, name)
        listed = "  ".join(f"{one.feature} {one.cosine:+.2f}" for one in near[:N_LISTED])
        yield f"{name} (cosine)", listed or "none", _usual(getattr(view.usual, name))


def _tokens(tokens: Sequence[TokenValue]) -> str:
    return "  ".join(f"{_clean(one.token)!r} {one.value:+.2f}" for one in tokens[:N_LISTED]) or "none"


def _usual(usual: Typical) -> str:
    return f"median {usual.median:.2f}, 95% below {usual.q95:.2f}"


def _tallies(view: FeatureView) -> Iterator[tuple[str, Sequence[Tally]]]:
    named = [("by speaker", view.by_role), *((f"rollouts of {_clean(trait)}", arms) for trait, arms in view.by_trait.items())]
    yield from ((title, tallies) for title, tallies in [*named, ("by position in the document", view.by_position)] if tallies)


def _tally_row(one: Tally) -> tuple[Any, ...]:
    from ..console import percent

    ends = None if one.interval is None else f"{percent(one.interval[0])} to {percent(one.interval[1])}"
    return (_clean(one.name), f"{one.n_tokens:,}", percent(one.rate), ends, f"{one.mean:.3g}", one.n_units)


def _partner_row(one: Any) -> tuple[Any, ...]:
    from ..console import percent

    return (one.feature, percent(one.share), percent(one.expected), f"{one.n:,}")


def _show_ablation(effect: Ablation) -> None:
    from ..console import say, table

    rows = [
        ("KL of the next token", *_compared(effect.kl)),
        ("log-probability of the token that came", *_compared(effect.next_token)),
        ("token that loses most", *_compared(effect.loss)),
        ("token that gains most", *_compared(effect.gain)),
    ]
    title = f"taken out on {effect.n_tokens} tokens of {effect.n_contexts} contexts (nats)"
    table(title, ("", "value", "interval", "controls", "95%", "p"), rows, right=(1, 3, 5))
    say(f"loses: {_tokens(effect.losing)}")
    say(f"gains: {_tokens(effect.gaining)}")
    say(
        f"controls: {effect.n_draws} draws ({effect.n_distinct} different) of features that fire on the same tokens, median size "
        f"{effect.size_ratio:.2f} of this one's; {effect.n_unmatched} tokens without a match and {effect.n_silent} "
        "contexts without a firing were left out"
    )


def _compared(one: Compared) -> tuple[Any, ...]:
    from ..console import interval

    value, control = (f"{one.value:+.4f}", interval(one.interval, 4)), (f"{one.control:+.4f}", interval(one.control_interval, 4))
    return (*value, *control, f"{one.p:.3f}")


def _clean(text: str) -> str:
    from workbench.reports.text import clean

    return clean(text)
