"""The annotation session and its journal: what is possible, what is kept, what a crash loses (nothing)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.labeling.annotating import (
    FEATURES,
    HASH,
    HOSTILE,
    SAE,
    evidence_of,
    label_of,
    label_set,
    queue,
    session,
    shelf,
)
from workbench.base.errors import WorkbenchError
from workbench.base.text import visible
from workbench.labeling.annotating.desk import annotators, readings, replay
from workbench.labeling.annotating.journal import Journal, clean_name, journal_path, read_journal
from workbench.labeling.annotating.queue import Item, make_queue
from workbench.labeling.annotating.session import AnnotationSession
from workbench.labeling.annotating.view import view
from workbench.labeling.files.store import load_labels
from workbench.labeling.labels import FeatureLabel, LabelSet


def filed(root: Path, feature: int, name: str = "first reader") -> FeatureLabel:
    (label,) = [x for x in load_labels(SAE, root).all_of(feature) if x.author == {"kind": "human", "name": name}]
    return label


# ------------------------------------------------------------------------------------------------ verdicts


def test_each_verdict_is_in_the_label_file_under_the_persons_name(tmp_path: Path) -> None:
    shelf(tmp_path, (5, 17, 3, 9))
    with session(tmp_path, queue((5, 17, 3, 9))) as one:
        one.act("note", "  mostly\nsecond person ")
        one.act("confirm")
        one.act("category", "contempt")
        one.act("edit", " scorn  for the\nreader ")
        one.act("reject")
        one.act("unclear")
        assert one.current is None and one.n_read == 4
    first, own, rejected, unclear = (filed(tmp_path, f) for f in (5, 17, 3, 9))
    assert (first.label, first.status, first.notes) == ("insults number 5", "confirmed", "mostly second person")
    assert first.category_for("evil") == "insulting_language" and first.explanation == "Fires on name-calling."
    assert (own.label, own.status, own.explanation) == ("scorn for the reader", "confirmed", "")
    assert own.categories == {"evil": "contempt"}
    assert (rejected.label, rejected.status, dict(rejected.categories)) == ("insults number 3", "rejected", {})
    assert (unclear.label, unclear.status, unclear.category_for("evil")) == ("insults number 9", "disputed", "unclear")
    assert first.evidence is not None and first.evidence_hash == evidence_of(5).hash


def test_the_proposed_label_stays_beside_the_persons(tmp_path: Path) -> None:
    shelf(tmp_path)
    with session(tmp_path) as one:
        one.act("edit", "scorn")
    by_kind = {label.author["kind"]: label for label in load_labels(SAE, tmp_path).all_of(5)}
    assert by_kind["model"].label == "insults number 5" and by_kind["model"].status == "proposed"
    again = make_queue(load_labels(SAE, tmp_path), features=[5])
    assert again[0].proposed == by_kind["model"]


def test_a_label_of_a_person_is_never_offered_as_a_proposal() -> None:
    human = label_set(author={"kind": "human", "name": "somebody"})
    assert [item.proposed for item in make_queue(human)] == [None] * 3
    assert make_queue(human)[0].evidence == evidence_of(3)


@pytest.mark.parametrize(
    ("action", "value", "message"),
    [
        ("edit", "", "empty label"),
        ("edit", "word " * 13, "13 words"),
        ("edit", "x" * 161, "161 characters"),
        ("category", "kindness", "kindness"),
        ("write", "own words", "shown already"),
        ("back", None, "first feature"),
        ("dance", None, "dance"),
    ],
)
def test_what_is_not_possible_is_refused_and_changes_nothing(
    tmp_path: Path, action: str, value: str | None, message: str
) -> None:
    with session(tmp_path) as one:
        before = one.journal.path.read_bytes()
        with pytest.raises(WorkbenchError, match=message):
            one.act(action, value)
        assert one.journal.path.read_bytes() == before and one.desk.current == 5


def test_without_a_proposed_label_there_is_nothing_to_confirm(tmp_path: Path) -> None:
    with session(tmp_path, [Item(8, evidence_of(8))]) as one:
        with pytest.raises(WorkbenchError, match="proposed a label"):
            one.act("confirm")
        one.act("edit", "own words")
    assert filed(tmp_path, 8).label == "own words"


def test_a_key_pressed_twice_does_not_decide_the_next_feature(tmp_path: Path) -> None:
    with session(tmp_path) as one:
        one.act("confirm", feature=5)
        with pytest.raises(WorkbenchError, match="5 is no longer"):
            one.act("confirm", feature=5)
        assert one.current is not None and one.current.feature == 17 and one.n_read == 1


def test_back_and_next_walk_and_a_verdict_can_be_changed(tmp_path: Path) -> None:
    with session(tmp_path) as one:
        one.act("unclear")
        one.act("back")
        assert view(one)["verdict"] == "unclear" and view(one)["category"] == "unclear"
        one.act("confirm")
        assert one.desk.current == 17
        one.act("next")
        one.act("next")
        assert one.desk.current == 17, "after the last one comes the first that is not decided"
        one.act("confirm")
        with pytest.raises(WorkbenchError, match="last feature"):
            one.act("next")
        one.act("confirm")
        assert one.current is None
        one.act("back")
        assert one.desk.current == 3
    assert filed(tmp_path, 5).status == "confirmed" and filed(tmp_path, 5).category_for("evil") == "insulting_language"


def test_the_seeded_order_is_stable_and_a_feature_more_moves_no_other() -> None:
    labels = label_set(range(20))
    order = [item.feature for item in make_queue(labels, order="shuffled", seed=3)]
    assert order != sorted(order) and sorted(order) == list(range(20))
    assert order == [item.feature for item in make_queue(labels, order="shuffled", seed=3)]
    assert order != [item.feature for item in make_queue(labels, order="shuffled", seed=4)]
    longer = [item.feature for item in make_queue(label_set(range(21)), order="shuffled", seed=3)]
    assert [f for f in longer if f != 20] == order
    ranked = make_queue(labels, features=[9, 4, 9, 11], evidence={4: evidence_of(4, text=" new")})
    assert [item.feature for item in ranked] == [9, 4, 11] and ranked[1].evidence == evidence_of(4, text=" new")
    for wrong in ({"order": "best"}, {"features": []}):
        with pytest.raises(WorkbenchError):
            make_queue(labels, **wrong)


# ------------------------------------------------------------------------------------------------ blind


def test_in_blind_mode_the_proposed_label_is_nowhere_until_the_own_words_are_on_the_disk(tmp_path: Path) -> None:
    with session(tmp_path, blind=True) as one:
        assert "insults number" not in json.dumps(view(one)) and "confirm" not in view(one)["allowed"]
        for action in ("confirm", "edit", "reject"):
            with pytest.raises(WorkbenchError, match="hidden"):
                one.act(action, "words")
        one.act("category", "contempt")
        one.act("write", "rude words")
        last = read_journal(one.journal.path)[-1]
        assert (last["event"], last["label"], last["category"]) == ("blind", "rude words", "contempt")
        assert view(one)["proposed"]["label"] == "insults number 5" and view(one)["own"] == "rude words"
        one.act("confirm")
        one.act("pass")
        assert view(one)["proposed"]["label"] == "insults number 17"
        one.act("reject")
        one.act("unclear")
    read = readings(tmp_path / SAE, "first reader")
    assert read[5].blind == {"trait": "evil", "label": "rude words", "category": "contempt"} and read[5].verdict == "confirm"
    assert read[5].categories == {"evil": "contempt"}, "the category chosen blind stands"
    assert read[17].blind == {"trait": "evil", "label": None, "category": "unclear"}
    assert read[3].blind == {"trait": "evil", "label": None, "category": "unclear"} and not read[3].shown


def test_a_buried_feature_without_a_label_looks_like_the_others_and_ends_with_the_own_words(tmp_path: Path) -> None:
    items = [*queue((5,)), Item(8, evidence_of(8)), Item(9, evidence_of(9))]
    with session(tmp_path, items, blind=True) as one:
        keys = set(view(one))
        allowed = view(one)["allowed"]
        one.act("next")
        assert set(view(one)) == keys and view(one)["allowed"] == allowed
        one.act("write", "something else")
        one.act("pass")
        assert one.desk.current == 5
    read = readings(tmp_path / SAE, "first reader")
    assert (read[8].verdict, read[8].label, read[8].proposed) == ("edit", "something else", None)
    assert (read[9].verdict, read[9].label) == ("unclear", "unclear") and read[9].blind is not None


def test_a_label_seen_in_an_open_session_is_not_read_blind_later(tmp_path: Path) -> None:
    with session(tmp_path) as one:
        one.act("next")
    with session(tmp_path, blind=True) as one:
        assert not one.is_hidden(17) and not one.is_hidden(5) and one.is_hidden(3)
        one.act("confirm")
    assert readings(tmp_path / SAE, "first reader")[17].blind is None


# ------------------------------------------------------------------------------------------------ what is kept


def test_a_session_goes_on_where_it_was_half_written_texts_included(tmp_path: Path) -> None:
    with session(tmp_path) as one:
        one.act("confirm")
        one.act("category", "threats")
        one.act("draft_note", "see al")
        one.act("draft_label", "sco")
        one.act("draft_label", "scor")
        before = view(one)
    with session(tmp_path) as again:
        after = view(again)
    assert {**after, "saved_at": None} == {**before, "saved_at": None}
    assert after["feature"] == 17 and after["drafts"] == {"label": "scor", "note": "see al"} and after["category"] == "threats"


def test_every_action_is_on_the_disk_before_the_call_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_size), real(fd))[1])
    with session(tmp_path) as one:
        for action, value in [("draft_label", "s"), ("draft_label", "sc"), ("note", "n"), ("category", "topic"), ("next", None)]:
            synced.clear()
            one.act(action, value)
            assert synced == [one.journal.path.stat().st_size]


KILLED = """
import sys
from pathlib import Path
from tests.labeling.annotating import session
one = session(Path(sys.argv[1]))
one.act("draft_label", "sco")
one.act("confirm")
one.act("draft_label", "hal")
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_kill_loses_nothing_and_frees_the_journal(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    with pytest.raises(WorkbenchError, match=f"in use by process {child.pid}"):
        session(tmp_path)
    with session(tmp_path, name="second reader"):
        pass
    child.send_signal(signal.SIGKILL)
    child.communicate()
    with session(tmp_path) as one:
        assert one.n_read == 1 and view(one)["feature"] == 17 and view(one)["drafts"] == {"label": "hal"}
    assert filed(tmp_path, 5).status == "confirmed"


def test_whatever_byte_a_crash_cut_the_journal_at_the_actions_before_it_stand(tmp_path: Path) -> None:
    with session(tmp_path) as one:
        one.act("note", "ünï")
        one.act("confirm")
        one.act("edit", "scorn")
        path = one.journal.path
    data = path.read_bytes()
    whole = read_journal(path)
    for cut in sorted({*range(0, len(data), 13), *range(len(data) - 150, len(data) + 1)}):
        path.write_bytes(data[:cut])
        n = data[:cut].count(b"\n")
        kept = read_journal(path)
        assert kept == whole[: len(kept)] and len(kept) in (n, n + 1)
        if cut % 169 == 0 or cut > len(data) - 3:
            with Journal.open(path, annotator="first reader") as journal:
                journal.append({"event": "show", "feature": 5})
            assert read_journal(path)[:-1] == kept and read_journal(path)[-1]["event"] == "show"


def test_a_verdict_cut_off_before_its_label_file_is_written_when_the_session_opens_again(tmp_path: Path) -> None:
    with session(tmp_path) as one:
        one.act("confirm")
        path = one.journal.path
    lines = path.read_bytes().splitlines(keepends=True)
    assert json.loads(lines[-1])["event"] == "filed"
    path.write_bytes(b"".join(lines[:-1]))
    (tmp_path / SAE / "5.yaml").unlink()
    with session(tmp_path):
        pass
    assert filed(tmp_path, 5).status == "confirmed"


def test_a_label_file_that_cannot_be_written_is_told_and_made_up_for_later(tmp_path: Path) -> None:
    folder = shelf(tmp_path)
    good = (folder / "5.yaml").read_bytes()
    (folder / "5.yaml").write_bytes(b"label: [")
    with session(tmp_path) as one:
        one.act("confirm")
        assert "not in the label file" in view(one)["message"] and "5.yaml" in view(one)["message"] and one.n_read == 1
        (folder / "5.yaml").write_bytes(good)
        one.act("confirm")
        assert view(one)["message"] == ""
    assert filed(tmp_path, 5).status == "confirmed"


def test_damage_inside_a_journal_is_refused_with_its_line(tmp_path: Path) -> None:
    with session(tmp_path) as one:
        path = one.journal.path
    lines = path.read_bytes().splitlines(keepends=True)
    for bad in (b"{}\n", b"garbage\n", b"\xff\n", b"\n", b'["at", "event"]\n'):
        path.write_bytes(lines[0] + bad + lines[1])
        with pytest.raises(WorkbenchError, match="line 2"):
            session(tmp_path)


def test_a_journal_of_other_weights_is_refused(tmp_path: Path) -> None:
    with session(tmp_path):
        pass
    with pytest.raises(WorkbenchError, match="was written for the weights"):
        AnnotationSession(queue(), tmp_path, SAE, "cd" * 32, annotator="first reader")
    with pytest.raises(WorkbenchError, match="hash of the weights"):
        AnnotationSession(queue(), tmp_path, SAE, "", annotator="first reader")
    with session(tmp_path):
        pass  # the refused session let go of the journal


def test_two_annotators_are_told_apart_by_name(tmp_path: Path) -> None:
    folder = shelf(tmp_path)
    with session(tmp_path) as one, session(tmp_path, name="First Reader") as two:
        one.act("confirm")
        two.act("edit", "scorn")
    assert annotators(folder) == ["First Reader", "first reader"]
    assert readings(folder, "first reader")[5].verdict == "confirm" and readings(folder, " First  Reader ")[5].verdict == "edit"
    signed = {label.author["name"] for label in load_labels(SAE, tmp_path).all_of(5)}
    assert signed == {"an explainer", "first reader", "First Reader"}
    with pytest.raises(WorkbenchError, match="First Reader"):
        readings(folder, "third reader")


def test_a_trait_more_asks_again_and_keeps_the_first_ones_category(tmp_path: Path) -> None:
    with session(tmp_path) as one:
        one.act("confirm")
    with session(tmp_path, trait="sycophantic") as one:
        one.act("back")
        assert one.n_read == 0 and view(one)["category"] is None
        one.act("category", "topic")
        one.act("confirm")
    assert filed(tmp_path, 5).categories == {"evil": "insulting_language", "sycophantic": "topic"}


@pytest.mark.parametrize("name", [None, "", "  ", "a\x1bb", "x" * 61, "a\u202eb"])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str | None) -> None:
    with pytest.raises(WorkbenchError, match="name"):
        AnnotationSession(queue(), tmp_path, SAE, HASH, annotator=name)
    assert not list(tmp_path.iterdir())


def test_names_lead_to_file_names_that_are_safe_and_differ() -> None:
    names = ["ann", "Ann", "änn", "../../x", "安", "安安", "a b", "a-b", "CON"]
    paths = {journal_path("f", name) for name in names}
    assert len(paths) == len(names) and {path.parent for path in paths} == {Path("f/annotators")}
    assert clean_name(" a\n b ") == "a b"


def test_control_characters_are_shown_and_not_obeyed(tmp_path: Path) -> None:
    with session(tmp_path, [Item(5, evidence_of(5, text=HOSTILE), label_of(5, explanation=HOSTILE))]) as one:
        text = json.dumps(view(one), ensure_ascii=False)
    assert "\x1b" not in text and "\\u001b" not in text and "\u202e" not in text and "␛[2J" in text
    assert visible("a\tb\n\u2028") == "a⇥b↵\\u2028"


def test_shades_are_shares_of_the_largest_activation(tmp_path: Path) -> None:
    with session(tmp_path) as one:
        first, withheld = view(one)["contexts"]
    assert first["tokens"] == [[" you", 0.25], [" idiot", 1.0], [".↵", 0.0]] and first["peak"] == 1
    assert withheld["tokens"] == [] and (withheld["document"], withheld["position"], withheld["value"]) == ("w1", 3, 1.5)


def test_an_event_of_a_newer_version_changes_nothing() -> None:
    assert replay([{"event": "sing", "at": "2026-01-01", "feature": 3}]).readings == {}


def test_nothing_to_read_is_refused() -> None:
    with pytest.raises(WorkbenchError, match="no feature"):
        make_queue(LabelSet(SAE, HASH))
    assert tuple(item.feature for item in queue()) == FEATURES


def test_a_journal_that_was_written_elsewhere_moves_no_terminal_either(tmp_path: Path) -> None:
    with session(tmp_path) as one:
        for event in (
            {"event": "blind", "feature": 5, "trait": "evil", "label": HOSTILE, "category": None},
            {"event": "note", "feature": 5, "note": HOSTILE},
            {"event": "draft", "feature": 5, "field": "label", "text": HOSTILE},
        ):
            one.journal.append(event)
            one.desk.take(event)
        one.desk.reading(5).label = HOSTILE
        shown = view(one, HOSTILE)
    for text in (shown["own"], shown["note"], shown["drafts"]["label"], shown["label"], shown["message"]):
        assert "␛[2J" in text and "\x1b" not in text and "\u202e" not in text
