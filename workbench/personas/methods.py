"""Ways to make a direction from the same rows: mean difference, PCA of paired differences, and two detectors.

A mean difference says where the two arms differ. A detector (logistic regression, whitened mean difference) says along
which direction they are best told apart, which depends on the noise as well; what it responds to is its *pattern*
Sigma w / (w' Sigma w) (Haufe et al. 2014, NeuroImage 87, eq. 6), and only a pattern may be decomposed into features.
Every function is pure, takes weighted rows and points toward the trait.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import unknown_name
from workbench.maths.separation import balanced_contrast_weights

LOGISTIC_PENALTY = 1e-2
"""Inverse L2 penalty of the logistic probe, on standardised activations."""


@dataclass(frozen=True, eq=False, repr=False)
class Contrast(Shown):
    """Rows of two arms with signed weights: those of the positive arm sum to 1, those of the negative arm to -1.

    `x [n, d]` float64; `weight [n]`; `cell [n]`: codes of (question, instruction), which pair the arms.
    """

    x: Tensor
    weight: Tensor
    cell: Tensor

    @property
    def positive(self) -> Tensor:
        """Rows of the positive arm `[n]`."""
        return self.weight > 0


@dataclass(frozen=True, eq=False, repr=False)
class Direction(Shown):
    """A direction `[d]` float64 toward the trait and its pattern; the same thing unless the method is a detector."""

    direction: Tensor
    pattern: Tensor


def contrast(
    x: Tensor, positive: Tensor, question: Tensor, instruction: Tensor, counts: Tensor | None = None
) -> Contrast:
    """Rows `x [n, d]` with question-balanced weights; `counts [n]` says how often a row counts (0 leaves it out)."""
    base = torch.ones(len(x), dtype=torch.float64) if counts is None else counts.double()
    weight = balanced_contrast_weights(question, positive, base[None])[0]
    used = weight != 0
    width = int(instruction.max()) + 1 if len(instruction) else 1
    return Contrast(x[used].double(), weight[used], (question * width + instruction)[used])


def mean_difference(rows: Contrast) -> Direction:
    """mean(positive) - mean(negative), each question weighing the same (Chen et al. 2025, arXiv 2507.21509, section 2)."""
    v = rows.weight @ rows.x
    return Direction(v, v)


def paired_pca(rows: Contrast) -> Direction:
    """First principal direction, not centred, of the differences inside each (question, instruction), with unit length.

    The sign is that of the mean difference (Zou et al. 2023, arXiv 2310.01405, section 3.1, who pair prompts).
    """
    differences, mass = paired_differences(rows)
    if not len(differences):
        return mean_difference(rows)
    leading = torch.linalg.svd(differences * mass.sqrt()[:, None], full_matrices=False).Vh[0]
    v = leading * torch.sign(leading @ (rows.weight @ rows.x) + 1e-300)
    return Direction(v, v)


def logistic_probe(rows: Contrast) -> Direction:
    """L2 logistic regression on standardised activations, its weights taken back to the activations' own units."""
    from sklearn.linear_model import LogisticRegression

    mass = rows.weight.abs() / rows.weight.abs().sum()
    mean = mass @ rows.x
    scale = (mass @ (rows.x - mean) ** 2).sqrt().clamp_min(1e-8)
    probe = LogisticRegression(C=LOGISTIC_PENALTY, max_iter=1000)
    probe.fit(
        ((rows.x - mean) / scale).numpy(), rows.positive.numpy(), sample_weight=(mass * len(mass)).numpy()
    )
    return _with_pattern(torch.from_numpy(probe.coef_[0].copy()) / scale, rows)


def whitened_difference(rows: Contrast) -> Direction:
    """Sigma_within^-1 (mean difference): Fisher's linear discriminant, the covariance inside the arms shrunk toward a
    multiple of the identity by the oracle-approximating intensity (Chen et al. 2010, IEEE TSP 58, eq. 23)."""
    mass = rows.weight.abs()
    centred = rows.x.clone()
    for arm in (rows.positive, ~rows.positive):
        centred[arm] -= (mass[arm] / mass[arm].sum()) @ rows.x[arm]
    mass = mass / mass.sum()
    covariance = _shrunk((centred * mass[:, None]).T @ centred, 1 / float((mass**2).sum()))
    return _with_pattern(torch.linalg.solve(covariance, rows.weight @ rows.x), rows)


METHODS: Mapping[str, Callable[[Contrast], Direction]] = {
    "mean_difference": mean_difference,
    "paired_pca": paired_pca,
    "logistic": logistic_probe,
    "whitened": whitened_difference,
}
"""Every method by name; the first is the default."""

DETECTORS = ("logistic", "whitened")
"""Methods whose direction is no difference of means: decompose the pattern, never the direction."""


def direction_by(method: str, rows: Contrast) -> Direction:
    """The direction of `rows` by the method of that name; WorkbenchError lists the names."""
    return METHODS[check_method(method)](rows)


def check_method(method: str) -> str:
    """`method` itself; WorkbenchError lists the names for an unknown one."""
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    return method


def haufe_pattern(detector: Tensor, covariance: Tensor) -> Tensor:
    """Sigma w / (w' Sigma w) `[d]`: what a detector `w [d]` responds to in data of covariance `Sigma [d, d]`."""
    spread = covariance @ detector
    return spread / (detector @ spread).clamp_min(torch.finfo(spread.dtype).tiny)


def _with_pattern(detector: Tensor, rows: Contrast) -> Direction:
    mass = rows.weight.abs() / rows.weight.abs().sum()
    centred = rows.x - mass @ rows.x
    spread = (centred * mass[:, None]).T @ (centred @ detector)  # Sigma w, without forming Sigma
    return Direction(detector, spread / (detector @ spread).clamp_min(torch.finfo(spread.dtype).tiny))


def paired_differences(rows: Contrast) -> tuple[Tensor, Tensor]:
    """(differences [p, d], mass [p]) of the (question, instruction) cells that hold both arms."""
    cells, code = rows.cell.unique(return_inverse=True)
    member = torch.nn.functional.one_hot(code, len(cells)).double().T
    means, masses = [], []
    for arm in (rows.positive, ~rows.positive):
        weights = member * (rows.weight.abs() * arm)
        masses.append(weights.sum(dim=1))
        means.append(weights @ rows.x / masses[-1].clamp_min(1e-300)[:, None])
    both = (masses[0] > 0) & (masses[1] > 0)
    return (means[0] - means[1])[both], (masses[0] + masses[1])[both]


def _shrunk(covariance: Tensor, n_effective: float) -> Tensor:
    """The covariance `[d, d]` of `n_effective` rows, shrunk toward mu I, mu = trace / d."""
    d = len(covariance)
    trace, squares = covariance.trace(), (covariance**2).sum()
    above = (1 - 2 / d) * squares + trace**2
    below = (n_effective + 1 - 2 / d) * (squares - trace**2 / d)
    share = float((above / below.clamp_min(torch.finfo(below.dtype).tiny)).clamp(0, 1))
    shrunk = (1 - share) * covariance
    shrunk.diagonal().add_(max(share * float(trace) / d, 1e-12 * float(trace) + 1e-30))
    return shrunk
