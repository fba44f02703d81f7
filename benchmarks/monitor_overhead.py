"""What watching costs: transformers' own `generate` plain and under a monitor, in one run on the default model.

    python benchmarks/monitor_overhead.py [--rounds 10] [--new-tokens 16] [--batch 1 --batch 16] [--monitor vectors]

For each batch size, for 7 vectors alone and with 8 features of the default SAE, the two sides run in turn, the first one
alternating, so that a busy machine is busy for both. The figure is the median of the rounds' ratios (monitored / plain; 1.03 is
3% more), by processor seconds and by the clock, with a bootstrap interval over rounds. Both give the same tokens: it is checked.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from workbench.base.randomness import generator
from workbench.models.loading import load_model
from workbench.models.model import Model
from workbench.personas.vectors import PersonaVector
from workbench.saes.registry import load_sae
from workbench.steering.monitor.monitor import Monitor
from workbench.steering.monitor.watching import watching

N_VECTORS, N_FEATURES, PROMPT_TOKENS = 7, 8, 48
MONITORS = ("vectors", "vectors_and_features")
CLOCKS = {"processor": time.process_time, "clock": time.perf_counter}


def monitors(model: Model) -> dict[str, Monitor]:
    """The monitors that are measured; their directions are random (speed does not ask where they point)."""
    sae, random = load_sae(), generator(0)
    directions = torch.randn(N_VECTORS, model.d_model, generator=random)
    vectors = [PersonaVector.from_direction(one, trait=f"direction {i}", model=model.description(), hook=sae.hook)
               for i, one in enumerate(directions)]  # fmt: skip
    both = Monitor.of(model, vectors, sae=sae, features=range(N_FEATURES))
    return dict(zip(MONITORS, (Monitor.of(model, vectors), both), strict=True))


def measured(model: Model, monitor: Monitor, batch: int, new_tokens: int, rounds: int) -> dict[str, Any]:
    """{processor, clock: {ratio, interval, rounds}, plain_seconds} of one monitor at one batch size."""
    ids = torch.randint(100, model.vocab_size, (batch, PROMPT_TOKENS), generator=generator(1))
    options: dict[str, Any] = {"attention_mask": torch.ones_like(ids), "do_sample": False, "max_new_tokens": new_tokens,
                               "min_new_tokens": new_tokens, "pad_token_id": 0}  # fmt: skip

    def plain() -> torch.Tensor:
        return model.hf.generate(ids, **options)

    def monitored() -> torch.Tensor:
        with watching(monitor, model):
            return model.hf.generate(ids, **options)

    assert torch.equal(plain(), monitored())  # also the warm-up
    seconds = {side: {name: [] for name in CLOCKS} for side in (plain, monitored)}
    for number in range(rounds):
        for side in (plain, monitored) if number % 2 == 0 else (monitored, plain):
            for name, value in timed(side).items():
                seconds[side][name].append(value)
    found = {name: ratio(seconds[monitored][name], seconds[plain][name]) for name in CLOCKS}
    return {**found, "plain_seconds": sorted(seconds[plain]["processor"])[rounds // 2]}


def timed(function: Callable[[], object]) -> dict[str, float]:
    """Seconds of one call by every clock."""
    before = {name: clock() for name, clock in CLOCKS.items()}
    function()
    return {name: clock() - before[name] for name, clock in CLOCKS.items()}


def ratio(ours: Sequence[float], baseline: Sequence[float]) -> dict[str, Any]:
    """{ratio, interval, rounds}: the median of the rounds' ratios with its bootstrap interval."""
    ratios = torch.tensor([a / b for a, b in zip(ours, baseline, strict=True)])
    drawn = ratios[torch.randint(len(ratios), (2000, len(ratios)), generator=generator(0))].median(dim=1).values
    low, high = torch.quantile(drawn, torch.tensor([0.025, 0.975])).tolist()
    return {"ratio": float(ratios.median()), "interval": [low, high], "rounds": [round(one, 4) for one in ratios.tolist()]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--batch", type=int, action="append")
    parser.add_argument("--monitor", choices=MONITORS, action="append")
    said = parser.parse_args()
    model = load_model("smollm2-135m-instruct")
    found: dict[str, Any] = {}
    for batch in said.batch or (1, 16):
        for name in said.monitor or MONITORS:
            monitor = monitors(model)[name]
            found.setdefault(f"batch_{batch}", {})[name] = measured(model, monitor, batch, said.new_tokens, said.rounds)
    sizes = {"rounds": said.rounds, "new_tokens": said.new_tokens, "n_vectors": N_VECTORS, "n_features": N_FEATURES,
             "threads": torch.get_num_threads(), "dtype": "float32"}  # fmt: skip
    print(json.dumps({**sizes, **found}))


if __name__ == "__main__":
    main()
