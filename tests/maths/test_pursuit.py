"""Sparse pursuit: planted truth, scikit-learn's numbers, and the laws the docstring states."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import orthogonal_mp
from torch import Tensor

from workbench.maths.pursuit import energy_curve, signed_omp


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_planted_features_come_back_exactly_from_an_orthogonal_dictionary() -> None:
    rotation = torch.linalg.qr(randn(32, 32))[0]
    scales = torch.linspace(0.5, 3, 32, dtype=torch.float64)[:, None]
    dictionary, planted = rotation * scales, {3: 2.0, 17: -1.5, 30: 0.25}
    vector = sum(c * dictionary[j] for j, c in planted.items())
    assert isinstance(vector, Tensor)
    found = signed_omp(vector[None], dictionary, n_atoms=3)
    by_size = sorted(planted, key=lambda j: -abs(planted[j]) * dictionary[j].norm().item())
    assert found.support[0].tolist() == by_size
    assert found.coefficients[0].tolist() == pytest.approx([planted[j] for j in by_size], abs=1e-10)
    assert found.residual_norms[0, -1] < 1e-10


def test_planted_features_come_back_from_a_correlated_noisy_dictionary() -> None:
    """Rows share a common direction (cosine near .2) and the vector has noise.

    With k = 4 unit coefficients of size >= 1 and noise of norm s, the least-squares coefficients on the right support
    err by at most s / sigma_min of the four rows. The tolerance is that bound, computed for these rows.
    """
    common = randn(1, 256, seed=1) / 16
    dictionary = randn(400, 256, seed=2) / 16 + 0.5 * common
    dictionary = dictionary / dictionary.norm(dim=1, keepdim=True)
    planted, truth = [5, 77, 200, 399], torch.tensor([3.0, -2.5, 2.0, -1.5], dtype=torch.float64)
    noise = randn(256, seed=3) * (0.1 / 16)
    found = signed_omp((truth @ dictionary[planted] + noise)[None], dictionary, n_atoms=4)
    bound = noise.norm() / torch.linalg.svdvals(dictionary[planted]).min()
    order = [found.support[0].tolist().index(j) for j in planted]
    assert sorted(found.support[0].tolist()) == planted
    assert (found.coefficients[0][order] - truth).norm() <= bound


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8))
def test_it_chooses_and_weighs_exactly_as_scikit_learn(seed: int, n_atoms: int) -> None:
    dictionary, vectors = randn(40, 16, seed=seed), randn(3, 16, seed=seed + 1)
    dictionary = dictionary / dictionary.norm(dim=1, keepdim=True)
    found = signed_omp(vectors, dictionary, n_atoms=n_atoms)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = (
            orthogonal_mp(dictionary.T.numpy(), vectors.T.numpy(), n_nonzero_coefs=n_atoms).reshape(40, 3).T
        )
    np.testing.assert_allclose(found.dense(40).numpy(), expected, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-4, 1e4))
def test_scaling_and_rotation_laws(seed: int, scale: float) -> None:
    dictionary, vectors = randn(30, 12, seed=seed), randn(2, 12, seed=seed + 1)
    rotation = torch.linalg.qr(randn(12, 12, seed=seed + 2))[0]
    base = signed_omp(vectors, dictionary, n_atoms=5)
    scaled = signed_omp(-scale * vectors, 2 * dictionary, n_atoms=5)
    rotated = signed_omp(vectors @ rotation, dictionary @ rotation, n_atoms=5)
    assert torch.equal(scaled.support, base.support)
    assert torch.equal(rotated.support, base.support)
    torch.testing.assert_close(scaled.coefficients, -scale * base.coefficients / 2)
    torch.testing.assert_close(rotated.coefficients, base.coefficients)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_reconstruction_and_residual_add_up_and_norms_fall(seed: int) -> None:
    dictionary, vectors = randn(50, 10, seed=seed), randn(4, 10, seed=seed + 1)
    found = signed_omp(vectors, dictionary, n_atoms=9)
    residual = vectors - found.dense(50) @ dictionary
    torch.testing.assert_close(residual.norm(dim=1), found.residual_norms[:, -1], atol=1e-9, rtol=1e-9)
    assert (residual[:, None] * dictionary[found.support]).sum(-1).abs().max() < 1e-9
    assert (found.residual_norms.diff(dim=1) <= 1e-12).all()
    assert all(len(set(row)) == 9 for row in found.support.tolist())
    energy = energy_curve(vectors, found)
    assert ((energy > 0) & (energy <= 1)).all()


def test_zero_rows_and_zero_vectors_are_left_alone() -> None:
    dictionary = torch.eye(4).index_fill(0, torch.tensor([1]), 0)
    found = signed_omp(torch.tensor([[0.0, 5.0, 0.0, 1.0], [0.0] * 4]), dictionary, n_atoms=3)
    assert found.support.tolist() == [[3, -1, -1], [-1, -1, -1]]
    assert found.residual_norms.tolist() == [[5.0] * 3, [0.0] * 3]
    assert found.dense(4)[0].tolist() == [0.0, 0.0, 0.0, 1.0]
    assert energy_curve(torch.zeros(1, 4), signed_omp(torch.zeros(1, 4), dictionary, n_atoms=1)).tolist() == [
        [0.0]
    ]


def test_a_rebuilt_vector_stops_although_others_go_on() -> None:
    dictionary = torch.eye(5)
    found = signed_omp(
        torch.tensor([[0.0, 2.0, 0.0, 0.0, 0.0], [5.0, 4.0, 3.0, 2.0, 1.0]]), dictionary, n_atoms=4
    )
    assert found.support.tolist() == [[1, -1, -1, -1], [0, 1, 2, 3]]
    assert found.coefficients.tolist() == [[2.0, 0.0, 0.0, 0.0], [5.0, 4.0, 3.0, 2.0]]


def test_duplicate_rows_are_not_both_chosen() -> None:
    dictionary = torch.cat([torch.eye(3), 2 * torch.eye(3)[:1]])
    found = signed_omp(torch.tensor([[4.0, 1.0, 0.0]]), dictionary, n_atoms=3)
    assert found.support.tolist() == [[0, 1, -1]]


def test_float32_agrees_with_float64() -> None:
    dictionary, vectors = randn(500, 64, seed=5), randn(3, 64, seed=6)
    exact, single = (
        signed_omp(vectors.to(t), dictionary.to(t), n_atoms=16) for t in (torch.float64, torch.float32)
    )
    assert torch.equal(exact.support, single.support)
    assert single.coefficients.dtype == torch.float32
    torch.testing.assert_close(single.coefficients.double(), exact.coefficients, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("n_atoms", [0, 4])
def test_an_impossible_number_of_atoms_is_refused(n_atoms: int) -> None:
    with pytest.raises(ValueError, match="3 rows"):
        signed_omp(torch.ones(1, 2), torch.ones(3, 2), n_atoms=n_atoms)


def test_nan_and_other_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        signed_omp(torch.full((1, 2), torch.nan), torch.ones(3, 2), n_atoms=1)
    with pytest.raises(ValueError, match="finite"):
        signed_omp(torch.ones(1, 2), torch.full((3, 2), torch.inf), n_atoms=1)
    with pytest.raises(ValueError, match="same site"):
        signed_omp(torch.ones(1, 2), torch.ones(3, 5), n_atoms=1)
