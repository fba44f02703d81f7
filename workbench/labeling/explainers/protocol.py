"""What an explainer is, and the explainers by name: whoever puts the evidence for a feature into words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.progress import track
from workbench.labeling.evidence import Context, FeatureEvidence
from workbench.labeling.labels import UNCLEAR

if TYPE_CHECKING:
    from workbench.labeling.contexts.reading import Collection

EXPLAINERS = ("offline", "openai", "anthropic", "local")
ENDPOINTS = ("openai", "anthropic")
N_CONTRAST = 12

Contrast = Mapping[int, tuple[Context, ...]]
"""Feature -> contexts in which it is silent, all of the explaining half."""


@dataclass(frozen=True)
class Explanation:
    """What an explainer says of one feature.

    `label` has at most 12 words, `explanation` one or two sentences; `confidence` is the explainer's own, between 0 and 1 (None
    if it gave none). `unclear`: it found nothing that the contexts have in common, or said nothing usable. `answered` is False
    when an endpoint gave no answer at all, so that asking again may help. `context_type` is the offline explainer's reading of
    where the feature fires ("" from others).
    """

    label: str
    explanation: str
    confidence: float | None
    unclear: bool = False
    answered: bool = True
    context_type: str = ""


class Explainer(Protocol):
    """Whoever puts evidence into words. `author` is what the labels are signed with."""

    @property
    def name(self) -> str: ...
    @property
    def author(self) -> Mapping[str, str]: ...
    def explain(self, evidence: FeatureEvidence) -> Explanation: ...
    def explain_all(self, evidence: Sequence[FeatureEvidence]) -> list[Explanation]: ...


def unclear(reason: str, explanation: str, *, answered: bool = True) -> Explanation:
    """The explanation of a feature that nobody could name: "unclear: REASON", confidence 0."""
    return Explanation(f"{UNCLEAR}: {reason}", explanation, 0.0, unclear=True, answered=answered)


NO_CONTEXTS = unclear("no contexts", "The feature fired on nothing that was read.")


def one_by_one(
    explain: Callable[[FeatureEvidence], Explanation], evidence: Sequence[FeatureEvidence]
) -> list[Explanation]:
    """`explain` of each, in order, with progress."""
    found = []
    with track("Explaining features", len(evidence), "features") as step:
        for one in evidence:
            found.append(explain(one))
            step()
    return found


def make_explainer(
    name: str | Explainer,
    background: Counter[str] | None = None,
    *,
    contrast: Contrast | None = None,
    model: str | None = None,
    base_url: str | None = None,
    **options: Any,
) -> Explainer:
    """The explainer of that name, or the explainer itself when one is given.

    "offline" counts words against `background` and needs nothing else; "openai" and "anthropic" ask `model` at an endpoint
    (`base_url`, default the provider's own); "local" loads the chat model `model`. These three also show `contrast`, contexts in
    which a feature is silent (`contrast_of`). `options` go to the explainer.

    Raises:
        WorkbenchError: an unknown name, or a model or address where none is used.
    """
    if not isinstance(name, str):
        return name
    if name not in EXPLAINERS:
        raise unknown_name("explainer", name, EXPLAINERS)
    _refuse_unused(name, model, base_url)
    if name == "offline":
        from workbench.labeling.explainers.offline import OfflineExplainer

        return OfflineExplainer(background if background is not None else Counter(), **options)
    if name == "local":
        from workbench.labeling.explainers.local import LocalExplainer

        return LocalExplainer(model=model, contrast=contrast or {}, **options)
    from workbench.labeling.explainers.endpoint import EndpointExplainer

    return EndpointExplainer(name, model=model, base_url=base_url, contrast=contrast or {}, **options)


def explainer_for(name: str | Explainer, collection: Collection, **options: Any) -> Explainer:
    """`make_explainer` with the background and the contrast of a collection."""
    return make_explainer(name, collection.background, contrast=contrast_of(collection), **options)


def _refuse_unused(name: str, model: str | None, base_url: str | None) -> None:
    if name == "offline" and model is not None:
        raise WorkbenchError(f"a model ({model}) for the offline explainer, which has none",
                             "one for openai, anthropic or local", "name an explainer with a model, or leave it out")  # fmt: skip
    if name not in ENDPOINTS and base_url is not None:
        raise WorkbenchError(f"an address for the explainer {name!r}, which asks nobody",
                             "one for openai or anthropic", "name one of these, or leave the address out")  # fmt: skip


def contrast_of(collection: Collection, *, n: int = N_CONTRAST) -> dict[int, tuple[Context, ...]]:
    """Per collected feature at most `n` contexts in which it is silent, for the explainer to set against those where it fires.

    They come from the half that explains: what the collection kept for this (`Collection.contrast`), else the strongest contexts
    of those decoder neighbours that were collected too, without documents in which the feature itself was seen. A document that
    labels are scored on is never shown, whatever a collection says.
    """
    scored = scoring_places(collection)
    return {
        feature: tuple(_usable(_silent_contexts(feature, collection), scored))[:n] for feature in collection.evidence
    }


def scoring_places(collection: Collection) -> set[tuple[str, str]]:
    """(source, document) of every window that some label may be scored on."""
    same_token = getattr(collection, "same_token", {})
    windows = [collection.random, *collection.held_out.values(), *same_token.values()]
    return {_place(held.context) for kept in windows for held in kept}


def _silent_contexts(feature: int, collection: Collection) -> Iterable[Context]:
    if feature in collection.contrast:
        return collection.contrast[feature]
    own = {_place(context) for context in collection.evidence[feature].contexts}
    near = [collection.evidence[other] for other in collection.neighbours.get(feature, ()) if other in collection.evidence]
    return [context for evidence in near for context in evidence.top[:4] if _place(context) not in own]


def _usable(contexts: Iterable[Context], scored: set[tuple[str, str]]) -> Iterable[Context]:
    """Readable contexts off the scoring half, no text twice."""
    seen: set[str] = set()
    for context in contexts:
        if not context.is_withheld and _place(context) not in scored and context.text not in seen:
            seen.add(context.text)
            yield context


def _place(context: Context) -> tuple[str, str]:
    return context.source, context.document
