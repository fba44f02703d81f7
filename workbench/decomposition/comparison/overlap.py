"""Traits on one SAE: how much two vectors overlap, which features carry it, what is each trait's own, what remains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.randomness import derive_seed, generator
from workbench.maths.geometry import projections, signed_cosines
from workbench.maths.identity import n_for_half
from workbench.maths.statistics import rank_p

from ..placebos import PlaceboCodes
from ..result import Decomposition
from .remainders import Remainder, remainders

N_SHOWN = 10
Q_LEVEL = P_LEVEL = 0.05


@dataclass(frozen=True)
class Contributor:
    """A feature's `part` of a cosine, with its change of the mean code and its share in either trait.

    `placebos_q95` is the 95th percentile of the |part| that the same feature has of the cosines of both traits with placebo
    contrasts (None without them): a feature far below it joins almost any two contrasts.
    """

    feature: int
    part: float
    delta_codes: tuple[float, float]
    shares: tuple[float, float]
    placebos_q95: float | None


@dataclass(frozen=True)
class Background:
    """|cosine| of a trait with `n` placebo contrasts: `median`, 95th percentile, and the rank `p` of the overlap among them."""

    n: int
    median: float
    q95: float
    p: float


@dataclass(frozen=True)
class PairOverlap:
    """The cosine of two traits' vectors taken apart: `cosine` = sum of the features' parts + `error` (the SAE's errors).

    `positive` and `negative` are the sums of the parts above and below 0, `contributors` the largest by |part|, and
    `n_half` how many of the largest make half of the cosine (None where they do not).
    """

    traits: tuple[str, str]
    cosine: float
    error: float
    positive: float
    negative: float
    n_half: int | None
    contributors: tuple[Contributor, ...]
    background: Background | None


@dataclass(frozen=True)
class OwnFeatures:
    """Features that `trait` moves as placebo contrasts do not (q .05), while no other trait moves them even at p .05.

    `n_specific` reach q .05, `n_own` of them in this trait alone, `n_if_unrelated` is what `n_own` would be if the other traits
    moved these features no more than placebos do; `features` are the largest of them by |share|, as (feature, share).
    """

    trait: str
    n_specific: int
    n_own: int
    n_if_unrelated: float
    features: tuple[tuple[int, float], ...]


@dataclass(frozen=True, repr=False)
class TraitComparison(Shown):
    """Two or more traits on one SAE: `cosines [n][n]`, every pair taken apart, what is each trait's own, and what is left of it.

    `common` are the features specific (q .05) to two traits or more with a change of the same sign, and to which of them. It
    and `own` are None without placebo contrasts.
    """

    sae: str
    traits: tuple[str, ...]
    cosines: tuple[tuple[float, ...], ...]
    pairs: tuple[PairOverlap, ...]
    own: tuple[OwnFeatures, ...] | None
    common: tuple[tuple[int, tuple[str, ...]], ...] | None
    remainders: tuple[Remainder, ...]
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, by the names of the fields, with `kind`."""
        return {"kind": "traits", **asdict(self)}


def compare_traits(
    parts: Sequence[Decomposition], decoder: Tensor, *, placebos: PlaceboCodes | None = None, n_atoms: int = 32, seed: int = 0
) -> TraitComparison:
    """How the vectors of several traits overlap, feature by feature, beside what placebo contrasts overlap.

    With v_a = sum_j dz_aj d_j + e_a (the accounting identity) the inner product is <v_a, v_b> = sum_j dz_aj <d_j, v_b> + <e_a,
    v_b>; the mean of this and of the same with a and b exchanged, over |v_a| |v_b|, gives each feature's part of the cosine.
    Exact: no bootstrap and no choice of features; of a with itself the parts are the shares. `decoder [d_sae, d_model]` is
    that of the SAE of all `parts`, whose site and weights `comparison.compare` checks.

    What to compare with: an instruction of any kind pushes a model in some ways that instructions have in common, so that a
    trait overlaps with placebo contrasts too. `background` ranks |cos(v_a, v_b)| among the cosines of both with the placebos
    that come close to neither. Without `placebos` it is None and `warnings` says so.
    """
    traits = tuple(one.trait for one in parts)
    sides = [_Side.of(one.direction[None], one.delta_code[None], decoder) for one in parts]
    cosines = signed_cosines(*[torch.cat([side.unit for side in sides])] * 2)
    pairs = [
        _pair(parts[a], parts[b], sides[a], sides[b], placebos, decoder) for a, b in combinations(range(len(parts)), 2)
    ]
    known = all(one.placebo_q.isfinite().any() for one in parts)
    drawn = generator(derive_seed("remainders", seed))
    return TraitComparison(
        sae=str(parts[0].sae.get("id")),
        traits=traits,
        cosines=tuple(map(tuple, cosines.tolist())),
        pairs=tuple(pairs),
        own=tuple(_own(parts, n) for n in range(len(parts))) if known else None,
        common=_common(parts) if known else None,
        remainders=remainders(parts, decoder, placebos=placebos, n_atoms=n_atoms, generator=drawn),
        warnings=() if placebos is not None else (_NO_PLACEBOS,),
    )


_NO_PLACEBOS = "no placebo contrasts of this SAE: how much any two contrasts overlap is unknown"


@dataclass(frozen=True, eq=False)
class _Side:
    """n contrasts at unit length: `unit [n, d_model]`, changes of the mean code `codes [n, d_sae]`, and <d_j, unit> `onto`."""

    unit: Tensor
    codes: Tensor
    onto: Tensor

    @classmethod
    def of(cls, vectors: Tensor, codes: Tensor, decoder: Tensor) -> _Side:
        lengths = vectors.double().norm(dim=1, keepdim=True)
        unit = vectors.double() / lengths
        return cls(unit, codes.double() / lengths, projections(unit, decoder))

    def parts_of_cosine(self, other: _Side) -> Tensor:
        """The features' parts `[n, d_sae]` of the cosine of each with the one contrast of `other`."""
        return (self.codes * other.onto + other.codes * self.onto) / 2


def _pair(
    one: Decomposition, other: Decomposition, a: _Side, b: _Side, placebos: PlaceboCodes | None, decoder: Tensor
) -> PairOverlap:
    of_cosine, cosine = a.parts_of_cosine(b)[0], (a.unit @ b.unit.T).item()
    largest = of_cosine.abs().topk(min(N_SHOWN, len(of_cosine))).indices
    background, limits = _background(one, other, a, b, largest, placebos, decoder)
    shown = [
        Contributor(j, of_cosine[j].item(), (one.delta_code[j].item(), other.delta_code[j].item()),
                    (one.share[j].item(), other.share[j].item()), limit)
        for j, limit in zip(largest.tolist(), limits, strict=True)
    ]  # fmt: skip
    return PairOverlap(
        traits=(one.trait, other.trait),
        cosine=cosine,
        error=cosine - of_cosine.sum().item(),
        positive=of_cosine.clamp_min(0).sum().item(),
        negative=of_cosine.clamp_max(0).sum().item(),
        n_half=n_for_half(of_cosine / cosine) if cosine else None,
        contributors=tuple(shown),
        background=background,
    )


def _background(
    one: Decomposition, other: Decomposition, a: _Side, b: _Side, features: Tensor, placebos: PlaceboCodes | None,
    decoder: Tensor,
) -> tuple[Background | None, Sequence[float | None]]:  # fmt: skip
    """The cosines of both with the placebos that come close to neither, and the 95th percentiles of the features' |parts|."""
    near = [] if placebos is None else sorted({*placebos.unrelated(one.trait)} & {*placebos.unrelated(other.trait)})
    if placebos is None or not near:
        return None, [None] * len(features)
    contrasts = _Side.of(placebos.vectors[near], placebos.delta_codes[near][:, features], decoder[features])
    narrow = [_Side(side.unit, side.codes[:, features], side.onto[:, features]) for side in (a, b)]
    parts = torch.cat([contrasts.parts_of_cosine(side) for side in narrow]).abs()
    with_placebos = torch.cat([contrasts.unit @ side.unit[0] for side in (a, b)]).abs()
    middle, high = with_placebos.quantile(with_placebos.new_tensor([0.5, 0.95])).tolist()
    p = rank_p((a.unit @ b.unit.T).abs().item(), with_placebos).item()
    return Background(len(near), middle, high, p), parts.quantile(0.95, dim=0).tolist()


def _own(parts: Sequence[Decomposition], n: int) -> OwnFeatures:
    one, others = parts[n], [other for k, other in enumerate(parts) if k != n]
    specific = one.placebo_q <= Q_LEVEL
    elsewhere = torch.stack([other.placebo_p <= P_LEVEL for other in others]).any(dim=0)
    own = (specific & ~elsewhere).nonzero()[:, 0]
    largest = own[one.share[own].abs().sort(descending=True).indices][:N_SHOWN]
    count = int(specific.sum())
    shown = tuple((j, one.share[j].item()) for j in largest.tolist())
    return OwnFeatures(one.trait, count, len(own), count * (1 - P_LEVEL) ** len(others), shown)


def _common(parts: Sequence[Decomposition]) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """Specific to two or more with changes of one sign; those of the most traits first, then of the largest mean |share|."""
    specific = torch.stack([one.placebo_q <= Q_LEVEL for one in parts])
    signs = torch.stack([one.delta_code.sign() for one in parts])
    same = (signs == signs.where(specific, 0).sum(dim=0).sign()) & specific
    count, size = same.sum(dim=0), torch.stack([one.share.abs() for one in parts]).mean(dim=0)
    found = sorted((count >= 2).nonzero()[:, 0].tolist(), key=lambda j: (-int(count[j]), -float(size[j])))
    return tuple((j, tuple(one.trait for one, inside in zip(parts, same[:, j], strict=True) if inside)) for j in found)
