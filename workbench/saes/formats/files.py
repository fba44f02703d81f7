"""Foreign files of SAEs, opened without executing anything, and the checks on what is inside."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.store import check_ordinary, describe_os_error, read_json
from workbench.base.untrusted import damaged, load_torch, unpacked_bytes
from workbench.models.hookpoints import HookPoint
from workbench.saes.formats.folding import Weights

HALF = (torch.float16, torch.bfloat16)
EIGHT_BIT = tuple(
    getattr(torch, name)
    for name in ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
    if hasattr(torch, name)
)
COMPRESSION = 8
"""Trained weights compress to half at best; an archive that promises far more is made to fill the memory."""
DTYPES = (torch.float32, torch.float64, *HALF, *EIGHT_BIT)


@dataclass(frozen=True, eq=False, repr=False)
class Foreign(Shown):
    """An SAE as a foreign file describes it; model and hook are None where the file does not tell.

    `dtype` is that of the stored encoder; `changed` says whether a fold changed the numbers, so that they need float32.
    """

    weights: Weights
    architecture: str
    layout: str
    files: tuple[Path, ...]
    config: dict[str, Any] = field(default_factory=dict)
    k: int | None = None
    subtract_bias: bool = True
    model: str | None = None
    hook: HookPoint | None = None
    dtype: torch.dtype = torch.float32
    changed: bool = False
    density: Tensor | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        d_sae = self.weights.encoder.shape[1]
        if self.k is not None and self.k > d_sae:
            raise WorkbenchError(
                f"{self.files[0] if self.files else 'the SAE'} lets k = {self.k} of {d_sae} features fire",
                f"k of at most {d_sae}",
                "the weights and the settings belong to different SAEs",
            )

    @property
    def storage(self) -> str:
        """The narrowest type that holds the numbers exactly: 8-bit floats fit into float16."""
        if self.changed:
            return "float32"
        if self.dtype in HALF:
            return str(self.dtype).removeprefix("torch.")
        return "float16" if self.dtype in EIGHT_BIT else "float32"


def load_pt(path: Path) -> dict[str, Any]:
    """The named contents of a PyTorch file; files that would need code, and anything but a dict, are refused."""
    try:
        with open(check_ordinary(path), "rb") as stream:
            start = stream.read(4)
    except OSError as error:
        raise describe_os_error(error, path, "read") from error
    if start != b"PK\x03\x04":
        raise WorkbenchError(
            f"{path} is not a PyTorch file of named tensors"
            + (" but a bare pickle, which can run code when it is read" if start[:1] == b"\x80" else ""),
            "a file written by torch.save of PyTorch 1.6 or newer (a zip archive)",
            "where you trust it, load it and save the tensors alone with torch.save; else download it again",
        )
    _check_archive(path, 1, "a file as torch.save writes it")  # which does not compress
    remedy = "where you trust it, load it there and save its state dict alone: torch.save(sae.state_dict(), ...)"
    value = load_torch(path, remedy=remedy)
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise WorkbenchError(
            f"{path} holds a {type(value).__name__}", "a dict of named tensors (a state dict)", "check the path"
        )
    return dict(value)


def _check_archive(path: Path, most: int, expected: str) -> None:
    """Refuse an archive that unpacks to more than `most` times its size (and a megabyte)."""
    unpacked, size = unpacked_bytes(path), path.stat().st_size
    if unpacked > most * size + (1 << 20):
        raise WorkbenchError(f"{path} unpacks from {size:,} to {unpacked:,} bytes", expected, "do not trust it")


def load_npz(path: Path) -> dict[str, Tensor]:
    """The named arrays of a .npz file as tensors; arrays that would need a pickle are refused."""
    import numpy

    _check_archive(path, COMPRESSION, f"arrays of weights, which compress at most {COMPRESSION} times")
    try:
        with numpy.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise describe_os_error(error, path, "read") from error
    except Exception as error:  # a damaged archive raises almost anything
        raise damaged(path, error) from error
    odd = sorted(name for name, array in arrays.items() if not isinstance(array, numpy.ndarray) or array.dtype.kind not in "fiu")
    if odd:
        raise WorkbenchError(f"{path} holds no numbers in {', '.join(odd)}", "arrays of numbers", "check the file")
    return {name: torch.from_numpy(array.astype(array.dtype.newbyteorder("="))) for name, array in arrays.items()}


def read_config(path: Path) -> dict[str, Any]:
    """The object in a JSON file, {} when there is no such file; anything but an object is refused."""
    if not path.is_file():
        return {}
    value = read_json(path)
    if not isinstance(value, dict):
        raise WorkbenchError(f"{path} holds a {type(value).__name__}", "a JSON object", "check the file")
    return value


def need(tensors: Mapping[str, Any], names: tuple[str, ...], path: Path, what: str) -> None:
    """Refuse a file that lacks one of the tensors `names`."""
    missing = [name for name in names if not isinstance(tensors.get(name), Tensor)]
    if missing:
        held = ", ".join(sorted(map(str, tensors))[:12]) or "nothing"
        raise WorkbenchError(
            f"{path} lacks {', '.join(missing)} (it holds {held})", f"the tensors of {what}", "check --format and the file"
        )


def checked(weights: Weights, path: Path) -> Weights:
    """`weights` in float32, with every shape agreeing with the encoder's and every number finite."""
    encoder = weights.encoder
    if encoder.ndim != 2 or 0 in encoder.shape:
        raise _shape(path, "encoder", encoder, "[d_model, d_sae]")
    d_model, d_sae = encoder.shape
    expected = {
        "encoder": (d_model, d_sae),
        "encoder_bias": (d_sae,),
        "decoder": (d_sae, d_model),
        "decoder_bias": (d_model,),
        "threshold": (d_sae,),
    }
    for name, tensor in vars(weights).items():
        if tensor is None:
            continue
        if tuple(tensor.shape) != expected[name]:
            raise _shape(path, name, tensor, f"{list(expected[name])}, from the encoder's {[d_model, d_sae]}")
        check_numbers(tensor, f"the {name.replace('_', ' ')}", path)
    return weights.single()


def check_numbers(tensor: Tensor, what: str, path: Path) -> None:
    """Refuse what is not floating-point, or not finite in float32."""
    if tensor.dtype not in DTYPES or tensor.layout is not torch.strided:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise WorkbenchError(f"{path}: {what} has the type {kind}", "floating-point numbers", "check the file")
    if not bool(torch.isfinite(tensor.float()).all()):
        raise WorkbenchError(f"{path} holds NaN or infinite values in {what}", "finite weights", "fetch it again")


def whole_number(value: Any, what: str, path: Path) -> int:
    """`value` (a number or a one-element tensor) as a positive int."""
    number = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
    known = isinstance(number, (int, float)) and not isinstance(number, bool) and math.isfinite(number)
    if not known or number != int(number) or number < 1:
        raise WorkbenchError(f"{path}: {what} is {value!r}", "a whole number of at least 1", "check the file")
    return int(number)


def _shape(path: Path, name: str, tensor: Tensor, expected: str) -> WorkbenchError:
    return WorkbenchError(
        f"{path}: the {name.replace('_', ' ')} has the shape {list(tensor.shape)}", expected, "check --format and the file"
    )
