"""How well a score finds the samples that are known to bear a trait, and how well anything else would have found them.

AUROC = P(score of a bearing sample > that of another) + ties / 2. Its interval bootstraps the unit (the prompt, or the question),
because samples that share one are alike; the directions are held. Beside the trait's vector stand vectors that are no trait,
random directions with the replies' own covariance (both by max(A, 1 - A): their sign is chosen afterwards, which makes the null
harder), the length of the reply, and its words.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from workbench.base.randomness import derive_seed, generator
from workbench.maths.separation import replicated_auc
from workbench.maths.statistics import auc, bootstrap_counts, category_codes, percentile_interval, rank_p

from .columns import PLACEBO, RANDOM, TEXT, TRAIT

if TYPE_CHECKING:
    from workbench.personas.placebos import PlaceboVectors

    from .scores import Combine, DataScores, Samples

N_BOOTSTRAP = 1000
_BLOCK = 50  # replicates at a time


def unit_counts(units: Sequence[Hashable], n_bootstrap: int, seed: int) -> Tensor:
    """How often every row counts `[n_bootstrap, n]` when its units are drawn with replacement."""
    codes = category_codes(units)
    return bootstrap_counts(int(codes.max()) + 1, n_bootstrap, generator(derive_seed("screen units", seed)))[:, codes]


def auroc(scores: Tensor, labels: Tensor, counts: Tensor) -> dict[str, Any]:
    """{value, interval} of `scores [n]` for `labels [n]` (True: bears the trait), by unit counts `[B, n]`."""
    value = float(auc(scores.double(), labels))
    spread = torch.cat([
        replicated_auc(scores.double().expand(len(part), -1), labels, part) for part in counts.split(_BLOCK)
    ])  # fmt: skip
    low, high = percentile_interval(spread)
    return {"value": value, "interval": [float(low), float(high)]}


def either_way(scores: Tensor, labels: Tensor) -> Tensor:
    """max(A, 1 - A) of every row of `scores [k, n]`."""
    areas = auc(scores.double(), labels)
    return torch.maximum(areas, 1 - areas)


def evaluate(
    scores: DataScores, samples: Samples, *, combine: Combine = "max", placebos: PlaceboVectors | None = None,
    n_bootstrap: int = N_BOOTSTRAP, seed: int = 0,
) -> dict[str, dict[str, Any]] | None:  # fmt: skip
    """{trait: {auroc, interval, n_bearing, n_others, n_units, placebos, random, length, text}} over the labelled samples; None
    where they are not of both kinds. `placebos` tells which of them come close to a trait and do not count for it."""
    known = samples.scored & (samples.label >= 0)
    labels = torch.from_numpy(samples.label[known] == 1)
    if not len(labels) or bool(labels.all()) or not bool(labels.any()):
        return None
    counts = unit_counts(samples.prompt[known].tolist(), n_bootstrap, seed)
    units = len(set(samples.prompt[known].tolist()))
    found = {}
    for place, trait in enumerate(scores.traits):
        own = torch.from_numpy(samples.score[place][known])
        one = auroc(own, labels, counts)
        found[trait] = {
            "auroc": one["value"], "interval": one["interval"], "n_bearing": int(labels.sum()), "n_others": int((~labels).sum()),
            "n_units": units, "length": auroc(torch.from_numpy(samples.n_tokens[known]), labels, counts),
            **_beside(scores, trait, combine, known, labels, counts, placebos, one["value"]),
        }  # fmt: skip
    return found


def _beside(
    scores: DataScores, trait: str, combine: Combine, known: np.ndarray, labels: Tensor, counts: Tensor,
    placebos: PlaceboVectors | None, value: float,
) -> dict[str, Any]:  # fmt: skip
    hook = scores.column(TRAIT, trait).hook
    close = set() if placebos is None else set(placebos.names) - {placebos.names[i] for i in placebos.unrelated(trait)}
    found: dict[str, Any] = {}
    for kind, name in ((PLACEBO, "placebos"), (RANDOM, "random")):
        columns = [c for c in scores.columns if c.kind == kind and c.hook == hook and c.name not in close]
        found[name] = None
        if columns:
            areas = either_way(torch.from_numpy(scores.samples(combine, columns).score[:, known]), labels)
            found[name] = null_summary(value, areas)
    words = [c for c in scores.columns if (c.kind, c.name) == (TEXT, trait)]
    found["text"] = None
    if words:
        found["text"] = auroc(torch.from_numpy(scores.samples(combine, words).score[0, known]), labels, counts)
    return found


def null_summary(value: float, areas: Tensor) -> dict[str, Any]:
    """{n, median, q95, most, rank_p} of what directions that are not the trait's get."""
    quantiles = torch.quantile(areas, torch.tensor([0.5, 0.95], dtype=areas.dtype)).tolist()
    return {"n": len(areas), "median": quantiles[0], "q95": quantiles[1], "most": float(areas.max()),
            "rank_p": float(rank_p(value, areas))}  # fmt: skip


def planted_precision(scores: Tensor, labels: Tensor, share: float, counts: Tensor) -> dict[str, Any]:
    """{value, interval}: which part of the highest `share` bears the trait when that share of the data does.

    `scores`, `labels` `[n]` are a pool; bearing samples are weighed so that they make `share` of the data, the others the rest,
    which is the expectation over data sets that are drawn from the pool. Chance is `share` itself. A sample at the edge counts
    in part. Intervals by unit counts `[B, n]`.
    """
    order = (-scores.double()).argsort(stable=True)
    bears = labels[order].double()
    weights = torch.cat([torch.ones(1, len(order), dtype=torch.float64), counts.double()])[:, order]
    mass = [weights * side / (weights * side).sum(dim=1, keepdim=True) for side in (bears, 1 - bears)]
    mass = share * mass[0] + (1 - share) * mass[1]
    taken = (share - (mass.cumsum(dim=1) - mass)).clamp(min=0).minimum(mass)
    precision = (taken * bears).sum(dim=1) / share
    low, high = percentile_interval(precision[1:])
    return {"value": float(precision[0]), "interval": [float(low), float(high)]}
