"""Fixed and limited coordinates: reached exactly, by the smallest change, whatever the order."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from workbench.maths.interventions import conflict, fix_coordinates, limit_coordinates, solver

D = 12
SEEDS = st.integers(0, 2**31 - 1)
# Coordinates are sums of D products of float32 numbers of size |h| <= 40: an error of about D eps |h| = 6e-5, amplified by at
# most the inverse of the smallest singular value that the draws are allowed to have (.1).
TOLERANCE = 1e-3


def drawn(seed: int, k: int, *, spread: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Activations [5, D] of sizes from small to large, k unit directions, k values."""
    random = torch.Generator().manual_seed(seed)
    h = torch.randn(5, D, generator=random) * torch.tensor([0.1, 1, 3, 5, 8])[:, None]
    shared = torch.randn(D, generator=random) * (1 - spread)
    units = torch.nn.functional.normalize(torch.randn(k, D, generator=random) * spread + shared, dim=1)
    return h, units, 4 * torch.randn(k, generator=random)


def well_posed(units: torch.Tensor) -> None:
    assume(float(torch.linalg.svdvals(units).min()) > 0.1)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 5))
def test_every_fixed_coordinate_has_its_value_and_nothing_else_moves(seed: int, k: int) -> None:
    h, units, values = drawn(seed, k)
    well_posed(units)
    fixed = fix_coordinates(h, units, values)
    torch.testing.assert_close(fixed @ units.T, values.expand(5, k), rtol=0, atol=TOLERANCE)
    outside = torch.eye(D) - solver(units) @ units
    torch.testing.assert_close(fixed @ outside, h @ outside, rtol=0, atol=TOLERANCE)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 5))
def test_ablating_twice_is_once_and_no_order_matters(seed: int, k: int) -> None:
    h, units, _ = drawn(seed, k)
    well_posed(units)
    once = fix_coordinates(h, units, torch.zeros(k))
    torch.testing.assert_close(fix_coordinates(once, units, torch.zeros(k)), once, rtol=0, atol=TOLERANCE)
    order = torch.randperm(k, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(fix_coordinates(h, units[order], torch.zeros(k)), once, rtol=0, atol=TOLERANCE)


def test_directions_that_repeat_each_other_are_removed_once() -> None:
    h, units, _ = drawn(1, 2)
    twice = torch.cat([units, units[:1], -units[1:]])
    torch.testing.assert_close(
        fix_coordinates(h, twice, torch.zeros(4)), fix_coordinates(h, units, torch.zeros(2)), rtol=0, atol=TOLERANCE
    )


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_removing_a_span_is_not_removing_one_after_the_other(seed: int) -> None:
    h, units, _ = drawn(seed, 2, spread=0.6)
    assume(0.1 < abs(float(units[0] @ units[1])) < 0.99)
    one_by_one = fix_coordinates(fix_coordinates(h, units[:1], torch.zeros(1)), units[1:], torch.zeros(1))
    assert float((one_by_one @ units[0]).abs().max()) > 1e-4  # the second put some of the first back
    together = fix_coordinates(h, units, torch.zeros(2))
    assert float((together @ units.T).abs().max()) < 10 * TOLERANCE


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 5))
def test_limits_hold_by_the_smallest_change(seed: int, k: int) -> None:
    h, units, bounds = drawn(seed, k)
    well_posed(units)
    limited = limit_coordinates(h, units, bounds)
    slack = bounds - limited @ units.T
    assert float(slack.min()) > -TOLERANCE
    # Karush-Kuhn-Tucker: h - h' is a sum of directions with weights >= 0, and only of those whose limit is reached.
    weights = (h - limited) @ solver(units)
    torch.testing.assert_close(weights @ units, h - limited, rtol=0, atol=TOLERANCE)
    assert float(weights.min()) > -10 * TOLERANCE
    assert bool(((weights < 10 * TOLERANCE) | (slack.abs() < 10 * TOLERANCE)).all())


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(2, 5))
def test_the_order_of_limits_does_not_matter_and_twice_is_once(seed: int, k: int) -> None:
    h, units, bounds = drawn(seed, k)
    well_posed(units)
    limited = limit_coordinates(h, units, bounds)
    order = torch.randperm(k, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(limit_coordinates(h, units[order], bounds[order]), limited, rtol=0, atol=10 * TOLERANCE)
    torch.testing.assert_close(limit_coordinates(limited, units, bounds), limited, rtol=0, atol=10 * TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_tokens_within_the_limit_and_limits_of_infinity_change_no_bit(dtype) -> None:
    h, units, _ = drawn(2, 3)
    h = h.to(dtype)
    assert torch.equal(limit_coordinates(h, units, torch.full((3,), math.inf)), h)
    mixed = limit_coordinates(h, units, torch.tensor([math.inf, 1e9, 1e9]))
    assert torch.equal(mixed, h) and mixed.dtype == dtype
    one = limit_coordinates(h, units[:1], torch.tensor([1.0]))
    within = (h.float() @ units[0]) <= 1.0
    assert within.any() and not within.all()
    assert torch.equal(one[within], h[within]) and not torch.equal(one, h)


def test_values_of_nearly_parallel_directions_conflict_unless_they_agree() -> None:
    u = torch.nn.functional.normalize(torch.randn(D, generator=torch.Generator().manual_seed(0)), dim=0)
    near = torch.nn.functional.normalize(u + 0.01 * torch.randn(D, generator=torch.Generator().manual_seed(1)), dim=0)
    pair = torch.stack([u, near])
    assert conflict(pair, torch.tensor([1.0, -1.0])) > 0.9
    assert conflict(pair, torch.tensor([1.0, 1.0])) < 1e-3
    assert conflict(pair, torch.zeros(2)) == 0.0
    assert conflict(torch.stack([u, u]), torch.tensor([2.0, 3.0])) > 0.1
    assert conflict(torch.eye(D)[:3], torch.tensor([1.0, -5.0, 2.0])) == 0.0


def test_gradients_flow_through_what_is_left() -> None:
    h, units, _ = drawn(3, 2)
    h.requires_grad_(True)
    fix_coordinates(h, units, torch.zeros(2)).sum().backward()
    expected = (torch.eye(D) - solver(units) @ units).T @ torch.ones(D)
    assert h.grad is not None
    torch.testing.assert_close(h.grad, expected.expand(5, D), rtol=0, atol=1e-4)
