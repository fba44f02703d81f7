"""Role vectors and the axis in the published tensor layout: axis.pt, and vectors/ROLE.pt for every role and the default."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from workbench.axis.roles import default_role
from workbench.axis.space.axis import AXIS
from workbench.axis.space.role_vectors import RoleVectors
from workbench.models.hookpoints import RESIDUAL_POST
from workbench.personas.formats import write_vectors
from workbench.personas.formats.layered import LayeredVectors

FORMAT = "assistant-axis"
AXIS_FILE, VECTORS = "axis.pt", "vectors"


def write_tensors(vectors: RoleVectors, folder: str | Path) -> list[Path]:
    """Write axis.pt ({"axis", "metadata", "default_mean", "role_mean"}, toward the assistant) and vectors/ROLE.pt ({"vector",
    "type", "role"}); rows are block outputs. Returns the files.

    Only hooks at block outputs are written. Source of the layout: `personas.formats.assistant_axis`.
    """
    blocks = [i for i, hook in enumerate(vectors.hooks) if hook.site == RESIDUAL_POST]
    mean, folder = vectors.means.double().mean(dim=0).float(), Path(folder)
    extras = {"default_mean": vectors.default[blocks], "role_mean": mean[blocks]}
    files = [_write(vectors, blocks, vectors.default - mean, AXIS, folder / AXIS_FILE, "dict", extras)]
    named = {**dict(zip(vectors.names, vectors.means, strict=True)), default_role().name: vectors.default}
    places = {name: folder / VECTORS / f"{name}.pt" for name in named}
    return files + [_write(vectors, blocks, rows, name, places[name], "role", {}) for name, rows in named.items()]


def _write(
    vectors: RoleVectors, blocks: list[int], rows: Tensor, name: str, path: Path, layout: str, extras: dict[str, Tensor]
) -> Path:
    layered = LayeredVectors(
        {vectors.hooks[i]: rows[i] for i in blocks}, name, vectors.model, hook=vectors.hook if layout == "dict" else None,
        extras=extras, source={"format": FORMAT, "layout": layout},
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    write_vectors(layered, path, FORMAT)
    return path
