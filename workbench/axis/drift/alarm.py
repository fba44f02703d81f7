"""An alarm on drift: a threshold on how far a reply points away from the assistant, set on ordinary conversations.

What is compared is the projection itself (the mean over a reply by default), since a deployed model has no second reading without
history. Thresholds are split-conformal over the replies of calibration conversations (`steering.monitor.alarms`); replies of one
conversation are alike, so the rate is measured again on evaluation conversations of the same kind, with an interval over these.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from workbench.axis.drift.result import DriftStudy
from workbench.axis.drift.study import Group, domain_of
from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.maths.statistics import category_codes
from workbench.steering.monitor.alarms import Alarm, Rule, conformal_threshold, false_alarms
from workbench.steering.monitor.monitor import Monitor

if TYPE_CHECKING:
    from workbench.models.model import Model
    from workbench.personas.vectors import PersonaVector

QUIET = ("coding", "writing")
RULE = Rule("mean")
RATE = 0.05


@dataclass(frozen=True, eq=False, repr=False)
class DriftAlarm(Shown):
    """The alarm, on the signal "away from <axis>" (raw projection, sign turned), and what it does in every group of evaluation
    conversations: `groups` {group: {replies: {rate, interval, ...}, conversations: share with an alarm, first_turn: median turn
    of the first one (None without any)}}. `quiet` are the groups that it was calibrated on."""

    alarm: Alarm
    hook: str
    quiet: tuple[str, ...]
    groups: dict[str, dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON types."""
        alarm = {"signal": self.alarm.signal, "statistic": self.alarm.rule.statistic, "window": self.alarm.rule.window,
                 "threshold": self.alarm.threshold, "rate": self.alarm.rate, "check": dict(self.alarm.check)}  # fmt: skip
        return {"alarm": alarm, "hook": self.hook, "quiet": list(self.quiet), "groups": self.groups}

    def save_monitor(self, model: Model, axis: PersonaVector, folder: str | os.PathLike[str]) -> Path:
        """Write a monitor with this alarm, for `workbench monitor` and `workbench gateway`; returns the JSON's path."""
        away = replace(axis, trait=self.alarm.signal, directions=-axis.directions, up=None, down=None, unfiltered=None)
        return Monitor.of(model, [away]).with_alarms([self.alarm]).save(folder)


def drift_alarm(
    calibration: DriftStudy, evaluation: DriftStudy, *, quiet: Sequence[str] = QUIET, rule: Rule = RULE, rate: float = RATE,
    by: Group = domain_of, seed: int = 0,
) -> DriftAlarm:  # fmt: skip
    """The alarm of the `quiet` groups of `calibration`, tried on `evaluation`. Raises WorkbenchError for two studies of different
    axes, for a conversation in both, and for too few calibration replies for the rate."""
    if not torch.equal(calibration.direction, evaluation.direction) or calibration.hook != evaluation.hook:
        raise WorkbenchError("two studies along different axes", "one axis at one hook point", "read both along the same")
    scripts = [{one.script for one in study.conversations} for study in (calibration, evaluation)]
    if both := sorted(scripts[0] & scripts[1]):
        raise WorkbenchError(f"the conversation {both[0]} serves for calibration and for evaluation", "disjoint conversations",
                             "leave it out of one of the two")  # fmt: skip
    named = [by(calibration.conversations[row]) for row in calibration.readings.row.tolist()]
    chosen = torch.tensor([name in quiet for name in named], dtype=torch.bool)
    told = _statistics(calibration, rule)[chosen]
    threshold = float(conformal_threshold(told, rate))
    raised = _statistics(evaluation, rule) > threshold
    groups, rows = [by(one) for one in evaluation.conversations], evaluation.readings.row
    of = torch.tensor(category_codes(groups).tolist())[rows]
    names = list(dict.fromkeys(groups))
    found = {name: _told(evaluation, raised, of == i, len(told), seed) for i, name in enumerate(names)}
    ordinary = torch.tensor([name in quiet for name in groups])[rows]
    check = {}
    if ordinary.any():
        check = false_alarms(raised[ordinary].double(), category_codes(rows[ordinary].tolist()), len(told), seed)
    signal = f"away from {evaluation.axis}"
    return DriftAlarm(Alarm(signal, rule, threshold, rate, check), str(evaluation.hook), tuple(quiet), found)


def _statistics(study: DriftStudy, rule: Rule) -> torch.Tensor:
    """What is compared of every reply [n]: the rule's statistic of the projection with its sign turned."""
    return torch.stack([rule.statistics(-values[:, None])[0] for values in study.readings.values])


def _told(study: DriftStudy, raised: torch.Tensor, here: torch.Tensor, n_calibration: int, seed: int) -> dict[str, Any]:
    rows, turns = study.readings.row[here], study.readings.turn[here]
    own = raised[here]
    firsts = [int(turns[own & (rows == row)].min()) + 1 for row in sorted(set(rows[own].tolist()))]
    n = len(set(rows.tolist()))
    return {
        "replies": false_alarms(own.double(), category_codes(rows.tolist()), n_calibration, seed), "n_conversations": n,
        "conversations": len(firsts) / n, "first_turn": float(torch.tensor(firsts).double().median()) if firsts else None,
    }  # fmt: skip
