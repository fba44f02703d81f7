"""What docs/saes.md quotes: the SAEs on the shelf and their cards, the speed of training, kills, memory, importers.

    python scripts/evidence.py sae_training    # speed, kills, memory, importers: ten minutes, writes sae_training.json
    python scripts/evidence.py saes            # the cards on the shelf, and that file: writes docs/evidence/saes.json
    python scripts/saes_evidence.py --kills 10 # only this part, printed: a training run killed at ten random steps
    python scripts/saes_evidence.py --memory   # only this part: peak memory of reading stores of one and of ten sizes
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.base.provenance import made
from workbench.base.store import read_json, sha256_file

ROOT = Path(__file__).resolve().parents[1]
TRAINING = ROOT / "docs" / "evidence" / "sae_training.json"
SEED = 0
HOOK, D_MODEL, SHARD = "blocks.0.hook_resid_post", 64, 4_096
STEPS, KILLS = 400, 10
SAES = ("smollm2-135m-instruct",)
WEB, TOLERANCE = ("owt", "wikipedia"), 0.03


def evidence() -> dict[str, Any]:
    """What docs/evidence/saes.json holds: the cards, and what sae_training.json says."""
    started = time.perf_counter()
    saes, inputs = shelf()
    inputs["sae_training"] = sha256_file(TRAINING)
    header = made("make evidence TOPIC=saes", SEED, time.perf_counter() - started, inputs)
    return {"_made": header, "saes": saes, **{name: value for name, value in read_json(TRAINING).items() if name != "_made"}}


def training() -> dict[str, Any]:
    """What docs/evidence/sae_training.json holds."""
    from importers_check import check

    started = time.perf_counter()
    speed = benchmark()
    kills = killed(KILLS, SEED)
    return {
        "_made": made("make evidence TOPIC=sae_training", SEED, time.perf_counter() - started, {}),
        "train_throughput_vs_saelens": speed["train_vs_saelens"],
        "k_saes_cost_ratio": speed["k_saes_cost_ratio"],
        "data_loading_share": speed["data_loading_share"],
        "speed": speed,
        "resume_identical": f"{kills['identical']} of {kills['kills']}",
        "kills": kills,
        "memory": memory(),
        "importers": {name: one["max_abs_difference"] for name, one in check().items()},
    }


def evidence_quick() -> bool:
    """Whether the default SAE explains what its card says."""
    return explains_as_stated()


def training_quick() -> bool:
    """Whether two killed runs end as an uninterrupted one."""
    found = killed(2, SEED + 1)
    return found["identical"] == found["kills"]


def explains_as_stated(n_tokens: int = 2_000) -> bool:
    """Whether the default SAE's variance explained on web texts, measured here, is what its card states (to `TOLERANCE`)."""
    from workbench.models.loading import load_model
    from workbench.saes.evaluation.fitness import evaluate
    from workbench.saes.evaluation.texts import text_sets
    from workbench.saes.registry import load_sae

    sae = load_sae()
    model = load_model(sae.model_name, dtype="float32")
    sets = text_sets(model, n_tokens=n_tokens, n_chats=0)
    for name in WEB:
        stated = stated_variance(sae, name)
        if stated is None or abs(evaluate(sae, model, sets[name]).variance_explained - stated) > TOLERANCE:
            return False
    return True


def stated_variance(sae: Any, name: str) -> float | None:
    """What the card states for these weights on that text set, else for all of them together."""
    from workbench.saes.evaluation.gate import card_figure, evaluated_here, figure, of_these_weights

    evaluation = sae.card.get("evaluation")
    records = [evaluation] if evaluated_here(evaluation, sae) else []
    for record in records + ([sae.card] if of_these_weights(sae.card, sae) else []):
        stated = figure((record.get("held_out") or {}).get(name), "variance_explained")
        if stated is not None:
            return stated
    return card_figure(sae, "variance_explained")


def shelf() -> tuple[list[dict[str, Any]], dict[str, str]]:
    """(one row per SAE of the checkout's shelf, {weights file: sha256})."""
    rows, inputs = [], {}
    for config in sorted((ROOT / "saes").glob("**/cfg.json")):
        folder = config.parent
        card = read_json(folder / "card.json") if (folder / "card.json").exists() else {}
        weights = folder / "sae_weights.safetensors"
        inputs[str(weights.relative_to(ROOT))] = sha256_file(weights)
        rows.append(row(str(folder.relative_to(ROOT / "saes")), read_json(config), card, sha256_file(weights)))
    return rows, inputs


@dataclass(frozen=True)
class Told:
    """An SAE on the shelf as the fitness gate sees it."""

    card: dict[str, Any]
    weights_hash: str
    hook: str


def row(name: str, cfg: dict[str, Any], card: dict[str, Any], weights_hash: str) -> dict[str, Any]:
    """The figures of one SAE: those of its evaluation, else of its training; None where these weights were not measured."""
    from workbench.saes.evaluation.gate import card_figure, evaluated_here, of_these_weights

    told = Told(card, weights_hash, str((cfg.get("metadata") or {}).get("hook_name")))
    keys = ("variance_explained", "l0", "ce_recovered", "dead_share", "persona_probe_gap", "seed_matched_top30",
            "seed_matched_top30_null", "persona_probe_auc_raw", "persona_probe_auc", "expression_32")  # fmt: skip
    own = dict(card) if of_these_weights(card, told) else {}
    evaluation = card.get("evaluation")
    measured = evaluation if evaluated_here(evaluation, told) else {}
    excess, stability = measured.get("excess") or {}, measured.get("stability")
    return {
        "id": name,
        "d_sae": cfg["d_sae"],
        "n_train_tokens": own.get("n_train_tokens") or _trained(own),
        **{key: card_figure(told, key) for key in keys},
        "excess_over_soft_frozen": excess.get("over_soft_frozen"),
        "excess": {name: {"kind": one["kind"], "claims": one["claims"]} for name, one in (excess.get("over") or {}).items()},
        "seeds": {
            name: {"top30": one["seed_matched_top30"], "all": one["seed_matched"]} for name, one in (stability or {}).items()
        },
    }


def _trained(card: dict[str, Any]) -> int | None:
    training = (card.get("recipe") or {}).get("training") or {}
    steps = training.get("n_steps", 0) + training.get("revive_steps", 0)
    return steps * training["batch_size"] if steps else None


def benchmark() -> dict[str, Any]:
    """The JSON object that benchmarks/sae_training.py prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "benchmarks/sae_training.py"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, env=environment
    )
    return json.loads(done.stdout)


def planted_store(folder: Path, n_shards: int) -> None:
    """A store of seeded activations."""
    import torch

    from workbench.saes.capturing import store_given

    seeds = torch.Generator().manual_seed(0)
    directions = torch.randn(2 * D_MODEL, D_MODEL, generator=seeds)

    def shard() -> Any:
        return ((torch.rand(SHARD, 2 * D_MODEL, generator=seeds) < 0.05).float() @ directions).bfloat16()

    store_given(folder, (shard() for _ in range(n_shards)), hook=HOOK, model_name="planted")


def child(store: Path, folder: Path) -> None:
    """One training run of two SAEs; says every step on standard output."""
    import torch

    from workbench.saes.activations import ActivationStore
    from workbench.saes.training import TrainingConfig, train_together

    torch.set_num_threads(1)
    config = TrainingConfig(d_sae=256, k=8, batch_size=256, n_steps=STEPS, revive_steps=20, checkpoint_every=25, log_every=10)
    configs = {"a": config, "b": TrainingConfig(**{**vars(config), "seed": 1, "architecture": "topk"})}

    def told(step: int) -> bool:
        print(step, flush=True)
        return False

    train_together(ActivationStore.open(store), configs, {name: folder / name for name in configs}, stop_after=told)


def killed(n_kills: int, seed: int) -> dict[str, Any]:
    """{kills, identical, steps}: runs killed with SIGKILL at random steps, finished, compared byte for byte with a whole one."""
    draw, steps, identical = random.Random(seed), [], 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        planted_store(folder / "store", 6)
        run_child(folder / "store", folder / "whole")
        expected = hashes(folder / "whole")
        for number in range(n_kills):
            steps.append(draw.randint(1, STEPS - 1))
            run_child(folder / "store", folder / f"killed-{number}", kill_at=steps[-1])
            run_child(folder / "store", folder / f"killed-{number}")
            identical += hashes(folder / f"killed-{number}") == expected
    return {"kills": n_kills, "identical": identical, "steps": steps, "files": sorted(expected)}


def run_child(store: Path, folder: Path, kill_at: int | None = None) -> None:
    """Train in a process of its own; with `kill_at`, kill it at that step."""
    command = [sys.executable, __file__, "--child", str(store), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if kill_at is not None and int(line) >= kill_at:
                process.send_signal(signal.SIGKILL)
                break
        code = process.wait()
    expected = 0 if kill_at is None else -signal.SIGKILL
    if code != expected:
        raise SystemExit(f"a training run ended with {code}, not {expected}")


def hashes(folder: Path) -> dict[str, str]:
    """{file: sha256} of the checkpoints and logs of a run."""
    kept = ("checkpoint-*.safetensors", "checkpoint.json", "log.jsonl")
    return {str(file.relative_to(folder)): sha256_file(file) for name in kept for file in sorted(folder.rglob(name))}


def memory() -> dict[str, Any]:
    """Peak memory of two epochs' batches from a store of 16 and of 160 shards, each read in a process of its own."""
    found = {}
    with tempfile.TemporaryDirectory() as name:
        for n_shards in (16, 160):
            store = Path(name) / str(n_shards)
            planted_store(store, n_shards)
            command = [sys.executable, __file__, "--read", str(store)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[str(n_shards)] = int(done.stdout)
    return {"shards_peak_bytes": found, "ratio": found["160"] / found["16"]}


def read(store: Path) -> int:
    """Read two epochs and return the peak resident bytes."""
    from workbench.saes.activations import ActivationStore

    opened = ActivationStore.open(store)
    batches = opened.batches(1024, seed=0)
    for _ in range(2 * opened.n_tokens // 1024):
        next(batches)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--child", nargs=2, type=Path, metavar=("STORE", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
    elif options.read:
        print(read(options.read))
    elif options.kills:
        found = killed(options.kills, SEED)
        print(json.dumps(found, indent=2))
        return 0 if found["identical"] == found["kills"] else 1
    elif options.memory:
        print(json.dumps(memory(), indent=2))
    else:
        print(json.dumps(shelf()[0], indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
