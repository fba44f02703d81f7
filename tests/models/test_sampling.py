"""Inverse-CDF sampling: exact indices, frequencies, and nothing without weight."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.base.errors import WorkbenchError
from workbench.models.sampling import Sampling, _nucleus, draw, draw_uniforms, invert


@settings(max_examples=80, deadline=None)
@given(st.integers(2, 1200), st.integers(0, 10**6))
def test_the_drawn_index_is_the_first_whose_running_sum_exceeds_the_uniform(vocab: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(5, vocab, generator=generator) ** 8
    weights[torch.rand(5, vocab, generator=generator) < 0.5] = 0
    weights[:, vocab // 2] = 0.5
    uniforms = torch.rand(5, generator=generator, dtype=torch.float64)
    drawn = invert(weights, uniforms)
    sums = weights.double().cumsum(dim=1)
    target = uniforms * sums[:, -1]
    for row, index in enumerate(drawn.tolist()):
        assert weights[row, index] > 0
        # Sums in another order differ by rounding, 1e-9 of the total at most.
        assert sums[row, index] >= target[row] - 1e-9 * sums[row, -1]
        assert sums[row, index] - weights[row, index] <= target[row] + 1e-9 * sums[row, -1]


def test_uniforms_at_the_ends_draw_the_first_and_the_last_token_with_weight() -> None:
    weights = torch.zeros(2, 700)
    weights[:, 3] = weights[:, 650] = 1.0
    assert invert(weights, torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)).tolist() == [3, 650]


def test_frequencies_follow_the_distribution() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0]]).expand(20_000, 3)
    uniforms = torch.rand(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    counts = torch.bincount(draw(logits, uniforms, Sampling()), minlength=3) / 20_000
    # Three standard errors of a share of 20,000 draws: 3 * sqrt(.25 / 20000) = .011.
    torch.testing.assert_close(counts, torch.softmax(logits[0], dim=0), rtol=0, atol=0.011)


def test_top_p_keeps_the_likeliest_tokens_only() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().expand(1000, 4)
    uniforms = torch.rand(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert set(draw(logits, uniforms, Sampling(top_p=0.79)).tolist()) == {0, 1}
    assert set(draw(logits, uniforms, Sampling(top_p=0.01)).tolist()) == {0}


@pytest.mark.parametrize(("vocab", "sharpness"), [(400, 1), (5000, 0), (5000, 1), (5000, 4), (49152, 3)])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.999])
def test_the_nucleus_is_that_of_a_whole_stable_sort(vocab: int, sharpness: float, top_p: float) -> None:
    logits = torch.randn(6, vocab, generator=torch.Generator().manual_seed(vocab)) * sharpness
    weights = torch.softmax(logits.bfloat16().float(), dim=-1)  # many alike
    ordered, order = weights.sort(dim=-1, descending=True, stable=True)
    ordered[ordered.cumsum(dim=-1) - ordered >= top_p] = 0.0
    assert torch.equal(_nucleus(weights, top_p), torch.zeros_like(weights).scatter(-1, order, ordered))


@pytest.mark.parametrize("vocab", [7, 400, 1000])
@pytest.mark.parametrize("top_p", [0.9, 1.0])
def test_logits_that_are_no_numbers_draw_a_token_that_exists(vocab: int, top_p: float) -> None:
    logits, uniforms = torch.full((3, vocab), torch.nan), torch.tensor([0.0, 0.5, 0.999], dtype=torch.float64)
    assert (draw(logits, uniforms, Sampling(top_p=top_p)) < vocab).all()


def test_temperature_zero_takes_the_likeliest() -> None:
    assert draw(torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([0.99]), Sampling(temperature=0)).tolist() == [
        1
    ]


def test_uniforms_of_a_row_depend_on_its_seed_alone() -> None:
    assert torch.equal(draw_uniforms([1, 2, 3], 5)[1], draw_uniforms([2], 5)[0])
    assert torch.equal(draw_uniforms([7], 9)[0, :5], draw_uniforms([7], 5)[0])


@pytest.mark.parametrize(
    "options", [{"max_new_tokens": 0}, {"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}]
)
def test_impossible_options_are_refused(options: dict) -> None:
    with pytest.raises(WorkbenchError, match="cannot be sampled from"):
        Sampling(**options)
