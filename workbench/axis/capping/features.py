"""Capping single features: those that carry the axis are held, each within what it is in the assistant's replies.

A feature more active in the assistant (delta code above 0) is held at or above a percentile of its activations there; one
that is more active in the characters, at or below the opposite percentile. A limit that cannot bind (at least 0) is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.tensors import tensor_hash
from workbench.decomposition.decompose import tokens_of

from .calibration import GRID
from .caps import Cap, Capping

if TYPE_CHECKING:
    from workbench.decomposition.result import Decomposition
    from workbench.models.model import Model
    from workbench.personas.vectors import PersonaVector
    from workbench.saes.interface import SparseAutoencoder

N_FEATURES = 16


@dataclass(frozen=True, eq=False, repr=False)
class FeatureLimits(Shown):
    """Quantiles [n, GRID] of features' activations on tokens of the assistant's replies, with their signs and shares."""

    features: tuple[int, ...]
    signs: tuple[int, ...]
    """1: more active in the assistant; -1: more active in the characters."""
    shares: tuple[float, ...]
    quantiles: Tensor
    model: dict[str, Any]
    sae: dict[str, Any]
    n_tokens: int

    def capping(self, percentile: float, *, name: str | None = None) -> Capping:
        """The caps at `percentile` (0 to 100); at 0 none binds. Raises WorkbenchError for another number."""
        if not 0 <= percentile <= 100:
            raise WorkbenchError(f"percentile {percentile:g}", "one from 0 to 100", "correct it")
        place = round(percentile / 100 * (GRID - 1))
        caps = [self._cap(number, place) for number in range(len(self.features))] if place else []
        kept = tuple(cap for cap in caps if cap is not None)
        source = {"method": "features of the axis", "percentile": percentile, "n_considered": len(self.features),
                  "n_capped": len(kept), "n_tokens": self.n_tokens}  # fmt: skip
        width = torch.zeros(0, int(self.model.get("d_model") or 0))
        return Capping(name or f"cap on {len(kept)} features", self.model, kept, width, self.sae, source)

    def _cap(self, number: int, place: int) -> Cap | None:
        from workbench.models.hookpoints import HookPoint

        up = self.signs[number] > 0
        limit = float(self.quantiles[number, place if up else GRID - 1 - place])
        if up and limit <= 0:
            return None
        hook = HookPoint.parse(self.sae["hook"])
        return Cap(hook, limit, "below" if up else "above", feature=self.features[number])


def is_of(parts: Decomposition, axis: PersonaVector, sae: SparseAutoencoder) -> bool:
    """Whether the decomposition is of this very vector on this SAE."""
    direction = tensor_hash(axis.at(sae.hook).float().cpu())
    return parts.sae.get("weights_hash") == sae.weights_hash and parts.vector.get("sha256") == direction


def carrying_features(parts: Decomposition, n: int = N_FEATURES) -> tuple[int, ...]:
    """The `n` features of the largest |share| of the axis, largest first. Raises WorkbenchError for a vector without shares."""
    if not parts.has_shares:
        raise WorkbenchError("a decomposition without shares", "one of an axis with its rollouts",
                             "decompose the run (`workbench decompose RUN`)")  # fmt: skip
    order = parts.share.nan_to_num(0.0).abs().argsort(descending=True)[:n].tolist()
    return tuple(int(feature) for feature in order if parts.share[feature] != 0)


def feature_limits(
    axis: PersonaVector, parts: Decomposition, sae: SparseAutoencoder, model: Model | None = None, *,
    features: Sequence[int] | None = None, n: int = N_FEATURES,
) -> FeatureLimits:  # fmt: skip
    """What the features that carry the axis are in the assistant's own replies (rows of weight above 0) at the SAE's hook.

    `model` reads the replies again where their tokens are not stored. Raises WorkbenchError for a decomposition of another
    vector (an axis made anew since, say) or on another SAE.
    """
    if not is_of(parts, axis, sae):
        raise WorkbenchError(f"a decomposition of {parts.trait} on {parts.sae.get('id')}",
                             f"one of this {axis.trait}, as it is now, on {sae.id}",
                             "decompose it again (`workbench decompose RUN`)")  # fmt: skip
    chosen = tuple(features) if features is not None else carrying_features(parts, n)
    rows: Any = axis.rows
    used = rows[rows["weight"] > 0]
    wanted = set(used["id"])
    codes = [sae.encode(tokens.float())[:, list(chosen)] for row_id, tokens in tokens_of(axis, sae.hook, model, used)
             if row_id in wanted and len(tokens)]  # fmt: skip
    if not codes:
        raise WorkbenchError("no token of the assistant's replies", "an axis with its rollouts", "run `workbench axis map`")
    activations = torch.cat(codes).double()
    grid = torch.linspace(0, 1, GRID, dtype=torch.float64)
    quantiles = torch.stack([column.quantile(grid) for column in activations.T])
    signs = tuple(1 if parts.delta_code[feature] > 0 else -1 for feature in chosen)
    known = {"id": sae.id, "weights_hash": sae.weights_hash, "hook": str(sae.hook)}
    shares = tuple(float(parts.share[feature]) for feature in chosen)
    return FeatureLimits(chosen, signs, shares, quantiles, axis.model, known, len(activations))
