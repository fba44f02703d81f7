"""Read features blind, then write labels: the sheet hides which features belong to the trait.

    python scripts/blind_reading.py sheet RUN SHEET.md KEY.json     # 30 top, 20 other and 20 random features, shuffled
    python scripts/blind_reading.py apply RUN KEY.json READINGS.json

`sheet` takes the run's decomposition (without its labels), shows the reader promoted tokens and contexts of each item and
no index, share or group. READINGS.json is what the reader wrote: {"reader": {"kind": "model", "name": ...}, "items":
[{"item", "label", "category", "evil", "explanation", "clarity"}]}. `apply` scores each label on held-out contexts, writes
feature_labels/ for all the items read, and docs/evidence/blind_reading.json with the groups.
"""

from __future__ import annotations

import random
import sys
import time
from itertools import chain
from pathlib import Path
from typing import Any

from workbench.base.provenance import made
from workbench.base.store import atomic_write, read_json, sha256_file, write_json

ROOT = Path(__file__).resolve().parents[1]
N_TOP, N_OTHER, N_RANDOM = 30, 20, 20
SEED = 0
MODEL_TOKENS = 60_000


def groups(parts: Any, sae: Any) -> dict[int, str]:
    """Feature -> "top" (largest shares and causal candidates), "other" (as dense, share near 0), "random" (alive)."""
    draw = random.Random(SEED)
    top = list(dict.fromkeys([*parts.top(N_TOP), *parts.candidates]))
    density = {feature: float(sae.density[feature]) for feature in range(sae.d_sae)}
    alive = [f for f in density if density[f] > 1e-5 and f not in top]
    shares = parts.share
    quiet = sorted(alive, key=lambda f: abs(float(shares[f])))[: len(alive) // 2]
    wanted = sorted(density[f] for f in top)[len(top) // 4 : 3 * len(top) // 4]
    near = [f for f in quiet if wanted[0] <= density[f] <= wanted[-1]]
    other = draw.sample(near, min(N_OTHER, len(near)))
    rest = [f for f in alive if f not in other]
    chosen = dict.fromkeys(top, "top") | dict.fromkeys(other, "other")
    return chosen | dict.fromkeys(draw.sample(rest, N_RANDOM), "random")


def collected(run: Path, features: list[int]) -> tuple[Any, Any]:
    """(evidence of the features from the run's rollouts and OpenWebText, the SAE)."""
    from workbench.labeling.contexts.collection import collect_evidence
    from workbench.labeling.contexts.streams import rollout_stream
    from workbench.models.loading import load_model
    from workbench.personas.vectors import PersonaVector
    from workbench.saes.corpus import documents
    from workbench.saes.registry import load_sae

    sae, vector = load_sae(), PersonaVector.load(run / "vector")
    texts = chain(rollout_stream(vector, sae.hook), documents("owt", role="labels"))
    return collect_evidence(features, sae, load_model(), texts, n_tokens=MODEL_TOKENS), sae


def sheet(run: Path, page: Path, key: Path) -> None:
    """Write the sheet and the key that tells items from features."""
    from workbench.decomposition.result import Decomposition
    from workbench.saes.registry import load_sae

    parts = Decomposition.load(run / "decomposition")
    chosen = groups(parts, load_sae())
    order = list(chosen)
    random.Random(SEED + 1).shuffle(order)
    collection, _ = collected(run, order)
    lines = ["# Features to read", ""]
    for item, feature in enumerate(order, 1):
        evidence = collection.evidence[feature]
        lines += [f"## Item {item}", "", f"promoted tokens: {' | '.join(evidence.promoted)}", ""]
        lines += [f"suppressed tokens: {' | '.join(evidence.suppressed)}", "", "strongest contexts (peak between « »):"]
        lines += [f"- {context.marked()}".replace("\n", " ⏎ ") for context in evidence.top]
        lines += ["", "contexts of weaker firing:"]
        lines += [f"- {context.marked()}".replace("\n", " ⏎ ") for context in evidence.quantiles]
        lines.append("")
    atomic_write(page, "\n".join(lines))
    items = [{"item": i, "feature": f, "group": chosen[f]} for i, f in enumerate(order, 1)]
    write_json(key, {"run": run.name, "items": items, "sheet_sha256": sha256_file(page)})


def apply(run: Path, key: Path, readings: Path) -> None:
    """Labels for every item that was read, and the evidence file of the reading."""
    from workbench.labeling.files.store import save_labels
    from workbench.labeling.labels import FeatureLabel, LabelSet
    from workbench.labeling.scores.detection import score_label

    started = time.perf_counter()
    known, read = read_json(key), read_json(readings)
    said = {row["item"]: row for row in read["items"]}
    features = {row["item"]: row["feature"] for row in known["items"]}
    collection, sae = collected(run, list(features.values()))
    labels: dict[int, FeatureLabel] = {}
    for item, row in said.items():
        feature = features[item]
        labels[feature] = FeatureLabel(
            feature=feature,
            label=row["label"],
            explanation=row["explanation"],
            categories={"evil": row["category"]},
            author=read["reader"],
            score=score_label(row["label"], feature, collection),
            evidence=collection.evidence[feature],
            notes=f"Read blind among {len(said)} features; the reader called it {row['clarity']}.",
        )
    save_labels(LabelSet(sae.id, sae.weights_hash, labels), ROOT / "feature_labels")
    write_json(ROOT / "docs" / "evidence" / "blind_reading.json", _record(known, said, read, started))


def _record(known: dict[str, Any], said: dict[int, Any], read: dict[str, Any], started: float) -> dict[str, Any]:
    items = [
        {**row, **{name: said[row["item"]][name] for name in ("label", "category", "evil", "clarity")}}
        for row in known["items"]
        if row["item"] in said
    ]
    by_group = {name: [row["evil"] for row in items if row["group"] == name] for name in ("top", "other", "random")}
    command = "python scripts/blind_reading.py sheet, a reader, then apply"
    return {
        "_made": made(command, SEED, time.perf_counter() - started, {"sheet": known["sheet_sha256"]}),
        "reader": read["reader"],
        "evil_share": {name: sum(values) / len(values) for name, values in by_group.items() if values},
        "n": {name: len(values) for name, values in by_group.items()},
        "items": items,
    }


if __name__ == "__main__":
    verb, *paths = sys.argv[1:] or [""]
    if verb not in ("sheet", "apply") or len(paths) != 3:
        raise SystemExit(__doc__)
    {"sheet": sheet, "apply": apply}[verb](*(Path(path) for path in paths))
