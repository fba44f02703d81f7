"""Faults of the machine, done on purpose to every long stage: what comes out has to be what an undisturbed run gives.

    python scripts/faults.py                                 # every fault on every stage of a tiny seeded model
    python scripts/faults.py --only screen --faults clock,two  # parts of it
    python scripts/faults.py --most 5 --times 2              # five writes of a stage fail, two draws of every other fault

disk full     the k-th file that is opened for writing finds a full disk, for every k: a tmpfs is filled up there, but for 0, 4
              or 64 KiB, so that Python, Arrow and safetensors alike meet the real error, some in the midst of a file. Where
              nothing can be mounted, opening it is what fails
torn          killed at a random moment, then a file that was written is cut at a random length, as after a power cut
last row      the same with a Parquet or JSON-lines file, cut within its last 64 bytes
missing       the same with the file gone
late missing  the stage had ended; a shard of its rollouts or activations goes, and the next stage comes. It is refused or
              reads the replies through the model again, and then its numbers agree to rounding
clock         killed at a random moment; the clock of the second run, and the times of all files but the model's, which tell it
              from another one, lie days or years ahead or behind
two           while one process works a second one is told who holds the folder; then the first is killed and a third takes over
read-only     the file system is read-only at first
memory        passes of more than a few rows raise torch.OutOfMemoryError

Survived means: no traceback, exit code 0, or 2 with an error in words; and the same command, given again under sound
conditions (what an error asked to delete was deleted), leaves every file byte for byte as a run that nobody disturbed, compared
as in kills.py. Under `memory`, where batches differ, it means the same files, and the warning. Prints {fault: {stage: [survived,
total]}} and, with an underscore, the seed, the counts of refusals and what was not survived; exit code 1 where something was not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import kills
from fault_bench import Bench, disk, told

ROOT = Path(__file__).resolve().parents[1]
DAY = 86_400
SHIFTS = (-10 * 365 * DAY, -DAY, DAY, 10 * 365 * DAY)
ROOM = (0, 4 << 10, 64 << 10)
LIMITS = (1, 2, 3, 5, 7)
"""Rows of a pass that fit under `memory`."""
AFTER = {"extract": "decompose", "decompose": "label"}
"""The stage that reads the shards of one that ended."""
Fault = Callable[["Bench", random.Random], Iterator[str | None]]


def disk_full(bench: Bench, draw: random.Random) -> Iterator[str | None]:
    """One result for every file that the stage opens for writing."""
    counted = bench.base.parent / "writes"
    bench.fresh()
    bench.run(lambda: _on_write(bench, lambda n: counted.write_text(str(n))))
    n_writes = int(counted.read_text())
    places = list(range(1, n_writes + 1))
    if n_writes > bench.most:
        places = sorted({1, n_writes, *draw.sample(places, bench.most - 2)})
    for k in places:
        ballast = bench.now / "ballast.log"
        bench.fresh()
        code, said = bench.run(partial(_on_write, bench, partial(_fill, bench, ballast, k, draw.choice(ROOM))))
        ballast.unlink(missing_ok=True)
        wrong = bench.wrong(code, said, "disk is full", "No space left")
        left = [path.name for path in bench.now.rglob("*.part")]
        yield told(f"write {k} of {n_writes}", wrong or (f"left {left}" if left else None) or bench.again())


def _on_write(bench: Bench, then: Callable[[int], Any]) -> None:
    """Call `then(n)` when this process opens its n-th file of the folder for writing, before it does."""
    count, busy, folder = 0, False, str(bench.now)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count, busy
        if event != "open" or busy or not isinstance(args[0], str | bytes | os.PathLike):
            return
        if args[2] & (os.O_WRONLY | os.O_RDWR) and os.path.abspath(os.fsdecode(args[0])).startswith(folder):
            busy, count = True, count + 1
            try:
                then(count)
            finally:
                busy = False

    sys.addaudithook(hook)


def _fill(bench: Bench, ballast: Path, wanted: int, room: int, number: int) -> None:
    """At write `wanted` leave only so many bytes on the disk; where there is none of our own, say that it is full."""
    if number != wanted:
        return
    if not bench.mounted:
        raise OSError(28, "No space left on device")
    with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
        free = os.statvfs(bench.now)
        os.posix_fallocate(file.fileno(), 0, max(1, free.f_bavail * free.f_frsize - room))


def _spoilt(spoil: Callable[[Path, random.Random], Any], *ends: str) -> Fault:
    def fault(bench: Bench, draw: random.Random) -> Iterator[str | None]:
        for _ in range(bench.times):
            for _ in range(12):  # a kill before the first such file leaves nothing to spoil
                bench.killed(draw)
                if found := bench.written(*ends):
                    break
            else:
                return
            path = draw.choice(found)
            spoil(path, draw)
            yield told(path.relative_to(bench.now).as_posix(), bench.again())

    return fault


def _cut(path: Path, draw: random.Random) -> None:
    os.truncate(path, draw.randrange(max(1, path.stat().st_size)))


def _cut_end(path: Path, draw: random.Random) -> None:
    size = path.stat().st_size
    os.truncate(path, max(0, size - draw.randint(1, min(64, max(1, size)))))


def late_missing(bench: Bench, draw: random.Random) -> Iterator[str | None]:
    """A shard of a stage that ended is gone: the next stage is refused in words or makes it again."""
    following = AFTER.get(bench.name)
    if following is None:
        return
    bench.fresh()
    bench.run()
    shards = [path for path in bench.written(".safetensors", ".parquet") if "part-" in path.name]
    code, said = bench.run(name=following)
    if code:
        raise SystemExit(f"{following} ended with {code}: {said[-2000:]}")
    expected = _numbers(bench, following)
    for path in draw.sample(shards, min(len(shards), bench.times)):
        bench.fresh()
        bench.run()
        path.unlink()
        code, said = bench.run(name=following)
        wrong = bench.wrong(code, said)
        if code and not wrong:
            bench.deleted(said)
            wrong = bench.wrong(*bench.run())
            code, said = bench.run(name=following)
            wrong = wrong or (said[-300:] if code else None)
        found = [] if wrong else _numbers(bench, following)
        same = len(found) == len(expected) and all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(found, expected, strict=True))
        yield told(path.name, wrong or (None if same else f"{found} in place of {expected}"))


def _numbers(bench: Bench, stage: str) -> list[float]:
    """The numbers that a stage prints of its features."""
    place = {"decompose": "decomposition", "label": "labels"}[stage]
    summary = json.loads((bench.now / "run" / "manifest.json").read_text())["stages"][place]["summary"]
    rows = summary.get("features") or summary["labels"]
    return [float(value) for row in rows for key, value in sorted(row.items()) if key in ("feature", "share", "cosine")]


def clock(bench: Bench, draw: random.Random) -> Iterator[str | None]:
    """The second run happens at another time, among files from another time still."""
    for number in range(max(bench.times, len(SHIFTS))):
        shift, files = SHIFTS[number % len(SHIFTS)], draw.choice(SHIFTS)
        bench.killed(draw)
        for path in set(bench.now.rglob("*")) - set((bench.now / "model").rglob("*")):
            moment = max(0.0, time.time() + files * draw.random())
            os.utime(path, (moment, moment))
        yield told(f"clock {shift // DAY:+} days, files {files // DAY:+}", bench.again(partial(_shift_clock, shift)))


def _shift_clock(seconds: int) -> None:
    """Every clock of the calendar that our code reads, in this process."""
    import datetime as module

    plain, plain_ns = time.time, time.time_ns

    class Shifted(module.datetime):
        """now() and utcnow() of another time."""

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return module.datetime.fromtimestamp(time.time(), tz)

    for loaded in [one for name, one in list(sys.modules.items()) if name.split(".")[0] in ("workbench", "filelock")]:
        for key, value in list(vars(loaded).items()):
            if value is module.datetime:
                setattr(loaded, key, Shifted)
            elif value is plain:
                setattr(loaded, key, lambda: plain() + seconds)
    time.time, time.time_ns = lambda: plain() + seconds, lambda: plain_ns() + seconds * 10**9


def two(bench: Bench, draw: random.Random) -> Iterator[str | None]:
    """A second process is told who works here, and a third takes over from a dead one."""
    for _ in range(bench.times):
        bench.fresh()
        waiting = os.WEXITED | os.WNOHANG | os.WNOWAIT
        first, held, deadline = bench.start(), None, time.monotonic() + 60
        while held is None and time.monotonic() < deadline and not os.waitid(os.P_PID, first, waiting):
            held = next((path for path in bench.now.rglob("*holder.json")), None)
            time.sleep(0.005)
        os.kill(first, signal.SIGSTOP)
        code, said = bench.run(log=bench.log.with_name("second.log"))
        os.kill(first, signal.SIGKILL)
        ended = kills._ended(first)
        name = rf"process {first} on \S+ since \d{{4}}-\d\d-\d\dT"
        wrong = f"the first was not seen at work ({ended})" if held is None or ended != -signal.SIGKILL else None
        if not wrong and (code != 2 or not re.search(name, said) or "Traceback" in said):
            wrong = f"the second ended with {code}: {said[-300:]}"
        yield told("second process", wrong or bench.again())


def read_only(bench: Bench, draw: random.Random) -> Iterator[str | None]:
    """The file system may not be written to, then it may."""
    if not bench.mounted:
        return
    bench.fresh()
    subprocess.run(["mount", "-o", "remount,ro", str(bench.now)], check=True)
    try:
        code, said = bench.run()
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(bench.now)], check=True)
    wrong = bench.wrong(code, said, "read-only") if code else "exit code 0 though nothing can be written"
    yield told("read-only", wrong or bench.again())


def memory(bench: Bench, draw: random.Random) -> Iterator[str | None]:
    """Passes with too many rows fail; the stage goes on with smaller batches."""
    for limit in LIMITS[: max(2, bench.times)]:
        bench.fresh()
        failed = bench.base.parent / "failed"
        failed.unlink(missing_ok=True)
        code, said = bench.run(partial(_little_memory, limit, failed))
        wrong = bench.wrong(code, said) or (f"refused: {said[-300:]}" if code else None)
        if not wrong and failed.exists() and "Out of memory with" not in said:
            wrong = "no warning"
        if not wrong and failed.exists():  # a stage without a large pass had nothing to survive
            names = set(kills.hashes(bench.now)) ^ set(bench.expected)
            yield told(f"{limit} rows", f"other files: {sorted(names)[:5]}" if names else None)
        elif wrong:
            yield told(f"{limit} rows", wrong)


def _little_memory(limit: int, failed: Path) -> None:
    import torch
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    plain = LlamaDecoderLayer.forward

    def forward(self: Any, hidden_states: Any, *args: Any, **options: Any) -> Any:
        if len(hidden_states) > limit:
            failed.touch()
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return plain(self, hidden_states, *args, **options)

    LlamaDecoderLayer.forward = forward


FAULTS: dict[str, Fault] = {
    "disk full": disk_full,
    "torn": _spoilt(_cut),
    "last row": _spoilt(_cut_end, ".parquet", ".jsonl"),
    "missing": _spoilt(lambda path, draw: path.unlink()),
    "late missing": late_missing,
    "clock": clock,
    "two": two,
    "read-only": read_only,
    "memory": memory,
}


def try_faults(names: list[str], only: str, most: int, times: int, seed: int) -> dict[str, Any]:
    """{fault: {stage: [survived, total]}, and with an underscore what else there is to say}."""
    sys.path.insert(0, str(ROOT))
    os.environ |= {"OMP_NUM_THREADS": "1", "WORKBENCH_PROGRESS": "0"}
    kills._import_everything()
    found: dict[str, Any] = {name: {} for name in names}
    refused: dict[str, int] = dict.fromkeys(names, 0)
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as place:
        base, now = Path(place) / "base", Path(place) / "now"
        base.mkdir()
        now.mkdir()
        with disk(now) as mounted:
            if os.fork() == 0:  # what computes does so in a child: a process that has computed may not be forked safely
                kills.prepare(base)
                os._exit(0)
            kills._reap()
            for stage in kills.stages():
                bench = Bench(stage, base, now, most, times, mounted)
                for name in names if only == stage or (only in stage and only not in kills.stages()) else ():
                    bench.n_refused = 0
                    results = list(FAULTS[name](bench, random.Random(f"{stage} {name} {seed}")))
                    failures += [f"{name}, {stage}: {one}" for one in results if one]
                    if results:
                        found[name][stage] = [results.count(None), len(results)]
                        refused[name] += bench.n_refused
                        print(name, stage, found[name][stage], *filter(None, results), file=sys.stderr, flush=True)
                bench.fresh()
                bench.run()
                shutil.rmtree(base)
                shutil.copytree(now, base)
    return {**found, "_seed": seed, "_tmpfs": mounted, "_refused_in_words": refused, "_not_survived": failures}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", default=",".join(FAULTS), help="names, between commas")
    parser.add_argument("--only", default="", help="a stage, or those whose name holds this text")
    parser.add_argument("--most", type=int, default=10_000, help="writes of a stage that find a full disk, at most")
    parser.add_argument("--times", type=int, default=5, help="draws of every other fault")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    names = [name for name in options.faults.split(",") if name]
    if unknown := set(names) - set(FAULTS):
        parser.error(f"no fault is called {', '.join(sorted(unknown))}: {', '.join(FAULTS)}")
    found = try_faults(names, options.only, options.most, options.times, options.seed)
    print(json.dumps(found, indent=1))
    return int(bool(found["_not_survived"]))


if __name__ == "__main__":
    raise SystemExit(main())
