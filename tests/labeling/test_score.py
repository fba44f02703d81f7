from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.labeling.planted import THEMES, planted_documents, planted_sae, theme_vectors
from workbench.labeling.contexts.collection import Collection, collect_evidence
from workbench.labeling.scores.detection import KIND, detection_sets, score_label

LABELS = {theme: ", ".join(words[:2]) for theme, words in THEMES.items()}


@pytest.fixture(scope="module")
def collection(tiny_model: Any) -> Collection:
    sae = planted_sae()
    return collect_evidence(THEMES, sae, tiny_model, planted_documents(tiny_model, sae, n=120))


def test_correct_labels_score_above_swapped_ones(collection: Collection) -> None:
    vectors = theme_vectors()
    for theme in THEMES:
        right = score_label(LABELS[theme], theme, collection, vectors=vectors)
        wrong = score_label(LABELS[(theme + 1) % 4], theme, collection, vectors=vectors)
        assert right is not None and wrong is not None
        assert right["kind"] == KIND and right["value"] > 0.9
        assert wrong["interval"][0] <= 0.5, "a swapped label is not told from chance"
        assert right["interval"][0] <= right["value"] <= right["interval"][1]
        assert right["interval"][0] > wrong["interval"][1]


def test_a_label_without_known_words_scores_one_half(collection: Collection) -> None:
    score = score_label("qwertz uiop", 0, collection, vectors=theme_vectors())
    assert score is not None and score["value"] == 0.5 and score["interval"] == [0.5, 0.5]


def test_the_score_is_the_same_every_time(collection: Collection) -> None:
    twice = [score_label(LABELS[1], 1, collection, vectors=theme_vectors()) for _ in range(2)]
    assert twice[0] == twice[1]


def test_too_few_held_out_contexts_give_no_score(collection: Collection) -> None:
    few = replace(collection, held_out={0: collection.held_out[0][:4]})
    assert score_label(LABELS[0], 0, few, vectors=theme_vectors()) is None
    assert score_label(LABELS[0], 99, collection, vectors=theme_vectors()) is None


def test_the_feature_fires_in_no_negative_and_neighbours_are_among_them(collection: Collection) -> None:
    for theme in THEMES:
        near = replace(collection, neighbours={theme: ((theme + 1) % 4,)})
        positives, negatives = detection_sets(theme, near)
        assert all(theme in held.active for held in positives)
        assert not any(theme in held.active for held in negatives)
        assert any((theme + 1) % 4 in held.active for held in negatives)
        texts = [held.context.text for held in (*positives, *negatives)]
        assert len(set(texts)) == len(texts)


@pytest.mark.assets
def test_glove_tells_correct_from_swapped_labels_on_planted_text(collection: Collection) -> None:
    names = {0: "insults and name-calling", 1: "bodies of water", 2: "musical instruments", 3: "food"}
    for theme in THEMES:
        right = score_label(names[theme], theme, collection)
        swapped = [score_label(names[other], theme, collection) for other in THEMES if other != theme]
        assert right is not None and right["value"] > 0.75
        assert all(wrong is not None and wrong["value"] < right["value"] - 0.15 for wrong in swapped)
