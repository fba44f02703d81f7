"""The closed loop: does the model itself, given a label to read, go where the feature points? No judge is asked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.progress import track
from workbench.base.randomness import derive_seed
from workbench.labeling.labels import FeatureLabel, LabelSet

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.models.model import Model
    from workbench.saes.interface import SparseAutoencoder

TEMPLATE = "Text about {label}:"
WITH_EXPLANATION = "{label}. {explanation}"
N_SWAPPED = 50
MAX_TOKENS, BATCH_ROWS = 96, 24


@dataclass(frozen=True)
class LoopRow:
    """One feature: the cosine of its own label's vector with its direction, the mean over the other labels, the rank among
    `n_swapped` others (1 is best, expected over their choice), and how often that is 1."""

    feature: int
    cosine: float
    swapped: float
    rank: float
    first: float


@dataclass(frozen=True, repr=False)
class ClosedLoop(Shown):
    """How often a label leads the model back to its feature.

    `rank1` is the share of features whose own label comes first among itself and `n_swapped` labels of other features (`chance` =
    1 / (n_swapped + 1)), `median_rank` the median rank; 95% intervals over features. `code_rank1` and its interval are the same
    with the mean activation of the feature instead of the cosine.
    """

    template: str
    n_labels: int
    n_swapped: int
    rank1: float
    rank1_interval: tuple[float, float]
    median_rank: float
    median_interval: tuple[float, float]
    code_rank1: float
    code_interval: tuple[float, float]
    rows: tuple[LoopRow, ...]

    @property
    def chance(self) -> float:
        """Rank-1 retrieval of labels that say nothing."""
        return 1 / (self.n_swapped + 1)

    def record(self) -> dict[str, Any]:
        """Plain values, rounded to four decimals."""
        numbers: Mapping[str, float] = {
            "rank1": self.rank1, "chance": self.chance, "median_rank": self.median_rank, "code_rank1": self.code_rank1
        }  # fmt: skip
        ends = {name: getattr(self, name) for name in ("rank1_interval", "median_interval", "code_interval")}
        return {
            "template": self.template,
            "n_labels": self.n_labels,
            "n_swapped": self.n_swapped,
            **{name: round(value, 4) for name, value in numbers.items()},
            **{name: [round(end, 4) for end in value] for name, value in ends.items()},
        }


def closed_loop(
    labels: LabelSet | Sequence[FeatureLabel],
    sae: SparseAutoencoder,
    model: Model,
    *,
    n_swapped: int = N_SWAPPED,
    template: str = TEMPLATE,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> ClosedLoop:
    """Read every label with the model and ask which feature it leads to.

    The vector of a label is the mean activation at the SAE's hook over the tokens of `template` filled with it ({label}, and
    {explanation} if wanted), first token and sinks apart, minus the mean of these vectors over all labels: what the template and
    labels as such have in common cancels, as it would against a neutral filler. A feature ranks all labels by the cosine of their
    vectors with its decoder direction; with more than `n_swapped` others, rank and rank-1 share are expectations over which of
    them are drawn, in closed form. A tie counts against the label. With fewer others all of them are used.

    On 70 labels of the 8,192-feature SAE (chance .02) rank-1 retrieval was .40 with this template, .40 with the bare label, .40
    with "Here is an example of {label}.", .42 with four templates averaged, .50 with the explanation; the last token instead of
    the mean gave .08, mean codes .35, the largest pre-activation .36.

    Raises:
        WorkbenchError: fewer than three labels, a template without {label}, a model that the SAE was not trained on, a label
            that leaves the model nothing to read, or vectors that are not finite.
    """
    chosen = list(labels)
    _check(chosen, sae, model, template)
    texts = [template.format(label=item.label, explanation=item.explanation) for item in chosen]
    features = [item.feature for item in chosen]
    means, codes = _read(texts, features, sae, model)
    cosines = label_cosines(means, sae.decoder_directions[features].float().cpu())
    if not bool(cosines.isfinite().all() and codes.isfinite().all()):
        raise WorkbenchError(
            f"activations of {model.name} at {sae.hook} that are not finite", "finite ones", "load the model in float32"
        )
    drawn = min(n_swapped, len(chosen) - 1)
    ranks = expected_ranks(cosines, drawn)
    by_code = [first for _, first in expected_ranks(codes, drawn)]
    rows = tuple(_row(index, item.feature, cosines, ranks[index]) for index, item in enumerate(chosen))
    first, median = [row.first for row in rows], [row.rank for row in rows]
    seeds = derive_seed("closed loop", seed)
    return ClosedLoop(
        template, len(chosen), drawn,
        _mean(first), _over_features(first, _mean, n_bootstrap, seeds),
        _median(median), _over_features(median, _median, n_bootstrap, seeds),
        _mean(by_code), _over_features(by_code, _mean, n_bootstrap, seeds),
        rows,
    )  # fmt: skip


def label_cosines(means: Tensor, directions: Tensor) -> Tensor:
    """Cosine [n_labels, n_features] of the label vectors [n_labels, d_model], centred over labels, with the directions."""
    from torch.nn.functional import normalize

    return normalize(means - means.mean(0), dim=1) @ normalize(directions, dim=1).T


def expected_ranks(scores: Tensor, n_drawn: int) -> list[tuple[float, float]]:
    """Per feature (column) the expected rank of its own label (the same row) among itself and `n_drawn` other labels, and the
    probability of rank 1, over all ways to draw them. With b of the N others not worse (NaN on either side is not worse):

        E[rank] = 1 + n b / N        P(rank 1) = C(N - b, n) / C(N, n)
    """
    n_others = len(scores) - 1
    own = scores.diagonal()
    better = [int((~(scores[:, j] < own[j])).sum()) - 1 for j in range(len(scores))]
    return [(1 + n_drawn * b / n_others, math.comb(n_others - b, n_drawn) / math.comb(n_others, n_drawn)) for b in better]


def _read(texts: Sequence[str], features: list[int], sae: SparseAutoencoder, model: Model) -> tuple[Tensor, Tensor]:
    """(mean activations [n, d_model], mean codes of the features [n, n_features]) of the texts."""
    import torch

    from workbench.saes.token_rows import SINK_RATIO

    limit = SINK_RATIO * float(model.norm_medians([sae.hook])[0])
    means, codes = torch.zeros(len(texts), sae.d_model), torch.zeros(len(texts), len(features))
    ids = [model.tokenizer(text, add_special_tokens=False)["input_ids"][:MAX_TOKENS] for text in texts]
    if not all(ids):
        found = f"the label of feature {features[next(index for index, row in enumerate(ids) if not row)]} is read as no token"
        raise WorkbenchError(found, "a label with words", "give it one, or leave the feature out")
    order = sorted(range(len(texts)), key=lambda index: len(ids[index]))
    with track("Reading labels", len(texts), "labels") as step:
        for start in range(0, len(order), BATCH_ROWS):
            part = order[start : start + BATCH_ROWS]
            for index, rows in zip(part, _activations(model, sae, [ids[index] for index in part]), strict=True):
                inside = rows[1:] if len(rows) > 1 else rows
                kept = inside[inside.norm(dim=1) <= limit]
                kept = kept if len(kept) else inside
                means[index] = kept.mean(0)
                codes[index] = sae.encode(kept).float().mean(0).cpu()[features]
            step(len(part))
    return means, codes


def _activations(model: Model, sae: SparseAutoencoder, rows: Sequence[list[int]]) -> list[Tensor]:
    import torch

    from workbench.saes.token_rows import activations_at

    width = max(len(row) for row in rows)
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = 1
    found = activations_at(model, sae.hook, ids, mask).float().cpu()
    return [found[index, : len(row)] for index, row in enumerate(rows)]


def _check(labels: Sequence[FeatureLabel], sae: SparseAutoencoder, model: Model, template: str) -> None:
    try:
        filled = template.format(label="?", explanation="") != template.format(label="!", explanation="")
    except (KeyError, IndexError, ValueError):
        filled = False
    if not filled:
        expected = "a text with {label} in it, and {explanation} if wanted"
        raise WorkbenchError(f"the template {template!r} has no place for the label", expected, "correct the template")
    if len(labels) < 3:
        raise WorkbenchError(f"{len(labels)} labels to tell apart", "at least three", "label more features")
    if sae.d_model != model.d_model:
        raise WorkbenchError(
            f"{sae.id} reads d_model={sae.d_model}, {model.name} has {model.d_model}",
            f"the model that it was trained on ({sae.model_name})",
            "load that model",
        )
    bad = [item.feature for item in labels if not 0 <= item.feature < sae.d_sae]
    if bad:
        raise WorkbenchError(f"there is no feature {bad[0]} in {sae.id}", f"0 to {sae.d_sae - 1}", "give the labels of this SAE")


def _row(index: int, feature: int, cosines: Tensor, rank: tuple[float, float]) -> LoopRow:
    own, total = float(cosines[index, index]), float(cosines[:, index].sum())
    return LoopRow(feature, own, (total - own) / (len(cosines) - 1), *rank)


def _over_features(values: Sequence[float], statistic: Any, n_bootstrap: int, seed: int) -> tuple[float, float]:
    import numpy as np

    drawn = np.random.default_rng(seed).integers(len(values), size=(n_bootstrap, len(values)))
    found = [statistic(row) for row in np.asarray(values)[drawn]]
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def _mean(values: Any) -> float:
    return float(sum(values) / len(values))


def _median(values: Any) -> float:
    import numpy as np

    return float(np.median(values))
