"""Every long stage killed with SIGKILL at random moments, started again, and its files compared with an uninterrupted run's.

    python scripts/kills.py                         # 100 kills of every stage on a tiny seeded model; hours
    python scripts/kills.py --kills 10 --only screen

A stage is a command of the workbench, run from a folder that holds what it needs. The moment of a kill is drawn evenly from the
time that a whole run takes; a kill that came after the end is drawn again, earlier. Then the same command is given once more, and
every file has to be byte for byte that of a run that nobody killed; JSON without the fields that say when and how long, and only
after two uninterrupted runs have been seen to agree. All runs happen at one path, so that paths in files are the same.

Processes are forked from one that has imported everything: a kill costs the work of the stage, not ten seconds of imports.
Prints {stage: {kills, identical, too_late, seconds, n_files, differing}} as JSON; exit code 1 when a file differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CHANGING = {"created", "finished", "seconds", "date", "updated", "started", "commands", "waiting_seconds"}
"""Names of JSON fields that say when something was made, how long that took, and which commands were given in turn."""
LEFT_OUT, TIMINGS = (".lock", ".part", ".log"), ("holder.json", "loading.json")
SMALL = ("--judge", "none", "--max-new-tokens", "6", "--batch-size", "16")
HOOK = "blocks.1.hook_resid_post"


def stages() -> dict[str, tuple[str, ...]]:
    """{stage: its command, from the folder that `prepare` makes}; a stage's inputs are what those before it left."""
    sae = ("--sae", "sae")
    run = ("traits/evil", "--model", "model", *sae, "--hook", HOOK, "--out", "run", *SMALL, "--n-features", "4", "-q")
    return {
        **{name: (name, *run) for name in ("extract", "decompose", "label", "report")},
        "features index": ("features", "index", "--model", "model", *sae, "--texts", "texts.txt", "--chats", "0",
                           "--out", "index", "--tokens", "60000", "-q"),
        "sae train": ("sae", "train", "sae.yaml", "--out", "training", "-q"),
        "screen": ("screen", "chats.jsonl", "--model", "model", "--vectors", "run", "--out", "screened", "-q"),
        "axis roles": ("axis", "roles", "ghost", "poet", "reviewer", "supervisor", "--model", "model", "--out", "roles", "--hook",
                       HOOK, "--judge", "none", "--questions", "12", "--prompts", "2", "--max-new-tokens", "6", "--min-count",
                       "2", "-q"),
    }  # fmt: skip


def prepare(folder: Path) -> None:
    """The model, an SAE, a trait, texts, chats and a recipe."""
    from tests.tiny_job import write_tiny_job

    write_tiny_job(folder)
    words = [f"Line {n}: some words about the sea, its ships and its weather, and number {n * n}." for n in range(3000)]
    (folder / "texts.txt").write_text("\n\n".join(words))
    chats = [{"prompt": f"What of number {n}?", "response": words[n]} for n in range(400)]
    (folder / "chats.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    training = {"d_sae": 64, "k": 4, "batch_size": 128, "n_steps": 400, "log_every": 20, "checkpoint_every": 20,
                "precision": "float32"}  # fmt: skip
    data = {"characters": 100_000, "per_source": 100_000, "chats": 0, "traits": [], "corpus": "texts.txt"}
    recipe = {"model": "model", "hook": HOOK, "capture_dtype": "float32", "training": training, "data": data}
    (folder / "sae.yaml").write_text(json.dumps(recipe))


def kill_stages(n_kills: int, seed: int = 0, only: str = "") -> dict[str, Any]:
    """The counts of the stage `only`, or of every stage whose name holds that text."""
    sys.path.insert(0, str(ROOT))
    os.environ |= {"OMP_NUM_THREADS": "1", "WORKBENCH_PROGRESS": "0"}
    _import_everything()
    found = {}
    with tempfile.TemporaryDirectory() as place:
        base, now = Path(place) / "base", Path(place) / "now"
        base.mkdir()
        if os.fork() == 0:  # what computes does so in a child: a process that has computed may not be forked safely
            prepare(base)
            os._exit(0)
        _reap()
        for name, command in stages().items():
            if only == name or (only in name and only not in stages()):
                found[name] = _one_stage(command, base, now, n_kills, random.Random(f"{name} {seed}"))
                print(name, {k: v for k, v in found[name].items() if k != "differing"}, file=sys.stderr, flush=True)
            _whole(command, base, now)
            _fresh(now, base)
    return found


def _one_stage(command: tuple[str, ...], base: Path, now: Path, n_kills: int, draw: random.Random) -> dict[str, Any]:
    seconds = _whole(command, base, now)
    expected = hashes(now)
    again = _whole(command, base, now)
    if (other := hashes(now)) != expected:
        raise SystemExit(f"two uninterrupted runs of {' '.join(command)} differ: {_difference(other, expected)}")
    length, too_late, differing = min(seconds, again), 0, []
    for _ in range(n_kills):
        share = draw.random()
        while not _killed(command, base, now, share * length):
            too_late, share = too_late + 1, share * 0.8
        if (code := _ended(_started(command, now))) != 0:
            differing.append([f"the second run ended with {code}"])
        elif (other := hashes(now)) != expected:
            differing.append(_difference(other, expected))
    return {"kills": n_kills, "identical": n_kills - len(differing), "too_late": too_late, "seconds": round(length, 2),
            "n_files": len(expected), "differing": differing[:5]}  # fmt: skip


def _whole(command: tuple[str, ...], base: Path, now: Path) -> float:
    """Run a command to its end in a copy of `base`; its seconds."""
    _fresh(base, now)
    began = time.perf_counter()
    if code := _ended(_started(command, now)):
        raise SystemExit(f"{' '.join(command)} ended with {code}: {(now / 'output.log').read_text()[-2000:]}")
    return time.perf_counter() - began


def _killed(command: tuple[str, ...], base: Path, now: Path, after: float) -> bool:
    """Start it afresh, kill it after so many seconds; whether it was alive then."""
    _fresh(base, now)
    child = _started(command, now)
    time.sleep(after)
    os.killpg(child, signal.SIGKILL)
    return _ended(child) == -signal.SIGKILL


def _fresh(base: Path, now: Path) -> None:
    shutil.rmtree(now, ignore_errors=True)
    shutil.copytree(base, now)


def _started(command: tuple[str, ...], folder: Path) -> int:
    """The process that runs the command in `folder`, a group of its own."""
    if child := os.fork():
        os.setpgid(child, child)
        return child
    code = 70
    try:
        os.setpgid(0, 0)
        os.chdir(folder)
        output = os.open("output.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        from workbench.cli.run import run

        code = run(list(command))
    except BaseException as error:
        print(repr(error), flush=True)
    finally:
        os._exit(code)


def _ended(child: int) -> int:
    """Its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _reap() -> None:
    if code := os.waitstatus_to_exitcode(os.wait()[1]):
        raise SystemExit(f"the preparation ended with {code}")


def _import_everything() -> None:
    """Modules only: no model is loaded and nothing computed before the forks."""
    import importlib
    import pkgutil

    import sae_lens  # noqa: F401
    import torch
    import transformer_lens  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    import workbench

    torch.set_num_threads(1)
    for module in pkgutil.walk_packages(workbench.__path__, "workbench."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def hashes(folder: Path) -> dict[str, str]:
    """{file: sha256} of every file but locks, logs and what a kill left half-written under another name."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.suffix not in LEFT_OUT]
    files = [file for file in files if not file.name.endswith(TIMINGS)]
    return {file.relative_to(folder).as_posix(): hashlib.sha256(_content(file)).hexdigest() for file in files}


def _content(file: Path) -> bytes:
    """The bytes of a file; of JSON and JSONL the values without the fields in CHANGING, of pages and YAML without times."""
    data = file.read_bytes()
    if file.suffix == ".json":
        return json.dumps(_without(json.loads(data))).encode()
    if file.suffix == ".jsonl":
        return b"\n".join(json.dumps(_without(json.loads(line))).encode() for line in data.splitlines() if line.strip())
    if file.suffix in (".html", ".yaml"):
        return re.sub(rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\+00:00|Z| UTC)?", b"(when)", data)
    return data


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without(item) for key, item in value.items() if key not in CHANGING}
    return [_without(item) for item in value] if isinstance(value, list) else value


def _difference(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    return sorted({name for name in {*found, *expected} if found.get(name) != expected.get(name)})[:6]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="a stage, or those whose name holds this text")
    options = parser.parse_args()
    found = kill_stages(options.kills, options.seed, options.only)
    print(json.dumps(found, indent=1))
    return int(any(one["identical"] != one["kills"] for one in found.values()))


if __name__ == "__main__":
    raise SystemExit(main())
