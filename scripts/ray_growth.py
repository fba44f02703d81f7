"""How a run on a Ray cluster gets shorter with workers, on this machine.

    python scripts/ray_growth.py                 # half an hour; on a machine that does nothing else

The jobs are those of ray_faults.py, undisturbed, and an index of the default model: seconds from the start of the command's
process to its end (imports, loading and joining of the parts included), without Ray on one core and on clusters of one, two and
three nodes of one core each; the least of ROUNDS, of the larger job of one round. Prints {cores, load_before, without_ray: {job:
seconds}, workers: {n: {job: seconds}}}.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import ray_faults
from ray_faults import Trial, cluster, environment, jobs, spread

ROUNDS, WORKERS = 3, (1, 2, 3)
LARGE, N_LINES = "index of the default model", 7000
COMMAND = ("features", "index", "--model", "smollm2-135m-instruct", "--dtype", "bfloat16", "--texts", "large.txt", "--chats", "0",
           "--out", LARGE, "--tokens", "131072", "-q")  # fmt: skip


def growth() -> dict[str, Any]:
    """What is printed."""
    load = round(os.getloadavg()[0], 1)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(Path(ray_faults.__file__)), "--prepare", folder]
        subprocess.run(command, env=environment(), capture_output=True, check=True)
        words = (f"Line {n}: some words about the sea, its ships and its weather, and number {n * n}." for n in range(N_LINES))
        (Path(folder) / "large.txt").write_text("\n\n".join(words))
        ray_faults.jobs = lambda known=jobs(): {**known, LARGE: COMMAND}  # type: ignore[assignment]
        trials = [Trial(name, Path(folder)) for name in ray_faults.jobs()]
        plain = {one.job: round(min([one.seconds, *(one.undisturbed() for _ in range(_more(one.job)))]), 1) for one in trials}
        curve = {str(n): _with(trials, n) for n in WORKERS}
    return {"cores": os.cpu_count(), "load_before": load, "without_ray": plain, "workers": curve}


def _more(job: str) -> int:
    """Rounds after the first."""
    return 0 if job == LARGE else ROUNDS - 1


def _with(trials: list[Trial], n_workers: int) -> dict[str, float]:
    with cluster(n_workers) as there:
        times = {one.job: [one.undisturbed(*spread(one.job, there.address)) for _ in range(1 + _more(one.job))] for one in trials}
    print(n_workers, times, file=sys.stderr, flush=True)
    return {job: round(min(seconds), 1) for job, seconds in times.items()}


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(json.dumps(growth(), indent=1))
