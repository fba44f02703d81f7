"""Which features the scores are made of: the accounting identity, sample by sample and for the flagged ones together.

At the SAE's own site a difference of means is the sum of the changes of its mean codes, times the decoder's directions, and the
error, so that a score splits exactly:

    <change, u> / m = sum_j dz_j <d_j, u> / m + error          (dz_j: change of the mean code of feature j)

A feature's part is the change of its code times its share of v per unit of code. Parts may be negative. The identity is that of
`maths.identity`, for one sample's mean in place of an arm's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from workbench.base.display import Shown
from workbench.decomposition.methods import decoder_of

from .columns import TRAIT
from .scores import Combine, DataScores, Samples

if TYPE_CHECKING:
    from workbench.labeling.labels import LabelSet
    from workbench.saes.interface import SparseAutoencoder

N_LISTED = 12


@dataclass(frozen=True)
class FeaturePart:
    """What a feature adds to a sample's score beyond what it adds to the samples that are not flagged, in norms; `label` is what
    somebody reads in it (None: nobody has)."""

    feature: int
    value: float
    label: str | None = None


@dataclass(frozen=True)
class FeatureContrast:
    """A feature's mean part among the flagged and among the other scored samples, in norms."""

    feature: int
    flagged: float
    others: float
    label: str | None = None

    @property
    def difference(self) -> float:
        """How much of what lifts the flagged ones is this feature."""
        return self.flagged - self.others


@dataclass(frozen=True, eq=False, repr=False)
class Accounts(Shown):
    """Of one trait: the features that set the flagged samples apart, largest |difference| first; `explained`, the part of the
    flagged samples' mean excess that all features make (the rest is the SAE's error); and the parts of single samples by line,
    each beyond the mean of the samples that are not flagged."""

    trait: str
    contrast: tuple[FeatureContrast, ...]
    explained: float | None
    samples: Mapping[int, tuple[FeaturePart, ...]]
    sums: Mapping[int, float]
    """Per listed line, the sum over all features."""


def feature_accounts(
    scores: DataScores, samples: Samples, flagged: Mapping[str, np.ndarray], sae: SparseAutoencoder, *,
    combine: Combine = "max", lines: Mapping[str, Sequence[int]] | None = None, labels: LabelSet | None = None,
    n: int = N_LISTED,
) -> dict[str, Accounts]:  # fmt: skip
    """The accounts of every trait whose vector stands at the SAE's hook; one pass over the codes on disk.

    flagged {trait: bool [n_lines]}; `lines` {trait: numbers} are the samples whose own parts are wanted.
    """
    here = [trait for trait in scores.traits if scores.column(TRAIT, trait).hook == sae.hook]
    decoder = decoder_of(sae)
    weight = {trait: (decoder @ scores.directions[trait]).numpy().astype(np.float64) for trait in here}
    total = {trait: np.zeros((2, sae.d_sae)) for trait in here}
    single: dict[str, dict[int, np.ndarray]] = {trait: {} for trait in here}
    wanted = {trait: set((lines or {}).get(trait, ())) for trait in here}
    place = {trait: scores.traits.index(trait) for trait in here}
    for line, turn, index, change in scores.codes():
        for trait in here:
            if combine == "max" and samples.turn[place[trait], line - 1] != turn:
                continue
            part = change / (samples.n_replies[line - 1] if combine == "mean" else 1)
            total[trait][int(flagged[trait][line - 1]), index] += part
            if line in wanted[trait]:
                held = single[trait].setdefault(line, np.zeros(sae.d_sae, np.float32))
                held[index] += part
    words = _Words(labels)
    return {
        trait: _account(trait, total[trait] * weight[trait], single[trait], weight[trait], flagged[trait], samples.scored,
                        samples.score[place[trait]], words, n)
        for trait in here
    }  # fmt: skip


def _account(
    trait: str, totals: np.ndarray, single: Mapping[int, np.ndarray], weight: np.ndarray, flagged: np.ndarray,
    scored: np.ndarray, score: np.ndarray, words: _Words, n: int,
) -> Accounts:  # fmt: skip
    sides = (scored & ~flagged, scored & flagged)
    means = totals / np.array([[max(int(side.sum()), 1)] for side in sides])
    difference = means[1] - means[0]
    order = [int(j) for j in np.argsort(-np.abs(difference), kind="stable")[:n] if difference[j] != 0]
    contrast = tuple(FeatureContrast(j, float(means[1, j]), float(means[0, j]), words.of(j)) for j in order)
    explained = None
    if all(side.any() for side in sides):
        excess = float(score[sides[1]].mean() - score[sides[0]].mean())
        explained = float(difference.sum() / excess) if excess else None
    parts = {line: held * weight - means[0] for line, held in single.items()}
    listed = {line: _largest(values, words, n) for line, values in parts.items()}
    return Accounts(trait, contrast, explained, listed, {line: float(values.sum()) for line, values in parts.items()})


def _largest(values: np.ndarray, words: _Words, n: int) -> tuple[FeaturePart, ...]:
    order = np.argsort(-np.abs(values), kind="stable")[:n]
    return tuple(FeaturePart(int(j), float(values[j]), words.of(int(j))) for j in order if values[j] != 0)


class _Words:
    """Labels of features, from the label store."""

    def __init__(self, labels: LabelSet | None) -> None:
        self.labels = {} if labels is None else labels.labels

    def of(self, feature: int) -> str | None:
        """The label that counts."""
        found = self.labels.get(feature)
        return None if found is None else found.label
