"""Grouping shares for the picture, and the intervals of sums."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from workbench.reports.intervals import GroupIntervals
from workbench.reports.shares import CategoryName, category_name, finite, interval, slices

NOTHING = GroupIntervals({}, np.zeros((0, 0)), np.zeros(0), np.zeros(0), 0.0)
TAXONOMY = {
    "cruel": CategoryName("Cruelty", "trait"),
    "style": CategoryName("Style", "other"),
    "unclear": CategoryName("Unclear", "unclear"),
}

sizes = st.lists(st.floats(-0.3, 0.3), min_size=1, max_size=30)
kinds = st.sampled_from(["cruel", "style", "unclear", "unheard_of"])


@given(sizes, st.dictionaries(st.integers(0, 29), kinds), st.floats(-0.2, 1.2))
def test_every_share_is_in_exactly_one_row(shares, categories, error):
    known = {feature: kind for feature, kind in categories.items() if feature < len(shares)}
    rows = slices(shares, known, TAXONOMY, (error, None), NOTHING)
    assert math.isclose(math.fsum(row.value for row in rows), math.fsum(shares) + error, abs_tol=1e-9)
    assert sum(row.n_features for row in rows if row.group != "open") == len(known)
    assert all(
        math.isclose(row.positive + row.negative, row.value, abs_tol=1e-9)
        for row in rows
        if row.group != "error"
    )


def test_sub_traits_come_first_and_the_error_last():
    rows = slices([0.1, 0.3, 0.2], {0: "cruel", 1: "style"}, TAXONOMY, (0.4, (0.3, 0.5)), NOTHING)
    assert [row.id for row in rows] == ["cruel", "style", "unlabelled", "error"]
    assert (rows[-1].low, rows[-1].high) == (0.3, 0.5)


def test_an_unknown_category_never_counts_as_a_sub_trait():
    assert category_name(TAXONOMY, "made_up_thing") == CategoryName("Made up thing", "other")
    assert category_name({}, "unclear").group == "unclear"
    assert category_name({}, None).group == "open"


def test_the_interval_of_a_sum_is_taken_over_sums():
    random = np.random.default_rng(0)
    first = random.normal(0.2, 0.05, 4_000)
    shares = np.stack([first, 0.5 - first], axis=1)  # they always sum to .5: the sum has no spread at all
    known = GroupIntervals({3: 0, 8: 1}, shares, np.full(4_000, 0.1), np.array([0.2, 0.3]), 0.1)
    low, high = known.total([3, 8])
    assert math.isclose(low, 0.5) and math.isclose(high, 0.5)
    low, high = known.total([3])
    # 2.5% and 97.5% points of the normal; the error of an empirical quantile at n = 4,000 is about .05 * .04
    assert abs(low - (0.2 - 1.96 * 0.05)) < 0.01 and abs(high - (0.2 + 1.96 * 0.05)) < 0.01


def test_the_remainder_follows_from_the_identity():
    known = GroupIntervals({0: 0}, np.array([[0.2], [0.3], [0.4]]), np.array([0.1, 0.1, 0.1]), np.array([0.25]), 0.1)
    low, high = np.quantile([0.7, 0.6, 0.5], [0.025, 0.975])
    assert np.allclose(known.remainder([0]), (2 * 0.65 - high, 2 * 0.65 - low))  # mirrored at the vector's own remainder, .65


def test_no_interval_is_claimed_where_replicates_are_missing():
    known = GroupIntervals({0: 0}, np.array([[0.2], [0.3]]), np.array([0.1, 0.1]), np.array([0.2]), 0.1)
    assert known.total([0, 5]) is None and known.remainder([5]) is None
    assert NOTHING.total([0]) is None and NOTHING.remainder([]) is None


def test_unknown_numbers_are_none():
    assert (
        finite(math.nan) is None and finite(None) is None and finite(-math.inf) is None and finite(2) == 2.0
    )
    assert interval((0.1, math.nan)) is None and interval(None) is None and interval((1, 2)) == [1.0, 2.0]
