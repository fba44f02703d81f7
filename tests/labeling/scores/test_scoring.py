from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.labeling.planted import THEMES, planted_documents, planted_sae, theme_vectors
from workbench.base.errors import WorkbenchError
from workbench.labeling.contexts.collection import Collection, collect_evidence
from workbench.labeling.contexts.same_token import token_key
from workbench.labeling.evidence import Context
from workbench.labeling.files.store import load_label_file, save_label
from workbench.labeling.labels import FeatureLabel
from workbench.labeling.scores.detection import score_label
from workbench.labeling.scores.embedding import EmbeddingScorer, words_by_distance
from workbench.labeling.scores.examples import (
    KINDS,
    MISPLACED,
    detection_examples,
    fuzzing_examples,
    peak_tokens,
)
from workbench.labeling.scores.forms import form_of, form_words
from workbench.labeling.scores.measures import Scored, best_threshold, correct, separation
from workbench.labeling.scores.scoring import score
from workbench.labeling.scores.sentences import SentenceScorer, marked_word

LABELS = {theme: ", ".join(words[:2]) for theme, words in THEMES.items()}


@pytest.fixture(scope="module")
def collection(tiny_model: Any) -> Collection:
    sae = planted_sae()
    return collect_evidence(THEMES, sae, tiny_model, planted_documents(tiny_model, sae, n=120), context=48)


@pytest.fixture(scope="module")
def scorer() -> EmbeddingScorer:
    return EmbeddingScorer(vectors=theme_vectors())


# ---------------------------------------------------------------------------------------------------- the examples


def test_the_feature_is_silent_in_every_negative_and_nothing_is_there_twice(collection: Collection) -> None:
    active = {id(held.context): held.active for held in (*collection.random, *sum(collection.held_out.values(), ()))}
    active |= {id(held.context): held.active for found in collection.same_token.values() for held in found}
    for theme in THEMES:
        sets = detection_examples(theme, replace(collection, neighbours={theme: ((theme + 1) % 4,)}))
        every = [*sets.positives, *(e for group in sets.negatives.values() for e in group)]
        assert all(theme in active[id(example.context)] for example in sets.positives)
        for example in (e for group in sets.negatives.values() for e in group):
            assert not any(example.context.values) or (theme + 1) % 4 in active[id(example.context)]
            assert theme not in active.get(id(example.context), frozenset())
        assert len({(e.context.text, e.marks) for e in every}) == len(every)
        assert {kind: len(group) for kind, group in sets.negatives.items()} | {"positives": len(sets.positives)} == sets.n
        assert set(sets.negatives) == set(KINDS) and all(sets.n[kind] >= 5 for kind in KINDS)


def test_same_token_negatives_are_marked_at_a_peak_token(collection: Collection) -> None:
    for theme in THEMES:
        for source in (collection, replace(collection, same_token={})):  # kept while reading, or found in the other windows
            found = detection_examples(theme, source).negatives["same_token"]
            assert len(found) >= 5
            keys = peak_tokens(theme, source)
            assert all(token_key(e.context.tokens[e.context.peak]) in keys for e in found)


def test_the_kept_same_token_windows_do_not_depend_on_the_order_of_documents(tiny_model: Any, collection: Collection) -> None:
    sae = planted_sae()
    again = collect_evidence(THEMES, sae, tiny_model, planted_documents(tiny_model, sae, n=120)[::-1], context=48)
    assert again.same_token == collection.same_token


def test_misplaced_marks_lie_where_the_feature_is_silent(collection: Collection) -> None:
    sets = fuzzing_examples(0, collection)
    assert len(sets.negatives[MISPLACED]) >= 5
    for example in sets.positives:
        assert set(example.marks) >= {i for i, value in enumerate(example.context.values) if value > 0}
    for example in sets.negatives[MISPLACED]:
        assert example.marks and all(example.context.values[mark] == 0 for mark in example.marks)


# ---------------------------------------------------------------------------------------------------- the score


def test_correct_labels_score_above_swapped_and_generic_ones(collection: Collection, scorer: EmbeddingScorer) -> None:
    for theme in THEMES:
        near = replace(collection, neighbours={theme: ((theme + 1) % 4,)})
        right = score(LABELS[theme], theme, near, scorer)
        for wrong in (LABELS[(theme + 1) % 4], "then we said that"):
            other = score(wrong, theme, near, scorer)
            assert right.pooled is not None and other.pooled is not None
            assert right.pooled.interval[0] > other.pooled.interval[1]
            assert other.pooled.interval[0] <= 0.55, "a label of another feature is not told from chance"
        assert all(found is not None and found.auroc > 0.8 for found in right.by.values())
        assert right.pooled.interval[0] <= right.pooled.auroc <= right.pooled.interval[1]
        assert right.pooled.balanced_accuracy > 0.8


def test_a_kind_with_too_few_negatives_is_none_and_counted(collection: Collection, scorer: EmbeddingScorer) -> None:
    few = replace(collection, random=collection.random[:3])
    found = score(LABELS[0], 0, few, scorer)
    assert found.by["random"] is None and found.n["random"] <= 3
    assert found.by["same_token"] is not None and found.pooled is not None
    record = found.record()
    assert record is not None and record["by"]["random"] is None and record["n"]["random"] == found.n["random"]


def test_too_few_held_out_contexts_give_no_score(collection: Collection) -> None:
    few = replace(collection, held_out={0: collection.held_out[0][:4]})
    assert score_label(LABELS[0], 0, few, vectors=theme_vectors()) is None
    assert score_label(LABELS[0], 99, collection, vectors=theme_vectors()) is None


def test_a_label_without_known_words_scores_one_half(collection: Collection) -> None:
    found = score_label("qwertz uiop", 0, collection, vectors=theme_vectors())
    assert found is not None and found["value"] == 0.5 and found["interval"] == [0.5, 0.5]
    assert found["balanced_accuracy"] == 0.5


def test_the_score_is_the_same_every_time_and_is_kept_by_a_label_file(collection: Collection, tmp_path: Path) -> None:
    twice = [score_label(LABELS[1], 1, collection, vectors=theme_vectors()) for _ in range(2)]
    assert twice[0] == twice[1] and twice[0] is not None
    item = FeatureLabel(1, LABELS[1], score=twice[0], author={"kind": "model", "name": "reader"})
    path = save_label(item, "tiny/blocks.1.hook_resid_post", "a" * 64, tmp_path)
    kept = load_label_file(path).label
    assert kept is not None and kept.score == twice[0]


def test_the_embedder_that_explained_may_not_score(collection: Collection) -> None:
    scorer = EmbeddingScorer(vectors=theme_vectors(), embedder="minilm")
    sets = detection_examples(0, collection)
    with pytest.raises(WorkbenchError, match="another embedder"):
        scorer.scores(FeatureLabel(0, "insults"), sets.positives)  # by the offline explainer, which reads with MiniLM
    with pytest.raises(WorkbenchError, match="another embedder"):
        label = FeatureLabel(0, "insults", author={"kind": "model", "name": "m", "embedder": "glove"})
        EmbeddingScorer(vectors=theme_vectors()).scores(label, sets.positives)


def test_a_label_about_form_is_scored_by_form() -> None:
    comma = Context((" bread", ",", " and"), (0.0, 1.0, 0.0), 1, "owt", "d", 20)
    name = Context((" said", " Anna", " then"), (0.0, 1.0, 0.0), 1, "owt", "d", 20)
    assert {"comma", "punctuation"} <= set(form_of(comma).split())
    assert {"capitalised", "name"} <= set(form_of(name).split())
    scorer = EmbeddingScorer(vectors=theme_vectors())
    examples = detection_like(comma, name)
    up, down = scorer.scores("commas", examples)
    assert up is not None and down is not None and up > down + 0.5
    assert not form_words("rivers and lakes"), "a label about content gets no form term"


def detection_like(*contexts: Context) -> list[Any]:
    from workbench.labeling.scores.examples import Example

    return [Example(context, (context.peak,)) for context in contexts]


def test_words_are_told_with_their_distance_from_the_marked_token() -> None:
    context = Context(("We", " sw", "am", " in", " the", " river", "."), (0.0,) * 7, 2, "owt", "d")
    assert words_by_distance(context) == [("we", 2), ("swam", 0), ("in", 1), ("the", 2), ("river", 3)]


# ---------------------------------------------------------------------------------------------------- the measures


def scored(values: Any, documents: Any = None) -> Scored:
    names = [f"{id(values)}-{i}" for i in range(len(values))] if documents is None else documents
    return Scored(tuple(float(v) for v in values), tuple(names))


def test_auroc_and_balanced_accuracy_equal_what_counting_says() -> None:
    rng = np.random.default_rng(0)
    up, down = rng.integers(0, 5, 40) + 1, rng.integers(0, 5, 60)
    found = separation(scored(up), scored(down), threshold=2.5)
    won = sum((a > b) + 0.5 * (a == b) for a in up for b in down) / (40 * 60)
    right = (sum(a > 2.5 for a in up) / 40 + sum(b < 2.5 for b in down) / 60) / 2
    assert found is not None and found.auroc == pytest.approx(won) and found.balanced_accuracy == pytest.approx(right)


def test_contexts_of_few_documents_make_a_wider_interval() -> None:
    rng = np.random.default_rng(1)
    block = np.repeat(rng.normal(size=8), 10)
    up, down = block[:40] + 0.5, block[40:]
    alone = separation(scored(up), scored(down))
    clustered = separation(
        scored(up, [f"p{i // 10}" for i in range(40)]), scored(down, [f"n{i // 10}" for i in range(40)])
    )
    assert alone is not None and clustered is not None
    width = [found.interval[1] - found.interval[0] for found in (alone, clustered)]
    assert width[1] > 1.5 * width[0]


def test_a_threshold_from_other_documents_promises_nothing_on_noise() -> None:
    rng = np.random.default_rng(2)
    rates, fitted = [], []
    for _ in range(60):
        up, down = rng.normal(size=15), rng.normal(size=15)
        sides = scored(up), scored(down)
        right = correct(*sides, None)
        rates.append((right[0].mean() + right[1].mean()) / 2)
        limit = best_threshold(up, down)
        fitted.append(((up > limit).mean() + (down < limit).mean()) / 2)
    assert abs(np.mean(rates) - 0.5) < 0.04  # standard error: about .5 / sqrt(30 * 60) = .012, folds correlated
    assert np.mean(fitted) > 0.58, "a threshold fitted to the same contexts would promise something"


@pytest.mark.assets
def test_glove_tells_correct_from_swapped_labels_on_planted_text(collection: Collection) -> None:
    names = {0: "insults and name-calling", 1: "bodies of water", 2: "musical instruments", 3: "food"}
    for theme in THEMES:
        right = score_label(names[theme], theme, collection)
        swapped = [score_label(names[other], theme, collection) for other in THEMES if other != theme]
        assert right is not None and right["value"] > 0.7
        assert all(wrong is not None and wrong["value"] < right["value"] - 0.1 for wrong in swapped)


# ---------------------------------------------------------------------------------------------------- the sentence embedder


def test_the_marked_word_is_whole_and_a_blank_is_named() -> None:
    context = Context((" un", "believ", "able", " news"), (0.0, 1.0, 0.0, 0.0), 1, "owt", "a")
    assert marked_word(context) == "unbelievable"
    assert marked_word(replace(context, tokens=("a", "\n", " b", "c"))) == "."


def test_a_label_that_minilm_helped_to_write_is_refused_unless_an_upper_bound_is_wanted(collection: Collection) -> None:
    label = FeatureLabel(0, "animals", author={"kind": "offline", "name": "offline"})
    sets = detection_examples(0, collection)
    with pytest.raises(WorkbenchError, match="minilm"):
        SentenceScorer().scores(label, sets.positives)


@pytest.mark.assets
def test_minilm_tells_correct_from_swapped_labels_on_planted_text(collection: Collection) -> None:
    names = {0: "insults and name-calling", 1: "bodies of water", 2: "musical instruments", 3: "food"}
    scorer = SentenceScorer()
    for theme in THEMES:
        found = {other: score(names[other], theme, collection, scorer).record() for other in THEMES}
        right = found.pop(theme)
        assert right is not None and right["value"] > 0.8
        assert all(wrong is not None and wrong["value"] < right["value"] - 0.1 for wrong in found.values())
    offline = FeatureLabel(1, names[1], author={"kind": "offline", "name": "offline"})
    upper = score(offline, 1, collection, SentenceScorer(allow_same_embedder=True)).record()
    assert upper is not None and upper["value"] == score(names[1], 1, collection, scorer).record()["value"]
