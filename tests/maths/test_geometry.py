"""Cosines and random directions: closed forms and the laws the docstrings state."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.maths.geometry import (
    covariance_matched_directions,
    isotropic_directions,
    projections,
    signed_cosines,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_cosines_are_signed_and_zero_for_zero_rows() -> None:
    dictionary = torch.tensor([[2.0, 0.0], [0.0, -5.0], [0.0, 0.0], [3.0, 3.0]])
    found = signed_cosines(torch.tensor([[0.0, 1.0]]), dictionary)
    assert found[0].tolist() == pytest.approx([0.0, -1.0, 0.0, 0.5**0.5])
    assert signed_cosines(torch.zeros(2), dictionary).tolist() == [0.0] * 4


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-3, 1e3))
def test_cosines_ignore_scale_flip_with_the_vector_and_survive_rotation(seed: int, scale: float) -> None:
    vectors = torch.randn(3, 6, generator=seeded(seed), dtype=torch.float64)
    dictionary = torch.randn(11, 6, generator=seeded(seed + 1), dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=seeded(seed + 2), dtype=torch.float64))[0]
    found = signed_cosines(vectors, dictionary)
    torch.testing.assert_close(signed_cosines(-scale * vectors, 3 * dictionary), -found)
    torch.testing.assert_close(signed_cosines(vectors @ rotation, dictionary @ rotation), found)
    torch.testing.assert_close(
        found, torch.nn.functional.cosine_similarity(vectors[:, None], dictionary[None], dim=-1)
    )


def test_projections_in_blocks_equal_one_product() -> None:
    vectors, dictionary = torch.randn(2, 8, generator=seeded()), torch.randn(33, 8, generator=seeded(1))
    torch.testing.assert_close(
        projections(vectors, dictionary, block=10), vectors.double() @ dictionary.double().T
    )


@pytest.mark.parametrize("function", [signed_cosines, projections])
def test_differing_widths_are_refused_with_both_numbers(function) -> None:
    with pytest.raises(ValueError, match=r"d_model=4 .* 6"):
        function(torch.zeros(1, 4), torch.zeros(3, 6))


def test_matched_directions_have_the_covariance_of_the_activations() -> None:
    mixing = torch.tensor([[4.0, 0.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 0.1]])
    activations = torch.randn(4000, 3, generator=seeded()) @ mixing.T + 7
    directions = covariance_matched_directions(activations, 20_000, seeded(1))
    # Relative error of a covariance entry from N draws: sqrt(2 / N) = 1% of the largest; 5 sigma.
    scale = activations.T.cov().abs().max()
    assert (directions.T.cov() - activations.T.cov()).abs().max() < 0.05 * scale
    assert directions.mean(0).abs().max() < 0.2  # centred: the activations' mean of 7 is not in them


def test_matched_directions_stay_in_the_span_when_there_are_few_activations() -> None:
    activations = torch.randn(3, 10, generator=seeded())
    directions = covariance_matched_directions(activations, 50, seeded(1))
    assert torch.linalg.matrix_rank(directions, atol=1e-4).item() == 2


def test_isotropic_directions_are_unit_and_seeded() -> None:
    directions = isotropic_directions(100, 5, seeded())
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(100))
    assert torch.equal(directions, isotropic_directions(100, 5, seeded()))
