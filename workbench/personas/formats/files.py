"""Files of vectors, opened without executing anything, and the checks on what is inside."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.store import atomic_write, check_ordinary, describe_os_error
from workbench.base.tensors import load_tensors
from workbench.base.untrusted import damaged, load_torch, unpacked_bytes
from workbench.models.hookpoints import HookPoint
from workbench.personas.formats.layered import LayeredVectors

MAX_BYTES = 1 << 31
MAX_ROWS, MAX_WIDTH = 1024, 1 << 18
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
KINDS = {
    "torch": "a PyTorch file (.pt)",
    "gguf": "a GGUF file",
    "safetensors": "a safetensors file",
    "numpy": "a .npy file",
}


@dataclass(frozen=True)
class Opened:
    """A file with its kind (one of KINDS) and contents: an object, named tensors, a tensor; for GGUF the bytes."""

    path: Path
    kind: str
    value: Any


@dataclass(frozen=True, eq=False, repr=False)
class Parsed(Shown):
    """What a reader found in a file. `n_blocks` is what the shape says; `unplaced` a vector [d_model] of unknown hook.

    `model` holds what the file itself says of its model (name, weights_hash), often nothing.
    """

    vectors: dict[HookPoint, Tensor]
    layout: str
    n_blocks: int | None = None
    unplaced: Tensor | None = None
    extras: dict[str, Tensor] = field(default_factory=dict)
    trait: str | None = None
    model: dict[str, Any] = field(default_factory=dict)
    hook: HookPoint | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """How one format is recognised, read and written; `write` is None for formats that are only read.

    `claims(opened, n_blocks)` says whether the file is of this format without doubt (n_blocks of the model, None if
    unknown). `write(vectors, path)` returns notes: what the format could not hold.
    """

    title: str
    kinds: tuple[str, ...]
    claims: Callable[[Opened, int | None], bool]
    read: Callable[[Opened], Parsed]
    write: Callable[[LayeredVectors, Path], list[str]] | None = None


class SteeringVectorState:
    """Stands in for steering_vectors' SteeringVector in a pickle: it takes the attributes and has no code."""

    layer_activations: Any = None
    layer_type: Any = "decoder_block"


_STAND_INS: list[Any] = [(SteeringVectorState, "steering_vectors.steering_vector.SteeringVector")]


def open_file(path: Path) -> Opened:
    """The contents of `path`, its kind told by its first bytes; files above 2 GiB and unknown kinds are refused."""
    try:
        size = check_ordinary(path).stat().st_size
        with open(path, "rb") as stream:
            start = stream.read(16)
    except OSError as error:
        raise describe_os_error(error, path, "read") from error
    if size > MAX_BYTES:
        raise _too_large(path, size)
    kind = _kind(start)
    if kind is None:
        raise _unknown_kind(path, start)
    return Opened(path, kind, _OPENERS[kind](path))


def _kind(start: bytes) -> str | None:
    if start.startswith(b"PK\x03\x04"):
        return "torch"
    if start.startswith(b"GGUF"):
        return "gguf"
    if start.startswith(b"\x93NUMPY"):
        return "numpy"
    return "safetensors" if start[8:9] == b"{" else None


def _unknown_kind(path: Path, start: bytes) -> WorkbenchError:
    if start[:1] == b"\x80":
        return WorkbenchError(
            f"{path} is a bare pickle, which can run code when it is read",
            "a PyTorch file in the format of PyTorch 1.6 or newer (a zip archive)",
            "where you trust it, load it and save the tensors alone with torch.save",
        )
    return WorkbenchError(
        f"{path} starts with {start[:4]!r}: no known kind of file",
        f"one of {', '.join(KINDS.values())}",
        "check the path, or download the file again",
    )


def _too_large(path: Path, size: int) -> WorkbenchError:
    return WorkbenchError(
        f"{path} holds {size / 2**30:.1f} GiB",
        f"at most {MAX_BYTES / 2**30:.0f} GiB of vectors",
        "check the file",
    )


def _open_torch(path: Path) -> Any:
    if (unpacked := unpacked_bytes(path)) > MAX_BYTES:
        raise _too_large(path, unpacked)
    remedy = "where you trust it, load it there and save its tensors alone: torch.save({'axis': tensor}, ...)"
    return load_torch(path, stand_ins=_STAND_INS, remedy=remedy)


def _open_numpy(path: Path) -> Tensor:
    import numpy

    try:  # mapped: a header that claims more than the file holds is refused before anything is allocated
        mapped = numpy.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged header raises almost anything
        raise damaged(path, error) from error
    if mapped.dtype.kind != "f" or mapped.dtype.itemsize > 8:
        raise _wrong(path, f"numbers of the type {mapped.dtype}", "floating-point numbers")
    return torch.from_numpy(numpy.array(mapped, dtype=mapped.dtype.newbyteorder("=")))


def _open_gguf(path: Path) -> bytes:
    return path.read_bytes()


_OPENERS: dict[str, Callable[[Path], Any]] = {
    "torch": _open_torch,
    "gguf": _open_gguf,
    "numpy": _open_numpy,
    "safetensors": load_tensors,
}


# Checks


def _wrong(path: Path, found: str, expected: str) -> WorkbenchError:
    return WorkbenchError(f"{path}: {found}", expected, "check that the file is of the format that was named")


def as_matrix(value: Any, path: Path, what: str = "the tensor") -> Tensor:
    """`value` as float32 [n, d]: finite numbers of at most 1024 rows; everything else is a WorkbenchError."""
    return _checked(value, path, what, n_dims=2)


def as_vector(value: Any, path: Path, what: str = "the tensor") -> Tensor:
    """`value` as float32 [d], of finite numbers; leading dimensions of size 1 are dropped."""
    if isinstance(value, Tensor) and value.ndim > 1 and value.numel() == value.shape[-1]:
        value = value.reshape(-1) if value.layout is torch.strided else value
    return _checked(value, path, what, n_dims=1)


def _checked(value: Any, path: Path, what: str, *, n_dims: int) -> Tensor:
    wanted = "a floating-point tensor " + ("[n, d_model]" if n_dims == 2 else "[d_model]")
    if not isinstance(value, Tensor):
        raise _wrong(path, f"{what} is a {type(value).__name__}", wanted)
    if value.layout is not torch.strided or value.is_quantized or value.device.type != "cpu":
        raise _wrong(path, f"{what} is sparse, quantised or has no data", wanted)
    if value.dtype not in DTYPES:
        raise _wrong(path, f"{what} has the type {str(value.dtype).removeprefix('torch.')}", wanted)
    shape = tuple(value.shape)
    if len(shape) != n_dims or 0 in shape:
        raise _wrong(path, f"{what} has the shape {shape}", wanted)
    if shape[-1] > MAX_WIDTH or (n_dims == 2 and shape[0] > MAX_ROWS):
        raise _wrong(
            path, f"{what} has the shape {shape}", f"at most {MAX_ROWS} rows of at most {MAX_WIDTH} numbers"
        )
    plain = value.detach().to(torch.float32).contiguous().clone()
    if not bool(torch.isfinite(plain).all()):
        raise _wrong(path, f"{what} holds NaN or infinity (in float32)", "finite numbers")
    return plain


def placed_rows(rows: Mapping[HookPoint, Tensor], path: Path) -> tuple[dict[HookPoint, Tensor], list[str]]:
    """(the rows that are not all zero, notes): exporters leave zeros where they have no vector."""
    kept = {hook: row for hook, row in rows.items() if bool(row.any())}
    if not kept:
        raise _wrong(path, "every row is zero", "at least one vector")
    absent = [hook for hook in rows if hook not in kept]
    return kept, [f"rows of zeros were left out: {listed(absent)}"] if absent else []


def block_outputs(
    tensors: Mapping[int, Any], path: Path, site: str = "hook_resid_post"
) -> dict[HookPoint, Tensor]:
    """{block: tensor} as vectors at `site`; raises WorkbenchError for block numbers below 0 or above 1023."""
    for number in tensors:
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < MAX_ROWS:
            raise _wrong(path, f"the layer {number!r}", f"blocks counted from 0, below {MAX_ROWS}")
    found = {HookPoint(n, site): as_vector(t, path, f"layer {n}") for n, t in tensors.items()}
    if len({len(vector) for vector in found.values()}) != 1:
        widths = sorted({len(vector) for vector in found.values()})
        raise _wrong(path, f"vectors of the widths {widths}", "at least one vector, all of one width")
    return found


# Writing


def save_torch(path: Path, value: Any) -> None:
    """Write `value` with torch.save, atomically; equal values give equal bytes."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    atomic_write(path, buffer.getvalue())


def fill_rows(rows: Mapping[int, Tensor], n_rows: int) -> tuple[Tensor, list[str]]:
    """(tensor [n_rows, d_model], notes), zeros where there is no vector."""
    width = len(next(iter(rows.values())))
    table = torch.zeros(n_rows, width)
    for number, row in rows.items():
        table[number] = row
    empty = n_rows - len(rows)
    return table, [f"{empty} of {n_rows} rows are zeros: no vector is known there"] if empty else []


def known_blocks(vectors: LayeredVectors, name: str) -> int:
    """The number of blocks of the vectors' model; a format of one row per block cannot be written without it."""
    if vectors.n_blocks is None:
        raise WorkbenchError(
            f"how many blocks {vectors.model.get('name')} has is not known",
            f"the number of blocks: {name} files have one row for each",
            "say it with --blocks (Python: n_blocks=...)",
        )
    return vectors.n_blocks


def listed(hooks: Iterable[HookPoint]) -> str:
    """Hook points as text, at most four of them."""
    names = [str(hook) for hook in hooks]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def left_out(hooks: Iterable[HookPoint], why: str) -> list[str]:
    """The note on hook points that a format cannot hold; empty when there are none."""
    names = list(hooks)
    return [f"left out: {listed(names)} ({why})"] if names else []


def nothing_to_write(vectors: LayeredVectors, name: str) -> WorkbenchError:
    """The error for vectors of which the format can hold none."""
    return WorkbenchError(
        f"none of the hook points ({listed(vectors.hooks)}) fits {name}",
        "at least one vector that the format can hold",
        "choose another format",
    )
