"""Does the plan of a large model hold? Memory and time, planned and measured, at 1, 3 and 7 billion parameters.

    python scripts/scale_check.py            # writes docs/evidence/scale.json, as `make evidence TOPIC=scale` does
    python scripts/scale_check.py 1B 3B      # only these shapes; the others keep what the file says of them

The models have random weights in bfloat16, written in place. Response means at every block are captured in a process
of its own, under a memory budget that leaves room for part of the rows only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from workbench.base.provenance import made
from workbench.base.sizes import parse_size, size_text
from workbench.base.store import read_json, sha256_file, write_json

ROOT = Path(__file__).resolve().parents[1]
EVIDENCE = ROOT / "docs" / "evidence" / "scale.json"
COMMAND = "make evidence TOPIC=scale"
MEASURED = ("scripts/scale_check.py", *(f"workbench/models/{name}.py" for name in ("planning", "probe", "memory", "synthetic")))
"""The code whose promise is measured."""
TOLERANCE = 0.2
DTYPE = "bfloat16"
N_ROWS, WIDTH, PROMPT = 8, 96, 32
SHAPES: dict[str, dict[str, Any]] = {
    "1B": {"num_hidden_layers": 16, "hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 32,
           "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": True},
    "3B": {"num_hidden_layers": 36, "hidden_size": 2048, "intermediate_size": 11008, "num_attention_heads": 16,
           "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True},
    "7B": {"num_hidden_layers": 28, "hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28,
           "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False},
}  # fmt: skip
BUDGETS = {"1B": "2.34GiB", "3B": "5.79GiB", "7B": "14.25GiB"}
"""A little more than the weights: half of the rows fit at once."""


def config_of(name: str) -> Any:
    """The transformers configuration of a shape."""
    from transformers import Qwen2Config

    return Qwen2Config(**SHAPES[name])


def model_file() -> Path:
    """The default model's file, whose tokenizer the shapes share."""
    from workbench.models.assets import asset_path, model_names
    from workbench.models.loading import DEFAULT_MODEL

    return next(asset_path(model_names()[DEFAULT_MODEL]).rglob("*.gguf"))


def tokenizer() -> Any:
    """The default model's tokenizer."""
    from transformers import AutoTokenizer

    from workbench.models.loading import dequantised

    return AutoTokenizer.from_pretrained(dequantised(model_file())[0], local_files_only=True)


def planned(name: str, budget: int) -> dict[str, Any]:
    """Memory and seconds of the capture, from a miniature of the shape."""
    from workbench.models.planning import plan_capture, plan_neutral, resident_bytes
    from workbench.models.probe import Probe

    text, libraries = tokenizer(), resident_bytes()
    started = time.perf_counter()
    probe = Probe.of(config_of(name), text, dtype=DTYPE)
    options: dict[str, Any] = {"budget": budget, "libraries": libraries}
    plans = [plan_capture(probe, [WIDTH] * N_ROWS, **options), plan_neutral(probe, **options)]
    seconds = time.perf_counter() - started
    busy = replace(probe, clock=time.process_time, known={})
    alone = [plan_capture(busy, [WIDTH] * N_ROWS, **options), plan_neutral(busy, **options)]
    memory = max((plan.memory for plan in plans), key=lambda memory: memory.peak)
    return {
        "n_parameters": probe.shape.n_parameters,
        "n_passes": sum(plan.n_passes for plan in plans),
        "n_tokens": sum(plan.n_tokens for plan in plans),
        "memory": {**asdict(memory), "peak": memory.peak},
        "seconds": sum(plan.seconds for plan in plans),
        "processor_seconds": sum(plan.seconds for plan in alone),
        "planning_seconds": seconds,
    }


def measured(name: str, budget: int) -> dict[str, Any]:
    """The same, done: run in a process of its own."""
    from workbench.models.capture import capture
    from workbench.models.hookpoints import HookPoint
    from workbench.models.model import Model
    from workbench.models.planning import peak_resident_bytes
    from workbench.models.prompts import ChatTokens
    from workbench.models.synthetic import random_model

    model = Model(random_model(config_of(name), dtype=DTYPE), tokenizer(), name=name, weights_hash="random")
    model.max_memory = budget
    hooks = [HookPoint(block) for block in range(model.n_blocks)]
    ids = [tuple(1 + (37 * row + 11 * i) % 4000 for i in range(WIDTH)) for row in range(N_ROWS)]
    rows = [ChatTokens(row, {"response": ((PROMPT, WIDTH),)}) for row in ids]
    started, busy = time.perf_counter(), time.process_time()
    batches = list(capture(model, rows, hooks))
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    finite = all(bool(one.means.isfinite().all()) for _, pooled in batches for one in pooled)
    return {
        "n_capture_passes": len(batches),
        "peak": peak_resident_bytes(),
        "seconds": seconds,
        "processor_seconds": busy,
        "finite": finite,
    }


def in_a_process(step: str, name: str, budget: int) -> dict[str, Any]:
    """What `planned` or `measured` says, from a new process."""
    command = [sys.executable, __file__, "--step", step, "--budget", str(budget), name]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def check(name: str) -> dict[str, Any]:
    """Planned, measured and measured / planned of one shape."""
    budget = parse_size(BUDGETS[name])
    plan, done = (in_a_process(step, name, budget) for step in ("planned", "measured"))
    ratios = {
        "memory": done["peak"] / plan["memory"]["peak"],
        "seconds": done["seconds"] / plan["seconds"],
        "processor_seconds": done["processor_seconds"] / plan["processor_seconds"],
    }
    print(f"{name}: peak {size_text(done['peak'])} of {size_text(plan['memory']['peak'])} planned; "
          f"{done['seconds']:.0f} s of {plan['seconds']:.0f} s", file=sys.stderr)  # fmt: skip
    return {"shape": SHAPES[name], "max_memory": budget, "planned": plan, "measured": done, "ratio": ratios}


def inputs() -> dict[str, str]:
    """{file: sha256} of the code that plans and builds the models, and of the tokenizer's file."""
    return {**{name: sha256_file(ROOT / name) for name in MEASURED}, "tokenizer": sha256_file(model_file())}


def written(names: list[str]) -> dict[str, Any]:
    """Check the shapes one by one; the evidence file is whole after each."""
    started, found = time.perf_counter(), {}
    for name in names:
        known = read_json(EVIDENCE)["shapes"] if EVIDENCE.exists() else {}
        shapes = {**known, name: check(name)}
        header = made(COMMAND, 0, time.perf_counter() - started, inputs())
        found = {"_made": header, "dtype": DTYPE, "rows": [N_ROWS, WIDTH], "shapes": shapes}
        write_json(EVIDENCE, found)
    return found


def evidence() -> dict[str, Any]:
    """What docs/evidence/scale.json holds."""
    return written(list(SHAPES))


def evidence_quick() -> bool:
    """Whether the smallest shape's peak is within a fifth of its plan."""
    return abs(check("1B")["ratio"]["memory"] - 1) <= TOLERANCE


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "shapes", nargs="*", default=list(SHAPES), metavar="SHAPE", help="1B, 3B or 7B; default: all"
    )
    parser.add_argument(
        "--step", choices=("planned", "measured"), help="one half, printed (used by the script itself)"
    )
    parser.add_argument("--budget", type=int)
    chosen = parser.parse_args()
    if chosen.step:
        print(
            json.dumps(
                {"planned": planned, "measured": measured}[chosen.step](chosen.shapes[0], chosen.budget)
            )
        )
        return 0
    written(chosen.shapes)
    print(EVIDENCE)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
