"""Choosing rows in few readings: the choices of a plain pursuit, whatever the dictionary, and a bound that holds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from workbench.maths import screening
from workbench.maths.geometry import reciprocal, row_norms
from workbench.maths.pursuit import gradient_pursuit, non_negative_omp, signed_omp
from workbench.maths.pursuit_steps import OrthogonalSteps, PursuitSteps

FORMATS = [torch.bfloat16, torch.float32]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def independent() -> Tensor:
    return randn(400, 32)


def clustered() -> Tensor:
    return randn(20, 32)[torch.arange(400) % 20] + 0.3 * randn(400, 32, seed=1) + randn(1, 32, seed=2)


def nearly_parallel() -> Tensor:
    """Rows that bfloat16 cannot tell apart: all of them are rivals at every step."""
    return randn(1, 32) + 3e-4 * randn(400, 32, seed=1)


def of_low_rank() -> Tensor:
    return randn(400, 6) @ randn(6, 32, seed=1)


def of_all_sizes() -> Tensor:
    return randn(400, 32) * torch.logspace(-12, 12, 400)[torch.randperm(400, generator=torch.Generator().manual_seed(1))][:, None]


def with_zero_and_opposite_rows() -> Tensor:
    rows = randn(400, 32)
    rows[::7] = 0
    rows[1::7] = -1.5 * rows[2::7][: len(rows[1::7])]
    return rows


DICTIONARIES = [independent, clustered, nearly_parallel, of_low_rank, of_all_sizes, with_zero_and_opposite_rows]


def plain(steps: PursuitSteps, *, signed: bool = True) -> int:
    """One product with the whole dictionary per step."""
    n_atoms = steps.support.shape[1]
    for step in range(n_atoms):
        residual = steps.residuals[:, step]
        units = residual * reciprocal(residual.norm(dim=1, keepdim=True))
        cosines = units.float() @ steps.dictionary.T * steps.scale
        cosines = cosines.abs() if signed else cosines
        if steps.taken(step).shape[1]:
            cosines.scatter_(1, steps.taken(step).clamp_min(0), -torch.inf)
        steps.advance(step, *cosines.max(dim=1))
    return n_atoms


@pytest.mark.parametrize("working", [1, 30], ids=["working set of one", "working set of thirty"])
@pytest.mark.parametrize("format_", FORMATS, ids=str)
@pytest.mark.parametrize("pursuit", [signed_omp, gradient_pursuit, non_negative_omp])
@pytest.mark.parametrize("dictionary", DICTIONARIES)
def test_the_pursuit_is_the_plain_one_on_every_dictionary(monkeypatch, dictionary, pursuit, format_, working: int) -> None:
    monkeypatch.setattr(screening, "WORKING_LEAST", working)
    monkeypatch.setattr(screening, "_multiplies_bfloat16", lambda _: format_ == torch.bfloat16)
    rows = dictionary()
    vectors = randn(4, 32, seed=3) + torch.tensor([[0.0], [0], [1], [1]]) * (rows * reciprocal(row_norms(rows))[:, None])[5:9]
    found = pursuit(vectors, rows, n_atoms=14)
    monkeypatch.setattr(screening, "run", plain)
    expected = pursuit(vectors, rows, n_atoms=14)
    torch.testing.assert_close(found.residual_norms, expected.residual_norms, rtol=1e-4, atol=1e-5 * float(vectors.norm()))
    if dictionary is not with_zero_and_opposite_rows:  # there, rows tie
        assert torch.equal(found.support, expected.support)
        torch.testing.assert_close(found.coefficients, expected.coefficients)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(FORMATS), st.integers(1, 300), st.booleans())
def test_no_cosine_is_above_what_its_score_allows(seed: int, format_: torch.dtype, d_model: int, same_sign: bool) -> None:
    """Entries of one sign just above 1 round the same way: the worst case of the bound."""
    rows, vectors = randn(50, d_model, seed=seed), randn(3, d_model, seed=seed + 1)
    if same_sign:
        rows, vectors = 1 + rows.abs() / 256, 1 + vectors.abs() / 256
    steps = OrthogonalSteps(vectors, rows, reciprocal(row_norms(rows)), 1)
    screen = screening._Screen(steps, signed=False)
    screen.format = format_
    scores = screen.scores(0, 1)[:, 0]
    cosines = torch.nn.functional.cosine_similarity(vectors.double()[:, None], rows.double()[None], dim=2)
    assert (scores >= screen.lowest(cosines.float()) - 1e-6).all()
    assert (-scores >= screen.lowest(-cosines.float()) - 1e-6).all()


def test_an_even_dictionary_is_read_less_often_than_there_are_steps(monkeypatch) -> None:
    readings: list[int] = []
    scores = screening._Screen.scores

    def counted(self, start: int, stop: int) -> Tensor:
        readings.append(stop - start)
        return scores(self, start, stop)

    monkeypatch.setattr(screening._Screen, "scores", counted)
    signed_omp(randn(2, 256, seed=5), randn(4000, 256), n_atoms=24)
    assert len(readings) <= 12
    assert sum(readings) <= 48


def test_thousands_of_equal_rows_end_the_search() -> None:
    rows = torch.cat([randn(1, 16).expand(3000, -1), randn(5, 16, seed=1)])
    found = signed_omp(randn(2, 16, seed=2), rows, n_atoms=6)
    assert ((found.support < 3000) & (found.support >= 0)).sum(dim=1).tolist() <= [1, 1]
    assert (found.support >= 3000).sum(dim=1).tolist() == [5, 5]
