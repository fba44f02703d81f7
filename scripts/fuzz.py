"""Damaged and hostile files for every reader of the package: only clear refusals, in bounded time and memory, no code run.

    python scripts/fuzz.py                             # 10,000 inputs per reader
    python scripts/fuzz.py --inputs 200 --only trait   # readers whose name holds "trait"; quick

Prints {reader: {inputs, refused, read, crashes, slow, executed, examples}} as JSON; exit code 1 for a crash, a slow input or code
that ran. Sound files and changes: tests/hostile. Every reader runs in a process of its own that may take 4 GiB more than it has
and 10 seconds for one input; hooks of the interpreter (PEP 578) count programs that are started and files that are written
outside of the reader's own folder.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MEMORY, SECONDS = 4 << 30, 10
STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "os.fork", "socket.connect", "pty.spawn")


def fuzz(name: str, n_inputs: int, seed: int = 0) -> dict[str, Any]:
    """The counts of one reader, in this process."""
    sys.path.insert(0, str(ROOT))
    from tests.hostile.damage import damaged, payloads
    from tests.hostile.readers import READERS, outcome

    reader, draw = READERS[name], random.Random(f"{name} {seed}")
    found: dict[str, Any] = {"inputs": 0, "refused": 0, "read": 0, "crashes": 0, "slow": 0, "executed": 0, "examples": []}
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        folder = Path(place) / "files"
        folder.mkdir()
        os.chdir(folder)
        files = reader.make(folder)
        sound = {file: file.read_bytes() for file in files}
        if (first := outcome(reader, folder)) != "read":
            raise SystemExit(f"{name}: the sound file gave {first}")
        _limit()
        watched = _Watched()
        attacks = list(payloads().values())
        started = time.perf_counter()
        for number in range(n_inputs):
            spoilt = draw.choice(files)
            whole = attacks[number] if number < len(attacks) else damaged(sound[spoilt], draw)
            spoilt.write_bytes(whole)
            told = _timed(reader, folder, outcome)
            ran = watched.ran() or any(path.name == "executed" for path in Path(place).rglob("executed"))
            kind = told if told in ("refused", "read", "slow") else "crashes"
            found["inputs"] += 1
            found[kind] += 1
            found["executed"] += bool(ran)
            if (kind in ("crashes", "slow") or ran) and len(found["examples"]) < 12:
                found["examples"].append({"number": number, "file": spoilt.name, "told": told, "ran": ran})
            spoilt.write_bytes(sound[spoilt])
        found["seconds"] = round(time.perf_counter() - started, 1)
    return found


class _Watched:
    """Programs started and connections opened since the last look."""

    def __init__(self) -> None:
        self.events: list[str] = []
        sys.addaudithook(lambda event, arguments: self.events.append(f"{event} {arguments}"[:200]) if event in STARTS else None)

    def ran(self) -> str:
        events, self.events[:] = ", ".join(self.events), []
        return events


class _Slow(BaseException):
    pass


def _timed(reader: Any, folder: Path, outcome: Any) -> str:
    def late(*_: Any) -> None:
        raise _Slow

    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        return outcome(reader, folder)
    except _Slow:
        return "slow"
    except BaseException as error:  # SystemExit, and what Rust's panics are
        return f"{type(error).__name__}: {error} {traceback.format_exc(limit=-1)}"[:300]
    finally:
        signal.alarm(0)


def _limit() -> None:
    memory = Path("/proc/self/statm")
    used = int(memory.read_text().split()[0]) * resource.getpagesize() if memory.exists() else 0
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))


def in_process(name: str, n_inputs: int, seed: int = 0) -> dict[str, Any]:
    """`fuzz` in a process of its own; one that dies is a crash."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        process = multiprocessing.get_context("spawn").Process(target=_write, args=(name, n_inputs, seed, out))
        process.start()
        process.join()
        if out.is_file():
            return json.loads(out.read_text())
    told = f"the process ended with {process.exitcode}"
    return {"inputs": n_inputs, "crashes": 1, "executed": 0, "slow": 0, "examples": [told]}


def _write(name: str, n_inputs: int, seed: int, out: Path) -> None:
    out.write_text(json.dumps(fuzz(name, n_inputs, seed)))


def main() -> int:
    sys.path.insert(0, str(ROOT))
    from tests.hostile.readers import READERS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="a reader, or those whose name holds this text")
    options = parser.parse_args()
    names = [options.only] if options.only in READERS else [name for name in READERS if options.only in name]
    if not names:
        parser.error(f"no reader's name holds {options.only!r}; they are {', '.join(READERS)}")
    found = {}
    for name in names:
        found[name] = in_process(name, options.inputs, options.seed)
        print(name, {key: value for key, value in found[name].items() if key != "examples"}, file=sys.stderr, flush=True)
    print(json.dumps(found, indent=1))
    return int(any(one["crashes"] or one["slow"] or one["executed"] for one in found.values()))


if __name__ == "__main__":
    raise SystemExit(main())
