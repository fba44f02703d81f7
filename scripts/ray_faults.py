"""Faults of a real Ray cluster: workers killed, the head stopped and started again, the disk for spilled objects full.

    python scripts/ray_faults.py                    # 12 kills, a restart of the head and a full disk for each job; half an hour
    python scripts/ray_faults.py --kills 4 --only index --no-growth

The cluster is two nodes on this machine, started by `ray start`: a head and one more, with one core each, a small object store
and a token of their own. The jobs are `workbench axis roles` (rollouts, in SHARES shares) and `workbench features index`
(activations and features, in pieces) on a tiny seeded model. Each is run on this machine first, without Ray and undisturbed;
after every fault the same command is given until it ends well, and what it left is compared with that.

killed  Ray's worker processes get SIGKILL in the middle of tasks, at seeded moments, from whichever node is drawn.
head    once parts of the work are on disk, all processes of the head and of the other node get SIGTERM, and those that live on
        SIGKILL. Both start again, then the command does.
disk    objects are put into the store of a node until it and the file system that it spills to (a tmpfs of some megabytes; root
        may mount one) are full; the command is given; then whoever put them there ends, and the command is given again.

Prints JSON: {workers_killed, heads_restarted, disks_filled, lost, repeated, identical, growth, runs}. `lost`: rows (rollouts,
documents of pieces) that the run on this machine has and one on the cluster does not; `repeated`: rows that are there once more
than in that run. `identical`: every file is that run's byte for byte (JSON without the fields that say when, as in kills.py).
`growth`: seconds of both commands, from the start of their processes to their ends, with one, two and three workers, and how many
cores and how much load the machine has. Exit code 1 when something was lost, repeated or differs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]
from kills import HOOK, hashes, prepare  # noqa: E402

SHARES, N_TOKENS, STORE_BYTES, DISK = 10, 400_000, 80_000_000, "8m"
TASKS = ("ray::sample_shard", "ray::write_piece")
TOKEN = secrets.token_hex(24)
GIVEN = 8
"""How often a command is given at most until it ends well."""
PATIENCE = 300.0
"""Seconds after which a command that was disturbed counts as hanging, and is killed."""
HOG = """
import sys, time, numpy, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
kept = []
try:
    while len(kept) < 200:
        kept.append(ray.put(numpy.random.default_rng(len(kept)).bytes(4_000_000)))
    print("never full", flush=True)
except Exception as error:
    print(f"full after {len(kept)} objects of 4 MB: {type(error).__name__}", flush=True)
time.sleep(3600)
"""


def jobs() -> dict[str, tuple[str, ...]]:
    """{job: its command}; what it makes lies in a folder of its name."""
    return {
        "roles": ("axis", "roles", "ghost", "poet", "reviewer", "supervisor", "--model", "model", "--out", "roles", "--hook",
                  HOOK, "--judge", "none", "--questions", "16", "--prompts", "2", "--max-new-tokens", "8", "--min-count", "2",
                  "--batch-size", "8", "-q"),
        "index": ("features", "index", "--model", "model", "--sae", "sae", "--texts", "texts.txt", "--chats", "0", "--out",
                  "index", "--tokens", str(N_TOKENS), "-q"),
    }  # fmt: skip


def spread(job: str, address: str) -> tuple[str, ...]:
    """What is added to a job's command to have it done by a cluster."""
    return ("--engine", "ray", "--address", address, *(("--shares", str(SHARES)) if job == "roles" else ()))


def rows(folder: Path) -> Counter[str]:
    """How often each row is there: the ids of rollouts in committed parts, or the documents of an index's pieces."""
    import pyarrow.parquet as parquet

    found: Counter[str] = Counter()
    for file in folder.rglob("part-*.parquet"):
        found.update(parquet.read_table(file, columns=["id"]).column("id").to_pylist())
    for file in folder.glob("shards/*/feature_codes.json"):
        found.update(json.dumps(one) for one in json.loads(file.read_text())["documents"])
    return found


class Cluster:
    """A head and further nodes of one core each, as `ray start` starts them; `spilling`: where they put what does not fit."""

    def __init__(self, place: Path, n_nodes: int, *, spilling: Path | None = None):
        self.place, self.n_nodes, self.spilling = place, n_nodes, spilling
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"

    def start(self) -> None:
        """Start the head, then the other nodes."""
        size = ("--num-cpus", "1", "--object-store-memory", str(STORE_BYTES), "--disable-usage-stats", "--node-ip-address",
                "127.0.0.1", *(("--object-spilling-directory", str(self.spilling)) if self.spilling else ()))  # fmt: skip
        head = ("--head", "--port", self.address.split(":")[1], "--temp-dir", str(self.place), "--include-dashboard", "false")
        for more in (head, *[("--address", self.address)] * (self.n_nodes - 1)):
            command = [sys.executable, "-m", "ray.scripts.scripts", "start", *more, *size]
            done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=180)
            if done.returncode:
                raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stdout[-800:]} {done.stderr[-800:]}")

    def processes(self) -> dict[int, tuple[int, str]]:
        """{id: (its parent's, command line)} of what runs for this cluster: its own processes and their workers."""
        every = _processes()
        own = {pid: one for pid, one in every.items() if str(self.place) in one[1] and pid != os.getpid() and "ray" in one[1]}
        return own | {pid: one for pid, one in every.items() if one[1].startswith("ray::") and one[0] in own}

    def busy(self) -> list[int]:
        """The workers that are in the middle of a task."""
        return sorted(pid for pid, (_, command) in self.processes().items() if command.startswith(TASKS))

    def stop(self) -> None:
        """End every process of the cluster, the polite way first."""
        own = self.processes()  # listed once: what loses its parent is no longer known by it
        for how in (signal.SIGTERM, signal.SIGKILL):
            until = time.monotonic() + 10
            for pid in own.keys() & _processes().keys():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, how)
            while own.keys() & _processes().keys() and time.monotonic() < until:
                time.sleep(0.2)


def _processes() -> dict[int, tuple[int, str]]:
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            stat = (place / "stat").read_text().rpartition(")")[2].split()
            if stat[0] != "Z":
                command = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found[int(place.name)] = int(stat[1]), command
    return found


@contextlib.contextmanager
def cluster(n_nodes: int = 2, *, spilling: Path | None = None) -> Iterator[Cluster]:
    """A cluster for the time of the block."""
    place = Path(tempfile.mkdtemp(prefix="ray-faults-"))
    found = Cluster(place, n_nodes, spilling=spilling)
    try:
        found.start()
        yield found
    finally:
        found.stop()
        shutil.rmtree(place, ignore_errors=True)


def environment() -> dict[str, str]:
    """One thread, this checkout, no Ray but the one that is named, and the token of that."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return kept | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN,
                   "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "WORKBENCH_PROGRESS": "0", "HF_HUB_OFFLINE": "1"}


class Trial:
    """One job in a folder that holds what it needs, with what a run on this machine left to compare with."""

    def __init__(self, job: str, folder: Path):
        self.job, self.folder, self.out = job, folder, folder / job
        self.seconds = self.undisturbed()
        self.expected, self.rows = hashes(self.out), rows(self.out)

    def undisturbed(self, *more: str) -> float:
        """Run it from nothing to its end; the seconds that it took."""
        shutil.rmtree(self.out, ignore_errors=True)
        began = time.perf_counter()
        code, said = self.given(more)
        if code:
            raise SystemExit(f"{self.job} ended with {code}: {said}")
        return time.perf_counter() - began

    def given(self, more: tuple[str, ...], disturb: Callable[[], None] = lambda: None) -> tuple[int, str]:
        """Give the command once, and call `disturb` as long as it runs: (exit code, the end of what it said)."""
        log = self.folder / f"{self.job}.log"
        with log.open("wb") as output:
            command = [sys.executable, "-m", "workbench", *jobs()[self.job], *more]
            process = subprocess.Popen(command, cwd=self.folder, env=environment(), stdout=output, stderr=subprocess.STDOUT)
        until = time.monotonic() + PATIENCE
        try:
            while process.poll() is None and time.monotonic() < until:
                disturb()
                time.sleep(0.05)
        finally:
            process.kill()
        return process.wait(), log.read_text(errors="replace").strip()[-600:]

    def n_done(self) -> int:
        """How many parts of the work are on disk."""
        return len([*self.out.rglob("part-*.parquet"), *self.out.glob("shards/*/feature_codes.json")])

    def finished(self, fault: str, address: str, ended: list[tuple[int, str]], **counts: Any) -> dict[str, Any]:
        """Give the command until it ends well; what came of it. `ended`: how it ended so far."""
        while (not ended or ended[-1][0]) and len(ended) < GIVEN:
            ended.append(self.given(spread(self.job, address)))
        found = rows(self.out)
        told = {"job": self.job, "fault": fault, **counts, "times_given": len(ended), "ended_well": not ended[-1][0],
                "lost": sum((self.rows - found).values()), "repeated": sum((found - self.rows).values()),
                "identical": hashes(self.out) == self.expected, "n_rows": sum(self.rows.values()), "n_files": len(self.expected),
                "said": [f"{code}: {' '.join(said.split())[-300:]}" for code, said in ended if code]}  # fmt: skip
        print({name: value for name, value in told.items() if name != "said"}, file=sys.stderr, flush=True)
        return told


def killed(trial: Trial, there: Cluster, n_kills: int, draw: random.Random) -> Iterator[dict[str, Any]]:
    """Runs of the job in which workers are killed, until that were `n_kills`."""
    done = 0
    while done < n_kills:
        shutil.rmtree(trial.out, ignore_errors=True)
        at, kills = time.monotonic() + draw.uniform(0, 4), []

        def disturb(before: int = done, kills: list[str] = kills) -> None:
            nonlocal at
            if before + len(kills) < n_kills and time.monotonic() > at and (victims := there.busy()):
                with contextlib.suppress(ProcessLookupError):
                    victim = draw.choice(victims)
                    kills.append(_processes()[victim][1].split()[0])
                    os.kill(victim, signal.SIGKILL)
                at = time.monotonic() + draw.uniform(0.2, 4)

        ended: list[tuple[int, str]] = []
        while (not ended or ended[-1][0]) and len(ended) < GIVEN:
            ended.append(trial.given(spread(trial.job, there.address), disturb))
        done += len(kills)
        yield trial.finished("workers killed", there.address, ended, killed=len(kills))


def restarted(trial: Trial, there: Cluster) -> dict[str, Any]:
    """The job, whose cluster goes away as soon as a third of it is done, and comes back."""
    shutil.rmtree(trial.out, ignore_errors=True)
    enough = max(2, (SHARES if trial.job == "roles" else N_TOKENS // 32_768) // 3)
    parts: list[int] = []

    def disturb() -> None:
        if not parts and trial.n_done() >= enough:
            parts.append(trial.n_done())
            there.stop()

    ended = [trial.given(spread(trial.job, there.address), disturb)]
    if not parts:
        there.stop()
    there.start()
    return trial.finished("head restarted", there.address, ended, heads=len(parts), parts_then=sum(parts))


def filled(trial: Trial, there: Cluster) -> dict[str, Any]:
    """The job on a cluster whose object store and spilling disk are full, and again when they are not."""
    shutil.rmtree(trial.out, ignore_errors=True)
    hog = subprocess.Popen([sys.executable, "-c", HOG, there.address], env=environment(), stdout=subprocess.PIPE, text=True)
    try:
        assert hog.stdout is not None
        full = next((line.strip() for line in hog.stdout if line.startswith(("full", "never"))), "it ended")
        free = shutil.disk_usage(there.spilling or "/").free
        first = trial.given(spread(trial.job, there.address))
    finally:
        hog.kill()
        hog.wait()
    counts = {"disks": int(full.startswith("full")), "filled": full, "bytes_free_then": free}
    return trial.finished("spilling disk full", there.address, [first], **counts)


@contextlib.contextmanager
def small_disk() -> Iterator[Path | None]:
    """A mounted tmpfs of DISK bytes, or None where this user may mount none."""
    place = Path(tempfile.mkdtemp(prefix="ray-disk-"))
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(place)], capture_output=True)
    try:
        yield place if mounted.returncode == 0 else None
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "-l", str(place)], check=False)
        place.rmdir()


def faults(names: list[str], n_kills: int, seed: int, *, growth: bool = True) -> dict[str, Any]:
    """All faults of the named jobs, and how long the jobs take with one, two and three workers."""
    runs: list[dict[str, Any]] = []
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        if subprocess.run([sys.executable, __file__, "--prepare", folder], env=environment(), capture_output=True).returncode:
            raise SystemExit("the model could not be made")
        trials = [Trial(name, Path(folder)) for name in names]
        with cluster() as there:
            for trial in trials:
                runs += killed(trial, there, n_kills, random.Random(f"{trial.job} {seed}"))
            for trial in trials:
                runs.append(restarted(trial, there))
        with small_disk() as disk:
            if disk is None:
                found["disk"] = "not tried: this user may mount no tmpfs"
            else:
                with cluster(1, spilling=disk) as there:
                    runs += [filled(trial, there) for trial in trials]
        if growth:
            load = round(os.getloadavg()[0], 1)
            curve = {n: _grown(trials, n) for n in (1, 2, 3)}
            local = {trial.job: round(trial.seconds, 1) for trial in trials}
            found["growth"] = {"cores": os.cpu_count(), "load_before": load, "here_without_ray": local, "workers": curve}
    counts = {"workers_killed": "killed", "heads_restarted": "heads", "disks_filled": "disks"}
    counts |= {name: name for name in ("lost", "repeated")}
    totals = {name: sum(run.get(key, 0) for run in runs) for name, key in counts.items()}
    return {**totals, "identical": all(run["identical"] and run["ended_well"] for run in runs), **found, "runs": runs}


def _grown(trials: list[Trial], n_workers: int) -> dict[str, float]:
    with cluster(n_workers) as there:
        found = {trial.job: round(trial.undisturbed(*spread(trial.job, there.address)), 1) for trial in trials}
    print(n_workers, found, file=sys.stderr, flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=6, help="workers killed in each job")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(jobs()), help="one of the jobs")
    parser.add_argument("--no-growth", action="store_true")
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.prepare:
        prepare(options.prepare)
        words = [f"Line {n}: of the sea, its {n % 97} ships and its weather, and number {n * n}." for n in range(12_000)]
        (options.prepare / "texts.txt").write_text("\n\n".join(words))
        return 0
    found = faults([options.only] if options.only else list(jobs()), options.kills, options.seed, growth=not options.no_growth)
    print(json.dumps(found, indent=1))
    return int(bool(found["lost"] or found["repeated"] or not found["identical"]))


if __name__ == "__main__":
    raise SystemExit(main())
