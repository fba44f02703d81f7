"""Documents: one role each, cut and capped as asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.base.errors import WorkbenchError
from workbench.saes import corpus
from workbench.saes.corpus import Document, documents, spread, text_file


def _documents(n: int = 200) -> list[Document]:
    return [Document.of(f"text number {i} " * 20, f"set{i % 4}") for i in range(n)]


def test_a_documents_identity_and_bucket_come_from_its_text_alone() -> None:
    one, other = Document.of("same", "a"), Document.of("same", "b")
    assert one.id == other.id and one.bucket == other.bucket
    buckets = [d.bucket for d in _documents(2000)]
    assert min(buckets) == 0 and max(buckets) == 99


def test_spread_caps_each_source_and_cuts_documents() -> None:
    kept = list(spread(iter(_documents()), characters=10**6, per_source=1000, cut=100))
    per_source = {s: sum(len(d.text) for d in kept if d.source == s) for s in {d.source for d in kept}}
    assert set(per_source.values()) == {1000}
    assert max(len(d.text) for d in kept) == 100


def test_an_unknown_source_or_role_lists_the_known_ones() -> None:
    with pytest.raises(WorkbenchError, match="owt/evaluation"):
        next(documents("owt", "train"))


def test_text_files_are_read_and_bad_lines_are_named(tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("first document\n\nsecond\ndocument\n\n\n")
    assert [d.text for d in text_file(tmp_path / "plain.txt")] == ["first document", "second\ndocument"]
    (tmp_path / "lines.jsonl").write_text('{"text": "fine"}\n{"words": 1}\n')
    with pytest.raises(WorkbenchError, match="line 2"):
        list(text_file(tmp_path / "lines.jsonl"))
    with pytest.raises(WorkbenchError, match=r"(?i)cannot read"):
        list(text_file(tmp_path / "missing.txt"))


@pytest.mark.assets
def test_no_text_stands_under_two_roles() -> None:
    roles = [("owt", "evaluation"), ("owt", "labels"), ("wikipedia", "evaluation"), ("wikipedia", "labels")]
    sets = [{d.id for d in documents(name, role)} for name, role in roles]
    assert all(sets)
    assert sum(len(s) for s in sets) == len(set().union(*sets))


@pytest.mark.assets
def test_training_text_leaves_out_held_out_documents_and_judges_sets() -> None:
    train = list(spread(documents("sae-probes", "train"), characters=10**9, per_source=4000, cut=200))
    held = list(spread(documents("sae-probes", "held_out"), characters=10**9, per_source=4000, cut=200))
    assert not {d.id for d in train} & {d.id for d in held}
    assert not any(word in d.source.lower() for d in train for word in corpus.RESERVED_WORDS)
    assert len({d.source for d in train}) > 50
