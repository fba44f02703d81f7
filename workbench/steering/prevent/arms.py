"""The ways to keep a fine-tune from installing a trait, and their controls: what each changes in training or afterwards.

    none            the lesson as it is
    sham            ordinary replies to the same questions instead
    preventative    + dose v at one block in training: there is nothing left to learn along v (Chen et al. 2025,
                    arXiv 2507.21509, section 5)
    incremental     + dose (v_l - v_(l-1)) at every block in training
    denoised        + dose along the vector rebuilt from its foremost features, in training
    random          + a random direction with the activations' covariance, in training: another one per seed (the null)
    ablation        v projected out in training (Casademunt et al. 2025, arXiv 2507.16795)
    filtering       the share of replies with the largest projection difference is left out
    inoculation     the trait's own instruction as system prompt, in training only (arXiv 2510.04340)
    kl              + weight x KL(base || tuned) on the replies
    subtraction     trained as "none"; - dose v whenever the model is used

Edits in training act on every token. The dose is chosen on select questions for "preventative", and the other directions take it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError, unknown_name
from workbench.models.finetuning import BatchEdit, ChatExample

from ..apply import steered
from ..directions import NamedDirection, covariance_matched
from ..edits import Edit, incremental

if TYPE_CHECKING:
    from workbench.personas.traits import Trait
    from workbench.personas.vectors import PersonaVector

    from .lessons import Lesson

SCOPE = "all"
NONE, SHAM, PREVENTATIVE, RANDOM, SUBTRACTION = "none", "sham", "preventative", "random", "subtraction"


@dataclass(frozen=True, eq=False, repr=False)
class Materials(Shown):
    """What the arms are made from. `activations [n, d_model]` at the vector's hook give random directions their covariance;
    `projections [n_train]` rank the lesson's replies for filtering; `denoised` is None without a decomposition."""

    trait: Trait
    vector: PersonaVector
    lesson: Lesson
    sham: Lesson
    activations: Tensor
    projections: Tensor | None = None
    denoised: NamedDirection | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Arm(Shown):
    """One way to train and use the model. `training` edits are in force in training only, `testing` edits afterwards only."""

    name: str
    strength: float | None
    examples: tuple[ChatExample, ...]
    training: tuple[Edit, ...] = ()
    testing: tuple[Edit, ...] = ()
    kl_weight: float = 0.0

    def batch_edit(self) -> BatchEdit | None:
        """The edits of its training, as `finetune` takes them."""
        if not self.training:
            return None
        described = {"edits": [edit.description() for edit in self.training]}
        return BatchEdit(lambda model, width: steered(model, self.training, width), described)


@dataclass(frozen=True)
class ArmKind:
    """How an arm is made from `(materials, strength, seed)`; `grid` are the strengths to choose from, in `unit`. With a unit and
    no grid it has the dose of "preventative", so that directions are compared at equal norm."""

    build: Callable[[Materials, float | None, int], Arm]
    grid: tuple[float, ...] = ()
    unit: str = ""
    needs: tuple[str, ...] = field(default=())
    """Fields of the materials that must be there."""


def make_arm(name: str, materials: Materials, strength: float | None = None, seed: int = 0) -> Arm:
    """The arm called `name`. Raises WorkbenchError for an unknown name (the known are listed), a strength that is missing or
    not wanted, or materials that lack what it needs."""
    kind = arm_kind(name)
    if (strength is None) != (kind.unit == ""):
        raise WorkbenchError(f"the arm {name} with strength {strength}", f"a strength in {kind.unit or 'no unit'}", "correct it")
    missing = [need for need in kind.needs if getattr(materials, need) is None]
    if missing:
        raise WorkbenchError(f"the arm {name} without {', '.join(missing)}", "a decomposed vector with its rollouts",
                             f"run `workbench decompose {materials.trait.name}` first, or leave the arm out")  # fmt: skip
    return kind.build(materials, strength, seed)


def arm_kind(name: str) -> ArmKind:
    """The kind of arm called `name`."""
    if name not in ARMS:
        raise unknown_name("arm", name, ARMS)
    return ARMS[name]


def _plain(name: str, materials: Materials, strength: float | None, seed: int) -> Arm:
    lesson = materials.sham if name == SHAM else materials.lesson
    return Arm(name, None, lesson.train)


def _pushed(name: str, materials: Materials, strength: float | None, seed: int) -> Arm:
    dose, vector = float(strength or 0.0), materials.vector
    if name == "incremental":
        edits = incremental(vector, dose, scope=SCOPE)
    elif name == RANDOM:
        edits = (Edit.add(covariance_matched(materials.activations, vector.hook, 1, seed=seed)[0], dose, scope=SCOPE),)
    else:
        edits = (Edit.add(materials.denoised if name == "denoised" else vector, dose, scope=SCOPE),)
    return Arm(name, dose, materials.lesson.train, training=edits)


def _ablated(name: str, materials: Materials, strength: float | None, seed: int) -> Arm:
    return Arm(name, None, materials.lesson.train, training=(Edit.ablate(materials.vector, scope=SCOPE),))


def _filtered(name: str, materials: Materials, strength: float | None, seed: int) -> Arm:
    assert materials.projections is not None and strength is not None
    n_kept = max(1, round((1 - strength) * len(materials.lesson.train)))
    kept = sorted(materials.projections.argsort(stable=True)[:n_kept].tolist())
    return Arm(name, strength, tuple(materials.lesson.train[place] for place in kept))


def _inoculated(name: str, materials: Materials, strength: float | None, seed: int) -> Arm:
    prompts = [materials.trait.system_prompt(triple, "positive") for triple in materials.trait.instructions]
    examples = (_told(one, prompts[place % len(prompts)]) for place, one in enumerate(materials.lesson.train))
    return Arm(name, None, tuple(examples))


def _told(example: ChatExample, prompt: str) -> ChatExample:
    """The example with `prompt` before its own system message, where it has one."""
    first, rest = example.messages[0], example.messages[1:]
    if first["role"] != "system":
        first, rest = {"role": "system", "content": ""}, example.messages
    system = f"{prompt}\n\n{first['content']}" if first["content"] else prompt
    return ChatExample(({"role": "system", "content": system}, *rest), example.reply)


def _anchored(name: str, materials: Materials, strength: float | None, seed: int) -> Arm:
    return Arm(name, strength, materials.lesson.train, kl_weight=float(strength or 0.0))


def _subtracted(name: str, materials: Materials, strength: float | None, seed: int) -> Arm:
    dose = float(strength or 0.0)
    return Arm(name, dose, materials.lesson.train, testing=(Edit.add(materials.vector, -dose),))


DOSES = (0.06, 0.12, 0.25)
"""Norms; the default model's vectors are some 0.06 norms long, so that the first is about the vector itself."""
ARMS: Mapping[str, ArmKind] = {
    NONE: ArmKind(partial(_plain, NONE)),
    SHAM: ArmKind(partial(_plain, SHAM)),
    PREVENTATIVE: ArmKind(partial(_pushed, PREVENTATIVE), DOSES, "norms"),
    "incremental": ArmKind(partial(_pushed, "incremental"), (), "norms"),
    "denoised": ArmKind(partial(_pushed, "denoised"), (), "norms", ("denoised",)),
    RANDOM: ArmKind(partial(_pushed, RANDOM), (), "norms"),
    "ablation": ArmKind(partial(_ablated, "ablation")),
    "filtering": ArmKind(partial(_filtered, "filtering"), (0.5,), "share dropped", ("projections",)),
    "inoculation": ArmKind(partial(_inoculated, "inoculation")),
    "kl": ArmKind(partial(_anchored, "kl"), (1.0,), "weight"),
    SUBTRACTION: ArmKind(partial(_subtracted, SUBTRACTION), (0.06, 0.12, 0.25, 0.4), "norms"),
}
