"""Which features change, when questions *and* instructions are draws: the test that wording does not fool."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from workbench.base.display import Shown
from workbench.maths.crossed import crossed_test
from workbench.maths.statistics import benjamini_hochberg

from .rows import RowCodes
from .shares import Design


@dataclass(frozen=True, eq=False, repr=False)
class CrossedTests(Shown):
    """Per feature `[d_sae]`: p, and Benjamini-Hochberg q over active features; where it never fires p is 1 and q NaN.

    `question_df`, `instruction_df`: how much the features had in common, see `maths.crossed.CrossedTest`.
    """

    p_value: Tensor
    q_value: Tensor
    question_df: float
    instruction_df: float


def crossed_tests(rows: RowCodes, design: Design) -> CrossedTests | None:
    """Tests of the mean code differences over questions crossed with instructions (`maths.crossed`).

    The unit of an instruction is its pair: what its wording does in either arm counts. Rows may be missing: means are
    taken within a question and an arm first, so that a question's own level stays out of the instructions' deviations.
    None with fewer than two questions or instructions: then there is nothing to generalise from.
    """
    used = design.weights != 0
    effect_of, questions, instructions, cells = _parts(design, used)
    n_free = len(cells) - len(questions) - len(instructions) + 1
    if min(len(questions), len(instructions)) < 2 or n_free < 1:
        return None
    stacked = rows.weighted_codes(torch.cat([effect_of[None], questions, instructions, cells]))
    effect, first, second, residual = stacked.split([1, len(questions), len(instructions), len(cells)])
    found = crossed_test(effect[0], first, second, residual)
    active = (stacked != 0).any(dim=0)
    q_value = benjamini_hochberg(torch.where(active, found.p, torch.nan))
    return CrossedTests(found.p, q_value, found.question_df, found.instruction_df)


def _parts(design: Design, used: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Row weights `[n]`, `[Q, n]`, `[I, n]`, `[cells, n]` that give a code's effect, question, instruction, residual parts."""
    weights, question, instruction = design.weights, design.question, design.instruction
    by_question, by_instruction = _members(question, used), _members(instruction, used)
    by_cell = _members(question * (int(instruction.max()) + 1) + instruction, used)
    # Deviation of a row from the mean of its question and arm, times the row's weight.
    together = _members(2 * question + (weights > 0), used)
    means = together.T @ (together * weights.abs() / (together @ weights.abs())[:, None])
    deviations = weights[:, None] * (torch.eye(len(weights), dtype=torch.float64) - means)
    of_questions = by_question * weights - weights / len(by_question)
    of_instructions = by_instruction @ deviations
    part_of = by_cell @ by_instruction.T  # which instruction a cell belongs to, as rows
    share = (by_cell @ weights.abs())[:, None] * (part_of > 0) / (by_instruction @ weights.abs())
    return weights, of_questions, of_instructions, by_cell @ deviations - share @ of_instructions


def _members(codes: Tensor, used: Tensor) -> Tensor:
    """Which used rows belong to each code that a used row has: float64 `[k, n]`."""
    found, places = codes[used].unique(return_inverse=True)
    members = torch.zeros(len(found), len(codes), dtype=torch.float64)
    members[:, used] = one_hot(places, len(found)).T.double()
    return members
