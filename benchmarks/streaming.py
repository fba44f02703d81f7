"""Speed of streaming mean codes against the bare encoder product, and how time and memory grow.

    python benchmarks/streaming.py [--full] [--growth] [--d-model 576] [--d-sae 8192] [--rows 128] [--tokens 64] [--rounds 5]

ratio   processor seconds of the product tokens @ encoder alone, in chunks of the same size and in place / processor seconds of
        `read_row_codes` on the same tokens: 1 is the speed of the product. The median of the rounds, with the smallest and the
        largest; the sides run in turn, the first one alternating. `clock_ratio` is that of the clock.
growth  (with --growth) processor seconds of `read_row_codes` in tokens and in d_sae, of `signed_omp` in d_sae and in atoms, and
        peak memory of a process of its own, with the exponent of a straight line through the logarithms of the points.

jumprelu with a threshold per feature and about 50 active codes per token; random weights and tokens. `--full` also measures
2,304 x 16,384.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from workbench.base.randomness import generator
from workbench.decomposition import rows as streamed
from workbench.maths.pursuit import signed_omp
from workbench.models.hookpoints import HookPoint
from workbench.saes.interface import SparseAutoencoder

SIZES = {"d_model": 576, "d_sae": 8192, "rows": 128, "tokens": 64, "rounds": 5}
GROWTH = {
    "streaming": {"tokens": ("rows", (64, 128, 256)), "d_sae": ("d_sae", (8192, 32_768, 131_072))},
    "pursuit": {"d_sae": ("d_sae", (8192, 32_768, 131_072)), "k": ("atoms", (8, 32, 128))},
}
BASE = {"d_model": 256, "d_sae": 8192, "rows": 32, "tokens": 64, "atoms": 32}


def made(size: dict[str, int]) -> tuple[Any, list[torch.Tensor]]:
    """(SAE, responses)."""
    source = generator(0)
    d_model, d_sae = size["d_model"], size["d_sae"]
    encoder = torch.randn(d_model, d_sae, generator=source) / math.sqrt(d_model)
    threshold = torch.erfinv(torch.tensor(1 - 100 / d_sae)) * math.sqrt(2) + 0.1 * torch.rand(d_sae, generator=source)
    sae = SparseAutoencoder("random", HookPoint(1), "random", "jumprelu", encoder, torch.zeros(d_sae), encoder.T.contiguous(),
                            torch.zeros(d_model), "none", threshold=threshold)  # fmt: skip
    return sae, [torch.randn(size["tokens"], d_model, generator=source) for _ in range(size["rows"])]


def streaming(sae: Any, responses: list[torch.Tensor]) -> Any:
    """The package's reading of the responses."""
    names = [str(index) for index in range(len(responses))]
    return streamed.read_row_codes(zip(names, responses, strict=True), names, sae)


def seconds_of(work: Callable[[], object]) -> tuple[float, float]:
    """(processor seconds, seconds of the clock)."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.process_time() - processor, time.perf_counter() - clock


def compared(size: dict[str, int]) -> dict[str, Any]:
    """The ratio at one size."""
    sae, responses = made(size)
    chunk = max(1, streamed.MAX_CODE_CELLS // sae.d_sae)
    every = torch.cat(responses)
    out = torch.empty(min(chunk, len(every)), sae.d_sae)

    def bare() -> None:
        for part in every.split(chunk):
            torch.mm(part, sae.encoder, out=out[: len(part)])

    sides: list[Callable[[], object]] = [bare, lambda: streaming(sae, responses)]
    found: list[list[tuple[float, float]]] = [[], []]
    for number in range(size["rounds"]):
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            found[side].append(seconds_of(sides[side]))
    ratios, clock = ([a[k] / b[k] for a, b in zip(*found, strict=True)] for k in (0, 1))
    return {"ratio": round(statistics.median(ratios), 3), "range": [round(min(ratios), 3), round(max(ratios), 3)],
            "clock_ratio": round(statistics.median(clock), 3), "gap": streaming(sae, responses[:1]).gap, **size}  # fmt: skip


def one_growth(kind: str, size: dict[str, int]) -> dict[str, float]:
    """Processor seconds, and the peak memory of this process."""
    sae, responses = made(size)
    if kind == "streaming":
        processor, _ = seconds_of(lambda: streaming(sae, responses))
    else:
        processor, _ = seconds_of(lambda: signed_omp(responses[0][:1], sae.decoder_directions, n_atoms=size["atoms"]))
    return {"processor_seconds": processor, "peak_bytes": peak_memory()}


def peak_memory() -> int:
    """Bytes of the largest resident set of this program. Linux's ru_maxrss would count the parent's, which it started as."""
    status = Path("/proc/self/status")
    if status.is_file():
        return 1024 * next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def apart(kind: str, size: dict[str, int]) -> dict[str, float]:
    """`one_growth` of a new process."""
    command = [sys.executable, __file__, "--one", kind, json.dumps(size)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def exponent(x: list[float], y: list[float]) -> float:
    """Slope of the least-squares line through the logarithms."""
    slope, _ = statistics.linear_regression([math.log(v) for v in x], [math.log(v) for v in y])
    return round(slope, 3)


def growth() -> dict[str, Any]:
    """The curves and their exponents."""
    found: dict[str, Any] = {}
    for kind, axes in GROWTH.items():
        for axis, (name, values) in axes.items():
            points = [{name: value, **apart(kind, {**BASE, name: value})} for value in values]
            seconds, memory = ([p[key] for p in points] for key in ("processor_seconds", "peak_bytes"))
            found[f"{kind}_{axis}"] = {"points": points, "time_exponent": exponent(list(values), seconds),
                                       "memory_exponent": exponent(list(values), memory)}  # fmt: skip
    return found


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="2,304 x 16,384 as well")
    parser.add_argument("--growth", action="store_true", help="growth curves as well")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    for name, value in SIZES.items():
        parser.add_argument(f"--{name}", f"--{name.replace('_', '-')}", type=int, default=value)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one_growth(options.one[0], json.loads(options.one[1]))))
        return
    size = {name: getattr(options, name) for name in SIZES}
    result: dict[str, Any] = compared(size)
    if options.full:
        result["larger"] = compared({**size, "d_model": 2304, "d_sae": 16_384, "rows": 64, "rounds": 3})
    if options.growth:
        result["growth"] = growth()
    facts = {"n_threads": torch.get_num_threads(), "load_average": round(os.getloadavg()[0], 2)}
    print(json.dumps({**result, **facts}, indent=2))


if __name__ == "__main__":
    main()
