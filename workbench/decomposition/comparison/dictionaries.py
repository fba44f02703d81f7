"""The same vector on two SAEs: which features are the same in both, and whether they get the same shares."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.randomness import derive_seed, generator
from workbench.maths.geometry import covariance_matched_directions, isotropic_directions
from workbench.maths.matching import Nearest, nearest

from ..result import Decomposition

THRESHOLD = 0.7
N_TOP = 60
N_SHOWN = 20


@dataclass(frozen=True)
class Chance:
    """The same figures for a random dictionary in the other SAE's place: the share of all features `matched`, of the top ones
    (`matched_top`), and the median `nearest` cosine of the top ones."""

    matched: float
    matched_top: float
    nearest: float


@dataclass(frozen=True)
class Side:
    """One SAE's half. Shares of *features* with a match: of all (`matched`), of those that fire in these replies
    (`matched_active`), of the `n_top` of the largest |share| (`matched_top`).

    `matched_weight` is the part of sum |share| that lies in matched features. `near_top` are the top features whose nearest
    direction reaches the threshold, one to one or not: above `matched_top` where one SAE splits what is one feature in the
    other. `nearest_top` is the median cosine of the top features with their nearest. `unmatched` are the largest top features
    without a match, as (feature, share, cosine of the nearest). `chance` by kind of random dictionary.
    """

    sae: str
    d_sae: int
    n_active: int
    n_top: int
    share_error: float
    matched: float
    matched_active: float
    matched_top: float
    matched_weight: float
    near_top: float
    nearest_top: float
    unmatched: tuple[tuple[int, float, float], ...]
    chance: dict[str, Chance]


@dataclass(frozen=True)
class Pair:
    """Two features that are each other's nearest, with the cosine of their directions and their shares."""

    features: tuple[int, int]
    cosine: float
    shares: tuple[float, float]


@dataclass(frozen=True, repr=False)
class DictionaryComparison(Shown):
    """One vector on two SAEs. `rank_correlation` is Spearman's of the shares over the `n_ranked` matched pairs that fire on
    both sides, `rank_of_changes` that of the changes of the mean code (times the length of the direction)."""

    trait: str
    threshold: float
    sides: tuple[Side, Side]
    n_matched: int
    n_ranked: int
    rank_correlation: float | None
    rank_of_changes: float | None
    pairs: tuple[Pair, ...]
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, by the names of the fields, with `kind`."""
        return {"kind": "dictionaries", **asdict(self)}


def compare_dictionaries(
    one: Decomposition,
    other: Decomposition,
    decoders: tuple[Tensor, Tensor],
    *,
    threshold: float = THRESHOLD,
    n_top: int = N_TOP,
    seed: int = 0,
) -> DictionaryComparison:
    """Do two SAEs (another seed, width or training) take one vector apart alike?

    Features match when each is the other's nearest by decoder cosine and the cosine is `threshold` or more: one to one by
    construction. Random dictionaries in the other's place say what a match is worth: "covariance_matched" has as many
    directions with the second moments of the other decoder's own directions (the hard one), "isotropic" has them anywhere.

    Reading: shares of matched features agree in part for a simple reason, since <d_j, v> is nearly the same on both sides;
    `rank_of_changes` leaves that out. A feature without a match is not wrong: it is a feature that one training found.
    """
    found = nearest(*decoders)
    pairs = found.mutual(threshold)
    sides = (
        _side(one, found.cosine_a, pairs[:, 0], decoders, threshold, n_top, seed),
        _side(other, found.cosine_b, pairs[:, 1], decoders[::-1], threshold, n_top, seed),
    )
    a, b = pairs[:, 0], pairs[:, 1]
    active = (one.delta_code[a] != 0) & (other.delta_code[b] != 0)
    lengths = [rows.norm(dim=1) for rows in decoders]
    changes = [(parts.delta_code * length.double())[rows[active]]
               for parts, length, rows in zip((one, other), lengths, (a, b), strict=True)]  # fmt: skip
    largest = pairs[torch.maximum(one.share[a].abs(), other.share[b].abs()).sort(descending=True).indices[:N_SHOWN]]
    return DictionaryComparison(
        trait=one.trait,
        threshold=threshold,
        sides=sides,
        n_matched=len(pairs),
        n_ranked=int(active.sum()),
        rank_correlation=_spearman(one.share[a][active], other.share[b][active]),
        rank_of_changes=_spearman(*changes),
        pairs=tuple(
            Pair((j, k), found.cosine_a[j].item(), (one.share[j].item(), other.share[k].item())) for j, k in largest.tolist()
        ),
    )


def _side(
    parts: Decomposition, cosine: Tensor, matched: Tensor, decoders: tuple[Tensor, ...], threshold: float, n_top: int, seed: int
) -> Side:
    has = torch.zeros(parts.d_sae, dtype=torch.bool).index_fill_(0, matched, True)
    active, weight = parts.delta_code != 0, parts.share.abs()
    top = weight.topk(min(n_top, int(active.sum()))).indices
    assert parts.share_error is not None
    return Side(
        sae=str(parts.sae.get("id")),
        d_sae=parts.d_sae,
        n_active=int(active.sum()),
        n_top=len(top),
        share_error=parts.share_error,
        matched=_rate(has),
        matched_active=_rate(has[active]),
        matched_top=_rate(has[top]),
        matched_weight=(weight[has].sum() / weight.sum()).item(),
        near_top=_rate(cosine[top] >= threshold),
        nearest_top=cosine[top].median().item(),
        unmatched=tuple((j, parts.share[j].item(), cosine[j].item()) for j in top.tolist() if not has[j])[:N_SHOWN],
        chance={name: _chance(decoders[0], rows, top, threshold) for name, rows in _random(decoders[1], seed)},
    )


def _random(decoder: Tensor, seed: int) -> list[tuple[str, Tensor]]:
    """Random dictionaries of the decoder's size."""
    hard, easy = (generator(derive_seed("matches by chance", name, seed)) for name in ("covariance_matched", "isotropic"))
    return [
        ("covariance_matched", covariance_matched_directions(decoder, len(decoder), hard)),
        ("isotropic", isotropic_directions(*decoder.shape, generator=easy)),
    ]


def _chance(decoder: Tensor, random: Tensor, top: Tensor, threshold: float) -> Chance:
    found: Nearest = nearest(decoder, random)
    has = torch.zeros(len(decoder), dtype=torch.bool).index_fill_(0, found.mutual(threshold)[:, 0], True)
    return Chance(_rate(has), _rate(has[top]), found.cosine_a[top].median().item())


def _rate(values: Tensor) -> float:
    return values.float().mean().item() if len(values) else 0.0


def _spearman(x: Tensor, y: Tensor) -> float | None:
    """Spearman's rank correlation; None for fewer than three pairs or for a constant side."""
    from scipy.stats import rankdata

    if len(x) < 3:
        return None
    ranks = torch.stack([torch.from_numpy(rankdata(side.numpy())) for side in (x, y)])
    value = torch.corrcoef(ranks)[0, 1].item()
    return None if value != value else value
