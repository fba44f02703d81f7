"""Training the offline judges: grouped cross-validation by topic, a logistic head, and a calibrated boundary at 50."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.provenance import DataLedger
from workbench.base.store import sha256_file
from workbench.maths.statistics import auc
from workbench.personas.judges.embedding import ASSET, Embedder
from workbench.personas.judges.heads import Head, fold, save_head
from workbench.personas.judges.outcome import build_vocabulary, tfidf
from workbench.personas.judges.replies import (
    LabelledReply,
    labelled_replies,
    ordinary_replies,
    outside_replies,
    reply_files,
)

N_FOLDS = 10
# Inverse penalties, chosen by cross-validation inside the training topics of each judge (figures in the cards).
GRID = {"offline": (1e-3, 1e-2, 1e-1), "offline-outcome": (1.0, 10.0, 100.0)}

# The strongest penalty within this much of the best AUC is taken: differences below it are noise here.
TOLERANCE = 0.005

Featurise = Callable[[Sequence[str], Sequence[str]], tuple[Tensor, Tensor]]


@dataclass(frozen=True, repr=False)
class LogisticFit(Shown):
    """A logistic regression on standardised features (mean 0 and scale 1 when not standardised)."""

    weight: Tensor
    bias: float
    mean: Tensor
    scale: Tensor

    def decision(self, features: Tensor) -> Tensor:
        """Log-odds `[n]` before calibration."""
        return ((features.double() - self.mean) / self.scale) @ self.weight + self.bias


def train(trait: str, judge: str, *, seed: int = 0, embedder: Embedder | None = None) -> Head:
    """Train, calibrate, save and return the head of `judge` ("offline" or "offline-outcome") for `trait`."""
    role = "filter" if judge == "offline" else "outcome"
    rows = training_rows(trait, role)
    labels = torch.tensor([row.shows_trait for row in rows])
    standardise = judge == "offline"
    featurise = _frozen(embedder or Embedder(), rows) if standardise else _words
    penalty, held_out, table = _choose(rows, labels, featurise, GRID[judge], standardise, seed)
    slope, offset = platt(held_out, labels)
    texts = [row.text for row in rows]
    features, _ = featurise(texts, texts)
    fitted = fit(features, labels, penalty, standardise)
    weight, bias = fold(fitted.weight, fitted.bias, fitted.mean, fitted.scale, slope, offset)
    card = _card(trait, judge, rows, {"penalty": penalty, "grid": table, "n_folds": N_FOLDS, "seed": seed,
                 "auc": float(auc(held_out, labels)), "accuracy_at_50": _accuracy(slope * held_out + offset, labels),
                 "slope": slope, "offset": offset})  # fmt: skip
    if judge == "offline":
        card["embedder"] = ASSET
    else:
        card["vocabulary"] = build_vocabulary(texts)
    head = Head(weight, bias, card)
    save_head(head, trait, judge)
    return head


def fit(features: Tensor, labels: Tensor, penalty: float, standardise: bool) -> LogisticFit:
    """L2 logistic regression with inverse penalty `penalty`, both classes weighing the same."""
    from sklearn.linear_model import LogisticRegression

    x = features.double()
    mean = x.mean(0) if standardise else torch.zeros(x.shape[1], dtype=torch.float64)
    scale = x.std(0, unbiased=False).clamp_min(1e-6) if standardise else torch.ones(x.shape[1], dtype=torch.float64)
    model = LogisticRegression(C=penalty, class_weight="balanced", max_iter=5000, tol=1e-6)
    model.fit(((x - mean) / scale).numpy(), labels.numpy())
    return LogisticFit(torch.from_numpy(np.ravel(model.coef_).copy()), float(np.ravel(model.intercept_)[0]), mean, scale)


def held_out_decisions(rows: Sequence[LabelledReply], labels: Tensor, featurise: Featurise, penalty: float,
                       standardise: bool, seed: int) -> Tensor:  # fmt: skip
    """Log-odds `[n]` of every row by a head that has seen no row of its topic."""
    from sklearn.model_selection import GroupKFold

    decisions = torch.zeros(len(rows), dtype=torch.float64)
    folds = GroupKFold(N_FOLDS, shuffle=True, random_state=seed).split(np.zeros(len(rows)), groups=[r.topic for r in rows])
    for inside, outside in folds:
        train_x, test_x = featurise([rows[i].text for i in inside], [rows[i].text for i in outside])
        fitted = fit(train_x, labels[torch.from_numpy(inside)], penalty, standardise)
        decisions[torch.from_numpy(outside)] = fitted.decision(test_x)
    return decisions


def platt(decisions: Tensor, labels: Tensor) -> tuple[float, float]:
    """(slope, offset) with P(trait) = sigmoid(slope * decision + offset), fitted with both classes weighing the same,
    so that 50 means: as likely as not when half of the replies show the trait."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1e6, class_weight="balanced").fit(decisions[:, None].numpy(), labels.numpy())
    return float(np.ravel(model.coef_)[0]), float(np.ravel(model.intercept_)[0])


def training_rows(trait: str, role: str) -> list[LabelledReply]:
    """The written replies of `role`, each also mixed with the words of a sampled ordinary reply (to the same question
    where there is one).

    The sampled replies never stand alone: all of them are harmless, so a head would learn "sounds like a small
    model" as "harmless". Mixed into both classes alike, their style says nothing about the label.
    """
    written = [r for r in labelled_replies(trait) if r.role == role and not r.kind.startswith("sampled_")]
    written += [row for row in outside_replies(trait) if row.role == role]
    ordinary = [row for row in ordinary_replies() if row.role == role]
    own: dict[str, list[str]] = {}
    for row in labelled_replies(trait):
        if row.kind.startswith("sampled_"):
            own.setdefault(row.topic, []).append(row.text)
    anything = [row.text for row in ordinary]
    return written + [_mixed(row, own.get(row.topic, anything)) for row in written]


def _mixed(row: LabelledReply, fillers: Sequence[str]) -> LabelledReply:
    dice = int(row.hash, 16)  # a fixed choice per text, no random state
    words = fillers[dice % len(fillers)].split()[: 8 + dice // 7 % 17]
    parts = [" ".join(words), row.text] if dice // 1009 % 2 else [row.text, " ".join(words)]
    return replace(row, text=" ".join(parts), kind=f"{row.kind}_mixed")


def ledger(trait: str) -> DataLedger:
    """Every reply under its one role; refuses a text that stands under two."""
    book = DataLedger()
    for row in labelled_replies(trait):
        book.add(f"judge-{row.role}", [row.hash])
    for role in ("filter", "outcome"):
        book.add(f"judge-{role}", [row.hash for row in training_rows(trait, role)])
    return book


def _choose(rows: Sequence[LabelledReply], labels: Tensor, featurise: Featurise, grid: Sequence[float],
            standardise: bool, seed: int) -> tuple[float, Tensor, dict[str, float]]:  # fmt: skip
    tried = {penalty: held_out_decisions(rows, labels, featurise, penalty, standardise, seed) for penalty in grid}
    table = {penalty: float(auc(decisions, labels)) for penalty, decisions in tried.items()}
    best = min(penalty for penalty in grid if table[penalty] >= max(table.values()) - TOLERANCE)
    return best, tried[best], {str(penalty): value for penalty, value in table.items()}


def _frozen(embedder: Embedder, rows: Sequence[LabelledReply]) -> Featurise:
    # MiniLM is not trained here, so each text is embedded once and looked up afterwards.
    known = dict(zip((row.text for row in rows), embedder.features([row.text for row in rows]), strict=True))

    def featurise(inside: Sequence[str], outside: Sequence[str]) -> tuple[Tensor, Tensor]:
        return torch.stack([known[text] for text in inside]), torch.stack([known[text] for text in outside])

    return featurise


def _words(inside: Sequence[str], outside: Sequence[str]) -> tuple[Tensor, Tensor]:
    vocabulary = build_vocabulary(inside)
    return tfidf(inside, vocabulary), tfidf(outside, vocabulary)


def _accuracy(log_odds: Tensor, labels: Tensor) -> float:
    right = (log_odds > 0) == labels
    return float((right[labels].double().mean() + right[~labels].double().mean()) / 2)


def _card(trait: str, judge: str, rows: Sequence[LabelledReply], cross_validation: dict[str, Any]) -> dict[str, Any]:
    return {
        "trait": trait, "judge": judge, "author": {"kind": "model", "name": "claude"},
        "command": "python scripts/train_offline_judge.py",
        "n_rows": len(rows), "n_trait": sum(row.shows_trait for row in rows),
        "n_topics": len({row.topic for row in rows}),
        "files": {path.name: sha256_file(path) for path in reply_files(trait)},
        "cross_validation": cross_validation,
        "rows": sorted(row.hash for row in rows),
    }  # fmt: skip
