"""Speed and memory of the signed pursuit against scikit-learn's orthogonal matching pursuit (ratios above 1: ours is faster).

    python benchmarks/pursuit.py [--full] [--d-model 512] [--d-sae 16384] [--vectors 7] [--atoms 32] [--rounds 3]

ratio_to_scikit_learn   seconds of `orthogonal_mp` / seconds of `signed_omp`: the same unit rows, vectors and number of atoms,
                        float32, one array. scikit-learn runs without a precomputed Gram matrix (`precompute=False`: the matrix
                        has d_sae^2 numbers, 64 GiB at full scale) and without its first copy (`copy_X=False`); for several
                        vectors it copies the dictionary once for each.
ratio_to_floor          seconds of `signed_omp` / seconds of the floor of a pursuit that reads the dictionary once per step: one
                        matrix-vector product with the whole dictionary per atom. Below 1: fewer readings than steps.
readings                products with the whole dictionary that `signed_omp` took, where a plain pursuit takes one per atom.
same_choices            share of the rows chosen by `signed_omp` that scikit-learn chose for that vector.
peak_memory_ratio       peak resident memory of a process of its own that makes the dictionary and runs `signed_omp` / bytes of
                        the dictionary; `interpreter_ratio` of it is there before the dictionary is (Python and PyTorch).

The sides of a round run in turn, the first one alternating; a figure is the median of the rounds' ratios. Seconds are of the
clock; processor seconds stand beside them, as a busy machine stretches the former. The vectors are random: no structure of the
dictionary helps the pursuit to look ahead. `--full` is 3,584 x 131,072 (1.75 GiB) with 64 atoms, one round.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from workbench.base.randomness import generator
from workbench.maths import screening
from workbench.maths.pursuit import Pursuit, signed_omp

FULL = {"d_model": 3584, "d_sae": 131_072, "vectors": 7, "atoms": 64, "rounds": 1}
SMALL = {"d_model": 512, "d_sae": 16_384, "vectors": 7, "atoms": 32, "rounds": 3}


def made(options: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """(vectors, dictionary of unit rows), float32, in place."""
    seeds = generator(0)
    dictionary = torch.empty(options.d_sae, options.d_model).normal_(generator=seeds)
    for rows in dictionary.split(8192):
        rows /= rows.norm(dim=1, keepdim=True)
    return torch.randn(options.vectors, options.d_model, generator=seeds), dictionary


def ours(vectors: Tensor, dictionary: Tensor, n_atoms: int) -> Pursuit:
    """The pursuit of the package."""
    return signed_omp(vectors, dictionary, n_atoms=n_atoms)


def scikit_learn(vectors: Tensor, dictionary: Tensor, n_atoms: int) -> Tensor:
    """scikit-learn's coefficients, `[n, d_sae]`."""
    from sklearn.linear_model import orthogonal_mp

    found = orthogonal_mp(
        dictionary.T.numpy(), vectors.T.numpy(), n_nonzero_coefs=n_atoms, precompute=False, copy_X=False
    )
    return torch.from_numpy(found).reshape(len(dictionary), -1).T


def floor(vectors: Tensor, dictionary: Tensor, n_atoms: int) -> None:
    """One reading of the dictionary per atom."""
    for _ in range(n_atoms):
        torch.mv(dictionary, vectors[0])


def seconds_of(work: Callable[..., object], *inputs: Any) -> tuple[float, float, Any]:
    """(seconds of the clock, processor seconds, result)."""
    started, processor = time.perf_counter(), time.process_time()
    result = work(*inputs)
    return time.perf_counter() - started, time.process_time() - processor, result


def readings(*inputs: Any) -> int:
    """How many products with the whole dictionary the pursuit takes."""
    scores = screening._Screen.scores
    with mock.patch.object(screening._Screen, "scores", autospec=True, side_effect=scores) as counted:
        ours(*inputs)
    return sum(stop > start for _, start, stop in (call.args for call in counted.call_args_list))


def peak_memory() -> int:
    """Bytes of the largest resident set of this process so far (Linux counts KiB, macOS bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def memory_here(options: argparse.Namespace) -> dict[str, float]:
    """Peak memory of this process, which does nothing but make the dictionary and run the pursuit."""
    before = peak_memory()
    vectors, dictionary = made(options)
    size, dictionary_only = dictionary.numel() * dictionary.element_size(), peak_memory()
    ours(vectors, dictionary, options.atoms)
    ratios = {"peak_memory_ratio": peak_memory(), "dictionary_made_ratio": dictionary_only, "interpreter_ratio": before}
    return {name: round(value / size, 3) for name, value in ratios.items()}


def memory_apart(options: argparse.Namespace) -> dict[str, float]:
    """`memory_here` of a new process."""
    sizes = [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in SMALL]
    command = [sys.executable, __file__, "--memory-here", *sizes]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(options: argparse.Namespace) -> dict[str, object]:
    """The figures and what they were measured on."""
    result: dict[str, object] = dict(memory_apart(options))
    vectors, dictionary = made(options)
    inputs = (vectors, dictionary, options.atoms)
    sides: dict[str, Callable[..., Any]] = {"signed_omp": ours, "scikit_learn": scikit_learn, "floor": floor}
    clock: dict[str, list[float]] = {name: [] for name in sides}
    processor: dict[str, list[float]] = {name: [] for name in sides}
    found: dict[str, Any] = {}
    for number in range(options.rounds):
        for name in list(sides) if number % 2 == 0 else list(sides)[::-1]:
            seconds, busy, found[name] = seconds_of(sides[name], *inputs)
            clock[name].append(seconds)
            processor[name].append(busy)
    support = found["signed_omp"].support
    result["ratio_to_scikit_learn"] = paired(clock, "scikit_learn", "signed_omp")
    result["ratio_to_scikit_learn_processor"] = paired(processor, "scikit_learn", "signed_omp")
    result["ratio_to_floor"] = paired(clock, "signed_omp", "floor")
    result["ratio_to_floor_processor"] = paired(processor, "signed_omp", "floor")
    result["seconds"] = {name: round(statistics.median(values), 3) for name, values in clock.items()}
    result["processor_seconds"] = {name: round(statistics.median(values), 3) for name, values in processor.items()}
    result["readings"] = readings(*inputs)
    result["same_choices"] = float((found["scikit_learn"].gather(1, support) != 0).float().mean())
    facts = {name: getattr(options, name) for name in SMALL}
    return {**result, **facts, "n_threads": torch.get_num_threads(), "load_average": round(os.getloadavg()[0], 2)}


def paired(seconds: dict[str, list[float]], above: str, below: str) -> float:
    """Median over the rounds of one side's seconds / the other's."""
    return round(statistics.median(a / b for a, b in zip(seconds[above], seconds[below], strict=True)), 3)


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="3,584 x 131,072, 7 vectors, 64 atoms, one round")
    parser.add_argument("--memory-here", action="store_true", help=argparse.SUPPRESS)
    for name in SMALL:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int)
    options = parser.parse_args()
    for name, value in (FULL if options.full else SMALL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    print(json.dumps((memory_here if options.memory_here else measure)(options), indent=2))


if __name__ == "__main__":
    main()
