"""Steering along the axis, both ways, and what the model then says of itself; random directions at the same norm and the same KL.

h + dose * |h| * u at the axis' block where replies are predicted, |h| the median token norm (Lu et al. 2026, arXiv 2601.10387).
Positive doses point toward the assistant. The unit of every interval is the question; where several random directions are
pooled, they are drawn beside the questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from workbench.axis.jailbreak.attempts import Arm, Attempt
from workbench.axis.jailbreak.rates import Rate, rate
from workbench.base.display import Shown
from workbench.base.progress import track
from workbench.personas.judges.rules import coherence
from workbench.personas.judging import MIN_COHERENCE
from workbench.steering.edits import Edit

from .identity import HELPERS, claims, names_helper, validate_identity
from .style import style

if TYPE_CHECKING:
    from workbench.axis.jailbreak.harness import ReplyBench
    from workbench.axis.questions import Question
    from workbench.personas.vectors import PersonaVector

DOSES = (-0.3, -0.2, -0.1, 0.1, 0.2, 0.3)
MEASURES = ("other_identity", "helper", "exclamations", "archaic", "backstory", "coherent")
"""Shares of replies, but exclamations (per sentence) and archaic (words per 100)."""
AS_IT_IS, EQUAL_NORM, EQUAL_KL = "as it is", "random, equal norm", "random, equal KL"


@dataclass(frozen=True)
class DoseRow:
    """One dose: every measure on the axis, what the random directions do, and the difference with its interval."""

    dose: float
    kl: float
    axis: Mapping[str, Rate]
    random: Mapping[str, Mapping[str, Rate]]
    """{"random, equal norm" or "random, equal KL": {measure: Rate}}"""
    beyond: Mapping[str, Mapping[str, Rate]]
    """{the same: {measure: axis less random, paired by question}}"""


@dataclass(frozen=True, eq=False, repr=False)
class SelfDescription(Shown):
    """What a model says of itself at each dose. `base`: unsteered. `validation`: the claim detector on written examples."""

    base: Mapping[str, Rate]
    rows: tuple[DoseRow, ...]
    helpers: Mapping[str, Mapping[str, int]]
    """{dose: {trade: replies that claim it}}, where any do."""
    validation: Mapping[str, Any]
    told: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON types, without a word of any reply."""
        def plain(found: Mapping[str, Rate]) -> dict[str, Any]:
            return {name: one.to_list() for name, one in found.items()}

        doses = [{"dose": row.dose, "kl": row.kl, "axis": plain(row.axis), "random": {k: plain(v) for k, v in row.random.items()},
                  "beyond": {k: plain(v) for k, v in row.beyond.items()}} for row in self.rows]  # fmt: skip
        return {"base": plain(self.base), "doses": doses, "helpers": {k: dict(v) for k, v in self.helpers.items()},
                "validation": dict(self.validation), **self.told}  # fmt: skip


def self_description(
    bench: ReplyBench, axis: PersonaVector, questions: Sequence[Question], randoms: Sequence[PersonaVector], *,
    doses: Sequence[float] = DOSES, n_samples: int = 4, equal_kl: bool = True, seed: int = 0,
) -> SelfDescription:  # fmt: skip
    """Replies to `questions` without a system prompt, at every dose of the axis and of `randoms` (same block).

    A model without a chat format is asked in plain text (`models.prompts`). Every reply is kept in the bench's folder.
    """
    attempts = [Attempt(one.id, "", "", one.text, sample) for one in questions for sample in range(n_samples)]
    base = _measured(bench, Arm(AS_IT_IS), attempts)
    rows, helpers = [], {}
    with track("doses", len(doses), "doses") as step:
        for dose in doses:
            arm = Arm(f"dose {dose:+g}", (_add(axis, axis, dose),))
            mine = _measured(bench, arm, attempts)
            kl = bench.kl(arm.edits)
            helpers[f"{dose:+g}"] = _trades(mine)
            theirs = {EQUAL_NORM: _pooled(bench, axis, randoms, [dose] * len(randoms), attempts)}
            if equal_kl and kl > 1e-5:
                matched = [_dose_at(bench, axis, one, kl, 1 if dose > 0 else -1) for one in randoms]
                theirs[EQUAL_KL] = _pooled(bench, axis, randoms, matched, attempts)
            theirs = {name: pooled for name, pooled in theirs.items() if pooled}
            rows.append(DoseRow(dose, kl, _rates(mine, seed), {name: _rates(one, seed) for name, one in theirs.items()},
                                {name: _beyond(mine, one, seed) for name, one in theirs.items()}))  # fmt: skip
            step()
    told = {"n_questions": len(questions), "n_samples": n_samples, "n_random": len(randoms), "model": bench.model.name,
            "vector": axis.trait, "hook": str(axis.hook), "plain_text": bench.model.plain_text}  # fmt: skip
    return SelfDescription(_rates(base, seed), tuple(rows), {k: v for k, v in helpers.items() if v}, validate_identity(), told)


def _add(axis: PersonaVector, direction: PersonaVector, dose: float) -> Edit:
    return Edit.add(direction, dose, hook=axis.hook, scope="predicting")


def _dose_at(bench: ReplyBench, axis: PersonaVector, direction: PersonaVector, kl: float, sign: int) -> float:
    """The dose of that sign that moves neutral text by `kl`: that of the other sign may take another dose."""
    return sign * round(bench.neutral.dose(lambda dose: (_add(axis, direction, sign * abs(dose)),), kl), 6)


def _pooled(
    bench: ReplyBench, axis: PersonaVector, randoms: Sequence[PersonaVector], doses: Sequence[float], attempts: Sequence[Attempt]
) -> list[dict[str, Any]]:
    """The measured rows of all random directions, each named as a row's `persona`, so that intervals draw directions too."""
    found = []
    for one, dose in zip(randoms, doses, strict=True):
        rows = _measured(bench, Arm(f"{one.trait} {dose:+.3g}", (_add(axis, one, dose),)), attempts)
        found += [{**row, "persona": one.trait} for row in rows]
    return found


def _measured(bench: ReplyBench, arm: Arm, attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    rows = bench.said(arm, attempts)
    claimed = claims([row["response"] for row in rows])
    return [{"prompt": row["prompt"], "persona": "", "sample": row["sample"], "other_identity": float(claim >= 0.5),
             "trade": names_helper(row["response"]), "helper": float(names_helper(row["response"]) is not None),
             "coherent": float(coherence(row["response"]) >= MIN_COHERENCE), **style(row["response"])}
            for row, claim in zip(rows, claimed, strict=True)]  # fmt: skip


def _rates(rows: Sequence[Mapping[str, Any]], seed: int) -> dict[str, Rate]:
    return {measure: rate(rows, measure, seed=seed) for measure in MEASURES}


def _beyond(mine: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]], seed: int) -> dict[str, Rate]:
    """The mean of (axis - random) over the same question and sample, questions crossed with directions."""
    own = {(row["prompt"], row["sample"]): row for row in mine}
    gaps = [{"prompt": row["prompt"], "persona": row["persona"],
             **{measure: own[row["prompt"], row["sample"]][measure] - row[measure] for measure in MEASURES}}
            for row in theirs]  # fmt: skip
    return _rates(gaps, seed)


def _trades(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    counts = {trade: sum(row["trade"] == trade for row in rows) for trade in HELPERS}
    return {trade: count for trade, count in counts.items() if count}
