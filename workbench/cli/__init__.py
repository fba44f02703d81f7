"""The command line: parse, call, print. `main` is the entry point of the `workbench` command."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line on `arguments` (default: those of the process) and exit with its code.

    Exit codes, and no others: 0 done; 1 the answer is no, or a check failed (a bug ends so too, with its traceback); 2 bad input
    or a machine that does not let us (told on standard error, no traceback); 130 stopped by Ctrl-C; 143 by SIGTERM.
    """
    from .run import run

    raise SystemExit(run(arguments))
