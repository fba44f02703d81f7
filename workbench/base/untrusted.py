"""Files that somebody else wrote or spoilt: PyTorch files and zip archives opened without running what is in them, and what a
sound file's contents lack told as damage."""

from __future__ import annotations

import functools
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from .errors import WorkbenchError
from .store import check_ordinary

P = ParamSpec("P")
T = TypeVar("T")
MISFITS = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError)
"""What putting a value together from parsed contents raises when a field is missing or of another type."""


def refuses_damage(load: Callable[P, T]) -> Callable[P, T]:
    """For functions that put a value together from a file or folder, their first path: a field that is missing or of another type
    is a WorkbenchError that names the file, and no KeyError."""

    @functools.wraps(load)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return load(*args, **kwargs)
        except MISFITS as error:
            path = next((str(one) for one in (*args, *kwargs.values()) if isinstance(one, (str, os.PathLike))), None)
            if path is None:  # no file was named: the call itself is wrong
                raise
            raise damaged(Path(path), error) from error

    return checked


def check_types(document: Mapping[str, Any], **kinds: type | tuple[type, ...]) -> None:
    """Raise TypeError (damage, under `refuses_damage`) for a field of `document` that is of none of the types given for it."""
    for name, kind in kinds.items():
        if not isinstance(document[name], kind):
            raise TypeError(f"{name} is {str(document[name])[:60]!r}")


def unpacked_bytes(path: Path) -> int:
    """The size that a zip archive says it unpacks to; a file that is none is damaged."""
    try:
        with zipfile.ZipFile(check_ordinary(path)) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise damaged(path, error) from error


def load_torch(path: Path, *, stand_ins: Sequence[Any] = (), remedy: str) -> Any:
    """The value in a PyTorch file, read with `weights_only`; check `unpacked_bytes` first.

    `stand_ins` are classes of ours that take the place of the file's. A file that needs more code than that is refused, with
    `remedy` as the way out.
    """
    import torch

    try:
        with torch.serialization.safe_globals(list(stand_ins)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive raises almost anything
        if type(error).__name__ == "UnpicklingError":
            raise _needs_code(path, error, remedy) from error
        raise damaged(path, error) from error


def _needs_code(path: Path, error: Exception, remedy: str) -> WorkbenchError:
    told = str(error).split("WeightsUnpickler error:")[-1].strip().splitlines()
    reason = next((line.strip() for line in told if line.strip()), "unsupported contents")[:200]
    return WorkbenchError(
        f"{path} needs more than tensors and plain values ({reason})",
        "a file that can be read without running code",
        remedy,
    )


def damaged(path: Path, error: Exception) -> WorkbenchError:
    """The error for a file that cannot be read to its end."""
    said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    reason = f"no {said}" if isinstance(error, KeyError) else said
    return WorkbenchError(f"{path} is damaged ({reason})", "a complete file", "download or write it again")
