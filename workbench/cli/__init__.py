"""The command line: parse, call, print. `main` is the entry point of the `workbench` command."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line on `arguments` (default: those of the process) and exit with its code.

    Exit codes: 0 done; 2 a problem the user can fix (told on standard error, no traceback); 130 stopped by Ctrl-C;
    1 a bug (with traceback).
    """
    from .run import run

    raise SystemExit(run(arguments))
