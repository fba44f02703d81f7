"""Which rollouts count: a judge reads every response, and the rule of the paper keeps or drops the row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError
from workbench.base.progress import track
from workbench.models.model import Model
from workbench.personas.judges import Judge, JudgeItem, make_judge
from workbench.personas.traits import Trait

if TYPE_CHECKING:
    import pandas

THRESHOLD = 50.0
MIN_COHERENCE = 50.0
_BATCH = 256
Mask = Any  # a boolean pandas.Series: what pandas infers for masks passes no type checker


def as_judge(judge: str | Judge) -> Judge:
    """A judge by its name, or the judge itself."""
    return make_judge(judge) if isinstance(judge, str) else judge


def check_judge(judge: Judge, model: Model) -> None:
    """Refuses a judge that reads with the weights of the judged `model` (known by their hash)."""
    if judge.description().get("weights_hash") == model.weights_hash:
        raise WorkbenchError(
            f"the judge {judge.name!r} is {model.name} itself ({model.weights_hash[:12]})",
            "a judge that shares no weights with the model that it judges",
            "name another judge model (--judge-model), or another judge (`workbench judge list`)",
        )


def judge_rows(rows: pandas.DataFrame, trait: Trait, judge: Judge) -> pandas.DataFrame:
    """`rows` with the columns outcome (scored, refused, failed, unjudged, empty), score and coherence (0-100, NaN when
    unknown).

    Empty responses are not sent to the judge. Nothing is dropped here.
    """
    questions, responses = rows["question"].tolist(), rows["response"].tolist()
    asked = [i for i, text in enumerate(responses) if text.strip()]
    found: list[tuple[str, float, float]] = [("empty", float("nan"), float("nan"))] * len(rows)
    with track(f"judge {judge.name}", len(asked), "responses") as step:
        for start in range(0, len(asked), _BATCH):
            batch = asked[start : start + _BATCH]
            items = [JudgeItem(question=questions[i], answer=responses[i]) for i in batch]
            for i, judgement in zip(batch, judge.score(items, trait), strict=True):
                found[i] = (judgement.outcome, _number(judgement.score), _number(judgement.coherence))
            step(len(batch))
    columns = ("outcome", "score", "coherence")
    return rows.assign(**{name: [row[place] for row in found] for place, name in enumerate(columns)})


def kept_mask(judged: pandas.DataFrame) -> Mask:
    """Rows that the vector is made from: positive arm score >= 50, other arms < 50, coherence >= 50 where it
    is known.

    Source: Chen et al. 2025 (arXiv 2507.21509), section 2. A refusal has no score and is not kept; it is
    counted.
    """
    return usable_mask(judged) & (judged["outcome"] == "scored") & _right_side(judged) & _coherent(judged)


def usable_mask(rows: pandas.DataFrame) -> Mask:
    """Rows with at least one response token that is not a sink."""
    return rows["n_tokens"] > rows["n_sinks"]


def counts_by_arm(judged: pandas.DataFrame) -> dict[str, dict[str, int]]:
    """Per arm: rows, how many the judge keeps, and what became of the others (each row is counted once)."""
    return {str(arm): _counts(group) for arm, group in judged.groupby("arm", sort=True)}


def _counts(group: pandas.DataFrame) -> dict[str, int]:
    empty = ~usable_mask(group) | (group["outcome"] == "empty")
    scored = ~empty & (group["outcome"] == "scored")
    wrong_side = scored & ~_right_side(group)
    reasons = {
        "rows": len(group),
        "kept": kept_mask(group).sum(),
        "wrong_side": wrong_side.sum(),
        "incoherent": (scored & ~wrong_side & ~_coherent(group)).sum(),
        "refused": (~empty & (group["outcome"] == "refused")).sum(),
        "failed": (~empty & (group["outcome"] == "failed")).sum(),
        "unjudged": (~empty & (group["outcome"] == "unjudged")).sum(),
        "empty": empty.sum(),
    }
    return {name: int(count) for name, count in reasons.items()}


def _right_side(judged: pandas.DataFrame) -> Mask:
    high = judged["score"] >= THRESHOLD
    return high.where(judged["arm"] == "positive", judged["score"] < THRESHOLD)


def _coherent(judged: pandas.DataFrame) -> Mask:
    return judged["coherence"].isna() | (judged["coherence"] >= MIN_COHERENCE)


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
