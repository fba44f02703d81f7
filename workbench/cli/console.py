"""What the command line prints: results on standard output (a table, or JSON alone), everything else on standard error."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from workbench.base.errors import WorkbenchError
from workbench.base.text import visible_lines


def colours(stream: Any) -> bool:
    """Whether to colour what goes to `stream`: NO_COLOR says no, FORCE_COLOR and CLICOLOR_FORCE say yes, CLICOLOR=0 says no
    (in this order); else only a terminal gets colours. As no-color.org and bixense.com/clicolors have it: an empty variable
    counts as unset, and of FORCE_COLOR and CLICOLOR_FORCE a 0 does as well."""
    said = os.environ.get
    if said("NO_COLOR"):
        return False
    if said("FORCE_COLOR", "0") not in ("", "0") or said("CLICOLOR_FORCE", "0") not in ("", "0"):
        return True
    if said("CLICOLOR") == "0" or said("TERM") == "dumb":
        return False
    return bool(stream is not None and stream.isatty())


class ReaderGone(BaseException):
    """Nobody reads our output any more (`| head -1`). Not an OSError: typer would make a failure of it."""


def print_error(error: WorkbenchError) -> None:
    """The three parts of an error on standard error, one per line."""
    bold, plain = ("\x1b[1m", "\x1b[0m") if colours(sys.stderr) else ("", "")
    parts = (("error", error.found), ("expected", error.expected), ("what to do", error.remedy))
    for name, text in parts:
        if text:
            print(f"{bold}{name}:{plain} {visible_lines(text)}", file=sys.stderr)


_results: Any = None  # the standard output that waits for the result, while everything else is sent to standard error


@contextlib.contextmanager
def reserved_output(as_json: bool, quiet: bool = False) -> Iterator[None]:
    """Within the block, with `as_json`, whatever prints to standard output (libraries do) goes to standard error.

    Every command runs in such a block; inside another one it changes nothing that the outer one has set.
    """
    from workbench.base.progress import is_quiet, set_quiet

    global _results
    before, was_quiet = _results, is_quiet()
    set_quiet(quiet or was_quiet)
    if as_json and _results is None:
        _results = sys.stdout
    try:
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            yield
    finally:
        _results = before
        set_quiet(was_quiet)


def results() -> Any:
    """The stream that results go to; within `reserved_output` that is the standard output as it was outside of it."""
    return _results or sys.stdout


def emit(value: Any, *, as_json: bool, show: Callable[[], None]) -> None:
    """Print a result: the JSON object alone, or `show()`."""
    if not as_json:
        show()
        return
    from workbench.base.store import plain
    from workbench.base.text import is_control

    text = json.dumps(plain(value), indent=2, ensure_ascii=False)
    # JSON escapes ESC and its like itself; the control characters beyond ASCII are left to do.
    text = re.sub("[^\x00-\x7e]", lambda found: f"\\u{ord(found[0]):04x}" if is_control(found[0]) else found[0], text)
    print(text, file=results())


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, right: Sequence[int] = ()) -> None:
    """Print a table; `right` are the indices of the columns of numbers. Long cells wrap, nothing is cut."""
    from rich.table import Table
    from rich.text import Text

    # As Text, brackets in a model's words are not markup.
    heading = Text(visible_lines(title), style="table.title") if title else None
    drawn = Table(title=heading, title_justify="left", header_style="bold", pad_edge=False)
    for index, name in enumerate(columns):
        side = "right" if index in right else "left"
        drawn.add_column(Text(visible_lines(name)), justify=side, overflow="fold", no_wrap=index in right)
    for row in rows:
        drawn.add_row(*(Text(visible_lines(cell(value))) for value in row))
    console().print(drawn)


def console() -> Any:
    """The rich console on standard output; wide enough for a table when the output is a file or a pipe."""
    from rich.console import Console

    width, coloured = None if sys.stdout.isatty() else 160, colours(sys.stdout)
    return Console(width=width, highlight=False, force_terminal=coloured or None, color_system="auto" if coloured else None)


def say(text: str = "") -> None:
    """Print a line of a result to standard output; like all texts here with its control characters as signs."""
    print(visible_lines(text))


def note(text: str) -> None:
    """Print one line about the work (not a result) to standard error, unless --quiet."""
    from workbench.base.progress import is_quiet

    if not is_quiet():
        print(visible_lines(text), file=sys.stderr)


def cell(value: Any) -> str:
    """A value as a table shows it: "-" for None, "yes"/"no" for a bool, three decimals for a float."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def signed(value: float | None, decimals: int = 3) -> str:
    """A number with its sign ("+0.120"), "-" for None."""
    return "-" if value is None else f"{value:+.{decimals}f}"


def percent(value: float | None) -> str:
    """A share as a percentage with one decimal ("2.9%"), "-" for None."""
    return "-" if value is None else f"{100 * value:.1f}%"


def interval(value: Sequence[float | None] | None, decimals: int = 3) -> str:
    """An interval as "[+0.01, +0.20]", "" when it is not known."""
    if not value or any(end is None for end in value):
        return ""
    return f"[{signed(value[0], decimals)}, {signed(value[1], decimals)}]"


def either_way(value: Sequence[float] | None) -> str:
    """An interval that lies alike on both sides of zero, as "±0.20"; "-" when it is not known."""
    return "-" if not value else f"±{max(map(abs, value)):.2f}"


def judge_shown(evidence: Mapping[str, Any]) -> str:
    """The judge that filtered a vector's rows, marked where nobody validated it for the trait."""
    unvalidated = " (unvalidated)" if evidence.get("judge_validated") is False else ""
    return f"{evidence.get('judge') or '-'}{unvalidated}"


def judge_of(evidence: Mapping[str, Any]) -> dict[str, Any]:
    """{judge, judge_validated} of a vector's evidence, for the JSON of what is made from it."""
    return {name: evidence.get(name) for name in ("judge", "judge_validated")}
