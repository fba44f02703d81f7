"""Documents: one role each, cut and capped as asked."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from workbench.base.errors import WorkbenchError
from workbench.saes import corpus
from workbench.saes.corpus import Document, documents, source, spread, text_file
from workbench.saes.token_rows import TokenRow


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


def test_lines_of_spaces_separate_documents_too(tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_bytes(b" first\n  \nsecond\n still second\r\n\t\r\n\nthird")
    assert [d.text for d in text_file(tmp_path / "plain.txt")] == ["first", "second\n still second", "third"]


@pytest.mark.parametrize("name", ["chats-2024.jsonl", "rollouts-of-mine.txt", "text-of-law.txt", "owt"])
def test_no_name_of_a_file_makes_its_text_the_models_own(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"text": "one"}\n\n{"text": "two"}\n')
    found = list(text_file(tmp_path / name))
    assert [d.source for d in found] == [f"file:{name}"] * 2
    assert TokenRow([1], found[0].source).of_corpus and not TokenRow([1], "chats").of_corpus


def test_a_plain_text_that_is_a_single_document_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "one.txt").write_text("a line\n" * 100)
    (tmp_path / "two.txt").write_text("a line\n\n" * 2)
    with caplog.at_level(logging.WARNING):
        for name in ("one", "two"):
            _ = [list(source(str(tmp_path / f"{name}.txt"), role)) for role in corpus.FILE_ROLES]
    assert [record.getMessage().split(" is ")[0] for record in caplog.records] == [str(tmp_path / "one.txt")]


@pytest.mark.parametrize("cut", [1_000, 4_000, None])
def test_documents_of_ones_own_with_the_same_beginning_have_one_role(tmp_path: Path, cut: int | None) -> None:
    heads = [f"head {i} ".ljust(1_200, "x") for i in range(60)]
    path = _lines(tmp_path / "own.jsonl", *({"text": f"{head} {tail}"} for head in heads for tail in range(5)))
    sides = [{d.text[:1_000] for d in source(str(path), role, cut=cut)} for role in corpus.FILE_ROLES]
    assert all(sides) and (cut is None or not sides[0] & sides[1])
    if cut is None:  # SAEs of before: by the whole text
        assert sides[0] & sides[1]


def test_the_evaluation_splits_a_file_as_the_sae_was_trained() -> None:
    from workbench.saes.evaluation.texts import CORPUS_CUT, split_of

    recipe = {"data": {"corpus": "mine.txt", "cut": 300}}
    assert split_of({"recipe": recipe, "training_data": {"sources": {"file:mine.txt": {}, "chats": {}}}}) == 300
    assert split_of({"recipe": recipe, "training_data": {"sources": {"mine.txt": {}}}}) is None  # by the whole text
    assert split_of({}) == split_of({"recipe": [], "training_data": 3}) == CORPUS_CUT


def _lines(path: Path, *values: object) -> Path:
    """A JSONL file of these values, its characters as they are."""
    path.write_text("".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values), encoding="utf-8")
    return path


def test_only_a_line_feed_ends_a_line_of_jsonl_and_blank_lines_are_passed_over(tmp_path: Path) -> None:
    texts = ["a\u2028b", "c\u0085d", "e\x1cf\u2029g"]
    path = _lines(tmp_path / "lines.jsonl", *({"text": text} for text in texts))
    path.write_text("\ufeff" + path.read_text(encoding="utf-8").replace("\n", "\r\n\n  \n"), encoding="utf-8", newline="")
    assert [d.text for d in text_file(path)] == texts


@pytest.mark.parametrize("value", [None, 3, ["a"], {"a": 1}])
def test_a_text_that_is_no_string_is_refused_with_its_line(tmp_path: Path, value: object) -> None:
    path = _lines(tmp_path / "lines.jsonl", {"text": "fine"}, {"text": value})
    with pytest.raises(WorkbenchError, match="line 2"):
        list(text_file(path))


@pytest.mark.parametrize("suffix", [".jsonl", ".txt"])
def test_a_text_file_is_read_no_further_than_it_is_asked(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"large{suffix}"
    one = '{"text": "short"}\n' if suffix == ".jsonl" else "short\n\n"
    path.write_bytes(one.encode() * 20_000 + b"\xff\xff\n")  # what is no UTF-8 comes late
    documents = text_file(path)
    assert [next(documents).text for _ in range(3)] == ["short"] * 3
    with pytest.raises(WorkbenchError, match=r"(?i)cannot read"):
        list(documents)


def test_spread_without_a_cap_for_each_source_stops_when_it_has_its_characters() -> None:
    read = []

    def source() -> Iterator[Document]:
        for document in _documents():
            read.append(document)
            yield document

    kept = list(spread(source(), characters=1000, per_source=None, cut=100))
    assert len(kept) == len(read) == 10


def test_a_corpus_is_a_source_or_a_file_of_ones_own_and_each_text_has_one_role(tmp_path: Path) -> None:
    path = _lines(tmp_path / "own.jsonl", *({"text": f"text {i}"} for i in range(400)))
    train, held_out = ({d.id for d in source(str(path), role)} for role in ("train", "held_out"))
    assert not train & held_out and len(train | held_out) == 400 and held_out
    assert corpus.own_file(str(path)) == path and corpus.own_file("sae-probes") is None


@pytest.mark.parametrize(
    ("name", "role", "message"),
    [
        ("texts/mine.jsonl", "train", r"the file texts/mine\.jsonl does not exist"),
        ("mine.txt", "train", r"the file mine\.txt does not exist"),
        ("~/mine", "train", r"does not exist"),
        (".", "train", r"is a folder"),
        ("owt", "train", r"owt is not for train.*evaluation, labels"),
        ("sae-prob", "train", r"sae-probes"),
        ("sae-prob", "held_out", r"\.jsonl"),
    ],
)
def test_a_corpus_that_is_not_there_is_refused_at_once(name: str, role: str, message: str) -> None:
    with pytest.raises(WorkbenchError, match=f"(?is){message}"):
        source(name, role)


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
