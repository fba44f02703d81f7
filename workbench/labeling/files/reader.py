"""Typed access to the fields of a hand-edited file: every refusal names the line."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TypeGuard

from workbench.base.errors import nearest
from workbench.labeling.files.yamlfile import LabelFileError, Where, YamlFile


class Reader:
    """Typed access to the fields of a file; every refusal names the line.

    The first problem is raised. With a list of `problems` it is added there instead, a harmless value is returned for what stands
    in the file, and reading goes on: what is read with problems is good for nothing but finding the others.
    """

    def __init__(self, file: YamlFile, problems: list[LabelFileError] | None = None):
        self.file, self.problems = file, problems

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

    def refuse(self, where: Where, found: str, expected: str, remedy: str = "") -> None:
        """Raise the problem, or keep it for later."""
        error = self.file.error(where, found, expected, remedy)
        if self.problems is None:
            raise error
        if all((error.line, error.field) != (known.line, known.field) for known in self.problems):
            self.problems.append(error)

    def wrong(self, where: Where, expected: str, remedy: str = "") -> None:
        value = self.get(where)
        self.refuse(where, "the field is missing" if value is None else f"found {_short(value)}", expected, remedy)

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
            self.wrong(where, "a mapping (name: value)")
            return {}
        for key in value:
            if allowed and key not in allowed:
                known = nearest(str(key), allowed)
                remedy = f"correct the name (`{known[0]}`?), or remove the line"
                self.refuse((*where, key), "an unknown field", "one of " + ", ".join(known), remedy)
        for key in required:
            if value.get(key) is None:
                self.wrong((*where, key), f"the field `{key}`", f"add a line `{key}: ...` there")
        return value

    def sequence(self, where: Where, *, optional: bool = False) -> list[Any]:
        value = self.get(where)
        if value is None and optional:
            return []
        if not isinstance(value, list):
            self.wrong(where, "a list")
            return []
        return value

    def text(self, where: Where, *, default: str | None = None) -> str:
        value = self.get(where)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            self.wrong(where, "text", "put it between quotes")
            return ""
        return value

    def texts(self, where: Where) -> tuple[str, ...]:
        return tuple(self.text((*where, i)) for i in range(len(self.sequence(where, optional=True))))

    def integer(self, where: Where, *, low: int | None = None, default: int | None = None) -> int:
        value = self.get(where)
        if value is None and default is not None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or (low is not None and value < low):
            self.wrong(where, "a whole number" + ("" if low is None else f" from {low} on"))
            return low or 0
        return value

    def number(
        self, where: Where, *, low: float | None = None, high: float | None = None, optional: bool = False
    ) -> Any:
        value = self.get(where)
        if value is None and optional:
            return None
        if not _is_finite(value) or (low is not None and value < low) or (high is not None and value > high):
            self.wrong(where, "a number" if low is None else f"a number between {low:g} and {high:g}")
            return low or 0.0
        return float(value)

    def choice(self, where: Where, known: Collection[str]) -> str:
        value = self.get(where)
        if value not in tuple(known):
            said = "one of " + ", ".join(nearest(value, known) if isinstance(value, str) else known)
            self.wrong(where, said, "choose one of these")
            return next(iter(known))
        return str(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _is_finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e30
