"""What docs/evidence/labels.json holds: shipped labels beside swapped, generic and one-word ones, and what traits are made of.

    python scripts/label_reading.py index CHATS.parquet default; ... index CHATS.parquet soft-frozen     # where features fire
    python scripts/label_reading.py choose; ... sheets 4; readers; ... apply READINGS.json ...           # the labels that ship
    python scripts/evidence.py labels                      # 40 CPU minutes
    python scripts/labels_evidence.py --benchmark          # only the index's speed (a CPU hour) and the faulty endpoint

Scores are detection AUROC on held-out contexts of the features of largest share of the seven traits, by a sentence embedder
and by word vectors.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from label_reading import FOLDER, MODEL, SEED, SOFT_FROZEN, TRAITS, chosen, decomposition, open_index

from workbench.base.provenance import made
from workbench.base.store import read_json, sha256_file, write_json

ROOT = Path(__file__).resolve().parents[1]
EVIDENCE, IMAGES = ROOT / "docs" / "evidence" / "labels.json", ROOT / "docs" / "images"
READING = EVIDENCE.with_name("blind_reading.json")
N_SOFT_FROZEN = 100
REST = ("unlabelled", "error")
HARD = ("same_token", "neighbours")
SORTS = ("shipped", "swapped", "generic", "one_token")


def evidence() -> dict[str, Any]:
    """{n_features, n_labels, statuses, clarity, auroc, by_negatives, closed_loop, blind, made_of, index, faulty_endpoint}."""
    from workbench.labeling.files.store import load_labels
    from workbench.labeling.scores.closed_loop import WITH_EXPLANATION, closed_loop
    from workbench.models.loading import load_model
    from workbench.saes.registry import load_sae

    started = time.perf_counter()
    model, sae, reading = load_model(MODEL, dtype="bfloat16"), load_sae(), read_json(READING)
    features = [feature for feature, row in chosen().items() if row["group"] == "top"]
    every = load_labels(sae.id, ROOT / "feature_labels", sae_hash=sae.weights_hash)
    labels = every.only(features)
    table, scored = scores(features, labels, model, sae)
    loops = {"label": closed_loop(labels, sae, model, seed=SEED)}
    loops["with_explanation"] = closed_loop(labels, sae, model, template=WITH_EXPLANATION, seed=SEED)
    buried = [row["evil"] for row in reading["items"] if row["group"] != "top"]
    inputs = {"index": sha256_file(FOLDER / "index" / "feature_index.json"), "reading": sha256_file(READING)}
    found = {
        "n_features": len(features),
        "n_labels": len(every),
        "statuses": dict(Counter(item.status for item in every)),
        "authors": dict(Counter(f"{item.author['kind']}: {item.author['name']}" for item in every)),
        "clarity": reading["clarity"],
        "auroc": scored,
        "by_negatives": table,
        "closed_loop_rank1": loops["label"].rank1,
        "closed_loop": {name: loop.record() for name, loop in loops.items()},
        "blind_false_evil_rate": sum(buried) / len(buried),
        "blind": {name: reading[name] for name in ("n", "evil_share", "any_trait_share", "evil_by_words", "probe")},
        **made_of_traits(features, every),
        **benchmarks(),
    }
    return {"_made": made("make evidence TOPIC=labels", SEED, time.perf_counter() - started, inputs), **found}


def scores(features: list[int], labels: Any, model: Any, sae: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """({scorer: {shipped, offline, soft_frozen}}, {sort of label: AUROC on same-token and neighbour negatives}).

    offline, soft_frozen: labels that our explainer writes, of the same features and of a control SAE's. It reads with MiniLM, so
    by the sentence scorer theirs are upper bounds; `by_words` has every sort by word vectors, which nobody read with.
    """
    from workbench.labeling.explainers.protocol import make_explainer
    from workbench.labeling.label import explained_labels
    from workbench.labeling.scores.comparison import score_table
    from workbench.labeling.scores.embedding import EmbeddingScorer
    from workbench.labeling.scores.sentences import SentenceScorer
    from workbench.saes.registry import load_sae

    collection = open_index("default", model, sae).collection(features)
    frozen = load_sae(SOFT_FROZEN)
    top = largest_soft_frozen(frozen)
    apart = open_index("soft-frozen", model, frozen).collection(top)
    ours, _ = explained_labels(features, collection, make_explainer("offline", collection.background), score=False)
    theirs, _ = explained_labels(top, apart, make_explainer("offline", apart.background), score=False)
    sides = {"shipped": (labels, collection), "offline": (ours.values(), collection), "soft_frozen": (theirs.values(), apart)}
    tables = {
        scorer.embedder: {name: score_table(which, where, scorer, seed=SEED).record() for name, (which, where) in sides.items()}
        for scorer in (SentenceScorer(allow_same_embedder=True), EmbeddingScorer())
    }
    return tables, {**hard_means(tables["minilm"]), "by_words": hard_means(tables["glove"])}


def hard_means(tables: dict[str, Any]) -> dict[str, Any]:
    """{sort of label: AUROC on same-token and neighbour negatives} of one scorer."""
    shipped = tables["shipped"]
    hard: dict[str, Any] = {sort: hard_mean(shipped, sort) for sort in SORTS}
    hard |= {name: hard_mean(tables[name], "shipped") for name in ("offline", "soft_frozen")}
    return {**hard, "shipped_minus_one_token": {name: shipped["columns"][name]["shipped_minus"]["one_token"] for name in HARD}}


def hard_mean(table: dict[str, Any], sort: str) -> float:
    """The mean AUROC on same-token and on neighbour negatives."""
    values = [table["columns"][name]["auroc"][sort]["value"] for name in HARD]
    return sum(values) / len(values)


def largest_soft_frozen(sae: Any) -> list[int]:
    """The first features of the seven traits on the soft-frozen SAE, in turns, as many as are looked at."""
    orders = [decomposition(trait, sae=sae).top(30) for trait in TRAITS]
    in_turns = [int(feature) for place in zip(*orders, strict=True) for feature in place]
    return list(dict.fromkeys(in_turns))[:N_SOFT_FROZEN]


def made_of_traits(features: list[int], labels: Any) -> dict[str, Any]:
    """{made_of: {trait: {part: [share, low, high]}}, made_of_details}; draws docs/images/made_of_<trait>.svg."""
    from workbench.decomposition.placebos import PlaceboCodes
    from workbench.labeling.taxonomy.assignment import load_assigner
    from workbench.labeling.taxonomy.made_of import made_of, placebo_shares
    from workbench.personas.traits import load_trait
    from workbench.reports.made_of import made_of_figure
    from workbench.saes.registry import load_sae

    sae, shares, details = load_sae(), {}, {}
    codes = PlaceboCodes.beside(sae)
    for trait in TRAITS:
        parts, owner = decomposition(trait, keep=features), load_trait(trait)
        against = None if codes is None else placebo_shares(codes, sae.decoder_directions, trait)
        found = made_of(parts, labels, owner, assigner=load_assigner(owner), placebo_shares=against, seed=SEED)
        made_of_figure(found).save(IMAGES / f"made_of_{trait}.svg")
        whole = found.to_dict()
        shares[trait] = whole["made_of"]
        details[trait] = {name: whole[name] for name in ("sentence", "unexplained", "totals", "absent", "n_labelled")}
        details[trait]["parts"] = [part for part in whole["parts"] if part["n_features"] or part["kind"] in REST]
    return {"made_of": shares, "made_of_details": details}


def benchmarks() -> dict[str, Any]:
    """{index_vs_floor, index_peak_bytes, index, faulty_endpoint}."""
    index = printed("benchmarks/feature_index.py", "--memory-tokens", "131072")
    faulty = printed("scripts/faulty_endpoint.py", "--json")
    return {"index_vs_floor": index["index_vs_floor"], "index_peak_bytes": index["index_peak_bytes"], "index": index,
            "faulty_endpoint": faulty}  # fmt: skip


def printed(script: str, *arguments: str) -> dict[str, Any]:
    """The JSON object that a script prints."""
    done = subprocess.run([sys.executable, script, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def evidence_quick() -> bool:
    """Whether the closed loop on another choice of swapped labels retrieves as often as stated, within its interval."""
    from workbench.labeling.files.store import load_labels
    from workbench.labeling.scores.closed_loop import closed_loop
    from workbench.models.loading import load_model
    from workbench.saes.registry import load_sae

    stated, sae = read_json(EVIDENCE)["closed_loop"]["label"], load_sae()
    features = [row["feature"] for row in read_json(READING)["items"] if row["group"] == "top"]
    labels = load_labels(sae.id, ROOT / "feature_labels", sae_hash=sae.weights_hash).only(features)
    found = closed_loop(labels, sae, load_model(MODEL), seed=SEED + 1).rank1
    low, high = stated["rank1_interval"]
    print(f"rank-1 retrieval {found:.3f}; stated {stated['rank1']:.3f} [{low:.3f}, {high:.3f}]")
    return low <= found <= high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmark", action="store_true", required=True)
    parser.parse_args()
    write_json(EVIDENCE, {**read_json(EVIDENCE), **benchmarks()})


if __name__ == "__main__":
    main()
