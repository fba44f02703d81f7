from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.base import store, tables
from workbench.base.errors import WorkbenchError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def listing(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@given(value=JSON)
def test_json_reads_back_as_it_was_written(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("json") / "value.json"
    store.write_json(path, value)
    assert store.read_json(path) == value


def test_what_json_does_not_know_is_written_as_plain_values(tmp_path):
    @dataclass(frozen=True)
    class Pair:
        a: float
        b: tuple[int, ...]

    value = {"p": Pair(float("nan"), (1, 2)), "n": np.float32(0.5), "v": np.arange(3), "where": Path("x"), 3: {"b", "a"}}
    store.write_json(tmp_path / "v.json", value)
    expected = {"p": {"a": None, "b": [1, 2]}, "n": 0.5, "v": [0, 1, 2], "where": "x", "3": ["a", "b"]}
    assert store.read_json(tmp_path / "v.json") == expected


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT", "EIO"])
def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, name):
    path = store.atomic_write(tmp_path / "a.txt", "old")

    def full(self, data):
        with open(self, "wb") as file:
            file.write(data[:1])
        raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(WorkbenchError, match="Cannot write"):
        store.atomic_write(path, "new")
    assert path.read_text() == "old"
    assert listing(tmp_path) == {"a.txt"}


def test_the_message_of_a_full_disk_says_what_to_do(tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(WorkbenchError) as caught:
        store.write_json(tmp_path / "a.json", {})
    assert "the disk is full" in caught.value.found
    assert "free some, or choose another folder" in caught.value.remedy
    assert listing(tmp_path) == set()


def test_an_interruption_while_writing_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), store.atomic_path(tmp_path / "a.bin") as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert listing(tmp_path) == set()


def test_a_folder_that_cannot_be_made_is_refused_in_words(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkbenchError, match=r"a file, not a folder|a file stands"):
        store.atomic_write(tmp_path / "file" / "below" / "a.txt", "x")


def test_a_written_file_has_ordinary_permissions(tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("")
    assert store.atomic_write(tmp_path / "a", "x").stat().st_mode == plain.stat().st_mode


def test_missing_and_corrupt_json_are_named_with_the_line(tmp_path):
    with pytest.raises(WorkbenchError, match="no such file"):
        store.read_json(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text('{"a": 1,\n "b": ')
    with pytest.raises(WorkbenchError, match=r"bad.json is not valid JSON \(line 2"):
        store.read_json(tmp_path / "bad.json")
    (tmp_path / "latin.json").write_bytes(b'"\xe9"')
    with pytest.raises(WorkbenchError, match="UTF-8"):
        store.read_json(tmp_path / "latin.json")


@given(value=st.dictionaries(st.text(), JSON, max_size=5))
def test_the_content_hash_ignores_the_order_of_fields(value):
    assert store.content_hash(value) == store.content_hash(dict(reversed(value.items())))


def test_the_content_hash_sees_every_value():
    hashes = {store.content_hash(v) for v in ({"a": 1}, {"a": 2}, {"b": 1}, {"a": "1"}, [1], None)}
    assert len(hashes) == 6 and all(len(h) == 64 for h in hashes)


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert store.sha256_file(tmp_path / "f") == store.sha256_bytes(b"abc")


def test_parquet_reads_back_and_a_broken_file_is_refused(tmp_path):
    import pyarrow as pa

    table = pa.table({"id": ["a", "b"], "ids": [[1, 2], [3]]})
    store.write_parquet(tmp_path / "t.parquet", table)
    assert store.read_parquet(tmp_path / "t.parquet").equals(table)
    (tmp_path / "bad.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:50])
    with pytest.raises(WorkbenchError, match="Parquet"):
        store.read_parquet(tmp_path / "bad.parquet")
    with pytest.raises(WorkbenchError, match="no such file"):
        store.read_parquet(tmp_path / "none.parquet")


@given(value=st.dictionaries(st.text("abc\n:#'é ", min_size=1), st.text() | st.integers() | st.booleans(), max_size=4))
def test_yaml_reads_back_as_it_was_written(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("yaml") / "v.yaml"
    store.write_yaml(path, value)
    assert store.read_yaml(path) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [1, 2\n", "line 3"),
        ("a: 1\nb: 2\na: 3\n", "line 3: the field 'a' appears twice"),
        ("a: !!python/object/apply:os.getcwd []\n", "line 1"),
    ],
)
def test_bad_yaml_is_refused_with_its_line(tmp_path, text, message):
    (tmp_path / "v.yaml").write_text(text)
    with pytest.raises(WorkbenchError, match=message):
        store.read_yaml(tmp_path / "v.yaml")


def test_yaml_anchors_and_merges_are_allowed():
    assert store.parse_yaml("base: &b {x: 1}\nother: {<<: *b, y: 2}\n")["other"] == {"x": 1, "y": 2}


def test_json_of_any_texts_comes_back_and_a_list_of_numbers_is_one_line(tmp_path):
    value = {"numbers": [1, 2.5, None], "texts": ["a]", "[", "x\n  ]y", '"[\\n'], "deep": [[1, 2], [], [{"a": [3]}]], "none": []}
    file = store.write_json(tmp_path / "x.json", value)
    assert store.read_json(file) == value and "[1, 2.5, null]" in file.read_text(encoding="utf-8")


def test_only_ordinary_files_of_bounded_size_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "endless.json").symlink_to("/dev/zero")
    for name in ("pipe.json", "endless.json"):
        for read in (store.read_json, store.read_parquet, store.sha256_file, store.read_yaml):
            with pytest.raises(WorkbenchError, match="is a pipe, a socket or a device"):
                read(tmp_path / name)
    with pytest.raises(WorkbenchError, match="it is a folder"):
        store.read_json(tmp_path)
    (tmp_path / "long.yaml").touch()
    os.truncate(tmp_path / "long.yaml", store.MOST_TEXT + 1)
    with pytest.raises(WorkbenchError, match="holds 67,108,865 bytes"):
        store.read_yaml(tmp_path / "long.yaml")


def test_a_table_that_unpacks_without_end_is_refused_and_one_of_its_size_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow

    monkeypatch.setattr(store, "MOST_BYTES", 1 << 20)
    words = pyarrow.array(["x" * 1000]).dictionary_encode().take(pyarrow.array([0] * 200_000))
    store.write_parquet(tmp_path / "bomb.parquet", pyarrow.table({"a": words.dictionary_decode()}))
    with pytest.raises(WorkbenchError, match="unpacks to more than"):
        store.read_parquet(tmp_path / "bomb.parquet")
    table = pyarrow.table({"n": list(range(300_000)), "text": [f"row {n * n}" for n in range(300_000)]})
    store.write_parquet(tmp_path / "rows.parquet", table)
    assert store.read_parquet(tmp_path / "rows.parquet").equals(table)


def test_tables_with_categories_read_back_and_are_not_taken_for_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow

    monkeypatch.setattr(store, "MOST_BYTES", 4 << 20)
    words = pyarrow.array([f"a category of many words, number {n}" for n in range(2000)]).dictionary_encode()
    rows = words.take(pyarrow.array([n % 2000 for n in range(60_000)]))
    table = pyarrow.table({"n": list(range(60_000)), "word": rows, "text": [str(n) for n in range(60_000)]})
    store.write_parquet(tmp_path / "rows.parquet", table)
    assert store.read_parquet(tmp_path / "rows.parquet").equals(table)
    store.write_parquet(tmp_path / "only.parquet", table.select(["word"]))
    assert store.read_parquet(tmp_path / "only.parquet").equals(table.select(["word"]))


def test_a_table_that_does_not_fit_into_memory_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow

    store.write_parquet(tmp_path / "rows.parquet", pyarrow.table({"n": [1, 2]}))

    def full(*_: object, **__: object) -> None:
        raise pyarrow.ArrowMemoryError("malloc failed")

    monkeypatch.setattr(tables, "bounded", full)
    with pytest.raises(WorkbenchError, match="needs more memory than there is"):
        store.read_parquet(tmp_path / "rows.parquet")
