"""The places in docs/compare.md that docs/evidence/comparison.json fills: see fill_docs.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workbench.base.store import read_json

EVIDENCE = Path(__file__).resolve().parents[1] / "docs" / "evidence" / "comparison.json"


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = ["", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows), ""])


def groups_table() -> str:
    """Per trait: how many features are in groups, and what matched features give."""
    rows = []
    for trait, one in read_json(EVIDENCE)["groups"].items():
        null = one["null"]
        chance = f"{null['median']:.0f}, {null['high']:.0f}"
        rows.append([trait, f"{one['n_grouped']} of {one['n_features']}", chance, f"{null['p']:.2f}", str(one["n_groups"]),
                     str(one["largest"]), str(one["n_small_p"])])  # fmt: skip
    columns = ["trait", "in groups", "of matched features: median, 97.5%", "p", "groups", "largest", "groups with p <= .05"]
    return _table(columns, rows)


def overlap_table() -> str:
    """Every pair of traits: the cosine, what carries it, and where it stands among placebos."""
    rows = []
    for one in sorted(read_json(EVIDENCE)["pairs"], key=lambda row: -abs(row["cosine"])):
        null = one["background"]
        rows.append([", ".join(one["traits"]), f"{one['cosine']:+.2f}", f"{one['positive']:+.2f}", f"{one['negative']:+.2f}",
                     f"{one['error']:+.2f}", "–" if one["n_half"] is None else str(one["n_half"]),
                     "–" if not null else f"{null['p']:.2f}"])  # fmt: skip
    return _table(["traits", "cosine", "features with it", "against it", "the SAE's error", "features for half", "rank p"], rows)


def overlap_line() -> str:
    """How many overlaps stand out from placebos."""
    known = [row["background"]["p"] for row in read_json(EVIDENCE)["pairs"] if row["background"]]
    few, by_chance = sum(p <= 0.05 for p in known), 0.05 * len(known)
    return f"{few} of {len(known)} pairs have p <= .05 (by chance {by_chance:.1f}); the smallest p is {min(known):.2f}."


def own_table() -> str:
    """Features that one trait alone moves beyond placebos."""
    own = read_json(EVIDENCE)["own"]
    rows = [[row["trait"], str(row["n_specific"]), str(row["n_own"]), f"{row['n_if_unrelated']:.1f}"] for row in own]
    return _table(["trait", "beyond placebos", "of them its own", "own if the traits were unrelated"], rows)


def dictionaries_table() -> str:
    """One vector on two SAEs."""
    found: dict[str, Any] = read_json(EVIDENCE)["dictionaries"]
    rows = []
    for name, one in found.items():
        here, there = one["sides"]
        ranks = [one["rank_correlation"], one["rank_of_changes"]]
        both = [f"{here[key]:.0%}, {there[key]:.0%}" for key in ("matched", "matched_top", "matched_weight")]
        rows.append([name, *both, f"{here['nearest_top']:.2f}",
                     *("–" if value is None else f"{value:.2f}" for value in ranks)])  # fmt: skip
    columns = ["other SAE", "matched, of all features", "of the 60 of the largest share", "of the sum of absolute shares",
               "nearest cosine of those 60, median", "rank correlation of shares", "of code changes"]  # fmt: skip
    return _table(columns, rows)


PLACES = (groups_table, overlap_table, overlap_line, own_table, dictionaries_table)
