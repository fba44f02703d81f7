"""Tensors on disk: safetensors beside a JSON document, written atomically, versioned, checked on reading."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save, save_file
from torch import Tensor

from .errors import WorkbenchError
from .store import (
    PathLike,
    atomic_path,
    check_ordinary,
    describe_os_error,
    no_memory,
    plain,
    read_json,
    sha256_file,
    write_json,
)

Migration = Callable[[dict, dict[str, Tensor]], tuple[dict, dict[str, Tensor]]]
AT_ONCE = 256 << 20
"""Bytes of tensors up to which a file is made in memory and written by us. safetensors writes a file of its own first, beside
ours and under a name that nobody knows: a process that is killed meanwhile leaves it there."""
_MIGRATIONS: dict[tuple[str, int], Migration] = {}


def save_tensors(path: PathLike, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Path:
    """Write named tensors (and string `metadata`) to one safetensors file, atomically."""
    # safetensors refuses views that share memory; a contiguous copy of each row of the mapping never does.
    owned = {name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in tensors.items()}
    told = dict(metadata) if metadata else None
    with atomic_path(path) as temporary:
        try:
            if sum(tensor.nbytes for tensor in owned.values()) <= AT_ONCE:
                temporary.write_bytes(save(owned, metadata=told))
            else:
                save_file(owned, str(temporary), metadata=told)
        except SafetensorError as error:  # safetensors wraps the operating system's error in its own
            raise _as_os_error(error, path) from error
    return Path(path)


def _as_os_error(error: SafetensorError, path: PathLike) -> WorkbenchError:
    text = str(error)
    reason = "the disk is full" if "os error 28" in text or "No space" in text else text
    return WorkbenchError(
        f"cannot write {Path(path)}: {reason}", "a place that can be used", "free some space, or choose another folder with --out"
    )


def load_tensors(path: PathLike) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU; a missing or corrupt file is a WorkbenchError."""
    return _read(path)[0]


def load_metadata(path: PathLike) -> dict[str, str]:
    """The string metadata of a safetensors file (empty when it has none)."""
    try:
        with safe_open(str(check_ordinary(path)), framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError, MemoryError) as error:
        raise _unreadable(path, error) from error


def _read(path: PathLike) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(str(check_ordinary(path)), framework="pt") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except (SafetensorError, OSError, MemoryError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: PathLike, error: Exception) -> WorkbenchError:
    if isinstance(error, MemoryError):
        return no_memory(path)
    if isinstance(error, OSError):
        return describe_os_error(error, path, "read") if error.errno else _missing(path)
    return WorkbenchError(
        f"{Path(path)} is not a readable safetensors file ({error})",
        "a complete safetensors file",
        "delete it and run the command that wrote it again",
    )


def _missing(path: PathLike) -> WorkbenchError:
    return WorkbenchError(f"cannot read {Path(path)}: no such file or folder", "a safetensors file", "check the path")


def tensor_hash(value: Tensor | Mapping[str, Tensor]) -> str:
    """SHA-256 over dtype, shape and contiguous bytes; of a mapping, over its names in sorted order too."""
    digest = hashlib.sha256()
    named = sorted(value.items()) if isinstance(value, Mapping) else [("", value)]
    for name, tensor in named:
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        flat = tensor.detach().to("cpu").contiguous().reshape(-1)
        if flat.numel():  # numpy knows no bfloat16: hash the raw bytes
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_artifact(
    folder: PathLike, kind: str, schema: int, document: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> Path:
    """Write `<folder>/<kind>.safetensors`, then `<folder>/<kind>.json`, which commits the pair by its hash.

    The document is stored with the fields `kind`, `schema` and `tensors_sha256` added. Returns the JSON's path.
    """
    folder = Path(folder)
    stored = save_tensors(folder / f"{kind}.safetensors", tensors)
    header = {"kind": kind, "schema": schema, "tensors_sha256": sha256_file(stored)}
    return write_json(folder / f"{kind}.json", {**header, **plain(document), **header})


def load_artifact(folder: PathLike, kind: str, schema: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(document, tensors) of an artefact, its hash verified and old schemas migrated up to `schema`.

    Raises WorkbenchError for a missing or corrupt file, another kind, a hash that does not match, or a newer schema.
    """
    document_path, tensors_path = Path(folder) / f"{kind}.json", Path(folder) / f"{kind}.safetensors"
    document = read_json(document_path)
    if not isinstance(document, dict) or document.get("kind") != kind:
        raise WorkbenchError(
            f"{document_path} does not describe a {kind}", f'a document with "kind": "{kind}"', "check the folder"
        )
    tensors = load_tensors(tensors_path)
    if sha256_file(tensors_path) != document.get("tensors_sha256"):
        raise WorkbenchError(
            f"{tensors_path} does not match the hash in {document_path.name}",
            "the two files of one saved artefact",
            "restore the pair, or run the command that wrote it again",
        )
    return _migrate(kind, schema, document, tensors)


def register_migration(kind: str, from_schema: int, fn: Migration) -> None:
    """Register `fn(document, tensors) -> (document, tensors)`, which lifts `kind` from `from_schema` to the next."""
    if (kind, from_schema) in _MIGRATIONS and _MIGRATIONS[kind, from_schema] is not fn:
        raise AssertionError(f"two migrations for {kind} from schema {from_schema}")
    _MIGRATIONS[kind, from_schema] = fn


def _migrate(
    kind: str, schema: int, document: dict[str, Any], tensors: dict[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    found = int(document.get("schema", 0))
    if found > schema:
        raise WorkbenchError(
            f"this {kind} has schema {found}", f"schema {schema} or older", "install a newer persona-workbench"
        )
    for step in range(found, schema):
        if (kind, step) not in _MIGRATIONS:
            raise WorkbenchError(
                f"this {kind} has schema {found} and nothing lifts it from {step}", f"schema {schema}", "make it again"
            )
        document, tensors = _MIGRATIONS[kind, step](document, tensors)
        document = {**document, "schema": step + 1}
    return document, tensors
