"""What a vector is made of: shares that sum to 1, intervals that cover, nulls that get nothing, one ranking."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.labeling.made_of_world import (
    D_MODEL,
    D_SAE,
    GROUPS,
    decoder,
    group_labels,
    labels,
    planted_parts,
    true_error,
    truth,
)
from workbench.base.errors import WorkbenchError
from workbench.decomposition.placebos import PlaceboCodes
from workbench.decomposition.result import CausalRow, Decomposition
from workbench.decomposition.shares import feature_replicates, has_replicates, largest_shares
from workbench.labeling.labels import LabelSet
from workbench.labeling.taxonomy import made_of as module
from workbench.labeling.taxonomy.assignment import Assigner
from workbench.labeling.taxonomy.calibration import Calibration
from workbench.labeling.taxonomy.made_of import placebo_shares
from workbench.labeling.taxonomy.ranking import ranked
from workbench.labeling.taxonomy.values import MadeOf
from workbench.maths.statistics import basic_interval
from workbench.personas.traits import load_trait

EVIL = load_trait("evil")


def made_of(parts: Decomposition, named: LabelSet, trait: Any = EVIL, **more: Any) -> MadeOf:
    return module.made_of(parts, named, trait, **more)


@pytest.fixture(scope="module")
def parts() -> Decomposition:
    return planted_parts(1)


def reading(certain: dict[str, dict[str, float]]) -> Assigner:
    """An assigner whose probabilities of each label are given."""
    categories = tuple(category.id for category in EVIL.taxonomy if category.id != "unclear")

    class Given(Assigner):
        def probabilities(self, labels: Sequence[str]) -> torch.Tensor:
            outcomes = (*categories, "none")
            return torch.tensor([[certain[label].get(name, 0.0) for name in outcomes] for label in labels], dtype=torch.float64)

    return Given(categories, torch.zeros(len(categories), 1), Calibration(1.0, 0.0), lambda texts: torch.zeros(len(texts), 1))


def test_parts_and_totals_sum_to_one_and_hold_the_shares_of_their_features(parts: Decomposition) -> None:
    made = made_of(parts, group_labels())
    for rows in (made.parts, made.totals):
        assert sum(row.share for row in rows) == pytest.approx(1, abs=1e-9)
        assert sum(row.corrected for row in rows) == pytest.approx(1, abs=1e-6)  # replicates are kept in float32
    for name, features in GROUPS.items():
        assert made[name].share == pytest.approx(float(parts.share[list(features)].sum()), abs=1e-12)
        assert set(made[name].features) == set(features)
    assert made["sub_trait"].share == pytest.approx(made["contempt"].share + made["threats"].share)
    assert made["open"].n_features == 2 and made["unlabelled"].n_features == D_SAE - 10
    assert made["error"].share == parts.share_error
    assert made.unexplained == pytest.approx(1 - made["sub_trait"].share - made["style"].share)
    assert "violence" in made.absent and "threats" not in made.absent
    assert [part.kind for part in made.totals] == ["sub_trait", "other", "open", "unlabelled", "error"]


def test_intervals_cover_the_share_that_all_questions_would_give() -> None:
    """Nominal 95%. A bootstrap over 12 instructions is somewhat too narrow, and one of thirty worlds is 3 points, so .8 is asked
    for. Percentile intervals cover "contempt" far less often: they double the bias that a sample has."""
    expected = {name: float(truth()[list(features)].sum()) for name, features in GROUPS.items()}
    expected |= {"error": true_error(), "unlabelled": 0.0}
    n, covered, percentile = 30, dict.fromkeys(expected, 0), 0
    for seed in range(n):
        sample = planted_parts(100 + seed, n_instructions=12, n_bootstrap=100)
        made = made_of(sample, group_labels(), n_swaps=19)
        for name, share in expected.items():
            covered[name] += made[name].low <= share <= made[name].high
        sums = feature_replicates(sample, GROUPS["contempt"]).sum(dim=1)
        low, high = torch.quantile(sums, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        percentile += low <= expected["contempt"] <= high
    assert all(count >= 0.8 * n for count in covered.values()), covered
    assert percentile < min(covered.values()) - 4


def test_the_estimate_is_nearer_to_the_truth_than_the_share_of_a_sample() -> None:
    rest = [made_of(planted_parts(300 + seed), group_labels(), n_swaps=19)["unlabelled"] for seed in range(6)]
    plain, corrected = (torch.tensor([getattr(part, name) for part in rest]) for name in ("share", "corrected"))
    assert float(plain.mean()) > 0.02 and abs(float(corrected.mean())) < float(plain.mean()) / 2  # the truth is 0


def test_labels_of_the_right_features_beat_permuted_ones_and_permuted_ones_get_nothing(parts: Decomposition) -> None:
    noise = dict.fromkeys(range(20, 50), "topic")
    planted = labels({**dict.fromkeys(GROUPS["contempt"], "contempt"), **noise})
    assert made_of(parts, planted)["contempt"].swapped.p < 0.01  # pyright: ignore[reportOptionalMemberAccess]
    random, found = torch.Generator().manual_seed(0), []
    for _ in range(30):
        order = torch.randperm(33, generator=random).tolist()
        features, names = list(planted.labels), [planted[f].categories["evil"] for f in planted.labels]
        made = made_of(parts, labels({f: names[place] for f, place in zip(features, order, strict=True)}), n_swaps=99)
        null = made["contempt"].swapped
        assert null is not None and null.low <= null.median <= null.high
        found.append(null.p)
    assert 0.3 < sum(found) / len(found) < 0.7 and sum(p <= 0.05 for p in found) <= 6


def test_permuting_the_labels_changes_no_total_when_all_are_of_one_kind(parts: Decomposition) -> None:
    made = made_of(parts, labels(dict.fromkeys(range(6), "contempt")))
    null = made["contempt"].swapped
    assert null is not None and null.p == 1 and null.low == pytest.approx(made["contempt"].share) == pytest.approx(null.high)


def test_rejected_labels_count_as_none_and_categories_of_no_taxonomy_are_unclear(parts: Decomposition) -> None:
    rejected = labels({0: "contempt"}, status="rejected")
    mixed = replace(rejected, labels={**rejected.labels, **labels({1: "no_such_category"}).labels})
    made = made_of(parts, mixed)
    assert made["contempt"].n_features == 0 and made["unclear"].features == (1,) and made.n_labelled == 1


def test_without_any_label_everything_is_unlabelled_or_error(parts: Decomposition) -> None:
    made = made_of(parts, LabelSet("x", ""))
    assert made["unlabelled"].share + made["error"].share == pytest.approx(1) and made["sub_trait"].swapped is None


def test_uncertain_labels_give_the_expected_share_and_a_wider_interval(parts: Decomposition) -> None:
    named = labels({0: "contempt", 1: "contempt"})
    sure = made_of(parts, named, assigner=reading({f"label {f}": {"contempt": 1.0} for f in (0, 1)}))["contempt"]
    half = made_of(parts, named, assigner=reading({f"label {f}": {"contempt": 0.5, "none": 0.5} for f in (0, 1)}))
    assert sure.drawn == pytest.approx(sure.share) and sure.drawn_interval == pytest.approx((sure.low, sure.high))
    assert half["contempt"].drawn == pytest.approx(sure.share / 2) == pytest.approx(half["none"].drawn)
    assert half["contempt"].share == sure.share  # the label as it stands
    low, high = half["contempt"].drawn_interval or (0.0, 0.0)
    assert high - low > 2 * (sure.high - sure.low)
    assert sum(total.drawn or 0 for total in half.totals[:3]) == pytest.approx(sure.share)


def test_a_label_without_a_category_of_the_trait_is_assigned_one(parts: Decomposition) -> None:
    bare = labels({0: "contempt", 1: "contempt"})
    bare = replace(bare, labels={f: replace(item, categories={"humorous": "irony"}) for f, item in bare.labels.items()})
    given = reading({"label 0": {"threats": 0.9, "none": 0.1}, "label 1": {"none": 0.8, "style": 0.2}})
    made = made_of(parts, bare, assigner=given)
    assert made["threats"].features == (0,) and made["none"].features == (1,) and made.n_assigned == 2
    assert made_of(parts, bare)["unclear"].n_features == 2


def placebos(n: int = 10) -> PlaceboCodes:
    """Contrasts in which only features 40 to 59 move, and v is what they make (no error)."""
    codes = torch.zeros(n, D_SAE)
    codes[:, 40:60] = torch.randn(n, 20, generator=torch.Generator().manual_seed(3))
    related = tuple(("evil",) if k == 0 else () for k in range(n))
    return PlaceboCodes(
        tuple(f"p{k}" for k in range(n)), related, codes @ decoder(), codes, torch.ones(n, D_SAE), sae={}, model={}, provenance={}
    )


def test_placebo_contrasts_have_shares_that_sum_to_one_and_little_of_the_trait_s_features(parts: Decomposition) -> None:
    shares = placebo_shares(placebos(), decoder(), "evil")
    assert shares.shape == (9, D_SAE)  # the one that is close to the trait is left out
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(9), atol=1e-5, rtol=0)
    made = made_of(parts, group_labels(), placebo_shares=shares)
    null = made["contempt"].placebo
    assert null is not None and (null.median, null.n) == (0, 9) and null.p == pytest.approx(0.1)
    turned = replace(placebos(), vectors=-placebos().vectors, delta_codes=-placebos().delta_codes)
    torch.testing.assert_close(placebo_shares(turned, decoder(), "evil"), shares)


def test_features_without_replicates_are_counted_and_said(parts: Decomposition) -> None:
    few = replace(parts, replicate_features=parts.replicate_features[1:], replicate_shares=parts.replicate_shares[:, 1:])
    gone = int(parts.replicate_features[0])
    assert has_replicates(few, [gone, gone + 1]) == [False, True]
    constant = feature_replicates(few, [gone])
    assert constant.shape == (len(parts.replicate_error), 1) and constant.unique().item() == float(parts.share[gone])
    made = made_of(few, labels({gone: "contempt"}))
    assert "1 labelled features are not among" in made.warnings[0] and made["contempt"].share == float(parts.share[gone])
    assert gone in largest_shares(parts.share, 3, besides=[gone]).tolist()
    assert len(largest_shares(parts.share, 3, besides=largest_shares(parts.share, 3).tolist())) == 3


def test_the_same_seed_gives_the_same_answer_and_it_is_plain_json(parts: Decomposition) -> None:
    given = reading({f"label {f}": {"contempt": 0.6, "none": 0.4} for f in group_labels().labels})
    first, again = (made_of(parts, group_labels(), assigner=given, seed=4).to_dict() for _ in range(2))
    assert first == again and first != made_of(parts, group_labels(), assigner=given, seed=5).to_dict()
    value = json.loads(json.dumps(first, allow_nan=False))
    assert value["made_of"]["contempt"] == [first["parts"][0][key] for key in ("share", "low", "high")]
    assert value["sentence"].startswith("Features labelled as sub-traits make up")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p, s: (replace(p, share_error=None), s, None), "no shares"),
        (lambda p, s: (p, replace(s, sae_hash="0" * 64), None), "labels of the SAE of the decomposition"),
        (lambda p, s: (p, s, replace(EVIL, taxonomy=())), "no taxonomy"),
        (lambda p, s: (p, s, "no-such-trait"), "no-such-trait"),
        (lambda p, s: (p, labels({D_SAE + 9: "contempt"}), None), str(D_SAE + 9)),
    ],
)
def test_what_does_not_belong_together_is_refused(parts: Decomposition, change: Any, said: str) -> None:
    changed, named, trait = change(parts, group_labels())
    with pytest.raises(WorkbenchError, match=said):
        made_of(changed, named, trait)


def effect(feature: int, q: float, verified: bool) -> CausalRow:
    return CausalRow(feature, 0.1, (0.0, 0.2), 0.0, 0.1, 0.1, 0.01, q, verified, 0.0)


def test_the_ranking_is_by_verified_q_then_absolute_share_and_nothing_else(parts: Decomposition) -> None:
    shares = torch.zeros(D_SAE, dtype=torch.float64)
    shares[:6] = torch.tensor([0.5, -0.6, 0.01, 0.02, 0.3, 0.02])
    rows = (effect(2, 0.01, True), effect(3, 0.04, True), effect(5, 0.04, True), effect(0, 0.001, False))
    found = ranked(replace(parts, share=shares, causal=rows), labels({3: "threats"}), n=6)
    assert [row.feature for row in found] == [2, 3, 5, 1, 0, 4] and [row.rank for row in found] == [1, 2, 3, 4, 5, 6]
    assert [row.q for row in found] == [0.01, 0.04, 0.04, None, None, None]
    assert (found[1].label, found[1].category) == ("label 3", "threats") and found[0].label is None
    assert ranked(replace(parts, share=-shares, causal=rows), n=6)[3].feature == 1  # the sign does not matter
    assert found[0].to_dict()["rank"] == 1 and len(ranked(parts)) == D_SAE


def test_a_basic_interval_in_closed_form() -> None:
    low, high = basic_interval(torch.arange(101, dtype=torch.float64), 60.0)
    assert (low.item(), high.item()) == pytest.approx((120 - 97.5, 120 - 2.5))


def test_shares_of_the_planted_world_are_what_the_test_says() -> None:
    assert truth()[:6].min() > 0.015 and decoder().shape == (D_SAE, D_MODEL)
    assert float(truth().sum()) + true_error() == pytest.approx(1) and not truth()[6:].any()
