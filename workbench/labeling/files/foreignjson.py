"""JSON that others wrote, read with bounds: file and line sizes, nesting, lengths; every refusal names file, line and field."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from workbench.base.store import check_ordinary, describe_os_error
from workbench.labeling.files.yamlfile import LabelFileError

MAX_BYTES = 256_000_000
MAX_DOCUMENT_BYTES = 16_000_000  # of one JSON value, which takes up to thirty times as much memory
MAX_LINE_BYTES = 8_000_000
_REMEDY = "download or write the file again"


def utf16_length(text: str) -> int:
    """The length of a text in UTF-16 units, in which JavaScript counts: two for a character beyond U+FFFF."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


class Field:
    """A value in a JSON file together with its place."""

    def __init__(self, value: Any, path: Path, line: int | None = None, name: str = "") -> None:
        self.value, self.path, self.line, self.name = value, path, line, name

    def refuse(self, expected: str, found: str = "") -> NoReturn:
        """Raise the error that names the place."""
        said = found or ("the field is missing" if self.value is None else f"found {_short(self.value)}")
        raise LabelFileError(self.path, self.line, said, expected, _REMEDY, field=self.name)

    def __getitem__(self, key: str) -> Field:
        """The field of that name of an object; one with the value None where it is missing."""
        if not isinstance(self.value, dict):
            self.refuse("an object {...}")
        return self._inner(self.value.get(key), f"{self.name}.{key}" if self.name else key)

    def has(self, key: str) -> bool:
        return isinstance(self.value, dict) and self.value.get(key) is not None

    def only(self, *names: str) -> None:
        """Refuse fields of other names."""
        for key in self.value if isinstance(self.value, dict) else self.refuse("an object {...}"):
            if key not in names:
                self[key].refuse("one of " + ", ".join(names), "an unknown field")

    def items(self, *, most: int, least: int = 0) -> list[Field]:
        """The elements of a list; an empty one where the value is missing and may be."""
        value = [] if self.value is None and not least else self.value
        if not isinstance(value, list) or not least <= len(value) <= most:
            found = f"a list of {len(value)}" if isinstance(value, list) else ""
            self.refuse(f"a list of {least} to {most}", found)
        return [self._inner(item, f"{self.name}[{i}]") for i, item in enumerate(value)]

    def text(self, *, most: int, least: int = 0) -> str:
        """Text of so many characters, counted as JavaScript does; halves of characters become the replacement character."""
        if not isinstance(self.value, str):
            self.refuse("text")
        if not least <= (n := utf16_length(self.value)) <= most:
            self.refuse(f"{least} to {most} characters", f"{n} characters")
        return self.value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def optional_text(self, *, most: int) -> str | None:
        return None if self.value is None else self.text(most=most)

    def number(self, *, low: float = -1e30, high: float = 1e30) -> float:
        value = self.value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            self.refuse("a number" if low == -1e30 and high == 1e30 else f"a number from {low:g} to {high:g}")
        return float(value)

    def optional_number(self, *, low: float = -1e30, high: float = 1e30) -> float | None:
        return None if self.value is None else self.number(low=low, high=high)

    def index(self, *, most: int) -> int:
        """A whole number from 0 on; also as text, as their database has it."""
        value = self.value
        if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 9:
            value = int(value)
        if isinstance(value, float) and math.isfinite(value) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            self.refuse(f"a whole number from 0 to {most}")
        return value

    def _inner(self, value: Any, name: str) -> Field:
        return Field(value, self.path, self.line, name)


def read_json_file(path: Path, *, max_bytes: int | None = None) -> Field:
    """The object in a JSON file (also .json.gz) of at most 16 MB."""
    max_bytes = MAX_DOCUMENT_BYTES if max_bytes is None else max_bytes
    pieces, n = [], 0
    for line, piece in _lines(path, max_bytes, max_line=max_bytes):
        pieces.append(piece)
        n = line
    return Field(_parsed(b"".join(pieces), path, None if n else 1), path)


def read_json_lines(path: Path, *, max_bytes: int = MAX_BYTES) -> Iterator[Field]:
    """The objects in a file with one on each line (.jsonl, also .jsonl.gz); empty lines are passed over."""
    for line, raw in _lines(path, max_bytes, max_line=MAX_LINE_BYTES):
        if raw.strip():
            yield Field(_parsed(raw, path, line), path, line)


def _lines(path: Path, max_bytes: int, *, max_line: int) -> Iterator[tuple[int, bytes]]:
    opened = gzip.open if path.suffix == ".gz" else open
    total = 0
    try:
        with opened(check_ordinary(path, max_bytes), "rb") as file:
            for number in range(1, max_bytes + 1):
                raw = file.readline(min(max_line, max_bytes - total) + 1)
                total += len(raw)
                if total > max_bytes:
                    _too_large(path, None, f"more than {max_bytes:,} bytes", "a smaller file")
                if len(raw) > max_line:
                    _too_large(path, number, f"a line of more than {max_line:,} bytes", "shorter lines")
                if not raw:
                    return
                yield number, raw
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise LabelFileError(path, None, f"not a whole gzip file ({error})", "a gzip file", _REMEDY) from error
    except OSError as error:
        raise describe_os_error(error, path, "read") from error


def _too_large(path: Path, line: int | None, found: str, expected: str) -> NoReturn:
    raise LabelFileError(path, line, found, expected, "import it in parts")


def _parsed(raw: bytes, path: Path, line: int | None) -> Any:
    try:
        return json.loads(raw.decode("utf-8"), parse_constant=_no_number)
    except UnicodeDecodeError as error:
        at = line or raw[: error.start].count(b"\n") + 1
        raise LabelFileError(path, at, "not UTF-8 text", "JSON in UTF-8", _REMEDY) from error
    except json.JSONDecodeError as error:
        raise LabelFileError(path, line or error.lineno, f"not JSON ({error.msg})", "JSON", _REMEDY) from error
    except (ValueError, RecursionError) as error:  # NaN, endless digits, deep nesting
        found = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:80]
        raise LabelFileError(path, line or 1, found, "plain JSON", _REMEDY) from error


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name}, which is no number in JSON")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
