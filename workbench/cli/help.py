"""What all commands have in common: examples and completion, --json and --quiet, and a help that is in order."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import typer
import typer.core
import typer.main

from .completion import COMPLETERS
from .examples import EXAMPLES
from .options import JsonOption, QuietOption

MENDING = ("doctor", "config")
"""Commands that a mistake in a settings file does not stop before they begin, as it does not hide the help."""

GROUPS = {
    "sae": ("saes.shelf", "Sparse autoencoders: look for, evaluate, train, exchange."),
    "models": ("house.assets", "Models and other assets: what there is; fetch them."),
    "traits": ("personas.traits", "The traits that can be extracted, and how to write one."),
    "vectors": ("personas.vectors", "Ways to make vectors, and the formats of other tools."),
    "decompositions": ("studies.decompositions", "Traits, SAEs, before and after, side by side."),
    "judge": ("personas.judge", "The judges that score responses, and what they are worth."),
    "axis": ("axis.group", "The assistant axis: characters, map, drift, capping."),
    "features": ("features.commands", "Where features fire: an index, and what it says of each."),
    "labels": ("labels.commands", "What features are, in words: files, scores, exchange."),
    "runs": ("house.runs", "Run folders: what they hold, take one up again, clean."),
    "cache": ("house.cache", "Downloads and converted models: what they take; clean."),
    "config": ("house.config", "Settings: what is in force, from where; the files."),
}
"""Group -> (module with its commands, what it is about). The module is imported when one of them is asked for."""

SECTIONS = {
    "Main job": ("demo", "extract", "decompose", "label", "report", "serve", "traits", "judge"),
    "Study": ("audit", "falsify", "lab", "transfer", "vectors", "decompositions"),
    "Use": ("steer", "sweep", "monitor", "gateway", "prevent", "diff", "screen"),
    "Characters": ("axis",),
    "Features and labels": ("features", "labels"),
    "SAEs": ("sae",),
    "Housekeeping": ("runs", "cache", "config", "models", "doctor"),
}

EPILOG = """\b
Settings, strongest first: a flag, WORKBENCH_<NAME> in the environment,
./workbench.toml, your own config.toml (`workbench config show`).
\b
Exit codes: 0 done; 1 the answer is no, or a check failed (a bug: with its
traceback); 2 bad input; 130 interrupted (`serve`, which ends so: 0);
143 terminated.
Every command takes --json (one object on standard output) and --quiet."""

START = """\
Take a persona vector apart: which features of a sparse autoencoder is a trait made of?

  workbench doctor         is everything here that it needs?
  workbench demo --plan    what the whole job takes on this machine
  workbench demo           what is evil made of? Ends with a report

All commands: workbench --help"""


class Commands(typer.core.TyperGroup):
    """A group whose help lists its commands by task, each with the whole of its first sentence."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands, in sections at the top."""
        known = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        rows = {name: command.get_short_help_str(limit=1000) for name, command in known.items() if command and not command.hidden}
        width = max(map(len, rows), default=0)
        for title, names in self._sections(ctx, rows):
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), rows[name]) for name in names])

    @staticmethod
    def _sections(ctx: Any, rows: dict[str, str]) -> Iterator[tuple[str, list[str]]]:
        if ctx.parent is not None:
            yield "Commands", list(rows)
            return
        for title, names in SECTIONS.items():
            yield title, [name for name in names if name in rows]
        if others := [name for name in rows if not any(name in names for names in SECTIONS.values())]:
            yield "Others", others


class LaterCommands(Commands):
    """A group of GROUPS. Its attribute `commands` is made when it is asked for: most calls need one group or none."""

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        del self.commands

    def __getattr__(self, name: str) -> Any:
        if name != "commands":
            raise AttributeError(name)
        self.commands = _commands_of(str(self.name))
        return self.commands


@functools.cache
def _commands_of(group: str) -> dict[str, Any]:
    import importlib

    app = importlib.import_module(f".{GROUPS[group][0]}", __package__).app
    app.rich_markup_mode = None
    dress(app, (group,))
    return typer.main.get_group(app).commands  # pyright: ignore[reportReturnType]


def dress(app: typer.Typer, path: tuple[str, ...] = ()) -> None:
    """Give every command of `app` its examples, its completers, --json and --quiet; and the help of groups its order."""
    app.info.cls = Commands
    for command in app.registered_commands:
        assert command.callback is not None
        name = " ".join((*path, command.name or command.callback.__name__.replace("_", "-")))
        command.epilog = _epilog(EXAMPLES.get(name, ()))
        command.callback = _with_output(command.callback, name)
    for group in app.registered_groups:
        assert group.typer_instance is not None
        group.typer_instance.info.cls = LaterCommands


def _epilog(examples: tuple[str, ...]) -> str | None:
    title = "Example:" if len(examples) == 1 else "Examples:"
    return "\n".join(["\b", title, *(f"  workbench {example}" for example in examples)]) if examples else None


def _with_output(function: Callable[..., None], name: str) -> Callable[..., None]:
    """The command with --json and --quiet (whether it has use for them or not), its output kept apart accordingly."""
    own = inspect.signature(function, eval_str=True)
    shared = {"as_json": JsonOption, "quiet": QuietOption}
    added = {key: kind for key, kind in shared.items() if key not in own.parameters}
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own.parameters.values()]
    for parameter in parameters:
        _complete(parameter, name)
    parameters += [inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
                   for key, kind in added.items()]  # fmt: skip

    @functools.wraps(function)
    def command(**values: Any) -> None:
        from .console import ReaderGone, reserved_output

        try:
            with reserved_output(values["as_json"], values["quiet"] or _quiet_setting(name)):
                function(**{key: value for key, value in values.items() if key not in added})
        except BrokenPipeError:
            raise ReaderGone from None

    command.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
    del command.__wrapped__  # typer would read the signature of the inner function
    return command


def _quiet_setting(command: str) -> bool:
    from workbench.base.errors import WorkbenchError
    from workbench.base.settings import setting

    try:
        return bool(setting("quiet"))
    except WorkbenchError:
        if command.split()[0] in MENDING:
            return False
        raise


def _complete(parameter: inspect.Parameter, command: str) -> None:
    completer = COMPLETERS.get(f"{command} {parameter.name}") or COMPLETERS.get(parameter.name)
    for info in getattr(parameter.annotation, "__metadata__", ()):
        if completer is not None and info.autocompletion is None:
            info.autocompletion = completer
