"""The label file holds only what the person saw, and a journal that is damaged or planted does no harm."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.labeling.annotating import SAE, evidence_of, label_of, session
from workbench.base.errors import WorkbenchError
from workbench.labeling.annotating import session as sessions
from workbench.labeling.annotating.desk import readings
from workbench.labeling.annotating.journal import journal_path, read_journal
from workbench.labeling.annotating.queue import Item
from workbench.labeling.files.store import load_labels
from workbench.labeling.labels import FeatureLabel

BOTH = {"evil": "insulting_language", "sycophantic": "none"}


def item(feature: int = 5, **changes: Any) -> Item:
    return Item(feature, evidence_of(feature), label_of(feature, **changes))


def filed(root: Path, feature: int = 5) -> FeatureLabel:
    (label,) = [x for x in load_labels(SAE, root).all_of(feature) if x.author["kind"] == "human"]
    return label


# ------------------------------------------------------------------------------------------------ what is signed


@pytest.mark.parametrize("wording", ["secret hidden words", "unclear"])
def test_who_reads_blind_and_cannot_tell_signs_no_hidden_word(tmp_path: Path, wording: str) -> None:
    with session(tmp_path, [item(label=wording, explanation="never seen", score={"kind": "x", "value": 1.0})], blind=True) as one:
        one.act("unclear")
    label = filed(tmp_path)
    assert (label.label, label.explanation, label.score, label.status) == ("unclear", "", None, "disputed")
    assert label.categories == {"evil": "unclear"}


def test_who_cannot_tell_after_seeing_the_label_disputes_it(tmp_path: Path) -> None:
    with session(tmp_path, [item()], blind=True) as one:
        one.act("pass")
        one.act("unclear")
    assert (filed(tmp_path).label, filed(tmp_path).status) == ("insults number 5", "disputed")


@pytest.mark.parametrize(("trait", "taken"), [("evil", {"evil": "insulting_language"}), (None, {})])
def test_who_confirms_under_one_trait_says_nothing_of_the_others(tmp_path: Path, trait: str | None, taken: dict) -> None:
    with session(tmp_path, [item(categories=BOTH)], trait=trait) as one:
        one.act("confirm")
    assert filed(tmp_path).categories == taken and filed(tmp_path).label == "insults number 5"


@pytest.mark.parametrize(
    "now",
    [
        {"label": "second words", "categories": {"evil": "threats"}, "explanation": "other"},
        {"author": {"kind": "model", "name": "another"}, "categories": {"evil": "threats"}, "explanation": "other"},
    ],
)
def test_a_verdict_that_is_filed_late_is_on_what_was_shown_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: dict[str, Any]
) -> None:
    def full(*_: Any, **__: Any) -> Path:
        raise WorkbenchError("the disk is full")

    with monkeypatch.context() as patch, session(tmp_path, [item(label="first words")]) as one:
        patch.setattr(sessions, "file_verdict", full)
        one.act("confirm")
        assert "disk is full" in one.problem
    later = Item(5, evidence_of(5, text=" other"), label_of(5, **{"label": "first words", **now}))
    with session(tmp_path, [later]):
        pass
    label = filed(tmp_path)
    assert (label.label, label.explanation, label.categories) == ("first words", "", {"evil": "insulting_language"})
    assert label.evidence_hash == evidence_of(5).hash and label.status == "confirmed"


# ------------------------------------------------------------------------------------------------ damage


AT = '"at": "2026-01-01T00:00:00+00:00"'
VERDICT = {"event": "verdict", "at": "2026-01-01T00:00:00+00:00", "feature": 5, "trait": None, "verdict": "confirm", "label": "x",
           "note": "", "category": None, "blind": None, "evidence": None, "next": None, "proposed": None}  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        f'{{"event": "session", {AT}}}', f'{{"event": "show", {AT}}}', f'{{"event": "verdict", "feature": 5, {AT}}}',
        f'{{"event": "note", "note": "x", "feature": [1], {AT}}}', f'{{"event": "note", "note": 3, "feature": 1, {AT}}}',
        '{"event": "sing", "at": "yesterday"}', f'{{"event": ["show"], {AT}}}', "[" * 100_000, "3", "1" * 5000,
        *(json.dumps(VERDICT | change) for change in (
            {"verdict": "huh"}, {"verdict": []}, {"label": None}, {"feature": True}, {"feature": -1}, {"proposed": "x"},
            {"next": "5"}, {"proposed": {"label": "x", "trait": None}}, {"evidence": 3},
            {"blind": {"trait": None, "label": 3, "category": None}},
        )),
    ],
)  # fmt: skip
def test_an_entry_that_lacks_something_or_holds_something_else_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    path = journal_path(tmp_path / SAE, "first reader")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(VERDICT) + "\n" + line + "\n", encoding="utf-8")
    before = path.read_bytes()
    for read in (lambda: session(tmp_path), lambda: readings(tmp_path / SAE, "first reader")):
        with pytest.raises(WorkbenchError, match="line 2"):
            read()
    assert path.read_bytes() == before


def test_what_a_session_writes_is_what_a_journal_has_to_hold(tmp_path: Path) -> None:
    for trait, blind in (("evil", True), (None, False)):
        with session(tmp_path, [item(), item(7), Item(8, evidence_of(8)), Item(9)], trait=trait, blind=blind) as one:
            for action, value in [("note", "n"), ("draft_label", "x"), ("draft_label", None), ("next", None), ("back", None)]:
                one.act(action, value)
            one.act(*(("write", "own") if blind else ("edit", "own")))
            one.act("unclear")
    kinds = {event["event"] for event in read_journal(one.journal.path)}
    assert kinds >= {"session", "show", "note", "draft", "blind", "verdict", "filed"}


@pytest.mark.parametrize("text", ["my only copy, no line end", "[1, 2", "PK\x03\x04"])
def test_a_file_that_is_no_journal_loses_nothing(tmp_path: Path, text: str) -> None:
    path = journal_path(tmp_path / SAE, "first reader")
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(WorkbenchError, match="journal"):
        session(tmp_path)
    assert path.read_text(encoding="utf-8") == text


def test_the_zeros_of_a_power_cut_are_taken_away(tmp_path: Path) -> None:
    with session(tmp_path) as one:
        path = one.journal.path
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0" * 40)
    with session(tmp_path):
        pass
    assert path.read_bytes().startswith(whole + b"{")


@pytest.mark.parametrize("place", ["journal", "lock", "folder"])
def test_a_link_is_not_followed(tmp_path: Path, place: str) -> None:
    victim = tmp_path / "victim"
    journal = journal_path(tmp_path / SAE, "first reader")
    link = {"journal": journal, "lock": journal.with_suffix(".lock"), "folder": journal.parent}[place]
    link.parent.mkdir(parents=True)
    if place == "folder":
        victim.mkdir()
    else:
        victim.write_text('{"my only copy', encoding="utf-8")
    link.symlink_to(victim)
    with pytest.raises(WorkbenchError, match="is a link"):
        session(tmp_path)
    assert not list(victim.iterdir()) if victim.is_dir() else victim.read_text(encoding="utf-8") == '{"my only copy'


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    journal = journal_path(tmp_path / SAE, "first reader")
    journal.parent.mkdir(parents=True)
    os.mkfifo(journal)
    for read in (lambda: session(tmp_path), lambda: readings(tmp_path / SAE, "first reader")):
        with pytest.raises(WorkbenchError, match="no ordinary file"):
            read()
