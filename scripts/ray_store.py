"""The jobs of ray_faults.py with their files through an object store (S3) instead of a shared folder, workers killed meanwhile.

    python scripts/ray_store.py                     # five minutes; needs ray, s3fs, and moto_server (moto[server]) on PATH

The store is moto's S3 server on this machine, reached by HTTP; every task works in a folder of its own.
Prints {workers_killed, lost, repeated, identical, n_objects, left_in_store, runs} as JSON; exit code 1 when a file differs from
those of a run without Ray, or something stays in the bucket.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray_faults
from ray_faults import Trial, cluster, environment, jobs, killed

BUCKET, N_KILLS = "tasks", 3


@contextlib.contextmanager
def s3(log: Path) -> Iterator[None]:
    """moto's server with an empty bucket; its address and keys in the environment, its requests in `log`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        server = subprocess.Popen(["moto_server", "-p", str(port)], stdout=output, stderr=subprocess.STDOUT)
    os.environ |= {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=2)
                break
            time.sleep(0.3)
        _store().mkdir(BUCKET)
        yield
    finally:
        server.terminate()
        server.wait()


def _store() -> Any:
    import s3fs  # pyright: ignore[reportMissingImports]

    return s3fs.S3FileSystem(use_listings_cache=False)


def through_the_store(n_kills: int, seed: int) -> dict[str, Any]:
    """What is printed."""
    runs: list[dict[str, Any]] = []
    left = 0
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(Path(ray_faults.__file__)), "--prepare", folder]
        subprocess.run(command, env=environment(), capture_output=True, check=True)
        trials = [Trial(name, Path(folder)) for name in jobs()]
        log = Path(folder) / "s3.log"
        with s3(log):
            os.environ["WORKBENCH_TASK_STORE"] = f"s3://{BUCKET}/runs"
            with cluster() as there:
                for trial in trials:
                    runs += killed(trial, there, n_kills, random.Random(f"{trial.job} {seed}"))
                    left += len(_store().find(BUCKET))
        n_objects = len(set(re.findall(rf'"PUT /{BUCKET}/runs/(\w+/objects/\w+)', log.read_text(errors="replace"))))
    totals = {name: sum(run[key] for run in runs) for name, key in
              (("workers_killed", "killed"), ("lost", "lost"), ("repeated", "repeated"))}  # fmt: skip
    identical = all(run["identical"] and run["ended_well"] for run in runs)
    return {**totals, "identical": identical, "n_objects": n_objects, "left_in_store": left, "runs": runs}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=N_KILLS, help="workers killed in each job")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = through_the_store(options.kills, options.seed)
    print(json.dumps(found, indent=1))
    bad = found["lost"] or found["repeated"] or found["left_in_store"]
    return int(bool(bad or not found["n_objects"] or not found["identical"]))


if __name__ == "__main__":
    raise SystemExit(main())
