"""The full causal view: sampled answers of a steered model, read by a judge that filtered nothing.

Every direction is added at the same dose in both directions while the model answers the evaluation questions, many
directions in one batch. Per direction, over questions (the unit of the bootstrap):

    odd = (score(+) - score(-)) / 2        even = (score(+) + score(-)) / 2 - score(0)        points of 0-100

A refusal shows no trait and counts as 0 points; an answer that was not judged is left out, and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.base.errors import WorkbenchError
from workbench.base.progress import track
from workbench.base.randomness import derive_seed, generator
from workbench.base.store import content_hash, read_parquet, write_parquet
from workbench.base.tensors import tensor_hash
from workbench.maths.statistics import bootstrap_counts, percentile_interval
from workbench.models.editing import adding
from workbench.models.generation import generate
from workbench.models.sampling import Sampling
from workbench.personas.judges import Judge
from workbench.personas.judging import check_judge, judge_rows
from workbench.personas.reencoding import prompt_tokens

from ..methods import decoder_of

if TYPE_CHECKING:
    import pandas

    from workbench.models.hookpoints import HookPoint
    from workbench.models.model import Model
    from workbench.personas.traits import Category, Question, Trait
    from workbench.saes.interface import SparseAutoencoder

    from ..result import Decomposition

DOSE = 0.25
SPLITS = ("verification", "sealed")
N_BOOTSTRAP = 1000
N_CONTROLS = 10
"""Controls of a screen that are sampled from."""
UNSTEERED = ""
"""The name of the rows without a delta."""
_GROUP = 16


def steered_answers(
    model: Model,
    hook: HookPoint,
    directions: Mapping[str, Tensor],
    questions: Sequence[Question],
    *,
    dose: float = DOSE,
    n_samples: int = 1,
    sampling: Sampling | None = None,
    batch_size: int = 64,
    folder: str | Path | None = None,
    seed: int = 0,
) -> pandas.DataFrame:
    """Answers under +dose and -dose of every direction [d_model] (any length), and without: one row per name, sign, question
    and sample; columns name, sign (1, -1, 0), question_id, sample, question, response, n_tokens.

    `dose` is in median token norms; deltas act where response tokens are predicted. Sampling noise is shared: a question's
    sample has the same seed under every delta. With `folder`, finished groups of 16 directions are kept there and taken up.
    """
    import pandas as pd

    if UNSTEERED in directions or not directions:
        raise WorkbenchError(f"directions named {sorted(directions)}", "one or more, each with a name", "name them")
    sampling = sampling or Sampling(max_new_tokens=64)
    length = dose * float(model.norm_medians([hook])[0])
    unit = {name: torch.nn.functional.normalize(one.float(), dim=0) * length for name, one in directions.items()}
    pushes = [(UNSTEERED, 0, torch.zeros(model.d_model))]
    pushes += [(name, sign, sign * delta) for name, delta in unit.items() for sign in (1, -1)]
    frames = []
    with track("steered answers", len(pushes) * len(questions) * n_samples, "answers") as step:
        for start in range(0, len(pushes), 2 * _GROUP):
            group = pushes[start : start + 2 * _GROUP]
            key = _key(model, hook, group, questions, n_samples, sampling, seed)
            path = None if folder is None else Path(folder) / f"{key}.parquet"
            if path is not None and path.is_file():
                frame = read_parquet(path).to_pandas()
            else:
                frame = _sampled(model, hook, group, questions, n_samples, sampling, batch_size, seed)
                if path is not None:
                    write_parquet(path, frame)
            frames.append(frame)
            step(len(frame))
    return pd.concat(frames, ignore_index=True)


def screened_answers(
    parts: Decomposition,
    model: Model,
    sae: SparseAutoencoder,
    trait: Trait,
    screened: Mapping[str, Any],
    judge: Judge,
    *,
    filtered_by: str | None = None,
    seed: int = 0,
    **sampling: Any,
) -> dict[str, Any]:
    """`judged_effects` of the vector, every screened feature and ten of its controls (`screen`) on the evaluation questions.

    `sampling` goes to `steered_answers`: n_samples, sampling, batch_size, folder.
    """
    decoder = decoder_of(sae)
    rows = screened["features"] + screened["controls"][:N_CONTROLS]
    directions = {"vector": parts.direction} | {str(row["feature"]): row["sign"] * decoder[row["feature"]] for row in rows}
    answers = steered_answers(model, sae.hook, directions, trait.questions_of(*SPLITS), seed=seed, **sampling)
    return judged_effects(answers, trait, judge, model, filtered_by=filtered_by, seed=seed)


def _key(model: Model, hook: HookPoint, group: list, questions: Sequence[Question], *rest: Any) -> str:
    deltas = [(name, sign, tensor_hash(delta)) for name, sign, delta in group]
    asked = [question.text for question in questions]
    return content_hash([model.weights_hash, str(hook), str(model.dtype), deltas, asked, *map(str, rest)])[:24]


def _sampled(
    model: Model, hook: HookPoint, pushes: list, questions: Sequence[Question], n_samples: int, sampling: Sampling,
    batch_size: int, seed: int,
) -> pandas.DataFrame:  # fmt: skip
    import pandas as pd

    rows = [
        {"name": name, "sign": sign, "question_id": question.id, "sample": sample, "question": question.text, "delta": delta}
        for question in questions for sample in range(n_samples) for name, sign, delta in pushes
    ]  # fmt: skip
    prompts = [prompt_tokens(model, "", row["question"]) for row in rows]
    seeds = [derive_seed("steered answers", f"{seed} {row['question_id']} {row['sample']}") for row in rows]
    deltas = torch.stack([row.pop("delta") for row in rows])
    with adding(model, hook, deltas, scope="predicting"):
        for indices, answers in generate(model, prompts, sampling, row_seeds=seeds, batch_size=batch_size):
            for index, answer in zip(indices, answers, strict=True):
                rows[index] |= {"response": answer.text, "n_tokens": len(answer.response_ids)}
    return pd.DataFrame(rows)


def judged_effects(
    answers: pandas.DataFrame, trait: Trait, judge: Judge, model: Model, *, filtered_by: str | None = None, seed: int = 0
) -> dict[str, Any]:
    """Per direction the judge's odd and even points with intervals over questions, coherence, and sub-traits.

    Returns {judge, n_questions, outcomes: {outcome: answers}, unsteered: {score, coherence, refused, sub_traits}, directions:
    {name: {odd, interval, even,
    coherence (mean change of both signs), refused, sub_traits: {category: odd change of its word rate per 100 words}}}}.
    Raises WorkbenchError for a judge that filtered the rollouts behind the vector (`filtered_by`), or that is the model.
    """
    if judge.name == filtered_by:
        raise WorkbenchError(
            f"{judge.name} filtered the rollouts that the vector is made from",
            "a judge that shares nothing with it",
            "score the outcome with another judge (`workbench judge list`), offline-outcome for instance",
        )
    check_judge(judge, model)
    judged: Any = judge_rows(answers, trait, judge)
    known = judged["score"].where(judged["outcome"] == "scored")  # what was not judged is unknown, not 0
    judged["points"] = known.where(judged["outcome"] != "refused", 0.0)
    judged["refused"] = (judged["outcome"] == "refused").astype(float)
    shown = [category for category in trait.taxonomy if category.shows_trait and category.words]
    for category in shown:
        judged[f"words {category.id}"] = [_word_rate(text, category) for text in judged["response"]]
    measured = ["points", "coherence", "refused", *(f"words {category.id}" for category in shown)]
    means = judged.groupby(["name", "sign", "question_id"], sort=True)[measured].mean()
    n_questions = judged["question_id"].nunique()
    draws: Tensor = bootstrap_counts(n_questions, N_BOOTSTRAP, generator(derive_seed("steered answers", seed))) / n_questions
    base = {column: _by_question(means, UNSTEERED, 0, column) for column in measured}
    names = [name for name in answers["name"].unique() if name != UNSTEERED]
    return {
        "judge": judge.name,
        "n_questions": n_questions,
        "outcomes": {str(name): int(count) for name, count in judged["outcome"].value_counts().items()},
        "unsteered": {
            "score": float(base["points"].nanmean()), "coherence": float(base["coherence"].nanmean()),
            "refused": float(base["refused"].mean()),
            "sub_traits": {category.id: float(base[f"words {category.id}"].mean()) for category in shown},
        },
        "directions": {name: _effect(means, name, base, draws, shown) for name in names},
    }  # fmt: skip


def _effect(
    means: Any, name: str, base: dict[str, Tensor], draws: Tensor, shown: Sequence[Category]
) -> dict[str, Any]:
    def odd_even(column: str) -> tuple[Tensor, Tensor]:
        up, down = _by_question(means, name, 1, column), _by_question(means, name, -1, column)
        return (up - down) / 2, (up + down) / 2 - base[column]

    odd, even = odd_even("points")
    known = odd.isfinite()
    low, high = percentile_interval((draws[:, known] @ odd[known]) / draws[:, known].sum(dim=1))
    return {
        "odd": float(odd.nanmean()), "interval": [float(low), float(high)], "even": float(even.nanmean()),
        "coherence": float(odd_even("coherence")[1].nanmean()), "refused": float(odd_even("refused")[0].mean()),
        "sub_traits": {category.id: float(odd_even(f"words {category.id}")[0].mean()) for category in shown},
    }  # fmt: skip


def _by_question(means: Any, name: str, sign: int, column: str) -> Tensor:
    return torch.tensor(means.loc[(name, sign)][column].to_numpy(dtype=float).copy())


def _word_rate(text: str, category: Category) -> float:
    """The category's words per 100 words of a text."""
    words = [word.strip(".,;:!?\"'()").lower() for word in text.split()]
    wanted = {word.lower() for word in category.words}
    return 100 * sum(word in wanted for word in words) / len(words) if words else 0.0
