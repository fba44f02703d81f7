"""Two runs side by side: what they were made with, what came out, and what cannot be compared."""

from __future__ import annotations

from typing import Any

from .run_shelf import Run

N_FEATURES = 30
_SHOWN = ("trait", "model", "sae")


def compare_runs(first: Run, second: Run) -> dict[str, Any]:
    """{runs, settings, figures, shares, features, not_compared}: pairs are [value of the first, value of the second]."""
    apart = _not_compared(first, second)
    return {
        "runs": [first.row(), second.row()],
        "settings": _settings(first, second),
        "figures": {name: [value, second.figures()[name]] for name, value in first.figures().items()},
        "shares": _shares(first, second),
        "features": None if "features" in apart else _features(first, second),
        "not_compared": [{"what": what, "why": why} for what, why in apart.items()],
    }


def _settings(first: Run, second: Run) -> dict[str, list[Any]]:
    """The settings that differ; of what is recorded in one run alone the other side is None."""
    both = [_facts(first), _facts(second)]
    names = dict.fromkeys([*both[0], *both[1]])
    return {name: [both[0].get(name), both[1].get(name)] for name in names if both[0].get(name) != both[1].get(name)}


def _facts(run: Run) -> dict[str, Any]:
    config = (run.vector.get("provenance") or {}).get("config") or {}
    design, judge = config.get("design") or {}, config.get("judge") or {}
    found = {
        **{name: getattr(run, name) for name in _SHOWN},
        "hook": run.vector.get("hook"),
        "judge": (judge.get("name") if isinstance(judge, dict) else judge) or (run.vector.get("evidence") or {}).get("judge"),
        "n_samples": design.get("n_samples"),
        "max_new_tokens": (design.get("sampling") or {}).get("max_new_tokens"),
        "batch_size": design.get("batch_size"),
        "seed": (run.vector.get("provenance") or {}).get("seed"),
        "version": ((run.vector.get("provenance") or {}).get("versions") or {}).get("persona-workbench"),
    }
    recorded = {name: value for name, value in run.settings.items() if name not in found}
    return {**{name: run.settings.get(name) if value is None else value for name, value in found.items()}, **recorded}


def _shares(first: Run, second: Run) -> dict[str, list[float | None]]:
    """{category: shares of |v|^2}: how much of each vector the labelled categories take."""
    both = [{str(s["category"]): s["share"] for s in run.report.get("made_of") or []} for run in (first, second)]
    return {name: [both[0].get(name), both[1].get(name)] for name in dict.fromkeys([*both[0], *both[1]])}


def _features(first: Run, second: Run) -> dict[str, Any]:
    """The largest features of both: which are kept, which are new, and how many were verified in both."""
    rows = [{row["feature"]: row for row in (run.report.get("features") or [])[:N_FEATURES]} for run in (first, second)]
    kept = [feature for feature in rows[0] if feature in rows[1]]
    shared = [
        {"feature": f, "label": rows[0][f].get("label"), "share": [rows[i][f].get("share") for i in (0, 1)],
         "verified": [rows[i][f].get("verified") for i in (0, 1)]}
        for f in kept
    ]  # fmt: skip
    return {
        "n": [len(rows[0]), len(rows[1])],
        "kept": shared,
        "only_first": [feature for feature in rows[0] if feature not in rows[1]],
        "only_second": [feature for feature in rows[1] if feature not in rows[0]],
    }


def _not_compared(first: Run, second: Run) -> dict[str, str]:
    found: dict[str, str] = {}
    if first.trait != second.trait:
        found["AUC"] = f"each is of its own trait ({first.trait}, {second.trait}), with its own questions and judge"
    if first.model != second.model:
        found["vectors"] = f"{first.model} and {second.model} have different residual streams (see `workbench transfer`)"
    weights = [(run.decomposition.get("sae") or {}).get("weights_hash") for run in (first, second)]
    lacking = [str(run.folder) for run in (first, second) if not run.report]
    if lacking:
        found["features"] = f"no report in {', '.join(lacking)}"
    elif weights[0] != weights[1]:
        found["features"] = ("different SAEs number their features differently; `workbench decompositions compare` matches them "
                             "by what they do")  # fmt: skip
    judged = [_facts(run)["judge"] for run in (first, second)]
    if judged[0] != judged[1]:
        found["evidence"] = f"different judges kept different rollouts ({judged[0]}, {judged[1]})"
    return found
