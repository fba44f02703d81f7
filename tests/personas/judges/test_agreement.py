"""Agreement of scores with labels: closed forms, the library's own values, and what knows nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from workbench.personas.judges.agreement import (
    N_BOOTSTRAP,
    at_threshold,
    auroc,
    calibration,
    resamples,
    share,
    spearman,
)


def _columns(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    human = torch.randint(0, 4, (n,), generator=draw).double() / 3
    return 60 * human + 30 * torch.rand(n, generator=draw, dtype=torch.float64), human


def test_auroc_is_null_when_a_class_is_missing():
    assert auroc(torch.ones(3, dtype=torch.float64), torch.tensor([True] * 3), 0)["auroc"] is None


def test_the_spearman_interval_is_the_one_of_the_same_rows_drawn_one_by_one():
    scores, human = _columns(20)
    found = spearman(scores, human, 3)
    values = []
    for counts in resamples(20, 3).long():
        rows = torch.arange(20).repeat_interleave(counts)
        values.append(spearmanr(scores[rows].numpy(), human[rows].numpy()).statistic)
    assert len(values) == N_BOOTSTRAP
    assert found["spearman"] == pytest.approx(spearmanr(scores.numpy(), human.numpy()).statistic)
    assert found["spearman_interval"] == pytest.approx(list(np.nanquantile(values, [0.025, 0.975])))
    assert found == spearman(scores, human, 3) and found != spearman(scores, human, 4)


def test_a_constant_column_and_two_rows_have_no_rank_correlation():
    scores, human = _columns(20)
    nothing = {"spearman": None, "spearman_interval": None}
    assert spearman(torch.full_like(scores, 7), human, 0) == spearman(scores, torch.ones_like(human), 0) == nothing
    assert spearman(scores[:2], human[:2], 0) == nothing


def test_scores_that_know_nothing_look_unremarkable():
    _, human = _columns(400, seed=1)
    scores = 100 * torch.rand(400, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    low, high = spearman(scores, human, 0)["spearman_interval"]
    assert low < 0 < high
    right = at_threshold(scores, human >= 0.5)
    assert right["sensitivity_at_50"] + right["specificity_at_50"] == pytest.approx(1, abs=0.15)
    found = calibration(scores, human >= 0.5, 0)
    assert found is not None and found["ece"] == pytest.approx(0.25, abs=0.08)  # E|u - .5|


def test_sides_of_the_threshold_are_counted_with_fifty_on_the_passing_side():
    scores = torch.tensor([50.0, 49.9, 80, 10, 50])
    found = at_threshold(scores, torch.tensor([True, True, True, False, False]))
    assert found["sensitivity_at_50"] == pytest.approx(2 / 3) and found["specificity_at_50"] == 0.5
    one_class = at_threshold(scores, torch.tensor([True] * 5))
    assert one_class["specificity_at_50"] is None and one_class["specificity_interval"] is None


def test_the_interval_of_a_share_is_wilsons():
    value, interval = share(torch.tensor([True] * 4))
    assert value == 1 and interval == pytest.approx([4 / (4 + 1.959964**2), 1])  # n / (n + z^2)


def test_a_perfectly_calibrated_score_has_no_calibration_error():
    labels = torch.tensor([True, False] * 50)
    always_50 = calibration(torch.full((100,), 50.0, dtype=torch.float64), labels, 0)
    known = calibration(labels.double() * 100, labels, 0)
    assert always_50 is not None and known is not None
    assert always_50["ece"] == pytest.approx(0) and always_50["ece_interval"] == pytest.approx([0, 0])
    assert known["brier"] == known["ece"] == pytest.approx(0)


def test_the_calibration_error_is_the_sum_over_its_bins_and_lies_in_its_interval():
    scores, human = _columns(120)
    found = calibration(scores, human >= 0.5, 0)
    assert found is not None
    parts = [one["weight"] * abs(one["mean_score"] / 100 - one["share_trait"]) for one in found["bins"]]
    low, high = found["ece_interval"]
    assert sum(parts) == pytest.approx(found["ece"]) and low < found["ece"] < high
    assert sum(one["weight"] for one in found["bins"]) == pytest.approx(1)


def test_a_score_shifted_by_a_tenth_errs_by_a_tenth():
    scores = torch.tensor([60.0] * 100)
    labels = torch.tensor([True, False] * 50)
    found = calibration(scores, labels, 0)
    assert found is not None and found["ece"] == pytest.approx(0.1)


def test_calibration_needs_both_classes():
    assert calibration(torch.ones(3), torch.tensor([False] * 3), 0) is None
