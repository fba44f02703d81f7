"""The tables of the configuration files: `[report]`, `[sae.train]` (or `["sae train"]`) set flags of those commands."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.base.errors import WorkbenchError
from workbench.base.settings import ENVIRONMENT, SETTINGS, config_files, place_of, read_config, unknown_key

_NEVER = {"help", "version", "as_json", "plan", "install_completion", "show_completion", "yes", "allow_other_machines"}
"""No file may say these: what they do has to be meant each time (a folder from elsewhere may hold a workbench.toml)."""


@dataclass(frozen=True)
class FlagDefault:
    """A flag that a table sets: of which command, its parameter, the value, and where."""

    command: tuple[str, ...]
    name: str
    value: Any
    source: str


def defaults_of(root: Any) -> dict[str, Any]:
    """click's default_map of all commands below `root`; the working folder's file goes before the user's.

    A setting in the environment goes before both: what it says is left out. Raises WorkbenchError for a table or flag that
    does not exist, and for a value that the flag does not take.
    """
    found: dict[str, Any] = {}
    for default in reversed(list(flag_defaults(root))):
        if default.name in SETTINGS and os.environ.get(ENVIRONMENT + default.name.upper()):
            continue
        place = found
        for part in default.command:
            place = place.setdefault(part, {})
        place[default.name] = default.value
    return found


def flag_defaults(root: Any) -> Iterator[FlagDefault]:
    """All flags that the files set, those of the stronger file first."""
    for path in config_files():
        yield from flags_in(path, root)


def flags_in(path: Path, root: Any) -> Iterator[FlagDefault]:
    """The flags that the tables of one file set."""
    tables = {name: value for name, value in read_config(path).items() if isinstance(value, dict)}
    yield from _in_table(path, root, (), tables)


def _in_table(path: Path, command: Any, key: tuple[str, ...], table: dict[str, Any]) -> Iterator[FlagDefault]:
    commands = getattr(command, "commands", None)
    flags = {} if commands is not None else {_flag(p): p for p in command.params if p.name not in _NEVER and _flag(p)}
    known = commands if commands is not None else flags
    for name, value in table.items():
        here = (*key, name)
        if isinstance(value, dict) and (inner := _find(command, name)) is not None:
            yield from _in_table(path, inner, here, value)
        elif commands is None and (flag := flags.get(name.replace("-", "_"))) is not None:
            checked = _checked(path, command, flag, here, value)
            yield FlagDefault(tuple(" ".join(key).split()), flag.name, checked, place_of(path, *here))
        else:
            raise unknown_key(path, here, [*known, *(SETTINGS if not key else ())])


def _find(command: Any, name: str) -> Any:
    """The command of a table: `[sae.train]`, or `["sae train"]` beside a setting `sae`."""
    for part in name.split():
        command = getattr(command, "commands", {}).get(part)
    return command


def _flag(parameter: Any) -> str:
    """The flag's name as files spell it (underscores), "" of an argument."""
    long = [name[2:] for name in parameter.opts if name.startswith("--")]
    return long[0].replace("-", "_") if long else ""


def _checked(path: Path, command: Any, parameter: Any, key: tuple[str, ...], value: Any) -> Any:
    """The value as click takes it; what the flag would refuse is refused here, where file and line are known."""
    import typer

    values = value if parameter.multiple else [value]
    try:
        if not isinstance(values, list) or any(isinstance(one, (dict, list)) for one in values):
            raise ValueError("a list of values is wanted" if parameter.multiple else "one value is wanted")
        if any(isinstance(one, bool) != bool(parameter.is_flag) for one in values):
            raise ValueError("true or false is wanted" if parameter.is_flag else "true and false are for switches")
        said = value if parameter.is_flag else [str(one) for one in values] if parameter.multiple else str(value)
        parameter.process_value(typer.Context(command), said)
    except Exception as error:  # click's BadParameter comes from click or from the copy in typer
        why = getattr(error, "message", None) or str(error)
        raise WorkbenchError(
            f"{place_of(path, *key)} sets `{'.'.join(key)}` to {value!r}: {why}",
            f"what `{parameter.opts[0]}` of `workbench {' '.join(key[:-1])}` takes",
            "correct it",
        ) from error
    return said
