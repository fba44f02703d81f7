"""From a decomposition to labels: the shipped ones where they fit, offline ones for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.base.errors import WorkbenchError
from workbench.base.progress import track
from workbench.labeling.contexts.collection import Collection, collect_evidence
from workbench.labeling.contexts.streams import TextDocument, TokenDocument, has_rollouts, rollout_stream
from workbench.labeling.explainers.protocol import Explainer, Explanation, explainer_for, make_explainer
from workbench.labeling.files.store import load_labels
from workbench.labeling.labels import UNCLEAR, FeatureLabel, LabelSet
from workbench.labeling.scores.detection import score_label
from workbench.labeling.taxonomy.assignment import assign_category

if TYPE_CHECKING:
    from workbench.decomposition.result import Decomposition
    from workbench.models.model import Model
    from workbench.personas.traits import Trait
    from workbench.personas.vectors import PersonaVector
    from workbench.saes.interface import SparseAutoencoder


def label(
    parts: Decomposition,
    sae: SparseAutoencoder,
    model: Model,
    *,
    trait: str | Trait | None = None,
    n_features: int = 30,
    explainer: str | Explainer | Callable[[Collection], Explainer] = "offline",
    vector: PersonaVector | None = None,
    texts: Iterable[TextDocument | str] | None = None,
    shelf: str | Path | None = None,
    n_tokens: int = 60_000,
    score: bool = True,
) -> LabelSet:
    """Labels for the `n_features` largest shares, the causal candidates included.

    A feature with a label file for exactly these SAE weights keeps that label as it is. The others are put into words by
    `explainer` ("offline", "openai", "anthropic", "local", an explainer, or a function that makes one from the collection) from
    at most `n_tokens` tokens: the rollouts of `vector` (extraction questions only) and `texts`; with neither,
    OpenWebText documents set aside for labels. Their scores come from held-out contexts and an embedder that explained nothing;
    their category from `trait` (default: the decomposition's).

    Raises:
        WorkbenchError: a decomposition of another SAE, an unknown trait or explainer, a damaged label file.
    """
    _check_same_sae(parts, sae)
    if isinstance(explainer, str):
        make_explainer(explainer)  # an unknown name, or one that lacks a model, is refused before anything is read
    owner = _trait(parts.trait if trait is None else trait)
    features = features_to_label(parts, n_features)
    shipped = (
        load_labels(sae.id, shelf, sae_hash=sae.weights_hash)
        if _has_plain_id(sae)
        else LabelSet(sae.id, sae.weights_hash)
    )
    found = {f: _with_category(shipped[f], owner) for f in features if f in shipped}
    missing = [feature for feature in features if feature not in found]
    if missing:
        documents = chain(_rollouts(vector, sae), _texts(texts, vector))
        collection = collect_evidence(missing, sae, model, documents, n_tokens=n_tokens)
        chosen = explainer(collection) if callable(explainer) else explainer_for(explainer, collection)
        found |= _explained(missing, collection, chosen, owner, score=score)
    warnings = (*shipped.warnings, *_offline_warning(found.values()))
    labels = LabelSet(sae.id, sae.weights_hash, {f: found[f] for f in features}, warnings=warnings)
    return labels.for_trait(owner.name)


def features_to_label(parts: Decomposition, n_features: int) -> list[int]:
    """The features of the largest shares, then candidates and causal rows that are not among them."""
    causal = (row.feature for row in parts.causal)
    return list(dict.fromkeys(int(f) for f in chain(parts.top(n_features), parts.candidates, causal)))


def explain_features(
    features: Sequence[int], collection: Collection, explainer: Explainer
) -> tuple[dict[int, Explanation], list[int]]:
    """What the explainer says of each feature, and the features that it gave no answer for (an endpoint that failed)."""
    said = explainer.explain_all([collection.evidence[feature] for feature in features])
    answered = {feature: one for feature, one in zip(features, said, strict=True) if one.answered}
    return answered, [feature for feature in features if feature not in answered]


def label_of(
    said: Explanation, feature: int, collection: Collection, explainer: Explainer, *, score: bool = True
) -> FeatureLabel:
    """An explanation as a label, status "proposed", scored on held-out contexts; an unclear one says nothing to be scored."""
    evidence = collection.evidence[feature]
    return FeatureLabel(
        feature=feature,
        label=said.label,
        explanation=said.explanation,
        author=dict(explainer.author),
        score=score_label(said.label, feature, collection) if score and not said.unclear else None,
        evidence=evidence,
        confidence=said.confidence,
        notes="" if evidence.contexts else "It fired on nothing that was read.",
    )


def _explained(
    features: list[int], collection: Collection, explainer: Explainer, trait: Trait, *, score: bool
) -> dict[int, FeatureLabel]:
    answered, missing = explain_features(features, collection, explainer)
    if missing:
        raise WorkbenchError(
            f"the explainer {explainer.name!r} gave no answer for {len(missing)} of {len(features)} features",
            "an answer for every feature",
            "run the same command again: what was answered is kept and not asked again",
        )
    result = {}
    with track("Labelling features", len(features), "features") as step:
        for feature, said in answered.items():
            made = label_of(said, feature, collection, explainer, score=score)
            result[feature] = replace(made, categories={trait.name: UNCLEAR}) if said.unclear else _with_category(made, trait)
            step()
    return result


def _with_category(item: FeatureLabel, trait: Trait) -> FeatureLabel:
    """The label with a category under this trait: the one its author gave, otherwise an assigned one."""
    if trait.name in item.categories:
        return item
    assigned = assign_category(item.label, trait)
    return replace(
        item,
        categories={**item.categories, trait.name: assigned.category},
        category_confidence={**item.category_confidence, trait.name: round(assigned.confidence, 3)},
        notes=f"{item.notes} {assigned.sentence()}".strip(),
    )


def _rollouts(vector: PersonaVector | None, sae: SparseAutoencoder) -> Iterator[TokenDocument]:
    if vector is not None and has_rollouts(vector):
        yield from rollout_stream(vector, sae.hook)


def _texts(
    texts: Iterable[TextDocument | str] | None, vector: PersonaVector | None
) -> Iterable[TextDocument | str]:
    if texts is not None:
        return texts
    if has_rollouts(vector):
        return ()
    from workbench.saes.corpus import documents

    return documents("owt", role="labels")


def _trait(trait: str | Trait) -> Trait:
    from workbench.personas.traits import load_trait

    return load_trait(trait) if isinstance(trait, str) else trait


def _check_same_sae(parts: Decomposition, sae: SparseAutoencoder) -> None:
    if parts.sae.get("weights_hash") != sae.weights_hash:
        raise WorkbenchError(
            f"the decomposition was made on {parts.sae.get('id')} ({str(parts.sae.get('weights_hash'))[:12]})",
            f"one made on {sae.id} ({sae.weights_hash[:12]})",
            "load the SAE that the decomposition names, or decompose again",
        )


def _has_plain_id(sae: SparseAutoencoder) -> bool:
    """An SAE loaded from a path has no place on the shelf of labels."""
    from workbench.labeling.files.store import set_folder

    try:
        set_folder(".", sae.id)
    except WorkbenchError:
        return False
    return True


def _offline_warning(labels: Iterable[FeatureLabel]) -> tuple[str, ...]:
    n = sum(item.author.get("kind") == "offline" for item in labels)
    return (f"Labels that are token statistics written by a program and read by nobody: {n}.",) if n else ()
