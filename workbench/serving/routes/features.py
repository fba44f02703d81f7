"""Traits and features as the run, the labels and the index know them, and the search for features."""

from __future__ import annotations

import dataclasses

from fastapi import APIRouter, Query

from workbench.base.errors import WorkbenchError
from workbench.serving.answers import direction_json, feature_json, live_report, names_of, spelled, trait_json
from workbench.serving.explorer import Explorer
from workbench.serving.searching import search_features
from workbench.serving.streams import Answer


def make_router(explorer: Explorer) -> APIRouter:
    """GET /api/traits/{trait}, /api/features, /api/features/{feature}, /api/features/{feature}/direction."""
    router = APIRouter(prefix="/api", tags=["features"])

    @router.get("/traits/{trait}")
    def trait(trait: str) -> Answer:
        """What a trait's vector is made of: the table, with the labels as they are now."""
        found = live_report(explorer, trait)
        if found is None:
            raise WorkbenchError(
                f"the run of {trait} has no decomposition", "features to list", "`workbench decompose` makes one"
            )
        return Answer(trait_json(found))

    @router.get("/features")
    def search(words: str = Query(max_length=200), n: int = Query(default=50, ge=1, le=200)) -> Answer:
        """Features with all words in a label, an explanation or a context; with an index also those that fire on such tokens."""
        found = search_features(words, explorer.book.records(), explorer.index, n=n)
        names = names_of(explorer)
        rows = [{**dataclasses.asdict(one), "label": names.get(one.feature)} for one in found]
        return Answer(spelled({"words": words, "found": rows, "index": explorer.index is not None}))

    @router.get("/features/{feature}")
    def feature(feature: int) -> Answer:
        """One feature: labels of all authors with the file's `version`, shares by trait, contexts, counts."""
        return Answer(feature_json(explorer, feature))

    @router.get("/features/{feature}/direction")
    def direction(feature: int) -> Answer:
        """Logit lens (logits per unit of code, centred) and the nearest decoder directions (cosine); needs the model."""
        from workbench.labeling.views.nearby import directions_of

        explorer.feature(feature)
        sae, model = explorer.require_sae(), explorer.model
        end = explorer.turns.take()
        try:
            found, usual = directions_of([feature], sae, model, n=10)
        finally:
            end()
        return Answer(direction_json(found[feature], usual, names_of(explorer)))

    return router
