"""YAML as people edit it: plain values together with the line on which each of them stands.

Only plain YAML is read: no tags, no anchors, no duplicate keys, no deep nesting. Nothing is executed, no link is followed.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.base.errors import WorkbenchError
from workbench.base.store import describe_os_error

MAX_BYTES = 256_000
MAX_DEPTH = 12
MAX_DIGITS = 64  # of a number or a date: the conversion of very long ones takes quadratic time
Where = tuple[str | int, ...]
_TEXT = "tag:yaml.org,2002:str"
_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp")}
_BY_HAND = "correct the file by hand; nothing was changed"


class LabelFileError(WorkbenchError):
    """A problem of one file, told with its place: `path`, `line` (from 1; None for the whole file) and `field` ("" for none)."""

    def __init__(
        self, path: Path, line: int | None, problem: str, expected: str, remedy: str = "", *, field: str = ""
    ) -> None:
        place = str(path) + ("" if line is None else f", line {line}") + (f", `{field}`" if field else "")
        super().__init__(f"{place}: {problem}", expected, remedy or _BY_HAND)
        self.path, self.line, self.field, self.problem = path, line, field, problem

    def row(self) -> dict[str, Any]:
        """{"file", "line", "field", "found", "expected", "remedy"}."""
        return {
            "file": str(self.path),
            "line": self.line,
            "field": self.field,
            "found": self.problem,
            "expected": self.expected,
            "remedy": self.remedy,
        }


@dataclass(frozen=True)
class YamlFile:
    """A parsed file: `data` in plain Python values, `lines` from the path of a value to its line (counted from 1)."""

    path: Path
    data: Any
    lines: dict[Where, int]

    def error(self, where: Where, found: str, expected: str, remedy: str = "") -> LabelFileError:
        """The error that names file, line and field; a missing field is placed at its parent."""
        line = next((self.lines[where[:n]] for n in range(len(where), -1, -1) if where[:n] in self.lines), 1)
        return LabelFileError(self.path, line, found, expected, remedy, field=".".join(str(part) for part in where))


def read_yaml_file(path: Path) -> YamlFile:
    """Read one YAML file.

    Raises:
        LabelFileError: it cannot be read, a link, no ordinary file, larger than 256 kB, not UTF-8, not YAML, a duplicate key,
            an anchor, a tag, deep nesting, a number of more than 64 digits.
    """
    return parse_yaml_text(_read_text(path), path)


def parse_yaml_text(text: str, path: Path) -> YamlFile:
    """The same for text that stands, or will stand, at `path`."""
    import yaml

    if (n := len(text.encode("utf-8", "replace"))) > MAX_BYTES:
        raise _too_large(path, n)
    try:
        walk = _Walk(text)
        return YamlFile(path, walk.document(), walk.lines)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be parsed"
        line = mark.line + 1 if mark is not None else _line_of(text, getattr(error, "position", None))
        raise LabelFileError(path, line, str(problem), "a plain YAML file", "correct that line by hand") from error


def _line_of(text: str, position: Any) -> int:
    return text.count("\n", 0, position) + 1 if isinstance(position, int) else 1


def _too_large(path: Path, n: int) -> LabelFileError:
    remedy = "shorten its contexts and explanations"
    return LabelFileError(path, None, f"a file of {n:,} bytes", f"at most {MAX_BYTES:,} bytes", remedy)


def _read_text(path: Path) -> str:
    try:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            remedy = "put a copy of what it points to in its place"
            raise LabelFileError(path, None, "a symbolic link", "a file of its own", remedy)
        if not stat.S_ISREG(mode):  # a pipe would be waited for
            found = "a folder" if stat.S_ISDIR(mode) else "no ordinary file"
            raise LabelFileError(path, None, found, "a text file", "move it out of the folder of labels")
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        told = describe_os_error(error, path, "read")
        raise LabelFileError(path, None, told.found, told.expected, told.remedy) from error
    if len(raw) > MAX_BYTES:
        raise _too_large(path, path.stat().st_size)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise LabelFileError(path, line, "not UTF-8 text", "a text file in UTF-8", "save it as UTF-8") from error


class _Walk:
    """Turns the parser's events into values and remembers their lines.

    Events, because the parsers' own trees recurse: a file of opening brackets would crash the process before anyone sees it.
    """

    def __init__(self, text: str) -> None:
        import yaml
        from yaml.constructor import SafeConstructor

        self.lines: dict[Where, int] = {}
        self._parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
        self._constructor = SafeConstructor()

    def document(self) -> Any:
        """The value of the one document; None when there is none."""
        import yaml

        self._parser.get_event()  # the start of the stream
        if isinstance(self._parser.get_event(), yaml.StreamEndEvent):
            return None
        value = self._value(self._parser.get_event(), ())
        self._parser.get_event()  # the end of the document
        following = self._parser.get_event()
        if not isinstance(following, yaml.StreamEndEvent):
            raise _problem("a second document", following)
        return value

    def _value(self, event: Any, where: Where) -> Any:
        import yaml

        if isinstance(event, yaml.AliasEvent):
            raise _problem("an alias (*name), which is not read here", event)
        if event.anchor is not None:
            raise _problem("an anchor (&name), which is not read here", event)
        if len(where) > MAX_DEPTH:
            raise _problem(f"values nested more than {MAX_DEPTH} levels deep", event)
        self.lines[where] = event.start_mark.line + 1
        if isinstance(event, yaml.MappingStartEvent):
            _refuse_tag(event, "map")
            return self._mapping(where)
        if isinstance(event, yaml.SequenceStartEvent):
            _refuse_tag(event, "seq")
            return self._sequence(where)
        return self._scalar(event)

    def _sequence(self, where: Where) -> list[Any]:
        import yaml

        result: list[Any] = []
        while not isinstance(event := self._parser.get_event(), yaml.SequenceEndEvent):
            result.append(self._value(event, (*where, len(result))))
        return result

    def _mapping(self, where: Where) -> dict[Any, Any]:
        import yaml

        result: dict[Any, Any] = {}
        while not isinstance(event := self._parser.get_event(), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent) or event.anchor is not None:
                raise _problem("a key that is not plain", event)
            key = self._scalar(event)
            if key in result:
                raise _problem(f"the key `{key}` stands twice", event)
            result[key] = self._value(self._parser.get_event(), (*where, key))
        return result

    def _scalar(self, event: Any) -> Any:
        import yaml

        tag = event.tag
        if tag is None or tag == "!":
            tag = self._parser.resolve(yaml.ScalarNode, event.value, event.implicit)
        if tag not in _TAGS:
            raise _problem(f"the tag {tag}, which is not read here", event)
        if tag != _TEXT and len(event.value) > MAX_DIGITS:
            raise _problem(f"a number or date of {len(event.value):,} characters", event)
        try:
            return self._constructor.construct_object(yaml.ScalarNode(tag, event.value, event.start_mark, event.end_mark))
        except (ValueError, KeyError, OverflowError) as error:
            raise _problem(f"a value that cannot be read ({error})", event) from error


def _refuse_tag(event: Any, kind: str) -> None:
    if event.tag not in (None, "!", f"tag:yaml.org,2002:{kind}"):
        raise _problem(f"the tag {event.tag}, which is not read here", event)


def _problem(text: str, event: Any) -> Exception:
    import yaml

    return yaml.MarkedYAMLError(problem=text, problem_mark=event.start_mark)
