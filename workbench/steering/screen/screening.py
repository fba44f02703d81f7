"""The decision: which samples are flagged, why, and the data set without them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.provenance import provenance
from workbench.base.store import write_parquet

from .accounts import Accounts, FeaturePart, feature_accounts
from .entries import BLANK, MALFORMED, UNSCORED, answer_of
from .evaluation import evaluate
from .scores import Combine, DataScores, Samples
from .thresholds import Threshold, calibrated_threshold, percentile_threshold

if TYPE_CHECKING:
    from workbench.labeling.labels import LabelSet
    from workbench.personas.placebos import PlaceboVectors
    from workbench.saes.interface import SparseAutoencoder

PERCENTILE = 95.0
N_TOP = 20
MAX_LISTED = 1000
"""Lines without a score that the JSON object lists; all of them are in the folder."""
EXCERPT = 600


@dataclass(frozen=True)
class TopSample:
    """One of the highest samples of a trait: its line and reply (a place among the messages), and what it says."""

    line: int
    turn: int
    score: float
    flagged: bool
    prompt: str
    reply: str
    features: tuple[FeaturePart, ...] = ()
    explained: float | None = None
    """What all features together add beyond the samples that are not flagged, in norms."""


@dataclass(frozen=True, eq=False, repr=False)
class Screening(Shown):
    """A data set with a threshold per trait. A sample is flagged where any trait's score is above the trait's threshold."""

    scores: DataScores
    samples: Samples
    combine: Combine
    thresholds: Mapping[str, Threshold]
    flagged_by: Mapping[str, np.ndarray]
    """{trait: bool [n_lines]}"""
    top: Mapping[str, tuple[TopSample, ...]]
    accounts: Mapping[str, Accounts]
    evaluation: dict[str, dict[str, Any]] | None
    provenance: dict[str, Any]

    @property
    def flagged(self) -> np.ndarray:
        """Which lines are flagged by any trait, bool [n_lines]."""
        return reduce(np.logical_or, self.flagged_by.values())

    @property
    def counts(self) -> dict[str, int]:
        """{lines, scored, flagged, unscored, malformed, blank, clipped}."""
        status = Counter(self.samples.status.tolist())
        names = ("scored", UNSCORED, MALFORMED, BLANK)
        return {"lines": self.scores.data.n_lines, **{name: status[name] for name in names},
                "flagged": int(self.flagged.sum()), "clipped": int(self.samples.clipped.sum())}  # fmt: skip

    def ranking(self, trait: str) -> list[int]:
        """The numbers of the scored lines, the highest score first (equal scores in the order of the file)."""
        score = self.samples.score[self.scores.traits.index(trait)]
        return [int(i) + 1 for i in np.argsort(-score, kind="stable") if np.isfinite(score[i])]

    def kept(self, *, keep_unscored: bool = False) -> np.ndarray:
        """Which lines the filtered set has, bool [n_lines]: the scored ones that are not flagged; with `keep_unscored` also those
        that nothing could be said about."""
        scored = self.samples.scored & ~self.flagged
        return scored | (np.isin(self.samples.status, (UNSCORED, MALFORMED)) if keep_unscored else False)

    def write_kept(self, out: str | Path, *, keep_unscored: bool = False) -> Path:
        """Write the filtered set in the data's own format and order; kept JSONL lines keep their bytes."""
        return self.scores.data.write_kept(self.kept(keep_unscored=keep_unscored).tolist(), out)

    def write_ranking(self, out: str | Path) -> Path:
        """Write a Parquet table of all lines: line, status, flagged, and per trait score and flag."""
        import pyarrow as pa

        columns: dict[str, Any] = {"line": np.arange(1, self.scores.data.n_lines + 1), "status": self.samples.status.astype(str),
                                   "flagged": self.flagged}  # fmt: skip
        for trait, score in zip(self.scores.traits, self.samples.score, strict=True):
            columns |= {f"score:{trait}": score, f"flagged:{trait}": self.flagged_by[trait]}
        return write_parquet(out, pa.table(columns))

    def to_json(self) -> dict[str, Any]:
        """The whole as one JSON object, without the scores of single lines (those are in `write_ranking`)."""
        reasons = Counter(problem for _, _, problem in self.samples.problems)
        listed = [{"line": line, "turn": turn, "why": why} for line, turn, why in self.samples.problems[:MAX_LISTED]]
        return {
            "data": {"path": str(self.scores.data.path), "format": self.scores.data.format, "sha256": self.scores.data.sha256},
            "model": self.scores.model.get("name"), "against": self.scores.against, "combine": self.combine,
            "counts": self.counts, "traits": {trait: self._trait(trait) for trait in self.scores.traits},
            "unscored": {"reasons": dict(reasons.most_common(50)), "lines": listed, "n": len(self.samples.problems)},
            "provenance": self.provenance,
        }  # fmt: skip

    def _trait(self, trait: str) -> dict[str, Any]:
        score = self.samples.score[self.scores.traits.index(trait)]
        known, accounts = score[np.isfinite(score)], self.accounts.get(trait)
        contrast = [] if accounts is None else [asdict(one) | {"difference": one.difference} for one in accounts.contrast]
        quantiles = dict(zip(("q05", "median", "q95"), np.percentile(known, (5, 50, 95)).tolist(), strict=True))
        return {
            "threshold": asdict(self.thresholds[trait]), "n_flagged": int(self.flagged_by[trait].sum()),
            "mean": float(known.mean()), **quantiles, "features": contrast,
            "explained": None if accounts is None else accounts.explained,
            "top": [asdict(one) for one in self.top[trait]],
            "evaluation": None if self.evaluation is None else self.evaluation[trait],
        }  # fmt: skip


def screen(
    scores: DataScores,
    *,
    percentile: float | None = None,
    false_positive_rate: float | None = None,
    clean: DataScores | None = None,
    combine: Combine = "max",
    sae: SparseAutoencoder | None = None,
    labels: LabelSet | None = None,
    placebos: PlaceboVectors | None = None,
    n_top: int = N_TOP,
    seed: int = 0,
) -> Screening:
    """Flag the samples of scored data: trait by trait above a `percentile` of their own scores (default 95), or above thresholds
    of which samples like the `clean` ones exceed any with `false_positive_rate` at most (each trait gets an equal part of the
    rate: Bonferroni).

    `sae`, the one that the samples were scored with, names the features; `labels` their words. Raises WorkbenchError for both
    ways at once, for a rate without clean data, and for clean data that were scored in another way.
    """
    samples = scores.samples(combine)
    _refuse(scores, percentile, false_positive_rate, clean)
    if not samples.scored.any():
        raise _nothing_scored(scores, samples)
    thresholds = {}
    reference = None if clean is None else clean.samples(combine)
    for place, trait in enumerate(scores.traits):
        thresholds[trait] = (
            percentile_threshold(samples.score[place], PERCENTILE if percentile is None else percentile)
            if reference is None or false_positive_rate is None
            else calibrated_threshold(reference.score[place], false_positive_rate / len(scores.traits))
        )
    flagged = {
        trait: np.nan_to_num(score, nan=-np.inf) > thresholds[trait].value
        for trait, score in zip(scores.traits, samples.score, strict=True)
    }
    lines = {trait: _highest(score, n_top) for trait, score in zip(scores.traits, samples.score, strict=True)}
    accounts = {}
    if sae is not None:
        accounts = feature_accounts(scores, samples, flagged, sae, combine=combine, lines=lines, labels=labels)
    top = _top(scores, samples, lines, flagged, accounts)
    evaluation = evaluate(scores, samples, combine=combine, placebos=placebos, seed=seed)
    made = provenance(seed=seed, inputs={"data": scores.data.sha256, "scores": scores.key}, config=scores.options)
    return Screening(scores, samples, combine, thresholds, flagged, top, accounts, evaluation, made)


def _nothing_scored(scores: DataScores, samples: Samples) -> WorkbenchError:
    told = "; ".join(f"{why} ({n} times)" for why, n in Counter(why for _, _, why in samples.problems).most_common(3))
    found = f"no line of {scores.data.path} has a score: {told or 'all are blank'}"
    return WorkbenchError(found, "chats in one of the known layouts", "look at the data; max_tokens sets how far a chat is read")


def _refuse(scores: DataScores, percentile: float | None, rate: float | None, clean: DataScores | None) -> None:
    if (rate is None) != (clean is None):
        raise WorkbenchError("clean data without a rate" if rate is None else "a false-positive rate without clean data",
                             "both together", "give clean data and the rate that they may be flagged at")  # fmt: skip
    if rate is not None and percentile is not None:
        raise WorkbenchError("a percentile and a false-positive rate", "one of them", "leave one out")
    if clean is not None and _way(clean) != _way(scores):
        raise WorkbenchError("clean data that were scored with other vectors or options", "the same for both", "score them again")


def _way(scores: DataScores) -> tuple[Any, ...]:
    directions = [scores.directions[trait].tolist() for trait in scores.traits]
    return scores.model.get("weights_hash"), scores.traits, directions, scores.against, scores.options["sampling"]


def _highest(score: np.ndarray, n: int) -> list[int]:
    order = np.argsort(-np.nan_to_num(score, nan=-np.inf), kind="stable")[:n]
    return [int(i) + 1 for i in order if np.isfinite(score[i])]


def _top(
    scores: DataScores, samples: Samples, lines: Mapping[str, list[int]], flagged: Mapping[str, np.ndarray],
    accounts: Mapping[str, Accounts],
) -> dict[str, tuple[TopSample, ...]]:  # fmt: skip
    texts = scores.data.samples_at([line for listed in lines.values() for line in listed])
    found = {}
    for place, trait in enumerate(scores.traits):
        account, rows = accounts.get(trait), []
        for line in lines[trait]:
            turn, sample = int(samples.turn[place, line - 1]), texts[line]
            asked = next(m["content"] for m in reversed(sample.messages[:turn]) if m["role"] == "user")
            parts = () if account is None else account.samples.get(line, ())
            total = None if account is None else account.sums.get(line)
            rows.append(TopSample(line, turn, float(samples.score[place, line - 1]), bool(flagged[trait][line - 1]),
                                  asked[:EXCERPT], answer_of(sample, turn)[:EXCERPT], parts, total))  # fmt: skip
        found[trait] = tuple(rows)
    return found
