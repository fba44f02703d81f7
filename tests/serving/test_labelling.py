from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.serving.world import TRAIT, WORDS, make_labels
from workbench.base.errors import WorkbenchError
from workbench.labeling.annotating.desk import readings
from workbench.labeling.files.store import FeatureLabel, FeatureRecord, load_label_file, save_label
from workbench.personas.traits import load_trait
from workbench.serving.answers import feature_json
from workbench.serving.labelling import Conflict, LabelBook, record_json
from workbench.serving.searching import search_features


@pytest.fixture
def book(world, tmp_path) -> LabelBook:
    records = {label.feature: _record(world, label) for label in make_labels(world.sae)}
    return LabelBook(world.sae.id, world.sae.weights_hash, records, tmp_path / "mine", trait=load_trait(TRAIT))


def _record(world, label):
    return FeatureRecord(world.sae.id, world.sae.weights_hash, label.feature, (label,), label.evidence)


def said(book: LabelBook, feature: int) -> list[tuple[str, str, str]]:
    assert book.place is not None
    labels = load_label_file(book.place / f"{feature}.yaml").labels
    return [(label.author["name"], label.status, label.label) for label in labels]


@pytest.mark.parametrize(
    ("verdict", "status", "words"),
    [("confirm", "confirmed", WORDS[0]), ("edit", "confirmed", "my own words"), ("reject", "rejected", WORDS[0]),
     ("dispute", "disputed", WORDS[0])],
)  # fmt: skip
def test_a_verdict_is_in_the_users_folder_signed_and_in_the_journal(book, verdict, status, words):
    record = book.decide(0, verdict, annotator="A. Reader", version="", label="my own words", note="seen twice")
    assert said(book, 0) == [("A. Reader", status, words)]
    assert {label.author["name"] for label in record.labels} == {"A. Reader", "a test"}
    assert (record.label.label if record.label else None) == {"edit": "my own words", "reject": None}.get(verdict, words)
    reading = readings(book.place, "A. Reader")[0]
    assert reading.verdict == ("unclear" if verdict == "dispute" else verdict) and reading.note == "seen twice"


def test_a_feature_that_nobody_labelled_can_be_named_and_named_again(book):
    book.decide(9, "edit", annotator="A. Reader", version="", label="the first idea")
    version = book.version(9)
    assert version
    record = book.decide(9, "edit", annotator="A. Reader", version=version, label="the second idea", category="style")
    assert said(book, 9) == [("A. Reader", "confirmed", "the second idea")]
    assert record.label is not None and record.label.categories == {TRAIT: "style"}


def test_what_somebody_else_wrote_meanwhile_is_shown_and_nothing_is_lost(book, world):
    version = book.version(1)
    theirs = FeatureLabel(1, "another opinion", author={"kind": "human", "name": "B. Reader"}, status="confirmed")
    save_label(theirs, world.sae.id, world.sae.weights_hash, book.folder, annotator=True)
    with pytest.raises(Conflict) as told:
        book.decide(1, "edit", annotator="A. Reader", version=version, label="my own words")
    assert "another opinion" in [label["label"] for label in record_json(told.value.record)["labels"]]
    assert said(book, 1) == [("B. Reader", "confirmed", "another opinion")]
    book.decide(1, "edit", annotator="A. Reader", version=book.version(1), label="my own words")
    assert sorted(said(book, 1)) == [
        ("A. Reader", "confirmed", "my own words"),
        ("B. Reader", "confirmed", "another opinion"),
    ]


def test_without_a_folder_nothing_can_be_written(book):
    shown = LabelBook(book.sae_id, book.sae_hash, book.given)
    with pytest.raises(WorkbenchError, match="--labels"):
        shown.decide(0, "confirm", annotator="A. Reader", version="")
    assert shown.record(0).label is not None and shown.version(0) == ""


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"annotator": " "}, "name"),
        ({"label": "one " * 13}, "12 words"),
        ({"verdict": "praise"}, "verdict"),
        ({"category": "no such"}, "category"),
    ],
)  # fmt: skip
def test_what_is_no_verdict_is_refused_and_leaves_no_label(book, values, words):
    asked = {"verdict": "edit", "annotator": "A. Reader", "version": "", "label": "some words", **values}
    with pytest.raises(WorkbenchError, match=words):
        book.decide(2, asked.pop("verdict"), **asked)
    assert book.own() == []


def test_a_file_edited_by_hand_is_read_anew(book):
    book.decide(3, "confirm", annotator="A. Reader", version="")
    path = book.place / "3.yaml"
    before = book.version(3)
    path.write_text(path.read_text().replace(WORDS[3], "cheese alone"))
    assert book.version(3) != before and "cheese alone" in [label.label for label in book.record(3).labels]


def test_features_are_found_by_words_in_labels_then_contexts(book):
    records = book.records()
    assert [one.feature for one in search_features("RIVERS lakes", records)] == [1]
    found = search_features("word2", records)
    assert [(one.feature, one.where) for one in found] == [(2, "context")]
    assert search_features("  ", records) == [] and search_features("nothing of the kind", records) == []


def test_what_is_written_while_a_page_is_made_is_a_conflict_and_never_overwritten(book, world, monkeypatch):
    """The page then shows the feature as it was: a verdict on it has to be refused."""
    theirs = FeatureLabel(1, "another opinion", author={"kind": "human", "name": "B. Reader"}, status="confirmed")
    explorer = SimpleNamespace(book=book, index=None, runs=[], feature=lambda feature: feature)
    read = book.record

    def record(feature):
        found = read(feature)
        save_label(theirs, world.sae.id, world.sae.weights_hash, book.folder, annotator=True)
        return found

    monkeypatch.setattr(book, "record", record)
    page = feature_json(cast(Any, explorer), 1)
    assert "another opinion" not in str(page["labels"])
    monkeypatch.setattr(book, "record", read)
    with pytest.raises(Conflict):
        book.decide(1, "edit", annotator="B. Reader", version=page["version"], label="my own words")
    assert said(book, 1) == [("B. Reader", "confirmed", "another opinion")]


def test_a_file_replaced_within_one_tick_of_the_clock_is_read_again(book, world):
    for words in ("first words", "other words"):
        label = FeatureLabel(1, words, author={"kind": "human", "name": "B. Reader"}, status="confirmed", date="2026-01-01")
        path = save_label(label, world.sae.id, world.sae.weights_hash, book.folder, annotator=True)
        os.utime(path, ns=(10**18, 10**18))
        assert words in [label.label for label in book.record(1).labels]
