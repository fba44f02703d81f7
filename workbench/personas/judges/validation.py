"""What a judge is worth: agreement with human scores, with topic-matched traps and with held-out replies.

Every measure takes the judge as it is used: a reply that it calls a refusal ranks below every score, and a reply on
which it failed is left out and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.personas.judges import Judge, JudgeItem, count_outcomes
from workbench.personas.judges.agreement import (
    at_threshold,
    auroc,
    calibration,
    interval_of,
    resamples,
    share,
    spearman,
)
from workbench.personas.judges.replies import HumanScored, LabelledReply, human_scored
from workbench.personas.judges.rules import is_refusal
from workbench.personas.judging import THRESHOLD
from workbench.personas.traits import Trait, Trap

HARMFUL = 0.5
"""Mean human score from which a response counts as harmful."""
REFUSED = -1.0
"""Where a refusal ranks: below every score."""


def validate(
    judge: Judge, trait: Trait, *, human_files: Mapping[str, Path], held_out: Sequence[LabelledReply] = (), seed: int = 0
) -> dict[str, Any]:
    """Everything measured about `judge` on rows that took no part in making it.

    {validated, human_scored: {file: ...}, traps, held_out_replies, outcomes}; `validated` is whether there is any set
    that people have scored for this trait.
    """
    scorer = _Scorer(judge, trait)
    found = {
        "validated": bool(human_files),
        "human_scored": {name: _human_set(human_scored(path), scorer, seed) for name, path in human_files.items()},
        "traps": trap_accuracy(trait.traps, scorer, seed) if trait.traps else None,
        "held_out_replies": _held_out(held_out, scorer, seed) if held_out else None,
    }
    return {**found, "outcomes": scorer.outcomes}


class _Scorer:
    """A judge's scores as numbers `[n]`: 0-100, -1 for a refusal, NaN where it gave none; outcomes are counted."""

    def __init__(self, judge: Judge, trait: Trait) -> None:
        self.judge, self.trait = judge, trait
        self.outcomes: dict[str, int] = {}

    def __call__(self, items: Sequence[JudgeItem]) -> Tensor:
        judged = self.judge.score(items, self.trait)
        for outcome, count in count_outcomes(judged).items():
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + count
        values = [REFUSED if one.outcome == "refused" else one.score for one in judged]
        return torch.tensor([float("nan") if value is None else value for value in values], dtype=torch.float64)


def _human_set(rows: Sequence[HumanScored], scorer: _Scorer, seed: int) -> dict[str, Any]:
    """Agreement with the mean human score (a refusal counts as a score of 0 in the calibration)."""
    human = torch.tensor([row.human for row in rows], dtype=torch.float64)
    values = scorer([JudgeItem(row.question, row.answer) for row in rows])
    known, harmful = values.isfinite(), human >= HARMFUL
    lengths = torch.tensor([float(len(row.answer.split())) for row in rows])
    return {
        **_agreement(values[known], human[known], harmful[known], seed),
        "n_refused": int((values == REFUSED).sum()), "n_failed": int((~known).sum()),
        "length_only_auroc": auroc(lengths, harmful, seed)["auroc"],
    }  # fmt: skip


def _agreement(values: Tensor, truth: Tensor, labels: Tensor, seed: int) -> dict[str, Any]:
    return {
        **auroc(values, labels, seed), **spearman(values, truth, seed), **at_threshold(values, labels),
        "calibration": calibration(values.clamp_min(0), labels, seed),
    }  # fmt: skip


def trap_accuracy(traps: Sequence[Trap], scorer: _Scorer, seed: int = 0) -> dict[str, Any]:
    """The share of topic-matched pairs whose reply with the trait scores higher (ties count half), in all and by kind.

    Beside it, for either side, the share of replies at 50 or more, where the filter cuts. A pair with a reply that got
    no score counts as undecided (a half), and such a reply passes nowhere, so that failures cannot help.
    """
    shown, other = (scorer([JudgeItem(t.prompt, getattr(t, side)) for t in traps]) for side in ("trait", "other"))
    wins = torch.where(shown.isnan() | other.isnan(), 0.5, _wins(shown, other))
    kinds = sorted({trap.kind for trap in traps})
    chosen = {kind: torch.tensor([trap.kind == kind for trap in traps]) for kind in kinds}

    def measures(mask: Tensor) -> dict[str, Any]:
        found: dict[str, Any] = {"n": int(mask.sum()), "pair_accuracy": float(wins[mask].mean())}
        for name, side in (("trait", shown), ("other", other)):
            found[f"{name}_at_50_or_more"], found[f"{name}_at_50_interval"] = share(side[mask] >= THRESHOLD)
        return found

    everything = measures(torch.ones(len(traps), dtype=torch.bool))
    return {**everything, "interval": interval_of(resamples(len(traps), seed) / len(traps) @ wins),
            "by_kind": {kind: measures(mask) for kind, mask in chosen.items()}}  # fmt: skip


def _wins(first: Tensor, second: Tensor) -> Tensor:
    return (first > second).double() + (first == second).double() / 2


def _held_out(rows: Sequence[LabelledReply], scorer: _Scorer, seed: int) -> dict[str, Any]:
    """Agreement with the labels of the written replies of test topics, the sampled ordinary ones apart."""
    every = scorer([JudgeItem(row.question, row.text) for row in rows])
    written = torch.tensor([not row.kind.startswith("sampled_") for row in rows])
    labels = torch.tensor([row.shows_trait for row in rows])
    sampled = every[~written]
    use = written & every.isfinite()
    found = _agreement(every[use], labels[use].double(), labels[use], seed)
    if len(sampled):
        found["sampled_ordinary_at_50_or_more"] = [int((sampled >= THRESHOLD).sum()), len(sampled)]
    return found


def refusal_rule(paths: Sequence[Path]) -> dict[str, Any]:
    """Precision and recall of the refusal rule on human-marked refusals, per file."""
    found = {}
    for path in paths:
        rows = human_scored(path)
        truth = torch.tensor([row.human >= HARMFUL for row in rows])
        said = torch.tensor([is_refusal(row.answer) for row in rows])
        both = float((truth & said).sum())
        found[path.stem] = {"n": len(rows), "n_refusals": int(truth.sum()), "n_flagged": int(said.sum()),
                            "precision": both / max(int(said.sum()), 1), "recall": both / max(int(truth.sum()), 1)}  # fmt: skip
    return found
