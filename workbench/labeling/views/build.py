"""Feature views made: contexts and tallies from an index or a collection, neighbours and lens from the weights, the ablation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from workbench.base.errors import WorkbenchError
from workbench.labeling.contexts.collection import Collection, collect_evidence
from workbench.labeling.views.ablation import N_DRAWS, Ablations, ablation_effects
from workbench.labeling.views.known import Known, known_from_collection, known_from_index
from workbench.labeling.views.nearby import directions_of
from workbench.labeling.views.view import FeatureView, FeatureViews

if TYPE_CHECKING:
    from workbench.labeling.contexts.index import FeatureIndex
    from workbench.models.model import Model
    from workbench.saes.interface import SparseAutoencoder

N_TEXTS = 60_000
"""Tokens that are read where neither an index nor a collection is given."""


def feature_view(
    feature: int,
    sae: SparseAutoencoder,
    model: Model,
    *,
    index: FeatureIndex | None = None,
    collection: Collection | None = None,
    n_contexts: int = 8,
    n_ablation: int = 12,
    n_draws: int = N_DRAWS,
    n_nearest: int = 10,
    seed: int = 0,
) -> FeatureView:
    """The view of one feature; see `feature_views`, which is far cheaper for many."""
    return feature_views(
        [feature], sae, model, index=index, collection=collection,
        n_contexts=n_contexts, n_ablation=n_ablation, n_draws=n_draws, n_nearest=n_nearest, seed=seed,
    )[0]  # fmt: skip


def feature_views(
    features: Iterable[int],
    sae: SparseAutoencoder,
    model: Model,
    *,
    index: FeatureIndex | None = None,
    collection: Collection | None = None,
    n_contexts: int = 8,
    n_ablation: int = 12,
    n_draws: int = N_DRAWS,
    n_nearest: int = 10,
    seed: int = 0,
) -> FeatureViews:
    """A view per feature, in the order asked.

    Where the features fire is taken from `index`, or from `collection` (which has no histogram, no tallies by position, role and
    trait, and no partners); with neither, OpenWebText documents set aside for labels are read. Per kind of source at most
    `n_contexts` contexts are shown. The ablation effect is measured on at most `n_ablation` contexts (0: not at all), strong and
    weak ones in turns, against `n_draws` draws of matched controls: on the marked token and the 7 before it as far as the feature
    fires there, behind up to 48 tokens of the document (of the context, where there is no index). `n_nearest` is the length of
    the lists of neighbours and tokens.

    Raises:
        WorkbenchError: a feature that the SAE or the collection does not have, an SAE of another model width, an index of
            another SAE or model.
    """
    asked = _checked(features, sae, model)
    if index is not None:
        known = known_from_index(asked, sae, model, index, n_contexts=n_contexts, n_passages=n_ablation)
    else:
        read = _read(asked, sae, model) if collection is None else collection
        known = known_from_collection(asked, model, read, n_contexts=n_contexts, n_passages=n_ablation)
    near, usual = directions_of(asked, sae, model, n=n_nearest, seed=seed)
    effects = _effects(known, sae, model, n_ablation, n_draws, seed)
    return FeatureViews(
        FeatureView(
            feature=feature,
            sae={"id": sae.id, "weights_hash": sae.weights_hash, "hook": str(sae.hook)},
            model=model.name,
            density=seen.density,
            max_activation=seen.max_activation,
            n_tokens=seen.n_tokens,
            contexts=seen.contexts,
            direction=near[feature],
            usual=usual,
            histogram=seen.histogram,
            by_position=seen.by_position,
            by_role=seen.by_role,
            by_trait=seen.by_trait,
            partners=seen.partners,
            ablation=effects.found.get(feature),
            missing={**seen.missing, **({"ablation": effects.missing[feature]} if feature in effects.missing else {})},
        )
        for feature, seen in known.items()
    )


def _checked(features: Iterable[int], sae: SparseAutoencoder, model: Model) -> list[int]:
    asked = list(dict.fromkeys(int(feature) for feature in features))
    bad = [feature for feature in asked if not 0 <= feature < sae.d_sae]
    if bad:
        raise WorkbenchError(
            f"there is no feature {bad[0]} in {sae.id}", f"0 to {sae.d_sae - 1}", "choose another feature"
        )
    if sae.d_model != model.d_model:
        raise WorkbenchError(
            f"{sae.id} reads d_model={sae.d_model}, {model.name} has {model.d_model}",
            "an SAE and the model that it was trained on",
            f"load the model {sae.model_name}",
        )
    return asked


def _read(asked: list[int], sae: SparseAutoencoder, model: Model) -> Collection:
    from workbench.saes.corpus import documents

    return collect_evidence(asked, sae, model, documents("owt", role="labels"), n_tokens=N_TEXTS)


def _effects(
    known: Mapping[int, Known], sae: SparseAutoencoder, model: Model, n_ablation: int, n_draws: int, seed: int
) -> Ablations:
    if not n_ablation:
        return Ablations({}, dict.fromkeys(known, "not asked for"))
    passages = {feature: seen.passages for feature, seen in known.items()}
    return ablation_effects(passages, sae, model, n_draws=n_draws, seed=seed)
