from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
import torch

from tests.labeling.planted import planted_sae
from workbench.base.errors import WorkbenchError
from workbench.labeling.labels import FeatureLabel, LabelSet
from workbench.labeling.scores.closed_loop import TEMPLATE, closed_loop, expected_ranks, label_cosines
from workbench.models.hookpoints import HookPoint
from workbench.saes.token_rows import activations_at

TEXTS = (
    "rivers and lakes", "cruel insults", "help the people", "money in the street", "cold weather", "the town", "an assistant",
    "suffer and be afraid", "one sentence", "long answers", "never help anyone", "questions",
)  # fmt: skip
LABELS = [FeatureLabel(i, text, "It was planted.") for i, text in enumerate(TEXTS)]


def sae_of(model: Any, directions: torch.Tensor) -> Any:
    made = planted_sae(d_model=model.d_model, d_sae=len(directions))
    return replace(made, encoder=directions.T.contiguous(), decoder_directions=directions)


def read_directions(model: Any) -> torch.Tensor:
    """What the template filled with each label means inside the model, read one by one and by hand."""
    rows = []
    for text in TEXTS:
        ids = torch.tensor([model.tokenizer(TEMPLATE.format(label=text), add_special_tokens=False)["input_ids"]])
        rows.append(activations_at(model, HookPoint(1), ids, torch.ones_like(ids))[0, 1:].float().mean(0))
    means = torch.stack(rows)
    return torch.nn.functional.normalize(means - means.mean(0), dim=1)


def test_labels_that_lead_to_their_features_come_first(tiny_model: Any) -> None:
    found = closed_loop(LABELS, sae_of(tiny_model, read_directions(tiny_model)), tiny_model)
    assert found.rank1 == 1.0 and found.median_rank == 1.0 and found.n_swapped == len(TEXTS) - 1
    assert all(row.cosine == pytest.approx(1.0, abs=1e-3) and row.swapped < 0.2 for row in found.rows)


def test_swapped_labels_stay_at_chance(tiny_model: Any) -> None:
    directions = read_directions(tiny_model)
    sae = sae_of(tiny_model, directions)
    shares = []
    for step in range(1, len(TEXTS)):
        moved = [replace(item, label=TEXTS[(i + step) % len(TEXTS)]) for i, item in enumerate(LABELS)]
        shares.append(closed_loop(moved, sae, tiny_model, n_bootstrap=10).rank1)
    assert max(shares) == 0.0, "the directions belong to other labels"


def test_random_directions_are_found_as_often_as_chance_says(tiny_model: Any) -> None:
    shares = []
    for seed in range(20):
        made = torch.randn(len(TEXTS), tiny_model.d_model, generator=torch.Generator().manual_seed(seed))
        found = closed_loop(LABELS, sae_of(tiny_model, made), tiny_model, n_swapped=3, n_bootstrap=10)
        shares.append(found.rank1)
        assert found.chance == 0.25
    assert abs(sum(shares) / 20 - 0.25) < 0.12  # 240 features, 12 labels each: standard error about .03, labels shared


def test_expected_ranks_equal_the_mean_over_all_drawings() -> None:
    scores = torch.rand(7, 7, generator=torch.Generator().manual_seed(0))
    for n_drawn in (1, 3, 6):
        for feature, (rank, first) in enumerate(expected_ranks(scores, n_drawn)):
            others = [i for i in range(7) if i != feature]
            ranks = [
                1 + sum(bool(scores[i, feature] >= scores[feature, feature]) for i in drawn)
                for drawn in combinations(others, n_drawn)
            ]
            assert rank == pytest.approx(sum(ranks) / len(ranks))
            assert first == pytest.approx(sum(r == 1 for r in ranks) / len(ranks))


def test_what_all_labels_share_cancels() -> None:
    means, directions = (torch.randn(5, 8, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    shift = 100 * torch.ones(8)
    torch.testing.assert_close(label_cosines(means + shift, directions), label_cosines(means, directions), rtol=0, atol=1e-4)


def test_a_set_gives_the_same_as_a_list_and_the_interval_holds_the_value(tiny_model: Any) -> None:
    sae = sae_of(tiny_model, torch.randn(len(TEXTS), tiny_model.d_model, generator=torch.Generator().manual_seed(5)))
    labels = LabelSet(sae.id, sae.weights_hash, {item.feature: item for item in LABELS})
    found = closed_loop(labels, sae, tiny_model)
    assert found == closed_loop(LABELS, sae, tiny_model)
    assert found.rank1_interval[0] <= found.rank1 <= found.rank1_interval[1]
    assert set(found.record()) >= {"rank1", "rank1_interval", "chance", "median_rank", "n_labels", "code_rank1"}


def test_unusable_input_is_refused(tiny_model: Any) -> None:
    sae = sae_of(tiny_model, torch.eye(12, tiny_model.d_model))
    with pytest.raises(WorkbenchError, match="2 labels"):
        closed_loop(LABELS[:2], sae, tiny_model)
    for template in ("no place", "{other} {label}", "{label"):
        with pytest.raises(WorkbenchError, match="template"):
            closed_loop(LABELS, sae, tiny_model, template=template)
    with pytest.raises(WorkbenchError, match="no feature 99"):
        closed_loop([*LABELS, FeatureLabel(99, "x")], sae, tiny_model)
    with pytest.raises(WorkbenchError, match="d_model"):
        closed_loop(LABELS, planted_sae(d_model=16, d_sae=12), tiny_model)


def test_what_is_not_a_number_counts_against_the_label() -> None:
    scores = torch.eye(5)
    assert expected_ranks(scores, 2) == [(1.0, 1.0)] * 5
    scores[0, 0] = scores[3, 1] = float("nan")
    own, other, *rest = expected_ranks(scores, 2)
    assert own == (3.0, 0.0), "the own score is unknown: last among itself and two others"
    assert other == (pytest.approx(1.5), pytest.approx(0.5)) and rest == [(1.0, 1.0)] * 3


def test_a_label_that_leaves_nothing_to_read_is_refused(tiny_model: Any) -> None:
    sae = sae_of(tiny_model, torch.eye(12, tiny_model.d_model))
    labels = [*LABELS[:3], replace(LABELS[3], label=""), *LABELS[4:]]
    with pytest.raises(WorkbenchError, match="feature 3 is read as no token"):
        closed_loop(labels, sae, tiny_model, template="{label}")


def test_activations_that_are_not_finite_are_refused(tiny_model: Any) -> None:
    directions = torch.eye(12, tiny_model.d_model)
    directions[4, 4] = float("nan")
    with pytest.raises(WorkbenchError, match="not finite"):
        closed_loop(LABELS, sae_of(tiny_model, directions), tiny_model)
