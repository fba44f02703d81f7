"""Caps as values: limits on coordinates along directions, or on features' own activations, that can be saved and put in force.

    h <- h - u min(<h, u> - tau, 0)        u the unit axis, toward the assistant: the coordinate is at least tau

Source: activation capping, Lu et al. 2026 (arXiv 2601.10387). A token at or above tau stays as it is, bit for bit; at tau =
-infinity all do. Sinks are never touched.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.tensors import load_artifact, save_artifact, tensor_hash
from workbench.base.untrusted import refuses_damage
from workbench.models.hookpoints import HookPoint
from workbench.personas.vectors import PersonaVector
from workbench.steering.edits import Edit

if TYPE_CHECKING:
    from workbench.models.model import Model
    from workbench.saes.interface import SparseAutoencoder

KIND, SCHEMA = "capping", 1
SIDES = ("below", "above")
"""below: at least the limit. above: at most the limit."""


@dataclass(frozen=True)
class Cap:
    """One limit at `hook`: along row `row` of the capping's directions (residual units), or on a feature's own activation."""

    hook: HookPoint
    limit: float
    side: str = "below"
    row: int | None = None
    feature: int | None = None

    def __post_init__(self) -> None:
        if self.side not in SIDES or math.isnan(self.limit) or (self.row is None) == (self.feature is None):
            raise WorkbenchError(f"a cap on side {self.side!r} at {self.limit}, row {self.row}, feature {self.feature}",
                                 "side below or above, a number, and a row or a feature", "correct the cap")  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class Capping(Shown):
    """Caps that act together. `directions` [n, d_model] are unit vectors; `model` and `sae` say whose they are."""

    name: str
    model: dict[str, Any]
    caps: tuple[Cap, ...]
    directions: Tensor
    sae: dict[str, Any] | None = None
    """id and weights_hash, where features are capped."""
    source: dict[str, Any] = field(default_factory=dict)
    """How the limits were found (JSON types)."""

    @property
    def hooks(self) -> tuple[HookPoint, ...]:
        """Where something is capped, in order."""
        return tuple(sorted({cap.hook for cap in self.caps}))

    def edits(self, sae: SparseAutoencoder | None = None, *, scope: str = "predicting") -> tuple[Edit, ...]:
        """The caps as edits for `steered`, a gateway, or a bench. Raises WorkbenchError where features need an SAE that is not
        given, or another one."""
        if any(cap.feature is not None for cap in self.caps):
            self._check_sae(sae)
        return tuple(self._edit(cap, sae, scope) for cap in self.caps)

    def check(self, model: Model) -> None:
        """Refuse another model's caps (an imported capping that names no weights passes where width and blocks fit)."""
        known = self.model.get("weights_hash")
        fits = self.directions.shape[-1] in (0, model.d_model) and all(hook.block < model.n_blocks for hook in self.hooks)
        if known not in (None, model.weights_hash) or not fits:
            raise WorkbenchError(f"the capping {self.name} is of {self.model.get('name')} ({str(known)[:12]})",
                                 f"caps of {model.name} ({model.weights_hash[:12]})", "calibrate on this model")  # fmt: skip

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write capping.safetensors and, last, capping.json; returns the JSON's path."""
        caps = [{"hook": str(cap.hook), "limit": _written(cap.limit), "side": cap.side, "row": cap.row, "feature": cap.feature}
                for cap in self.caps]  # fmt: skip
        document = {"name": self.name, "model": self.model, "caps": caps, "sae": self.sae, "source": self.source}
        return save_artifact(Path(folder), KIND, SCHEMA, document, {"directions": self.directions})

    @classmethod
    @refuses_damage
    def load(cls, folder: str | os.PathLike[str]) -> Capping:
        """The capping saved in `folder`; its hash is verified."""
        document, tensors = load_artifact(Path(folder), KIND, SCHEMA)
        try:
            caps = tuple(Cap(HookPoint.parse(one["hook"]), float(one["limit"]), one["side"], one["row"], one["feature"])
                         for one in document["caps"])  # fmt: skip
            return cls(document["name"], document["model"], caps, tensors["directions"], document["sae"], document["source"])
        except (KeyError, TypeError, ValueError) as error:
            raise WorkbenchError(f"{folder} holds a capping that cannot be read ({error})", "a folder written by Capping.save",
                                 "make it again with `workbench axis cap`") from error  # fmt: skip

    def _edit(self, cap: Cap, sae: SparseAutoencoder | None, scope: str) -> Edit:
        if cap.feature is not None:
            assert sae is not None
            return Edit.cap_feature(sae, cap.feature, cap.limit, side=cap.side, scope=scope)
        assert cap.row is not None
        return Edit.cap(self.directions[cap.row], cap.limit, side=cap.side, hook=cap.hook, scope=scope, label=self.name)

    def _check_sae(self, sae: SparseAutoencoder | None) -> None:
        wanted = (self.sae or {}).get("weights_hash")
        if sae is None or sae.weights_hash != wanted:
            found = "no SAE" if sae is None else f"{sae.id} ({sae.weights_hash[:12]})"
            raise WorkbenchError(f"{self.name} caps features, and was given {found}",
                                 f"the SAE {(self.sae or {}).get('id')} ({str(wanted)[:12]})", "load that SAE")  # fmt: skip


def axis_capping(
    axis: PersonaVector, tau: Mapping[HookPoint, float], blocks: Sequence[HookPoint] | None = None, *, name: str | None = None,
    source: Mapping[str, Any] | None = None,
) -> Capping:  # fmt: skip
    """The coordinate along the axis is at least tau at each of `blocks` (default: everywhere that tau names)."""
    hooks = tuple(tau) if blocks is None else tuple(blocks)
    units = torch.stack([torch.nn.functional.normalize(axis.at(hook).float(), dim=0) for hook in hooks])
    caps = tuple(Cap(hook, float(tau[hook]), "below", row=row) for row, hook in enumerate(hooks))
    told = {"vector": axis.trait, "directions": tensor_hash(units), **(source or {})}
    return Capping(name or f"cap on {axis.trait}", axis.model, caps, units, None, told)


def axis_cap(
    axis: PersonaVector, tau: Mapping[HookPoint, float], blocks: Sequence[HookPoint] | None = None, *, scope: str = "predicting"
) -> tuple[Edit, ...]:
    """The edits of `axis_capping`: h - u min(<h, u> - tau, 0) at each block, on the tokens of `scope`."""
    return axis_capping(axis, tau, blocks).edits(scope=scope)


def _written(limit: float) -> float | str:
    return limit if math.isfinite(limit) else str(limit)
