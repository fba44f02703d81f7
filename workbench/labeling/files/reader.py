"""Typed access to the fields of a hand-edited file: every refusal names the line."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TypeGuard

from workbench.base.errors import WorkbenchError, nearest
from workbench.labeling.files.yamlfile import Where, YamlFile


class Reader:
    """Typed access to the fields of a file; every refusal names the line."""

    def __init__(self, file: YamlFile):
        self.file = file

    def get(self, where: Where) -> Any:
        value = self.file.data
        for part in where:
            if isinstance(value, dict):
                value = value.get(part)
            elif isinstance(value, list) and isinstance(part, int):
                value = value[part]
            else:
                return None
        return value

    def wrong(self, where: Where, expected: str, remedy: str = "") -> WorkbenchError:
        value = self.get(where)
        found = "the field is missing" if value is None else f"found {_short(value)}"
        return self.file.error(where, found, expected, remedy)

    def mapping(
        self,
        where: Where,
        *,
        required: Collection[str] = (),
        allowed: Collection[str] = (),
        optional: bool = False,
    ) -> dict[Any, Any]:
        value = self.get(where)
        if value is None and optional:
            return {}
        if not isinstance(value, dict):
            raise self.wrong(where, "a mapping (name: value)")
        for key in value:
            if allowed and key not in allowed:
                raise self.file.error(
                    (*where, key), "an unknown field", "one of " + ", ".join(nearest(str(key), allowed))
                )
        for key in required:
            if value.get(key) is None:
                raise self.wrong((*where, key), f"the field `{key}`")
        return value

    def sequence(self, where: Where, *, optional: bool = False) -> list[Any]:
        value = self.get(where)
        if value is None and optional:
            return []
        if not isinstance(value, list):
            raise self.wrong(where, "a list")
        return value

    def text(self, where: Where, *, default: str | None = None) -> str:
        value = self.get(where)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise self.wrong(where, "text", "put it between quotes")
        return value

    def texts(self, where: Where) -> tuple[str, ...]:
        return tuple(self.text((*where, i)) for i in range(len(self.sequence(where, optional=True))))

    def integer(self, where: Where, *, low: int | None = None, default: int | None = None) -> int:
        value = self.get(where)
        if value is None and default is not None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or (low is not None and value < low):
            raise self.wrong(where, "a whole number" + ("" if low is None else f" from {low} on"))
        return value

    def number(
        self, where: Where, *, low: float | None = None, high: float | None = None, optional: bool = False
    ) -> Any:
        value = self.get(where)
        if value is None and optional:
            return None
        if not _is_finite(value) or (low is not None and value < low) or (high is not None and value > high):
            raise self.wrong(where, "a number" if low is None else f"a number between {low:g} and {high:g}")
        return float(value)

    def choice(self, where: Where, known: Collection[str]) -> str:
        value = self.text(where)
        if value not in known:
            raise self.wrong(where, "one of " + ", ".join(known))
        return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _is_finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e30
