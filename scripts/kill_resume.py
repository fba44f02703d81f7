"""Kill a run again and again, let it finish, and compare its files with those of a run that nobody interrupted.

    python scripts/kill_resume.py --kills 10

The run is `workbench extract evil` on a tiny seeded model, killed with SIGKILL at moments drawn from the whole length
of the work. Only a kill that hit a living run counts: one that came too late is tried again, earlier. Every file of
rollouts and activations, the rows and the directions must come out byte for byte the same; persona_vector.json and
manifest.json, which say when and where they were made, must be the same in all else. They hold the commit of the code too:
commit nothing while this runs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ARGUMENTS = ("--judge", "none", "--max-new-tokens", "24", "--batch-size", "4", "--hook", "blocks.1.hook_resid_post")
# The fields of a run's JSON files that tell two identical runs apart: when, how long, in which folder.
CHANGING = {
    "persona_vector.json": (("provenance", "created"),),
    "manifest.json": (("stages", "*", "finished"), ("stages", "*", "seconds"), ("stages", "*", "summary", "folder")),
}


def main() -> int:
    """Print {kills, identical, files} as JSON; exit code 1 when a file differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = kill_and_compare(Path(folder), options.kills, options.seed)
    print(json.dumps(found, indent=2))
    return 0 if found["identical"] == found["kills"] else 1


def kill_and_compare(folder: Path, n_kills: int, seed: int = 0) -> dict[str, Any]:
    """{kills, identical, returncodes, too_late, parts_at_kill, n_files, differing}: each kill is a run of its own, killed
    once and resumed. too_late: how often a run had ended before the signal came, and was begun again."""
    model = save_tiny_model(folder / "model")
    started = time.perf_counter()
    finish(model, folder / "whole")
    seconds = time.perf_counter() - started
    expected = hashes(folder / "whole")
    n_parts = len(list((folder / "whole").glob("rollouts/*.parquet")))
    draw, differing, kills = random.Random(seed), [], []
    for number in range(n_kills):
        run = folder / f"killed-{number}"
        # Spread over the run: after so many parts, plus a moment inside the next one.
        kills.append(kill_living(model, run, round((number + 0.5) / n_kills * n_parts), draw.uniform(0, 0.1)))
        finish(model, run)
        found = hashes(run)
        if found != expected:
            differing.append(sorted(set(found.items()) ^ set(expected.items()))[:4])
    codes, parts, too_late = ([kill[name] for kill in kills] for name in ("returncode", "parts", "too_late"))
    return {"kills": n_kills, "identical": n_kills - len(differing), "returncodes": codes, "too_late": sum(too_late),
            "parts_at_kill": parts, "n_parts": n_parts,
            "n_files": len(expected), "seconds_of_a_whole_run": round(seconds, 1), "differing": differing}  # fmt: skip


def save_tiny_model(folder: Path) -> Path:
    """A tiny seeded Llama as a model folder."""
    sys.path.insert(0, str(ROOT))
    from tests.tiny import tiny_model

    model = tiny_model("llama", d_model=64, n_blocks=4)
    model.hf.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


def command(model: Path, run: Path) -> list[str]:
    """The command line of the run."""
    return [sys.executable, "-m", "workbench", "extract", "evil", "--model", str(model), "--out", str(run), *ARGUMENTS, "-q"]


def environment() -> dict[str, str]:
    """One thread, this checkout."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def finish(model: Path, run: Path) -> None:
    """Run to the end."""
    subprocess.run(command(model, run), env=environment(), check=True, capture_output=True)


def kill_living(model: Path, run: Path, n_parts: int, moment: float) -> dict[str, int]:
    """Kill a run that is under way, at or before its `n_parts`-th part: {parts, returncode, too_late}, see `kill_after`."""
    for too_late in range(n_parts + 1):
        shutil.rmtree(run, ignore_errors=True)
        killed = kill_after(model, run, n_parts - too_late, moment / (1 + too_late))
        if killed["returncode"] == -signal.SIGKILL:
            return {**killed, "too_late": too_late}
        if killed["returncode"]:
            raise RuntimeError(f"The run ended by itself with status {killed['returncode']}: there is nothing to resume.")
    raise RuntimeError(f"The run ended before every one of {n_parts + 1} kills: make it longer.")


def kill_after(model: Path, run: Path, n_parts: int, moment: float) -> dict[str, int]:
    """Start the run, kill it some moment after its `n_parts`-th part: {parts that stood then, returncode}.

    The return code is -9 if the signal ended the run, and the run's own if it was over before.
    """
    process = subprocess.Popen(command(model, run), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list(run.glob("rollouts/*.parquet"))) < n_parts:
        time.sleep(0.002)
    time.sleep(moment)
    process.kill()
    return {"returncode": process.wait(), "parts": len(list(run.glob("rollouts/*.parquet")))}


def hashes(run: Path) -> dict[str, str]:
    """{file: sha256} of every file but locks; of those in CHANGING without the fields named there."""
    files = [file for file in sorted(run.rglob("*")) if file.is_file() and file.suffix != ".lock"]
    return {file.relative_to(run).as_posix(): hashlib.sha256(content(file)).hexdigest() for file in files}


def content(file: Path) -> bytes:
    """The bytes of a file; of one in CHANGING its JSON without the fields named there, in the order that they stand in."""
    if file.name not in CHANGING:
        return file.read_bytes()
    document = json.loads(file.read_text(encoding="utf-8"))
    for path in CHANGING[file.name]:
        remove(document, path)
    return json.dumps(document).encode()


def remove(value: Any, path: tuple[str, ...]) -> None:
    """Take the field at `path` ("*" = every key) out of nested objects; a field that is not there is an error."""
    first, *rest = path
    for name in list(value) if first == "*" else [first]:
        if rest:
            remove(value[name], tuple(rest))
        else:
            del value[name]


if __name__ == "__main__":
    raise SystemExit(main())
