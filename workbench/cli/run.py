"""From arguments to an exit code: every error of a user becomes a message, every interruption a line on resuming."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import Any

from workbench.base.errors import WorkbenchError

# What an operating system refuses for reasons outside our code; any other OSError is a bug and keeps its traceback.
_ENVIRONMENTAL = {errno.ENOSPC, errno.EACCES, errno.EPERM, errno.EROFS, getattr(errno, "EDQUOT", -1)}


INTERRUPTED = 130


def run(arguments: Sequence[str] | None = None) -> int:
    """The exit code of the command line on `arguments`; see `workbench.cli.main` for the codes."""
    _calm_libraries()
    try:
        return _invoke(list(sys.argv[1:] if arguments is None else arguments))
    except WorkbenchError as error:
        return _refuse(error)
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:  # the reader of our output went away, as in `workbench traits list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in _ENVIRONMENTAL:
            raise
        from workbench.base.store import describe_os_error

        return _refuse(describe_os_error(error, error.filename or "a file"))


def _invoke(arguments: list[str]) -> int:
    import typer

    from .app import app

    try:
        code = app(args=arguments, prog_name="workbench", standalone_mode=False)
    except typer.Abort:  # what older versions of typer make of Ctrl-C
        raise KeyboardInterrupt from None
    except _click_exception() as error:
        error.show()
        return error.exit_code
    if code == INTERRUPTED:  # and what newer ones make of it
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0


def _click_exception() -> Any:
    """ClickException, from click itself or from the copy that newer versions of typer carry and do not export."""
    import typer

    return next(cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException")


def _calm_libraries() -> None:
    """Keep third-party notices, telemetry and bars out of the way unless the user asked for them."""
    for name, value in {
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "WANDB_MODE": "disabled",
    }.items():
        os.environ.setdefault(name, value)


def _refuse(error: WorkbenchError) -> int:
    from .console import print_error

    print_error(error)
    return error.exit_code


def _interrupted() -> int:
    print(
        "\nStopped. What was finished is kept: run the same command again and it goes on from there.",
        file=sys.stderr,
    )
    return INTERRUPTED
