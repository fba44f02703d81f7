"""The places in docs/axis.md and docs/claims.md about what is done along the axis: steering, caps, jailbreaks, personas.

As axis_places.py, which has the map and drift; a part that was not measured yet says so.
"""

from __future__ import annotations

from typing import Any

from axis_places import _span, _table, of


@of("capping_sweep")
def axis_capping_line(found: dict[str, Any]) -> str:
    """What the sweep says."""
    return " ".join(found["sentences"])


@of("capping")
def axis_capping_table(found: list[dict[str, Any]]) -> str:
    """The caps that take most from harm, and every control direction's best, each with its price."""
    best: dict[str, dict[str, Any]] = {}
    for row in sorted(found, key=lambda row: -row["reduction"]):
        best.setdefault(row["direction"], row)
    rows = []
    for name, row in best.items():
        low, high = row["reduction_interval"] or (float("nan"),) * 2
        cost = _span(row["capability"], *row["capability_interval"], digits=3)
        rows.append((name, f"{row['band'] or 'its block'}, {row['percentile']:g}", _span(row["reduction"], low, high), cost,
                     f"{row['kl']:.3f}"))  # fmt: skip
    return _table(("direction", "band and percentile of its best cap", "taken from harm", "price, nats per token", "KL"), rows)


@of("jailbreak_table")
def axis_jailbreak_table(found: dict[str, Any]) -> str:
    """Success, refusals, what a cap takes and what it costs, by arm."""
    rows = []
    for arm, rates in found["rates"].items():
        taken, cost, blocked = (found[name].get(arm) for name in ("reductions", "capability", "over_blocking"))
        rows.append((arm, _share(rates["success"]), _share(rates["refused"]), _share(taken) if taken else "",
                     f"{cost['losses']['surprise']['loss']:+.3f}" if cost else "",
                     _share(blocked["stopped"]) if blocked else ""))  # fmt: skip
    return _table(("arm", "success", "refused", "taken from success", "price, nats per token", "harmless play stopped"), rows)


def _share(three: list[float | None]) -> str:
    value, low, high = three
    if value is None:
        return "not known"
    return f"{value:.0%}" if low is None or high is None else f"{value:.0%} [{low:.0%}, {high:.0%}]"


@of("jailbreak_table")
def axis_jailbreak_line(found: dict[str, Any]) -> str:
    """Whether the claim can be tested here."""
    return found["why_not"] or f"testable: personas add {_share(found['lift'])}"


@of("jailbreak_table")
def axis_jailbreak_sentences(found: dict[str, Any]) -> str:
    """All of it in words."""
    return " ".join(found["sentences"])


def _claimed(found: dict[str, Any]) -> str:
    base = {name: _share(found["base"][name]) for name in ("other_identity", "helper", "coherent")}
    rows: list[tuple[str, ...]] = [("0", "", base["other_identity"], "", "", base["helper"], base["coherent"])]
    for one in found["doses"]:
        beyond = [one["beyond"].get(name, {}).get("other_identity") for name in ("random, equal norm", "random, equal KL")]
        mine = one["axis"]
        rows.append((f"{one['dose']:+g}", f"{one['kl']:.2f}", _share(mine["other_identity"]),
                     *(_share(three) if three else "" for three in beyond), _share(mine["helper"]),
                     _share(mine["coherent"])))  # fmt: skip
    rows.sort(key=lambda row: float(row[0]))
    columns = ("dose, norms", "KL", "claims another identity", "beyond random of that norm", "beyond random of that KL",
               "names a helping trade", "coherent")  # fmt: skip
    counted = {dose: ", ".join(f"{name} {n}" for name, n in one.items()) for dose, one in found["helpers"].items()}
    trades = "; ".join(f"{dose}: {one}" for dose, one in counted.items())
    return _table(columns, rows) + f"\nTrades claimed, in replies: {trades or 'none'}.\n"


@of("self_description")
def axis_claims_table(found: dict[str, Any]) -> str:
    """Who the default model says it is along its axis."""
    return _claimed(found)


@of("self_description_base")
def axis_claims_base_table(found: dict[str, Any]) -> str:
    """Who the base model says it is along its own axis."""
    return _claimed(found)


@of("self_description_base_tuned")
def axis_claims_tuned_table(found: dict[str, Any]) -> str:
    """Who the base model says it is along the axis of its fine-tune."""
    return _claimed(found)


def _at(found: dict[str, Any], dose: float) -> str:
    row = next(one for one in found["doses"] if one["dose"] == dose)
    beyond = _share(row["beyond"]["random, equal norm"]["other_identity"])
    return f"at {dose:+g} norms {_share(row['axis']['other_identity'])}, {beyond} beyond random directions"


@of("self_description")
def claim_identity(found: dict[str, Any]) -> str:
    """Other identities along the axis, both ways."""
    doses = sorted(one["dose"] for one in found["doses"])
    told = "; ".join(_at(found, dose) for dose in doses)
    return f"claims another identity in {_share(found['base']['other_identity'])} as it is; {told}"


@of("self_description_base_tuned")
def claim_base_identity(found: dict[str, Any]) -> str:
    """Helping trades of the base model along the tuned model's axis."""
    doses = [one for one in found["doses"] if one["dose"] > 0]
    told = ", ".join(f"{one['dose']:+g}: {_share(one['axis']['helper'])}" for one in doses)
    return f"the axis of a short fine-tune on chats: names a helping trade in {told} of replies"


@of("place")
def axis_gardener_table(found: dict[str, Any]) -> str:
    """The Gardener at each level: where it lands and what moves it."""
    rows = []
    for name, one in found.items():
        risk = ", ".join(f"{talk} {three[0]:+.4f}" for talk, three in one["drift_risk"].items() if None not in three)
        nearest = ", ".join(row["role"] for row in one["closest"][:3])
        rows.append((name, one["n_words"], _span(*one["axis_position"]), nearest, risk))
    return _table(("persona", "words", "position on the axis", "nearest three characters", "drift per turn, norms"), rows)


@of("place", "gardener-soul")
def axis_gardener_line(found: dict[str, Any]) -> str:
    """Where the Gardener lands."""
    expected = found["expected"]
    ranks = ", ".join(f"{name} {rank}" for name, rank in expected["ranks"].items())
    return (
        f"with its full document it cannot be told from {', '.join(found['nearest'])}; {ranks} of {expected['of']} characters by "
        f"nearness (mean rank {expected['mean_rank']:.0f}, by chance {expected['by_chance']:.0f}, p {expected['p']:.2f}). A "
        f"character's own other half comes to it first in {found['retrieval']['rank_1']:.0%} of cases"
    )


@of("place", "gardener-soul")
def axis_gardener_headline(found: dict[str, Any]) -> str:
    """All of it in words."""
    return found["headline"]
