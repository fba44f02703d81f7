"""Principal components of role vectors, what of them is noise, and how near the first is to the axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.randomness import derive_seed, generator
from workbench.maths.statistics import rank_p

WANTED_SHARE = 0.7
N_BOOTSTRAP = 200


@dataclass(frozen=True, eq=False, repr=False)
class Components(Shown):
    """PCA of `n` role vectors: unit directions `directions [k, d_model]` and variances `[k]` (divided by n - 1), largest first.

    `centre [d_model]` is the mean role; `scale [d_model]` divides every dimension first (ones, or the roles' own spread).
    """

    directions: Tensor
    variances: Tensor
    centre: Tensor
    scale: Tensor

    @property
    def shares(self) -> Tensor:
        """The share of the variance of each component `[k]`."""
        return self.variances / self.variances.sum()

    def n_for(self, share: float = WANTED_SHARE) -> int:
        """How many components hold this share of the variance."""
        return int((self.shares.cumsum(0) < share - 1e-12).sum()) + 1

    def scores(self, points: Tensor) -> Tensor:
        """The coordinates `[n, k]` of points `[n, d_model]` in the residual stream."""
        return (points.double() - self.centre) / self.scale @ self.directions.T


def components(roles: Tensor, *, standardised: bool = False) -> Components:
    """PCA of role vectors `[n_roles, d_model]`, centred at their mean, the default assistant not among them.

    standardised: every dimension divided by its standard deviation over the roles first (one that never varies is left as it is).
    """
    roles = roles.double()
    centre, spread = roles.mean(dim=0), roles.std(dim=0)
    scale = torch.where(spread > 0, spread, 1.0) if standardised else torch.ones_like(centre)
    _, values, directions = torch.linalg.svd((roles - centre) / scale, full_matrices=False)
    kept = min(len(roles) - 1, len(values))
    return Components(directions[:kept], values[:kept] ** 2 / (len(roles) - 1), centre, scale)


def n_for_share(roles: Tensor, n_roles: int, *, n_draws: int = 100, seed: int = 0) -> float:
    """The mean number of components for 70% of the variance over random sets of `n_roles` of the roles: for equal counts."""
    random = generator(derive_seed("components at equal counts", seed))
    drawn = [roles[torch.randperm(len(roles), generator=random)[:n_roles]] for _ in range(n_draws)]
    return sum(components(some).n_for() for some in drawn) / n_draws


def noise_floor(halves: Tensor) -> dict[str, Any]:
    """What of the components is there again on other questions: `halves [2, n_roles, d_model]`, each role from half of them.

    With A and B the centred halves and w_k the components of A (and the other way round; both are averaged):

        reliability    sum_d cov(A_d, B_d) / (trace cov A trace cov B)^1/2    1 = no noise, 0 = nothing but noise
        half_correlation_k = corr(A w_k, B w_k)
        replicable_share_k = cov(A w_k, B w_k) / sum_d cov(A_d, B_d)          n_for_70: of these, how many for 70%
        noise_share    trace cov((A - B) / 2) / trace cov((A + B) / 2)        of the variance of the whole means
        n_above_noise  components of (A + B) / 2 with more variance than the largest of the noise (A - B) / 2 (after Horn 1965)
    """
    one, other = (half.double() - half.double().mean(dim=0) for half in halves)
    pairs = [_replicable(one, other), _replicable(other, one)]
    correlations, shared = (torch.stack([pair[i] for pair in pairs]).mean(dim=0) for i in range(2))
    total = float((one * other).sum())
    mean, noise = (one + other) / 2, (one - other) / 2
    variances, of_noise = (torch.linalg.svdvals(part) ** 2 for part in (mean, noise))
    cumulative = shared.cumsum(0) / total if total > 0 else torch.zeros_like(shared)
    reached = (cumulative >= WANTED_SHARE).nonzero()
    return {
        "reliability": total / float(one.norm() * other.norm()),
        "half_correlation": correlations[:5].tolist(),
        "replicable_share": (shared[:5] / total).tolist() if total > 0 else None,
        "n_for_70": int(reached[0]) + 1 if len(reached) else None,
        "noise_share": float(noise.square().sum() / mean.square().sum()),
        "n_above_noise": int((variances > of_noise[0]).sum()),
        "noise_pc1_share": float(of_noise[0] / of_noise.sum()),
    }


def _replicable(made: Tensor, again: Tensor) -> tuple[Tensor, Tensor]:
    """(correlation, covariance sum) `[k]` of both halves' scores on the components of the first."""
    directions = torch.linalg.svd(made, full_matrices=False)[2][: len(made) - 1]
    one, other = made @ directions.T, again @ directions.T
    shared = (one * other).sum(dim=0)
    return shared / (one.norm(dim=0) * other.norm(dim=0)).clamp_min(1e-300), shared


def axis_and_first(
    roles: Tensor, default: Tensor, *, n_bootstrap: int = N_BOOTSTRAP, seed: int = 0
) -> dict[str, Any]:
    """|cos| of the axis (default - mean role) and the first component of the roles, beside the axes of single roles.

    {cos, interval, null_q95, percentile, p}. Interval: 95%, cos on Fisher's scale +- 1.96 standard deviations of bootstrap
    replicates (roles drawn again, both recomputed; where roles repeat the replicates lie lower, which is left out). Null: for
    each role i its axis role_i - mean(others) and the first component of the others: what a character that stands nowhere
    special has. percentile: share of the roles below the default; p = (1 + #{role >= default}) / (1 + n). The null takes the
    default for one of the roles, with as many answers as they have: `sensitivity.equal_answers` sees to that.
    Source: Lu et al. 2026 (arXiv 2601.10387), section 3, for the cosine.
    """
    points = torch.cat([roles, default[None]]).double()
    points = points - points.mean(dim=0)  # large common parts cost digits
    gram, n = points @ points.T, len(roles)
    everyone = torch.arange(n)
    found = _cosine(gram, everyone, n)
    null = role_cosines(roles)
    random = generator(derive_seed("axis and first component", seed))
    drawn = [torch.randint(n, (n,), generator=random) for _ in range(n_bootstrap)]
    replicates = torch.tensor([_cosine(gram, places, n) for places in drawn]).double()
    half = 1.96 * replicates.clamp(max=1 - 1e-9).atanh().std()
    middle = torch.tensor(min(found, 1 - 1e-9)).double().atanh()
    ends = [max(0.0, float((middle - half).tanh())), float((middle + half).tanh())]
    return {
        "cos": found, "interval": ends, "null_q95": float(torch.quantile(null, 0.95)),
        "percentile": float((null < found).double().mean()), "p": float(rank_p(found, null)),
    }  # fmt: skip


def role_cosines(roles: Tensor) -> Tensor:
    """|cos| `[n_roles]` of each role's own axis, role_i - mean(others), with the first component of the others."""
    points = roles.double() - roles.double().mean(dim=0)
    gram, everyone = points @ points.T, torch.arange(len(roles))
    return torch.tensor([_cosine(gram, torch.cat([everyone[:i], everyone[i + 1 :]]), i) for i in range(len(roles))])


def _cosine(gram: Tensor, places: Tensor, apart: int) -> float:
    """|cos(x_apart - mean of `places`, first component of `places`)| from inner products alone."""
    inner, outer = gram[places][:, places], gram[apart, places]
    centred = inner - inner.mean(dim=0) - inner.mean(dim=1)[:, None] + inner.mean()
    values, vectors = torch.linalg.eigh(centred)
    along = outer - outer.mean() - inner.mean(dim=0) + inner.mean()  # <axis, x_i - mean>
    length = gram[apart, apart] - 2 * outer.mean() + inner.mean()
    norm = (values[-1].clamp_min(0) * length.clamp_min(0)).sqrt()
    return float((along @ vectors[:, -1]).abs() / norm) if norm > 0 else 0.0


def standardised_cosine(roles: Tensor, default: Tensor) -> float:
    """|cos| of the axis and the first component when every dimension is divided by its spread over the roles."""
    found = components(roles, standardised=True)
    axis = (default.double() - found.centre) / found.scale
    return float(torch.cosine_similarity(axis, found.directions[0], dim=0).abs())


def curve(
    roles: Tensor, default: Tensor, hooks: Sequence[Any], *, n_bootstrap: int = N_BOOTSTRAP, seed: int = 0
) -> list[dict[str, Any]]:
    """`axis_and_first` at every hook: `roles [n_roles, n_hooks, d_model]`, `default [n_hooks, d_model]`."""
    return [
        {"hook": str(hook), **axis_and_first(roles[:, i], default[i], n_bootstrap=n_bootstrap, seed=seed),
         "n_for_70": components(roles[:, i]).n_for()}
        for i, hook in enumerate(hooks)
    ]  # fmt: skip
