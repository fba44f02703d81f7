"""A page of 1 to 7 traits on one SAE, as values: each trait's report, what they share, and how their vectors overlap."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.reports.contract import plain

if TYPE_CHECKING:
    from workbench.decomposition.comparison.overlap import TraitComparison
    from workbench.labeling.labels import FeatureLabel
    from workbench.reports.content import Report

MAX_TRAITS = 7


@dataclass(frozen=True)
class SharedFeature:
    """A feature that two traits or more move, in the same direction, as placebo contrasts do not (q .05).

    `traits` are those; `shares` has the feature's share of |v|^2 in every trait of the page, in their order.
    """

    feature: int
    label: FeatureLabel | None
    traits: tuple[str, ...]
    shares: tuple[float | None, ...]


@dataclass(frozen=True)
class SharedPair:
    """Two traits: the `cosine` of their vectors, and how many specific features they share.

    `n_specific` features of each move as placebo contrasts do not (q .05); `n_shared` of them are in both with the same sign;
    `n_expected` would be if either trait had drawn its own at random from the `n_active` features that fire for one of the
    two. Any two contrasts have more in common than that: `background_median`, `background_q95` and `p` say how the cosine
    stands among those with placebo contrasts. None: not known (no placebo contrasts, or the SAE was not at hand).
    """

    traits: tuple[str, str]
    cosine: float
    n_specific: tuple[int, int] | None = None
    n_shared: int | None = None
    n_expected: float | None = None
    n_active: int | None = None
    background_median: float | None = None
    background_q95: float | None = None
    p: float | None = None


@dataclass(frozen=True)
class TraitReports:
    """The reports of 1 to 7 traits on one SAE and what they have in common. `cosines [n][n]` are those of the vectors.

    `shared`: features of two traits or more, those of the most traits first. `comparison`: every pair taken apart
    (`decomposition.comparison.overlap`), None where the SAE's weights were not at hand.
    """

    traits: tuple[Report, ...]
    cosines: tuple[tuple[float, ...], ...] = ()
    pairs: tuple[SharedPair, ...] = ()
    shared: tuple[SharedFeature, ...] = ()
    comparison: TraitComparison | None = None
    path: Path | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(one.trait for one in self.traits)

    def __getitem__(self, trait: str) -> Report:
        return next(one for one in self.traits if one.trait == trait)

    def to_json(self) -> dict[str, Any]:
        """{"traits": {name: the contract object}, "cosines", "pairs", "shared", "comparison", "report"}; plain JSON types."""
        from dataclasses import asdict

        shared = [{**vars(one), "label": one.label.label if one.label else None} for one in self.shared]
        return plain({
            "traits": {one.trait: one.to_json() for one in self.traits},
            "cosines": self.cosines,
            "pairs": [asdict(pair) for pair in self.pairs],
            "shared": shared,
            "comparison": self.comparison.to_json() if self.comparison else None,
            "report": str(self.path) if self.path else None,
        })  # fmt: skip
