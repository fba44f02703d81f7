"""Foreign files of vectors: read without executing anything, written as their own tools read them.

    from workbench.personas.formats import read_vectors, write_vectors
    vectors = read_vectors("evil_response_avg_diff.pt", model="Qwen/Qwen2.5-7B-Instruct")
    write_vectors(vectors, "evil.gguf", "gguf")

A new format is one module with a `FORMAT` and one line in FORMATS.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.store import sha256_file
from workbench.models.hookpoints import HookPoint
from workbench.models.identity import identify
from workbench.personas.formats import (
    assistant_axis,
    control_vector,
    persona_vectors,
    saklas,
    steering_vectors,
    tensor,
)
from workbench.personas.formats.files import KINDS, Format, Opened, Parsed, listed, open_file
from workbench.personas.formats.layered import LayeredVectors, load_vectors, tensor_summary
from workbench.personas.vectors import PersonaVector

if TYPE_CHECKING:
    from workbench.models.model import Model

__all__ = ["FORMATS", "LayeredVectors", "describe_file", "load_vectors", "read_vectors", "write_vectors"]

FORMATS: dict[str, Format] = {
    "persona-vectors": persona_vectors.FORMAT,
    "assistant-axis": assistant_axis.FORMAT,
    "gguf": control_vector.FORMAT,
    "steering-vectors": steering_vectors.FORMAT,
    "saklas": saklas.FORMAT,
    "tensor": tensor.FORMAT,
}
AUTO = "auto"


def read_vectors(
    path: str | os.PathLike[str],
    format: str = AUTO,
    *,
    model: str | Model | Mapping[str, Any] | None = None,
    hook: HookPoint | str | None = None,
    trait: str | None = None,
) -> LayeredVectors:
    """The vectors in a foreign file. `format` is a name in FORMATS, or "auto".

    `model` (a name as for `load_model`, a Model, or a description) says whose vectors these are, unless the file
    does; `hook` is the place of a bare vector, or the one to use among several; `trait` is by default the file's
    own, else its name. Raises WorkbenchError for a file that cannot be told apart, is damaged, would need code to be
    read, does not fit the model, or lacks a model or a place that was not given.
    """
    path = Path(path)
    known = identify(model) if model is not None else None
    name, parsed, sha256 = _parse(path, format, (known or {}).get("n_blocks"))
    where = HookPoint.parse(hook) if hook is not None else parsed.hook
    vectors = _placed(parsed, where, path)
    described, doubts = _described(parsed, known, path)
    _check_fit(vectors, parsed, described, name, path)
    if where is None and len(vectors) == 1:
        where = next(iter(vectors))
    return LayeredVectors(
        vectors,
        trait=trait or parsed.trait or path.stem,
        model=described,
        hook=where,
        extras=parsed.extras,
        source={"format": name, "layout": parsed.layout, "file": path.name, "sha256": sha256},
        notes=(*parsed.notes, *doubts),
    )


def write_vectors(
    vectors: LayeredVectors | PersonaVector,
    path: str | os.PathLike[str],
    format: str,
    *,
    n_blocks: int | None = None,
) -> list[str]:
    """Write `vectors` to one file of `format`; returns notes on what the format could not hold.

    `n_blocks` is the model's number of blocks, for formats with a row per block, where the vectors do not know it.
    """
    chosen = _format(format)
    if chosen.write is None:
        writable = [name for name, one in FORMATS.items() if one.write]
        raise WorkbenchError(
            f"{format} is only read", f"one of {', '.join(writable)}", "choose another --format"
        )
    layered = LayeredVectors.from_persona_vector(vectors) if isinstance(vectors, PersonaVector) else vectors
    if n_blocks is not None:
        layered = dataclasses.replace(
            layered, model={**layered.model, "n_blocks": _agreed(layered, n_blocks)}
        )
    return chosen.write(layered, Path(path))


def describe_file(path: str | os.PathLike[str], format: str = AUTO) -> dict[str, Any]:
    """What a foreign file says of itself, as JSON types; no model is needed for that."""
    path = Path(path)
    name, parsed, sha256 = _parse(path, format, None)
    summary = tensor_summary(parsed.vectors, parsed.extras)
    if parsed.unplaced is not None:
        norm = float(parsed.unplaced.norm())
        summary |= {"d_model": len(parsed.unplaced), "vectors": [{"hook": None, "norm": norm}]}
    return {
        "trait": parsed.trait,
        "model": {**parsed.model, **({"n_blocks": parsed.n_blocks} if parsed.n_blocks else {})},
        "hook": None if parsed.hook is None else str(parsed.hook),
        **summary,
        "source": {"format": name, "layout": parsed.layout, "file": path.name, "sha256": sha256},
        "notes": list(parsed.notes),
    }


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise unknown_name("format", name, FORMATS)
    return FORMATS[name]


def _parse(path: Path, format: str, n_blocks: int | None) -> tuple[str, Parsed, str]:
    if format != AUTO:
        _format(format)
    opened = open_file(path)
    name = _recognised(opened, n_blocks) if format == AUTO else format
    chosen = FORMATS[name]
    if opened.kind not in chosen.kinds:
        expected = " or ".join(KINDS[kind] for kind in chosen.kinds)
        raise WorkbenchError(
            f"{path} is {KINDS[opened.kind]}",
            f"{expected}, as {name} writes",
            "choose another --format, or auto",
        )
    return name, chosen.read(opened), sha256_file(path)


def _recognised(opened: Opened, n_blocks: int | None) -> str:
    found = [
        name for name, one in FORMATS.items() if opened.kind in one.kinds and one.claims(opened, n_blocks)
    ]
    if len(found) == 1:
        return found[0]
    shape = getattr(opened.value, "shape", None)
    what = f"a bare tensor {tuple(shape)}" if shape is not None else KINDS[opened.kind]
    raise WorkbenchError(
        f"{opened.path} holds {what}: "
        + ("several formats look like that" if shape is not None else "no known format"),
        f"one of {', '.join(FORMATS)}",
        "say which with --format (one row per block: assistant-axis; one more: persona-vectors)",
    )


def _placed(parsed: Parsed, where: HookPoint | None, path: Path) -> dict[HookPoint, Any]:
    if parsed.unplaced is None:
        if where is not None and where not in parsed.vectors:
            names = [str(hook) for hook in sorted(parsed.vectors)]
            raise unknown_name(f"vector in {path.name} at the hook point", str(where), names)
        return parsed.vectors
    if where is None:
        raise WorkbenchError(
            f"{path} does not say where its vector lies",
            "a hook point, such as blocks.15.hook_resid_post",
            "say it with --hook, or with --layer (the output of that block, counted from 0)",
        )
    return {where: parsed.unplaced}


def _described(parsed: Parsed, known: dict[str, Any] | None, path: Path) -> tuple[dict[str, Any], list[str]]:
    """(the model's description, notes on what is not known of it)."""
    if known is None and "name" not in parsed.model:
        raise WorkbenchError(
            f"{path} does not say of which model its vectors are",
            "a model's name, folder, GGUF file or hub id",
            "say it with --model (Python: model=...)",
        )
    described = {"weights_hash": None, **parsed.model, **(known or {})}
    if parsed.n_blocks is not None and described.get("n_blocks") is None:
        described["n_blocks"] = parsed.n_blocks
    doubts = []
    named = parsed.model.get("name")
    if known is not None and named not in (None, known["name"]):
        doubts.append(f"the file names the model {named}")
    if described["weights_hash"] is None:
        doubts.append(
            f"the weights of {described['name']} are not on this machine: no hash, and the fit is not checked"
        )
    return described, doubts


def _check_fit(
    vectors: Mapping[HookPoint, Any], parsed: Parsed, model: Mapping[str, Any], name: str, path: Path
) -> None:
    n_blocks, d_model = model.get("n_blocks"), model.get("d_model")
    width = len(next(iter(vectors.values())))
    if d_model is not None and width != d_model:
        raise WorkbenchError(
            f"the vectors in {path} are {width} wide, {model['name']} is {d_model} wide",
            f"vectors of {model['name']}",
            "name the model they were made with (--model)",
        )
    if n_blocks is not None and parsed.n_blocks not in (None, n_blocks):
        raise WorkbenchError(
            f"read as {name}, {path} is of a model of {parsed.n_blocks} blocks; {model['name']} has {n_blocks}",
            f"a file of {model['name']}",
            "check --model, and --format: assistant-axis has one row per block, persona-vectors one more",
        )
    beyond = sorted(hook for hook in vectors if n_blocks is not None and hook.block >= n_blocks)
    if beyond:
        raise WorkbenchError(
            f"{path} has vectors at {listed(beyond)}, but {model['name']} has {n_blocks} blocks",
            f"blocks from 0 to {n_blocks - 1 if n_blocks else 0}",
            "name the model they were made with (--model)",
        )


def _agreed(vectors: LayeredVectors, n_blocks: int) -> int:
    least = max(hook.block for hook in vectors.hooks) + 1
    stated = vectors.n_blocks
    if n_blocks < least or n_blocks > 1023 or stated not in (None, n_blocks):
        said = f"the model has {stated}" if stated is not None else f"there is a vector at block {least - 1}"
        raise WorkbenchError(
            f"--blocks is {n_blocks}, and {said}", f"at least {stated or least}", "leave it out"
        )
    return n_blocks
