"""Train a BatchTopK sparse autoencoder on an activation store; checkpointed, resumable, saved in SAELens' layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.base.errors import WorkbenchError
from workbench.base.progress import track
from workbench.saes.activations import ActivationStore
from workbench.saes.interface import SparseAutoencoder

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TrainingConfig:
    """How an SAE is trained. Activations are scaled to a mean norm of sqrt(d_model) first; the scale is folded at the end."""

    d_sae: int = 8192  # number of features
    k: float = 48  # active features per token, on average over a batch
    batch_size: int = 2048  # tokens per step
    n_steps: int = 6000  # optimiser steps
    learning_rate: float = 6e-4  # Adam
    warm_up: float = 0.03  # share of the steps with a rising rate
    decay: float = 0.3  # share of the steps at the end with a falling rate
    revive_steps: int = (
        0  # steps after those: dead features restart on what is reconstructed worst, at a low falling rate
    )
    revive_rate: float = 0.25  # of the learning rate, at the first revival step
    aux_coefficient: float = 1 / 32  # weight of the auxiliary loss on dead features
    dead_after_tokens: int = 400_000  # a feature silent for so many tokens counts as dead
    aux_every: int = 4  # apply the auxiliary loss on every n-th step
    precision: str = "bfloat16"  # of the large products; parameters and optimiser stay float32
    seed: int = 0
    checkpoint_every: int = 500  # steps
    log_every: int = 50  # steps

    def __post_init__(self) -> None:
        positive = (
            "d_sae",
            "k",
            "batch_size",
            "n_steps",
            "learning_rate",
            "checkpoint_every",
            "log_every",
            "aux_every",
        )
        for name in positive:
            if not getattr(self, name) > 0:
                raise WorkbenchError(
                    f"training.{name} is {getattr(self, name)!r}", "a positive number", "mend the config"
                )
        if self.revive_steps < 0:
            raise WorkbenchError(
                f"training.revive_steps is {self.revive_steps}", "0 or more", "mend the config"
            )
        if self.k > self.d_sae:
            raise WorkbenchError(
                f"training.k is {self.k} of d_sae {self.d_sae} features", "k below d_sae", "mend the config"
            )
        if self.precision not in ("float32", "bfloat16", "float16"):
            raise WorkbenchError(
                f"training.precision is {self.precision!r}", "float32, bfloat16 or float16", "mend the config"
            )

    @property
    def total_steps(self) -> int:
        """The steps of the main schedule and of the revival after it."""
        return self.n_steps + self.revive_steps


def train(
    store: ActivationStore,
    config: TrainingConfig,
    folder: Path,
    *,
    device: str = "cpu",
    stop_after: Callable[[int], bool] | None = None,
) -> SparseAutoencoder:
    """Train on the store's shuffled batches and return the SAE on raw activations (scale folded), with its threshold.

    `folder` gets checkpoint.safetensors + checkpoint.json every `checkpoint_every` steps and on Ctrl-C, and log.jsonl.
    Running again with the same config and store resumes there, bit-exactly on CPU with the same number of threads.
    `stop_after(step)` ends early after a checkpoint (used by tests).
    """
    import torch

    from workbench.saes import fused
    from workbench.saes.trainer import Trainer

    state = Trainer.begin(store, config, Path(folder), device)
    try:
        with track("Training the SAE", total=config.total_steps, unit="steps") as advance:
            advance(state.step)
            batches = store.batches(config.batch_size, seed=config.seed, start=state.step)
            while state.step < config.total_steps:
                batch = next(batches).to(device) * state.scale
                if config.revive_steps and state.step == config.n_steps:
                    state.revive(batch)
                dead = state.silent > config.dead_after_tokens if state.step % config.aux_every == 0 else None
                result = fused.set_gradients(
                    state.sae,
                    batch,
                    precision=getattr(torch, config.precision),
                    dead=dead,
                    aux_coefficient=config.aux_coefficient,
                )
                state.update(result, batch)
                advance(1)
                if state.step % config.checkpoint_every == 0 or state.step == config.total_steps:
                    state.checkpoint()
                if stop_after is not None and stop_after(state.step):
                    state.checkpoint()
                    break
    except KeyboardInterrupt:
        state.checkpoint()
        raise
    return state.finished()


def recalibrate(sae: SparseAutoencoder, activations: Tensor, l0: float) -> SparseAutoencoder:
    """The same SAE with one threshold such that the mean number of active codes on `activations` [n, d_model] is `l0`."""
    import torch

    assert sae.threshold is not None
    values = []
    for part in activations.split(4096):
        pre = sae.pre_activations(part.float())
        values.append(pre.topk(min(int(4 * l0), sae.d_sae), dim=1, sorted=False).values.flatten())
    pool = torch.cat(values)
    level = pool.topk(int(l0 * len(activations)), sorted=False).values.min().clamp_min(0.0)
    return replace(sae, threshold=torch.full_like(sae.threshold, float(level)))
