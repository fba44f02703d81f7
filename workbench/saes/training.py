"""Train sparse autoencoders on activations: one, or several in one pass over the data; checkpointed and resumable."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.base.errors import WorkbenchError
from workbench.base.progress import track
from workbench.saes.activations import Activations
from workbench.saes.config import TrainingConfig
from workbench.saes.interface import SparseAutoencoder

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)
__all__ = ["TrainingConfig", "recalibrate", "train", "train_together"]


def train(
    data: Activations,
    config: TrainingConfig,
    folder: Path,
    *,
    device: str = "cpu",
    stop_after: Callable[[int], bool] | None = None,
) -> SparseAutoencoder:
    """Train on the shuffled batches and return the SAE on raw activations (scale folded), with its threshold.

    `folder` gets checkpoint.safetensors + checkpoint.json every `checkpoint_every` steps and on Ctrl-C, and log.jsonl.
    Running again with the same config and data resumes there, bit-exactly on CPU with the same number of threads.
    `stop_after(step)` ends early after a checkpoint (used by tests).
    """
    found = train_together(
        data, {"sae": config}, {"sae": folder}, seed=config.seed, device=device, stop_after=stop_after
    )
    return found["sae"]


def train_together(
    data: Activations,
    configs: Mapping[str, TrainingConfig],
    folders: Mapping[str, Path],
    *,
    seed: int = 0,
    device: str = "cpu",
    stop_after: Callable[[int], bool] | None = None,
) -> dict[str, SparseAutoencoder]:
    """Train several SAEs in one pass over the data: each batch is read once and given to all of them.

    The batches are those of `seed` for all; every SAE ends with the weights that it would have alone on them. One that
    is ahead of the others after an interruption waits; one that diverges stops alone, and an error names all that did at the
    end. Ctrl-C and SIGTERM wait for the end of the step and save. `loading.json` in the first folder says how long the loop
    waited for data.
    """
    finished, failed = train_each(data, configs, folders, seed=seed, device=device, stop_after=stop_after)
    if failed:
        raise together(failed)
    return finished


def train_each(
    data: Activations,
    configs: Mapping[str, TrainingConfig],
    folders: Mapping[str, Path],
    *,
    seed: int = 0,
    device: str = "cpu",
    stop_after: Callable[[int], bool] | None = None,
) -> tuple[dict[str, SparseAutoencoder], dict[str, WorkbenchError]]:
    """`train_together` that tells who failed instead of raising: (the finished SAEs, the errors of the others), by name."""
    from workbench.saes.trainer import Trainer

    batch_size = _one_batch_size(configs)
    trainers = [
        Trainer.begin(data, config, Path(folders[name]), device, seed) for name, config in configs.items()
    ]
    total = max(config.total_steps for config in configs.values())
    first = min(trainer.step for trainer in trainers)
    failed: dict[int, WorkbenchError] = {}
    clock = _Clock()
    try:
        with track(_label(configs), total=total, unit="steps") as advance, _interrupts_wait() as interrupted:
            advance(first)
            batches = data.batches(batch_size, seed=seed, start=first, device=device)
            for number in range(first, total):
                with clock.waiting():
                    batch = next(batches)
                _step(trainers, number, batch, failed)
                advance(1, trainers[0].note)
                if interrupted():
                    raise KeyboardInterrupt
                if (stop_after is not None and stop_after(number + 1)) or len(failed) == len(trainers):
                    _checkpoint(trainers, failed)
                    break
    except KeyboardInterrupt:
        _checkpoint(trainers, failed)
        raise
    finally:
        for trainer in trainers:
            trainer.metrics.close()
    if not device.startswith("cuda"):  # there the wait for a batch is a wait for the steps before it
        clock.write(Path(next(iter(folders.values()))))
    names = list(configs)
    finished = {names[place]: trainer.finished() for place, trainer in enumerate(trainers) if place not in failed}
    return finished, {names[place]: failed[place] for place in sorted(failed)}


def together(errors: Mapping[str, WorkbenchError]) -> WorkbenchError:
    """One error for all SAEs that failed, each with what was found of it."""
    if len(errors) == 1:
        return next(iter(errors.values()))
    found = "; ".join(f"{name}: {error.found}" for name, error in errors.items())
    expected, remedies = (dict.fromkeys(getattr(error, part) for error in errors.values()) for part in ("expected", "remedy"))
    return WorkbenchError(f"{len(errors)} SAEs failed ({found})", "; ".join(expected), "; ".join(remedies))


def _step(trainers: list, number: int, batch: Tensor, failed: dict[int, WorkbenchError]) -> None:
    """Step `number` of every run that is there, not done and not among the `failed`; one that diverges joins those."""
    for place, trainer in enumerate(trainers):
        if trainer.step != number or trainer.done or place in failed:
            continue
        try:
            trainer.train_on(batch)
        except WorkbenchError as error:
            logger.error("%s", error)
            failed[place] = error


@contextlib.contextmanager
def _interrupts_wait() -> Iterator[Callable[[], bool]]:
    """A context in which Ctrl-C and SIGTERM wait for the end of the step; called, the value says whether one came."""
    came = False
    if threading.current_thread() is not threading.main_thread():
        yield lambda: came
        return
    ignored = signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None)  # a job in the background of a shell
    numbers = (signal.SIGTERM,) if ignored else (signal.SIGINT, signal.SIGTERM)

    def note(*_: object) -> None:
        nonlocal came
        came = True
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: one that is not Python's

    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield lambda: came
    finally:
        restore()


def _checkpoint(trainers: list, failed: dict[int, WorkbenchError]) -> None:
    """Save every run that has made a step, but one that is in the middle of one; one that cannot be saved joins the `failed`."""
    for place, trainer in enumerate(trainers):
        if trainer.step and not trainer.torn and place not in failed:
            try:
                trainer.checkpoint()
            except WorkbenchError as error:
                logger.error("%s", error)
                failed[place] = error


def _one_batch_size(configs: Mapping[str, TrainingConfig]) -> int:
    sizes = {config.batch_size for config in configs.values()}
    if len(sizes) != 1:
        raise WorkbenchError(
            f"batch sizes {sorted(sizes)} for SAEs that are trained together",
            "one batch size",
            "give every SAE of a site the same training.batch_size",
        )
    return sizes.pop()


def _label(configs: Mapping[str, TrainingConfig]) -> str:
    return f"Training {next(iter(configs))}" if len(configs) == 1 else f"Training {len(configs)} SAEs"


class _Clock:
    """How long the loop ran, and how much of that it waited for data."""

    def __init__(self) -> None:
        self.started, self.waited = time.perf_counter(), 0.0

    def waiting(self) -> _Clock:
        return self

    def __enter__(self) -> None:
        self.begun = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.waited += time.perf_counter() - self.begun

    def write(self, folder: Path) -> None:
        from workbench.base.store import write_json

        seconds = time.perf_counter() - self.started
        write_json(
            folder / "loading.json",
            {"seconds": seconds, "waiting_seconds": self.waited, "share": self.waited / seconds},
        )


def recalibrate(sae: SparseAutoencoder, activations: Tensor, l0: float) -> SparseAutoencoder:
    """The same SAE with one threshold such that the mean number of active codes on `activations` [n, d_model] is `l0`.

    SAEs without a common threshold (topk, gated, standard, per-feature jumprelu) come back as they are.
    """
    import torch

    if sae.threshold is None or sae.threshold.min() != sae.threshold.max():
        return sae
    values = []
    for part in activations.split(4096):
        pre = sae.pre_activations(part.to(sae.device).float())
        values.append(pre.topk(min(max(8, int(4 * l0)), sae.d_sae), dim=1, sorted=False).values.flatten())
    pool = torch.cat(values)
    level = pool.topk(max(1, int(l0 * len(activations))), sorted=False).values.min().clamp_min(0.0)
    return replace(sae, threshold=torch.full_like(sae.threshold, float(level)))
