"""How a run on a Ray cluster gets shorter with workers, on this machine.

    python scripts/ray_growth.py                 # five minutes; on a machine that does nothing else

The jobs are those of ray_faults.py, undisturbed: seconds from the start of the command's process to its end (imports, loading and
joining of the parts included), without Ray and on clusters of one, two and three nodes of one core each; the least of ROUNDS.
Prints {cores, load_before, without_ray: {job: seconds}, workers: {n: {job: seconds}}}.
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


def growth() -> dict[str, Any]:
    """What is printed."""
    load = round(os.getloadavg()[0], 1)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(Path(ray_faults.__file__)), "--prepare", folder]
        subprocess.run(command, env=environment(), capture_output=True, check=True)
        trials = [Trial(name, Path(folder)) for name in jobs()]
        plain = {one.job: round(min([one.seconds, *(one.undisturbed() for _ in range(ROUNDS - 1))]), 1) for one in trials}
        curve = {str(n): _with(trials, n) for n in WORKERS}
    return {"cores": os.cpu_count(), "load_before": load, "without_ray": plain, "workers": curve}


def _with(trials: list[Trial], n_workers: int) -> dict[str, float]:
    with cluster(n_workers) as there:
        times = {one.job: [one.undisturbed(*spread(one.job, there.address)) for _ in range(ROUNDS)] for one in trials}
    print(n_workers, times, file=sys.stderr, flush=True)
    return {job: round(min(seconds), 1) for job, seconds in times.items()}


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(json.dumps(growth(), indent=1))
