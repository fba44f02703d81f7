"""Mean-difference directions: the closed forms of their weights, their AUCs and their random rivals."""

from __future__ import annotations

import pytest
import torch

from workbench.maths.separation import (
    balanced_contrast_weights,
    covariance_matched_directions,
    replicated_auc,
)
from workbench.maths.statistics import auc, weighted_auc


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_each_question_weighs_the_same_however_many_rows_it_has():
    question = torch.tensor([0, 0, 0, 0, 1, 1])
    positive = torch.tensor([True, True, True, False, True, False])
    weights = balanced_contrast_weights(question, positive, torch.ones(1, 6))[0]
    assert torch.allclose(weights, torch.tensor([1 / 6, 1 / 6, 1 / 6, -1 / 2, 1 / 2, -1 / 2]).double())


def test_a_question_without_both_arms_is_left_out():
    question, positive = torch.tensor([0, 0, 1]), torch.tensor([True, False, True])
    weights = balanced_contrast_weights(question, positive, torch.ones(1, 3))[0]
    assert weights.tolist() == [1.0, -1.0, 0.0]


def test_nothing_in_common_gives_zeros_and_not_nan():
    question, positive = torch.tensor([0, 1]), torch.tensor([True, False])
    assert balanced_contrast_weights(question, positive, torch.ones(2, 2)).tolist() == [[0, 0], [0, 0]]


def test_drawing_a_question_twice_equals_writing_it_twice():
    random = generator()
    question, positive = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([True, False] * 3)
    x = torch.randn(6, 4, generator=random).double()
    drawn = (
        balanced_contrast_weights(question, positive, torch.ones(1, 6), torch.tensor([[2.0, 1.0, 0.0]]))[0]
        @ x
    )
    twice = torch.cat((x[:2], x[:2], x[2:4]))
    written = (
        balanced_contrast_weights(torch.tensor([0, 0, 1, 1, 2, 2]), positive, torch.ones(1, 6))[0] @ twice
    )
    assert torch.allclose(drawn, written)


def test_replicates_with_their_own_scores_agree_with_the_plain_areas():
    random = generator(1)
    labels = torch.arange(40) % 2 == 0
    scores = torch.randint(0, 9, (5, 40), generator=random).double()  # many ties
    assert torch.allclose(replicated_auc(scores, labels, torch.ones(5, 40)), auc(scores, labels))
    weights = torch.randint(0, 3, (5, 40), generator=random).double()
    expected = torch.stack([weighted_auc(scores[b], labels, weights[b : b + 1])[0] for b in range(5)])
    assert torch.allclose(replicated_auc(scores, labels, weights), expected)


def test_a_replicate_without_one_class_is_nan():
    labels = torch.tensor([True, False])
    areas = replicated_auc(torch.zeros(1, 2), labels, torch.tensor([[1.0, 0.0]]))
    assert areas.isnan().all()


def test_random_directions_have_the_covariance_of_the_activations():
    random = generator(2)
    activations = torch.randn(200, 6, generator=random) * torch.tensor([5.0, 3.0, 1.0, 1.0, 0.5, 0.0]) + 7
    directions = covariance_matched_directions(activations, 20_000, random)
    expected, found = torch.cov(activations.T), torch.cov(directions.T)
    # The standard error of a variance over n draws is sigma^2 sqrt(2 / n) = .01 sigma^2; five of them.
    assert (found - expected).abs().max() < 0.05 * expected.max()
    assert directions[:, 5].abs().max() < 1e-4


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_weights_do_not_depend_on_the_scale_of_the_base(scale: float):
    question, positive = torch.tensor([0, 0, 1, 1]), torch.tensor([True, False, True, False])
    base = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    first = balanced_contrast_weights(question, positive, base)
    assert torch.allclose(first, balanced_contrast_weights(question, positive, base * scale))
