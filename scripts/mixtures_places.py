"""The places in docs/lab.md that docs/evidence/mixtures.json fills: see fill_docs.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workbench.base.store import read_json
from workbench.lab.mixture_study import MAX_SHARE_ERROR, MIN_ORDER_RIGHT

EVIDENCE = Path(__file__).resolve().parents[1] / "docs" / "evidence" / "mixtures.json"
METHODS = {
    "shares": "`shares`: grouped shares, norms undone (chosen beforehand)", "codes": "`codes`: all code differences",
    "residual": "`residual`: the vectors themselves, no SAE (baseline)",
    "shares_as_read": "`shares_as_read`: grouped shares as they stand",
}  # fmt: skip
CONTROLS = {
    "same_answers": "fingerprints from the very answers that are mixed",
    "same_instructions": "the same instructions, other questions",
    "shuffled": "names of the sub-personas shuffled", "placebos": "placebo contrasts as fingerprints",
}  # fmt: skip


def _span(pair: list[float]) -> str:
    return f" [{pair[0]:.2f}, {pair[1]:.2f}]"


def _grid(columns: list[str], rows: list[list[str]]) -> str:
    lines = ["", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows), ""])


def mixtures_effects() -> str:
    """What each sub-persona's answers do, and how far its vector is from neutral."""
    e = read_json(EVIDENCE)["effects"]
    whats = list(e["rates"]["neutral"])
    rows = []
    for who, row in e["rates"].items():
        across = _across(e, whats.index(who)) if who in whats else "–"
        norm = f"{e['norms'][who]:.1f}" if who in whats else "–"
        rates = [f"{row[what]['rate']:.2f}" + (_span(row[what]["interval"]) if what == who else "") for what in whats]
        rows.append([_plain(who), str(e["n_answers"][who]), *rates, norm, across])
    halves = "cosine across the halves: own (largest other)"
    columns = ["answers of", "answers", *(_plain(what) for what in whats), "norm", halves]
    placebos, cosines = e["placebo_norms"], e["cosines"]
    others = [cosines[i][j] for i in range(len(whats)) for j in range(i)]
    middle = placebos[len(placebos) // 2]
    return _grid(columns, rows) + (
        f"\nThe {len(placebos)} placebo contrasts have norms from {placebos[0]:.1f} to {placebos[-1]:.1f} (median {middle:.1f}). "
        f"Cosines between the sub-personas' vectors: {min(others):.2f} to {max(others):.2f}.\n"
    )


def _across(effects: dict[str, Any], own: int) -> str:
    row = effects["cosines_across_halves"][own]
    return f"{row[own]:.2f} ({max(value for j, value in enumerate(row) if j != own):.2f})"


def _plain(name: str) -> str:
    return name.replace("_", " ")


def mixtures_table() -> str:
    """Every method on the mixtures, and on other halves."""
    m = read_json(EVIDENCE)["mixtures"]
    scores, others = {one["method"]: one for one in m["scores"]}, m["splits"]["methods"]
    columns = ["method", "share error", "order right", "largest error of a mixture",
               f"{m['splits']['n']} other splits: error, mean (worst)", "order right, mean (worst)", "both aims met"]  # fmt: skip
    rows = [
        [text, f"{scores[name]['share_error']:.3f}" + _span(scores[name]["share_error_interval"]),
         f"{scores[name]['order_right']:.2f}" + _span(scores[name]["order_right_interval"]),
         f"{scores[name]['largest_error']:.2f}",
         f"{others[name]['share_error']:.3f} ({others[name]['worst_share_error']:.3f})",
         f"{others[name]['order_right']:.2f} ({others[name]['worst_order_right']:.2f})", f"{others[name]['aims_met']:.2f}"]
        for name, text in METHODS.items()
    ]  # fmt: skip
    return _grid(columns, rows)


def mixtures_controls() -> str:
    """What chance and easier tests get."""
    m = read_json(EVIDENCE)["mixtures"]
    columns = ["control", *(f"`{name}`: error, order right" for name in ("shares", "codes", "residual"))]
    rows = [
        [text, *(_pair(m["chance"][name][method]) for method in ("shares", "codes", "residual"))]
        for name, text in CONTROLS.items()
        if name in m["chance"]
    ]
    equal = _pair(m["chance"]["equal_parts"])
    return _grid(columns, [*rows, ["equal parts for every mixture", equal, equal, equal]])


def _pair(one: dict[str, float]) -> str:
    return f"{one['share_error']:.3f}, {one['order_right']:.2f}"


def mixtures_verdict() -> str:
    """Which aims are met by which method, and whether the decomposition or the baseline is nearer."""
    m = read_json(EVIDENCE)["mixtures"]
    scores, n = {one["method"]: one for one in m["scores"]}, len(m["rows"])
    told = [f"`{name}` has a share error of {scores[name]['share_error']:.3f} and the order right in "
            f"{scores[name]['order_right']:.0%}: {_aims(scores[name])}" for name in ("shares", "codes", "residual")]  # fmt: skip
    nearest = min(("shares", "codes", "residual"), key=lambda name: scores[name]["share_error"])
    ahead = sum(row["share_error"]["codes"] < row["share_error"]["residual"] for row in m["rows"])
    return (
        "Of the decomposition, " + "; ".join(told[:2]) + f". The baseline: {told[2]}. `{nearest}` is nearest; `codes` is nearer "
        f"than the baseline in {ahead} of {n} mixtures."
    )


def _aims(score: dict[str, Any]) -> str:
    error, order = score["share_error"] <= MAX_SHARE_ERROR, score["order_right"] >= MIN_ORDER_RIGHT
    if error and order:
        return "both aims are met"
    if error or order:
        return "the aim for the error is met, that for the order is not" if error else "only the aim for the order is met"
    return "neither aim is met"
