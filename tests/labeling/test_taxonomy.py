from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from tests.labeling.planted import toy_embedder
from workbench.labeling.evidence import Context, FeatureEvidence
from workbench.labeling.taxonomy.assignment import assign_category
from workbench.personas.traits import Category, load_trait


def toy() -> Any:
    trait = load_trait("evil")
    return toy_embedder([category.words for category in trait.taxonomy if category.id != "unclear"])


def test_a_label_in_the_words_of_a_category_gets_it() -> None:
    trait = load_trait("evil")
    found = assign_category("threat, revenge, blackmail", None, trait, embedder=toy())
    assert found.category == "threats" and 0.5 < found.confidence <= 1.0
    assert "assigned with confidence" in found.sentence()


def test_a_label_between_two_categories_or_near_none_is_unclear() -> None:
    two = tuple(
        Category(name, "other", name, "-", shows_trait=False, words=(name,)) for name in ("alpha", "beta", "unclear")
    )
    trait = replace(load_trait("evil"), taxonomy=two)
    embedder = toy_embedder([["alpha"], ["beta"]])
    for label in ("alpha beta", "xyzzy"):
        found = assign_category(label, None, trait, embedder=embedder)
        assert found.category == "unclear" and found.margin < 0.03 and "left unclear" in found.sentence()
    assert assign_category("beta", None, trait, embedder=embedder).category == "beta"


def test_without_a_taxonomy_every_label_is_left_unclear_and_nothing_is_embedded() -> None:
    def embedder(texts: Any) -> Any:
        raise AssertionError("nothing to embed")

    found = assign_category("threat", None, replace(load_trait("evil"), taxonomy=()), embedder=embedder)
    assert found.category == "unclear" and found.sentence() == "Category left unclear: the trait has no taxonomy."


def test_contexts_decide_where_the_label_says_little() -> None:
    trait = load_trait("evil")
    contexts = tuple(Context((" kneel", " slave"), (0.0, 1.0), 1, "owt", f"d{i}") for i in range(4))
    found = assign_category("words", FeatureEvidence(1, 0.1, 1.0, top=contexts), trait, embedder=toy())
    assert found.category == "domination"


@pytest.mark.assets
def test_minilm_places_words_of_the_lexicon_in_their_own_category() -> None:
    """Four words of each category as its label: a floor, since the category vectors contain these words."""
    trait, rng = load_trait("evil"), random.Random(0)
    right = unclear = 0
    clear = [category for category in trait.taxonomy if category.id != "unclear"]
    for category in clear:
        found = assign_category(", ".join(rng.sample(category.words, 4)), None, trait)
        right += found.category == category.id
        unclear += found.category == "unclear"
    assert right >= 0.8 * len(clear) and right + unclear >= 0.9 * len(clear)
