"""Controls: tests over questions, and an arm against itself."""

from __future__ import annotations

import torch
from scipy import sparse

from workbench.decomposition.nulls import MAX_SPLITS, _splits, feature_tests, same_against_same
from workbench.decomposition.rows import RowCodes
from workbench.decomposition.shares import Design


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_of_very_many_ways_to_part_the_instructions_some_are_taken_each_once_over_a_half() -> None:
    few, many = list(_splits(list(range(5)))), list(_splits(list(range(120))))
    assert len(few) == 10 and len(many) == MAX_SPLITS
    assert all(len(set(chosen)) == 60 for chosen in many) and len(set(many)) == MAX_SPLITS
    assert many == list(_splits(list(range(120)))) and list(_splits([7])) == []
    assert len(list(_splits([1, 2, 3, 4]))) == 3  # two halves of the same size are one split


def test_features_that_never_fire_are_not_tested() -> None:
    differences = torch.cat([randn(10, 3).abs(), torch.zeros(10, 97)], dim=1)
    tests = feature_tests(differences)
    assert tests.n_active == 3
    # With 97 silent features in the family these would be q = 100/3 times p; they are not in it.
    assert torch.allclose(tests.q_value[:3], torch.full((3,), 2 / 2**10, dtype=torch.float64))
    assert tests.q_value[3:].isnan().all()


def test_one_question_tests_nothing() -> None:
    tests = feature_tests(torch.ones(1, 4))
    assert tests.p_value.isnan().all() and tests.q_value.isnan().all()


def rows_of(codes: torch.Tensor) -> RowCodes:
    n = len(codes)
    empty = torch.zeros(n, 4)
    return RowCodes(tuple(map(str, range(n))), empty, empty, sparse.csc_matrix(codes.numpy()), empty[:1])


def two_arms(n_questions: int, n_instructions: int) -> tuple[Design, list[tuple[int, int, int]]]:
    cells = [(side, q, i) for side in (1, -1) for q in range(n_questions) for i in range(n_instructions)]
    size = n_questions * n_instructions
    design = Design(*(torch.tensor(column) for column in zip(*((s / size, q, i) for s, q, i in cells), strict=True)))
    return Design(design.weights.double(), design.question, design.instruction), cells


def test_an_arm_against_itself_is_unremarkable_unless_the_wording_matters() -> None:
    """Noise per row: hardly ever anything, over many draws. An effect of single wordings: the test over questions finds it."""
    design, cells = two_arms(12, 4)
    draws = [randn(len(cells), 60, seed=seed).abs() for seed in range(12)]
    quiet = [same_against_same(rows_of(noise), design) for noise in draws]
    assert quiet[0]["n_splits"] == 6 and quiet[0]["n_features"] == 60
    assert sum(found["rate"] for found in quiet) / len(quiet) <= 0.12
    wording = torch.stack([randn(60, seed=10 * (side + 2) + i) * 3 for side, _, i in cells])
    loud = same_against_same(rows_of(draws[0] + wording.abs()), design)
    assert loud["rate"] == 1 and min(loud["shares"]) > 0.3


def test_one_instruction_cannot_be_parted() -> None:
    design, cells = two_arms(5, 1)
    assert same_against_same(rows_of(randn(len(cells), 6).abs()), design)["rate"] is None
