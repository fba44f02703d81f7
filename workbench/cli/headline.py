"""The answer in one line, from the contract object alone: what the labelled sub-traits, the rest and the error take."""

from __future__ import annotations

from typing import Any

from .console import percent

N_NAMED = 4


def headline(value: dict[str, Any]) -> str:
    """One sentence on a report object; says so when the shares are not known."""
    name = value["vector"]["trait"]
    slices = value.get("made_of") or []
    if value["share_error"] is None or not slices:
        return f"{name}: the shares are not known (a bare vector has no token activations); see the report for why."
    traits = sorted((s for s in slices if s["group"] == "trait"), key=lambda s: -s["share"])
    rest = sum(s["share"] for s in slices if s["group"] not in ("trait", "error"))
    named = ", ".join(f"{s['category']} {percent(s['share'])}" for s in traits[:N_NAMED])
    total = sum(s["share"] for s in traits)
    return (
        f"{name}: {percent(total)} of |v|^2 lies in features labelled as sub-traits{f' ({named})' if named else ''}, "
        f"{percent(rest)} in all others, {percent(value['share_error'])} is the SAE's own error. {_verified(value)}"
    )


def _verified(value: dict[str, Any]) -> str:
    tested = [row["verified"] for row in value["features"] if row["verified"] is not None]
    if not tested:
        return "No causal test was run."
    chance = value["controls"].get("expected_by_chance")
    by_chance = "" if chance is None else f" ({chance:.2g} expected by chance)"
    return f"Verified causal features: {sum(tested)} of {len(tested)} tested{by_chance}."
