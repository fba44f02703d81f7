"""Speed of SAE training against SAELens' own trainer, as ratios (above 1: ours is faster).

    python benchmarks/sae_training.py [--rounds 3] [--steps 40] [--device cpu] [--d-sae 4096] [--ours-only]

train_vs_saelens     the same number of BatchTopK steps on the same cached activations, same width, k, batch and
                     auxiliary loss, through our loop and through SAELens' `SAETrainer`; both as shipped (ours computes
                     its large products in bfloat16, SAELens in float32).
train_vs_saelens_f32 the same with our products in float32: what the loop alone gains.
k_saes_cost_ratio    seconds of four SAEs from one reading of the text / four times the seconds of one: the default model's
                     activations at block 15 captured once, and three epochs of training.
k_saes_training_ratio  the same without the capture: four SAEs in one pass over the store / four passes with one each.
data_loading_share   share of the training time that our loop waits for batches from disk.
floor_ratio          seconds of the five large products alone, at our precision / seconds of our step.

The sides of a pair run in turn, the first one alternating; the figure is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from workbench.base.randomness import generator
from workbench.base.store import read_json
from workbench.saes.activations import ActivationStore
from workbench.saes.capturing import store_given
from workbench.saes.training import TrainingConfig, train, train_together

HOOK = "blocks.0.hook_resid_post"
N_SHARDS, SHARD_TOKENS = 10, 16_384
CAPTURED_TOKENS = 16_384


def made_store(folder: Path, d_model: int) -> ActivationStore:
    """A store of correlated activations: sparse sums of directions, so that no code is degenerate."""
    seeds = generator(0)
    directions = torch.randn(4 * d_model, d_model, generator=seeds)

    def shard() -> torch.Tensor:
        active = torch.rand(SHARD_TOKENS, 4 * d_model, generator=seeds) < 40 / (4 * d_model)
        return (active.float() @ directions).bfloat16()

    return store_given(folder / "made", (shard() for _ in range(N_SHARDS)), hook=HOOK, model_name="made")


def seconds_of(work: Callable[[], object], device: str) -> float:
    """Wall-clock seconds of one call, the device's queue included."""
    started = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - started


def ours(store: ActivationStore, config: TrainingConfig, device: str) -> float:
    """Seconds of one run from start values to the finished SAE."""
    with tempfile.TemporaryDirectory() as folder:
        return seconds_of(lambda: train(store, config, Path(folder), device=device), device)


def saelens(store: ActivationStore, config: TrainingConfig, device: str) -> float:
    """Seconds of SAELens' trainer on the same batches, scaled to the same norm beforehand by the data provider."""
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    n_tokens = config.n_steps * config.batch_size
    sae = BatchTopKTrainingSAE(
        BatchTopKTrainingSAEConfig(
            d_in=store.d_model, d_sae=config.d_sae, k=config.k, device=device, rescale_acts_by_decoder_norm=False,
            aux_loss_coefficient=config.aux_coefficient,
        )
    )  # fmt: skip
    settings = SAETrainerConfig(
        total_training_samples=n_tokens, train_batch_size_samples=config.batch_size, lr=config.learning_rate,
        lr_end=config.learning_rate / 10, device=device, logger=LoggingConfig(log_to_wandb=False),
    )  # fmt: skip
    scale = store.d_model**0.5 / float(store.sample(4096).float().norm(dim=1).mean())
    batches = (batch * scale for batch in store.batches(config.batch_size, seed=0, device=device))
    return seconds_of(lambda: SAETrainer(cfg=settings, sae=sae, data_provider=batches).fit(), device)


def floor(config: TrainingConfig, d_model: int, device: str) -> float:
    """Seconds of the five large products of every step, alone."""
    dtype = getattr(torch, config.precision)
    x, codes = (torch.randn(config.batch_size, n, device=device).to(dtype) for n in (d_model, config.d_sae))
    wide, tall = (torch.randn(*s, device=device).to(dtype) for s in ((d_model, config.d_sae), (config.d_sae, d_model)))

    def work() -> None:
        for _ in range(config.n_steps):
            x @ wide
            codes @ tall
            x @ tall.T
            codes.T @ x
            x.T @ codes

    work()
    return seconds_of(work, device)


def together(store: ActivationStore, config: TrainingConfig, device: str, n: int) -> tuple[float, float]:
    """(seconds of n SAEs in one pass, share of it spent waiting for data)."""
    configs = {f"seed{seed}": replace(config, seed=seed) for seed in range(n)}
    with tempfile.TemporaryDirectory() as folder:
        folders = {name: Path(folder) / name for name in configs}
        seconds = seconds_of(lambda: train_together(store, configs, folders, device=device), device)
        return seconds, read_json(folders["seed0"] / "loading.json")["share"]


def from_text(config: TrainingConfig, device: str, folder: Path, n: int = 4) -> tuple[float, float]:
    """(cost ratio, seconds of the capture) of n SAEs on one capture of the neutral text's tokens, read over and over."""
    from workbench.models.hookpoints import HookPoint
    from workbench.models.loading import load_model
    from workbench.models.norms import neutral_rows
    from workbench.saes.capturing import capture_stores
    from workbench.saes.token_rows import TokenRow

    model, hook = load_model(dtype="bfloat16", device=device), HookPoint(15)
    ids = neutral_rows(model).flatten().tolist()
    rows = [TokenRow(tuple(ids[i % 64 :][:256]), "neutral") for i in range(CAPTURED_TOKENS // 256)]
    stores: list[ActivationStore] = []
    capture = seconds_of(lambda: stores.append(capture_stores(model, [hook], rows, folder / "text")[hook]), device)
    epochs = replace(config, n_steps=3 * stores[0].n_tokens // config.batch_size)
    one, several = (together(stores[0], epochs, device, k)[0] for k in (1, n))
    return (capture + several) / (n * (capture + one)), capture


def measure(options: argparse.Namespace) -> dict[str, object]:
    """The figures and what they were measured on."""
    device = options.device
    config = TrainingConfig(
        d_sae=options.d_sae, k=48, batch_size=options.batch, n_steps=options.steps, checkpoint_every=10**9, log_every=10**9
    )
    result: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = made_store(Path(folder), options.d_model)
        ours(store, config, device)
        mine = [ours(store, config, device) for _ in range(options.rounds)]
        result["step_seconds"] = statistics.median(mine) / config.n_steps
        if not options.ours_only:
            for name, precision in (("train_vs_saelens", "bfloat16"), ("train_vs_saelens_f32", "float32")):
                ratios = paired(store, replace(config, precision=precision), device, options.rounds)
                result[name], result[f"{name}_rounds"] = statistics.median(ratios), ratios
        single = [together(store, config, device, 1) for _ in range(options.rounds)]
        four = [together(store, config, device, 4)[0] for _ in range(options.rounds)]
        alone = statistics.median(seconds for seconds, _ in single)
        result["k_saes_training_ratio"] = statistics.median(four) / (4 * alone)
        if not options.ours_only:
            result["k_saes_cost_ratio"], result["capture_seconds"] = from_text(config, device, Path(folder))
        result["data_loading_share"] = statistics.median(share for _, share in single)
        result["floor_ratio"] = floor(config, options.d_model, device) / alone
    name = torch.cuda.get_device_name() if device.startswith("cuda") else "cpu"
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    facts = {"d_model": options.d_model, "d_sae": options.d_sae, "batch_size": options.batch, "n_steps": options.steps}
    return {**result, **facts, "device": name, "n_threads": torch.get_num_threads(), "load_average": load}


def paired(store: ActivationStore, config: TrainingConfig, device: str, rounds: int) -> list[float]:
    """SAELens' seconds / ours, round by round."""
    ours(store, config, device), saelens(store, config, device)
    ratios = []
    for number in range(rounds):
        sides = (ours, saelens) if number % 2 == 0 else (saelens, ours)
        seconds = {side: side(store, config, device) for side in sides}
        ratios.append(round(seconds[saelens] / seconds[ours], 3))
    return ratios


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--d-model", type=int, default=576)
    parser.add_argument("--d-sae", type=int, default=4096)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--ours-only", action="store_true", help="where SAELens is not installed")
    print(json.dumps(measure(parser.parse_args()), indent=2))


if __name__ == "__main__":
    main()
