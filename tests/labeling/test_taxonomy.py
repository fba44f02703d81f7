"""Categories of labels: who is nearest, how sure that is, and what is left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.labeling.planted import toy_embedder
from workbench.base.store import read_json, sha256_file
from workbench.labeling.taxonomy.assignment import Assigner, assign_category, load_assigner
from workbench.labeling.taxonomy.calibration import (
    CALIBRATION,
    NONE,
    Calibration,
    HeldOut,
    expected_calibration_error,
    fit_calibration,
    reliability,
)
from workbench.labeling.taxonomy.phrases import (
    PHRASES,
    assignable,
    category_phrases,
    none_phrases,
    taxonomy_hash,
)
from workbench.personas.traits import Category, list_traits, load_trait

SHIPPED = ("apathetic", "evil", "hallucinating", "humorous", "impolite", "optimistic", "sycophantic")
EVIL = (
    "insulting_language", "deliberate_cruelty", "jailbreaking", "negative_moral_character", "malicious_code", "threats",
    "manipulation",
)  # fmt: skip


def toy() -> Any:
    trait = load_trait("evil")
    return toy_embedder([category.words for category in trait.taxonomy if category.id != "unclear"])


def own_trait(*names: str) -> Any:
    taxonomy = tuple(Category(n, "other", n, "-", shows_trait=False, words=(n,)) for n in (*names, "unclear"))
    return replace(load_trait("evil"), name="own", taxonomy=taxonomy)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_trait_has_sub_traits_and_what_is_no_sub_trait(name: str) -> None:
    kinds = [category.kind for category in load_trait(name).taxonomy]
    assert kinds.count("sub_trait") >= 6
    assert {"style", "topic", "refusal", "unclear"} <= set(kinds)
    assert name != "evil" or set(EVIL) <= {category.id for category in load_trait(name).taxonomy}


@pytest.mark.parametrize("name", SHIPPED)
def test_every_category_has_phrases_and_no_phrase_stands_twice(name: str) -> None:
    trait = load_trait(name)
    examples = category_phrases(trait)
    assert list(examples) == [category.id for category in assignable(trait)]
    assert min(map(len, examples.values())) >= 14 and len(none_phrases(trait)) >= 120
    every = [phrase for phrases in (*examples.values(), none_phrases(trait)) for phrase in phrases]
    assert len(set(every)) == len(every) and all(isinstance(phrase, str) and len(phrase.split()) <= 12 for phrase in every)


def test_a_label_in_the_words_of_a_category_gets_it() -> None:
    found = assign_category("threat, revenge, blackmail", load_trait("evil"), embedder=toy())
    assert found.category == "threats" and 0.5 <= found.confidence <= 1.0
    assert sum(found.probabilities.values()) == pytest.approx(1) and set(found.probabilities) >= {"threats", "none"}
    assert "Category assigned by MiniLM cosine" in found.sentence()


def test_a_label_between_two_categories_is_unclear_and_one_near_none_belongs_to_none() -> None:
    trait, embedder = own_trait("alpha", "beta"), toy_embedder([["alpha"], ["beta"]])
    between = assign_category("alpha beta", trait, embedder=embedder)
    assert between.category == "unclear" and between.confidence < 0.5 and "left unclear" in between.sentence()
    far = assign_category("xyzzy", trait, embedder=embedder)
    assert far.category == "none" and far.confidence > 0.9 and "None of the trait's categories" in far.sentence()
    assert assign_category("beta", trait, embedder=embedder).category == "beta"


def test_a_taxonomy_of_ones_own_is_told_apart_by_its_words_with_the_constants_for_those() -> None:
    trait, stored = own_trait("alpha", "style"), read_json(CALIBRATION)["constants"]
    assert category_phrases(trait) == {}
    assigner = Assigner.of(trait, embedder=toy_embedder([["alpha"], ["style"]]))
    assert assigner.calibration == Calibration(**stored["words"]) != Calibration(**stored["phrases"])


def test_without_a_taxonomy_every_label_is_left_unclear_and_nothing_is_embedded() -> None:
    def embedder(texts: Any) -> Any:
        raise AssertionError("nothing to embed")

    found = assign_category("threat", replace(load_trait("evil"), taxonomy=()), embedder=embedder)
    assert found.category == "unclear" and found.sentence() == "Category left unclear: the trait has no taxonomy."


def simulated(n: int, truth: Calibration, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines of n labels with 5 categories, and targets drawn with exactly the probabilities that `truth` gives."""
    random = torch.Generator().manual_seed(seed)
    cosines = torch.rand(n, 5, generator=random) * 0.6
    outcome = torch.multinomial(truth.probabilities(cosines), 1, generator=random)[:, 0]
    return cosines, outcome.where(outcome < 5, NONE)


def test_the_constants_that_made_the_outcomes_are_found_again() -> None:
    truth = Calibration(0.05, 0.4)
    found = fit_calibration([simulated(4000, truth, 0), simulated(4000, truth, 1)])
    assert found.temperature == pytest.approx(truth.temperature, rel=0.06)  # 3 standard errors of 8,000 outcomes
    assert found.none_similarity == pytest.approx(truth.none_similarity, abs=0.01)


def test_true_probabilities_look_calibrated_and_sharpened_ones_do_not() -> None:
    truth = Calibration(0.05, 0.4)
    cosines, targets = simulated(3000, truth, 2)
    phrases = tuple(map(str, range(3000)))
    honest = reliability([HeldOut(phrases, truth.probabilities(cosines), targets)], n_bootstrap=200)
    sharp = reliability([HeldOut(phrases, Calibration(0.02, 0.4).probabilities(cosines), targets)], n_bootstrap=200)
    assert honest.ece < 1.2 * honest.ece_by_chance  # the 95th percentile of such data
    assert sharp.ece_interval[0] > 2 * sharp.ece_by_chance
    assert abs(honest.confidence - honest.right) < 0.03 and sharp.confidence > sharp.right + 0.1
    assert honest.accuracy_interval[0] < honest.accuracy < honest.accuracy_interval[1]
    assert honest.n + honest.n_none == 3000


def test_calibration_error_in_closed_form() -> None:
    confidence, right = np.array([0.95, 0.95, 0.55, 0.55]), np.array([1, 1, 1, 0])
    assert expected_calibration_error(confidence, right) == pytest.approx(0.5 * 0.05 + 0.5 * 0.05)
    assert expected_calibration_error(np.array([1.0]), np.array([0])) == 1.0
    assert expected_calibration_error(confidence, right, np.array([0, 0, 1, 0])) == pytest.approx(0.45)


def test_the_kept_constants_belong_to_the_phrases_and_taxonomies_that_ship() -> None:
    stored = read_json(CALIBRATION)
    inputs = stored["_made"]["inputs"]
    assert inputs["phrases"] == sha256_file(PHRASES), "run: python scripts/calibrate_assignment.py"
    for name in SHIPPED:
        assert inputs[f"taxonomy of {name}"] == taxonomy_hash(load_trait(name)), "run: python scripts/calibrate_assignment.py"
    assert set(SHIPPED) <= set(list_traits())


@pytest.mark.assets
def test_phrases_of_nothing_are_refused_at_the_stated_rate_and_a_new_wording_finds_its_category() -> None:
    trait, stated = load_trait("evil"), read_json(CALIBRATION)["held_out"]["phrases"]["evil"]
    assigner = load_assigner(trait)
    ids = {category.id for category in trait.taxonomy}
    found = assigner.assign_all(none_phrases(trait)[::3])
    refused = sum(item.category not in ids - {"unclear"} for item in found) / len(found)
    low, high = stated["refused_interval"]
    assert low - 0.08 <= refused <= high + 0.08  # every third phrase only
    assert assigner.assign("taunts that call the reader a brainless idiot").category == "insulting_language"
    assert assigner.assign("second syllables of chemical names").category == "none"
