"""Does the direction tell the two arms apart where it was not made? AUC on unseen questions x unseen
instructions.

For each way to divide the instructions (five: the ten 3 / 2 divisions) a direction is made from the
extraction questions under the first part, and scores the evaluation questions under the second part; the AUC
is the mean over the divisions. The scored responses are re-encoded *without* the system prompt, so that
nothing of the instruction itself is in context.

Intervals are a crossed bootstrap: extraction questions, evaluation questions and instructions are each drawn
with replacement; a row counts (times its question was drawn) x (times its instruction was drawn). Inside
every replicate the directions are made again from the drawn rows and the AUC is weighted by the drawn rows;
the divisions stay those of the original instructions, so that a copy of an instruction never stands on both
sides, and a division that lost one side is left out of its replicate. Percentiles 2.5 and 97.5. Source of the
rules: rigour of nulls in Chen et al.'s setting; Owen 2007 for the crossed bootstrap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.maths.separation import (
    balanced_contrast_weights,
    covariance_matched_directions,
    replicated_auc,
)
from workbench.maths.statistics import auc, bootstrap_counts, percentile_interval, rank_p

MAX_DIVISIONS = 20
N_FOLDS = 5


@dataclass(frozen=True, repr=False)
class Rows(Shown):
    """Rows of the positive and the negative arm, in codes: all tensors `[n]`."""

    question: Tensor
    instruction: Tensor
    positive: Tensor
    keep: Tensor
    """1 where the judge kept the row, else 0; only used where a direction is made."""


@dataclass(frozen=True, repr=False)
class Cell(Shown):
    """One division of the data: rows that make the direction, rows that are scored (bool `[n]` each)."""

    make: Tensor
    score: Tensor


@dataclass(frozen=True, repr=False)
class Draws(Shown):
    """How often each question and instruction counts in every replicate `[B, ...]`; replicate 0 is the data
    as it is."""

    make_questions: Tensor
    score_questions: Tensor
    instructions: Tensor


def instruction_divisions(n_instructions: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(makes the direction, is scored): all ways to take the larger half, at most 20 of them, evenly spaced.

    A single instruction stands on both sides: only the questions are unseen then.
    """
    if n_instructions < 2:
        return [((0,), (0,))]
    everything = range(n_instructions)
    makers = list(combinations(everything, (n_instructions + 1) // 2))
    chosen = makers[:: -(-len(makers) // MAX_DIVISIONS)]
    return [(maker, tuple(i for i in everything if i not in maker)) for maker in chosen]


def division_cells(make: Rows, score: Rows, n_instructions: int) -> list[Cell]:
    """One cell per division of the instructions."""
    return [
        Cell(_among(make.instruction, makers), _among(score.instruction, scored))
        for makers, scored in instruction_divisions(n_instructions)
    ]


def fold_cells(rows: Rows, n_instructions: int) -> list[Cell]:
    """Cells for choosing a block: every fold of held-out questions x every division of the instructions."""
    n_folds = min(N_FOLDS, int(rows.question.max()) + 1)
    cells = []
    for fold in range(n_folds):
        held_out = rows.question % n_folds == fold
        for cell in division_cells(rows, rows, n_instructions):
            cells.append(Cell(cell.make & ~held_out, cell.score & held_out))
    return cells


def draw(
    n_make: int, n_score: int | None, n_instructions: int, n_bootstrap: int, generator: torch.Generator
) -> Draws:
    """Bootstrap draws behind the undrawn replicate 0; `n_score=None` when the scored questions are the same
    ones."""

    def counts(n_items: int) -> Tensor:
        return torch.cat((torch.ones(1, n_items).double(), bootstrap_counts(n_items, n_bootstrap, generator)))

    make = counts(n_make)
    return Draws(make, make if n_score is None else counts(n_score), counts(n_instructions))


def contrasts(rows: Rows, cells: Sequence[Cell], draws: Draws) -> list[Tensor]:
    """Row weights `[B, n]` of the question-balanced mean difference, per cell.

    A cell in which no question kept rows in both arms uses its rows unfiltered (see `n_unfiltered`).
    """
    counts = draws.instructions[:, rows.instruction]
    weights = []
    for cell in cells:
        base = counts * (cell.make * kept_rows(rows, cell))
        weights.append(balanced_contrast_weights(rows.question, rows.positive, base, draws.make_questions))
    return weights


def n_unfiltered(rows: Rows, cells: Sequence[Cell]) -> int:
    """In how many cells the judge left no question with both arms."""
    return sum(not _covers(rows, cell.make * rows.keep) for cell in cells)


def held_out_aucs(
    weights: Sequence[Tensor], gram: Tensor, rows: Rows, cells: Sequence[Cell], draws: Draws
) -> Tensor:
    """AUC `[B, n_cells]` of the scored rows, NaN where a side is missing; `gram [n_make, n_score]` = inner
    products."""
    counts = draws.score_questions[:, rows.question] * draws.instructions[:, rows.instruction]
    columns = []
    for weight, cell in zip(weights, cells, strict=True):
        scored = cell.score.nonzero().flatten()
        area = replicated_auc(weight @ gram[:, scored], rows.positive[scored], counts[:, scored])
        columns.append(torch.where(weight.abs().sum(dim=1) > 0, area, torch.nan))
    return torch.stack(columns, dim=1)


def auc_with_interval(areas: Tensor) -> tuple[float | None, list[float] | None]:
    """(AUC, [low, high]) from `held_out_aucs`: means over cells, percentiles over replicates."""
    means = areas.nanmean(dim=1)
    if not bool(torch.isfinite(means[0])):
        return None, None
    low, high = percentile_interval(means[1:]) if len(means) > 1 else (means[0], means[0])
    return float(means[0]), [float(low), float(high)]


def random_aucs(
    activations: Tensor,
    scored: Tensor,
    rows: Rows,
    cells: Sequence[Cell],
    n_random: int,
    generator: torch.Generator,
) -> Tensor:
    """max(AUC, 1 - AUC) `[n_random]` of covariance-matched random directions, on the same rows and divisions.

    A random direction is the same in all divisions; its AUC is the mean over them, and its sign is chosen
    afterwards, which makes the null harder than the signed direction that it is compared with.
    """
    directions = covariance_matched_directions(activations, n_random, generator)
    scores = directions @ scored.float().T
    areas = [auc(scores[:, cell.score], rows.positive[cell.score]) for cell in cells if _both(rows, cell)]
    mean = torch.stack(areas).mean(dim=0)
    return torch.maximum(mean, 1 - mean)


def null_evidence(observed: float, null: Tensor) -> dict[str, Any]:
    """Rank p-value of the observed AUC and the 95th percentile of the random directions."""
    quantile = float(torch.quantile(null, 0.95))
    return {"auc_rank_p": float(rank_p(observed, null)), "auc_random_q95": quantile, "n_random": len(null)}


def length_auc(
    make_lengths: Tensor, score_lengths: Tensor, make: Rows, score: Rows, cells: Sequence[Cell]
) -> float | None:
    """AUC of the response length alone; which arm is longer is learnt from all rows of the making side, kept or not."""

    def scores(cell: Cell) -> Tensor:
        used = cell.make
        return _toward(make_lengths[used], make.positive[used]) * score_lengths[cell.score]

    return _mean_over_cells(cells, score, scores)


def text_auc(
    make_texts: list[str], score_texts: list[str], make: Rows, score: Rows, cells: Sequence[Cell]
) -> float | None:
    """AUC of TF-IDF (words and pairs of words) with logistic regression, on the divisions of the direction.

    It learns from all rows of the making side: the arms are its labels, so it needs no judge to choose among them.
    """

    def scores(cell: Cell) -> Tensor:
        made = _pick(make_texts, cell.make)
        return text_scores(made, make.positive[cell.make], _pick(score_texts, cell.score))

    return _mean_over_cells(cells, score, scores)


def features_auc(
    make_features: Tensor, score_features: Tensor, make: Rows, score: Rows, cells: Sequence[Cell]
) -> float | None:
    """AUC of logistic regression on text features `[n, k]`, learnt from all rows of the making side like `text_auc`."""
    from sklearn.linear_model import LogisticRegression

    mean, spread = make_features.mean(dim=0), make_features.std(dim=0).clamp_min(1e-6)

    def scores(cell: Cell) -> Tensor:
        used = cell.make
        labels = make.positive[used]
        if bool(labels.all()) or not bool(labels.any()):
            return torch.zeros(int(cell.score.sum()))
        fitted = LogisticRegression(C=0.01, max_iter=300)
        fitted.fit(((make_features[used] - mean) / spread).numpy(), labels.numpy())
        return torch.from_numpy(
            fitted.decision_function(((score_features[cell.score] - mean) / spread).numpy())
        )

    return _mean_over_cells(cells, score, scores)


def judge_correlation(
    weights: Sequence[Tensor], gram: Tensor, rows: Rows, cells: Sequence[Cell], judged: Tensor
) -> float | None:
    """Spearman correlation of projection and judge score *within* the positive arm, mean over cells (None if
    undefined).

    Between arms any difference separates; within one arm only what the judge sees does.
    """
    from scipy.stats import spearmanr

    values = []
    for weight, cell in zip(weights, cells, strict=True):
        chosen = cell.score & rows.positive & torch.isfinite(judged)
        scores = (weight[0] @ gram)[chosen]
        if len(scores) > 2 and scores.std() > 0 and judged[chosen].std() > 0:
            values.append(float(spearmanr(scores.numpy(), judged[chosen].numpy())[0]))  # pyright: ignore[reportArgumentType]
    return sum(values) / len(values) if values else None


def _mean_over_cells(cells: Sequence[Cell], rows: Rows, scores_of: Any) -> float | None:
    areas = [
        float(auc(scores_of(cell).double(), rows.positive[cell.score])) for cell in cells if _both(rows, cell)
    ]
    return sum(areas) / len(areas) if areas else None


def text_classifier(texts: list[str], positive: Tensor) -> Any:
    """TF-IDF (words and pairs of words) with logistic regression, fitted; None where one class or all words are missing."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    if len(set(positive.tolist())) < 2 or not any(len(word) > 1 for text in texts for word in text.split()):
        return None
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    return make_pipeline(words, LogisticRegression(C=10.0, max_iter=1000)).fit(texts, positive.numpy())


def text_scores(texts: list[str], positive: Tensor, scored: list[str]) -> Tensor:
    """Scores `[n]` of `scored` by TF-IDF and logistic regression, learnt from `texts` with their labels `positive`; 0 where
    there is nothing to learn."""
    fitted = text_classifier(texts, positive)
    return torch.zeros(len(scored)) if fitted is None else torch.from_numpy(fitted.decision_function(scored))


def _toward(values: Tensor, positive: Tensor) -> Tensor:
    return torch.sign(values[positive].double().mean() - values[~positive].double().mean()).nan_to_num()


def _pick(texts: list[str], mask: Tensor) -> list[str]:
    return [texts[i] for i in mask.nonzero().flatten().tolist()]


def _among(codes: Tensor, wanted: Sequence[int]) -> Tensor:
    return torch.isin(codes, torch.tensor(wanted))


def _both(rows: Rows, cell: Cell) -> bool:
    labels = rows.positive[cell.score]
    return bool(labels.any()) and not bool(labels.all())


def kept_rows(rows: Rows, cell: Cell) -> Tensor:
    """The judge's choice `[n]`, or all rows where it left the cell no question with both arms."""
    return rows.keep if _covers(rows, cell.make * rows.keep) else torch.ones_like(rows.keep)


def _covers(rows: Rows, base: Tensor) -> bool:
    held = base > 0
    arms = (set(rows.question[held & arm].tolist()) for arm in (rows.positive, ~rows.positive))
    return bool(set.intersection(*arms))
