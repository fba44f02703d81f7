"""Chat data sets on disk, read line by line and filtered without touching what is kept: JSONL and Parquet.

Memory is that of one line (JSONL) or of some rows (Parquet). Lines are counted from 1; a blank line counts, so that a number here
is the one that an editor shows. Of a Parquet file the row takes the place of the line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from workbench.base.errors import WorkbenchError
from workbench.base.store import atomic_path, check_ordinary, describe_os_error, sha256_file

from .layouts import Sample, Unreadable, read_record

MAX_LINE = 16 * 2**20
"""A longer line is listed as malformed; it is never held in memory as a whole."""
_PIECE = 1 << 20
_ROWS = 256
_SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet"}


@dataclass(frozen=True)
class Line:
    """One line: a sample, or the `problem` that it has ("" for none; a blank line has neither).

    `end` is where reading goes on behind it: a byte of a JSONL file, a row of a Parquet file. `label` is the truth value of the
    field that says whether the sample bears the trait, where there is one.
    """

    number: int
    end: int
    sample: Sample | None = None
    problem: str = ""
    label: bool | None = None


@dataclass(frozen=True)
class DataFile:
    """A data set by its path and format ("jsonl" or "parquet"), with the hash of its bytes and its number of lines."""

    path: Path
    format: str
    sha256: str
    n_lines: int

    @classmethod
    def open(cls, path: str | Path) -> DataFile:
        """The file at `path`, read once for its hash and its lines. Raises WorkbenchError for a format that is not known."""
        file = Path(path)
        form = _format(file)
        n_lines = _parquet(file).metadata.num_rows if form == "parquet" else _count(file)
        if not n_lines:
            raise WorkbenchError(f"{file} is empty", "at least one chat", "check the path")
        return cls(file, form, sha256_file(file), n_lines)

    def lines(self, *, after: int = 0, end: int = 0, label_field: str | None = None) -> Iterator[Line]:
        """The lines behind line `after`, which ended at `end`."""
        read = _parquet_records if self.format == "parquet" else _json_records
        for number, (record, problem, stop) in enumerate(read(self.path, end), start=after + 1):
            yield _line(number, stop, record, problem, label_field)

    def samples_at(self, numbers: Sequence[int]) -> dict[int, Sample]:
        """The samples on these lines, by number; lines without a sample are left out."""
        wanted = set(numbers)
        found: dict[int, Sample] = {}
        for line in self.lines():
            if not wanted:
                break
            if line.number in wanted:
                wanted.discard(line.number)
                found |= {} if line.sample is None else {line.number: line.sample}
        return found

    def write_kept(self, keep: Sequence[bool], out: str | Path) -> Path:
        """Write the lines whose entry in `keep` [n_lines] is true to `out`, in the same format and order.

        Of a JSONL file the bytes of the kept lines are copied as they are; of a Parquet file the rows with their schema and
        metadata. Raises WorkbenchError when the file is not the one that was opened any more, or `out` is the file itself.
        """
        if len(keep) != self.n_lines or sha256_file(self.path) != self.sha256:
            raise WorkbenchError(f"{self.path} has changed since it was scored", "the same file", "run the screen again")
        if Path(out).exists() and Path(out).samefile(self.path):
            raise WorkbenchError(f"{out} is the data set itself", "another file", "choose another --out")
        with atomic_path(out) as temporary:
            (_copy_rows if self.format == "parquet" else _copy_lines)(self.path, temporary, keep)
        return Path(out)


def _format(file: Path) -> str:
    try:
        with check_ordinary(file).open("rb") as source:
            head = source.read(4)
    except OSError as error:
        raise describe_os_error(error, file, "read") from error
    form = "parquet" if head == b"PAR1" else _SUFFIXES.get(file.suffix.lower(), "jsonl" if head[:1] == b"{" else "")
    if not form or (form == "parquet" and head != b"PAR1"):
        raise WorkbenchError(f"{file} is neither JSONL nor Parquet", "one JSON object per line, or a Parquet file",
                             "convert it; of a JSON list: jq -c '.[]' FILE > FILE.jsonl")  # fmt: skip
    return form


def _line(number: int, end: int, record: Any, problem: str, label_field: str | None) -> Line:
    if problem or record is None:
        return Line(number, end, problem=problem)
    try:
        return Line(number, end, read_record(record), label=_truth(record, label_field))
    except Unreadable as error:
        return Line(number, end, problem=str(error))


def _truth(record: Any, field: str | None) -> bool | None:
    value = record.get(field) if field and isinstance(record, Mapping) else None
    return bool(value) if isinstance(value, (bool, int, float)) and value in (0, 1) else None


# ------------------------------------------------------------------------------------------------------------------ JSONL


def _count(file: Path) -> int:
    try:
        with file.open("rb") as source:
            return sum(begins for _, begins in _pieces(source))
    except OSError as error:
        raise describe_os_error(error, file, "read") from error


def _pieces(source: IO[bytes]) -> Iterator[tuple[bytes, bool]]:
    """(bytes, whether a line begins here): whole lines, those above MAX_LINE in pieces."""
    begins, size = True, MAX_LINE
    while piece := source.readline(size):
        yield piece, begins
        begins = piece.endswith(b"\n")
        size = MAX_LINE if begins else _PIECE


def _json_records(path: Path, start: int) -> Iterator[tuple[Any, str, int]]:
    """(record, problem, the byte behind it) of every line from the byte `start` on; (None, "", byte) of a blank one."""
    with path.open("rb") as source:
        source.seek(start)
        held: tuple[Any, str] | None = None
        for piece, begins in _pieces(source):
            if begins and held is not None:
                yield *held, start
            whole = piece.endswith(b"\n") or len(piece) < MAX_LINE
            held = held if not begins and held else _parsed(piece) if whole else (None, f"longer than {MAX_LINE:,} bytes")
            start += len(piece)
        if held is not None:
            yield *held, start


def _parsed(raw: bytes) -> tuple[Any, str]:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return None, f"not UTF-8 (byte {error.start} of the line)"
    if not text.strip():
        return None, ""
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        return None, f"not JSON ({error.msg}, column {error.colno})"
    except (ValueError, RecursionError):  # numbers of thousands of digits, brackets in brackets
        return None, "JSON that is nested too deeply, or a number that is too long"
    return (record, "") if record is not None else (None, "a null where an object is needed")


def _copy_lines(path: Path, target: Path, keep: Sequence[bool]) -> None:
    number = -1
    with path.open("rb") as source, target.open("wb") as out:
        for piece, begins in _pieces(source):
            number += begins
            if keep[number]:
                out.write(piece)


# ---------------------------------------------------------------------------------------------------------------- Parquet


def _parquet(path: Path) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise WorkbenchError(f"{path} is not a readable Parquet file ({str(error).splitlines()[0]})", "a complete Parquet file",
                             "write it again") from error  # fmt: skip


def _parquet_records(path: Path, start: int) -> Iterator[tuple[Any, str, int]]:
    seen = 0
    for batch in _batches(path, _ROWS):
        if seen + batch.num_rows > start:
            for offset, record in enumerate(batch.slice(max(0, start - seen)).to_pylist(), start=max(seen, start) + 1):
                yield record, "", offset
        seen += batch.num_rows


def _batches(path: Path, size: int) -> Iterator[Any]:
    import pyarrow as pa

    try:
        yield from _parquet(path).iter_batches(batch_size=size)
    except (pa.ArrowInvalid, OSError) as error:
        raise WorkbenchError(f"{path} is damaged ({str(error).splitlines()[0]})", "a complete file", "write it again") from error


def _copy_rows(path: Path, target: Path, keep: Sequence[bool]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    source, seen = _parquet(path), 0
    with parquet.ParquetWriter(target, source.schema_arrow, compression="zstd") as writer:
        for batch in _batches(path, 8192):
            chosen = pa.array([bool(one) for one in keep[seen : seen + batch.num_rows]], pa.bool_())
            seen += batch.num_rows
            writer.write_batch(batch.filter(chosen))
