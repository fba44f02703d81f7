from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.labeling.planted import THEMES, planted_documents, planted_sae, theme_vectors
from workbench.base.errors import WorkbenchError
from workbench.labeling.contexts.collection import Collection, collect_evidence
from workbench.labeling.evidence import FeatureEvidence
from workbench.labeling.explainers.protocol import Explanation
from workbench.labeling.labels import FeatureLabel
from workbench.labeling.scores.comparison import (
    _rotations,
    best_one_token,
    judge_explainer,
    planted_order,
    score_table,
)
from workbench.labeling.scores.embedding import EmbeddingScorer

LABELS = {theme: ", ".join(words) for theme, words in THEMES.items()}


@pytest.fixture(scope="module")
def collection(tiny_model: Any) -> Collection:
    sae = planted_sae()
    return collect_evidence(THEMES, sae, tiny_model, planted_documents(tiny_model, sae, n=120), context=48)


@pytest.fixture(scope="module")
def scorer() -> EmbeddingScorer:
    return EmbeddingScorer(vectors=theme_vectors())


@dataclass(frozen=True)
class Saying:
    """An explainer that says what it was given; the text of every feature is known."""

    said: Mapping[int, str]
    name: str = "saying"

    @property
    def author(self) -> Mapping[str, str]:
        return {"kind": "model", "name": self.name}

    def explain(self, evidence: FeatureEvidence) -> Explanation:
        return Explanation(self.said[evidence.feature], "", None)

    def explain_all(self, evidence: Sequence[FeatureEvidence]) -> list[Explanation]:
        return [self.explain(one) for one in evidence]


def test_correct_labels_come_before_swapped_and_generic_ones(collection: Collection, scorer: EmbeddingScorer) -> None:
    table = planted_order(LABELS, collection, scorer)
    pooled = table.columns["pooled"]
    assert pooled is not None and pooled.n == 4
    assert pooled.mean["shipped"]["value"] > 0.9
    for sort in ("swapped", "generic"):
        assert pooled.shipped_minus[sort]["interval"][0] > 0.2
    assert set(table.record()["columns"]) == {"random", "neighbours", "same_token", "pooled"}


def test_generic_labels_are_not_told_from_swapped_ones_by_any_rule(collection: Collection, scorer: EmbeddingScorer) -> None:
    worthless = score_table([FeatureLabel(f, "then we said that") for f in THEMES], collection, scorer)
    pooled = worthless.columns["pooled"]
    assert pooled is not None and abs(pooled.shipped_minus["swapped"]["value"]) < 1e-9, "the same words everywhere"


def test_the_best_single_word_is_a_word_of_the_theme(collection: Collection, scorer: EmbeddingScorer) -> None:
    for theme, words in THEMES.items():
        assert best_one_token(theme, collection, scorer) in words


def test_the_best_single_word_does_not_look_at_scoring_contexts(collection: Collection, scorer: EmbeddingScorer) -> None:
    blind = replace(collection, held_out={}, random=(), same_token={})
    assert best_one_token(1, blind, scorer) == best_one_token(1, collection, scorer)


def test_an_explainer_that_is_right_is_in_order_and_others_are_not(collection: Collection, scorer: EmbeddingScorer) -> None:
    right = judge_explainer(Saying(LABELS), collection, LABELS, scorer)
    assert right.in_order and right.explained == right.correct
    moved = {theme: LABELS[(theme + 1) % 4] for theme in THEMES}
    wrong = judge_explainer(Saying(moved), collection, LABELS, scorer)
    assert not wrong.in_order and wrong.scorer_is_sound and wrong.explained < 0.65
    vague = judge_explainer(Saying(dict.fromkeys(THEMES, "common words")), collection, LABELS, scorer)
    assert not vague.in_order and vague.margins["explained_minus_swapped"]["value"] == 0
    assert right.margins["correct_minus_swapped"]["interval"][0] > 0


def test_unscorable_features_are_listed_and_a_single_one_is_no_table(collection: Collection, scorer: EmbeddingScorer) -> None:
    few = replace(collection, held_out={f: c if f else c[:2] for f, c in collection.held_out.items()})
    table = score_table([FeatureLabel(f, text) for f, text in LABELS.items()], few, scorer)
    assert table.unscored == (0,) and set(table.features) == {1, 2, 3}
    none = replace(collection, held_out={})
    assert score_table([FeatureLabel(0, "x")], none, scorer).columns == {}
    with pytest.raises(WorkbenchError, match="at least two"):
        judge_explainer(Saying(LABELS), none, LABELS, scorer)


def test_no_label_stays_in_its_place_when_they_are_swapped() -> None:
    labels = [FeatureLabel(i, f"label {i}") for i in range(6)]
    rows = _rotations(labels, 10, 0)
    assert len(rows) == 5, "six labels have five rotations"
    for row in rows:
        assert sorted(item.feature for item in row) == list(range(6))
        assert all(item.feature != index for index, item in enumerate(row))
    assert rows == _rotations(labels, 10, 0) != _rotations(labels, 10, 1)


def test_two_labels_of_one_feature_are_refused(collection: Collection, scorer: EmbeddingScorer) -> None:
    labels = [*(FeatureLabel(theme, text) for theme, text in LABELS.items()), FeatureLabel(2, "bread and soup")]
    with pytest.raises(WorkbenchError, match="everal labels of feature 2"):
        score_table(labels, collection, scorer)
