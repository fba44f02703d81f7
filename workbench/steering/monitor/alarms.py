"""Alarms: when the values of a reply call for one, and thresholds that keep a stated share of neutral replies silent.

The statistic of a reply is what its alarm is decided on, and an alarm is raised when it exceeds the threshold. Thresholds are
split-conformal: of n calibration replies the threshold is the k-th largest statistic, k = floor(rate (n + 1)), so that a further
reply of the same kind raises an alarm with probability at most `rate` (Vovk, Gammerman and Shafer 2005, "Algorithmic Learning in
a Random World", section 2.2). What is achieved is measured on replies to other questions.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.randomness import generator
from workbench.maths.statistics import bootstrap_counts, category_codes, percentile_interval

STATISTICS = ("running", "mean", "prompt")
N_BOOTSTRAP = 1000


@dataclass(frozen=True)
class Rule:
    """What of a reply's values is compared with the threshold, and when.

    "running": the mean over the last `window` tokens, at every token from the window-th on (the largest of them decides; window
    1 is the largest token); a reply shorter than the window is decided at its end. "mean": the mean over the whole reply, at its
    end. "prompt": the value at the last token of the prompt, before the reply. Sinks have no value and count in no mean.
    """

    statistic: Literal["running", "mean", "prompt"] = "running"
    window: int = 8

    def __post_init__(self) -> None:
        if self.statistic not in STATISTICS:
            raise unknown_name("alarm statistic", self.statistic, STATISTICS)
        if self.window < 1:
            raise WorkbenchError(f"a window of {self.window} tokens", "at least 1", "choose a larger window")

    def path(self, values: Tensor) -> Tensor:
        """What is compared after each token [n_tokens, k], of values [n_tokens, k]; NaN where nothing is decided yet."""
        n = len(values)
        found = torch.full_like(values, torch.nan)
        if not n or self.statistic == "prompt":
            return found
        if self.statistic == "mean" or n < self.window:
            found[-1] = values.nanmean(dim=0)
        else:
            found[self.window - 1 :] = values.unfold(0, self.window, 1).nanmean(dim=-1)
        return found

    def statistics(self, values: Tensor, prompt: Tensor | None = None) -> Tensor:
        """The statistic [k] of a reply; -inf where it has none (no token, nothing but sinks)."""
        if self.statistic == "prompt":
            return torch.full(values.shape[1:], -torch.inf) if prompt is None else prompt.nan_to_num(-torch.inf)
        path = self.path(values)
        return path.nan_to_num(-torch.inf).amax(dim=0) if len(path) else torch.full(values.shape[1:], -torch.inf)


@dataclass(frozen=True)
class Alarm:
    """A threshold on one signal (in the signal's raw unit), the false-positive rate per reply that it was calibrated to, and
    what it achieved on neutral replies to other questions: {rate, interval, n_replies, n_questions, n_calibration}."""

    signal: str
    rule: Rule
    threshold: float
    rate: float
    check: Mapping[str, Any] = field(default_factory=dict)

    def first(self, values: Tensor, prompt: Tensor | None = None) -> int | None:
        """The 1-based token of a reply at which the alarm is raised first, for the signal's values [n_tokens]; 0 for an alarm at
        the prompt; None for no alarm."""
        if self.rule.statistic == "prompt":
            return 0 if prompt is not None and float(prompt) > self.threshold else None
        above = (self.rule.path(values[:, None])[:, 0] > self.threshold).nonzero()
        return int(above[0]) + 1 if len(above) else None


def alarm_from(stored: Mapping[str, Any]) -> Alarm:
    """An alarm from its JSON."""
    return Alarm(**{**stored, "rule": Rule(**stored["rule"])})


@dataclass(frozen=True)
class NeutralReply:
    """Values [n_tokens, n_signals] of a reply that should raise no alarm, and the question that it answers."""

    question: str
    values: Tensor
    prompt: Tensor | None = None


def conformal_threshold(statistics: Tensor, rate: float) -> Tensor:
    """The threshold [...] from statistics [n, ...] of n calibration replies; alarms are strictly above it.

    Raises WorkbenchError when n is too small for the rate (n >= 1 / rate - 1 is needed).
    """
    if not 0 < rate < 1:
        raise WorkbenchError(f"a false-positive rate of {rate}", "a rate between 0 and 1", "choose for instance 0.01")
    k = math.floor(rate * (len(statistics) + 1) + 1e-9)
    if k < 1:
        raise WorkbenchError(
            f"{len(statistics)} calibration replies for a false-positive rate of {rate:g}",
            f"at least {math.ceil(1 / rate - 1 - 1e-9)}",
            "give more neutral replies, or choose a larger rate",
        )
    return statistics.sort(dim=0, descending=True).values[k - 1]


def calibrate(
    names: Sequence[str], replies: Iterable[NeutralReply], *, rule: Rule | None = None, rate: float = 0.01, seed: int = 0
) -> tuple[Alarm, ...]:
    """An alarm for every signal in `names` (the columns of the replies' values).

    Questions are split in two by a hash of their text: one half sets the thresholds, the other one tells the rate that they
    achieve, with a bootstrap interval over its questions (the exact binomial bound over questions where no alarm, or only alarms,
    came). The unit of the rate is the reply.
    """
    rule = rule or Rule()
    rows = list(replies)
    fitting = torch.tensor([_sets_thresholds(row.question, seed) for row in rows], dtype=torch.bool)
    if not bool(fitting.any()) or bool(fitting.all()):
        raise WorkbenchError(f"neutral replies to {len({row.question for row in rows})} questions",
                             "questions on both sides of the split (about ten or more)", "give more neutral chats")  # fmt: skip
    statistics = torch.stack([rule.statistics(row.values, row.prompt) for row in rows])
    thresholds = conformal_threshold(statistics[fitting], rate)
    if not bool(thresholds.isfinite().all()):
        raise WorkbenchError("neutral replies that mostly have no token with a value", "replies with tokens that are no sinks",
                             "give other neutral chats")  # fmt: skip
    questions = category_codes([row.question for row, fit in zip(rows, fitting.tolist(), strict=True) if not fit])
    raised = (statistics[~fitting] > thresholds).double()
    return tuple(
        Alarm(name, rule, float(thresholds[i]), rate, false_alarms(raised[:, i], questions, int(fitting.sum()), seed))
        for i, name in enumerate(names)
    )


def false_alarms(raised: Tensor, questions: Tensor, n_calibration: int, seed: int = 0) -> dict[str, Any]:
    """{rate, interval, n_replies, n_questions, n_calibration} of alarms raised [n] (0 or 1) on replies to `questions` [n]
    (codes)."""
    n_questions = int(questions.max()) + 1
    rate = float(raised.mean())
    if rate in (0.0, 1.0):  # the bootstrap knows nothing: the exact bound, one observation per question
        slack = 1 - 0.025 ** (1 / n_questions)
        interval = [0.0, slack] if rate == 0 else [1 - slack, 1.0]
    else:
        counts = bootstrap_counts(n_questions, N_BOOTSTRAP, generator(seed))[:, questions]
        low, high = percentile_interval((counts @ raised) / counts.sum(dim=1))
        interval = [float(low), float(high)]
    return {"rate": rate, "interval": interval, "n_replies": len(raised), "n_questions": n_questions,
            "n_calibration": n_calibration}  # fmt: skip


def _sets_thresholds(question: str, seed: int) -> bool:
    return hashlib.sha256(f"threshold/{seed}/{question}".encode()).digest()[0] % 2 == 0
