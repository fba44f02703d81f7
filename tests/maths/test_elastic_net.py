"""The elastic-net path: optimal on the whole dictionary, scikit-learn's numbers, and the laws the docstring states."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import enet_path
from torch import Tensor

from workbench.maths import elastic_net
from workbench.maths.elastic_net import ElasticNetPath, elastic_net_path
from workbench.maths.geometry import reciprocal, row_norms


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def violation(path: ElasticNetPath, vectors: Tensor, dictionary: Tensor, l1_ratio: float) -> float:
    """The largest breach of the optimality conditions over all rows and entries, as a share of |v|."""
    vectors, rows, penalties = vectors.double(), dictionary.double(), path.penalties.double()[..., None]
    norms = row_norms(rows)
    weights = path.dense(len(rows)).double() * norms
    units = rows * reciprocal(norms)[:, None]
    lengths = vectors.norm(dim=1)[:, None, None]
    slopes = (vectors[:, None] - weights @ units) @ units.T - penalties * (1 - l1_ratio) * weights * reciprocal(lengths)
    limit = penalties * l1_ratio
    breach = torch.where(weights != 0, (slopes - limit * weights.sign()).abs(), (slopes.abs() - limit).clamp_min(0))
    return float((breach * reciprocal(lengths)).max())


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1.0, 0.9, 0.3]), st.sampled_from([2, 16, 256]))
def test_it_is_optimal_on_the_whole_dictionary_however_small_the_working_set(seed: int, l1_ratio: float, working: int) -> None:
    dictionary, vectors = randn(120, 20, seed=seed) * (1 + randn(120, 1, seed=seed + 2) ** 2), randn(2, 20, seed=seed + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(elastic_net, "WORKING_ROWS", working)
        path = elastic_net_path(vectors, dictionary, n_atoms=10, l1_ratio=l1_ratio, n_penalties=30)
    assert violation(path, vectors, dictionary, l1_ratio) < 1e-9
    assert int((path.coefficients != 0).sum(dim=2).max()) <= 10
    assert (path.residual_norms.diff(dim=1) <= 1e-9).all()


@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
def test_it_is_scikit_learns_path_for_unit_vectors_and_rows(l1_ratio: float) -> None:
    dictionary, vectors = randn(80, 25, seed=1), randn(2, 25, seed=2)
    dictionary, vectors = (rows / rows.norm(dim=1, keepdim=True) for rows in (dictionary, vectors))
    path = elastic_net_path(vectors, dictionary, n_atoms=80, l1_ratio=l1_ratio, n_penalties=12)
    for vector, penalties, coefficients in zip(vectors, path.penalties, path.dense(80), strict=True):
        alphas = (penalties / 25).numpy()
        _, expected, _ = enet_path(dictionary.T.numpy(), vector.numpy(), alphas=alphas, l1_ratio=l1_ratio, tol=1e-12)
        torch.testing.assert_close(coefficients, torch.from_numpy(expected.T).contiguous(), atol=1e-5, rtol=1e-5)


def test_orthogonal_rows_have_the_closed_form() -> None:
    """Soft thresholding: w_j = sign(a_j) max(|a_j| - p l, 0) / (1 + p (1 - l) / |v|) for a_j = <v, d_j> / |d_j|."""
    rotation, scales = torch.linalg.qr(randn(16, 16))[0], torch.linspace(0.5, 3, 16, dtype=torch.float64)
    vector = randn(16, seed=1)
    path, aligned = elastic_net_path(vector, rotation * scales[:, None], n_atoms=16, l1_ratio=0.7), rotation @ vector
    penalties = path.penalties[0, :, None]
    shrunk = (aligned.abs() - 0.7 * penalties).clamp_min(0) / (1 + 0.3 * penalties / vector.norm())
    torch.testing.assert_close(path.dense(16)[0], aligned.sign() * shrunk / scales, atol=1e-10, rtol=1e-10)


def test_planted_features_come_back_with_their_signs() -> None:
    dictionary = randn(300, 64, seed=3)
    dictionary = dictionary / dictionary.norm(dim=1, keepdim=True)
    path = elastic_net_path(4 * dictionary[7] - 3 * dictionary[100] + 3 * dictionary[200], dictionary, n_atoms=3)
    found = path.dense(300)[0, -1]
    assert found.nonzero()[:, 0].tolist() == [7, 100, 200]
    assert found.sign()[[7, 100, 200]].tolist() == [1, -1, 1]


def test_laws_of_scale_rotation_order_and_batch() -> None:
    dictionary, vectors, rotation = randn(60, 12, seed=4), randn(3, 12, seed=5), torch.linalg.qr(randn(12, 12, seed=6))[0]
    scales, order = torch.logspace(-3, 3, 60, dtype=torch.float64), torch.randperm(60, generator=torch.Generator().manual_seed(7))
    base = elastic_net_path(vectors, dictionary, n_atoms=8, l1_ratio=0.8)
    moved = (scales[:, None] * dictionary @ rotation)[order]
    scaled = elastic_net_path(-1e3 * vectors @ rotation, moved, n_atoms=8, l1_ratio=0.8)
    torch.testing.assert_close(scaled.dense(60) * scales[order], -1e3 * base.dense(60)[..., order], atol=1e-6, rtol=1e-8)
    torch.testing.assert_close(scaled.penalties, 1e3 * base.penalties)
    one = torch.cat([elastic_net_path(v, dictionary, n_atoms=8, l1_ratio=0.8).dense(60) for v in vectors])
    torch.testing.assert_close(one, base.dense(60))


@pytest.mark.parametrize("l1_ratio", [1.0, 0.6])
def test_equal_opposite_nearly_equal_and_zero_rows(l1_ratio: float) -> None:
    dictionary = randn(40, 10, seed=7)
    dictionary[1], dictionary[2], dictionary[3] = 2 * dictionary[0], -dictionary[0], 0
    dictionary[4] = dictionary[0] + 1e-7 * dictionary[5]
    vectors = torch.stack([3 * dictionary[0] - 2 * dictionary[9], randn(10, seed=8), torch.zeros(10).double()])
    path = elastic_net_path(vectors, dictionary, n_atoms=9, l1_ratio=l1_ratio)
    assert violation(path, vectors, dictionary, l1_ratio) < 1e-6
    assert (path.dense(40)[..., 3] == 0).all() and (path.dense(40)[2] == 0).all()
    if l1_ratio < 1:  # strictly convex: rows of one direction share at unit length
        torch.testing.assert_close(path.dense(40)[0, :, 0], 2 * path.dense(40)[0, :, 1], atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_single_and_half_precision_are_optimal_to_their_rounding(dtype: torch.dtype) -> None:
    dictionary, vectors = randn(500, 48, seed=9).to(dtype), randn(2, 48, seed=10).to(dtype)
    path = elastic_net_path(vectors, dictionary, n_atoms=20)
    assert path.coefficients.dtype == dtype
    assert violation(path, vectors, dictionary, 1.0) < 16 * torch.finfo(dtype).eps


@pytest.mark.parametrize("wrong", [{"n_atoms": 0}, {"n_penalties": 0}, {"l1_ratio": 0.0}, {"smallest": 1.5}])
def test_impossible_options_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="ratios in"):
        elastic_net_path(torch.ones(2), torch.eye(2), **{"n_atoms": 1, **wrong})


def test_nan_and_other_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        elastic_net_path(torch.full((2,), torch.nan), torch.eye(2), n_atoms=1)
    with pytest.raises(ValueError, match="same site"):
        elastic_net_path(torch.ones(3), torch.eye(2), n_atoms=1)
