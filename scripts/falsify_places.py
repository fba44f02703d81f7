"""The places in docs/falsify.md that docs/evidence/falsify.json fills: see fill_docs.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workbench.base.store import read_json

EVIDENCE = Path(__file__).resolve().parents[1] / "docs" / "evidence" / "falsify.json"
GROUPS = {"traits": "trait", "placebos": "placebo contrast", "shuffled": "evil, arms at random",
          "random": "random direction"}  # fmt: skip


def falsify_table() -> str:
    """One line per vector: what failed, and what was not tested."""
    lines = ["", "| vector | failed | not tested | passed | failed in |", "|---|---|---|---|---|"]
    found = read_json(EVIDENCE)
    for group, kind in GROUPS.items():
        for name, row in found[group].items():
            failed = _named(row, "fail")
            cells = [name if group == "traits" else f"{name} ({kind})"]
            cells += [str(row["counts"][one]) for one in ("fail", "not tested", "pass")]
            lines.append("| " + " | ".join([*cells, ", ".join(failed) or "–"]) + " |")
    return "\n".join([*lines, ""])


def obeyed_line() -> str:
    """Contrasts that are made to fail in format: what the answers really hold."""
    found = read_json(EVIDENCE)["placebos"]
    told = {name: found[name]["checks"]["format"]["reason"] for name in ("list_prose", "loud_quiet")}
    return "; ".join(f"{name}: {reason}" for name, reason in told.items()) + "."


def falsify_reading() -> str:
    """Per check, in how many vectors of each group it is red."""
    found = read_json(EVIDENCE)
    groups = [group for group in GROUPS if found[group]]
    heads = {group: f"{group} ({len(found[group])})" for group in groups}
    lines = ["", "Red in, of those that could be tested:", "", "| check | " + " | ".join(heads.values()) + " |",
             "|---|" + "---|" * len(groups)]  # fmt: skip
    for check in found["criteria"]:
        if found["criteria"][check]["threshold"] is not None:
            lines.append(f"| {check} | " + " | ".join(_red(found["verdicts"][group][check]) for group in groups) + " |")
    green = [name for group in groups for name, row in found[group].items() if row["colour"] == "green"]
    told = f"Green throughout: {', '.join(green)}." if green else "None of these vectors is green throughout."
    return "\n".join([*lines, "", told, ""])


def _named(row: dict[str, Any], verdict: str) -> list[str]:
    return [name for name, one in row["checks"].items() if one["verdict"] == verdict]


def _red(counts: dict[str, int]) -> str:
    tested = counts.get("fail", 0) + counts.get("pass", 0)
    return f"{counts.get('fail', 0)} of {tested}" if tested else "–"


PLACES = (falsify_table, falsify_reading, obeyed_line)
