"""Every SAE of the shelf's recipe on the same held-out texts: variance explained and CE recovered against L0.

    workbench sae train saes/smollm2-135m-instruct/recipe.yaml --out runs/saes
    python scripts/evidence.py sae_frontier     # writes docs/evidence/sae_frontier.json and docs/images/sae_frontier*.svg

The SAEs of one site are read side by side; those that are not committed (controls, other sparsities) are in the table as well.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from workbench.base.provenance import made
from workbench.base.store import read_json, sha256_file

ROOT = Path(__file__).resolve().parents[1]
EVIDENCE, IMAGES = ROOT / "docs" / "evidence" / "sae_frontier.json", ROOT / "docs" / "images"
RUN = ROOT / "runs" / "saes"
SHELF = ROOT / "saes" / "smollm2-135m-instruct"
SEED, N_TOKENS, N_CHATS = 0, 2_000, 16
SHOWN = ("variance_explained", "l0", "cosine", "norm_ratio", "ce_recovered", "kl")


def evidence() -> dict[str, Any]:
    """{saes: [{id, site, kind, d_sae, k, tokens, dead_share, variance_explained, l0, ...; by_set}]}; draws the pictures."""
    started = time.perf_counter()
    rows = measured(N_TOKENS, N_CHATS)
    points = [row for row in rows if row["kind"] != "control"]
    draw(points)
    inputs = {row["id"]: row.pop("sha256") for row in rows}
    header = made("make evidence TOPIC=sae_frontier", SEED, time.perf_counter() - started, inputs)
    return {"_made": header, "n_tokens_of_each_set": N_TOKENS, "saes": rows}


def evidence_quick() -> bool:
    """Whether the variance explained on OpenWebText comes back within .02 on half of the text, for every SAE that fires on it."""
    stated = {row["id"]: _on_web(row) for row in read_json(EVIDENCE)["saes"] if row["l0"] > 1}
    found = {row["id"]: _on_web(row) for row in measured(N_TOKENS // 2, 0)}
    print({name: (round(found[name], 3), round(value, 3)) for name, value in stated.items()})
    return all(abs(found[name] - value) < 0.02 for name, value in stated.items())


def _on_web(row: dict[str, Any]) -> float:
    return row["by_set"]["owt"]["variance_explained"]


def measured(n_tokens: int, n_chats: int) -> list[dict[str, Any]]:
    """One row per SAE of the run and of the shelf, by site."""
    from workbench.models.loading import load_model
    from workbench.saes.evaluation.fitness import evaluate_all
    from workbench.saes.evaluation.texts import text_sets
    from workbench.saes.registry import load_sae

    if not RUN.is_dir():
        raise SystemExit(f"{RUN} does not exist: train the recipe first (see above)")
    folders = {str(file.parent.relative_to(RUN)): file.parent for file in sorted(RUN.rglob("cfg.json"))}
    shelved = {file.parent.name: file.parent for file in sorted(SHELF.glob("*/cfg.json"))}
    saes = {name: replace(load_sae(folder), id=name) for name, folder in {**shelved, **folders}.items()}
    model = load_model("smollm2-135m-instruct", dtype="bfloat16")
    texts = text_sets(model, n_tokens=n_tokens, n_chats=n_chats, seed=SEED)
    rows: dict[str, dict[str, Any]] = {}
    for site in dict.fromkeys(str(sae.hook) for sae in saes.values()):
        members = [name for name, sae in saes.items() if str(sae.hook) == site]
        for kind, chosen in texts.items():
            for name, found in zip(members, evaluate_all([saes[m] for m in members], model, chosen), strict=True):
                row = rows.setdefault(name, describe(name, saes[name], {**shelved, **folders}[name]))
                row["by_set"][kind] = {key: getattr(found, key) for key in SHOWN}
    for row in rows.values():
        sets = [one for kind, one in row["by_set"].items() if kind != "corpus"]
        row |= {key: sum(one[key] for one in sets) / len(sets) for key in SHOWN}
    return list(rows.values())


def describe(name: str, sae: Any, folder: Path) -> dict[str, Any]:
    """What an SAE is, from its card."""
    plan = sae.card.get("plan") or (sae.card.get("recipe") or {}).get("training") or {}
    training = plan.get("training", plan)
    steps = training.get("n_steps", 0) + training.get("revive_steps", 0)
    return {
        "id": name, "site": str(sae.hook), "kind": kind_of(name, sae), "d_sae": sae.d_sae, "k": training.get("k"),
        "n_train_tokens": steps * training.get("batch_size", 0), "n_distinct_tokens": sae.card["training_data"]["n_tokens"],
        "dead_share": sae.card.get("dead_share"), "stored_dtype": sae.card.get("stored_dtype", "float16"),
        "by_set": {}, "sha256": sha256_file(folder / "sae_weights.safetensors"),
    }  # fmt: skip


def kind_of(name: str, sae: Any) -> str:
    """The line of the picture that an SAE belongs to."""
    if name.startswith("controls/"):
        return "control"
    if name.endswith("-corpus"):
        return "corpus only"
    return f"{sae.d_sae:,} features, block {sae.hook.block}"


def draw(points: list[dict[str, Any]]) -> None:
    """The two pictures of the frontier."""
    from workbench.reports.training import frontier

    for value, label, name in (("variance_explained", "variance explained", "sae_frontier"),
                               ("ce_recovered", "CE recovered", "sae_frontier_ce")):  # fmt: skip
        frontier(points, value=value, label=label).save(IMAGES / f"{name}.svg")
