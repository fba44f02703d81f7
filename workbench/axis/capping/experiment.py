"""The whole experiment as one design: limits and directions on calibration texts, a sweep there, the table on other requests.

    calibration texts     the axis' own rollouts (limits), half of the drawn requests (sweep, refusal direction)
    evaluation texts      the other half of the requests, behind the same personas, and benign role-play
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from workbench.axis.jailbreak.attempts import Arm, Attempt, crossed, direct_attempts
from workbench.axis.jailbreak.prompts import SOURCES, HarmfulPrompt, harmful_prompts, in_the_wild
from workbench.axis.questions import question_bank
from workbench.axis.roles import Role, jailbreak_personas
from workbench.axis.scripts import benign_role_play, reminder
from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError

from .arms import Limits, feature_arm, make_limits, reminder_arm
from .bands import NAMES, band, bands
from .blocking import benign_attempts
from .calibration import text_hash
from .controls import placebo_axes, refusal_axis

if TYPE_CHECKING:
    from workbench.models.hookpoints import HookPoint
    from workbench.models.model import Model
    from workbench.personas.placebos import PlaceboVectors
    from workbench.personas.vectors import PersonaVector
    from workbench.saes.interface import SparseAutoencoder
    from workbench.steering.edits import Edit

    from .features import FeatureLimits

CONTROL = "control"
"""The group of personas that dress nothing up."""
REFUSAL = "refusal"


@dataclass(frozen=True)
class Design:
    """Sizes and choices; everything that a result depends on beside the model and the axis."""

    sets: tuple[str, ...] = tuple(SOURCES)
    n_calibration: int = 40
    """Requests of the sweep and the refusal direction."""
    n_evaluation: int = 60
    """Requests of the table."""
    per_prompt: int = 2
    """Personas behind each request."""
    percentiles: tuple[float, ...] = (10.0, 25.0, 50.0, 75.0)
    band_names: tuple[str, ...] = ("around", "published", "middle")
    feature_percentiles: tuple[float, ...] = (50.0, 75.0, 90.0, 99.0)
    control_percentiles: tuple[float, ...] = (25.0, 75.0)
    n_random: int = 2
    n_placebo: int = 1
    n_wild: int = 0
    """Jailbreak texts that people posted, as personas beside ours."""
    unit: str = "token"
    """Of the limits: percentiles over tokens, or over replies."""
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.n_calibration, self.n_evaluation, self.per_prompt) < 1 or not self.percentiles or not self.band_names:
            raise WorkbenchError("a design without requests, personas, percentiles or bands", "one of each or more", "correct it")
        for percentile in (*self.percentiles, *self.feature_percentiles, *self.control_percentiles):
            if not 0 <= percentile <= 100:
                raise WorkbenchError(f"percentile {percentile:g}", "one from 0 to 100", "the paper takes 25")


@dataclass(frozen=True, eq=False, repr=False)
class Materials(Shown):
    """What the arms are made of. `hooks` per band; `controls` are names of directions in `limits`."""

    design: Design
    limits: Limits
    hooks: dict[str, tuple[HookPoint, ...]]
    calibration: tuple[HarmfulPrompt, ...]
    evaluation: tuple[HarmfulPrompt, ...]
    personas: tuple[Role, ...]
    sae: SparseAutoencoder | None = field(default=None, repr=False)
    features: FeatureLimits | None = None

    @property
    def controls(self) -> tuple[str, ...]:
        """Names of the directions that are not the axis."""
        return tuple(name for name in self.limits.axes if name != self.limits.axis.trait)

    @property
    def calibrated_on(self) -> tuple[str, ...]:
        """Hashes of every text behind limits, directions and choices."""
        return (*self.limits.calibration.texts, *(text_hash(one.text) for one in self.calibration))

    def direct(self) -> tuple[Attempt, ...]:
        """The evaluation's requests as they are."""
        return direct_attempts(self.evaluation)

    def behind(self, *, calibration: bool = False) -> tuple[Attempt, ...]:
        """Requests behind personas, of the evaluation or (for the sweep) of the calibration."""
        chosen = self.calibration if calibration else self.evaluation
        each = min(self.design.per_prompt, len(self.personas))
        return crossed(chosen, self.personas, per_prompt=each, seed=self.design.seed)

    def benign(self, n: int | None = None) -> tuple[Attempt, ...]:
        """Harmless role-play, the first `n` requests."""
        return benign_attempts([(one.id, one.system, one.user) for one in benign_role_play()[:n]])

    def told(self) -> dict[str, Any]:
        """For tables and provenance (JSON types, no words)."""
        axis = self.limits.axis
        return {"design": asdict(self.design), "n_personas": len(self.personas), "vector": axis.trait, "hook": str(axis.hook),
                "model": axis.model.get("name"),
                "bands": {name: [hook.block for hook in hooks] for name, hooks in self.hooks.items()},
                "n_calibration_replies": self.limits.calibration.n_replies, "unit": self.design.unit}  # fmt: skip


def make_materials(
    model: Model, axis: PersonaVector, design: Design, *, placebos: PlaceboVectors | None = None,
    sae: SparseAutoencoder | None = None, features: FeatureLimits | None = None, rows: Any = None,
) -> Materials:  # fmt: skip
    """Requests, personas, bands, and the limits of the axis and all controls (a pass over the calibration replies).

    Of several bands those without a direction of the axis are left out; a name that is no band's is refused.
    """
    chosen = _bands(axis, model.n_blocks, design.band_names)
    hooks = tuple(sorted({hook for one in chosen.values() for hook in one}))
    calibration, evaluation = harmful_prompts(
        design.sets, n_calibration=design.n_calibration, n_evaluation=design.n_evaluation, seed=design.seed
    )
    harmless = [one.text for one in question_bank("extraction")][: len(calibration)]
    others = [refusal_axis(model, [one.text for one in calibration], harmless, hooks, name=REFUSAL)]
    if placebos is not None:
        others += placebo_axes(placebos, axis, hooks, design.n_placebo, seed=design.seed)
    how: dict[str, Any] = {"n_random": design.n_random, "unit": design.unit, "seed": design.seed, "rows": rows}
    limits = make_limits(model, axis, hooks, others=others, **how)
    personas = tuple(one.called(model.name) for one in jailbreak_personas() if one.group != CONTROL)
    personas += wild_personas(design.n_wild, seed=design.seed)
    return Materials(design, limits, chosen, calibration, evaluation, personas, sae, features)


def wild_personas(n: int, *, seed: int = 0) -> tuple[Role, ...]:
    """`n` jailbreak texts that people posted, as system prompts (fetched, never kept in the repository)."""
    texts = in_the_wild(n, seed=seed) if n else ()
    return tuple(Role(f"wild-{text_hash(text)[:8]}", (text,), "a text that people posted", "", "wild") for text in texts)


def sweep_arms(one: Materials) -> list[Arm]:
    """Axis caps over percentiles and bands; every control in the first band at the control percentiles; feature caps."""
    name, (first, hooks) = one.limits.axis.trait, next(iter(one.hooks.items()))
    arms = [one.limits.arm(name, inside, percentile, band=label)
            for label, inside in one.hooks.items() for percentile in one.design.percentiles]  # fmt: skip
    arms += [one.limits.arm(control, hooks, percentile, band=first)
             for control in one.controls for percentile in one.design.control_percentiles]  # fmt: skip
    return arms + list(_feature_arms(one, one.design.feature_percentiles))


def table_arms(
    one: Materials, shift: Callable[[Sequence[Edit]], float], *, label: str, percentile: float,
    feature_percentile: float | None = None,
) -> list[Arm]:  # fmt: skip
    """The arms of the jailbreak table: the chosen cap, every control at the same percentile of the same texts (so that as many
    calibration tokens change) and at the same KL on neutral text (`shift`: `ReplyBench.kl`), the feature cap, the reminder."""
    hooks = one.hooks[label]
    cap = one.limits.arm(one.limits.axis.trait, hooks, percentile, band=label)
    arms = [Arm("axis cap", cap.edits, told=cap.told)]
    if feature_percentile is not None:
        arms += [Arm("feature cap", arm.edits, told=arm.told) for arm in _feature_arms(one, [feature_percentile])]
    arms.append(reminder_arm(reminder()))
    kl = shift(cap.edits)
    for control in one.controls:
        same = one.limits.arm(control, hooks, percentile, band=label)
        arms.append(Arm(f"{control}, equal rate", same.edits, told=same.told))
        matched = one.limits.at_kl(control, hooks, kl, shift, band=label)
        arms.append(Arm(f"{control}, equal KL", matched.edits, told=matched.told))
    return arms


def _feature_arms(one: Materials, percentiles: Sequence[float]) -> Iterator[Arm]:
    if one.features is not None and one.sae is not None:
        for percentile in percentiles:
            yield feature_arm(one.features, one.sae, percentile)


def _bands(axis: PersonaVector, n_blocks: int, names: Sequence[str]) -> dict[str, tuple[HookPoint, ...]]:
    known = bands(axis, n_blocks)
    there = [name for name in names if name in known or name not in NAMES]
    return {name: band(axis, n_blocks, name) for name in there or names}
