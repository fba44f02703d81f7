"""A verdict that its label file lost is written again when the session opens, and nothing else is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.labeling.annotating import FEATURES, HASH, SAE, session
from workbench.labeling.files.store import load_label_file, save_label

FILE = Path(SAE) / f"{FEATURES[0]}.yaml"
ADA = {"kind": "human", "name": "first reader"}


def test_a_verdict_whose_file_is_gone_or_older_is_written_again(tmp_path: Path) -> None:
    with session(tmp_path) as first:
        first.act("confirm")
    filed = load_label_file(tmp_path / FILE)
    (tmp_path / FILE).unlink()
    session(tmp_path).close()
    assert load_label_file(tmp_path / FILE) == filed
    (tmp_path / FILE).unlink()
    older = replace(filed.labels[0], label="what I said before", date="2020-01-01T00:00:00Z")
    save_label(older, SAE, HASH, tmp_path, annotator=True)
    session(tmp_path).close()
    assert [item.label for item in load_label_file(tmp_path / FILE).labels if item.author == ADA] == [filed.labels[0].label]


def test_what_the_person_wrote_by_hand_since_is_left_alone(tmp_path: Path) -> None:
    with session(tmp_path) as first:
        first.act("confirm")
    filed = load_label_file(tmp_path / FILE).labels[0]
    for date in ("", filed.date[:10], filed.date, "2099-01-01"):
        by_hand = replace(filed, label="by hand", date=date)
        save_label(by_hand, SAE, HASH, tmp_path, annotator=True)
        before = (tmp_path / FILE).read_bytes()
        session(tmp_path).close()
        assert (tmp_path / FILE).read_bytes() == before


def test_a_damaged_file_is_told_and_left_alone(tmp_path: Path) -> None:
    with session(tmp_path) as first:
        first.act("confirm")
    (tmp_path / FILE).write_text("schema: [", encoding="utf-8")
    with session(tmp_path) as again:
        assert "not in the label file" in again.problem and FILE.name in again.problem
    assert (tmp_path / FILE).read_text(encoding="utf-8") == "schema: ["
