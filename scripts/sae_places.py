"""The places in docs/saes.md and README.md that docs/evidence/saes.json fills: see fill_docs.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workbench.base.store import read_json

EVIDENCE = Path(__file__).resolve().parents[1] / "docs" / "evidence" / "saes.json"


def _number(value: Any, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def saes_table() -> str:
    """The SAEs of the shelf."""
    columns = ("SAE", "features", "tokens trained on", "variance explained", "L0", "CE recovered", "dead", "persona probe gap",
               "top 30 found by another seed (by chance)")  # fmt: skip
    lines = ["", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for one in read_json(EVIDENCE)["saes"]:
        trained = "–" if one["n_train_tokens"] is None else f"{one['n_train_tokens'] / 1e6:.1f} million"
        figures = ("ce_recovered", "dead_share", "persona_probe_gap")
        seeds = one["seed_matched_top30"]
        found = "–" if seeds is None else f"{seeds:.2f} ({one['seed_matched_top30_null']:.2f})"
        cells = [f"`{one['id']}`", f"{one['d_sae']:,}", trained, _number(one["variance_explained"]), _number(one["l0"], 1)]
        lines.append("| " + " | ".join([*cells, *(_number(one[name]) for name in figures), found]) + " |")
    return "\n".join([*lines, ""])


def sae_seeds_table() -> str:
    """How many features come back in SAEs of another seed or another sparsity."""
    one = next(one for one in read_json(EVIDENCE)["saes"] if one["seeds"])
    lines = ["", "| compared with | of a trait's thirty largest features | of all live features |", "|---|---|---|"]
    for name, found in one["seeds"].items():
        lines.append(f"| `{name}` | {found['top30']:.2f} | {found['all']:.2f} |")
    return "\n".join([*lines, ""])


CLAIMS = {
    "variance_explained": "variance explained", "ce_recovered": "CE recovered", "probe_auc_k1": "probing with 1 feature, AUC",
    "probe_auc_k16": "probing with 16", "persona_probe_auc": "persona probing, AUC",
    "expression_32": "expression of persona vectors, 32 atoms",
}  # fmt: skip
CONTROLS = {"soft_frozen": "soft-frozen", "corpus_only": "corpus only", "randomised_weights": "shuffled weights",
            "random_covariance": "random, covariance"}  # fmt: skip


def sae_excess_table() -> str:
    """What the SAE with trained controls claims, and how much of it is more than each control gets."""
    one = next(one for one in read_json(EVIDENCE)["saes"] if any(c["kind"] == "soft_frozen" for c in one["excess"].values()))
    controls = {other["kind"]: other["claims"] for other in one["excess"].values()}
    known = [kind for kind in CONTROLS if kind in controls]
    lines = ["", f"`{one['id']}`, with Student's paired 95% intervals over text sets, labelled sets or traits:", ""]
    lines += ["| claim | this SAE | " + " | ".join(f"more than {CONTROLS[kind]}" for kind in known) + " |"]
    lines += ["|" + "---|" * (2 + len(known))]
    for claim, name in CLAIMS.items():
        cells = [controls[kind].get(claim) for kind in known]
        own = next(cell["sae"] for cell in cells if cell)
        lines.append(f"| {name} | {own:.3f} | " + " | ".join(map(_excess, cells)) + " |")
    return "\n".join([*lines, ""])


def _excess(cell: Any) -> str:
    if not cell:
        return "–"
    ends = cell["interval"]
    return f"{cell['excess']:+.3f}" + ("" if not ends else f" [{ends[0]:.3f}, {ends[1]:.3f}]")


def sae_frontier_table() -> str:
    """Every SAE of the recipe, committed or not, on the same held-out texts."""
    columns = ("SAE", "k", "tokens (distinct)", "variance explained", "on web text", "on chats", "L0", "CE", "KL", "dead")
    lines = ["", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for one in read_json(EVIDENCE.with_name("sae_frontier.json"))["saes"]:
        tokens = f"{one['n_train_tokens'] / 1e6:.1f} million ({one['n_distinct_tokens'] / 1e6:.1f})"
        sets = [one, *(one["by_set"].get(name, {}) for name in ("owt", "chats"))]
        explained = [part.get("variance_explained") for part in sets]
        rest = [_number(one["l0"], 1), *(_number(one[key]) for key in ("ce_recovered", "kl", "dead_share"))]
        lines.append("| " + " | ".join([f"`{one['id']}`", _number(one["k"], 0), tokens, *map(_number, explained), *rest]) + " |")
    return "\n".join([*lines, ""])


def sae_speed_table() -> str:
    """Training speed as ratios, and what a run costs besides."""
    e = read_json(EVIDENCE)
    speed, memory = e["speed"], e["memory"]
    rows = (
        ("speed of training an SAE against SAELens' trainer, both as shipped", _number(e["train_throughput_vs_saelens"], 2)),
        ("the same with our products in float32 as well", _number(speed["train_vs_saelens_f32"], 2)),
        ("the five large products alone, as a share of our step", _number(speed["floor_ratio"], 2)),
        ("four SAEs from one reading of the text, against four runs", _number(e["k_saes_cost_ratio"], 2)),
        ("training alone: four SAEs in one pass, against four passes", _number(speed["k_saes_training_ratio"], 2)),
        ("share of the training time that waits for data", _number(e["data_loading_share"], 3)),
        ("peak memory of reading a store ten times as large", f"{memory['ratio']:.2f} times"),
        ("runs killed at random steps that end with the same files", e["resume_identical"]),
    )
    return "\n".join(["", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows), ""])


def importers_line() -> str:
    """How far imported SAEs are from their libraries' formulas at most."""
    found = read_json(EVIDENCE)["importers"]
    return f"{max(found.values()):.0e} at most over {len(found)} layouts"
