"""What docs/personas.md quotes: all traits on the default model, judges, resuming; transfer; methods and blocks.

Run through `make evidence TOPIC=personas`. Finished runs in runs/ are taken as they are, so that a second call takes
minutes; from nothing it takes some three hours on two cores.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from workbench.base.provenance import made
from workbench.base.store import read_json, sha256_file

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
DESIGN = ("--samples", "4", "--dtype", "bfloat16", "--batch-size", "64")
SHORT = ("--max-new-tokens", "48", "--batch-size", "64")
OTHER = "gemma3-270m"
SECOND = ("--model", OTHER, "--hook", "blocks.9.hook_resid_post", "--judge", "none", "--dtype", "bfloat16", *SHORT)
ONE_SAMPLE = ("--dtype", "bfloat16", "--batch-size", "64")
COMPARED, BY_BLOCK = ("evil",), ("evil", "humorous")
TRANSFER = ROOT / "docs" / "evidence" / "transfer.json"
FOREIGN = ROOT / "tests" / "personas" / "formats_data"
SEED = 0
N_KILLS = 10

Run = Callable[..., tuple[str, float]]


def personas(workbench: Run) -> dict[str, Any]:
    """The figures of the topic; `workbench(*arguments)` runs one command and returns its output and seconds."""
    started = time.perf_counter()

    def ask(*arguments: str) -> dict[str, Any]:
        return json.loads(workbench(*arguments, "--json")[0])

    panel = ask("extract", "--all", *DESIGN)
    others = {trait: ask("extract", trait, *SECOND) for trait in panel["traits"]}
    found = {
        "model": panel["model"], "hook": panel["hook"], "traits": panel["traits"], "geometry": panel["geometry"],
        "second_model": {"model": OTHER, "traits": brief(others)},
        **judges(),
        "transfer": read_json(TRANSFER)["transfer"] if TRANSFER.exists() else None,
        "foreign_trait": foreign(ask),
        **killed(),
    }  # fmt: skip
    pictures(found)
    header = made("make evidence TOPIC=personas", SEED, time.perf_counter() - started, inputs(found["traits"]))
    return {"_made": header, **found}


def transfer(workbench: Run) -> dict[str, Any]:
    """The vectors of the default model in the second family; both need their vectors first (topic personas)."""
    from workbench.reports.matrices import heat_map

    started = time.perf_counter()
    printed, _ = workbench("transfer", "--to", OTHER, "--dtype", "bfloat16", *SHORT, "--json")
    found = slim(json.loads(printed))
    rows = {"rows": f"block of {found['source']}", "columns": f"block of {found['target']}"}
    heat_map(found["similarity"]["rsa"], title="Representational similarity (RSA)", **rows).save(IMAGES / "transfer_rsa.svg")
    header = made("make evidence TOPIC=transfer", SEED, time.perf_counter() - started, inputs(found["carried"]["traits"]))
    return {"_made": header, "transfer": found}


def transfer_quick(workbench: Run) -> bool:
    """Whether the finished study, read back, names the block that the record names."""
    stated = read_json(TRANSFER)["transfer"]["target_hook"]
    printed, _ = workbench("transfer", "--to", OTHER, "--dtype", "bfloat16", *SHORT, "--json")
    found = json.loads(printed)["target_hook"]
    print(f"most alike: {found}; stated {stated}")
    return found == stated


def methods(workbench: Run) -> dict[str, Any]:
    """How a vector could have been made, and where: methods, positions and sites side by side; two ways to choose a block."""
    from workbench.models.hookpoints import HookPoint
    from workbench.reports.figures import layer_choice

    started = time.perf_counter()

    def ask(study: str, trait: str) -> dict[str, Any]:
        return slim(json.loads(workbench("vectors", study, trait, *DESIGN, "--json")[0]))

    found = {"methods": {trait: ask("compare", trait) for trait in COMPARED},
             "layers": {trait: ask("layers", trait) for trait in BY_BLOCK}}  # fmt: skip
    evil = found["layers"]["evil"]
    curves = [
        [(HookPoint.parse(p["hook"]).block, p[key], p["low"], p["high"]) for p in evil[curve]]
        for curve, key in (("separability", "auc"), ("causal", "odd"))
    ]
    layer_choice(*curves, chosen=HookPoint.parse(evil["hook"]).block).save(IMAGES / "layers_evil.svg")
    read = inputs(sorted({*COMPARED, *BY_BLOCK}))
    return {"_made": made("make evidence TOPIC=methods", SEED, time.perf_counter() - started, read), **found}


def methods_quick(workbench: Run) -> bool:
    """Whether the comparison, made again with few replicates, has the stated AUC of the default method; prints both."""
    stated = read_json(ROOT / "docs" / "evidence" / "methods.json")["methods"]["evil"]["rows"][0]["auc"]
    printed, _ = workbench("vectors", "compare", "evil", *DESIGN, "--method", "mean_difference", "--bootstrap", "2", "--json")
    found = json.loads(printed)["rows"][0]["auc"]
    print(f"auc of the mean difference: {found:.4f}; stated {stated:.4f}")
    return abs(found - stated) < 0.001


def brief(traits: dict[str, Any]) -> dict[str, Any]:
    """The separability figures of another model's traits."""
    names = ("hook", "auc_stripped", "auc_stripped_interval", "auc_rank_p", "auc_random_q95", "auc_text_only", "auc_with_prompt")
    return {trait: {name: row.get(name) for name in names} for trait, row in traits.items()}


def slim(value: dict[str, Any]) -> dict[str, Any]:
    """Without what only tells one machine's run folders apart."""
    return {key: item for key, item in value.items() if key not in ("folder", "figure", "key")}


def judges() -> dict[str, Any]:
    """judges: {judge: {set: {auroc, spearman, n, ...}}}, traps: {judge: {trait: {...}}}, from docs/evidence/judges.json.

    Where nobody scored replies, the held-out replies that a model wrote stand in, as `written_replies_<trait>`.
    """
    measured = read_json(ROOT / "docs" / "evidence" / "judges.json")["judges"]
    return {
        "judges": {judge: judge_sets(traits) for judge, traits in measured.items()},
        "traps": {judge: {trait: trap_row(row) for trait, row in traits.items()} for judge, traits in measured.items()},
    }


def judge_sets(traits: dict[str, Any]) -> dict[str, Any]:
    """{set: {auroc, interval, spearman, spearman_interval, n}} of one judge."""
    sets = {name: row for found in traits.values() for name, row in found["human_scored"].items()}
    sets |= {f"written_replies_{trait}": found["held_out_replies"] for trait, found in traits.items() if not found["validated"]}
    keys = ("auroc", "interval", "spearman", "spearman_interval", "n")
    return {name: {key: row[key] for key in keys} for name, row in sets.items()}


def trap_row(found: dict[str, Any]) -> dict[str, Any]:
    """One judge's pairs for one trait."""
    return {**{key: found["traps"][key] for key in ("pair_accuracy", "interval", "n")}, "validated": found["validated"]}


def foreign(ask: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """A trait that nobody tuned for, from persona_vectors-style files, through the same commands."""
    folder = ROOT / "runs" / "imported"
    shutil.rmtree(folder / "pedantic", ignore_errors=True)
    files = (str(FOREIGN / "pedantic_extract.json"), "--evaluation", str(FOREIGN / "pedantic_eval.json"))
    ask("traits", "import", *files, "--name", "pedantic", "--out", str(folder))
    value = ask("extract", str(folder / "pedantic"), "--judge", "none", *ONE_SAMPLE, "--out", str(folder / "run"))
    names = ("auc_stripped", "auc_stripped_interval", "auc_rank_p", "auc_random_q95", "auc_text_only", "auc_with_prompt")
    return {"trait": "pedantic", "arms": "positive and negative", **{name: value[name] for name in names}}


def killed() -> dict[str, Any]:
    """A rollout run killed at ten points, against one that nobody killed."""
    command = [sys.executable, "scripts/kill_resume.py", "--kills", str(N_KILLS)]
    value = json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False).stdout)
    return {"kill_resume_identical": f"{value['identical']} of {value['kills']}", "kill_resume": value}


def pictures(found: dict[str, Any]) -> None:
    """The figures of the docs page, drawn from the same values."""
    from workbench.reports.matrices import heat_map

    names = found["geometry"]["traits"]
    drawn = heat_map(found["geometry"]["cosines"], title="Cosines between the vectors", row_names=names, column_names=names)
    drawn.save(IMAGES / "personas_cosines.svg")


def inputs(traits: Iterable[str]) -> dict[str, str]:
    """{file: sha256} of the written material."""
    folder = ROOT / "workbench" / "personas" / "data"
    files = [folder / name / kind for name in traits for kind in ("trait.yaml", "pairs.yaml")]
    files += [folder / "placebos" / "placebos.yaml", folder / "outcomes.yaml", FOREIGN / "pedantic_extract.json"]
    return {str(path.relative_to(ROOT)): sha256_file(path) for path in files}


def personas_quick(workbench: Run) -> bool:
    """Whether one trait from other draws separates as the evidence file says; prints both."""
    import tempfile

    stated = read_json(ROOT / "docs" / "evidence" / "personas.json")["traits"]["humorous"]
    with tempfile.TemporaryDirectory() as folder:
        printed, _ = workbench("extract", "humorous", *DESIGN, "--out", f"{folder}/run", "--json", "--seed", str(SEED + 1))
    found, (low, high) = json.loads(printed)["auc_stripped"], (stated["common"] or stated)["auc_interval"]
    print(f"auc_stripped of humorous at the SAE's block: {found:.3f} with seed {SEED + 1}; stated [{low:.3f}, {high:.3f}]")
    return low <= found <= high
