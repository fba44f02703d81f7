"""Which of several labels of a feature counts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.labeling.files.making import labels, said
from workbench.labeling.labels import FeatureLabel, preferred

LADDER = [
    said("a", "human", status="confirmed", date="2020-01-01"),
    said("b", "human", date="2025-01-01"),
    said("c", "human", status="disputed", date="2026-01-01"),
    said("d", "model", status="confirmed", date="2020-01-01"),
    said("e", "model", date="2026-01-31T12:00:00Z"),
    said("f", "model", date="2026-01-31"),
    said("g", "model", date="2025-12-31T23:59:59Z"),
    said("h", "model", date=""),
    said("i", "model", status="disputed", date="2026-02-01"),
    said("j", "offline", date="2026-02-01"),
]


@pytest.mark.parametrize("n", range(len(LADDER)))
def test_each_label_counts_until_a_better_one_is_there(n: int) -> None:
    assert preferred(reversed(LADDER[n:])) == LADDER[n]


def test_a_rejected_label_never_counts() -> None:
    rejected = said("a", "human", status="rejected")
    assert preferred([rejected]) is None
    assert preferred([rejected, LADDER[-1]]) == LADDER[-1]


def test_a_wording_that_a_person_rejected_does_not_count_for_the_model_that_wrote_it() -> None:
    rejected = said("e", "human", "Ada", status="rejected")
    assert preferred([rejected, LADDER[4]]) is None
    assert preferred([rejected, LADDER[4], LADDER[9]]) == LADDER[9]
    assert preferred([said("e", "human", "Bob"), rejected]) == said("e", "human", "Bob")


def test_a_model_that_rejects_its_own_label_does_not_reject_anothers() -> None:
    assert preferred([said("e", "model", "n", status="rejected"), LADDER[4]]) == LADDER[4]


@settings(max_examples=30, deadline=None)
@given(said=st.lists(labels(), min_size=1, max_size=5), data=st.data())
def test_the_order_in_which_labels_are_found_does_not_matter(said: list[FeatureLabel], data: st.DataObject) -> None:
    one, other = preferred(said), preferred(data.draw(st.permutations(said)))
    assert (one and one.label, one and one.author) == (other and other.label, other and other.author)
