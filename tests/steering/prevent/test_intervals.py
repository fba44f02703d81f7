"""Intervals over seeds crossed with units, and capability at equal trait: closed forms and coverage."""

from __future__ import annotations

import pytest
import torch

from workbench.steering.prevent.intervals import Measured, at_equal_trait, crossed_mean, interpolated


def draws(n: int, seed: int = 0, *, seeds: int = 3, units: int = 10, of_seed: float = 1.0, of_unit: float = 1.0) -> torch.Tensor:
    """[n, seeds, units] numbers with mean 0, a share that belongs to the seed and one that belongs to the unit."""
    random = torch.Generator().manual_seed(seed)
    parts = [torch.randn(n, seeds, 1, generator=random) * of_seed, torch.randn(n, 1, units, generator=random) * of_unit,
             torch.randn(n, seeds, units, generator=random)]  # fmt: skip
    return sum(parts, start=torch.zeros(1)).double()


@pytest.mark.parametrize("of_seed", [0.0, 1.0])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(of_seed) -> None:
    found = [crossed_mean(values) for values in draws(300, of_seed=of_seed)]
    covered = sum(one.interval[0] <= 0 <= one.interval[1] for one in found) / len(found)
    # 95% within three binomial standard errors below; conservative above: degrees of freedom of three seeds are few.
    assert covered >= 0.95 - 3 * (0.95 * 0.05 / 300) ** 0.5


def test_one_seed_gives_the_t_interval_over_units() -> None:
    from scipy.stats import t

    values = draws(1, seeds=1)[0]
    found = crossed_mean(values)
    half = t.ppf(0.975, 9) * float(values.std()) / 10**0.5
    assert found.interval[1] - found.value == pytest.approx(half) and found.n_seeds == 1
    assert found.value == pytest.approx(float(values.mean()))


def test_equal_numbers_have_no_width_and_unknown_units_are_left_out() -> None:
    values = torch.full((3, 4), 2.0)
    values[1, 2] = torch.nan
    found = crossed_mean(values)
    assert found.interval == (2.0, 2.0) and found.n_units == 3 and found.excludes_zero


def test_the_curve_is_read_where_it_first_comes_down_to_the_trait() -> None:
    points = torch.tensor([[50.0, 40.0, 20.0], [50.0, 40.0, 20.0], [50.0, 40.0, 30.0], [10.0, 20.0, 5.0]])
    losses = torch.tensor([[0.0, 0.1, 0.5]]).repeat(4, 1)
    loss, reached = interpolated(points, losses, torch.tensor([30.0, 45.0, 10.0, 15.0]))
    torch.testing.assert_close(loss, torch.tensor([0.3, 0.05, 0.5, 0.0]))
    assert reached.tolist() == [True, True, False, True]


def test_an_arm_on_the_curve_keeps_nothing_and_one_beside_it_keeps_the_distance() -> None:
    def measured(points: float, loss: float) -> Measured:
        noise = draws(2, seed=round(points), units=8) * 0.2
        return Measured(points + noise[0], loss + 0.001 * noise[1])

    curve = [measured(50, 0.0), measured(40, 0.1), measured(20, 0.5)]
    inside = at_equal_trait(measured(30, 0.3), curve)
    assert abs(inside["kept"]) < 0.02 and inside["interval"][0] < 0 < inside["interval"][1] and inside["reached"]
    better = at_equal_trait(measured(30, 0.1), curve)
    assert better["kept"] == pytest.approx(0.2, abs=0.02) and better["interval"][0] > 0.1
    assert not at_equal_trait(measured(5, 0.1), curve)["reached"]


@pytest.mark.parametrize("seeds", [1, 3])
def test_one_unit_says_nothing_about_others(seeds) -> None:
    found = crossed_mean(torch.arange(seeds, dtype=torch.float64)[:, None])
    assert found.interval == (-torch.inf, torch.inf) and not found.excludes_zero
