"""Arms with caps: the axis and every control at the same percentile of the same texts, or at the same KL on neutral text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.axis.jailbreak.attempts import Arm
from workbench.base.display import Shown

from .calibration import Calibration, calibrate
from .caps import axis_capping
from .controls import percentile_at_kl, random_axes
from .projections import reply_chats, sampled_activations

if TYPE_CHECKING:
    from workbench.models.hookpoints import HookPoint
    from workbench.models.model import Model
    from workbench.personas.vectors import PersonaVector
    from workbench.saes.interface import SparseAutoencoder
    from workbench.steering.edits import Edit

    from .features import FeatureLimits

N_COVARIANCE = 64
"""Replies behind the covariance of random directions."""


@dataclass(frozen=True, eq=False, repr=False)
class Limits(Shown):
    """Directions and the distribution of ordinary replies along each: everything that a cap needs. The first one is the axis."""

    axes: Mapping[str, PersonaVector]
    calibrations: Mapping[str, Calibration]

    @property
    def axis(self) -> PersonaVector:
        """The axis itself."""
        return next(iter(self.axes.values()))

    @property
    def calibration(self) -> Calibration:
        """That of the axis."""
        return self.calibrations[self.axis.trait]

    def arm(
        self, name: str, hooks: Sequence[HookPoint], percentile: float, *, band: str = "", method: str | None = None
    ) -> Arm:
        """A cap from below along the direction called `name`, at `percentile` of its own distribution in each of `hooks`."""
        capping = axis_capping(self.axes[name], self.calibrations[name].tau(percentile, hooks), hooks)
        told = {"method": method or f"{name}, {band}" if band else name, "level": percentile, "percentile": percentile,
                "band": band, "blocks": [hook.block for hook in hooks], "direction": name}  # fmt: skip
        return Arm(f"{name} at {percentile:g}" + (f", {band}" if band else ""), capping.edits(), told=told)

    def at_kl(
        self, name: str, hooks: Sequence[HookPoint], kl: float, shift: Callable[[Sequence[Edit]], float], *, band: str = ""
    ) -> Arm:
        """The same at the percentile whose cap moves neutral text by `kl` nats per token (`shift`), or as near as it comes."""
        def edits_at(percentile: float):
            return self.arm(name, hooks, percentile).edits

        percentile, reached = percentile_at_kl(shift, edits_at, kl)
        arm = self.arm(name, hooks, percentile, band=band)
        return Arm(f"{name} at equal KL", arm.edits, told={**arm.told, "method": f"{name}, equal KL", "wanted_kl": kl,
                                                          "reached_kl": reached})  # fmt: skip


def make_limits(
    model: Model, axis: PersonaVector, hooks: Sequence[HookPoint], *, others: Sequence[PersonaVector] = (), n_random: int = 2,
    unit: str = "token", n_replies: int = 200, seed: int = 0, rows: Any = None,
) -> Limits:  # fmt: skip
    """The axis, `n_random` covariance-matched random directions and `others`, all calibrated on the same replies.

    rows: rollouts to calibrate on; by default those that the axis was made from (every kept row, whatever its arm).
    """
    table = _kept(axis) if rows is None else rows
    drawn: tuple[PersonaVector, ...] = ()
    if n_random:
        spread = sampled_activations(model, reply_chats(model, table, n=N_COVARIANCE), hooks)
        drawn = random_axes(axis, spread, n_random, seed=seed)
    axes = {one.trait: one for one in (axis, *drawn, *others)}
    return Limits(axes, calibrate(model, table, axes, hooks, unit=unit, n_replies=n_replies))


def feature_arm(limits: FeatureLimits, sae: SparseAutoencoder, percentile: float, *, name: str = "features") -> Arm:
    """Caps on the features that carry the axis, at `percentile` of the assistant's own activations."""
    capping = limits.capping(percentile)
    told = {**capping.source, "method": name, "direction": name, "level": percentile, "percentile": percentile,
            "blocks": [sae.hook.block]}  # fmt: skip
    return Arm(f"{name} at {percentile:g}", capping.edits(sae), told=told)


def reminder_arm(text: str, *, name: str = "reminder") -> Arm:
    """Words after the system prompt, and nothing else."""
    return Arm(name, reminder=text, told={"method": name, "direction": name, "level": None})


def _kept(axis: PersonaVector) -> Any:
    rows: Any = axis.rows
    return rows[rows["weight"] != 0]
