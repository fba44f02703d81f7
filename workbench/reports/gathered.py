"""What a report takes from other values: views that may travel, the history of labels, the shares per sub-trait."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.decomposition.result import Decomposition
    from workbench.labeling.labels import FeatureLabel, LabelSet
    from workbench.labeling.taxonomy.values import MadeOf
    from workbench.labeling.views.view import FeatureView
    from workbench.personas.vectors import PersonaVector

N_CONTEXTS = 6
"""Contexts per kind of source that a report keeps of a view."""
N_CONTEXTS_OF_A_PAGE = 14
"""The same, summed over the traits of a page."""


def shown_views(views: Mapping[int, FeatureView], shown: Iterable[int]) -> dict[int, FeatureView]:
    """The views of the features shown, in their order, with only the text that may be passed on."""
    return {feature: views[feature].without_foreign_text() for feature in shown if feature in views}


def fewer_contexts(views: Mapping[int, FeatureView], n_traits: int = 1) -> dict[int, FeatureView]:
    """The same views with as many contexts per kind of source as a page of `n_traits` has room for: the strongest, 2 at least."""
    n = max(2, min(N_CONTEXTS, N_CONTEXTS_OF_A_PAGE // max(1, n_traits)))
    return {f: replace(v, contexts={kind: listed[:n] for kind, listed in v.contexts.items()}) for f, v in views.items()}


def history_of(shown: Iterable[int], labels: LabelSet, store: LabelSet | None) -> dict[int, tuple[FeatureLabel, ...]]:
    """Every label of each feature, newest first (unknown dates last): those of `labels` and of `store`, each once.

    A store of another SAE adds nothing.
    """
    stores = [labels] if store is None or store.sae_hash != labels.sae_hash else [labels, store]
    found: dict[int, tuple[FeatureLabel, ...]] = {}
    for feature in shown:
        said = {
            (tuple(sorted(one.author.items())), one.label, one.status): one for known in stores for one in known.all_of(feature)
        }
        if said:
            found[feature] = tuple(sorted(said.values(), key=lambda one: one.date, reverse=True))
    return found


def made_of_labels(
    parts: Decomposition, labels: LabelSet, trait: Any, *, placebo_shares: Tensor | None = None
) -> MadeOf | None:
    """The share per sub-trait by the categories as they stand; None without shares, labels or a taxonomy."""
    from workbench.labeling.taxonomy.made_of import made_of

    if not parts.has_shares or not len(labels) or not getattr(trait, "taxonomy", ()):
        return None
    return made_of(parts, labels, trait, placebo_shares=placebo_shares)


def vector_of(parts: Decomposition) -> PersonaVector:
    """The vector of a decomposition that came alone: its direction at the SAE's hook, without evidence and without rollouts."""
    from workbench.models.hookpoints import HookPoint
    from workbench.personas.vectors import PersonaVector

    return PersonaVector.from_direction(
        parts.direction, trait=parts.trait, model=dict(parts.vector["model"]), hook=HookPoint.parse(parts.sae["hook"])
    )
