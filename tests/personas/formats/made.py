"""Small seeded vectors in every format's layout, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from workbench.models.hookpoints import HookPoint
from workbench.personas.formats import LayeredVectors

N_BLOCKS, D_MODEL = 4, 6
MODEL: dict[str, Any] = {
    "name": "tiny",
    "weights_hash": "ab" * 32,
    "n_blocks": N_BLOCKS,
    "d_model": D_MODEL,
    "model_type": "llama",
}


def matrix(n_rows: int, d_model: int = D_MODEL, seed: int = 0) -> torch.Tensor:
    return torch.randn(n_rows, d_model, generator=torch.Generator().manual_seed(seed))


def layered(*hooks: HookPoint, **more: Any) -> LayeredVectors:
    """Vectors at the outputs of all blocks, or at `hooks`."""
    where = hooks or tuple(HookPoint(block) for block in range(N_BLOCKS))
    rows = matrix(len(where))
    return LayeredVectors(
        dict(zip(where, rows, strict=True)), "evil", {**MODEL, **more.pop("model", {})}, **more
    )


def saved(path: Path, value: Any) -> Path:
    torch.save(value, path)
    return path
