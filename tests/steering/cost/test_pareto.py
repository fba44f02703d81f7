"""The front and equal-change costs on curves whose answers are known."""

from __future__ import annotations

import math

import pytest
import torch

from workbench.base.errors import WorkbenchError
from workbench.steering.cost.capability import Capability
from workbench.steering.cost.pareto import first_crossing, front
from workbench.steering.cost.replies import Replies
from workbench.steering.cost.sweep import Cell, Sweep

N_QUESTIONS, N_DOCUMENTS = 12, 20


def cell(method: str, level: float | None, points: float, surprise: float, *, kl: float = 0.1, noise: float = 1.0) -> Cell:
    random = torch.Generator().manual_seed(int(1000 * (points + 7 * surprise)) % 2**31)
    shifts = noise * torch.randn(N_QUESTIONS, generator=random)
    rows = [{"question_id": str(q), "points": points + float(shift), "coherence": 90.0} for q, shift in enumerate(shifts)]
    documents = 3 + surprise + 0.01 * noise * torch.randn(N_DOCUMENTS, generator=random).double()
    told = {"method": method, "level": level, "told": "", "n_hooks": 1, "hook": []}
    return Cell(told, Replies(tuple(rows)), Capability(documents, {}, {}), kl)


def swept(*cells: Cell) -> Sweep:
    return Sweep("evil", "neutral", "judge", cell("none", None, 40.0, 0.0, noise=0.0), cells)


def test_a_crossing_is_read_off_a_straight_line_and_is_infinite_where_none_is():
    x = torch.tensor([[0.0, 10.0, 30.0], [0.0, 20.0, 5.0], [0.0, 3.0, 4.0]], dtype=torch.float64)
    y = torch.tensor([[0.0, 1.0, 2.0], [0.0, 4.0, 9.0], [0.0, 1.0, 2.0]], dtype=torch.float64)
    assert first_crossing(x, y, 20.0).tolist() == [1.5, 4.0, math.inf]


def test_dominated_and_unwanted_points_are_not_on_the_front():
    found = front(swept(cell("a", 1, 60, 0.1), cell("a", 2, 80, 0.5), cell("b", 1, 55, 0.3), cell("c", 1, 30, 0.0)), wanted=1)
    assert [(point.method, point.level) for point in found.best] == [("a", 1), ("a", 2)]
    shares = {(point.method, point.level): point.on_front for point in found.points}
    assert shares[("a", 1)] == shares[("a", 2)] == 1 and shares[("b", 1)] == shares[("c", 1)] == 0


def test_points_that_are_the_same_do_not_put_each_other_off_the_front():
    found = front(swept(cell("a", 1, 60, 0.1), cell("b", 1, 60, 0.1)), wanted=1)  # the same replies: two doses at their limit
    assert len(found.best) == 2 and [point.on_front for point in found.points] == [1.0, 1.0]


def test_a_reduction_counts_as_change_when_it_is_wanted():
    found = front(swept(cell("a", -1, 20, 0.1)), wanted=-1)
    (point,) = found.points
    assert point.change == pytest.approx(20, abs=1.5) and point.change_interval[0] > 15
    assert found.base_points == 40


def test_methods_are_compared_at_an_equal_change_and_at_an_equal_kl():
    curves = [cell("add", d, 40 + 20 * d, 0.2 * d, kl=0.1 * d * d, noise=0.1) for d in (1, 2)]
    curves += [cell("cheap", d, 40 + 20 * d, 0.1 * d, kl=0.1 * d * d, noise=0.1) for d in (1, 2)]
    curves += [cell("weak", d, 40 + 2 * d, 0.1 * d, kl=0.1 * d * d, noise=0.1) for d in (1, 2)]
    found = front(swept(*curves), wanted=1)
    cheap, add, weak = found.at_equal_change(30.0)
    assert (cheap.method, add.method, weak.method) == ("cheap", "add", "weak")
    assert cheap.value == pytest.approx(0.15, abs=0.01) and add.value == pytest.approx(0.3, abs=0.01)
    assert cheap.difference == pytest.approx(-0.15, abs=0.01) and cheap.difference_interval[1] < 0
    assert weak.value is None and weak.reached == 0 and weak.difference is None
    at_kl = {cost.method: cost.value for cost in found.at_equal_kl(0.1)}
    assert at_kl["add"] == pytest.approx(20, abs=0.5) and at_kl["weak"] == pytest.approx(2, abs=0.5)


def test_what_has_one_level_costs_all_of_it_or_does_not_reach():
    found = front(swept(cell("prompting", None, 70, 0.2, noise=0.1), cell("add", 1, 70, 0.2, noise=0.1)), wanted=1)
    half = {cost.method: cost.value for cost in found.at_equal_change(15.0)}
    assert half["prompting"] == pytest.approx(0.2, abs=0.01) and half["add"] == pytest.approx(0.1, abs=0.01)
    assert {cost.method: cost.value for cost in found.at_equal_change(50.0)} == {"prompting": None, "add": None}
    assert next(cost for cost in found.at_equal_kl(0.05) if cost.method == "prompting").value is None


def test_intervals_of_equal_methods_hold_zero():
    curves = [cell(name, d, 40 + 15 * d + 0.01 * k, 0.2 * d + 0.0001 * k, noise=4.0) for k, name in enumerate(("add", "same"))
              for d in (1.0, 2.0)]  # fmt: skip
    costs = {cost.method: cost for cost in front(swept(*curves), wanted=1).at_equal_change(20.0)}
    low, high = costs["same"].difference_interval
    assert low < 0 < high


def test_a_sweep_without_an_exam_has_no_front():
    bare = Cell({"method": "none", "level": None}, Replies(()), None, 0.0)
    with pytest.raises(WorkbenchError, match="without an exam"):
        front(Sweep("evil", "neutral", "judge", bare, ()), wanted=1)
