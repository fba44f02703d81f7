"""The places in docs/axis.md and docs/claims.md that docs/evidence/axis.json fills: see fill_docs.py.

A part that was not measured yet says so.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from workbench.base.store import read_json

EVIDENCE = Path(__file__).resolve().parents[1] / "docs" / "evidence" / "axis.json"
PLACES: list[Callable[[], str]] = []
Write = Callable[[Any], str]


def of(*path: str) -> Callable[[Write], Callable[[], str]]:
    """The place is written from what stands in the file under these keys, one in the other."""

    def decorate(write: Write) -> Callable[[], str]:
        @wraps(write)
        def place() -> str:
            found: Any = read_json(EVIDENCE) if EVIDENCE.is_file() else {}
            for key in path:
                found = (found or {}).get(key)
            return write(found) if found else "not measured yet (`make evidence TOPIC=axis`)"

        PLACES.append(place)
        return place

    return decorate


def _span(value: float, low: float, high: float, digits: int = 2) -> str:
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _table(columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    return "\n" + "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)]) + "\n"


@of("map", "space")
def axis_component_line(found: dict[str, Any]) -> str:
    """absolute cosine of axis and first component, at the SAE's block and over all, and its null."""
    null, low_high = found["cos_axis_pc1_null"], found["cos_axis_pc1_interval"]
    above = [one for one in found["blocks"] if one["cos"] > one["null_q95"]]
    strong = [one for one in found["blocks"] if one["cos"] > 0.6]
    least = 1 / (found["n_roles"] + 1)
    return (
        f"absolute cosine of the axis and the first component at {found['hook']} is {_span(found['cos_axis_pc1'], *low_high)}; "
        f"axes of single characters stay below {null['null_q95']:.2f} (95%; p {null['p']:.3f}; the least that {found['n_roles']} "
        f"characters allow is {least:.3f}). {_equal(found)}It is above .6 at {len(strong)} of {len(found['blocks'])} blocks, and "
        f"above the 95% of single characters at {len(above)}"
    )


def _equal(found: dict[str, Any]) -> str:
    """The same with as many answers of the default as a character has, and without the characters of the published ends."""
    told, equal = "", (found.get("sensitivity") or {}).get("equal_answers")
    if equal and equal["n_answers"] < equal["n_default"]:
        told += (
            f"But the default answered {equal['n_default']} times: from {equal['n_answers']} answers, as many as a character "
            f"has, it is {equal['cos']:.2f} ({equal['lowest']:.2f} to {equal['highest']:.2f} by prompt; p {equal['p']:.3f}). "
        )
    if others := (found.get("sensitivity") or {}).get("without_ends"):
        told += (
            f"Without the {found['n_roles'] - others['n_roles']} characters that were taken from the published ends it is "
            f"{_span(others['cos'], *others['interval'])} (p {others['p']:.3f}). "
        )
    return told


@of("map", "space")
def axis_ends_line(found: dict[str, Any]) -> str:
    """Whether the published ends are the ends here."""
    ends = found["ends"]
    most = f" (at most {ends['highest']:.2f})" if ends.get("highest") else ""
    return (
        f"rank correlation {ends['rank_correlation']:.2f}{most} with the published ends (AUC {ends['auc']:.2f} of "
        f"{ends['n_near']} against {ends['n_far']}, p {ends['p']:.4f})"
    )


@of("map", "space")
def axis_ranking_table(found: dict[str, Any]) -> str:
    """The characters at both ends, with intervals."""

    def cell(one: dict[str, Any]) -> str:
        return f"{one['role'].replace('_', ' ')} {one['position']:+.2f} [{one['low']:+.2f}, {one['high']:+.2f}]"

    near, far = found["ranking"][:10], found["ranking"][::-1][:10]
    return _table(("toward the assistant", "away from it"), [(cell(a), cell(b)) for a, b in zip(near, far, strict=True)])


@of("map", "space")
def axis_space_line(found: dict[str, Any]) -> str:
    """Components, and how much of the spread is noise."""
    centred, noise = found["variance"]["centred"], found["variance"]["noise"]
    at = ", ".join(f"{value:.1f} at {n} characters" for n, value in found["variance"]["n_for_70_at"].items())
    return (
        f"The first component holds {centred['shares'][0]:.0%}, {centred['n_for_70']} hold 70% ({at}; standardised "
        f"{found['variance']['standardised']['n_for_70']}). Two halves of the questions agree with a reliability of "
        f"{noise['reliability']:.2f}: {noise['noise_share']:.0%} of the spread is sampling noise, and {noise['n_above_noise']} "
        f"components stand above it"
    )


@of("map", "space")
def axis_clusters_line(found: dict[str, Any]) -> str:
    """Whether there are five clusters."""
    clusters = found["clusters"]
    five = clusters["stability"].get("5")
    stable = f"; five are redrawn with an adjusted Rand index of {five['ari']:.2f}, and a cloud without any of " \
             f"{five['null_ari']:.2f}" if five else ""  # fmt: skip
    return f"the gap statistic chooses {clusters['k']}{stable}"


@of("map", "space")
def axis_adherence_line(found: dict[str, Any]) -> str:
    """How the offline grade does, and what the filter changes."""
    one = found["adherence"]["validation"]
    return (
        f"Grade 3 goes to {one['rate_own']:.0%} of the characters' own answers, {one['rate_swapped']:.0%} of answers of other "
        f"characters and {one['rate_default']:.0%} of the default's (AUC {one['auc_default']:.2f} against the default). "
        f"{found['n_rollouts']:,} answers are kept; the axis with and without the filter has cosine "
        f"{found['cosine_filtered_unfiltered']:.4f}"
    )


@of("map", "space", "traits")
def axis_traits_table(found: dict[str, Any]) -> str:
    """The seven traits in the same space."""
    rows = [
        (one["trait"], f"{one['cos_axis']:+.2f}", f"{one['p']:.2f}", f"{one['in_space']:.0%}",
         ", ".join(near["role"].replace("_", " ") for near in one["nearest"][:3]))
        for one in found["vectors"]
    ]  # fmt: skip
    null = found["null"]
    told = f"\nOf {null['n']} placebo contrasts 95% have |cos| below {null['cos_axis_q95']:.2f}.\n"
    columns = ("trait", "cosine with the axis", "p among placebos", "of it in the space of characters", "nearest")
    return _table(columns, rows) + told


@of("map", "decomposed", "assistant-axis")
def axis_parts_table(found: dict[str, Any]) -> str:
    """What the axis is made of."""
    rows = [
        (one["feature"], one["label"] or "–", f"{one['share']:.1%} [{one['share_low']:.1%}, {one['share_high']:.1%}]")
        for one in found["features"][:8]
    ]
    low, high = found["share_error_interval"]
    told = (
        f"\nThe SAE's error holds {found['share_error']:.0%} [{low:.0%}, {high:.0%}]; {found['n_specific']} features differ more "
        f"than they do in placebo contrasts.\n"
    )
    return _table(("feature", "label", "share of the axis"), rows) + told


def _alike(found: dict[str, Any]) -> str:
    """How alike two spaces are, each figure with what permuted characters give."""
    measures = {"positions": "rank correlation of positions on the axes",
                "first_component": "absolute correlation of the first components",
                "rsa": "correlation of distances"}  # fmt: skip
    told = []
    for name, words in measures.items():
        one = found[name]
        told.append(f"{words} {_span(one['value'], *one['interval'])} (permuted 95%: {one['null_q95']:.2f}, p {one['p']:.3f})")
    return "; ".join(told)


@of("map", "compared")
def axis_models_line(found: dict[str, Any]) -> str:
    """The two families side by side."""
    carried = found["carried"]
    return (
        f"{_alike(found)}; the axis, carried over by a linear map of the characters, has cosine {carried['cos']:.2f} with the "
        f"other's own (permuted 95%: {carried['null_q95']:.2f}, p {carried['p']:.3f})"
    )


@of("map", "compared_tuned")
def axis_tuned_line(found: dict[str, Any]) -> str:
    """Before and after the fine-tune."""
    axes = found["axes"]
    null = f"axes of the same single character, 95%: {axes['null_q95']:.3f}"
    return f"{_alike(found)}; cosine of the axes {axes['cos']:.3f} ({null})"


def _alone(found: dict[str, Any]) -> str:
    ends, null = found["ends"], found["cos_axis_pc1_null"]
    return (
        f"rank correlation {ends['rank_correlation']:.2f} with the published ends (p {ends['p']:.2g}); absolute cosine of its "
        f"axis and first component {_span(null['cos'], *null['interval'])} (single characters 95%: {null['null_q95']:.2f}), "
        f"{found['pcs_for_70']} components for 70%"
    )


@of("map", "other")
def axis_other_line(found: dict[str, Any]) -> str:
    """The space of the base model by itself."""
    return _alone(found)


@of("map", "tuned")
def axis_tuned_alone_line(found: dict[str, Any]) -> str:
    """The space of the base model after its fine-tune, by itself."""
    return _alone(found)


@of("drift_speed")
def axis_drift_line(found: dict[str, Any]) -> str:
    """Speeds per domain."""
    told = ", ".join(f"{name} {_span(*three, digits=4)}" for name, three in found.items())
    return f"drift per turn in median token norms (negative: away from the assistant): {told}"


@of("drift", "domains")
def axis_drift_headline(found: dict[str, Any]) -> str:
    """What the drift of the domains comes to, with its nulls."""
    return f"{found['headline']} ({found['n_conversations']} conversations, {found['n_replies']} replies)"


@of("drift", "domains")
def axis_drift_ratio_line(found: dict[str, Any]) -> str:
    """The ratios to coding, or why there are none."""
    told = []
    for group, row in found["compared"].items():
        one = row["drift_per_turn"]
        ratio = one["ratio"]
        told.append(f"{group}: {_span(ratio['value'], *ratio['interval'])}" if ratio else f"{group}: {one['why']}")
    return "ratio to coding: " + "; ".join(told)


@of("drift", "features")
def axis_moved_table(found: dict[str, Any]) -> str:
    """The features that carry most of the drift of the last turns, by domain."""
    rows = []
    for domain, both in found.items():
        for one in both["history"]["features"][:3]:
            part = _span(one["part"], *one["interval"], digits=4) if one["interval"] else f"{one['part']:.4f}"
            rows.append((domain, one["feature"], one["label"] or "(no label)", part, f"{one['p_random']:.2f}",
                         "" if one["p_placebo"] is None else f"{one['p_placebo']:.2f}"))  # fmt: skip
    return _table(("domain", "feature", "label", "part of the drift, norms", "p among random directions", "among placebos"), rows)


@of("drift", "prediction")
def axis_prediction_line(found: dict[str, Any]) -> str:
    """The position from the user's message."""
    told = []
    for name, one in found.items():
        null, beyond = f"permuted 95%: {one['null_q95']:.2f}, p {one['p']:.3f}", _span(one["beyond"], *one["beyond_interval"])
        told.append(f"{name} R² {_span(one['r2'], *one['interval'])} ({null}), beyond the domain's mean {beyond}")
    return "; ".join(told)


@of("drift", "alarm")
def axis_alarm_line(found: dict[str, Any]) -> str:
    """What the alarm says of replies of each domain."""
    groups = {name: one["replies"] for name, one in found["groups"].items()}
    rates = {name: (one["rate"], *one["interval"]) for name, one in groups.items()}
    told = ", ".join(f"{name} {rate:.0%} [{low:.0%}, {high:.0%}]" for name, (rate, low, high) in rates.items())
    return f"set to alarm in {found['alarm']['rate']:.0%} of those replies, it does in {told}"


@of("drift", "levels")
def axis_levels_table(found: dict[str, Any]) -> str:
    """One persona at four levels of specification, in two kinds of talk."""
    rows = []
    for domain, one in found.items():
        for name, group in one["groups"].items():
            effect, against = group["effects"]["drift_per_turn"], (one["compared"].get(name) or {}).get("drift_per_turn")
            less = against and _span(against["difference"]["value"], *against["difference"]["interval"], digits=4)
            rows.append((domain, name, _span(effect["value"], *effect["interval"], digits=4), f"{effect['p_random']:.2f}",
                         less or ""))  # fmt: skip
    reference = next(iter(found.values()))["reference"]
    columns = ("talk", "persona", "drift per turn, norms", "p among random directions", f"less that of {reference}")
    return _table(columns, rows)
