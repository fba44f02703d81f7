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
from workbench.labeling.evidence import FeatureEvidence
from workbench.labeling.explainers.protocol import Explainer, Explanation, explainer_for, make_explainer
from workbench.labeling.files.store import load_labels
from workbench.labeling.labels import UNCLEAR, FeatureLabel, LabelSet
from workbench.labeling.scores.detection import score_label
from workbench.labeling.taxonomy.assignment import assign_category

if TYPE_CHECKING:
    from workbench.decomposition.result import Decomposition
    from workbench.labeling.contexts.index import FeatureIndex
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
    index: FeatureIndex | None = None,
    shelf: str | Path | None = None,
    n_tokens: int = 60_000,
    score: bool = True,
) -> LabelSet:
    """Labels for the `n_features` largest shares, the causal candidates included.

    A feature with a label file for exactly these SAE weights keeps that label as it is. The others are put into words by
    `explainer` ("offline", "openai", "anthropic", "local", an explainer, or a function that makes one from the collection) from
    at most `n_tokens` tokens: the rollouts of `vector` (extraction questions only) and `texts`; with neither,
    OpenWebText documents set aside for labels. With `index`, an index of this SAE, the evidence is taken from there and nothing
    is read. Their scores come from held-out contexts and an embedder that explained nothing; their category from `trait`
    (default: the decomposition's).

    Raises:
        WorkbenchError: a decomposition of another SAE, an unknown trait or explainer, a damaged label file.
    """
    check_same_sae(parts, sae)
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
        collection = evidence_for(missing, sae, model, vector=vector, texts=texts, index=index, n_tokens=n_tokens)
        chosen = explainer(collection) if callable(explainer) else explainer_for(explainer, collection)
        found |= _explained(missing, collection, chosen, owner, score=score)
    warnings = (*shipped.warnings, *_offline_warning(found.values()))
    labels = LabelSet(sae.id, sae.weights_hash, {f: found[f] for f in features}, warnings=warnings)
    return labels.for_trait(owner.name)


def features_to_label(parts: Decomposition, n_features: int) -> list[int]:
    """The features of the largest shares, then candidates and causal rows that are not among them."""
    causal = (row.feature for row in parts.causal)
    return list(dict.fromkeys(int(f) for f in chain(parts.top(n_features), parts.candidates, causal)))


def evidence_for(
    features: Iterable[int],
    sae: SparseAutoencoder,
    model: Model,
    *,
    vector: PersonaVector | None = None,
    texts: Iterable[TextDocument | str] | None = None,
    index: FeatureIndex | None = None,
    n_tokens: int = 60_000,
) -> Collection:
    """The evidence for features from a vector's rollouts and from texts; with neither, from OpenWebText set aside for labels.

    With an index of this SAE and model it is taken from there. Raises WorkbenchError for an index of others.
    """
    if index is not None:
        return index.with_weights(model, sae).collection(features)
    documents = chain(_rollouts(vector, sae), _texts(texts, vector))
    return collect_evidence(features, sae, model, documents, n_tokens=n_tokens)


def explained_labels(
    features: Sequence[int], collection: Collection, explainer: Explainer, *, trait: Trait | None = None, score: bool = True
) -> tuple[dict[int, FeatureLabel], list[int]]:
    """(labels by feature, features that got no answer): explained together, categorised under `trait`, scored, all "proposed".

    An unclear label says nothing that could be scored or sorted: it has no score, and its category is "unclear". A feature gets
    no answer when an endpoint fails after all attempts; asking again asks for these only.
    """
    said = explainer.explain_all([collection.evidence[feature] for feature in features])
    answered = {feature: one for feature, one in zip(features, said, strict=True) if one.answered}
    made = {}
    with track("Labelling features", len(answered), "features") as step:
        for feature, one in answered.items():
            item = _label_of(one, collection.evidence[feature], explainer)
            if score and not one.unclear:
                item = replace(item, score=score_label(item, feature, collection))
            made[feature] = item if trait is None else _sorted_in(item, one, trait)
            step()
    return made, [feature for feature in features if feature not in answered]


def _label_of(said: Explanation, evidence: FeatureEvidence, explainer: Explainer) -> FeatureLabel:
    return FeatureLabel(
        feature=evidence.feature,
        label=said.label,
        explanation=said.explanation,
        author=dict(explainer.author),
        evidence=evidence,
        confidence=said.confidence,
        notes="" if evidence.contexts else "It fired on nothing that was read.",
    )


def _sorted_in(item: FeatureLabel, said: Explanation, trait: Trait) -> FeatureLabel:
    return replace(item, categories={trait.name: UNCLEAR}) if said.unclear else _with_category(item, trait)


def _explained(
    features: list[int], collection: Collection, explainer: Explainer, trait: Trait, *, score: bool
) -> dict[int, FeatureLabel]:
    made, missing = explained_labels(features, collection, explainer, trait=trait, score=score)
    if missing:
        raise WorkbenchError(
            f"the explainer {explainer.name!r} gave no answer for {len(missing)} of {len(features)} features",
            "an answer for every feature",
            "run the same command again: what was answered is kept and not asked again",
        )
    return made


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


def check_same_sae(parts: Decomposition, sae: SparseAutoencoder) -> None:
    """Refuse an SAE that the decomposition was not made on."""
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
