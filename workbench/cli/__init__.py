"""The command line: parse, call, print. `main` is the entry point of the `workbench` command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

LOADING, PATIENCE = "workbench-loading", 10.0
"""The thread in which the explorer loads, and the seconds that the end of the process waits for it."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line on `arguments` (default: those of the process) and exit with its code.

    Exit codes, and no others: 0 done; 1 the answer is no, or a check failed (a bug ends so too, with its traceback); 2 bad input
    or a machine that does not let us (told on standard error, no traceback); 130 stopped by Ctrl-C; 143 by SIGTERM.
    """
    from .run import run

    _end(run(arguments))


def _end(code: int) -> NoReturn:
    """Exit with `code`. A thread that loads a model inside compiled code when the interpreter ends would abort it (SIGABRT): it
    is waited for, and left behind after PATIENCE seconds."""
    import os
    import sys
    import threading

    loading = [thread for thread in threading.enumerate() if thread.name == LOADING]
    for thread in loading:
        thread.join(timeout=PATIENCE)
    if any(thread.is_alive() for thread in loading):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise SystemExit(code)
