"""What a fine-tune installed, feature by feature: the same tokens read by both models through one SAE.

The mean difference D of two models over the same tokens is a difference of means, so the accounting identity holds for it:
D = sum_j dz_j d_j + d_error with exact shares (`maths.identity`). The SAE has been trained on the model *before*, as a rule:
`error` says how much of the shift it cannot express, `error_growth` by how much more it misses after.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from scipy import sparse
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.randomness import derive_seed, generator
from workbench.decomposition.methods import decoder_of
from workbench.decomposition.nulls import FeatureTests, feature_tests
from workbench.decomposition.rows import RowCodes
from workbench.decomposition.shares import (
    Accounting,
    Design,
    account,
    bootstrap_shares,
    largest_shares,
    question_contributions,
)
from workbench.maths.signflips import MAX_EXACT_QUESTIONS
from workbench.maths.statistics import basic_interval

if TYPE_CHECKING:
    from workbench.labeling.labels import LabelSet

Q_LEVEL = 0.05
N_SHOWN = 30


@dataclass(frozen=True)
class FeatureShift:
    """One feature: its mean activation `before` and `after` on the same tokens, `change` = after - before (in the SAE's units),
    its `share` of the shift's |D|^2 with a 95% interval over texts (None where nothing moved), and the sign-flip test over texts
    with its BH q over all active features (NaN with fewer than two groups of texts)."""

    feature: int
    before: float
    after: float
    change: float
    share: float
    interval: tuple[float, float] | None
    p: float
    q: float
    label: str = ""


@dataclass(frozen=True, repr=False)
class Installed(Shown):
    """The shift at one place taken apart: `features` by |change|, the largest first, those with q <= .05 before the others.

    `n_changed` of `n_active` features change at q <= .05. `shares_total`, `error` with its interval: the parts of |D|^2 that the
    features and the SAE's error make; they sum to 1 up to `sum_error` (all 0 where nothing moved). `error_growth`: the mean
    squared norm of the SAE's mean error after over that before.
    """

    place: str
    sae: str
    features: tuple[FeatureShift, ...]
    n_active: int
    n_changed: int
    shares_total: float
    error: float
    error_interval: tuple[float, float] | None
    error_growth: float
    sum_error: float
    n_texts: int


def installed(
    place: str, before: RowCodes, after: RowCodes, kept: Tensor, sae: Any, *, labels: LabelSet | None = None,
    n_shown: int = N_SHOWN, n_bootstrap: int = 500, seed: int = 0,
) -> Installed:  # fmt: skip
    """The features that changed between two readings of the same texts (`kept`: indices of those that count).

    Tests sum the texts in up to 20 groups, drawn by the texts' ids, so that all 2^20 sign patterns are looked at whatever the
    number of texts: a p below 2e-6 can survive BH over thousands of features.
    """
    rows, texts = _both(before, after, kept.tolist())
    weights = [-1 / len(texts)] * len(texts) + [1 / len(texts)] * len(texts)
    design = Design.of(weights, [*texts, *texts], ["read"] * (2 * len(texts)))
    tests = _tests(rows, design, texts, seed)
    sides = rows.weighted_codes(torch.stack([(-design.weights).clamp_min(0), design.weights.clamp_min(0)]))
    change = sides[1] - sides[0]
    whole, low, high, error_interval = _accounted(rows, design, decoder_of(sae), change, n_bootstrap, seed)
    known = tests.q_value.nan_to_num(1.0) <= Q_LEVEL
    order = sorted(range(len(change)), key=lambda j: (not bool(known[j]), -abs(float(change[j]))))
    moved = [j for j in order[:n_shown] if change[j] != 0]

    def row(j: int) -> FeatureShift:
        ends = None if low is None or high is None else (float(low[j]), float(high[j]))
        found = (float(sides[0, j]), float(sides[1, j]), float(change[j]), float(whole.shares[j]), ends)
        label = labels.get(j) if labels is not None else None
        return FeatureShift(j, *found, float(tests.p_value[j]), float(tests.q_value[j]), label.label if label else "")

    n_active, total = int((sides > 0).any(dim=0).sum()), float(whole.shares.sum())
    return Installed(place, sae.id, tuple(map(row, moved)), n_active, int(known.sum()), total, whole.error, error_interval,
                     _growth(rows, len(texts)), whole.sum_error, len(texts))  # fmt: skip


def _both(before: RowCodes, after: RowCodes, kept: list[int]) -> tuple[RowCodes, list[str]]:
    """The rows of both models one under the other, and the texts' ids."""
    texts = [before.ids[index] for index in kept]
    join = lambda name: torch.cat([getattr(side, name)[kept] for side in (before, after)])  # noqa: E731
    codes = sparse.vstack([side.codes.tocsr()[kept] for side in (before, after)]).tocsc()
    ids = tuple(f"{side} {text}" for side in ("before", "after") for text in texts)
    return replace(before, ids=ids, means=join("means"), errors=join("errors"), codes=codes), texts


def _tests(rows: RowCodes, design: Design, texts: list[str], seed: int) -> FeatureTests:
    """Sign flips over groups of texts."""
    differences = question_contributions(rows, design)
    order = sorted(range(len(texts)), key=lambda index: derive_seed("group", seed, texts[index]))
    groups = torch.zeros(min(len(texts), MAX_EXACT_QUESTIONS), len(texts), dtype=differences.dtype)
    for place, index in enumerate(order):
        groups[place % len(groups), index] = 1.0
    return feature_tests(groups @ differences, family=False, seed=seed)


def _accounted(
    rows: RowCodes, design: Design, decoder: Tensor, change: Tensor, n_bootstrap: int, seed: int
) -> tuple[Accounting, Tensor | None, Tensor | None, tuple[float, float] | None]:  # fmt: skip
    """The shares of the shift with their intervals; nothing but zeros where the means are equal."""
    n = len(rows.means) // 2
    if torch.equal(rows.means[:n], rows.means[n:]):
        return Accounting(torch.zeros(rows.means.shape[1]), change, torch.zeros_like(change), 0.0, 0.0), None, None, None
    whole = account(rows, design, decoder)
    drawn = bootstrap_shares(
        rows, design, decoder, whole=whole, keep=largest_shares(whole.shares, 1), n_bootstrap=n_bootstrap,
        generator=generator(derive_seed("installed", seed)),
    )  # fmt: skip
    low, high = basic_interval(drawn.error.double(), whole.error)
    return whole, drawn.low, drawn.high, (float(low), float(high))


def _growth(rows: RowCodes, n: int) -> float:
    before, after = (side.square().sum(dim=1).mean() for side in (rows.errors[:n], rows.errors[n:]))
    return float(after / before) if before > 0 else 1.0
