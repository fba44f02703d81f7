"""How far a fine-tune moved the model along persona vectors, beside what it moved along directions that are no trait.

With D = mean over texts of (after - before) at one place, and S the covariance of the model before over single tokens:

    shift = <D, u> / (median token norm)         u = v / |v|; positive is toward the trait; in norms
    z     = <D, v> / (v' S v)^(1/2)              in standard deviations of a token's coordinate along v

z does not depend on the length of v, and large natural variance along v does not pass for a shift. Two nulls, each over the whole
family of T traits: placebo contrasts p (formal / casual, pirate / librarian, ...), which have no side of their own, so that z /
(mean_p z_p^2)^(1/2) follows Student's t with as many degrees of freedom as there are placebos, times T (Bonferroni); and sets of
T random directions drawn from N(0, S), of which the largest |z| counts. Source of the quantity: Chen et al. 2025 (arXiv
2507.21509), section 4 (finetuning shift); the nulls are this package's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.base.randomness import derive_seed, generator
from workbench.maths.geometry import covariance_factor, covariance_matched_directions, reciprocal
from workbench.maths.statistics import bootstrap_counts, percentile_interval

if TYPE_CHECKING:
    from workbench.models.hookpoints import HookPoint
    from workbench.personas.placebos import PlaceboVectors

LEVEL = 0.05
MIN_PLACEBOS = 8


@dataclass(frozen=True)
class TraitShift:
    """The shift along one persona vector at one place, with its nulls. See the module for `shift` and `z`.

    `interval` and `z_interval`: 95%, texts resampled. `placebo_limit` and `random_limit`: the |z| that each null reaches in 5% of
    the families. `p_placebo` and `p_random` are two-sided and family-wise over the traits (None without placebos).
    """

    trait: str
    place: str
    hook: str
    shift: float
    interval: tuple[float, float]
    z: float
    z_interval: tuple[float, float]
    placebo_limit: float | None
    n_placebos: int
    p_placebo: float | None
    random_limit: float
    p_random: float

    @property
    def limit(self) -> float:
        """The |z| beyond which both nulls are exceeded."""
        return max(self.random_limit, self.placebo_limit or 0.0)

    @property
    def p(self) -> float:
        """The larger of the two family-wise p-values: what is beyond placebos and random directions alike."""
        return max(self.p_random, self.p_placebo if self.p_placebo is not None else 0.0)

    @property
    def installed(self) -> bool:
        """Whether the model moved toward the trait by more than both nulls allow at 5% over the whole family."""
        return self.z > 0 and self.p <= LEVEL


@dataclass(frozen=True)
class Span:
    """The part of |D|^2 that lies in the span of the persona vectors, beside that in spans of as many random directions."""

    share: float
    random_share: float
    random_share_95: float
    n_vectors: int


class Site:
    """Directions of one hook point with their standard deviations over tokens, and the random family."""

    def __init__(
        self, hook: HookPoint, vectors: Mapping[str, Tensor], placebos: PlaceboVectors | None, sample: Tensor,
        median_norm: float, *, n_random: int, family: int, seed: int,
    ) -> None:  # fmt: skip
        self.hook, self.median_norm, self.family, self.seed = hook, median_norm, family, seed
        self.names, self.directions = tuple(vectors), torch.stack(list(vectors.values())).double()
        self.factor = covariance_factor(sample)
        self.placebos = None if placebos is None or hook not in placebos.hooks else placebos
        draws = generator(derive_seed("shifts", str(hook), seed))
        drawn = covariance_matched_directions(sample, n_random * family, draws, factor=self.factor)
        unit_spread = drawn.double() * self.per_spread(drawn)[:, None]
        self.random = unit_spread.reshape(n_random, family, -1)

    def z(self, difference: Tensor, directions: Tensor) -> Tensor:
        """<D, v> / (v' S v)^(1/2) of `directions [..., d_model]`; 0 for a direction in which no token varies."""
        return (directions.double() @ difference.double()) * self.per_spread(directions)

    def per_spread(self, directions: Tensor) -> Tensor:
        """1 / (v' S v)^(1/2), and 0 where no token varies along v."""
        return reciprocal((directions.double() @ self.factor).norm(dim=-1))

    def shifts(self, place: str, differences: Tensor, *, n_bootstrap: int) -> list[TraitShift]:
        """One row per vector from the differences per text `[n, d_model]`."""
        mean = differences.mean(dim=0)
        draws = generator(derive_seed("texts", place, self.seed))
        counts = bootstrap_counts(len(differences), n_bootstrap, draws) / len(differences)
        low, high = percentile_interval(counts @ (differences @ self.directions.T))
        ends = torch.stack([low, self.directions @ mean, high])
        in_norms = ends * reciprocal(self.directions.norm(dim=1)) / self.median_norm
        z = ends * self.per_spread(self.directions)
        largest = (self.random @ mean).abs().amax(dim=1)
        rows = []
        for index, name in enumerate(self.names):
            (a, shift, b), (c, value, d) = in_norms[:, index].tolist(), z[:, index].tolist()
            nulls = {**self._beside_placebos(name, mean, value), **_beside_random(value, largest)}
            rows.append(TraitShift(name, place, str(self.hook), shift, (a, b), value, (c, d), **nulls))
        return rows

    def _beside_placebos(self, trait: str, mean: Tensor, z: float) -> dict:
        from scipy import stats

        near = None if self.placebos is None else self.placebos.at(self.hook, trait=trait)
        if near is None or len(near) < MIN_PLACEBOS:
            return {"placebo_limit": None, "n_placebos": 0, "p_placebo": None}
        size, null = float(self.z(mean, near).square().mean().sqrt()), stats.t(len(near))
        p = 1.0 if size == 0 else min(1.0, self.family * 2 * float(null.sf(abs(z) / size)))
        limit = size * float(null.isf(LEVEL / (2 * self.family)))
        return {"placebo_limit": limit, "n_placebos": len(near), "p_placebo": p}

    def span(self, differences: Tensor) -> Span:
        """How much of the shift the vectors of this hook point hold together."""
        mean = differences.mean(dim=0)
        n = len(self.directions)
        share = lambda rows: float(_in_span(rows, mean))  # noqa: E731
        random = torch.tensor([share(rows[:n]) for rows in self.random[:200]], dtype=torch.float64)
        return Span(share(self.directions), float(random.mean()), float(random.quantile(0.95)), n)


def _beside_random(z: float, largest: Tensor) -> dict[str, float]:
    exceed = int((largest >= abs(z)).sum())
    return {"random_limit": float(largest.quantile(1 - LEVEL)), "p_random": (1 + exceed) / (1 + len(largest))}


def _in_span(rows: Tensor, difference: Tensor) -> Tensor:
    """|projection on the span of the rows|^2 / |difference|^2; 0 for no difference."""
    energy = difference.double().square().sum()
    if energy == 0:
        return energy
    basis = torch.linalg.svd(rows.double(), full_matrices=False)
    kept = basis.Vh[1e-9 * basis.S.max() < basis.S]
    return (kept @ difference.double()).square().sum() / energy


def largest_z(rows: Sequence[TraitShift]) -> TraitShift:
    """The trait that the model moved toward most: the largest z among the rows of one place."""
    return max(rows, key=lambda row: row.z)
