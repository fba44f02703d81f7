"""Similarity of representations: closed forms, invariances, and unrelated data that must look unrelated."""

from __future__ import annotations

import pytest
import torch

from workbench.maths.similarity import linear_cka, ridge_map, rsa


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


def test_rows_that_are_not_the_same_items_are_refused():
    for measure in (linear_cka, rsa):
        with pytest.raises(ValueError, match="same items"):
            measure(draws(5, 2), draws(6, 2))
    with pytest.raises(ValueError, match="same items"):
        ridge_map(draws(5, 2), draws(5, 2), generator=torch.Generator())
