"""Feature views made: contexts and tallies from an index or a collection, neighbours and lens from the weights, the ablation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from workbench.base.errors import WorkbenchError
from workbench.labeling.contexts.collection import Collection, collect_evidence
from workbench.labeling.contexts.streams import KINDS, kind_of
from workbench.labeling.evidence import Context
from workbench.labeling.views.ablation import N_DRAWS, Ablations, ablation_effects
from workbench.labeling.views.nearby import directions_of
from workbench.labeling.views.values import Partner, Tally
from workbench.labeling.views.view import FeatureView

if TYPE_CHECKING:
    from workbench.models.model import Model
    from workbench.saes.interface import SparseAutoencoder

N_TEXTS = 60_000
_TALLIES = ("by_position", "by_role", "by_trait", "partners")


def feature_view(
    feature: int,
    sae: SparseAutoencoder,
    model: Model,
    *,
    collection: Collection | None = None,
    n_contexts: int = 8,
    n_ablation: int = 12,
    n_draws: int = N_DRAWS,
    n_nearest: int = 10,
    seed: int = 0,
) -> FeatureView:
    """The view of one feature; see `feature_views`, which is far cheaper for many."""
    options = {"n_contexts": n_contexts, "n_ablation": n_ablation, "n_draws": n_draws, "n_nearest": n_nearest, "seed": seed}
    return feature_views([feature], sae, model, collection=collection, **options)[0]


def feature_views(
    features: Iterable[int],
    sae: SparseAutoencoder,
    model: Model,
    *,
    collection: Collection | None = None,
    n_contexts: int = 8,
    n_ablation: int = 12,
    n_draws: int = N_DRAWS,
    n_nearest: int = 10,
    seed: int = 0,
) -> list[FeatureView]:
    """A view per feature, in the order asked.

    Where the features fire is taken from `collection`; without one OpenWebText documents set aside for labels are read. Per
    kind of source at most `n_contexts` contexts are shown. The ablation effect is measured on at most `n_ablation` contexts
    (0: not at all), strong and weak ones in turns, each read as a text of its own, against `n_draws` draws of matched controls.

    Raises:
        WorkbenchError: a feature that the SAE or the collection does not have, or an SAE of another model width.
    """
    asked = _checked(features, sae, model)
    known = _from_collection(asked, sae, model, collection)
    near, usual = directions_of(asked, sae, model, n=n_nearest, seed=seed)
    effects = _effects(known, sae, model, n_ablation, n_draws, seed)
    return [
        FeatureView(
            feature=feature,
            sae={"id": sae.id, "weights_hash": sae.weights_hash, "hook": str(sae.hook)},
            model=model.name,
            density=known[feature].density,
            max_activation=known[feature].max_activation,
            n_tokens=known[feature].n_tokens,
            contexts={kind: listed[:n_contexts] for kind, listed in known[feature].by_kind().items()},
            direction=near[feature],
            usual=usual,
            by_position=known[feature].by_position,
            by_role=known[feature].by_role,
            by_trait=known[feature].by_trait,
            partners=known[feature].partners,
            ablation=effects.found.get(feature),
            missing=known[feature].missing
            | ({"ablation": effects.missing[feature]} if feature in effects.missing else {}),
        )
        for feature in asked
    ]


@dataclass(frozen=True)
class _Known:
    """What reading has shown of one feature; `strong` and `spread` contexts of the explaining half."""

    density: float | None
    max_activation: float | None
    n_tokens: int
    strong: tuple[Context, ...]
    spread: tuple[Context, ...]
    by_position: tuple[Tally, ...] = ()
    by_role: tuple[Tally, ...] = ()
    by_trait: Mapping[str, tuple[Tally, ...]] = field(default_factory=dict)
    partners: tuple[Partner, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)

    def by_kind(self) -> dict[str, tuple[Context, ...]]:
        """All contexts per kind of source, strongest first."""
        ordered = sorted((*self.strong, *self.spread), key=lambda context: -context.peak_value)
        return {kind: tuple(c for c in ordered if kind_of(c.source) == kind) for kind in KINDS}

    def in_turns(self, n: int) -> list[Context]:
        """At most `n` contexts with text, the next strong and the next spread one in turns, none twice."""
        sides = [[c for c in side if not c.is_withheld] for side in (self.strong, self.spread)]
        order = sorted((place, side) for side, listed in enumerate(sides) for place in range(len(listed)))
        found: dict[tuple[str, ...], Context] = {}
        for place, side in order:
            found.setdefault(sides[side][place].tokens, sides[side][place])
        return list(found.values())[:n]


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


def _from_collection(
    asked: Sequence[int], sae: SparseAutoencoder, model: Model, collection: Collection | None
) -> dict[int, _Known]:
    if collection is None:
        from workbench.saes.corpus import documents

        collection = collect_evidence(asked, sae, model, documents("owt", role="labels"), n_tokens=N_TEXTS)
    absent = [feature for feature in asked if feature not in collection.evidence]
    if absent:
        raise WorkbenchError(
            f"the collection holds nothing on feature {absent[0]}",
            "a collection of the features that are to be shown",
            "collect evidence for them too: collect_evidence([...], sae, model, texts)",
        )
    unknown: dict[str, str] = dict.fromkeys(_TALLIES, "only an index counts this: make one with `workbench features index`")
    return {
        feature: _Known(item.density, item.max_activation, item.n_tokens, item.top, item.quantiles, missing=dict(unknown))
        for feature, item in ((feature, collection.evidence[feature]) for feature in asked)
    }


def _effects(
    known: Mapping[int, _Known], sae: SparseAutoencoder, model: Model, n_ablation: int, n_draws: int, seed: int
) -> Ablations:
    if not n_ablation:
        return Ablations({}, dict.fromkeys(known, "not asked for"))
    passages = {f: [context_ids(model, c) for c in item.in_turns(n_ablation)] for f, item in known.items()}
    return ablation_effects(passages, sae, model, n_draws=n_draws, seed=seed)


def context_ids(model: Model, context: Context) -> tuple[int, ...]:
    """The context's text as token ids, behind the start token where the tokenizer wants one."""
    tokenizer = model.tokenizer
    wants_start = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    ids = tokenizer(context.text, add_special_tokens=False)["input_ids"]
    return (*([tokenizer.bos_token_id] if wants_start else []), *ids)
