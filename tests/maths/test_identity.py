"""The accounting identity: shares that sum to 1, and the laws they obey."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from workbench.maths.identity import delta_error, shares


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def case(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    codes, decoder, error = randn(2, 20, seed=seed), randn(20, 7, seed=seed + 1), randn(2, 7, seed=seed + 2)
    return codes, decoder, codes @ decoder + error, error


def test_a_hand_made_case_has_the_expected_shares() -> None:
    codes, decoder = torch.tensor([[2.0, -1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0], [5.0, 5.0]])
    error = torch.tensor([[1.0, 0.0]])
    vector = codes @ decoder + error  # (3, -2), |v|^2 = 13
    found = shares(codes, decoder, vector, error)
    assert found.features[0].tolist() == pytest.approx([6 / 13, 4 / 13, 0.0])
    assert found.error.item() == pytest.approx(3 / 13)
    assert found.sum_error.item() < 1e-12


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-3, 1e3))
def test_shares_sum_to_one_and_ignore_scale_and_rotation(seed: int, scale: float) -> None:
    codes, decoder, vectors, error = case(seed)
    rotation = torch.linalg.qr(randn(7, 7, seed=seed + 3))[0]
    found = shares(codes, decoder, vectors, error)
    assert found.sum_error.max() < 1e-9
    scaled = shares(-scale * codes, decoder, -scale * vectors, -scale * error)
    rotated = shares(codes, decoder @ rotation, vectors @ rotation, error @ rotation)
    torch.testing.assert_close(scaled.features, found.features)
    torch.testing.assert_close(rotated.features, found.features)
    torch.testing.assert_close(delta_error(codes, decoder, vectors, block=6), error)


def test_splitting_a_feature_splits_its_share() -> None:
    codes, decoder, vectors, error = case(3)
    whole = shares(codes, decoder, vectors, error).features
    split = torch.cat([codes[:, :1] * 0.3, codes[:, :1] * 0.7, codes[:, 1:]], dim=1)
    found = shares(split, torch.cat([decoder[:1], decoder]), vectors, error).features
    torch.testing.assert_close(found[:, :2].sum(1), whole[:, 0])


def test_a_zero_vector_has_no_shares() -> None:
    with pytest.raises(ValueError, match="zero vector"):
        shares(torch.zeros(1, 3), torch.ones(3, 2), torch.zeros(1, 2), torch.zeros(1, 2))
