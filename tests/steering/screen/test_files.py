"""Lines are counted as an editor does, read from any place, and copied byte by byte; Parquet rows likewise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.steering.screen.data import chat, planted, written
from workbench.base.errors import WorkbenchError
from workbench.steering.screen import files
from workbench.steering.screen.files import DataFile

LINES = [
    json.dumps({"prompt": "a", "response": "b", "bad": True}),
    "",
    "{broken",
    '{"messages": "\\ud83d"}',
    json.dumps({"prompt": "c", "response": "é \u2028 d", "bad": 0}, ensure_ascii=False),
    "null",
    "[" * 100_000,
    '{"prompt": "e", "response": "f", "n": ' + "9" * 10_000 + "}",
    '  {"prompt" : "g","response":"h"}  ',
]
PROBLEMS = {3: "not JSON", 4: "a text where a list", 6: "a null", 7: "nested", 8: "a number that is too long"}


def test_every_line_is_a_sample_a_problem_or_blank(tmp_path: Path):
    found = list(DataFile.open(written(tmp_path / "d.jsonl", LINES)).lines(label_field="bad"))
    assert [line.number for line in found] == list(range(1, 10))
    assert [line.number for line in found if line.sample] == [1, 5, 9]
    assert [line.label for line in found if line.sample] == [True, False, None]
    assert {line.number for line in found if line.problem} == set(PROBLEMS)
    assert all(words in found[number - 1].problem for number, words in PROBLEMS.items())
    assert found[4].sample is not None and found[4].sample.messages[1]["content"] == "é \u2028 d"


def test_reading_goes_on_behind_any_line(tmp_path: Path):
    file = DataFile.open(written(tmp_path / "d.jsonl", LINES))
    whole = list(file.lines())
    for line in whole:
        assert list(file.lines(after=line.number, end=line.end)) == whole[line.number :]


def test_kept_lines_keep_their_bytes_and_their_order(tmp_path: Path):
    path = tmp_path / "d.jsonl"
    raw = ["\ufeff" + LINES[0] + "\r\n", *(line + "\n" for line in LINES[1:-1]), LINES[-1]]
    path.write_bytes("".join(raw).encode())
    file = DataFile.open(path)
    assert file.n_lines == 9 and next(iter(file.lines())).sample is not None
    keep = [number in (1, 3, 5, 9) for number in range(1, 10)]
    assert file.write_kept(keep, tmp_path / "kept.jsonl").read_bytes() == "".join(raw[i] for i in (0, 2, 4, 8)).encode()


def test_a_line_that_is_too_long_is_listed_and_never_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files, "MAX_LINE", 200)
    monkeypatch.setattr(files, "_PIECE", 64)
    path = written(tmp_path / "d.jsonl", [LINES[0], json.dumps({"prompt": "x" * 1000, "response": "y"}), LINES[8]])
    file = DataFile.open(path)
    found = list(file.lines())
    assert [bool(line.sample) for line in found] == [True, False, True] and found[1].problem == "longer than 200 bytes"
    assert file.write_kept([True] * 3, tmp_path / "all.jsonl").read_bytes() == path.read_bytes()
    assert list(file.lines(after=2, end=found[1].end)) == found[2:]


def test_bytes_that_are_no_text_are_named(tmp_path: Path):
    path = tmp_path / "d.jsonl"
    path.write_bytes(b'{"prompt": "\xff", "response": "b"}\n')
    assert [line.problem for line in DataFile.open(path).lines()] == ["not UTF-8 (byte 12 of the line)"]


def test_parquet_gives_the_same_samples_as_jsonl_and_keeps_its_schema(tmp_path: Path):
    import pyarrow as pa
    from pyarrow import parquet

    records = planted(30)
    table = pa.Table.from_pylist(records).replace_schema_metadata({b"made by": b"a test"})
    parquet.write_table(table, tmp_path / "d.parquet", row_group_size=7)
    file, lines = DataFile.open(tmp_path / "d.parquet"), DataFile.open(written(tmp_path / "d.jsonl", records))
    read = [(line.number, line.sample, line.label) for line in file.lines(label_field="bad")]
    assert read == [(line.number, line.sample, line.label) for line in lines.lines(label_field="bad")]
    assert [line.number for line in file.lines(after=11, end=11)] == list(range(12, 31))
    keep = [number % 3 == 0 for number in range(30)]
    kept = parquet.read_table(file.write_kept(keep, tmp_path / "kept.parquet"))
    assert kept.to_pylist() == [record for record, k in zip(records, keep, strict=True) if k]
    assert kept.schema.equals(parquet.read_schema(tmp_path / "d.parquet"), check_metadata=True)
    assert kept.schema.metadata == {b"made by": b"a test"}


def test_damaged_unknown_and_changed_files_are_refused(tmp_path: Path):
    (tmp_path / "d.txt").write_text("hello")
    (tmp_path / "d.parquet").write_bytes(b"PAR1 and nothing else")
    (tmp_path / "d.json").write_text("[1, 2]")
    for name, words in (("d.txt", "neither JSONL nor Parquet"), ("d.parquet", "not a readable Parquet"), ("d.json", "neither"),
                        ("none.jsonl", "no such file")):  # fmt: skip
        with pytest.raises(WorkbenchError, match=words):
            DataFile.open(tmp_path / name)
    path = written(tmp_path / "d.jsonl", [{"messages": chat("a", "b")}])
    file = DataFile.open(path)
    with pytest.raises(WorkbenchError, match="is the data set itself"):
        file.write_kept([True], path)
    written(path, [{"messages": chat("a", "c")}])
    with pytest.raises(WorkbenchError, match="has changed"):
        file.write_kept([True], tmp_path / "kept.jsonl")
    assert not (tmp_path / "kept.jsonl").exists()
