"""The geometry of several persona vectors: how alike they are, what they share, and whose vector predicts whose score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.base.errors import WorkbenchError
from workbench.base.randomness import generator
from workbench.maths.statistics import auc
from workbench.personas.runs import PersonaRun, held_out


@dataclass(frozen=True, eq=False)
class Geometry:
    """Vectors at one hook point side by side; rows and columns in the order of `traits`.

    cosines `[n, n]`. shared `[d_model]`: the unit vector along the mean of the unit vectors. shared_share `[n]`: the
    share of each |v|^2 along it. cosines_without_shared `[n, n]`: cosines of v - <v, shared> shared. placebo_cosine_q95:
    95th percentile of |cos| between trait and placebo vectors, what two unrelated contrasts have in common anyway.
    auc `[n, n]`: row = whose vector, column = whose evaluation rows (stripped): AUC of the positive against the negative
    arm; on the diagonal the vector is made under other instructions than those it scores. correlation `[n, n]`:
    Spearman correlation of the projection with the judge's score of that trait on the same rows (NaN when unknown).
    """

    traits: tuple[str, ...]
    cosines: Tensor
    shared: Tensor
    shared_share: Tensor
    cosines_without_shared: Tensor
    auc: Tensor
    correlation: Tensor
    placebo_cosine_q95: float | None = None

    def own_wins(self, matrix: str = "auc") -> dict[str, dict[str, Any]]:
        """Per trait: does its own vector predict it best? {trait: {own, best, best_vector, own_wins}}."""
        values: Tensor = getattr(self, matrix)
        found = {}
        for column, trait in enumerate(self.traits):
            scores = values[:, column]
            best = int(scores.nan_to_num(-torch.inf).argmax())
            found[trait] = {"own": float(scores[column]), "best": float(scores[best]), "best_vector": self.traits[best],
                            "own_wins": best == column}  # fmt: skip
        return found

    def to_json(self) -> dict[str, Any]:
        """JSON values; matrices as lists of rows, NaN as null."""
        matrices = {name: _rows(getattr(self, name)) for name in
                    ("cosines", "cosines_without_shared", "auc", "correlation")}  # fmt: skip
        return {"traits": list(self.traits), **matrices, "shared_share": self.shared_share.tolist(),
                "placebo_cosine_q95": self.placebo_cosine_q95, "own_wins_auc": self.own_wins("auc"),
                "own_wins_correlation": self.own_wins("correlation")}  # fmt: skip


def geometry(
    runs: Sequence[PersonaRun],
    scores: Mapping[str, Tensor] | None = None,
    *,
    placebo_directions: Tensor | None = None,
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
    units = torch.nn.functional.normalize(torch.stack([run.direction for run in runs]).double(), dim=1)
    shared = torch.nn.functional.normalize(units.mean(dim=0), dim=0)
    along = units @ shared
    rest = torch.nn.functional.normalize(units - along[:, None] * shared, dim=1)
    areas, correlations = _prediction(runs, units, scores or {})
    null = None
    if placebo_directions is not None:
        placebos = torch.nn.functional.normalize(placebo_directions.double(), dim=1)
        null = float(torch.quantile((units @ placebos.T).abs().flatten(), 0.95))
    return Geometry(tuple(run.trait for run in runs), units @ units.T, shared, along**2, rest @ rest.T,
                    areas, correlations, null)  # fmt: skip


def _prediction(runs: Sequence[PersonaRun], units: Tensor, scores: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    areas = torch.full((len(runs), len(runs)), torch.nan, dtype=torch.float64)
    correlations = areas.clone()
    for column, run in enumerate(runs):
        parts = held_out(run, n_bootstrap=0, generator=generator(0))
        means, rows = run.make.with_system[:, 0].double(), run.score.without_system[:, 0].double()
        judged = scores.get(run.trait)
        for row, unit in enumerate(units):
            # On the diagonal the direction of each cell, which has not seen the scored instructions.
            made = [weight[0] @ means for weight in parts.weights] if row == column else [unit] * len(parts.cells)
            projections = [rows[cell.score] @ direction for cell, direction in zip(parts.cells, made, strict=True)]
            labels = [parts.scored.positive[cell.score] for cell in parts.cells]
            areas[row, column] = _mean([float(auc(p, y)) for p, y in zip(projections, labels, strict=True)])
            if judged is not None:
                correlations[row, column] = _mean(
                    [_spearman(p, judged[c.score]) for p, c in zip(projections, parts.cells, strict=True)]
                )
    return areas, correlations


def _spearman(projection: Tensor, judged: Tensor) -> float:
    from scipy.stats import spearmanr

    known = torch.isfinite(judged)
    if known.sum() < 3 or judged[known].std() == 0:
        return float("nan")
    return float(spearmanr(projection[known].numpy(), judged[known].numpy())[0])  # pyright: ignore[reportArgumentType]


def _mean(values: Sequence[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).nanmean())


def _rows(matrix: Tensor) -> list[list[float | None]]:
    return [[None if value != value else value for value in row] for row in matrix.tolist()]
