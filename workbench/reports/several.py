"""A page of 1 to 7 traits on one SAE, as values: each trait's report, what they share, and how their vectors overlap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError, unknown_name
from workbench.reports.contract import plain
from workbench.reports.gathered import fewer_contexts
from workbench.reports.limits import MAX_TRAITS
from workbench.reports.shares import finite

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.decomposition.comparison.overlap import TraitComparison
    from workbench.decomposition.result import Decomposition
    from workbench.labeling.labels import FeatureLabel
    from workbench.reports.content import Report

N_SHARED = 40
"""Shared features that a page lists; `n_shared` counts them all."""
Q_LEVEL = 0.05


@dataclass(frozen=True)
class SharedFeature:
    """A feature that two traits or more move, in the same direction, as placebo contrasts do not (q .05).

    `traits` are those; `shares` has the feature's share of |v|^2 in every trait of the page, in their order.
    """

    feature: int
    label: FeatureLabel | None
    traits: tuple[str, ...]
    shares: tuple[float | None, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; the label by its words."""
        label = self.label.label if self.label else None
        return {"feature": self.feature, "label": label, "traits": list(self.traits), "shares": list(self.shares)}


@dataclass(frozen=True)
class SharedPair:
    """Two traits: the `cosine` of their vectors, and how many specific features they share.

    `n_specific` features of each move as placebo contrasts do not (q .05); `n_shared` of them are in both with the same sign;
    `n_expected` would be if each trait had drawn as many of either sign at random from the `n_active` features that fire in
    both. That is a weak null: any two contrasts have features in common. The harder one is of the cosine: its median and 95th
    percentile with placebo contrasts and its rank `p` among them. None: not known (no placebo contrasts, or no SAE at hand).
    """

    traits: tuple[str, str]
    cosine: float | None
    n_specific: tuple[int, int] | None = None
    n_shared: int | None = None
    n_expected: float | None = None
    n_active: int | None = None
    background_median: float | None = None
    background_q95: float | None = None
    p: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, by the names of the fields."""
        return plain(asdict(self))


@dataclass(frozen=True, repr=False)
class TraitReports(Shown):
    """The reports of 1 to 7 traits on one SAE and what they have in common. `cosines [n][n]` are those of the vectors.

    `shared`: features of two traits or more, those of the most traits first, then of the largest mean |share| (the first
    `N_SHARED`; `n_shared` in all; None without placebo contrasts, where nothing says what is a trait's own). `comparison`: every
    pair taken apart (`decomposition.comparison.overlap`), None where the SAE's weights were not at hand.
    """

    traits: tuple[Report, ...]
    cosines: tuple[tuple[float | None, ...], ...]
    pairs: tuple[SharedPair, ...]
    shared: tuple[SharedFeature, ...]
    n_shared: int | None
    comparison: TraitComparison | None = None
    path: Path | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The traits, in the order of the page."""
        return tuple(one.trait for one in self.traits)

    def __getitem__(self, trait: str) -> Report:
        """The report of one trait; an unknown name is a WorkbenchError that lists the known ones."""
        if trait not in self.names:
            raise unknown_name("trait of this page", trait, self.names)
        return self.traits[self.names.index(trait)]

    def __iter__(self) -> Iterator[Report]:
        return iter(self.traits)

    def __len__(self) -> int:
        return len(self.traits)

    def __repr__(self) -> str:
        return f"TraitReports({', '.join(self.names)}; {self.n_shared or 0} shared features)"

    def to_json(self) -> dict[str, Any]:
        """{"traits": {name: contract object}, "cosines", "pairs", "shared", "n_shared", "comparison", "report"}; plain JSON."""
        return {
            "traits": {one.trait: one.to_json() for one in self.traits},
            "cosines": plain(self.cosines),
            "pairs": [pair.to_json() for pair in self.pairs],
            "shared": [one.to_json() for one in self.shared],
            "n_shared": self.n_shared,
            "comparison": plain(self.comparison.to_json()) if self.comparison else None,
            "report": str(self.path) if self.path else None,
        }

    def html(self) -> str:
        """The page: one file, no network."""
        from workbench.reports.html import render_traits

        return render_traits(self)

    def save(self, path: str | Path) -> TraitReports:
        """Writes the page (all or nothing) and gives back this value with `path` set."""
        from workbench.base.store import atomic_write

        saved = replace(self, path=Path(path))
        atomic_write(Path(path), saved.html())
        return saved


def trait_reports(
    reports: Sequence[Report], *, comparison: TraitComparison | None = None
) -> TraitReports:
    """Several reports as one value; of the views of many traits fewer contexts are kept.

    `comparison` is that of their decompositions, in the same order. Raises WorkbenchError for none or more than `MAX_TRAITS`
    traits, a trait that stands twice, reports on different SAEs, and a comparison of other traits.
    """
    _check(tuple(reports), comparison)
    made = tuple(replace(one, views=fewer_contexts(one.views, len(reports))) for one in reports)
    parts = [one.parts for one in made]
    cosines = _cosines(parts)
    signed = _specific(parts)
    pairs = tuple(_pair(parts, cosines, signed, comparison, a, b) for a, b in combinations(range(len(made)), 2))
    shared = None if signed is None else _shared(made, signed)
    listed = () if shared is None else tuple(shared[:N_SHARED])
    return TraitReports(made, cosines, pairs, listed, None if shared is None else len(shared), comparison)


def _check(reports: tuple[Report, ...], comparison: TraitComparison | None) -> None:
    names = [one.trait for one in reports]
    if not 1 <= len(names) <= MAX_TRAITS:
        raise WorkbenchError(f"{len(names)} traits", f"1 to {MAX_TRAITS} on one page", "make several pages")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise WorkbenchError(f"{twice!r} stands twice", "every trait once", "leave one of the two out")
    saes = {str(one.parts.sae.get("weights_hash")): str(one.parts.sae.get("id")) for one in reports}
    if len(saes) > 1:
        raise WorkbenchError(
            f"the traits were decomposed on different SAEs ({', '.join(saes.values())})",
            "one SAE for all: feature numbers mean nothing across SAEs",
            "decompose all of them on the same SAE (--sae), or make a page for each SAE",
        )
    if comparison is not None and tuple(comparison.traits) != tuple(names):
        raise WorkbenchError(
            f"the comparison is of {', '.join(comparison.traits)}", f"one of {', '.join(names)}", "compare these decompositions"
        )


def _cosines(parts: Sequence[Decomposition]) -> tuple[tuple[float | None, ...], ...]:
    import torch

    units = torch.nn.functional.normalize(torch.stack([one.direction.double() for one in parts]), dim=1)
    return tuple(tuple(map(finite, row)) for row in (units @ units.T).tolist())


def _specific(parts: Sequence[Decomposition]) -> Tensor | None:
    """`[n_traits, d_sae]`: the sign of the change where a feature is specific to the trait (placebo q .05), else 0."""
    import torch

    if not all(one.placebo_q.isfinite().any() for one in parts):
        return None
    return torch.stack([one.delta_code.nan_to_num(0.0).sign() * (one.placebo_q <= Q_LEVEL) for one in parts])


def _pair(
    parts: Sequence[Decomposition], cosines: Sequence[Sequence[float | None]], signed: Tensor | None,
    comparison: TraitComparison | None, a: int, b: int,
) -> SharedPair:  # fmt: skip
    names = (parts[a].trait, parts[b].trait)
    counted: dict[str, Any] = {} if signed is None else _counted(parts, signed, a, b)
    found = next((one for one in comparison.pairs if set(one.traits) == set(names)), None) if comparison else None
    known = found.background if found else None
    null: dict[str, Any] = {} if known is None else {"background_median": known.median, "background_q95": known.q95, "p": known.p}
    return SharedPair(names, cosines[a][b], **counted, **null)


def _counted(parts: Sequence[Decomposition], signed: Tensor, a: int, b: int) -> dict[str, Any]:
    """How many specific features of one sign the two have in common, and how many two random choices would have."""
    active = (parts[a].delta_code.nan_to_num(0.0) != 0) & (parts[b].delta_code.nan_to_num(0.0) != 0)
    n_active = int(active.sum())
    one, other = signed[a], signed[b]
    by_sign = [(int((one == sign).sum()), int((other == sign).sum())) for sign in (1, -1)]
    return {
        "n_specific": (int((one != 0).sum()), int((other != 0).sum())),
        "n_shared": int(((one == other) & (one != 0)).sum()),
        "n_expected": sum(n * m for n, m in by_sign) / n_active if n_active else 0.0,
        "n_active": n_active,
    }


def _shared(reports: Sequence[Report], signed: Tensor) -> list[SharedFeature]:
    """As `comparison.overlap` has them: specific to two traits or more with a change of the sign that most of them have."""
    import torch

    same = (signed == signed.sum(dim=0).sign()) & (signed != 0)
    count = same.sum(dim=0)
    shares = torch.stack([one.parts.share.double() for one in reports])
    size = shares.abs().nan_to_num(0.0).mean(dim=0)
    order = sorted((count >= 2).nonzero()[:, 0].tolist(), key=lambda j: (-int(count[j]), -float(size[j]), j))
    return [
        SharedFeature(
            feature=j,
            label=next((label for one in reports if (label := one.label(j)) is not None), None),
            traits=tuple(one.trait for one, inside in zip(reports, same[:, j].tolist(), strict=True) if inside),
            shares=tuple(map(finite, shares[:, j].tolist())),
        )
        for j in order
    ]
