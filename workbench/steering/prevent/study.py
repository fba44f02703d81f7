"""The whole study of one trait: what is chosen on select questions, then every arm and seed on sealed ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workbench.base.errors import WorkbenchError
from workbench.base.progress import track

from .arms import ARMS, NONE, PREVENTATIVE, SHAM, SUBTRACTION, arm_kind, make_arm
from .cells import SEALED, Classroom
from .choosing import SEED, STEPS, choose_steps, choose_strengths
from .table import PreventionTable, prevention_table


def study(
    room: Classroom,
    arms: Sequence[str] = tuple(ARMS),
    seeds: Sequence[int] = (0, 1, 2),
    *,
    steps: Sequence[int] = STEPS,
) -> PreventionTable:
    """Every arm with every seed on sealed questions, after steps and strengths were chosen on select ones.

    Cells that are there are taken up; stop at any time and call again. "subtraction" is measured at every dose of its grid, so
    that it can be read at the trait of another arm. Raises WorkbenchError for unknown arms and for a seed that is used to choose.
    """
    wanted = checked_arms(arms)
    if SEED in seeds or not seeds or len(set(seeds)) != len(seeds):
        expected = f"different seeds, none of them {SEED}, with which is chosen"
        raise WorkbenchError(f"seeds {list(seeds)}", expected, "name others")
    chosen = choose_steps(room, steps)
    strengths = choose_strengths(room, wanted, chosen["steps"])
    return measured(room, wanted, seeds, {"steps": chosen, "strengths": strengths})


def measured(room: Classroom, arms: Sequence[str], seeds: Sequence[int], choice: dict[str, Any]) -> PreventionTable:
    """The table of arms whose steps and strengths are chosen."""
    plan = [(name, strength) for name in arms for strength in strengths_of(name, choice)]
    cells = []
    with track(f"prevention of {room.materials.trait.name}", len(seeds) * (len(plan) + 1), "cells") as step:
        for seed in seeds:
            cells.append(room.base(SEALED, seed))
            step()
            for name, strength in plan:
                arm = make_arm(name, room.materials, strength, seed)
                cells.append(room.cell(arm, seed, SEALED, steps=choice["steps"]["steps"]))
                step(note=name)
    return prevention_table(room.materials.trait.name, room.judge.name, cells, choice, room.materials.lesson.card())


def strengths_of(name: str, choice: dict[str, Any]) -> tuple[float | None, ...]:
    """The strengths at which an arm is measured: all of its grid for subtraction, else the one that was chosen."""
    if name == SUBTRACTION:
        return arm_kind(name).grid
    return (choice["strengths"].get(name, {}).get("strength"),)


def checked_arms(arms: Sequence[str]) -> tuple[str, ...]:
    """The arms by name, with "none" first: the others are held against it. Those that have the dose of "preventative" need it."""
    for name in arms:
        if arm_kind(name).unit and not arm_kind(name).grid and PREVENTATIVE not in arms:
            raise WorkbenchError(f"the arm {name} without {PREVENTATIVE}", "both, as they have one dose", f"add {PREVENTATIVE}")
    first = [name for name in (NONE, SHAM) if name in arms or name == NONE]
    return (*first, *(name for name in dict.fromkeys(arms) if name not in first))
