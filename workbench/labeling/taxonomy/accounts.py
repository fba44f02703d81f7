"""Sums over labelled features, in every bootstrap replicate and under every null: the arithmetic of "made of"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.randomness import derive_seed, generator
from workbench.decomposition.shares import feature_replicates, require_shares
from workbench.labeling.taxonomy.values import Null, Part
from workbench.maths.statistics import basic_interval, percentile_interval, rank_p

if TYPE_CHECKING:
    from workbench.decomposition.placebos import PlaceboCodes
    from workbench.decomposition.result import Decomposition


@dataclass(frozen=True, eq=False)
class Group:
    """A part before its sums: the features that are in it, and the outcomes of an assignment that would put one there."""

    id: str
    name: str
    kind: str
    features: tuple[int, ...]
    outcomes: tuple[str, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Account(Shown):
    """The labelled features of a decomposition: `shares [L]`, `replicates [B, L]`, and the nulls of them (float64).

    `swapped [n_swaps, L]`: the shares permuted among the features, which is the labels permuted. `placebos [P, L]`: the same
    features' shares of placebo vectors. `probabilities [L, n_outcomes]` and `draws [B, L]`: what the words of each label could
    mean, and one draw of it per bootstrap replicate. None where it was not asked for.
    """

    features: tuple[int, ...]
    shares: Tensor
    replicates: Tensor
    swapped: Tensor
    placebos: Tensor | None = None
    outcomes: tuple[str, ...] = ()
    probabilities: Tensor | None = None
    draws: Tensor | None = None

    @classmethod
    def of(
        cls,
        parts: Decomposition,
        features: Sequence[int],
        *,
        placebo_shares: Tensor | None = None,
        outcomes: Sequence[str] = (),
        probabilities: Tensor | None = None,
        n_swaps: int = 1000,
        seed: int = 0,
    ) -> Account:
        """The account of these features of the SAE. Raises WorkbenchError for a bare vector."""
        require_shares(parts)
        chosen, random = list(features), generator(derive_seed("made of", seed))
        shares, replicates = parts.share[chosen].double(), feature_replicates(parts, features)
        order = torch.rand(n_swaps, len(chosen), generator=random).argsort(dim=1)
        draws = None
        if probabilities is not None and len(chosen):
            draws = torch.multinomial(probabilities, len(replicates), replacement=True, generator=random).T
        placebos = None if placebo_shares is None else placebo_shares[:, chosen].double()
        return cls(tuple(chosen), shares, replicates, shares[order], placebos, tuple(outcomes), probabilities, draws)

    def part(self, group: Group) -> Part:
        """The group's share with its interval and its nulls."""
        place = {feature: column for column, feature in enumerate(self.features)}
        columns = [place[feature] for feature in group.features]
        share, replicates = float(self.shares[columns].sum()), self.replicates[:, columns].sum(dim=1)
        low, high = basic_interval(replicates, share)
        drawn, drawn_interval = self._drawn(group)
        return Part(
            id=group.id,
            name=group.name,
            kind=group.kind,
            share=share,
            low=low.item(),
            high=high.item(),
            corrected=2 * share - float(replicates.nanmean()),
            n_features=len(columns),
            features=group.features,
            drawn=drawn,
            drawn_interval=drawn_interval,
            swapped=_null(share, self.swapped[:, columns].sum(dim=1)) if columns else None,
            placebo=None if self.placebos is None or not columns else _null(share, self.placebos[:, columns].sum(dim=1)),
        )

    def _drawn(self, group: Group) -> tuple[float | None, tuple[float, float] | None]:
        if self.probabilities is None or self.draws is None:
            return None, None
        wanted = [self.outcomes.index(name) for name in group.outcomes if name in self.outcomes]
        hit = torch.isin(self.draws, torch.tensor(wanted, dtype=self.draws.dtype))
        expected = float(self.shares @ self.probabilities[:, wanted].sum(dim=1))
        low, high = basic_interval((self.replicates * hit).sum(dim=1), expected)
        return expected, (low.item(), high.item())


def _null(share: float, draws: Tensor) -> Null | None:
    known = draws[draws.isfinite()]
    if not len(known):
        return None
    low, high = percentile_interval(known)
    p = rank_p(torch.tensor(share - 1e-12, dtype=torch.float64), known)  # a tie by another order of summing is a tie
    return Null(known.median().item(), low.item(), high.item(), float(p), len(known))


def remainder(parts: Decomposition, account: Account, names: Sequence[tuple[str, str]]) -> list[Part]:
    """The features without a label and the SAE's error, named (id, name); the first is what the other parts leave of 1.

    Counted are the unlabelled features that have a share: those that never fired in either arm have none.
    """
    assert parts.share_error is not None
    error, labelled = parts.replicate_error.double(), account.replicates.sum(dim=1)
    share = 1 - parts.share_error - float(account.shares.sum())
    found = []
    unlabelled = int(parts.share.count_nonzero()) - int(account.shares.count_nonzero())
    values = (share, 1 - error - labelled, unlabelled), (parts.share_error, error, 0)
    for (identifier, name), (value, replicates, n_features) in zip(names, values, strict=True):
        low, high = (end.item() for end in basic_interval(replicates, value))
        corrected = 2 * value - float(replicates.nanmean())
        found.append(Part(identifier, name, identifier, value, low, high, corrected, n_features))
    return found


def placebo_shares(placebos: PlaceboCodes, decoder: Tensor, trait: str | None = None) -> Tensor:
    """Every feature's share of |v|^2 of every placebo contrast: `[n_placebos, d_sae]`, float32.

    share_pj = delta_pj <d_j, v_p> / |v_p|^2, as for a trait; placebos that are close to `trait` are left out. Which pole of a
    contrast is called positive changes nothing. Raises WorkbenchError when none is left.
    """
    used = placebos.unrelated(trait)
    if not len(used):
        raise WorkbenchError("no placebo contrast that is far from the trait", "some", "make others (workbench extract --all)")
    vectors = placebos.vectors[used].float()
    energy = vectors.square().sum(dim=1, keepdim=True)
    return placebos.delta_codes[used].float() * (vectors @ decoder.float().T) / energy
