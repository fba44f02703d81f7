"""Crossed tests of mean codes, against plain recomputation from the cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from scipy import sparse

from tests.decomposition.planted_world import DOWN, UP, World, read
from workbench.decomposition.crossed import crossed_tests
from workbench.decomposition.rows import RowCodes
from workbench.decomposition.shares import Design
from workbench.maths.crossed import crossed_test

Planted = Callable[..., World]


def noisy(rows: RowCodes, *, wording: float = 0.0, design: Design, seed: int = 0) -> RowCodes:
    """The rows with noise of their own in every feature, and a shift for the wording of each arm and instruction."""
    rng = np.random.default_rng(seed)
    arm = (design.weights > 0).long().numpy()
    shift = wording * rng.standard_normal((2, 5, rows.d_sae))[arm, design.instruction.numpy()]
    return replace(rows, codes=sparse.csc_matrix(rows.codes.toarray() + rng.standard_normal(rows.codes.shape) + shift))


def test_with_all_rows_it_is_the_test_of_the_cell_differences(planted: Planted) -> None:
    rows, design = read(planted(spread=1.0))
    rows = noisy(rows, design=design, wording=0.5)
    frame = planted().vector.rows
    codes = torch.from_numpy(rows.codes.toarray()).double()
    d = torch.zeros(10, 5, rows.d_sae, dtype=torch.float64)
    for i, row in enumerate(frame.itertuples()):
        side = {"positive": 1, "negative": -1, "neutral": 0}[str(row.arm)]
        d[int(str(row.question_id)[1:]), int(str(row.instruction_id)[1:])] += side * codes[i]
    effect, by_question, by_instruction = d.mean((0, 1)), d.mean(1), d.mean(0)
    residual = d - by_question[:, None] - by_instruction[None] + effect
    plain = crossed_test(
        effect, (by_question - effect) / 10, (by_instruction - effect) / 5, residual.flatten(0, 1) / 50
    )
    found = crossed_tests(rows, design)
    assert found is not None
    torch.testing.assert_close(found.p_value, plain.p, atol=1e-6, rtol=1e-4)


def test_planted_changes_are_found_whatever_the_wording_does_and_little_else(planted: Planted) -> None:
    rows, design = read(planted(up={f: 4 * c for f, c in UP.items()}, down={f: 4 * c for f, c in DOWN.items()}))
    found = crossed_tests(noisy(rows, design=design, wording=0.5, seed=1), design)
    assert found is not None
    called = set((found.q_value <= 0.05).nonzero()[:, 0].tolist())
    assert set(UP) | set(DOWN) <= called and len(called) <= len(set(UP) | set(DOWN)) + 2


def test_missing_rows_do_not_let_the_level_of_a_question_in(planted: Planted) -> None:
    """Questions differ a lot, and one arm lacks rows of some: the difference is still tested at its level."""
    dropped = tuple(range(0, 150, 7))
    rows, design = read(planted(up={}, down={}, drop=dropped))
    levels = 5 * np.random.default_rng(3).standard_normal((10, rows.d_sae))[design.question.numpy()]
    rates = []
    for seed in range(20):
        shifted = noisy(rows, design=design, seed=seed)
        found = crossed_tests(replace(shifted, codes=sparse.csc_matrix(shifted.codes.toarray() + levels)), design)
        assert found is not None
        rates.append((found.p_value <= 0.05).double().mean().item())
    assert sum(rates) / 20 < 0.09  # 400 tests: .05 + 3 sd of .011


def test_silent_features_are_not_tested_and_one_instruction_tests_nothing(planted: Planted) -> None:
    rows, design = read(planted(spread=1.0))
    silent = rows.codes.toarray()
    silent[:, 4] = 0
    found = crossed_tests(replace(rows, codes=sparse.csc_matrix(silent)), design)
    assert found is not None and found.q_value[4].isnan() and found.p_value[4] == 1
    alone = Design(design.weights * (design.instruction == 0), design.question, design.instruction)
    assert crossed_tests(rows, alone) is None
