"""From arguments to an exit code: every error of a user becomes a message, every interruption a line on resuming."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from workbench.base.errors import WorkbenchError

from .console import ReaderGone

# What an operating system refuses for reasons outside our code; any other OSError is a bug and keeps its traceback.
_ENVIRONMENTAL = {errno.ENOSPC, errno.EACCES, errno.EPERM, errno.EROFS, getattr(errno, "EDQUOT", -1)}

DONE, NO, BAD_INPUT, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
_arguments: list[str] = []


class _Terminated(BaseException):
    """SIGTERM, as an exception: locks are given back and half-written files removed on the way out."""


def run(arguments: Sequence[str] | None = None) -> int:
    """The exit code of the command line on `arguments`; see `workbench.cli.main` for the codes."""
    global _arguments
    _calm_libraries()
    _arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with _terminable():
            return _invoke(_arguments)
    except WorkbenchError as error:
        return _refuse(error)
    except KeyboardInterrupt:
        return _stopped(INTERRUPTED)
    except _Terminated:
        return _stopped(TERMINATED)
    except (BrokenPipeError, ReaderGone):  # who read our output has what they wanted, as in `workbench traits list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        if error.errno not in _ENVIRONMENTAL:
            raise
        from workbench.base.store import describe_os_error

        return _refuse(describe_os_error(error, error.filename or "a file"))
    finally:
        _arguments = []


def command_line() -> list[str]:
    """The arguments of the command that runs (empty in a program that calls no command)."""
    return list(_arguments)


def _invoke(arguments: list[str]) -> int:
    import typer

    from .app import app

    try:
        code = app(args=arguments, prog_name="workbench", standalone_mode=False)
    except typer.Abort:  # what older versions of typer make of Ctrl-C
        raise KeyboardInterrupt from None
    except _click_exception() as error:
        error.show()
        return BAD_INPUT
    if code == INTERRUPTED:  # and what newer ones make of it
        raise KeyboardInterrupt
    if sys.stdout is not None:
        sys.stdout.flush()  # here, where a reader that went away is no error, and not when the interpreter ends
    return code if isinstance(code, int) else DONE


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Within the block SIGTERM raises; only the main thread may say so."""

    def terminate(*_: Any) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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


def _stopped(code: int) -> int:
    print("\nStopped. What was finished is kept: run the same command again and it goes on from there.", file=sys.stderr)
    return code
