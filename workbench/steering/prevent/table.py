"""The table of a prevention study: trait, other traits, capability and task loss per arm, and what may be said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from workbench.base.display import Shown

from ..cost.capability import Capability
from .arms import ARMS, NONE, PREVENTATIVE, RANDOM, SHAM, SUBTRACTION
from .cells import BASE, points_by_question
from .choosing import has_power
from .intervals import Estimate, Measured, at_equal_trait, crossed_mean

HOLDS, FAILS, OPEN, NO_POWER = "holds", "does not hold", "not decided", "no power"
Cell = Mapping[str, Any]


@dataclass(frozen=True, repr=False)
class ArmRow(Shown):
    """One arm over all seeds. Points are 0-100; losses are differences from the model before fine-tuning: positive is worse.

    `points`: the trait; `moved`: less the model before; `prevented`: points of "none" less those of the arm (None for "none" and
    the model before); `beyond_random`: points of "random" less those of the arm; `surprise`: nats per token of documents;
    `accuracy`: share of right answers lost; `task_loss`: nats per token of the lesson's replies to held-out questions, not a
    difference; `others`: {trait: points moved}.
    """

    arm: str
    strength: float | None
    points: Estimate
    moved: Estimate
    surprise: Estimate | None
    accuracy: Estimate | None
    task_loss: Estimate
    others: Mapping[str, Estimate] = field(default_factory=dict)
    prevented: Estimate | None = None
    beyond_random: Estimate | None = None

    @property
    def label(self) -> str:
        """The arm, with its strength where it has one."""
        return self.arm if self.strength is None else f"{self.arm} {self.strength:g}"

    def to_json(self) -> dict[str, Any]:
        """{trait, interval, capability, capability_interval, task_loss, task_loss_interval, and all fields}."""
        capability = None if self.surprise is None else self.surprise
        return {
            "trait": self.points.value, "interval": list(self.points.interval),
            "capability": capability and capability.value, "capability_interval": capability and list(capability.interval),
            **asdict(self), "task_loss": self.task_loss.value, "task_loss_interval": list(self.task_loss.interval),
        }  # fmt: skip


@dataclass(frozen=True, repr=False)
class PreventionTable(Shown):
    """The rows of a study ("base" first), what was chosen, and per arm its capability against subtraction at equal trait.

    `contrasts` {arm: {kept, interval, reached, reached_share, verdict}}: see `intervals.at_equal_trait`. `power`: whether the
    fine-tune without intervention moved the trait by 2 standard errors on the sealed questions; without it no verdict is given.
    """

    trait: str
    judge: str
    rows: tuple[ArmRow, ...]
    contrasts: Mapping[str, Mapping[str, Any]]
    power: bool
    n_seeds: int
    choice: Mapping[str, Any]
    lesson: Mapping[str, Any]

    def row(self, arm: str) -> ArmRow:
        """The row of an arm, at the strength that was chosen for it."""
        chosen = self.choice["strengths"].get(arm, {}).get("strength")
        rows = [row for row in self.rows if row.arm == arm]
        return next((row for row in rows if row.strength == chosen), rows[0])

    @property
    def arms(self) -> tuple[str, ...]:
        """The names of the arms, the model before fine-tuning first."""
        return tuple(dict.fromkeys(row.arm for row in self.rows))

    @property
    def verdict(self) -> str:
        """What is said of "preventative": holds, does not hold, not decided or no power."""
        return str(self.contrasts[PREVENTATIVE]["verdict"]) if PREVENTATIVE in self.contrasts else OPEN

    @property
    def sentence(self) -> str:
        """The finding in plain words."""
        return _sentence(self)

    def to_json(self) -> dict[str, Any]:
        """{trait, judge, arms: {name: row}, curve: [row], contrasts, power, verdict, sentence, choice, lesson}."""
        return {
            "kind": "prevention", "trait": self.trait, "judge": self.judge, "n_seeds": self.n_seeds,
            "arms": {name: self.row(name).to_json() for name in self.arms},
            "curve": [row.to_json() for row in self.rows if row.arm == SUBTRACTION],
            "contrasts": {name: dict(one) for name, one in self.contrasts.items()}, "power": self.power,
            "verdict": self.verdict, "sentence": self.sentence, "choice": dict(self.choice), "lesson": dict(self.lesson),
        }  # fmt: skip


def prevention_table(
    trait: str, judge: str, cells: Sequence[Cell], choice: Mapping[str, Any], lesson: Mapping[str, Any]
) -> PreventionTable:
    """The table of the sealed cells of all arms and seeds; every arm has the seeds of the first."""
    grouped: dict[tuple[str, float | None], list[Cell]] = {}
    for cell in cells:
        grouped.setdefault((cell["arm"], cell["strength"]), []).append(cell)
    base, plain = grouped[BASE, None], grouped[NONE, None]
    random = next((group for (arm, _), group in grouped.items() if arm == RANDOM), None)
    rows = [_row(group, base, plain, random) for group in grouped.values()]
    power = has_power(rows[1].moved.value, rows[1].moved.standard_error) if rows[1].arm == NONE else False
    found = PreventionTable(trait, judge, tuple(rows), {}, power, len(base), choice, lesson)
    curve = [_measured(group, base) for (arm, _), group in grouped.items() if arm == SUBTRACTION]
    contrasts = {}
    if curve and base[0]["capability"] is not None:
        for name in (one for one in ARMS if one in found.arms and one not in (NONE, SHAM, SUBTRACTION)):
            row = found.row(name)
            against = at_equal_trait(_measured(grouped[name, row.strength], base), [_measured(plain, base), *curve])
            contrasts[name] = {**against, "verdict": _verdict(power, rows[1].moved, row, against)}
    return PreventionTable(trait, judge, tuple(rows), contrasts, power, len(base), choice, lesson)


def _verdict(power: bool, moved: Estimate, row: ArmRow, against: Mapping[str, Any]) -> str:
    """An arm whose prevention may be nothing fails where half of the movement is ruled out; else it is not decided."""
    low, high = against["interval"]
    if not power:
        return NO_POWER
    if row.prevented is None or row.prevented.interval[0] <= 0:
        return FAILS if row.prevented is None or row.prevented.interval[1] < moved.value / 2 else OPEN
    return HOLDS if low > 0 else FAILS if high < 0 else OPEN


def _row(group: Sequence[Cell], base: Sequence[Cell], plain: Sequence[Cell], random: Sequence[Cell] | None) -> ArmRow:
    arm, points = group[0]["arm"], _points(group)
    free, shown = arm in (BASE, NONE), group[0]["capability"] is not None
    return ArmRow(
        arm, group[0]["strength"], crossed_mean(points), crossed_mean(points - _points(base)),
        crossed_mean(_documents(group) - _documents(base)) if shown else None,
        crossed_mean(_items(base) - _items(group)) if shown and _items(base).shape[1] else None,
        crossed_mean(_column(group, "task_loss")),
        {name: crossed_mean(_points(group, name) - _points(base, name)) for name in group[0]["others"]},
        None if free else crossed_mean(_points(plain) - points),
        None if random is None or arm in (BASE, NONE, RANDOM) else crossed_mean(_points(random) - points),
    )  # fmt: skip


def _points(group: Sequence[Cell], trait: str | None = None) -> Tensor:
    """[n_seeds, n_questions]."""
    return torch.tensor([list(points_by_question(cell, trait).values()) for cell in group], dtype=torch.float64)


def _documents(group: Sequence[Cell]) -> Tensor:
    return torch.stack([Capability.from_dict(cell["capability"]).surprise for cell in group])


def _items(group: Sequence[Cell]) -> Tensor:
    """[n_seeds, n_items] of all question sets, 1 where right; the sets have as many items each."""
    rows = [list(Capability.from_dict(cell["capability"]).correct.values()) for cell in group]
    return torch.stack([torch.cat(row) if row else torch.zeros(0, dtype=torch.float64) for row in rows])


def _column(group: Sequence[Cell], name: str) -> Tensor:
    return torch.tensor([cell[name] for cell in group], dtype=torch.float64)


def _measured(group: Sequence[Cell], base: Sequence[Cell]) -> Measured:
    return Measured(_points(group), _documents(group) - _documents(base))


def _sentence(table: PreventionTable) -> str:
    moved = table.row(NONE).moved
    told = f"Without intervention the fine-tune moves {table.trait} by {_told(moved.value, moved.interval, 1)} points"
    if not table.power:
        return f"{told}: under 2 standard errors, so nothing can be said about preventing it (no power)."
    if PREVENTATIVE not in table.contrasts:
        return f"{told}."
    row, against = table.row(PREVENTATIVE), table.contrasts[PREVENTATIVE]
    assert row.prevented is not None
    reached = "" if against["reached"] else ", although subtraction never reduces the trait as far"
    kept, taken = _told(against["kept"], against["interval"], 3), _told(row.prevented.value, row.prevented.interval, 1)
    ends = {
        HOLDS: "that prevention keeps capability better at equal trait holds here",
        FAILS: "that prevention keeps capability better at equal trait does not hold here",
        OPEN: "whether prevention keeps capability better at equal trait is not decided here",
    }
    beside = "" if RANDOM not in table.arms else f" (a random vector {_of(table.row(RANDOM).prevented)})"
    return (f"{told}; the vector in training at {row.strength:g} norms takes {taken} of them away{beside} and loses {kept} nats "
            f"per token less than subtraction does at the same trait{reached}: {ends[str(against['verdict'])]}.")  # fmt: skip


def _of(found: Estimate | None) -> str:
    return "" if found is None else _told(found.value, found.interval, 1)


def _told(value: float, interval: Sequence[float], digits: int) -> str:
    return f"{value:+.{digits}f} [{interval[0]:+.{digits}f}, {interval[1]:+.{digits}f}]"
