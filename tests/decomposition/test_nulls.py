"""Controls: tests over questions and random dictionaries."""

from __future__ import annotations

import torch

from workbench.decomposition.nulls import energy_against_random, feature_tests


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_features_that_never_fire_are_not_tested() -> None:
    differences = torch.cat([randn(10, 3).abs(), torch.zeros(10, 97)], dim=1)
    tests = feature_tests(differences)
    assert tests.n_active == 3
    # With 97 silent features in the family these would be q = 100/3 times p; they are not in it.
    assert torch.allclose(tests.q_value[:3], torch.full((3,), 2 / 2**10, dtype=torch.float64))
    assert tests.q_value[3:].isnan().all()


def test_one_question_tests_nothing() -> None:
    tests = feature_tests(torch.ones(1, 4))
    assert tests.p_value.isnan().all() and tests.q_value.isnan().all()


def test_a_vector_of_few_atoms_beats_random_dictionaries_and_a_random_vector_does_not() -> None:
    dictionary, activations = randn(300, 32, seed=1), randn(500, 32, seed=2)
    planted = dictionary[:4].sum(0)
    found = energy_against_random(planted, dictionary, activations, n_atoms=8, seed=0)
    assert found["atoms"] == [4, 8]
    assert found["sae"][0] > 0.999 > max(found["isotropic"][0], found["covariance_matched"][0])
    null = energy_against_random(randn(32, seed=3), dictionary, activations, n_atoms=8, seed=0)
    assert abs(null["sae"][0] - null["isotropic"][0]) < 0.15


def test_a_covariance_matched_dictionary_is_the_harder_control() -> None:
    """Activations vary in 4 of 32 directions: a vector among them is rebuilt by 4 matched atoms, not by isotropic ones."""
    mixing = randn(4, 32, seed=4)
    activations, vector = randn(500, 4, seed=5) @ mixing, randn(4, seed=6) @ mixing
    found = energy_against_random(vector, randn(300, 32, seed=1), activations, n_atoms=4, seed=0)
    assert found["covariance_matched"][0] > 0.999 > 0.9 > found["isotropic"][0]


def test_fewer_atoms_than_the_first_step_still_give_a_number() -> None:
    found = energy_against_random(randn(8), randn(20, 8, seed=1), None, n_atoms=2, seed=0)
    assert found["atoms"] == [2] and found["covariance_matched"] is None
