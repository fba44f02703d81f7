"""How well a reply's trait is detected: AUROC on unseen questions under unseen instructions, for every kind of detector.

For each division of the instructions (five: the ten 3 / 2 divisions) a detector is made from the extraction questions under the
first part and scores the evaluation questions under the second; the AUROC is the mean over divisions. Intervals redraw the
evaluation questions (detectors held). All detectors see the same replies as a monitor does: with the system prompt in context.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.randomness import derive_seed, generator
from workbench.maths.separation import (
    balanced_contrast_weights,
    covariance_matched_directions,
    replicated_auc,
)
from workbench.maths.statistics import auc, bootstrap_counts, percentile_interval
from workbench.personas.separability import Cell, Rows, division_cells, kept_rows, text_scores

N_BOOTSTRAP, N_RANDOM = 500, 200
MIN_SHARE = 0.02
"""A feature takes part if it fires in so many of the rows that a detector is made from."""
PENALTIES = (0.01, 0.03, 0.1, 0.3)
DENSE_PENALTIES = (1e-4, 1e-3, 1e-2)
"""Inverse penalties of the probes; grouped cross-validation over the extraction questions chooses."""


@dataclass(frozen=True, eq=False, repr=False)
class Examples(Shown):
    """Replies as a detector sees them: `rows` (question, instruction, arm, kept), mean activations `means` [n, d_model], mean
    feature activations `codes` [n, d_sae] (both over the reply's tokens, system prompt in context), `texts`, and `label` [n]:
    whether a judge calls the reply the trait (1, 0, NaN where it has no score)."""

    rows: Rows
    means: Tensor
    codes: Tensor
    texts: list[str]
    lengths: Tensor
    label: Tensor


Fit = Callable[[Examples, Tensor, Tensor, Examples], Tensor]
"""(made from, which of its rows, their targets (bool, of these rows), scored) -> scores of all scored rows."""


def detection(
    make: Examples, score: Examples, n_instructions: int, *, placebos: Tensor | None = None, n_random: int = N_RANDOM,
    seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """{arm: {...}, judge: {...}}: detection of the persona's arm, and of replies that a judge calls the trait.

    Each is {n_rows, n_questions, share, detectors: {name: {auroc, interval, minus_vector, minus_vector_interval}}, random_q95,
    placebo_q95, features: [chosen by division], probe: {penalty, n_features}}; detectors are vector, vector_unfiltered, feature,
    probe, dense_probe, text, length. The two vectors are the difference of the arms for both targets, from the rows that the
    filtering judge kept and from all; the others are fitted to the target on the making side: the arm there, or what `make.label`
    says. `random_q95` is the 95th percentile of max(AUROC, 1 - AUROC) over covariance-matched directions, `placebo_q95` over the
    placebo directions [n, d_model].
    """
    cells = division_cells(make.rows, score.rows, n_instructions)
    found = {}
    for target, made, scored in (
        ("arm", make.rows.positive.double(), score.rows.positive.double()), ("judge", make.label, score.label)
    ):  # fmt: skip
        drawn = derive_seed("detection", target, seed)
        found[target] = _one_target(make, score, cells, made, scored, placebos, n_random, drawn)
    return found


def _one_target(
    make: Examples, score: Examples, cells: Sequence[Cell], made: Tensor, scored: Tensor, placebos: Tensor | None, n_random: int,
    seed: int,
) -> dict[str, Any]:  # fmt: skip
    random = generator(seed)
    probe = Probe(choose_penalty(make, made))
    feature = BestFeature()
    dense = DenseProbe(choose_penalty(make, made, dense=True))
    fits: dict[str, Fit] = {
        "vector": vector_scores, "vector_unfiltered": unfiltered_scores, "feature": feature, "probe": probe, "dense_probe": dense,
        "text": words_scores, "length": length_scores,
    }  # fmt: skip
    nulls = {"random_q95": covariance_matched_directions(make.means, n_random, random), "placebo_q95": placebos}
    return {
        **compare(fits, make, score, cells, made, scored, base="vector", seed=seed),
        **{name: None if lines is None else _null(lines, score, cells, scored) for name, lines in nulls.items()},
        "features": feature.chosen, "probe": {"penalty": probe.penalty, "n_features": probe.sizes},
    }  # fmt: skip


def compare(
    fits: Mapping[str, Fit], make: Examples, score: Examples, cells: Sequence[Cell], made: Tensor, scored: Tensor, *, base: str,
    seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """{n_rows, n_questions, share, detectors: {name: {auroc, interval, minus_<base>, minus_<base>_interval}}} of detectors on the
    same rows and the same draws. `made` and `scored` are the targets of both sides (1, 0; NaN leaves a row out)."""
    known = torch.isfinite(scored)
    counts = _draws(score.rows.question, generator(seed))
    areas = {name: _areas(fit, make, score, cells, made, scored, counts) for name, fit in fits.items()}
    return {
        "n_rows": int(known.sum()), "n_questions": len(set(score.rows.question[known].tolist())),
        "share": float(scored[known].mean()),
        "detectors": {name: _summary(values, areas[base], base) for name, values in areas.items()},
    }  # fmt: skip


def _areas(
    fit: Fit, make: Examples, score: Examples, cells: Sequence[Cell], made: Tensor, scored: Tensor, counts: Tensor
) -> Tensor:
    """AUROC [B], the mean over divisions; replicate 0 is the data as it is."""
    columns = []
    for cell in cells:
        rows = (cell.make & torch.isfinite(made)).nonzero().flatten()
        targets, inside = made[rows] > 0.5, (cell.score & torch.isfinite(scored)).nonzero().flatten()
        labels = scored[inside] > 0.5
        if not (bool(targets.any()) and not bool(targets.all()) and bool(labels.any()) and not bool(labels.all())):
            continue
        values = fit(make, rows, targets, score)[inside].double()
        columns.append(replicated_auc(values.expand(len(counts), -1), labels, counts[:, inside]))
    return torch.stack(columns, dim=1).nanmean(dim=1) if columns else torch.full((len(counts),), torch.nan)


def _draws(question: Tensor, random: torch.Generator) -> Tensor:
    n = int(question.max()) + 1
    return torch.cat([torch.ones(1, n).double(), bootstrap_counts(n, N_BOOTSTRAP, random)])[:, question]


def _summary(areas: Tensor, against: Tensor, base: str) -> dict[str, Any]:
    def ends(values: Tensor) -> list[float]:
        return [float(end) for end in percentile_interval(values[1:])]

    difference = areas - against
    return {"auroc": float(areas[0]), "interval": ends(areas), f"minus_{base}": float(difference[0]),
            f"minus_{base}_interval": ends(difference)}  # fmt: skip


def _null(directions: Tensor, score: Examples, cells: Sequence[Cell], scored: Tensor) -> float:
    values = directions.float() @ score.means.float().T
    areas = []
    for cell in cells:
        inside = cell.score & torch.isfinite(scored)
        labels = scored[inside] > 0.5
        if bool(labels.any()) and not bool(labels.all()):
            areas.append(auc(values[:, inside], labels))
    mean = torch.stack(areas).mean(dim=0)
    return float(torch.quantile(torch.maximum(mean, 1 - mean), 0.95))


# Detectors


def vector_scores(make: Examples, rows: Tensor, _targets: Tensor, score: Examples) -> Tensor:
    """The projection of the reply's mean on the difference of the arms, made from the rows that its judge kept."""
    inside = torch.zeros(len(make.means), dtype=torch.bool).index_fill_(0, rows, True)
    base = (inside * kept_rows(make.rows, Cell(inside, inside)))[None].double()
    weights = balanced_contrast_weights(make.rows.question, make.rows.positive, base)[0]
    return score.means.double() @ (weights @ make.means.double())


def unfiltered_scores(make: Examples, rows: Tensor, _targets: Tensor, score: Examples) -> Tensor:
    """The same from all rows: what the probes are made from."""
    inside = torch.zeros(1, len(make.means), dtype=torch.float64).index_fill_(1, rows, 1.0)
    weights = balanced_contrast_weights(make.rows.question, make.rows.positive, inside)[0]
    return score.means.double() @ (weights @ make.means.double())


class BestFeature:
    """The single feature whose mean activation separates the making side best, with its sign there; kept in `chosen`."""

    def __init__(self) -> None:
        self.chosen: list[int] = []

    def __call__(self, make: Examples, rows: Tensor, targets: Tensor, score: Examples) -> Tensor:
        """Scores of all scored rows."""
        feature, sign = best_features(make.codes[rows], targets, 1)[0]
        self.chosen.append(feature)
        return sign * score.codes[:, feature].double()


def best_features(codes: Tensor, targets: Tensor, n: int) -> list[tuple[int, int]]:
    """The n features [(feature, sign)] of largest |AUROC - .5| for `targets` [n_rows]; codes [n_rows, d_sae]."""
    used = _used(codes)
    areas = auc(codes[:, used].float().T.contiguous(), targets)
    order = (areas - 0.5).abs().argsort(descending=True)[:n]
    return [(int(used[i]), 1 if float(areas[i]) >= 0.5 else -1) for i in order]


class Probe:
    """L1 logistic regression on the standardised mean activations of features (scikit-learn, liblinear)."""

    def __init__(self, penalty: float) -> None:
        self.penalty, self.sizes = penalty, []

    def __call__(self, make: Examples, rows: Tensor, targets: Tensor, score: Examples) -> Tensor:
        """Scores of all scored rows."""
        used = _used(make.codes[rows])
        weights, values = _fitted(make.codes[rows][:, used].float(), targets, self.penalty, score.codes[:, used].float())
        self.sizes.append(int((weights != 0).sum()))
        return values


class DenseProbe:
    """L2 logistic regression on the standardised mean activations themselves: what a probe without features reaches."""

    def __init__(self, penalty: float) -> None:
        self.penalty = penalty

    def __call__(self, make: Examples, rows: Tensor, targets: Tensor, score: Examples) -> Tensor:
        """Scores of all scored rows."""
        return _fitted(make.means[rows].float(), targets, self.penalty, score.means.float(), dense=True)[1]


def choose_penalty(make: Examples, made: Tensor, n_folds: int = 4, *, dense: bool = False) -> float:
    """The inverse penalty of the largest AUROC in cross-validation over the extraction questions, of the feature probe or
    (`dense`) of the one on activations."""
    rows = torch.isfinite(made).nonzero().flatten()
    targets, fold = made[rows] > 0.5, make.rows.question[rows] % n_folds
    if not bool(targets.any()) or bool(targets.all()):
        return PENALTIES[0]
    codes = make.means[rows].float() if dense else make.codes[rows][:, _used(make.codes[rows])].float()

    def held_out(penalty: float) -> float:
        areas = []
        for k in range(n_folds):
            inside, outside = fold != k, fold == k
            if all(bool(part.any()) and not bool(part.all()) for part in (targets[inside], targets[outside])):
                scores = _fitted(codes[inside], targets[inside], penalty, codes[outside], dense=dense)[1]
                areas.append(float(auc(scores, targets[outside])))
        return sum(areas) / max(len(areas), 1)

    return max(DENSE_PENALTIES if dense else PENALTIES, key=held_out)


def _fitted(codes: Tensor, targets: Tensor, penalty: float, scored: Tensor, *, dense: bool = False) -> tuple[Tensor, Tensor]:
    from sklearn.linear_model import LogisticRegression

    spread = codes.std(dim=0).clamp_min(1e-6)
    kind: dict[str, Any] = {"solver": "lbfgs"} if dense else {"l1_ratio": 1.0, "solver": "liblinear", "random_state": 0}
    probe = LogisticRegression(C=penalty, class_weight="balanced", max_iter=300, **kind)
    probe.fit((codes / spread).numpy(), targets.numpy())
    return torch.from_numpy(probe.coef_[0]), torch.from_numpy(probe.decision_function((scored / spread).numpy()))


def _used(codes: Tensor) -> Tensor:
    return ((codes > 0).float().mean(dim=0) >= MIN_SHARE).nonzero().flatten()


def words_scores(make: Examples, rows: Tensor, targets: Tensor, score: Examples) -> Tensor:
    """TF-IDF (words and pairs) with logistic regression: text alone."""
    return text_scores([make.texts[i] for i in rows.tolist()], targets, score.texts)


def length_scores(make: Examples, rows: Tensor, targets: Tensor, score: Examples) -> Tensor:
    """The reply's length; which side is longer is learnt on the making side."""
    lengths = make.lengths[rows].double()
    longer = torch.sign(lengths[targets].mean() - lengths[~targets].mean())
    return longer * score.lengths.double()
