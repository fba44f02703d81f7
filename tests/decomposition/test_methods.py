"""The secondary views of a vector: a planted signed combination comes back, and what a code without signs misses."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from workbench.decomposition.methods import COMPARISON_METHODS, METHODS
from workbench.decomposition.result import FEATURE_ARRAYS

PLANTED = {5: 4.0, 60: -3.0, 150: 2.0}
SIGNED = ["cosine", "pursuit", "cosine_refit", "gradient_pursuit", "elastic_net"]


@pytest.fixture
def sae() -> SimpleNamespace:
    """A dictionary of 200 rows of unequal length in 256 dimensions, where cosines of two rows are near .06."""
    rows = torch.randn(200, 256, generator=torch.Generator().manual_seed(0))
    rows = rows / rows.norm(dim=1, keepdim=True) * torch.linspace(0.8, 1.2, 200)[:, None]

    def encode(activations: Tensor) -> Tensor:
        return (activations @ rows.T).relu()

    return SimpleNamespace(decoder_directions=rows, d_sae=200, encode=encode)


def vector_of(sae: SimpleNamespace) -> Tensor:
    return sum((weight * sae.decoder_directions[row] for row, weight in PLANTED.items()), torch.zeros(256))


def test_the_columns_of_a_decomposition_are_its_methods_and_no_name_is_taken_twice() -> None:
    assert set(METHODS) <= set(FEATURE_ARRAYS)
    assert not set(COMPARISON_METHODS) & {*METHODS, *FEATURE_ARRAYS}


@pytest.mark.parametrize("name", SIGNED)
def test_a_signed_method_finds_the_planted_features_and_their_signs(sae: SimpleNamespace, name: str) -> None:
    values = {**METHODS, **COMPARISON_METHODS}[name](vector_of(sae), sae, 3)
    assert values.shape == (200,)
    top = torch.topk(values.abs(), 3).indices
    assert {int(row): int(values[row].sign()) for row in top} == {5: 1, 60: -1, 150: 1}
    if name != "cosine":
        assert int((values != 0).sum()) == 3


@pytest.mark.parametrize("name", ["pursuit", "cosine_refit"])
def test_least_squares_gives_the_planted_coefficients(sae: SimpleNamespace, name: str) -> None:
    values = {**METHODS, **COMPARISON_METHODS}[name](vector_of(sae), sae, 3)
    assert {row: float(values[row]) for row in PLANTED} == pytest.approx(PLANTED, abs=1e-4)


@pytest.mark.parametrize("name", ["non_negative_pursuit", "naive"])
def test_a_method_without_signs_misses_the_negative_feature(sae: SimpleNamespace, name: str) -> None:
    values = {**METHODS, **COMPARISON_METHODS}[name](vector_of(sae), sae, 10)
    assert values[60] == 0
    assert values[5] > 0 and values[150] > 0
    assert (values >= 0).all()


@pytest.mark.parametrize("name", [*METHODS, *COMPARISON_METHODS])
def test_more_atoms_than_features_and_a_zero_vector_are_no_trouble(sae: SimpleNamespace, name: str) -> None:
    method = {**METHODS, **COMPARISON_METHODS}[name]
    assert (method(torch.zeros(256), sae, 500) == 0).all()
    assert torch.isfinite(method(vector_of(sae), sae, 500)).all()
