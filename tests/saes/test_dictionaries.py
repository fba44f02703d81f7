"""Random dictionaries, expression of vectors, stability over seeds: planted truth and dictionaries that learnt nothing."""

from __future__ import annotations

import pytest
import torch

from tests.saes.planted import small_sae
from workbench.base.errors import WorkbenchError
from workbench.base.randomness import generator
from workbench.maths.geometry import isotropic_directions
from workbench.saes.evaluation.dictionaries import (
    activation_directions,
    mean_l0,
    principal_directions,
    random_dictionary,
    random_directions,
)
from workbench.saes.evaluation.expression import expressed, expression
from workbench.saes.evaluation.stability import best_matches, matched_features, stability


def _activations(n: int = 3000, d_model: int = 16) -> torch.Tensor:
    """Anisotropic: the standard deviations fall from 4 to 1/4."""
    scale = torch.linspace(2, -2, d_model).exp2()
    return torch.randn(n, d_model, generator=generator(3)) * scale + 1.0


@pytest.mark.parametrize("kind", ["random_isotropic", "random_covariance"])
def test_a_random_dictionary_fires_as_often_as_the_sae(kind: str) -> None:
    sae, x = small_sae(threshold=2.0), _activations()
    other = random_dictionary(sae, x, kind=kind)
    assert mean_l0(other, x) == pytest.approx(mean_l0(sae, x), rel=0.02)
    assert other.decoder_directions.shape == sae.decoder_directions.shape
    torch.testing.assert_close(other.decoder_directions.norm(dim=1), torch.ones(sae.d_sae))


def test_a_random_dictionary_fires_as_often_on_all_texts_not_only_on_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    sae, x = small_sae(threshold=2.0), _activations()
    x[:1000] *= 0.1  # a first text set of quiet tokens
    whole = random_dictionary(sae, x, kind="random_covariance")
    monkeypatch.setattr("workbench.saes.evaluation.fitness.VALUES_AT_ONCE", 500 * sae.d_sae)
    other = random_dictionary(sae, x, kind="random_covariance")
    assert mean_l0(other, x) == pytest.approx(mean_l0(sae, x), rel=0.01)
    assert whole.threshold is not None and other.threshold is not None
    torch.testing.assert_close(other.threshold, whole.threshold)  # whatever is held at once
    monkeypatch.setattr("workbench.saes.evaluation.dictionaries.KEPT_VALUES", 2000)
    few = random_dictionary(sae, x, kind="random_covariance")
    assert mean_l0(few, x) == pytest.approx(mean_l0(sae, x), rel=0.1)  # from tokens that are spread over the sets


def test_random_directions_have_the_covariance_that_was_asked_for() -> None:
    x = _activations()
    isotropic, matched = (random_directions(f"random_{k}", x, 4000, 0).square().mean(0) for k in ("isotropic", "covariance"))
    assert float(isotropic.max() / isotropic.min()) < 1.3
    assert float(matched[0] / matched[-1]) > 50
    with pytest.raises(WorkbenchError, match="random_isotropic"):
        random_directions("random_gaussian", x, 4, 0)


def test_principal_directions_are_orthonormal_and_ordered() -> None:
    rows = principal_directions(_activations())
    torch.testing.assert_close(rows @ rows.T, torch.eye(16), atol=1e-5, rtol=0)
    spread = (_activations() @ rows.T).std(0)
    assert bool((spread[:-1] >= spread[1:] - 1e-4).all())
    assert abs(float(rows[0, 0])) > 0.99


def test_a_vector_made_of_three_rows_is_expressed_by_three_atoms_and_hardly_by_random_ones() -> None:
    decoder = isotropic_directions(64, 128, generator(0))
    vector = 2 * decoder[3] - decoder[11] + 0.5 * decoder[40]
    table = expression({"v": vector}, {"sae": decoder}, torch.randn(500, 128, generator=generator(1)), n_atoms=(3, 8))
    assert table["per_vector"]["v"]["sae"] == pytest.approx([1.0, 1.0], abs=1e-5)
    assert table["mean"]["random_isotropic"][0] < 0.4
    assert table["mean"]["pca"][0] < 0.4
    assert table["spread_over_draws"]["random_isotropic"][0] < 0.1


def test_an_orthonormal_basis_expresses_the_largest_coordinates_and_with_d_model_atoms_everything() -> None:
    vector = torch.tensor([[3.0, -2.0, 1.0, 0.0]])
    energies = expressed(vector, torch.eye(4), (1, 2, 4, 100))
    assert energies[0].tolist() == pytest.approx([9 / 14, 13 / 14, 1, 1])


def test_expression_is_that_of_the_pursuit_whatever_the_length_of_the_rows() -> None:
    decoder, vectors = isotropic_directions(40, 12, generator(5)), torch.randn(2, 12, generator=generator(6))
    torch.testing.assert_close(expressed(vectors, decoder), expressed(3 * vectors, 7 * decoder), atol=1e-5, rtol=0)


# Stability


def test_a_permuted_decoder_is_stable_and_another_seed_is_not() -> None:
    decoder = isotropic_directions(300, 64, generator(0))
    permuted = 5 * decoder[torch.randperm(300, generator=generator(1))]
    top = {"evil": range(30)}
    assert stability(decoder, permuted, lists=top)["seed_matched"] == 1
    other = stability(decoder, isotropic_directions(300, 64, generator(2)), lists=top)
    assert other["seed_matched"] == other["seed_matched_lists"]["evil"] == 0  # the best of 300 in 64 dimensions is near .4


def test_features_that_stayed_at_the_data_they_started_from_match_no_better_than_the_data() -> None:
    x = _activations(4000, 16)
    frozen, twin = (activation_directions(x, 300, seed) for seed in (0, 1))
    shared = len({tuple(row.tolist()) for row in frozen} & {tuple(row.tolist()) for row in twin})
    assert 5 < shared < 60  # two draws from one store share starts
    null = stability(frozen, activation_directions(x, 300, 2))["seed_matched"]
    assert stability(frozen, twin)["seed_matched"] == pytest.approx(null, abs=0.12)
    assert null > 0.3 > stability(frozen, isotropic_directions(300, 16, generator(4)))["seed_matched"]


def test_directions_of_activations_are_distinct_centred_and_no_more_than_there_are() -> None:
    x = torch.cat([_activations(50, 8), _activations(50, 8).mean(0, keepdim=True)])  # the last one is the mean: no direction
    rows = activation_directions(x, 200, 0)
    assert rows.shape == (50, 8)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(50))
    assert len(rows.unique(dim=0)) == 50
    assert stability(rows, rows)["n_directions"] == 50


def test_matches_are_signed_mutual_and_counted_among_the_living() -> None:
    decoder = torch.eye(6)
    other = torch.cat([-decoder[:1], decoder[1:4], decoder[3:4] + 0.1 * decoder[5:6], torch.ones(1, 6)])
    matched = matched_features(decoder, other)
    assert matched.tolist() == [False, True, True, True, False, False]  # 0 is negated; 4 and 5 have no counterpart
    found = stability(decoder, other, alive=torch.tensor([1, 1, 1, 1, 0, 0]).bool(), lists={"evil": [1, 4], "none": []})
    assert (found["seed_matched"], found["seed_matched_lists"], found["n_alive"]) == (0.75, {"evil": 0.5}, 4)


def test_best_matches_agree_with_all_pairs() -> None:
    a, b = torch.randn(50, 8, generator=generator(0)), torch.randn(30, 8, generator=generator(1))
    index, cosine = best_matches(a, b)
    pairs = torch.nn.functional.cosine_similarity(a[:, None], b[None], dim=-1)
    assert torch.equal(index, pairs.argmax(1))
    torch.testing.assert_close(cosine, pairs.max(1).values)
