"""The geometry of several persona vectors: how alike they are, what they share, and whose vector predicts whose score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.randomness import derive_seed, generator
from workbench.maths.statistics import auc
from workbench.personas.runs import PersonaRun, held_out

N_SETS = 1000
_MATRICES = ("cosines", "cosines_without_shared", "auc", "correlation", "auc_minus_shared", "correlation_minus_shared")
_PREDICTIONS = ("auc", "correlation", "auc_minus_shared", "correlation_minus_shared")


@dataclass(frozen=True)
class SharedNull:
    """What any `n` directions have along their common mean: n mutually orthogonal ones already have 1 / n each.

    From `n_sets` random sets of n placebo vectors with random signs (a placebo has no side of its own): `vector_q95` is the
    95th percentile of a single vector's share, `mean` and `mean_q95` are of a set's mean share. None with fewer placebos
    than vectors. The sets overlap: the percentiles describe these placebos, not all contrasts.
    """

    orthogonal: float
    vector_q95: float | None = None
    mean: float | None = None
    mean_q95: float | None = None
    n_sets: int = 0


@dataclass(frozen=True, eq=False, repr=False)
class Geometry(Shown):
    """Vectors at one hook point side by side; rows and columns in the order of `traits`.

    cosines `[n, n]`. shared `[d_model]`: the unit vector along the mean of the unit vectors. shared_share `[n]`: the
    share of each |v|^2 along it, to be read beside `shared_null`. minus_shared `[n, d_model]`: v - <v, shared> shared,
    at its own length. cosines_without_shared `[n, n]`: the cosines of those; -1 / (n - 1) is expected of n vectors that
    have nothing in common. placebo_cosine_q95: 95th percentile of |cos| between trait vectors and all placebo vectors
    that were given (also those that come close to a trait, which makes it a harder null).
    auc `[n, n]`: row = whose vector, column = whose evaluation rows (stripped): AUC of the positive against the negative
    arm; on the diagonal the vector is made under other instructions than those it scores. correlation `[n, n]`:
    Spearman correlation of the projection with the judge's score of that trait on the same rows (NaN when unknown).
    auc_minus_shared, correlation_minus_shared `[n, n]`: the same for v - <v, shared> shared, `shared` made anew with the
    vector of each division.
    """

    traits: tuple[str, ...]
    cosines: Tensor
    shared: Tensor
    shared_share: Tensor
    minus_shared: Tensor
    cosines_without_shared: Tensor
    auc: Tensor
    correlation: Tensor
    auc_minus_shared: Tensor
    correlation_minus_shared: Tensor
    shared_null: SharedNull
    placebo_cosine_q95: float | None = None

    def own_wins(self, matrix: str = "auc") -> dict[str, dict[str, Any]]:
        """Per trait: does its own vector predict it best? {trait: {own, best, best_vector, own_wins}}, None where unknown.

        matrix: auc, correlation, auc_minus_shared or correlation_minus_shared. Signed: a vector that points away loses.
        """
        values: Tensor = getattr(self, matrix)
        return {trait: _winner(values[:, column], column, self.traits) for column, trait in enumerate(self.traits)}

    def tensors(self) -> dict[str, Tensor]:
        """{shared `[d_model]` of length 1, minus_shared `[n, d_model]` in the order of `traits`}, float32, to be saved."""
        return {"shared": self.shared.float(), "minus_shared": self.minus_shared.float()}

    def to_json(self) -> dict[str, Any]:
        """JSON values; matrices as lists of rows, NaN as null."""
        return {
            "traits": list(self.traits), **{name: _rows(getattr(self, name)) for name in _MATRICES},
            "shared_share": self.shared_share.tolist(), "shared_share_mean": float(self.shared_share.mean()),
            "shared_share_orthogonal": self.shared_null.orthogonal,
            "shared_share_placebo_q95": self.shared_null.vector_q95,
            "shared_share_placebo_mean": self.shared_null.mean, "shared_share_placebo_mean_q95": self.shared_null.mean_q95,
            "shared_share_placebo_sets": self.shared_null.n_sets, "placebo_cosine_q95": self.placebo_cosine_q95,
            **{f"own_wins_{name}": self.own_wins(name) for name in _PREDICTIONS},
        }  # fmt: skip


def geometry(
    runs: Sequence[PersonaRun],
    scores: Mapping[str, Tensor] | None = None,
    *,
    placebo_directions: Tensor | None = None,
    seed: int = 0,
) -> Geometry:
    """The geometry of the runs' vectors, all at the same hook point.

    scores: per trait the judge's scores `[n]` of its evaluation rows (NaN where there is none).
    """
    hooks = {run.hook for run in runs}
    if len(hooks) != 1 or len(runs) < 2:
        raise WorkbenchError(
            f"{len(runs)} vectors at {', '.join(map(str, sorted(hooks)))}",
            "two or more vectors at one hook point",
            "name the hook point when reading the runs",
        )
    vectors = torch.stack([run.direction for run in runs]).double()
    units, shared = _unit(vectors), _shared(_unit(vectors))
    rest = _without(vectors, shared)
    placebos = None if placebo_directions is None else _unit(placebo_directions.double())
    near = None if placebos is None else float(torch.quantile((units @ placebos.T).abs().flatten(), 0.95))
    return Geometry(
        tuple(run.trait for run in runs), units @ units.T, shared, (units @ shared) ** 2, rest, _unit(rest) @ _unit(rest).T,
        *_prediction(runs, units, scores or {}), shared_null(placebos, len(runs), seed=seed), near,
    )  # fmt: skip


def shared_null(placebos: Tensor | None, n: int, *, n_sets: int = N_SETS, seed: int = 0) -> SharedNull:
    """The share along their common mean of random sets of `n` placebo vectors `[n_placebos, d_model]`."""
    if placebos is None or len(placebos) < n:
        return SharedNull(1 / n)
    random = generator(derive_seed("shared component", seed))
    chosen = torch.rand(n_sets, len(placebos), generator=random).argsort(dim=1)[:, :n]
    signs = torch.randint(2, (n_sets, n), generator=random).double() * 2 - 1
    units = _unit(placebos.double())
    cosines = (units @ units.T)[chosen[:, :, None], chosen[:, None, :]] * signs[:, :, None] * signs[:, None, :]
    # <u_i, shared>^2 = (mean_j cos_ij)^2 / |mean u|^2, and |mean u|^2 = mean_ij cos_ij: no vector is needed again.
    along = cosines.mean(dim=2)
    shares = along**2 / along.mean(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    means = shares.mean(dim=1)
    return SharedNull(
        1 / n, float(torch.quantile(shares.flatten(), 0.95)), float(means.mean()), float(torch.quantile(means, 0.95)), n_sets
    )


def _prediction(
    runs: Sequence[PersonaRun], units: Tensor, scores: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(auc, correlation, auc_minus_shared, correlation_minus_shared), `[n, n]` each."""
    columns = [_column(run, column, units, scores.get(run.trait)) for column, run in enumerate(runs)]
    areas, correlations = (torch.stack(side, dim=1) for side in zip(*columns, strict=True))
    n = len(runs)
    return areas[:n], correlations[:n], areas[n:], correlations[n:]


def _column(run: PersonaRun, column: int, units: Tensor, judged: Tensor | None) -> tuple[Tensor, Tensor]:
    """AUC and correlation `[2 n]` of all vectors, then all minus their shared direction, on the rows of one trait."""
    parts = held_out(run, n_bootstrap=0, generator=generator(0))
    means, rows = run.make.with_system[:, 0].double(), run.score.without_system[:, 0].double()
    areas, correlations = [], []
    for weight, cell in zip(parts.weights, parts.cells, strict=True):
        # The trait's own direction is that of the cell, which has not seen the scored instructions.
        made = units.clone()
        made[column] = _unit(weight[:1] @ means)[0]
        projections = torch.cat([made, _without(made, _shared(made))]) @ rows[cell.score].T
        areas.append(auc(projections, parts.scored.positive[cell.score]))
        known = torch.full_like(projections[:, 0], torch.nan)
        correlations.append(known if judged is None else _spearman(projections, judged[cell.score]))
    return torch.stack(areas).nanmean(dim=0), torch.stack(correlations).nanmean(dim=0)


def _spearman(projections: Tensor, judged: Tensor) -> Tensor:
    """Spearman correlation `[k]` of `projections [k, n]` with `judged [n]`; NaN where fewer than 3 scores are known."""
    from scipy.stats import spearmanr

    known = torch.isfinite(judged)
    if known.sum() < 3 or judged[known].std() == 0:
        return torch.full((len(projections),), torch.nan, dtype=torch.float64)
    found = [spearmanr(row[known].numpy(), judged[known].numpy())[0] for row in projections]
    return torch.tensor(found, dtype=torch.float64)


def _winner(values: Tensor, own: int, names: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"own": _number(values[own]), "best": None, "best_vector": None, "own_wins": None}
    if torch.isnan(values).all():
        return found
    best = int(values.nan_to_num(-torch.inf).argmax())
    wins = None if found["own"] is None else best == own
    return {**found, "best": float(values[best]), "best_vector": names[best], "own_wins": wins}


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors, dim=1)


def _shared(units: Tensor) -> Tensor:
    return torch.nn.functional.normalize(units.mean(dim=0), dim=0)


def _without(vectors: Tensor, shared: Tensor) -> Tensor:
    return vectors - (vectors @ shared)[:, None] * shared


def _number(value: Tensor | float) -> float | None:
    number = float(value)
    return None if number != number else number


def _rows(matrix: Tensor) -> list[list[float | None]]:
    return [[_number(value) for value in row] for row in matrix.tolist()]
