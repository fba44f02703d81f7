"""Surrogate monitoring, measured: another model reads the replies and projects them on its own vector of the trait.

For a model behind an API nobody sees activations, but its text can be read by a local one. What that costs is told on the same
replies: AUROC of the reader, of the writer's own activations (with its system prompt in context, and read again without it, which
is all that the reader knows), and of the text alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.randomness import derive_seed
from workbench.maths.separation import balanced_contrast_weights
from workbench.personas.separability import Cell, Rows, division_cells, kept_rows
from workbench.steering.monitor.detection import Examples, compare, vector_scores, words_scores


@dataclass(frozen=True, eq=False, repr=False)
class Reader(Shown):
    """The reading model: `rows` of its own rollouts (instructions in the writer's codes) with their means [n, d_reader], which
    make its vector, and its mean activations [n_score, d_reader] over the writer's replies, without the writer's system
    prompt."""

    rows: Rows
    means: Tensor
    read: Tensor


def surrogate(
    make: Examples, score: Examples, stripped: Tensor, reader: Reader, n_instructions: int, *, seed: int = 0
) -> dict[str, Any]:
    """{arm, judge}: `detection.compare` of own, own_without_system, reader and text against own, as in `detection`.

    stripped: the writer's own mean activations [n_score, d_model] of the scored replies, read without the system prompt. In each
    division the reader's vector is made from its rollouts under the same instructions as the writer's.
    """
    cells = division_cells(make.rows, score.rows, n_instructions)

    def own_stripped(made: Examples, rows: Tensor, targets: Tensor, scored: Examples) -> Tensor:
        bare = Examples(scored.rows, stripped, scored.codes, scored.texts, scored.lengths, scored.label)
        return vector_scores(made, rows, targets, bare)

    def read(made: Examples, rows: Tensor, _targets: Tensor, _scored: Examples) -> Tensor:
        return reader.read.double() @ reader_direction(reader, made.rows.instruction[rows].unique())

    fits = {"own": vector_scores, "own_without_system": own_stripped, "reader": read, "text": words_scores}
    sides = {"arm": (make.rows.positive.double(), score.rows.positive.double()), "judge": (make.label, score.label)}
    return {
        target: compare(fits, make, score, cells, *both, base="own", seed=derive_seed("surrogate", target, seed))
        for target, both in sides.items()
    }


def reader_direction(reader: Reader, instructions: Tensor) -> Tensor:
    """The reader's vector [d_reader] (float64) from its rollouts under these instructions, toward the trait."""
    inside = torch.isin(reader.rows.instruction, instructions)
    base = (inside * kept_rows(reader.rows, Cell(inside, inside)))[None].double()
    return balanced_contrast_weights(reader.rows.question, reader.rows.positive, base)[0] @ reader.means.double()
