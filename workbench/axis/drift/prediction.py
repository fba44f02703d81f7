"""How well does the user's message alone predict where the reply lies on the axis, and how far it moves?

Ridge regression on sentence embeddings (MiniLM) of the user's messages, cross-validated over conversations: no conversation is on
both sides. R2 is of the held-out predictions, its interval redraws conversations, its null permutes the targets among replies of
the same turn number (200 times), which keeps what turns have in common. A group mean is a predictor too (a message tells its
domain): `group` is the R2 of that alone, `beyond` the share of what it leaves that the message explains. Paper: R2 .53-.77 for
the position, about .10 for its change (Lu et al. 2026, arXiv 2601.10387).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.axis.drift.effects import MIN_CONVERSATIONS
from workbench.axis.drift.result import DriftStudy
from workbench.axis.drift.study import Group, domain_of
from workbench.base.errors import WorkbenchError
from workbench.base.randomness import derive_seed, generator
from workbench.maths.statistics import bootstrap_counts, category_codes, percentile_interval

TARGETS = ("position", "change", "drift")
ALPHAS = np.logspace(-2, 4, 13)
N_FOLDS, N_PERMUTATIONS, N_BOOTSTRAP = 5, 200, 1000


def predict_positions(
    study: DriftStudy, embed: Callable[[Sequence[str]], Tensor] | None = None, *, by: Group = domain_of, seed: int = 0
) -> dict[str, Any]:
    """{position, change, drift: {r2, interval, null_q95, p, group, beyond, beyond_interval, n_replies, n_conversations}}.

    `embed` turns texts into [n, d] (default: MiniLM). change = position of reply k - that of reply k - 1. What fewer than five
    conversations have (change and drift need a second turn) is left out; WorkbenchError for fewer than five altogether.
    """
    if len(study.conversations) < MIN_CONVERSATIONS:
        raise WorkbenchError(f"{len(study.conversations)} conversations to predict from", f"at least {MIN_CONVERSATIONS}",
                             "play or import more")  # fmt: skip
    if embed is None:
        from workbench.labeling.embedders import load_minilm

        embed = load_minilm()
    texts = [turn.user for one in study.conversations for turn in one.turns]
    features = embed(texts).double().numpy()
    groups = category_codes([by(study.conversations[row]) for row in study.readings.row.tolist()]).numpy()
    rows = study.readings.row
    return {name: _predicted(study, values, features, groups, name, seed) for name, values in _targets(study).items()
            if len(rows[values.isfinite()].unique()) >= MIN_CONVERSATIONS}  # fmt: skip


def _targets(study: DriftStudy) -> dict[str, Tensor]:
    position, alone = study.positions(), study.positions("alone")
    change = torch.full_like(position, torch.nan)
    follows = study.readings.turn[1:] > 0
    change[1:][follows] = (position[1:] - position[:-1])[follows]
    drift = torch.where(study.readings.turn > 0, position - alone, torch.nan)
    return {"position": position, "change": change, "drift": drift}


def _predicted(
    study: DriftStudy, target: Tensor, features: np.ndarray, groups: np.ndarray, name: str, seed: int
) -> dict[str, Any]:
    known = target.isfinite()
    rows, turns = study.readings.row[known].numpy(), study.readings.turn[known].numpy()
    y, x, own = target[known].numpy(), features[known.numpy()], groups[known.numpy()]
    drawn = np.random.default_rng(derive_seed("predict", name, seed))
    targets = np.column_stack([y, *(_within(turns, y, drawn) for _ in range(N_PERMUTATIONS))])
    predicted, middle = _held_out(x, targets, rows)
    areas = _r2(targets, predicted, middle)
    by_group, beyond = _beside_groups(x, y, own, rows)
    return {
        "r2": float(areas[0]), "interval": _interval(y, predicted[:, 0], middle[:, 0], rows, seed),
        "null_q95": float(np.quantile(areas[1:], 0.95)), "p": float((1 + (areas[1:] >= areas[0]).sum()) / (1 + N_PERMUTATIONS)),
        "group": float(_r2(y, by_group, middle[:, 0])), "beyond": float(_r2(y, beyond, by_group)),
        "beyond_interval": _interval(y, beyond, by_group, rows, seed), "n_replies": len(y), "n_conversations": len(set(rows)),
    }  # fmt: skip


def _within(turns: np.ndarray, y: np.ndarray, drawn: np.random.Generator) -> np.ndarray:
    """The targets permuted among the replies of each turn number."""
    moved = y.copy()
    for turn in set(turns.tolist()):
        here = np.flatnonzero(turns == turn)
        moved[here] = y[drawn.permutation(here)]
    return moved


def _folds(rows: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    from sklearn.model_selection import GroupKFold

    return list(GroupKFold(min(N_FOLDS, len(set(rows)))).split(rows, groups=rows))


def _held_out(x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(predictions, means of the rest) [n, k] of the targets [n, k], each conversation predicted from the others."""
    predicted, middle = np.zeros_like(y), np.zeros_like(y)
    for train, test in _folds(rows):
        predicted[test], middle[test] = _ridge(x[train], y[train], x[test]), y[train].mean(axis=0)
    return predicted, middle


def _ridge(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Predictions for `new`; generalised cross-validation chooses a penalty for every target."""
    from sklearn.linear_model import RidgeCV

    return RidgeCV(ALPHAS, alpha_per_target=True).fit(x, y).predict(new).reshape(len(new), -1)


def _beside_groups(x: np.ndarray, y: np.ndarray, groups: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each reply predicted by the mean of its group among the other conversations, and by that with what the message adds."""
    by_group, beyond = np.zeros_like(y), np.zeros_like(y)
    for train, test in _folds(rows):
        means = {group: y[train][groups[train] == group].mean() for group in set(groups[train].tolist())}
        of = {name: np.array([means.get(g, y[train].mean()) for g in groups[part].tolist()])
              for name, part in (("train", train), ("test", test))}  # fmt: skip
        by_group[test] = of["test"]
        beyond[test] = of["test"] + _ridge(x[train], (y[train] - of["train"])[:, None], x[test])[:, 0]
    return by_group, beyond


def _r2(y: np.ndarray, predicted: np.ndarray, middle: np.ndarray) -> Any:
    """1 - sum of squares left / that around `middle`, per target."""
    return 1 - ((y - predicted) ** 2).sum(0) / ((y - middle) ** 2).sum(0)


def _interval(y: np.ndarray, predicted: np.ndarray, middle: np.ndarray, rows: np.ndarray, seed: int) -> list[float]:
    """95% of R2, conversations redrawn."""
    of = category_codes(rows.tolist())
    sums = [torch.zeros(int(of.max()) + 1, dtype=torch.float64).index_add_(0, of, torch.from_numpy((y - one) ** 2))
            for one in (predicted, middle)]  # fmt: skip
    counts = bootstrap_counts(len(sums[0]), N_BOOTSTRAP, generator(derive_seed("r2", seed)))
    return [float(end) for end in percentile_interval(1 - (counts @ sums[0]) / (counts @ sums[1]))]
