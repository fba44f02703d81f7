"""The crossed test: what it computes, and that it holds its level where a test over questions does not."""

from __future__ import annotations

import math

import pytest
import torch

from workbench.maths.crossed import CrossedTest, crossed_test, moderated
from workbench.maths.signflips import sign_flip_test

N_Q, N_I = 20, 5


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cells(n_features: int, *, questions: float, instructions: float, shift: float = 0.0, seed: int = 0) -> torch.Tensor:
    """Differences [Q, I, F] with effects of both factors."""
    found = shift + randn(N_Q, N_I, n_features, seed=seed) + questions * randn(N_Q, 1, n_features, seed=seed + 1)
    return found + instructions * randn(1, N_I, n_features, seed=seed + 2)


def crossed(d: torch.Tensor) -> CrossedTest:
    n_q, n_i = d.shape[:2]
    effect, by_question, by_instruction = d.mean(dim=(0, 1)), d.mean(dim=1), d.mean(dim=0)
    residual = d - by_question[:, None] - by_instruction[None] + effect
    return crossed_test(
        effect, (by_question - effect) / n_q, (by_instruction - effect) / n_i, residual.flatten(0, 1) / (n_q * n_i)
    )


def test_the_variance_is_that_of_the_analysis_of_variance() -> None:
    # Two features: too few to moderate, so that every number can be written down.
    d = cells(2, questions=0.5, instructions=1.0)
    found = crossed(d)
    v_q, v_i = d.mean(1).var(0) / N_Q, d.mean(0).var(0) / N_I
    residual = d - d.mean(1, keepdim=True) - d.mean(0, keepdim=True) + d.mean((0, 1))
    v_e = residual.square().sum((0, 1)) / ((N_Q - 1) * (N_I - 1)) / (N_Q * N_I)
    torch.testing.assert_close(found.variance, v_q + (v_i - v_e).clamp_min(0))
    assert (found.df < N_Q - 1).all() and (found.question_df, found.instruction_df) == (N_Q - 1, N_I - 1)


@pytest.mark.parametrize("instructions", [0.0, 0.3, 1.0])
def test_it_holds_its_level_whatever_instructions_do(instructions: float) -> None:
    p = crossed(cells(4000, questions=0.5, instructions=instructions)).p
    # 4,000 independent tests at .05: sd .0034; the approximation of the degrees of freedom is allowed .01 more.
    assert (p <= 0.05).double().mean() < 0.05 + 3 * 0.0034 + 0.01


def test_sign_flips_over_questions_take_the_wording_of_instructions_for_an_effect() -> None:
    d = cells(1000, questions=0.5, instructions=0.5)
    assert (sign_flip_test(d.mean(1), family=False).p <= 0.05).double().mean() > 0.25
    assert (crossed(d).p <= 0.05).double().mean() < 0.08


def test_where_instructions_do_nothing_the_power_is_that_of_a_test_over_questions() -> None:
    d = cells(1000, questions=0.5, instructions=0.0, shift=0.5)
    by_questions = (sign_flip_test(d.mean(1), family=False).p <= 0.01).double().mean()
    assert (crossed(d).p <= 0.01).double().mean() > 0.95 * by_questions > 0.5


def test_few_questions_borrow_from_other_features_and_have_no_smallest_p() -> None:
    d = cells(1000, questions=0.3, instructions=0.0, shift=1.5)[:6]
    own = sign_flip_test(d.mean(1), family=False).p
    found = crossed(d)
    assert found.question_df > 20 and own.min() == 2 / 2**6 and found.p.median() < 1e-4
    null = crossed(cells(4000, questions=0.3, instructions=0.0)[:6]).p
    assert (null <= 0.01).double().mean() < 0.01 + 3 * 0.0016 + 0.005


def test_a_few_features_that_wording_moves_a_lot_are_not_called_changed() -> None:
    d = cells(2000, questions=0.5, instructions=0.0)
    odd = torch.arange(2000) < 60
    d = d + 3 * odd * randn(1, N_I, 2000, seed=9)
    assert (sign_flip_test(d.mean(1), family=False).p[odd] <= 0.01).double().mean() > 0.6
    assert (crossed(d).p[odd] <= 0.01).double().mean() < 0.05


def test_what_does_not_vary_has_p_one_and_one_feature_is_not_moderated() -> None:
    d = cells(3, questions=0.5, instructions=0.5)
    d[..., 1] = 0
    assert crossed(d).p[1] == 1 and (crossed(d).p[[0, 2]] < 1).all()
    assert crossed(d[..., :1]).instruction_df == N_I - 1


def test_scaling_a_feature_changes_nothing() -> None:
    d = cells(50, questions=0.5, instructions=0.5, shift=0.3)
    scale = torch.logspace(-3, 3, 50, dtype=torch.float64)
    torch.testing.assert_close(crossed(d * scale).p, crossed(d).p)


def test_like_variances_are_pooled_and_unlike_ones_keep_their_own() -> None:
    chance = randn(5000, 4, seed=3).square().mean(dim=1)  # chi-square over its degrees of freedom: all alike
    pooled, df = moderated(chance, 4)
    assert df.median() > 100 and pooled[df > 4].std() < 0.05 * chance.std() and pooled.mean().item() == pytest.approx(1, abs=0.05)
    spread = chance * torch.exp(3 * randn(5000, seed=4))
    kept, df = moderated(spread, 4)
    assert df.median() < 5 and torch.corrcoef(torch.stack([kept.log(), spread.log()]))[0, 1] > 0.95
    assert moderated(torch.ones(10), 4)[1].tolist() == [math.inf] * 10 and moderated(chance[:2], 4)[1].tolist() == [4, 4]


def test_designs_that_leave_nothing_to_compare_are_refused() -> None:
    with pytest.raises(ValueError, match="found 1 x 5"):
        crossed_test(randn(3), randn(1, 3), randn(5, 3), randn(5, 3))
    with pytest.raises(ValueError, match="in 6 cells"):
        crossed_test(randn(3), randn(3, 3), randn(4, 3), randn(6, 3))
