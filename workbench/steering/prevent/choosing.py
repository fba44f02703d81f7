"""What is chosen on select questions, with a seed that the table does not use: the steps, and each arm's strength."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .arms import NONE, PREVENTATIVE, arm_kind, make_arm
from .cells import SELECT, Classroom, points_by_question

SEED = 1000
"""Of the fine-tunes and replies that are only looked at to choose."""
STEPS = (30, 60, 120)
POWER = 2.0
"""Standard errors by which the fine-tune without intervention must move the trait."""


def choose_steps(room: Classroom, steps: Sequence[int] = STEPS, *, seed: int = SEED) -> dict[str, Any]:
    """{steps, power, tried: [{steps, moved, standard_error}]}: the fewest steps after which the trait has risen by 2 standard
    errors on select questions, paired by question; the most where none does (power is False then)."""
    base, tried = points_by_question(room.base(SELECT, seed)), []
    for number in steps:
        tuned = points_by_question(room.cell(make_arm(NONE, room.materials), seed, SELECT, steps=number))
        moved = torch.tensor([tuned[name] - base[name] for name in base], dtype=torch.float64)
        moved = moved[moved.isfinite()]
        tried.append({"steps": number, "moved": float(moved.mean()), "standard_error": float(moved.std() / len(moved) ** 0.5)})
        if has_power(tried[-1]["moved"], tried[-1]["standard_error"]):
            break
    return {"steps": tried[-1]["steps"], "power": has_power(tried[-1]["moved"], tried[-1]["standard_error"]), "tried": tried}


def has_power(moved: float, standard_error: float) -> bool:
    """Whether the trait rose by `POWER` standard errors or more."""
    return moved > 0 and moved >= POWER * standard_error


def choose_strengths(room: Classroom, arms: Sequence[str], steps: int, *, seed: int = SEED) -> dict[str, dict[str, Any]]:
    """{arm: {strength, unit, aim, tried: [{strength, points}]}} for the arms that have strengths to choose from.

    The strength whose mean points on select questions come closest to `aim`, those of the model before fine-tuning: then the
    arms are compared at about the same trait. An arm with one strength in its grid has that; one with none has the dose of
    "preventative".
    """
    aim, found = mean_points(room.base(SELECT, seed)), {}
    for name in (one for one in arms if arm_kind(one).grid):
        grid = arm_kind(name).grid
        arms_tried = [make_arm(name, room.materials, strength, seed) for strength in grid] if len(grid) > 1 else []
        points = [mean_points(room.cell(arm, seed, SELECT, steps=steps)) for arm in arms_tried]
        tried = [{"strength": strength, "points": value} for strength, value in zip(grid, points, strict=False)]
        best = min(tried, key=lambda one: abs(one["points"] - aim)) if tried else {"strength": next(iter(grid))}
        found[name] = {"strength": best["strength"], "unit": arm_kind(name).unit, "aim": aim, "tried": tried}
    for name in (one for one in arms if arm_kind(one).unit and not arm_kind(one).grid):
        found[name] = {**found[PREVENTATIVE], "tried": []}
    return found


def mean_points(cell: dict[str, Any]) -> float:
    """Mean points of a cell, each question weighing the same."""
    values = torch.tensor(list(points_by_question(cell).values()), dtype=torch.float64)
    return float(values.nanmean())
