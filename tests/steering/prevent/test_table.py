"""The table and its verdicts on planted cells."""

from __future__ import annotations

import pytest
import torch

from workbench.steering.prevent.table import FAILS, HOLDS, NO_POWER, OPEN, prevention_table

CHOICE = {"steps": {"steps": 40}, "strengths": {"preventative": {"strength": 0.25}, "subtraction": {"strength": 0.12}}}


def cell(arm: str, strength: float | None, seed: int, points: float, loss: float, noise: float = 1.0) -> dict:
    """A cell of ten questions with two replies each, eight documents and four items."""
    random = torch.Generator().manual_seed(1000 * seed + round(10 * points))
    shared = torch.Generator().manual_seed(seed)
    scores = points + noise * torch.randn(20, generator=random) + 3 * torch.randn(1, generator=shared)
    surprise = 3 + loss + 0.01 * torch.randn(8, generator=random)
    replies = [{"question_id": f"s{n // 2}", "points": float(score)} for n, score in enumerate(scores)]
    return {"arm": arm, "strength": strength, "seed": seed, "replies": replies, "others": {"impolite": [20.0 + loss] * 20},
            "capability": {"surprise": surprise.tolist(), "correct": {"set": [1.0, 0.0, 1.0, 1.0]}, "margin": {"set": [0.1] * 4}},
            "task_loss": [2.0, 2.5], "losses": []}  # fmt: skip


def table(*, none: float = 50.0, prevented: float = 31.0, loss: float = 0.05, seeds: int = 3, noise: float = 1.0):
    """Base at 30 points; subtraction comes down to it at a loss of 0.3 nats."""
    planted = [("base", None, 30.0, 0.0), ("none", None, none, 0.02), ("preventative", 0.25, prevented, loss),
               ("random", 0.25, 49.0, 0.06), ("subtraction", 0.06, 40.0, 0.1), ("subtraction", 0.12, 30.0, 0.3)]  # fmt: skip
    cells = [cell(arm, strength, seed, points, cost, noise) for seed in range(seeds) for arm, strength, points, cost in planted]
    return prevention_table("evil", "judge", cells, CHOICE, {"name": "evil"})


def test_planted_effects_come_back(model) -> None:
    found = table()
    assert found.power and found.row("none").moved.value == pytest.approx(20, abs=1.5)
    assert found.row("preventative").prevented.value == pytest.approx(19, abs=1.5)
    assert found.row("preventative").beyond_random.interval[0] > 0 and found.row("random").beyond_random is None
    assert found.row("preventative").surprise.value == pytest.approx(0.05, abs=0.02)
    assert found.row("none").accuracy.value == 0 and found.row("subtraction").strength == 0.12
    assert found.row("none").others["impolite"].value == pytest.approx(0.02)
    low, high = found.row("none").points.interval
    assert low < 50 < high


@pytest.mark.parametrize(
    ("planted", "verdict", "words"),
    [({}, HOLDS, "holds here"), ({"loss": 0.6}, FAILS, "does not hold here"), ({"prevented": 50.0}, FAILS, "does not hold"),
     ({"none": 30.5, "noise": 8.0}, NO_POWER, "no power"), ({"loss": 0.29}, OPEN, "not decided"),
     ({"prevented": 46.0, "noise": 25.0}, OPEN, "not decided")],
)  # fmt: skip
def test_the_verdict_follows_the_intervals(planted, verdict, words) -> None:
    found = table(**planted)
    assert found.verdict == verdict, found.sentence
    assert words in found.sentence


def test_one_seed_is_enough_for_a_table() -> None:
    found = table(seeds=1)
    assert found.n_seeds == 1 and found.row("none").moved.n_seeds == 1 and found.verdict in (HOLDS, OPEN)


def test_the_figure_names_every_arm_and_speaks_the_finding() -> None:
    from workbench.reports.displays.prevent import table_display
    from workbench.reports.steering.prevent import prevention_figure

    found = table()
    svg = prevention_figure(found).svg
    for name in ("before fine-tuning", "no intervention", "preventative 0.25", "random vector", "subtraction, to 0.12"):
        assert name in svg
    assert "holds here" in repr(prevention_figure(found)) or "holds here" in svg
    html = table_display(found).html()
    assert "preventative 0.25" in html and HOLDS in html


@pytest.mark.parametrize("n_judged", [0, 2])
def test_the_figure_stands_where_one_question_or_none_was_judged(n_judged) -> None:
    from workbench.reports.steering.prevent import prevention_figure

    cells = [cell(arm, None, seed, points, 0.02) for seed in range(2) for arm, points in (("base", 30.0), ("none", 50.0))]
    for one in cells:
        one["replies"] = [{**row, "points": row["points"] if n < n_judged else None} for n, row in enumerate(one["replies"])]
    found = prevention_table("evil", "judge", cells, {"steps": {"steps": 1}, "strengths": {}}, {"name": "evil"})
    assert not found.power and "no power" in found.sentence
    svg = prevention_figure(found).svg
    assert ("no intervention" in svg) is bool(n_judged) and '"nan' not in svg and '"inf' not in svg
