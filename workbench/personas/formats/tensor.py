"""One bare vector [d_model] in a .pt or .npy file: it names no place, so that the hook has to be told."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from workbench.base.errors import WorkbenchError
from workbench.personas.formats.files import Format, Opened, Parsed, as_vector, left_out, save_torch
from workbench.personas.formats.layered import LayeredVectors


def claims(opened: Opened, n_blocks: int | None) -> bool:
    """A tensor of one dimension."""
    return isinstance(opened.value, Tensor) and opened.value.ndim == 1


def read(opened: Opened) -> Parsed:
    """The vector, still without a place."""
    return Parsed({}, "vector", unplaced=as_vector(opened.value, opened.path))


def write(vectors: LayeredVectors, path: Path) -> list[str]:
    """Write the vector at the chosen (or only) hook."""
    where = vectors.hook or (vectors.hooks[0] if len(vectors.hooks) == 1 else None)
    if where is None:
        raise WorkbenchError(
            f"there are {len(vectors.hooks)} vectors and none was chosen",
            "one vector: a bare tensor holds no more",
            "choose another format, or import with --hook",
        )
    save_torch(path, vectors.at(where).clone())
    others = [hook for hook in vectors.hooks if hook != where]
    return [
        f"the file does not say that its vector is of {where}",
        *left_out(others, "a bare tensor holds one vector"),
    ]


FORMAT = Format("one bare vector [d_model], .pt or .npy", ("torch", "numpy"), claims, read, write)
