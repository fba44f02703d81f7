"""What a GPU gives: speed beside floors and peers, agreement with the CPU, and how often the GPU is waited for.

    python benchmarks/gpu.py                     # some three minutes on one GPU; prints JSON
    python benchmarks/gpu.py --only agreement    # one part

agreement      the same work in float32 on the CPU and on the GPU, and in bfloat16 on the GPU: means of captured spans, the token
               that the model gives next, an SAE's codes, a pursuit, a training run; each beside its tolerance, with `agrees`.
waiting        how often the device was waited for while 64 tokens per row were sampled with captures at every block (torch's own
               count), and per sampled token.
capture        benchmarks/capture.py in bfloat16: capture against the bare model (the floor), one row at a time, and
               TransformerLens' `run_with_cache`; sampling with captures against transformers' `generate` and a second pass.
training       benchmarks/sae_training.py: against SAELens' trainer, and against the five large products alone (the floor).
decomposition  `signed_omp` at 3,584 x 131,072 with 64 atoms on the GPU against one reading of the dictionary per atom (the
               floor), and at 512 x 16,384 with 32 atoms against scikit-learn's on all cores of the same machine.

Ratios are above 1 where ours is faster, but `ratio_to_floor` and `floor_ratio`, which say how near the floor is.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import capture as capturing
import pursuit
import sae_training
import torch

from workbench.maths.pursuit import signed_omp
from workbench.models.capture import capture
from workbench.models.generation import generate
from workbench.models.hookpoints import residual_hooks
from workbench.models.loading import load_model
from workbench.models.sampling import Sampling
from workbench.saes.registry import load_sae
from workbench.saes.training import TrainingConfig, train

TOLERANCES = {"means_float32": 1e-4, "means_bfloat16": 2e-2, "next_token_float32": 0.01, "codes_float32": 1e-3,
              "pursuit_float32": 1e-4, "training_bfloat16": 0.03}  # fmt: skip
"""The largest difference that counts as agreement: relative norms, the share of other tokens, a relative loss."""
N_ROWS, N_TOKENS = 64, 64


def agreement(device: str) -> dict[str, Any]:
    """{what: {found, tolerance, agrees}}."""
    here, there = load_model(device="cpu"), load_model(device=device)
    rows, hooks = capturing.rollouts_of(here, N_ROWS), residual_hooks(here.n_blocks)

    def means(model: Any) -> torch.Tensor:
        found = {i: one.means for indices, batch in capture(model, rows, hooks) for i, one in zip(indices, batch, strict=True)}
        return torch.stack([found[i] for i in range(len(rows))])

    def likeliest(model: Any) -> list[tuple[int, ...]]:
        prompts, greedy = capturing.prompts_of(model), Sampling(max_new_tokens=1, temperature=0)
        batches = generate(model, prompts, greedy, row_seeds=range(len(prompts)), batch_size=1)
        return [row.response_ids for _, batch in batches for row in batch]

    exact, found = means(here), {}
    found["means_float32"] = relative(means(there), exact)
    first, second = likeliest(here), likeliest(there)
    found["next_token_float32"] = sum(a != b for a, b in zip(first, second, strict=True)) / len(first)
    found["means_bfloat16"] = relative(means(load_model(dtype="bfloat16", device=device)), exact)
    acts = exact[:, 15]
    found["codes_float32"] = relative(load_sae(device=device).encode(acts.to(device)).cpu(), load_sae().encode(acts))
    options = argparse.Namespace(**pursuit.SMALL)
    vectors, dictionary = pursuit.made(options)
    ours = [signed_omp(vectors.to(d), dictionary.to(d), n_atoms=options.atoms) for d in ("cpu", device)]
    found["pursuit_float32"] = relative(*(one.dense(options.d_sae).cpu() for one in reversed(ours)))
    found["training_bfloat16"] = training_difference(device)
    return {name: {"found": round(value, 8), "tolerance": TOLERANCES[name], "agrees": value <= TOLERANCES[name]}
            for name, value in found.items()}  # fmt: skip


def relative(found: torch.Tensor, exact: torch.Tensor) -> float:
    """|found - exact| / |exact| over everything."""
    return float((found.double() - exact.double()).norm() / exact.double().norm())


def training_difference(device: str) -> float:
    """How far the loss of the last steps is from the CPU's, of that, after 200 steps on the same batches."""
    config = TrainingConfig(d_sae=2048, k=32, batch_size=512, n_steps=200, checkpoint_every=10**9, log_every=10)
    losses = []
    with TemporaryDirectory() as folder:
        store = sae_training.made_store(Path(folder), 128)
        for name in ("cpu", device):
            place = Path(folder) / name.replace(":", "_")
            train(store, config, place, device=name)
            lines = [json.loads(line) for line in (place / "log.jsonl").read_text().splitlines()]
            losses.append(statistics.mean(line["loss"] for line in lines[-5:]))
    return abs(losses[1] - losses[0]) / losses[0]


def waiting(device: str) -> dict[str, Any]:
    """{waits, per_token, n_tokens, every}: what torch's count of synchronisations says of one batch being sampled."""
    from workbench.models.generation import GPU_STEPS

    model = load_model(dtype="bfloat16", device=device)
    prompts, hooks = capturing.prompts_of(model) * 8, residual_hooks(model.n_blocks)
    model.norm_medians(hooks)
    found = {}
    for n_tokens in (N_TOKENS, 2 * N_TOKENS):
        batches = generate(model, prompts, Sampling(max_new_tokens=n_tokens), row_seeds=range(len(prompts)), hooks=hooks,
                           batch_size=len(prompts))  # fmt: skip
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            list(batches)
            torch.cuda.set_sync_debug_mode("default")
        found[n_tokens] = [str(one.message) for one in caught if "synchroniz" in str(one.message)]
    short, long = (len(found[n]) for n in found)
    return {"waits": short, "n_tokens": N_TOKENS, "per_further_token": (long - short) / N_TOKENS, "looks_every": GPU_STEPS}


def decomposition(device: str) -> dict[str, Any]:
    """{full: {seconds, floor_seconds, ratio_to_floor}, small: {ratio_to_scikit_learn, same_choices}}."""
    found: dict[str, Any] = {}
    for name, sizes in (("full", pursuit.FULL), ("small", pursuit.SMALL)):
        options = argparse.Namespace(**sizes)
        vectors, dictionary = (tensor.to(device) for tensor in pursuit.made(options))
        pursuit.ours(vectors, dictionary, options.atoms)
        pursuit.floor(vectors, dictionary, options.atoms)
        sides = [partial(side, vectors, dictionary, options.atoms) for side in (pursuit.ours, pursuit.floor)]
        seconds, floor = (statistics.median(seconds_of(side) for _ in range(3)) for side in sides)
        found[name] = {"seconds": round(seconds, 4), "floor_seconds": round(floor, 4), "ratio_to_floor": seconds / floor}
        if name == "small":
            inputs = (vectors.cpu(), dictionary.cpu(), options.atoms)
            support = pursuit.ours(vectors, dictionary, options.atoms).support.cpu()
            started = time.perf_counter()
            theirs = pursuit.scikit_learn(*inputs)
            found[name] |= {"ratio_to_scikit_learn": round((time.perf_counter() - started) / seconds, 2),
                            "same_choices": float((theirs.gather(1, support) != 0).float().mean())}  # fmt: skip
    return found


def seconds_of(work: Callable[[], object]) -> float:
    """Wall-clock seconds, the device's queue included."""
    return sae_training.seconds_of(work, "cuda")


def script(name: str, *arguments: str) -> dict[str, Any]:
    """What another benchmark prints."""
    command = [sys.executable, str(Path(__file__).with_name(name)), *arguments]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def captured(device: str) -> dict[str, Any]:
    """benchmarks/capture.py at a GPU's sizes."""
    sizes = ("--rows", "256", "--batch-tokens", "16384", "--rounds", "5")
    return script("capture.py", "--device", device, "--dtype", "bfloat16", *sizes)


def trained(device: str) -> dict[str, Any]:
    """benchmarks/sae_training.py at a GPU's sizes; without SAELens only ours and the floor."""
    alone = () if importlib.util.find_spec("sae_lens") else ("--ours-only",)
    return script("sae_training.py", "--device", device, "--d-sae", "16384", "--batch", "4096", "--steps", "150", *alone)


PARTS: dict[str, Callable[[str], dict[str, Any]]] = {
    "agreement": agreement, "waiting": waiting, "capture": captured, "training": trained, "decomposition": decomposition,
}  # fmt: skip


def main() -> int:
    """Print the parts as they are finished, then all in one JSON object; exit code 1 where something does not agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=tuple(PARTS), action="append")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("this machine has no GPU that torch can use", file=sys.stderr)
        return 2
    found: dict[str, Any] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    for name in options.only or PARTS:
        started = time.perf_counter()
        try:
            found[name] = PARTS[name](options.device)
        except Exception as error:  # the other parts are worth having
            found[name] = {"error": f"{type(error).__name__}: {error}"[:500]}
        found[name]["seconds"] = round(time.perf_counter() - started, 1)
        print(name, json.dumps(found[name]), file=sys.stderr, flush=True)
    print(json.dumps(found, indent=1))
    return int(any(not one.get("agrees", True) for one in found.get("agreement", {}).values() if isinstance(one, dict)))


if __name__ == "__main__":
    raise SystemExit(main())
