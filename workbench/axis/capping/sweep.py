"""Percentile x band: what each cap takes from harm and from capability, as a front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from workbench.axis.jailbreak.attempts import Arm, Attempt
from workbench.base.display import Shown
from workbench.base.progress import track
from workbench.steering.cost.pareto import Front, front, rows_of
from workbench.steering.cost.sweep import Sweep

if TYPE_CHECKING:
    from workbench.axis.jailbreak.harness import AttackBench

HARM = "harm"
MAX_LOSS = 0.05
"""Nats per token on held-out documents that a chosen cap may cost."""


@dataclass(frozen=True, eq=False, repr=False)
class CappingSweep(Shown):
    """A front of (points of 100 by which success falls, nats per token lost), with what each arm is, in the front's order."""

    front: Front
    arms: tuple[dict[str, Any], ...]
    n_attempts: int
    told: dict[str, Any] = field(default_factory=dict)

    def chosen(self, direction: str, *, max_loss: float = MAX_LOSS) -> dict[str, Any] | None:
        """The arm of that direction that takes most from harm at a loss of at most `max_loss`; None if none takes any."""
        rows = [(arm, point) for arm, point in zip(self.arms, self.front.points, strict=True)
                if arm.get("direction") == direction and point.loss <= max_loss and point.change > 0]  # fmt: skip
        return max(rows, key=lambda pair: pair[1].change)[0] if rows else None

    def to_dict(self) -> dict[str, Any]:
        """{capping: [{percentile, blocks, harm, capability, ...}], base_harm, at_equal_reduction, ...}: JSON types, no words."""
        base = self.front.base_points / 100
        capping = [self._row(arm, place, base) for place, arm in enumerate(self.arms)]
        equal = {f"{points:g}": rows_of(self.front.at_equal_change(points, reference=self._reference()))
                 for points in (2.0, 5.0, 10.0)}  # fmt: skip
        return {"capping": capping, "base_harm": base, "n_attempts": self.n_attempts,
                "at_equal_reduction": {"reference": self._reference(), "points": equal},
                "front": [[point.method, point.level] for point in self.front.best], **self.told}  # fmt: skip

    def _reference(self) -> str:
        return self.front.points[0].method

    def _row(self, arm: dict[str, Any], place: int, base: float) -> dict[str, Any]:
        point = self.front.points[place]
        low, high = point.change_interval
        kept = {key: arm.get(key) for key in ("direction", "band", "percentile", "blocks")}
        reduced = None if low is None or high is None else [low / 100, high / 100]
        return {**kept, "method": point.method, "harm": base - point.change / 100, "reduction": point.change / 100,
                "reduction_interval": reduced, "capability": point.loss, "capability_interval": list(point.loss_interval),
                "kl": point.kl, "coherence": point.coherence, "on_front": point.on_front}  # fmt: skip


def capping_sweep(
    bench: AttackBench, arms: Sequence[Arm], attempts: Sequence[Attempt], *, seed: int = 0, told: dict[str, Any] | None = None
) -> CappingSweep:
    """Every arm on the same attempts, with capability and KL: a bench without an exam is refused by `front`.

    Intervals of harm draw requests, of loss documents. The first arm's method is the reference of equal reductions.
    """
    with track("caps", len(arms) + 1, "arms") as step:
        base = bench.cell(Arm("persona"), attempts)
        step()
        cells = []
        for arm in arms:
            cells.append(bench.cell(arm, attempts))
            step(note=arm.name)
    found = front(Sweep(HARM, "persona", bench.judge.name, base, tuple(cells)), wanted=-1, seed=seed)
    return CappingSweep(found, tuple(dict(arm.told) for arm in arms), len(attempts), told or {})


