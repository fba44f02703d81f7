"""persona_vectors: a bare float tensor [n_blocks + 1, d_model], one row per row of transformers' `hidden_states`.

Row 0 is the input of block 0, row l the output of block l - 1, and the last row is taken after the final norm: it is
kept as the extra `ln_final`. Source: generate_vec.py of safety-research/persona_vectors.
"""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from workbench.base.errors import WorkbenchError
from workbench.models.hookpoints import HookPoint, from_persona_vectors_row, persona_vectors_row
from workbench.personas.formats.files import (
    Format,
    Opened,
    Parsed,
    as_matrix,
    fill_rows,
    known_blocks,
    left_out,
    nothing_to_write,
    placed_rows,
    save_torch,
)
from workbench.personas.formats.layered import LayeredVectors

_NAME = re.compile(r"(.+)_(prompt_avg|response_avg|prompt_last)_diff")
FINAL = "ln_final"


def claims(opened: Opened, n_blocks: int | None) -> bool:
    """A bare matrix with a row more than the model has blocks, or named as persona_vectors names its files."""
    if not isinstance(opened.value, Tensor) or opened.value.ndim != 2:
        return False
    if n_blocks is not None:
        return len(opened.value) == n_blocks + 1
    return _NAME.fullmatch(opened.path.stem) is not None


def read(opened: Opened) -> Parsed:
    """The rows as block inputs and outputs, the last one apart; the trait from the file's name."""
    table = as_matrix(opened.value, opened.path)
    n_blocks = len(table) - 1
    if n_blocks < 1:
        raise WorkbenchError(
            f"{opened.path} has one row", "at least two rows, [n_blocks + 1, d_model]", "name another format"
        )
    rows = {from_persona_vectors_row(row, n_blocks=n_blocks): table[row].clone() for row in range(n_blocks)}
    vectors, notes = placed_rows(rows, opened.path)
    last = table[n_blocks].clone()
    named = _NAME.fullmatch(opened.path.stem)
    return Parsed(
        vectors,
        layout=named[2] if named else "matrix",
        n_blocks=n_blocks,
        extras={FINAL: last} if bool(last.any()) else {},
        trait=named[1] if named else None,
        notes=(
            *notes,
            f"the last row (after the final norm) is kept as {FINAL}; {HookPoint(n_blocks - 1)} has no row",
        ),
    )


def write(vectors: LayeredVectors, path: Path) -> list[str]:
    """Write the matrix; the last row is `ln_final` when it is known, else zeros."""
    n_blocks = known_blocks(vectors, "persona_vectors")
    rows, outside = {}, []
    for hook, vector in vectors.vectors.items():
        try:
            rows[persona_vectors_row(hook, n_blocks=n_blocks)] = vector
        except WorkbenchError:
            outside.append(hook)
    if not rows:
        raise nothing_to_write(vectors, "persona_vectors")
    if FINAL in vectors.extras:
        rows[n_blocks] = vectors.extras[FINAL]
    table, notes = fill_rows(rows, n_blocks + 1)
    save_torch(path, table)
    return notes + left_out(outside, "the file has rows for the residual stream up to the last block's input")


FORMAT = Format("persona_vectors .pt: [n_blocks + 1, d_model]", ("torch",), claims, read, write)
