"""Weights, bootstrap and streaming behind the shares, each against a plain recomputation."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch

import workbench.decomposition.rows as rows_module
from tests.decomposition.planted_world import HOOK, World, read
from tests.labeling import made_of_world
from workbench.decomposition.shares import (
    Design,
    account,
    balanced_weights,
    bootstrap_shares,
    largest_shares,
    question_contributions,
)
from workbench.maths.statistics import percentile_interval

Planted = Callable[..., World]


def test_row_means_equal_encoding_each_row_alone(planted: Planted) -> None:
    world = planted(spread=1.0, outside=0.5)
    rows, _ = read(world)
    assert world.vector.tokens is not None
    held = dict(world.vector.tokens.rows(HOOK))
    for index in (0, 7, 149):
        tokens = held[rows.ids[index]]
        codes = world.sae.encode(tokens)
        torch.testing.assert_close(
            torch.from_numpy(rows.codes[index].toarray()[0]), codes.mean(0), atol=1e-5, rtol=1e-5
        )
        torch.testing.assert_close(rows.means[index], tokens.double().mean(0))
        torch.testing.assert_close(
            rows.errors[index].float(), (tokens - world.sae.decode(codes)).mean(0), atol=1e-5, rtol=0
        )


def test_the_size_of_chunks_and_blocks_does_not_matter(
    planted: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = planted(spread=1.0)
    whole, _ = read(world)
    monkeypatch.setattr(rows_module, "MAX_CODE_CELLS", 150)  # seven tokens at a time
    small, _ = read(world)
    torch.testing.assert_close(small.means, whole.means)
    assert abs(small.codes - whole.codes).max() < 1e-5
    blocks = torch.cat([codes for _, codes in whole.code_blocks(block=6)], dim=1)
    torch.testing.assert_close(blocks, torch.from_numpy(whole.codes.toarray()))


def test_unit_counts_give_back_the_weights_of_the_vector(planted: Planted) -> None:
    _, design = read(planted(drop=(1, 2, 5, 9, 60)))
    ones = torch.ones(1, 10, dtype=torch.float64), torch.ones(1, len(design.weights), dtype=torch.float64)
    again = balanced_weights(design.weights.sign(), design.question, *ones)[0]
    torch.testing.assert_close(again, design.weights)
    assert design.weights[design.weights > 0].sum().item() == pytest.approx(1)
    assert design.weights[design.weights < 0].sum().item() == pytest.approx(-1)


def test_a_question_without_rows_in_one_arm_drops_out(planted: Planted) -> None:
    first_question_positive = tuple(range(0, 15, 3))
    _, design = read(planted(drop=first_question_positive))
    assert design.questions.tolist() == list(range(1, 10))
    assert (design.resampled(20, torch.Generator().manual_seed(0))[:, design.question == 0] == 0).all()


def test_resampled_weights_equal_a_vector_made_from_the_drawn_rows() -> None:
    """Write one replicate out: repeat each drawn question and instruction, average, and compare."""
    cells = list(itertools.product(range(3), range(4), (1, -1)))
    sign = torch.tensor([s for _, _, s in cells])
    question = torch.tensor([q for q, _, _ in cells])
    values = torch.randn(len(cells), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sign[5] = 0  # one row that the judge did not keep
    drawn_questions, drawn_instructions = [0, 0, 2], [1, 1, 3, 2]
    expected = 0.0
    for q in drawn_questions:
        arms = []
        for s in (1, -1):
            picked = [cells.index((q, i, s)) for i in drawn_instructions]
            arms.append(torch.stack([values[n] for n in picked if sign[n] == s]).mean())
        expected += (arms[0] - arms[1]).item() / 3
    counts = torch.tensor([[2.0, 0.0, 1.0]], dtype=torch.float64)
    per_instruction = torch.tensor([drawn_instructions.count(i) for _, i, _ in cells], dtype=torch.float64)
    weights = balanced_weights(sign, question, counts, per_instruction[None])[0]
    assert (weights @ values).item() == pytest.approx(expected)


def test_every_replicate_is_an_identity_of_its_own(planted: Planted) -> None:
    world = planted(spread=1.0, outside=2.0)
    rows, design = read(world)
    decoder = world.sae.decoder_directions
    source = torch.Generator().manual_seed(0)
    whole = account(rows, design, decoder)
    found = bootstrap_shares(rows, design, decoder, whole=whole, keep=torch.arange(20), n_bootstrap=30, generator=source)
    torch.testing.assert_close(
        found.shares.double().sum(1) + found.error, torch.ones(30, dtype=torch.float64), atol=1e-5, rtol=0
    )
    again = design.resampled(30, torch.Generator().manual_seed(0))
    one = account(rows, Design(again[4], design.question, design.instruction), decoder)
    torch.testing.assert_close(found.shares[4].double(), one.shares, atol=1e-5, rtol=0)
    assert found.error[4].item() == pytest.approx(one.error)


def test_intervals_cover_the_shares_of_infinitely_many_questions_and_instructions() -> None:
    """Percentile intervals do not: |v|^2 grows with noise, in a replicate once more than in the sample."""
    true, n = made_of_world.truth()[:6], 25
    covered, percentile = torch.zeros(6), torch.zeros(6)
    for seed in range(n):
        parts = made_of_world.planted_parts(100 + seed)
        covered += (parts.share_low[:6] <= true) & (true <= parts.share_high[:6])
        place = [parts.replicate_features.tolist().index(feature) for feature in range(6)]
        low, high = percentile_interval(parts.replicate_shares[:, place].double())
        percentile += (low <= true) & (true <= high)
    assert covered.mean() >= 0.85 * n, covered
    assert percentile[0] < covered[0] - 2, (percentile, covered)  # the largest feature has the largest bias


def test_question_contributions_add_up_to_the_code_difference(planted: Planted) -> None:
    rows, design = read(planted(spread=1.0, drop=(3, 4)))
    contributions = question_contributions(rows, design)
    assert contributions.shape == (10, 20)
    torch.testing.assert_close(contributions.sum(0), account(rows, design, planted_decoder()).delta_codes)


def planted_decoder() -> torch.Tensor:
    from tests.decomposition.planted_world import make_sae

    return make_sae().decoder_directions


def test_the_largest_shares_count_negative_ones() -> None:
    assert largest_shares(torch.tensor([0.1, -0.5, 0.0, 0.3]), 2).tolist() == [1, 3]
