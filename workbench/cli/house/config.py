"""`workbench config`: which settings are in force, where each comes from, and the files."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from ..options import JsonOption, QuietOption

app = typer.Typer()
HIDDEN = "set (not shown)"


@app.command()
def show(
    everything: Annotated[bool, typer.Option("--all", help="Settings that nobody set, too.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Every setting in force, and where it comes from.

    Strongest first: a flag, WORKBENCH_<NAME> in the environment, ./workbench.toml, your own config.toml. At the top of a file
    stand settings; in a table named after a command ([report], [sae.train]) its flags. Keys of endpoints come only from the
    environment.
    """
    from ..console import emit

    value = settings_in_force()
    emit(value, as_json=as_json, show=lambda: _show(value, everything))


def settings_in_force() -> dict[str, Any]:
    """{settings: [{name, value, source, what}], flags: [{command, flag, value, source}], unknown, files}, secrets masked."""
    from workbench.base.settings import ENVIRONMENT, ENVIRONMENT_ONLY, SETTINGS, config_files, find_setting

    from ..defaults import flag_defaults
    from ..recorded import without_password

    rows = []
    for name, (_, what) in SETTINGS.items():
        found = find_setting(name)
        rows.append({"name": name, "value": without_password(found.value), "source": found.source, "what": what})
    for name, what in ENVIRONMENT_ONLY.items():
        said = os.environ.get(ENVIRONMENT + name.upper())
        shown = HIDDEN if said and name == "api_key" else said or None
        source = ENVIRONMENT + name.upper() if said else "default"
        rows.append({"name": name, "value": shown, "source": source, "what": what})
    flags = [{"command": " ".join(flag.command), "flag": flag.name, "value": without_password(flag.value),
              "source": flag.source}
             for flag in flag_defaults(_root())]  # fmt: skip
    known = {ENVIRONMENT + name.upper() for name in (*SETTINGS, *ENVIRONMENT_ONLY)}
    unknown = sorted(name for name in os.environ if name.startswith(ENVIRONMENT) and name not in known)
    files = [{"file": str(path), "exists": path.is_file()} for path in config_files()]
    return {"settings": rows, "flags": flags, "unknown": unknown, "files": files}


def _root() -> Any:
    import typer.main

    from ..app import app as root

    return typer.main.get_command(root)


def _show(value: dict[str, Any], everything: bool) -> None:
    from workbench.base.errors import nearest
    from workbench.base.settings import ENVIRONMENT, SETTINGS

    from ..console import say, table

    rows = [(r["name"], r["value"], r["source"], r["what"]) for r in value["settings"] if everything or r["value"] is not None]
    if rows:
        table("", ("setting", "value", "from", "what it is"), rows)
    else:
        say("nothing is set: every setting has its default (--all lists them)")
    if value["flags"]:
        table("flags of commands", ("command", "flag", "value", "from"), [tuple(row.values()) for row in value["flags"]])
    for name in value["unknown"]:
        near = ENVIRONMENT + nearest(name.removeprefix(ENVIRONMENT).lower(), SETTINGS)[0].upper()
        say(f"warning: nobody reads {name}; did you mean {near}?")


@app.command()
def path(as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """The settings files, the stronger one first."""
    from workbench.base.settings import config_files

    from ..console import emit, say

    value = {"files": [{"file": str(file.absolute()), "exists": file.is_file()} for file in config_files()]}

    def display() -> None:
        for row in value["files"]:
            say(f"{row['file']}{'' if row['exists'] else ' (not there)'}")

    emit(value, as_json=as_json, show=display)


@app.command("set")
def set_(
    key: Annotated[str, typer.Argument(metavar="KEY", help="A setting (samples), or a command's flag (report.samples).")],
    value: Annotated[str, typer.Argument(metavar="VALUE", help="Its value.")],
    user: Annotated[bool, typer.Option("--user", help="In your own config.toml. [default: ./workbench.toml]")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a setting into ./workbench.toml; --user: into your own.

    The rest of the file stays as it is, comments included. What would not be read back as it was meant is not written.
    """
    from workbench.base.settings import config_files

    from ..console import emit, say

    file = config_files()[int(user)]
    written = write_setting(file, key, value)
    found = {"file": str(file.absolute()), "key": key, "value": written}
    emit(found, as_json=as_json, show=lambda: say(f"{file}: {key} = {written!r}"))


def write_setting(file: Path, key: str, text: str) -> Any:
    """Set `key` in a settings file, checked as it will be read; returns the value. Nothing is written when it is refused."""
    import tempfile

    from workbench.base.errors import WorkbenchError
    from workbench.base.settings import read_config
    from workbench.base.store import atomic_write

    from ..defaults import flags_in

    read_config(file)  # a file with a mistake is corrected by hand
    *table, name = (part.replace("-", "_") if i else part for i, part in enumerate(key.split(".")))
    value = _value(table, name, text)
    before = file.read_text(encoding="utf-8") if file.is_file() else ""
    changed = _with_line(before, table, name, value)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / file.name
        trial.write_text(changed, encoding="utf-8")
        try:
            read_config(trial)
            list(flags_in(trial, _root()))
        except WorkbenchError as error:
            raise WorkbenchError(error.found.replace(str(trial), str(file)), error.expected, error.remedy) from None
    atomic_write(file, changed)
    return value


def _value(table: list[str], name: str, text: str) -> Any:
    """The text as a setting of that kind; a flag's as TOML would read it, else as text."""
    import tomllib

    from workbench.base.settings import SETTINGS

    if not table and SETTINGS.get(name, (None,))[0] is str:
        return text
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


def _with_line(before: str, table: list[str], name: str, value: Any) -> str:
    """The file's text with the key set: its line replaced, or one added at the end of its table."""
    import json

    line = f"{name} = {json.dumps(value, ensure_ascii=False)}"
    lines, here, end = before.splitlines(), [], None if table else 0
    for number, old in enumerate(lines):
        if header := re.match(r"\s*\[([^\[\]]+)\]", old):
            here = [part.strip().strip("\"'") for part in header[1].split(".")]
        elif here == table and re.match(rf"\s*[\"']?{re.escape(name)}[\"']?\s*=", old):
            return "\n".join([*lines[:number], line, *lines[number + 1 :]]) + "\n"
        if here == table and old.strip():
            end = number + 1
    if end is None:
        return "\n".join([*lines, *([""] if lines else []), f"[{'.'.join(table)}]", line]) + "\n"
    gap = [""] if not table and lines[end:] and lines[end].strip() else []
    return "\n".join([*lines[:end], line, *gap, *lines[end:]]) + "\n"
