"""Sparse pursuit: planted truth, scikit-learn's numbers, and the laws the docstring states."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from sklearn.linear_model import orthogonal_mp
from torch import Tensor

from workbench.maths.pursuit import (
    energy_curve,
    gradient_pursuit,
    least_squares,
    non_negative_omp,
    signed_omp,
)

PURSUITS = [signed_omp, gradient_pursuit, non_negative_omp]


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


@pytest.mark.parametrize("pursuit", PURSUITS)
def test_vectors_one_by_one_and_rows_in_another_order_give_the_same(pursuit) -> None:
    dictionary, vectors = randn(60, 12, seed=1) * torch.linspace(0.1, 9, 60, dtype=torch.float64)[:, None], randn(35, 12)
    together, order = pursuit(vectors, dictionary, n_atoms=7), torch.randperm(60, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(torch.cat([pursuit(v, dictionary, n_atoms=7).dense(60) for v in vectors]), together.dense(60))
    torch.testing.assert_close(pursuit(vectors, dictionary[order], n_atoms=7).dense(60), together.dense(60)[:, order])


@pytest.mark.parametrize("pursuit", PURSUITS)
def test_the_laws_of_scale_and_rotation_hold_for_every_pursuit(pursuit) -> None:
    dictionary, vectors, rotation = randn(40, 9, seed=3), randn(4, 9, seed=4), torch.linalg.qr(randn(9, 9, seed=5))[0]
    scales = torch.logspace(-3, 3, 40, dtype=torch.float64)
    base = pursuit(vectors, dictionary, n_atoms=6)
    scaled = pursuit(1e3 * vectors @ rotation, scales[:, None] * dictionary @ rotation, n_atoms=6)
    torch.testing.assert_close(scaled.dense(40) * scales, 1e3 * base.dense(40))
    torch.testing.assert_close(scaled.residual_norms, 1e3 * base.residual_norms)
    assert (base.residual_norms.diff(dim=1) <= 1e-12).all()
    left = (vectors - base.dense(40) @ dictionary).norm(dim=1)
    torch.testing.assert_close(left, base.residual_norms[:, -1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("pursuit", PURSUITS)
def test_rows_of_half_precision_are_the_numbers_that_they_are(pursuit, dtype: torch.dtype) -> None:
    dictionary = (3 * randn(300, 24, seed=7)).to(dtype)
    vectors = randn(3, 24, seed=8)
    half, double = pursuit(vectors, dictionary, n_atoms=5), pursuit(vectors, dictionary.double(), n_atoms=5)
    assert half.coefficients.dtype == dtype
    assert torch.equal(half.support, double.support)
    torch.testing.assert_close(half.coefficients, double.coefficients.to(dtype))


@pytest.mark.parametrize("pursuit", PURSUITS)
def test_nearly_equal_rows_do_not_blow_up(pursuit) -> None:
    """The second row is the first but for 1e-6: in float32 what tells them apart is rounding."""
    dictionary = randn(30, 8, seed=9).float()
    dictionary[1] = dictionary[0] + 1e-6 * dictionary[2]
    found = pursuit(3 * dictionary[:1] - dictionary[5:6], dictionary, n_atoms=6)
    assert found.residual_norms[0, -1] <= 3 * dictionary[0].norm()
    assert torch.isfinite(found.coefficients).all()
    if pursuit is not non_negative_omp:
        assert found.residual_norms[0, -1] < 0.2 * dictionary[5].norm()


def plain_gradient_pursuit(vector: Tensor, dictionary: Tensor, n_steps: int) -> Tensor:
    """The algorithm as published, one vector, unit rows, every row read at every step."""
    weights, chosen = torch.zeros(len(dictionary)).double(), torch.zeros(len(dictionary)).bool()
    for _ in range(n_steps):
        residual = vector - weights @ dictionary
        correlations = dictionary @ residual
        chosen[correlations.abs().argmax()] = True
        gradient = correlations * chosen
        direction = gradient @ dictionary
        weights += gradient * (direction @ residual) / (direction @ direction)
    return weights


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_gradient_pursuit_is_the_published_algorithm(seed: int) -> None:
    dictionary, vectors = randn(40, 16, seed=seed), randn(3, 16, seed=seed + 1)
    dictionary = dictionary / dictionary.norm(dim=1, keepdim=True)
    found = gradient_pursuit(vectors, dictionary, n_atoms=12)
    expected = torch.stack([plain_gradient_pursuit(v, dictionary, 12) for v in vectors])
    torch.testing.assert_close(found.dense(40), expected, atol=1e-9, rtol=1e-9)


def test_gradient_pursuit_refines_a_row_that_it_chooses_again() -> None:
    dictionary = torch.tensor([[1.0, 0.0], [0.8, 0.6]]).double()
    found = gradient_pursuit(torch.tensor([1.0, 2.0]).double(), dictionary, n_atoms=2)
    more = gradient_pursuit(torch.tensor([1.0, 2.0]).double(), dictionary.repeat(20, 1), n_atoms=40)
    assert found.support[0].tolist() == [1, 0]
    assert sorted({*more.support[0].tolist()}) == [-1, 0, 1]
    torch.testing.assert_close(more.dense(40)[0, :2], torch.tensor([-5 / 3, 10 / 3]).double(), atol=1e-3, rtol=0)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_non_negative_omp_solves_its_support_as_scipy_and_meets_the_optimality_conditions(seed: int) -> None:
    dictionary, vectors = randn(50, 12, seed=seed), randn(3, 12, seed=seed + 1)
    found = non_negative_omp(vectors, dictionary, n_atoms=8)
    for vector, support, coefficients in zip(vectors, found.support, found.coefficients, strict=True):
        rows = dictionary[support[support >= 0]]
        expected = nnls(rows.T.numpy(), vector.numpy())[0]
        torch.testing.assert_close(coefficients[support >= 0], torch.from_numpy(expected), atol=1e-9, rtol=1e-9)
        slopes = rows @ (vector - coefficients[support >= 0] @ rows)
        assert (slopes <= 1e-9).all() and (slopes[expected > 0].abs() <= 1e-9).all()


def test_non_negative_omp_uses_a_row_outside_the_cone_although_it_depends_on_the_others() -> None:
    """The third row is minus the sum of the first two: useless to signed least squares, needed without signs."""
    dictionary = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [-1.0, -1.0, 0.0]])
    found = non_negative_omp(torch.tensor([-2.0, -1.0, 0.0]), dictionary, n_atoms=3)
    assert found.residual_norms[0, -1] < 1e-6
    assert found.dense(3)[0].tolist() == pytest.approx([0, 1, 2], abs=1e-6)


def test_a_negative_feature_is_found_with_signs_and_missed_without() -> None:
    dictionary = randn(200, 128, seed=10)
    dictionary = dictionary / dictionary.norm(dim=1, keepdim=True)
    vector = 3 * dictionary[4] - 2 * dictionary[9] + dictionary[30]
    for pursuit in (signed_omp, gradient_pursuit):
        found = pursuit(vector, dictionary, n_atoms=3)
        assert sorted(found.support[0].tolist()) == [4, 9, 30]
        assert found.dense(200)[0, 9] < -1.8
    assert 9 not in non_negative_omp(vector, dictionary, n_atoms=20).support[0].tolist()


def test_least_squares_is_numpys_and_that_of_the_pursuit_on_its_support() -> None:
    dictionary, vectors = randn(30, 10, seed=11) * 5, randn(3, 10, seed=12)
    found = signed_omp(vectors, dictionary, n_atoms=6)
    torch.testing.assert_close(least_squares(vectors, dictionary, found.support), found.coefficients)
    support = torch.tensor([7, 2, 29])
    expected = np.linalg.lstsq(dictionary[support].T.numpy(), vectors.T.numpy(), rcond=None)[0].T
    np.testing.assert_allclose(least_squares(vectors, dictionary, support).numpy(), expected, atol=1e-12)


def test_least_squares_shares_between_equal_rows_and_leaves_out_zero_rows_and_minus_one() -> None:
    dictionary = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 4.0]])
    found = least_squares(torch.tensor([[2.0, 8.0], [0.0, 4.0]]), dictionary, torch.tensor([[0, 1, 2, 3], [-1, 0, -1, 3]]))
    torch.testing.assert_close(found, torch.tensor([[1.0, 1.0, 0.0, 2.0], [0.0, 0.0, 0.0, 1.0]]))
    with pytest.raises(ValueError, match="rows 0 to 3"):
        least_squares(torch.ones(1, 2), dictionary, torch.tensor([4]))


def test_no_vectors_give_no_rows() -> None:
    assert signed_omp(torch.zeros(0, 3), torch.eye(3), n_atoms=2).support.shape == (0, 2)
