"""Cohen's kappa of two annotators: the textbook's and scikit-learn's numbers, intervals that cover, and honest refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.labeling.annotating import HOSTILE, SAE, evidence_of, label_of, queue, session
from workbench.base.errors import WorkbenchError
from workbench.labeling.annotating.agreement import agreement, blind_agreement, cohen_kappa
from workbench.labeling.annotating.queue import Item
from workbench.labeling.annotating.session import AnnotationSession

RATINGS = ("confirm", "edit", "reject", "contempt")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(RATINGS), st.sampled_from(RATINGS)), max_size=40))
def test_kappa_is_scikit_learns(pairs: list[tuple[str, str]]) -> None:
    from sklearn.metrics import cohen_kappa_score

    found = cohen_kappa(pairs, n_bootstrap=20)
    constant = any(len({pair[side] for pair in pairs}) < 2 for side in (0, 1))
    assert (found.kappa is None) == constant and bool(found.reason) == (found.interval is None) and found.n == len(pairs)
    if found.kappa is not None:
        assert found.kappa == pytest.approx(cohen_kappa_score(*zip(*pairs, strict=True)), abs=1e-12)
        assert all(n == pairs.count((x, y)) for x, row in found.cells.items() for y, n in row.items())
        assert sum(n for row in found.cells.values() for n in row.values()) == len(pairs)


def test_the_textbook_example() -> None:
    # Two readers of 50 proposals: both yes 20, yes/no 5, no/yes 10, both no 15: 0.70 observed, 0.50 expected, kappa 0.40.
    pairs = [("yes", "yes")] * 20 + [("yes", "no")] * 5 + [("no", "yes")] * 10 + [("no", "no")] * 15
    found = cohen_kappa(pairs)
    assert found.kappa == pytest.approx(0.4) and found.agreed == pytest.approx(0.7)
    assert found.interval is not None and found.interval[0] < 0.4 < found.interval[1]
    assert cohen_kappa(pairs) == found, "the same seed gives the same interval"


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """600 worlds of 60 features with kappa 0.4. The standard error of the coverage is 0.9 points, and a percentile interval falls
    a little short of its level at this n: 91 to 98% is asked for."""
    cells, names = np.array([0.35, 0.15, 0.15, 0.35]), ["yes", "no"]
    rng, covered = np.random.default_rng(0), 0
    for world in range(600):
        counts = rng.multinomial(60, cells)
        pairs = [(names[c // 2], names[c % 2]) for c in range(4) for _ in range(counts[c])]
        found = cohen_kappa(pairs, n_bootstrap=400, seed=world)
        assert found.interval is not None
        covered += found.interval[0] <= 0.4 <= found.interval[1]
    assert 0.91 <= covered / 600 <= 0.98


def test_independent_raters_have_a_kappa_around_zero() -> None:
    rng = np.random.default_rng(1)
    pairs = [(RATINGS[a], RATINGS[b]) for a, b in rng.integers(0, 4, (4000, 2))]
    assert cohen_kappa(pairs, n_bootstrap=20).kappa == pytest.approx(0.0, abs=0.03)  # standard error 0.009


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [([], "no feature"), ([("a", "a"), ("a", "b")], "first rater gave 'a'"), ([("a", "b"), ("b", "b")], "second rater gave 'b'")],
)
def test_without_two_ratings_of_each_there_is_no_kappa_and_a_reason(pairs: list[tuple[str, str]], reason: str) -> None:
    found = cohen_kappa(pairs)
    assert found.kappa is None and found.interval is None and reason in found.reason


MIXED = [("a", "a"), ("b", "b"), ("a", "b"), ("b", "a"), ("a", "a")]


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        ([("a", "a"), ("b", "b")], "fewer than 10"),
        (MIXED + MIXED[:4], "fewer than 10"),
        ([("a", "a")] * 19 + [("b", "b")], "constant in"),
        ([("a", "a"), ("b", "b")] * 20, "agrees alike"),
        (MIXED * 2, ""),
    ],
)
def test_an_interval_is_given_only_where_the_features_can_carry_one(pairs: list[tuple[str, str]], reason: str) -> None:
    found = cohen_kappa(pairs)
    assert found.kappa is not None and (found.interval is None) == bool(reason) and reason in found.reason


# ------------------------------------------------------------------------------------------------ from journals


def read_all(root: Path, name: str, verdicts: str, *, blind: bool = False, n: int = 6) -> None:
    """Features 0, 1, ...: c confirms, r rejects, u is unclear, e edits with the category contempt; "." passes over."""
    with session(root, queue(range(n)), name=name, blind=blind) as one:
        for letter in verdicts:
            if letter == ".":
                one.act("next")
                continue
            if blind and letter != "u":
                one.act("category", "contempt" if letter == "e" else "insulting_language")
                one.act("write", "rude words")
            elif letter == "e":
                one.act("category", "contempt")
            action = {"c": "confirm", "r": "reject", "u": "unclear", "e": "edit"}[letter]
            one.act(action, "scorn" if letter == "e" else None)


def test_two_annotators_are_compared_on_what_both_decided(tmp_path: Path) -> None:
    read_all(tmp_path, "first reader", "ccruec")
    read_all(tmp_path, "second reader", "crrc.u")
    found = agreement(tmp_path / SAE, "first reader", "second reader")
    assert (found.n_read, found.n_both, found.trait) == ((6, 5), 5, "evil")
    assert found.status == cohen_kappa(list(zip(["confirm", "confirm", "reject", "unclear", "confirm"],
                                                ["confirm", "reject", "reject", "confirm", "unclear"], strict=True)))  # fmt: skip
    assert found.status.cells["confirm"] == {"confirm": 1, "reject": 1, "unclear": 1}
    assert found.category.n == 3, "who rejects chooses no category"
    swapped = agreement(tmp_path / SAE, "second reader", "first reader")
    assert swapped.status.kappa == found.status.kappa
    assert [one.n_blind for one in found.blind] == [0, 0] and found.blind[0].upheld is None


def test_blind_readings_are_compared_with_the_hidden_labels(tmp_path: Path) -> None:
    read_all(tmp_path, "first reader", "ccreuc", blind=True)
    found = blind_agreement(tmp_path / SAE, "first reader")
    assert (found.n_blind, found.n_proposed, found.n_passed, found.n_judged) == (6, 6, 1, 5)
    assert found.upheld == pytest.approx(3 / 5)
    assert found.upheld_interval == pytest.approx((0.2307, 0.8824), abs=1e-3)  # Wilson's interval of 3 in 5
    # Hidden labels all say insulting_language: the second rater is constant, so chance alone fixes kappa.
    assert found.category.n == 6 and found.category.kappa is None and "second rater" in found.category.reason
    assert found.category.agreed == pytest.approx(4 / 6)


def test_the_hidden_label_counts_as_it_was_when_it_was_hidden(tmp_path: Path) -> None:
    labels = [label_of(f, categories={"evil": "topic" if f % 2 else "contempt"}) for f in range(4)]
    with session(tmp_path, [Item(x.feature, evidence_of(x.feature), x) for x in labels], blind=True) as one:
        for category in ("contempt", "topic", "contempt", "contempt"):
            one.act("category", category)
            one.act("write", "own words")
            one.act("category", "threats")  # changed after seeing the label: not blind
            one.act("confirm")
    pairs = [("contempt", "contempt"), ("topic", "topic"), ("contempt", "contempt"), ("contempt", "topic")]
    assert blind_agreement(tmp_path / SAE, "first reader").category == cohen_kappa(pairs)


def test_journals_for_different_weights_are_not_compared(tmp_path: Path) -> None:
    read_all(tmp_path, "first reader", "cc")
    other = AnnotationSession(queue(range(2)), tmp_path, SAE, "cd" * 32, annotator="second reader")
    other.act("confirm")
    other.close()
    with pytest.raises(WorkbenchError, match=r"abababababab.*cdcdcdcdcdcd"):
        agreement(tmp_path / SAE, "first reader", "second reader")


def test_who_cannot_be_compared_is_told_why(tmp_path: Path) -> None:
    read_all(tmp_path, "first reader", "c")
    with pytest.raises(WorkbenchError, match="first reader"):
        agreement(tmp_path / SAE, "first reader", HOSTILE.splitlines()[0][:10])
    with pytest.raises(WorkbenchError, match="twice"):
        agreement(tmp_path / SAE, "first reader", "first  reader")
    for name in ("first reader", "second reader"):
        with session(tmp_path, queue(range(6)), name=name) as one:
            one.act("confirm")
        with session(tmp_path, queue(range(6)), name=name, trait="sycophantic") as one:
            one.act("confirm")
    with pytest.raises(WorkbenchError, match="--trait"):
        agreement(tmp_path / SAE, "first reader", "second reader")
    assert agreement(tmp_path / SAE, "first reader", "second reader", trait="evil").trait == "evil"
