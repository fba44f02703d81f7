"""Checked reading of hand-written YAML documents: every complaint names the file, the place and the
remedy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.store import read_yaml

TO_BE_FILLED = "FILL IN"
Item = TypeVar("Item")


@dataclass(frozen=True)
class Fields:
    """One mapping of a document with the place it stands at, for example `trait.yaml,
    questions.sealed[2]`."""

    values: Mapping[str, Any]
    place: str

    def wrong(self, found: str, expected: str, remedy: str) -> WorkbenchError:
        """An error that begins with the place of this mapping."""
        return WorkbenchError(f"{self.place}: {found}", expected, remedy)

    def value(self, key: str) -> Any:
        """What stands under `key`; refuses a field that is absent or empty."""
        value = self.values.get(key)
        if value is None or value == "" or value == [] or value == {}:
            state = "is empty" if key in self.values else "is missing"
            raise self.wrong(f"the field '{key}' {state}.", f"A value for '{key}'.", f"Add '{key}' there.")
        return value

    def text(self, key: str) -> str:
        """A non-empty string without surrounding blanks; refuses placeholders that nobody filled in."""
        value = self.value(key)
        if not isinstance(value, str):
            raise self.wrong(
                f"'{key}' is {type(value).__name__} {value!r}.",
                "A string.",
                f"Put quotation marks around '{key}'.",
            )
        if value.strip().startswith(TO_BE_FILLED):
            raise self.wrong(
                f"'{key}' still reads '{TO_BE_FILLED}'.", "Your own text.", f"Write '{key}' there."
            )
        return value.strip()

    def boolean(self, key: str) -> bool:
        """True or False as YAML writes them."""
        value = self.value(key)
        if not isinstance(value, bool):
            raise self.wrong(
                f"'{key}' is {value!r}.", "true or false.", f"Write '{key}: true' or '{key}: false'."
            )
        return value

    def choice(self, key: str, known: Sequence[str]) -> str:
        """One of the known words."""
        value = self.text(key)
        if value not in known:
            problem = unknown_name(f"value of '{key}'", value, known)
            raise self.wrong(problem.found, problem.expected, problem.remedy)
        return value

    def words(self, key: str) -> tuple[str, ...]:
        """A list of strings, possibly absent."""
        value = self.values.get(key) or []
        if not isinstance(value, list) or any(isinstance(word, (dict, list)) for word in value):
            raise self.wrong(
                f"'{key}' is {type(value).__name__}.", "A list of words.", f"Write '{key}: [one, two]'."
            )
        return tuple(str(word) for word in value)

    def with_names(self, renamed: Mapping[str, str]) -> Fields:
        """The same mapping with each old key under its new name."""
        return Fields({renamed.get(key, key): value for key, value in self.values.items()}, self.place)

    def nested(self, key: str) -> Fields:
        """The mapping under `key`."""
        return fields(self.value(key), f"{self.place}, {key}")

    def each(
        self,
        key: str,
        build: Callable[[Fields], Item],
        *,
        at_least: int = 1,
        renamed: Mapping[str, str] = {},
    ) -> tuple[Item, ...]:
        """`build` applied to every mapping of the list under `key`; `renamed` gives old keys their new name."""
        value = self.value(key)
        if not isinstance(value, list) or len(value) < at_least:
            count = f"{len(value)} entries" if isinstance(value, list) else type(value).__name__
            raise self.wrong(f"'{key}' holds {count}.", f"A list of at least {at_least}.", f"Extend '{key}'.")
        items = [fields(item, f"{self.place}, {key}[{i}]") for i, item in enumerate(value)]
        return tuple(build(item.with_names(renamed) if renamed else item) for item in items)


def fields(value: Any, place: str) -> Fields:
    """`value` as Fields; refuses what is not a mapping."""
    if not isinstance(value, dict):
        raise WorkbenchError(
            f"{place}: found {type(value).__name__} {str(value)[:60]!r}.",
            "A mapping of field names to values.",
            "Write 'name: value' lines there.",
        )
    return Fields(value, place)


def read_fields(path: Path) -> Fields:
    """The YAML document at `path`; bad YAML and fields written twice are refused with their line."""
    return fields(read_yaml(path), str(path))


def refuse_repeats(pairs: Sequence[tuple[str, str]], what: str, place: str) -> None:
    """Refuse two entries with the same value; `pairs` = (where it stands, value)."""
    seen: dict[str, str] = {}
    for where, value in pairs:
        key = " ".join(value.split()).casefold()
        if key in seen:
            raise WorkbenchError(
                f"{place}: {where} repeats the {what} of {seen[key]}: '{value[:80]}'.",
                f"Every {what} once, because rows and data splits are told apart by it.",
                "Change or remove one of the two.",
            )
        seen[key] = where
