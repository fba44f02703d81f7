"""YAML as people edit it: plain values together with the line on which each of them stands.

Only plain YAML is read: no tags, no anchors, no duplicate keys, nothing is executed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.base.errors import WorkbenchError
from workbench.base.store import read_bytes

MAX_BYTES = 256_000
Where = tuple[str | int, ...]
_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp")}


@dataclass(frozen=True)
class YamlFile:
    """A parsed file: `data` in plain Python values, `lines` from the path of a value to its line (counted from 1)."""

    path: Path
    data: Any
    lines: dict[Where, int]

    def error(self, where: Where, found: str, expected: str, remedy: str = "") -> WorkbenchError:
        """A WorkbenchError that names file, line and field; a missing field is placed at its parent."""
        line = next((self.lines[where[:n]] for n in range(len(where), -1, -1) if where[:n] in self.lines), 1)
        name = ".".join(str(part) for part in where)
        place = f"{self.path}, line {line}" + (f", `{name}`" if name else "")
        return WorkbenchError(
            f"{place}: {found}", expected, remedy or "correct the file by hand; nothing was changed"
        )


def read_yaml_file(path: Path) -> YamlFile:
    """Read one YAML file.

    Raises:
        WorkbenchError: unreadable, larger than 256 kB, not UTF-8, not YAML, a duplicate key, an anchor or a tag.
    """
    return parse_yaml_text(_read_text(path), path)


def parse_yaml_text(text: str, path: Path) -> YamlFile:
    """The same for text that stands, or will stand, at `path`."""
    import yaml

    try:
        node = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        walk = _Walk()
        return YamlFile(path, None if node is None else walk.value(node, ()), walk.lines)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}, line {mark.line + 1}" if mark is not None else str(path)
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise WorkbenchError(
            f"{place}: {problem}", "a plain YAML file", "correct that line by hand"
        ) from error


def _read_text(path: Path) -> str:
    raw = read_bytes(path)
    if len(raw) > MAX_BYTES:
        raise WorkbenchError(
            f"{path} has {len(raw):,} bytes", f"at most {MAX_BYTES:,} bytes", "shorten its contexts"
        )
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise WorkbenchError(
            f"{path}, line {line}: not UTF-8 text", "a text file in UTF-8", "save it as UTF-8"
        ) from error


class _Walk:
    """Turns nodes into values and remembers their lines."""

    def __init__(self) -> None:
        from yaml.constructor import SafeConstructor

        self.lines: dict[Where, int] = {}
        self._seen: set[int] = set()
        self._constructor = SafeConstructor()

    def value(self, node: Any, where: Where) -> Any:
        import yaml

        if id(node) in self._seen:
            raise _problem("an alias (*name), which is not read here", node)
        self._seen.add(id(node))
        self.lines[where] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, where)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(child, (*where, i)) for i, child in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: Any, where: Where) -> dict[Any, Any]:
        import yaml

        result: dict[Any, Any] = {}
        for key_node, child in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _problem("a key that is not plain", key_node)
            key = self._scalar(key_node)
            if key in result:
                raise _problem(f"the key `{key}` stands twice", key_node)
            result[key] = self.value(child, (*where, key))
        return result

    def _scalar(self, node: Any) -> Any:
        if node.tag not in _TAGS:
            raise _problem(f"the tag {node.tag}, which is not read here", node)
        try:
            return self._constructor.construct_object(node)
        except (ValueError, KeyError) as error:
            raise _problem(f"a value that cannot be read ({error})", node) from error


def _problem(text: str, node: Any) -> Exception:
    import yaml

    return yaml.MarkedYAMLError(problem=text, problem_mark=node.start_mark)
