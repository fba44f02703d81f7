"""Areas under the curve, bootstraps, ranks and false discovery control, against scikit-learn and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control
from sklearn.metrics import roc_auc_score

from workbench.maths.statistics import (
    auc,
    benjamini_hochberg,
    bootstrap_counts,
    crossed_bootstrap_weights,
    percentile_interval,
    rank_p,
    weighted_auc,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(1, 4), st.integers(1, 6))
def test_auc_equals_scikit_learn_with_and_without_ties(seed: int, n: int, k: int, levels: int) -> None:
    scores = torch.randint(levels, (k, n), generator=seeded(seed)).float()
    labels = torch.randint(2, (n,), generator=seeded(seed + 1)).bool()
    labels[0], labels[1] = True, False
    expected = [roc_auc_score(labels.numpy(), row.numpy()) for row in scores]
    assert auc(scores, labels).tolist() == pytest.approx(expected, abs=1e-12)


def test_auc_of_one_set_is_a_number_and_flips_with_the_sign() -> None:
    scores, labels = torch.randn(50, generator=seeded()), torch.arange(50) < 20
    assert auc(scores, labels).ndim == 0
    assert auc(-scores, labels).item() == pytest.approx(1 - auc(scores, labels).item(), abs=1e-12)


@pytest.mark.parametrize("labels", [[True] * 4, [False] * 4, [True] * 3])
def test_auc_refuses_one_class_and_wrong_lengths(labels: list[bool]) -> None:
    with pytest.raises(ValueError, match=r"classes|one label per score"):
        auc(torch.arange(4.0), torch.tensor(labels))


def test_auc_refuses_nan() -> None:
    with pytest.raises(ValueError, match="finite"):
        auc(torch.tensor([0.0, torch.nan]), torch.tensor([True, False]))


def test_weighted_auc_equals_scikit_learn_with_sample_weights() -> None:
    scores = torch.randint(5, (40,), generator=seeded()).float()
    labels = torch.randint(2, (40,), generator=seeded(1)).bool()
    weights = torch.randint(4, (6, 40), generator=seeded(2))
    expected = [roc_auc_score(labels, scores, sample_weight=row) for row in weights.numpy()]
    assert weighted_auc(scores, labels, weights).tolist() == pytest.approx(expected, abs=1e-12)
    unit = torch.ones(1, 40)
    assert weighted_auc(scores, labels, unit).item() == pytest.approx(auc(scores, labels).item(), abs=1e-12)


def test_a_crossed_bootstrap_multiplies_the_counts_of_question_and_instruction() -> None:
    questions, instructions = list("aaabbbccc"), [1, 2, 3] * 3
    weights = crossed_bootstrap_weights(questions, instructions, 400, seeded())
    table = weights.reshape(400, 3, 3)
    # Rank one in every replicate, 3 questions times 3 instructions drawn, and 1 on average.
    assert torch.equal(table.sum(dim=(1, 2)), torch.full((400,), 9.0, dtype=torch.float64))
    assert torch.allclose(table * 9, table.sum(2, keepdim=True) * table.sum(1, keepdim=True))
    assert (table.mean(0) - 1).abs().max() < 0.25  # standard error of a mean of 400 products: about 0.06
    assert torch.equal(weights, crossed_bootstrap_weights(questions, instructions, 400, seeded()))


def test_the_crossed_bootstrap_covers_a_mean_with_two_crossed_random_effects() -> None:
    """Coverage of the 95% interval of a mean of y_qi = a_q + b_i + noise, 20 x 10, must not fall far below 95%."""
    covered = 0
    for trial in range(100):
        source = seeded(trial)
        values = torch.randn(20, 1, generator=source) + torch.randn(1, 10, generator=source)
        values = (values + 0.5 * torch.randn(20, 10, generator=source)).double().flatten()
        questions, instructions = np.repeat(np.arange(20), 10).tolist(), list(range(10)) * 20
        weights = crossed_bootstrap_weights(questions, instructions, 300, source)
        low, high = percentile_interval((weights @ values) / weights.sum(1))
        covered += bool(low <= 0 <= high)
    # Percentile intervals with 10 levels run short of 95% (about 90%); below 80 they would be wrong.
    assert covered >= 80


def test_bootstrap_counts_add_up_to_the_number_of_items() -> None:
    assert torch.equal(bootstrap_counts(7, 30, seeded()).sum(1), torch.full((30,), 7.0, dtype=torch.float64))


def test_an_interval_leaves_nan_replicates_out() -> None:
    replicates = torch.cat([torch.linspace(0, 1, 101), torch.tensor([torch.nan])])
    low, high = percentile_interval(replicates)
    assert (low.item(), high.item()) == pytest.approx((0.025, 0.975), abs=1e-6)


def test_rank_p_counts_the_observed_among_the_null() -> None:
    null = torch.arange(99.0)
    assert rank_p(1000.0, null).item() == pytest.approx(0.01)
    assert rank_p(torch.tensor([-1.0, 98.0]), null).tolist() == pytest.approx([1.0, 0.02])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_benjamini_hochberg_equals_scipy_and_keeps_nan(p_values: list[float]) -> None:
    padded = torch.tensor([*p_values, torch.nan], dtype=torch.float64)
    found = benjamini_hochberg(padded)
    assert found[:-1].tolist() == pytest.approx(false_discovery_control(p_values).tolist(), abs=1e-12)
    assert found[-1].isnan()
