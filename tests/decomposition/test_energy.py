"""Energy explained by few atoms: vectors against dictionaries."""

from __future__ import annotations

import pytest
import torch

from workbench.decomposition.energy import HARD, energy_table


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_vector_of_few_atoms_beats_random_dictionaries_and_a_random_vector_does_not() -> None:
    dictionary, activations = randn(300, 32, seed=1), randn(500, 32, seed=2)
    planted = dictionary[:4].sum(0)
    found = energy_table(planted, dictionary, activations, n_atoms=8, seed=0)
    assert found["atoms"] == [4, 8]
    assert found["sae"][0] > 0.999 > max(found["isotropic"][0], found["covariance_matched"][0])
    null = energy_table(randn(32, seed=3), dictionary, activations, n_atoms=8, seed=0)
    assert abs(null["sae"][0] - null["isotropic"][0]) < 0.15


def test_a_covariance_matched_dictionary_is_the_harder_control() -> None:
    """Activations vary in 4 of 32 directions: a vector among them is rebuilt by 4 matched atoms, not by isotropic ones."""
    mixing = randn(4, 32, seed=4)
    activations, vector = randn(500, 4, seed=5) @ mixing, randn(4, seed=6) @ mixing
    found = energy_table(vector, randn(300, 32, seed=1), activations, n_atoms=4, seed=0)
    assert found["covariance_matched"][0] > 0.999 > 0.9 > found["isotropic"][0]


def test_fewer_atoms_than_the_first_step_still_give_a_number() -> None:
    found = energy_table(randn(8), randn(20, 8, seed=1), None, n_atoms=2, seed=0)
    assert found["atoms"] == [2] and found["covariance_matched"] is None


def test_the_excess_is_the_traits_over_the_placebos_and_over_a_matched_dictionary() -> None:
    dictionary, activations, placebos = randn(300, 32, seed=1), randn(600, 32, seed=2), randn(12, 32, seed=7)
    planted = dictionary[:4].sum(0)
    replicates = planted + 0.05 * randn(20, 32, seed=8)
    found = energy_table(planted, dictionary, activations, n_atoms=4, seed=0, placebos=placebos, replicates=replicates)
    low, high = found["excess"]["interval"]
    assert 0 < low < found["excess"]["value"] < high + 0.05 and found["excess"]["others"] == "placebos"
    assert found["excess"]["value"] == pytest.approx(found["excess"]["own"] - found["excess"]["of_others"])
    assert set(found["vectors"]) == {"placebos", "random"}
    assert set(found["vectors"]["placebos"]) == {"sae", "isotropic", HARD, "activations", "pca"}
    # A vector that is like the placebos has no excess over them.
    null = energy_table(randn(32, seed=9), dictionary, activations, n_atoms=4, seed=0, placebos=placebos)
    low, high = null["excess"]["interval"]
    assert null["excess"]["value"] < 0.3 and null["excess"]["n_replicates"] == 0


def test_the_components_of_the_activations_explain_what_lies_in_few_of_them() -> None:
    mixing = randn(4, 32, seed=4)
    activations, vector = randn(500, 4, seed=5) @ mixing, randn(4, seed=6) @ mixing
    frozen = {"frozen": randn(300, 32, seed=3)}
    found = energy_table(vector, randn(300, 32, seed=1), activations, n_atoms=4, seed=0, controls=frozen)
    assert found["pca"][0] == pytest.approx(1, abs=1e-4) and found["activations"][0] == pytest.approx(1, abs=1e-4)
    assert 0 < found["frozen"][0] < 0.9
