"""Merging label folders: the rules, and what holds whatever the labels are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.labeling.files.making import OTHER, SAE, a_label, a_record, evidence_of, labels, said
from workbench.base.errors import WorkbenchError
from workbench.labeling.files.folders import read_folder, write_records
from workbench.labeling.files.merge import Merged, Records, merge
from workbench.labeling.labels import FeatureLabel, FeatureRecord

MANY = settings(max_examples=25, deadline=None)
JANUARY, FEBRUARY = "2026-01-31T12:00:00Z", "2026-02-28T12:00:00Z"


def one(*given: FeatureLabel, evidence: object = None) -> dict[tuple[str, int], FeatureRecord]:
    return {(SAE, 17): a_record(*given, evidence=evidence)}


def words(merged: Merged) -> list[tuple[str, str]]:
    return [(label.label, label.status) for label in merged.records[SAE, 17].labels]


def test_labels_of_different_authors_stand_side_by_side() -> None:
    merged = merge(one(said("anger", "human", "Ada")), one(said("rage", "model", "m"), said("fury", "offline", "m")))
    assert words(merged) == [("anger", "proposed"), ("rage", "proposed"), ("fury", "proposed")] and not merged.conflicts


def test_of_one_author_the_newer_label_wins() -> None:
    old, new = said("anger", date=JANUARY), said("rage", date=FEBRUARY)
    for sides in ((old, new), (new, old)):
        assert words(merge(one(sides[0]), one(sides[1]))) == [("rage", "proposed")]
    assert words(merge(one(said("anger", date="")), one(old))) == [("anger", "proposed")]


def test_what_a_person_confirmed_is_not_replaced_by_the_program_that_wrote_it() -> None:
    confirmed, newer = said("anger", status="confirmed", date=JANUARY), said("rage", date=FEBRUARY)
    assert words(merge(one(newer), one(confirmed))) == [("anger", "confirmed")]


def test_a_person_may_change_their_mind() -> None:
    before = said("anger", "human", "Ada", status="confirmed", date=JANUARY)
    after = replace(before, status="rejected", date=FEBRUARY)
    assert words(merge(one(before), one(after))) == [("anger", "rejected")]


def test_different_words_of_one_day_are_a_conflict_and_both_stay() -> None:
    merged = merge(one(said("anger")), one(said("rage")))
    assert words(merged) == [("anger", "disputed"), ("rage", "disputed")]
    assert [(c.kind, c.labels, c.feature) for c in merged.conflicts] == [("same date, different words", ("anger", "rage"), 17)]
    again = merge(merged.records, one(said("rage")))
    assert again.records == merged.records and not again.conflicts
    settled = merge(merged.records, one(said("fury", date=FEBRUARY)))
    assert words(settled) == [("fury", "proposed")] and not settled.conflicts


def test_copies_that_were_scored_apart_keep_both_scores() -> None:
    first, second = ({"kind": kind, "value": 0.5, "interval": None} for kind in ("detection", "fuzzing"))
    merged = merge(one(said("anger", score=first)), one(said("anger", score=second, status="disputed")))
    (label,) = merged.records[SAE, 17].labels
    assert [label.score, *label.scores] in ([first, second], [second, first]) and label.status == "disputed"


def test_the_evidence_from_more_tokens_stays() -> None:
    more = replace(evidence_of(), n_tokens=5000)
    merged = merge(one(said("anger"), evidence=evidence_of()), one(said("anger"), evidence=more))
    assert merged.records[SAE, 17].evidence == more


@pytest.mark.parametrize(("kind", "name"), [("model", "m"), ("human", "Ada")])
def test_two_confirmed_labels_of_one_author_both_stay_confirmed_and_are_listed(kind: str, name: str) -> None:
    x, z = (said(word, kind, name, status="confirmed") for word in ("anger", "rage"))
    merged = merge(one(x), one(z))
    assert words(merged) == [("anger", "confirmed"), ("rage", "confirmed")] and len(merged.conflicts) == 1
    again = merge(merged.records, one(z))
    assert again.records == merged.records and not again.conflicts and not again.left_out
    settled = merge(one(x), one(replace(x, status="disputed"), replace(z, status="disputed")))
    assert words(settled)[0] == ("anger", "confirmed")  # settled by hand, and not disputed again by a stale copy


def test_a_confirmed_label_among_several_stays_beside_a_newer_one() -> None:
    confirmed, old = said("anger", "human", "Ada", status="confirmed"), said("fury", "human", "Ada", date="")
    merged = merge(one(confirmed, old), one(said("rage", "human", "Ada", date=FEBRUARY)))
    assert words(merged) == [("anger", "confirmed"), ("rage", "disputed")]
    assert [c.kind for c in merged.conflicts] == ["a confirmed label and others"]
    assert [c.labels for c in merged.left_out] == [("fury",)]


def test_a_persons_label_that_their_newer_one_replaces_is_listed() -> None:
    before, after = (said(w, "human", "Ada", status="confirmed", date=d) for w, d in (("anger", JANUARY), ("rage", FEBRUARY)))
    merged = merge(one(before), one(after))
    assert words(merged) == [("rage", "confirmed")] and [c.labels for c in merged.left_out] == [("anger",)]
    assert not merge(one(said("anger")), one(said("rage", date=FEBRUARY))).left_out  # a program's is nobody's loss


@pytest.mark.parametrize(
    ("mine", "other", "expected", "n_conflicts"),
    [
        ("anger", "anger", ["anger"], 0),
        ("anger", None, [], 0),  # they removed what we left alone
        (None, "anger", [], 0),
        ("rage", "anger", ["rage"], 0),  # we changed what they left alone
        ("anger", "rage", ["rage"], 0),
        ("rage", None, ["rage"], 1),  # they removed what we changed
        (None, "rage", ["rage"], 1),
        ("rage", "fury", ["fury", "rage"], 1),
        (None, None, [], 0),
    ],
)
def test_a_common_base_tells_changes_from_what_was_left_alone(
    mine: str | None, other: str | None, expected: list[str], n_conflicts: int
) -> None:
    ours, theirs = (one(said(label)) if label else {} for label in (mine, other))
    merged = merge(ours, theirs, one(said("anger")))
    found = [label.label for record in merged.records.values() for label in record.labels]
    assert (found, len(merged.conflicts)) == (expected, n_conflicts)


def test_labels_for_other_weights_are_refused() -> None:
    other = {(SAE, 18): a_record(replace(said("anger"), feature=18), feature=18, sae_hash=OTHER)}
    with pytest.raises(WorkbenchError, match=r"for the weights abababababab, and for cdcdcdcdcdcd \(feature 18\)"):
        merge(one(said("anger")), other)


@st.composite
def folders(draw: st.DrawFn) -> Records:
    features = draw(st.sets(st.integers(1, 3), max_size=2))
    return {(SAE, f): a_record(*draw(st.lists(labels(f), min_size=1, max_size=3)), feature=f) for f in sorted(features)}


@MANY
@given(ours=folders(), theirs=folders())
def test_merging_does_not_depend_on_the_side(ours: Records, theirs: Records) -> None:
    assert merge(ours, theirs).records == merge(theirs, ours).records


@MANY
@given(ours=folders(), theirs=folders())
def test_merging_again_changes_nothing(ours: Records, theirs: Records) -> None:
    once = merge(ours, theirs)
    for again in (merge(once.records, theirs), merge(once.records, ours), merge(once.records, once.records)):
        assert again.records == once.records and not again.conflicts


@st.composite
def narrow(draw: st.DrawFn) -> Records:
    """One author's labels from few words, dates and statuses, so that all rules meet."""
    by = draw(st.sampled_from([("human", "Ada"), ("model", "m")]))
    statuses = st.sampled_from(["proposed", "disputed", "rejected", "confirmed"])
    dates, wordings = st.sampled_from(["", JANUARY, FEBRUARY]), st.sampled_from(["anger", "rage"])
    drawn = draw(st.lists(st.tuples(wordings, statuses, dates), min_size=1, max_size=3, unique=True))
    return one(*(said(label, *by, status=status, date=date) for label, status, date in drawn))


@settings(max_examples=400, deadline=None)
@given(ours=narrow(), theirs=narrow())
def test_no_confirmed_label_is_lost_unlisted_and_merging_is_stable(ours: Records, theirs: Records) -> None:
    merged = merge(ours, theirs)
    assert merged.records == merge(theirs, ours).records
    for again in (merge(merged.records, theirs), merge(merged.records, ours), merge(theirs, merged.records)):
        assert again.records == merged.records
    found = {(str(item.author), *pair) for item, pair in _pairs(merged.records)}
    listed = {(str(item.author), label) for item in merged.left_out for label in item.labels}
    for item, (label, status) in (*_pairs(ours), *_pairs(theirs)):
        if status == "confirmed":
            assert (str(item.author), label, status) in found or (str(item.author), label) in listed


def _pairs(records: Records) -> list[tuple[FeatureLabel, tuple[str, str]]]:
    return [(label, (label.label, label.status)) for record in records.values() for label in record.labels]


@MANY
@given(ours=folders(), theirs=folders())
def test_every_author_of_either_side_is_heard(ours: Records, theirs: Records) -> None:
    def authors(records: Records) -> set[tuple[int, str]]:
        return {(r.feature, str(label.author)) for r in records.values() for label in r.labels}

    assert authors(merge(ours, theirs).records) == authors(ours) | authors(theirs)


@MANY
@given(ours=folders(), base=folders())
def test_with_a_base_the_side_that_changed_wins(ours: Records, base: Records) -> None:
    assert merge(ours, base, base).records == merge(base, ours, base).records == merge(ours, {}).records


def test_what_was_merged_is_what_is_read_back(tmp_path: Path) -> None:
    merged = merge(one(a_label(), evidence=evidence_of()), one(said("rage", "human", "Ada")))
    write_records(merged.records, tmp_path)
    assert read_folder(tmp_path) == merged.records


def test_nothing_is_written_when_one_record_cannot_be_read_back(tmp_path: Path) -> None:
    bad = {(SAE, 18): a_record(replace(said("word " * 20), feature=18), feature=18)}
    with pytest.raises(WorkbenchError, match="20 words"):
        write_records({**one(said("anger")), **bad}, tmp_path)
    assert not list(tmp_path.rglob("*"))
