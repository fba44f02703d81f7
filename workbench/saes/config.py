"""How one SAE is trained."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.base.errors import WorkbenchError, unknown_name

TOPK_FAMILY = ("batchtopk", "topk", "matryoshka_batchtopk")
"""Trained with gradients written out here."""
PENALISED = ("standard", "gated", "jumprelu")
"""Trained through SAELens' own classes."""
ARCHITECTURES = (*TOPK_FAMILY, *PENALISED)
PRECISIONS = ("float32", "bfloat16", "float16")
STARTS = ("data", "random")
REPORTERS = ("none", "tensorboard", "wandb")
_NAMED = {"architecture": ARCHITECTURES, "precision": PRECISIONS, "start": STARTS, "report_to": REPORTERS}
_NOT_NEGATIVE = ("revive_steps", "revive_rate", "aux_coefficient", "sparsity_coefficient", "dead_after_tokens")
_SHARES = ("warm_up", "decay", "sparsity_warm_up", "tether")
_POSITIVE = ("d_sae", "k", "batch_size", "n_steps", "learning_rate", "checkpoint_every", "log_every", "aux_every")

_WITHOUT_EFFECT = {
    "tether": "its decoder rows always move freely",
    "start": "it always starts from random directions",
    "revive_steps": "its dead features never restart",
}
"""Settings that the penalised architectures do not have."""


@dataclass(frozen=True)
class TrainingConfig:
    """How an SAE is trained. Activations are scaled to a mean norm of sqrt(d_model) first; the scale is folded at the end."""

    architecture: str = "batchtopk"  # batchtopk, topk, matryoshka_batchtopk, or SAELens' standard, gated, jumprelu
    d_sae: int = 8192  # number of features
    k: float = 48  # active features per token: exactly (topk), or on average over a batch (the batchtopk family)
    batch_size: int = 2048  # tokens per step
    n_steps: int = 6000  # optimiser steps
    learning_rate: float = 6e-4  # Adam
    warm_up: float = 0.03  # share of the steps with a rising rate
    decay: float = 0.3  # share of the steps at the end with a falling rate
    revive_steps: int = 0  # steps after those, at a low falling rate: dead features restart on what is reconstructed worst
    # (a tethered decoder's stay where they are)
    revive_rate: float = 0.25  # of the learning rate, at the first revival step
    aux_coefficient: float = 1 / 32  # weight of the auxiliary loss on dead features, where it is applied (topk family)
    dead_after_tokens: int = 400_000  # a feature silent for so many tokens counts as dead
    aux_every: int = 4  # apply the auxiliary loss on every n-th step
    sparsity_coefficient: float = 1.0  # l1 (standard, gated) or l0 (jumprelu) coefficient of SAELens
    sparsity_warm_up: float = 0.1  # share of the steps with a rising sparsity coefficient
    matryoshka: tuple[int, ...] = ()  # widths of the nested levels below d_sae (matryoshka_batchtopk)
    start: str = "data"  # decoder rows start as real activations with noise, or as random directions (topk family; the
    # others always start from random directions, and have neither tether nor revival: setting one is refused)
    tether: float = 0.0  # least cosine of every decoder row with its start; .8 = soft-frozen, 1 = frozen, 0 = free
    precision: str = "bfloat16"  # of the large products; parameters and optimiser stay float32
    seed: int = 0
    checkpoint_every: int = 100  # steps
    log_every: int = 50  # steps
    report_to: str = "none"  # log.jsonl alone, or tensorboard or wandb beside it

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise _wrong(f"{name} is {getattr(self, name)!r}", "a positive number")
        for name, known in _NAMED.items():
            if getattr(self, name) not in known:
                raise unknown_name(f"training.{name}", str(getattr(self, name)), known)
        for name in _NOT_NEGATIVE:
            if getattr(self, name) < 0:
                raise _wrong(f"{name} is {getattr(self, name)!r}", "0 or more")
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise _wrong(f"{name} is {getattr(self, name)!r}", "a share between 0 and 1")
        if self.k > self.d_sae:
            raise _wrong(f"k is {self.k} of d_sae {self.d_sae} features", "k below d_sae")
        if self.architecture == "topk" and self.k != int(self.k):
            raise _wrong(f"k is {self.k}", "a whole number of active features for topk")
        if any(isinstance(width, bool) or not isinstance(width, int) for width in self.matryoshka):
            raise _wrong(f"matryoshka is {list(self.matryoshka)}", "whole numbers")
        self._check_levels()
        self._check_penalised()

    def _check_levels(self) -> None:
        nested = self.architecture == "matryoshka_batchtopk"
        rising = list(self.matryoshka) == sorted(set(self.matryoshka)) and all(0 < w < self.d_sae for w in self.matryoshka)
        if nested != bool(self.matryoshka) or not rising:
            raise _wrong(
                f"matryoshka is {list(self.matryoshka)} for {self.architecture}",
                f"rising widths below d_sae = {self.d_sae} for matryoshka_batchtopk, none otherwise",
            )

    def _check_penalised(self) -> None:
        """Refuse settings that SAELens' classes would pass over in silence."""
        if self.written_out:
            return
        family = ", ".join(TOPK_FAMILY)
        for name, why in _WITHOUT_EFFECT.items():
            value, default = getattr(self, name), getattr(TrainingConfig, name)
            if value != default:
                raise _wrong(
                    f"{name} is {value!r}, which has no effect on {self.architecture}: {why}",
                    f"{name}: {default} for {self.architecture}, or one of {family}",
                )

    @property
    def total_steps(self) -> int:
        """The steps of the main schedule and of the revival after it."""
        return self.n_steps + self.revive_steps

    @property
    def bounds(self) -> tuple[int, ...]:
        """0, the widths of the nested levels, d_sae."""
        return (0, *self.matryoshka, self.d_sae)

    @property
    def written_out(self) -> bool:
        """Whether the gradients are those of `fused` (else SAELens' autograd)."""
        return self.architecture in TOPK_FAMILY


def _wrong(found: str, expected: str) -> WorkbenchError:
    return WorkbenchError(f"training.{found}", expected, "mend the config")
