"""A GGUF file's keys and tensor places, read with bounds on everything: a damaged header is an error, never a hang."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path
from typing import Any

from ..base.errors import WorkbenchError

_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_MAX_ENTRIES, _MAX_TEXT = 1 << 14, 1 << 20


@dataclass(frozen=True)
class TensorPlace:
    """A tensor's shape, its ggml type number, and where its bytes start in the file."""

    shape: tuple[int, ...]
    type: int
    start: int


@dataclass
class _Cursor:
    data: bytes | mmap
    at: int = 0

    def take(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return value

    def count(self, most: int) -> int:
        number = self.take("Q")
        if number > min(most, len(self.data)):
            raise ValueError(f"a length of {number}")
        return number

    def text(self) -> str:
        length = self.count(_MAX_TEXT)
        if self.at + length > len(self.data):
            raise ValueError("a text that goes past the end")
        self.at += length
        return self.data[self.at - length : self.at].decode("utf-8")

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY and depth < 3:
            inner, length = self.take("I"), self.count(len(self.data))
            return [self.value(inner, depth + 1) for _ in range(length)]
        if kind not in _SCALARS:
            raise ValueError(f"a value of the type {kind}")
        return self.take(_SCALARS[kind])


def read_header(data: bytes | mmap, path: Path) -> tuple[dict[str, Any], dict[str, TensorPlace]]:
    """({key: value}, {tensor name: place}) of a little-endian GGUF file of version 2 or 3.

    Raises WorkbenchError for other versions, repeated names, and whatever does not fit into the file.
    """
    try:
        return _parse(_Cursor(data, 4))
    except (struct.error, ValueError, UnicodeDecodeError) as error:
        raise WorkbenchError(
            f"{path} is no complete GGUF file ({error})",
            "a GGUF file of version 2 or 3",
            "write or download it again",
        ) from error


def _parse(cursor: _Cursor) -> tuple[dict[str, Any], dict[str, TensorPlace]]:
    version = cursor.take("I")
    if version not in (2, 3):
        raise ValueError(f"version {version}")
    n_tensors, n_keys = cursor.count(_MAX_ENTRIES), cursor.count(_MAX_ENTRIES)
    keys: dict[str, Any] = {}
    for _ in range(n_keys):
        name = cursor.text()
        keys[name] = cursor.value(cursor.take("I"))
    infos: dict[str, TensorPlace] = {}
    for _ in range(n_tensors):
        name, n_dims = cursor.text(), cursor.take("I")
        if name in infos or n_dims > 4:
            raise ValueError(f"the tensor {name!r} twice, or of {n_dims} dimensions")
        shape = tuple(cursor.take("Q") for _ in range(n_dims))
        infos[name] = TensorPlace(shape, cursor.take("I"), cursor.take("Q"))
    return keys, _placed(cursor, keys, infos)


def _placed(cursor: _Cursor, keys: dict[str, Any], infos: dict[str, TensorPlace]) -> dict[str, TensorPlace]:
    alignment = keys.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= 1 << 16:
        raise ValueError(f"an alignment of {alignment}")
    start = math.ceil(cursor.at / alignment) * alignment
    return {name: TensorPlace(info.shape, info.type, start + info.start) for name, info in infos.items()}
