"""A trait minus what it shares with others: what is left of its vector, and which features that is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.maths.geometry import projections
from workbench.maths.pursuit import signed_omp

from ..placebos import PlaceboCodes
from ..result import Decomposition

N_SHOWN = 10
N_DRAWS = 200


@dataclass(frozen=True)
class Remainder:
    """What is left of a trait's vector once the span of the other traits is projected out.

    `share_left` = |r|^2 / |v|^2, and `of_placebos` the 2.5th, 50th and 97.5th percentile of what is left after projecting out as
    many placebo contrasts instead, drawn at random (None without enough of them). `features` are the largest shares of r, as
    (feature, share of r, share of v). `pursuit_before` and `pursuit_after` are the features that signed pursuit chooses for
    v and for r, in order; `pursuit_kept` is how many they have in common. `in_shared` is the squared cosine of v with the
    shared component, the mean of all traits' unit vectors; n unrelated traits have 1 / n, `in_shared_if_unrelated`.
    """

    trait: str
    share_left: float
    of_placebos: tuple[float, float, float] | None
    features: tuple[tuple[int, float, float], ...]
    pursuit_before: tuple[int, ...]
    pursuit_after: tuple[int, ...]
    pursuit_kept: int
    in_shared: float
    in_shared_if_unrelated: float


def remainders(
    parts: Sequence[Decomposition],
    decoder: Tensor,
    *,
    placebos: PlaceboCodes | None,
    n_atoms: int,
    generator: torch.Generator,
) -> tuple[Remainder, ...]:
    """Each trait less the span of the others: r_a = v_a - sum_b c_b v_b, the c_b by least squares.

    r_a is a difference of means as v_a is, with the changes dz_aj - sum_b c_b dz_bj, so the accounting identity holds for it and
    its shares are exact. A remainder says what separates *these* traits; one more trait in the comparison changes it.
    """
    vectors = torch.stack([one.direction for one in parts]).double()
    codes = torch.stack([one.delta_code for one in parts]).double()
    unit = torch.nn.functional.normalize(vectors, dim=1)
    shared = torch.nn.functional.normalize(unit.mean(dim=0), dim=0)
    found = []
    for n, one in enumerate(parts):
        others = [k for k in range(len(parts)) if k != n]
        weights = torch.linalg.pinv(vectors[others].T) @ vectors[n]
        left, left_codes = vectors[n] - weights @ vectors[others], codes[n] - weights @ codes[others]
        before, after = _pursued(torch.stack([vectors[n], left]), decoder, n_atoms)
        found.append(
            Remainder(
                trait=one.trait,
                share_left=(left.square().sum() / vectors[n].square().sum()).item(),
                of_placebos=_after_placebos(one, placebos, len(others), generator),
                features=_largest(left, left_codes, decoder, one.share),
                pursuit_before=before,
                pursuit_after=after,
                pursuit_kept=len({*before} & {*after}),
                in_shared=(unit[n] @ shared).square().item(),
                in_shared_if_unrelated=1 / len(parts),
            )
        )
    return tuple(found)


def _pursued(vectors: Tensor, decoder: Tensor, n_atoms: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    support = signed_omp(vectors.float(), decoder, n_atoms=min(n_atoms, *decoder.shape)).support
    before, after = (tuple(j for j in row if j >= 0) for row in support.tolist())
    return before, after


def _largest(left: Tensor, codes: Tensor, decoder: Tensor, shares: Tensor) -> tuple[tuple[int, float, float], ...]:
    """The largest shares of the remainder, beside those of the vector; none where nothing is left."""
    energy = left.square().sum()
    if not energy > 0:
        return ()
    of_left = codes * projections(left[None], decoder)[0] / energy
    largest = of_left.topk(min(N_SHOWN, len(of_left))).indices.tolist()
    return tuple((j, of_left[j].item(), shares[j].item()) for j in largest)


def _after_placebos(
    one: Decomposition, placebos: PlaceboCodes | None, n: int, generator: torch.Generator
) -> tuple[float, float, float] | None:
    """What is left of the vector when `n` random placebos are projected out of it instead of the other traits."""
    places = [] if placebos is None else placebos.unrelated(one.trait)
    if placebos is None or len(places) < n:
        return None
    contrasts, target = placebos.vectors[places].double(), one.direction.double()
    left = []
    for _ in range(N_DRAWS):
        drawn = contrasts[torch.randperm(len(places), generator=generator)[:n]]
        basis = torch.linalg.qr(drawn.T).Q
        left.append(1 - (basis.T @ target).square().sum() / target.square().sum())
    low, middle, high = torch.stack(left).quantile(target.new_tensor([0.025, 0.5, 0.975])).tolist()
    return low, middle, high
