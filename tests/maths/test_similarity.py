"""Similarity of representations: closed forms, invariances, and unrelated data that must look unrelated."""

from __future__ import annotations

import pytest
import torch

from workbench.maths.similarity import Ridge, cka_profile, linear_cka, pair_order, ridge_map, rsa, rsa_profile


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rotation(d: int, seed: int) -> torch.Tensor:
    return torch.linalg.qr(draws(d, d, seed=seed))[0]


@pytest.mark.parametrize("measure", [linear_cka, rsa])
def test_a_rotated_scaled_and_shifted_copy_is_the_same_representation(measure):
    x = draws(60, 8)
    assert measure(x, 3 * x @ rotation(8, 1) + 5) == pytest.approx(1, abs=1e-4)


def test_unrelated_representations_look_unrelated_and_permuted_items_too():
    x, y = draws(400, 6, seed=1), draws(400, 9, seed=2)
    assert linear_cka(x, y) < 0.1 and abs(rsa(x, y)) < 0.05
    related = x @ draws(6, 9, seed=3)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(4))
    assert linear_cka(x, related) > 0.5 > 0.1 > linear_cka(x[order], related)


def test_the_ridge_map_finds_a_planted_map_and_carries_directions_it_never_saw():
    x, planted = draws(3000, 12, seed=1), draws(12, 7, seed=2)
    y = x @ planted + 0.1 * draws(3000, 7, seed=3) + 4
    found = ridge_map(x + 2, y, generator=torch.Generator().manual_seed(0))
    assert found.r2 > 0.99
    vector = draws(1, 12, seed=9)
    assert torch.cosine_similarity(found.directions(vector), vector @ planted).item() > 0.999


def test_a_map_of_permuted_items_predicts_nothing():
    x = draws(2000, 10, seed=1)
    y = (x @ draws(10, 10, seed=2))[torch.randperm(2000, generator=torch.Generator().manual_seed(5))]
    found = ridge_map(x, y, generator=torch.Generator().manual_seed(0))
    assert found.r2 < 0.05


def test_the_penalty_and_r2_come_from_rows_of_their_own():
    found = ridge_map(draws(1000, 6), draws(1000, 6, seed=1), generator=torch.Generator().manual_seed(0))
    assert (found.n_rows, found.n_aside) == (800, 100)


def test_r2_of_noise_is_not_lifted_by_choosing_the_penalty():
    """40 times the best of many penalties on pure noise: r2 is told on other rows, so no more often above 0 than chance."""
    above = 0
    for seed in range(40):
        x, y = draws(60, 3, seed=seed), draws(60, 2, seed=1000 + seed)
        made = Ridge(x, y, penalties=[10.0**k for k in range(-4, 6)], generator=torch.Generator().manual_seed(seed)).map()
        above += made.r2 > 0
    # The map's own noise and the parts' different means push r2 below 0; above 28 of 40 has p < .01 even without them.
    assert above <= 28


def test_permuted_images_are_those_of_maps_fitted_to_permuted_rows():
    x, y, vectors = draws(300, 8, seed=1), draws(300, 5, seed=2), draws(3, 8, seed=3)
    ridge = Ridge(x, y, penalties=(0.01, 1.0), generator=torch.Generator().manual_seed(0))
    images = torch.cat(list(ridge.permuted_images(vectors, 3, torch.Generator().manual_seed(7))))
    assert images.shape == (3, 2, 3, 5)
    random = torch.Generator().manual_seed(7)
    for image in images:
        made = ridge.map(torch.randperm(ridge.n_rows, generator=random))
        torch.testing.assert_close(image[ridge.penalties.index(made.penalty)].float(), made.directions(vectors))


@pytest.mark.parametrize(("profile", "diagonal"), [(cka_profile, True), (rsa_profile, False)])
def test_a_profile_of_permuted_items_is_the_profile_permuted(profile, diagonal):
    x, order = draws(12, 5), torch.randperm(12, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(profile(x[order]), profile(x)[pair_order(order, diagonal=diagonal)])


def test_profiles_give_the_measures_of_their_definitions():
    from scipy.spatial.distance import pdist
    from scipy.stats import spearmanr

    x, y = draws(30, 4, seed=1), draws(30, 7, seed=2)
    cx, cy = (side.double() - side.double().mean(dim=0) for side in (x, y))
    by_features = (cy.T @ cx).square().sum() / ((cx.T @ cx).norm() * (cy.T @ cy).norm())
    assert linear_cka(x, y) == pytest.approx(float(by_features))
    expected = spearmanr(pdist(cx.numpy(), "cosine"), pdist(cy.numpy(), "cosine"))[0]
    assert rsa(x, y) == pytest.approx(float(expected))


def test_rows_that_are_not_the_same_items_are_refused():
    for measure in (linear_cka, rsa):
        with pytest.raises(ValueError, match="same items"):
            measure(draws(5, 2), draws(6, 2))
    with pytest.raises(ValueError, match="same items"):
        ridge_map(draws(5, 2), draws(5, 2), generator=torch.Generator())
