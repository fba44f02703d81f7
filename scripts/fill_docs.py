"""Write the tables and figures that docs quote from docs/evidence/*.json into their marked places.

    python scripts/fill_docs.py            # rewrite
    python scripts/fill_docs.py --check    # exit 1 when a document differs from its evidence

A place is `<!-- evidence: NAME -->...<!-- /evidence -->`; NAME is a function below.
"""

from __future__ import annotations

import re
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import axis_places
import axis_use_places  # noqa: F401  # adds its places to those of axis_places
import claims_places
import comparison_places
import decomposition_places
import falsify_places
import labels_places
import large_runs_places
import reliability_places
import reports_places
import steering_places
from mixtures_places import mixtures_controls, mixtures_effects, mixtures_table, mixtures_verdict
from sae_places import (
    importers_line,
    sae_excess_table,
    sae_frontier_table,
    sae_seeds_table,
    sae_speed_table,
    saes_table,
)

from workbench.base.store import read_json

ROOT = Path(__file__).resolve().parents[1]
ARMS = ("positive", "neutral", "negative")
PLACE = re.compile(r"<!-- evidence: (\w+) -->(.*?)<!-- /evidence -->", re.DOTALL)


def evidence(topic: str) -> dict[str, Any]:
    """The evidence file of a topic."""
    return read_json(ROOT / "docs" / "evidence" / f"{topic}.json")


def number(value: float | None, digits: int = 2) -> str:
    """A figure, or a dash for what is unknown."""
    return "–" if value is None else f"{value:.{digits}f}"


def span(pair: list[float] | None, digits: int = 2) -> str:
    """An interval in brackets."""
    return "" if not pair or pair[0] is None else f" [{pair[0]:.{digits}f}, {pair[1]:.{digits}f}]"


def demo_minutes() -> str:
    """How long the demo took."""
    return f"about {evidence('main_job')['demo_seconds'] / 60:.0f} minutes"


def main_job_table() -> str:
    """The vector's and the SAE's figures, and the features of largest share."""
    e = evidence("main_job")
    report = e["report"]
    rows = [
        ("held-out AUC, system prompt removed", number(e["auc_stripped"]) + span(e["auc_stripped_interval"])),
        ("rank p among covariance-matched random directions", number(e["auc_rank_p"], 4)),
        ("95th percentile of those directions' AUC", number(e["auc_random_q95"])),
        ("AUC with the system prompt in context", number(e["auc_with_prompt"])),
        ("AUC of a text-only classifier on the same replies", number(e["auc_text_only"])),
        (
            "share of the vector that is the SAE's error",
            number(e["share_error"]) + span(e["share_error_interval"]),
        ),
        ("distance of all shares' sum from 1", f"{e['share_sum_error']:.1e}"),
        (
            "features verified causally / expected by chance",
            f"{e['n_verified']} / {number(e['n_expected_by_chance'])}",
        ),
        ("features moved further than placebos move them (q .05) / by a placebo: median, most", _placebos(report)),
        ("called evil by a blind reader: verified / 30 largest with four answers a cell / 20 random", _blind(e)),
        (
            "SAE on held-out text: variance explained, L0",
            f"{number(e['variance_explained'])}, {number(e['l0'], 1)}",
        ),
        (
            "SAE: cross-entropy recovered, dead features",
            f"{number(e['ce_recovered'], 3)}, {100 * e['dead_share']:.2f}%",
        ),
    ]
    lines = [
        "",
        f"Evil in {report['vector']['hook']} (`docs/evidence/main_job.json`, made by `{e['_made']['command']}`):",
        "",
    ]
    lines += ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows), ""]
    lines += [
        "| feature | label | category | share | cosine with v | own q | causal effect | verified |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in report["features"][:10]:
        causal = number(row["causal_odd"], 3) + span(row["causal_interval"], 3)
        mark = {True: "yes", False: "no", None: "–"}[row["verified"]]
        share = number(row["share"], 3) + span(row["share_interval"], 3)
        lines.append(
            f"| {row['feature']} | {row['label']} | {row['category']} | {share} | {row['cosine']:+.2f} "
            f"| {number(row.get('placebo_q'))} | {causal} | {mark} |"
        )
    return "\n".join(
        [*lines, "", "Negative cosine: evil has *less* of it. Labels: a language model's proposals.", ""]
    )


def _placebos(report: dict[str, Any]) -> str:
    known = report["controls"].get("placebos")
    return "–" if known is None else f"{known['n_specific']} / {known['median']:g}, {max(known['counts'])}"


def _blind(e: dict[str, Any]) -> str:
    return " / ".join(
        number(e[name]) for name in ("blind_evil_share", "blind_evil_share_top", "blind_evil_share_random")
    )


JUDGES = ("offline", "offline-outcome")


def judges_table() -> str:
    """The judges' figures: human-scored files of evil, then traps and held-out replies of every trait."""
    judges = [evidence("judges")["judges"][name] for name in JUDGES]
    return "\n".join(["", *_judge_order(judges), *_judge_at_50(judges), *_judge_traps(judges), *_judge_replies(judges)])


def _grid(columns: list[str], rows: list[list[str]]) -> list[str]:
    lines = [columns, ["---"] * len(columns), *rows]
    return [*(f"| {' | '.join(cells)} |" for cells in lines), ""]


def _stated(row: dict[str, Any], name: str, interval: str) -> str:
    return number(row[name]) + span(row[interval])


def _human_files(judges: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    files = judges[0]["evil"]["human_scored"]
    return [(name, [judge["evil"]["human_scored"][name] for judge in judges]) for name in files]


def _judge_order(judges: list[dict[str, Any]]) -> list[str]:
    rows = [
        [name, f"{both[0]['n']} ({both[0]['n_positive']})", *(_stated(row, "auroc", "interval") for row in both),
         number(both[0]["length_only_auroc"]), *(_stated(row, "spearman", "spearman_interval") for row in both)]
        for name, both in _human_files(judges)
    ]  # fmt: skip
    columns = [f"AUROC: {JUDGES[0]}", JUDGES[1], "length alone", f"Spearman: {JUDGES[0]}", JUDGES[1]]
    return _grid(["human-scored file (evil)", "n (harmful)", *columns], rows)


def _judge_at_50(judges: list[dict[str, Any]]) -> list[str]:
    def cells(row: dict[str, Any]) -> list[str]:
        sides = [_stated(row, f"{side}_at_50", f"{side}_interval") for side in ("sensitivity", "specificity")]
        return [_stated(row["calibration"], "ece", "ece_interval"), *sides]

    columns = [name for judge in JUDGES for name in (f"{judge}: ECE", "sensitivity at 50", "specificity at 50")]
    rows = [[name, *cells(both[0]), *cells(both[1])] for name, both in _human_files(judges)]
    return [*_grid(["human-scored file (evil)", *columns], rows), _judge_in_words(judges), ""]


def _judge_in_words(judges: list[dict[str, Any]]) -> str:
    passing, ordinary = [], []
    for name, judge in zip(JUDGES, judges, strict=True):
        rows = judge["evil"]["human_scored"].values()
        harmful = statistics.median(row["sensitivity_at_50"] for row in rows)
        harmless = statistics.median(1 - row["specificity_at_50"] for row in rows)
        passing.append(f"{name} {number(harmful)} of the harmful replies and {number(harmless)} of the others")
        passed, n = judge["evil"]["held_out_replies"]["sampled_ordinary_at_50_or_more"]
        ordinary.append(f"{name} {passed} of {n}")
    return (
        f"At 50 or more for evil, in the median file: {'; '.join(passing)}. Of ordinary replies of a small model that nobody "
        f"asked for evil: {', '.join(ordinary)}."
    )


def _passing(row: dict[str, Any], *, intervals: bool = False) -> str:
    sides = ("trait", "other")
    return " / ".join(
        number(row[f"{side}_at_50_or_more"]) + (span(row[f"{side}_at_50_interval"]) if intervals else "") for side in sides
    )


def _judge_traps(judges: list[dict[str, Any]]) -> list[str]:
    columns = [f"pair accuracy: {JUDGES[0]}", JUDGES[1], f"at 50 or more, with / without: {JUDGES[0]}", JUDGES[1]]
    rows = []
    for trait, row in judges[0].items():
        both = [judge[trait]["traps"] for judge in judges]
        mark = "yes" if row["validated"] else "none: **unvalidated**"
        pairs = [_stated(one, "pair_accuracy", "interval") for one in both]
        rows.append([f"{trait} ({both[0]['n']} traps)", mark, *pairs, *(_passing(one, intervals=True) for one in both)])
    kinds = []
    for kind, row in judges[0]["evil"]["traps"]["by_kind"].items():
        both = [judge["evil"]["traps"]["by_kind"][kind] for judge in judges]
        kinds.append([f"{kind} ({row['n']})", *(number(one["pair_accuracy"]) for one in both), *map(_passing, both)])
    return [*_grid(["trait", "human-scored set", *columns], rows), *_grid(["kind of trap (evil)", *columns], kinds)]


def _judge_replies(judges: list[dict[str, Any]]) -> list[str]:
    rows = []
    for trait in judges[0]:
        both = [judge[trait]["held_out_replies"] for judge in judges]
        errors = [_stated(row["calibration"], "ece", "ece_interval") for row in both]
        rows.append([f"{trait} ({both[0]['n']})", *(_stated(row, "auroc", "interval") for row in both), *errors])
    columns = [name for what in ("AUROC", "ECE") for name in (f"{what}: {JUDGES[0]}", JUDGES[1])]
    return _grid(["held-out written replies (n)", *columns], rows)


def personas_table() -> str:
    """All traits side by side."""
    e = evidence("personas")
    lines = [
        "",
        f"{e['model']} (`docs/evidence/personas.json`, made by `{e['_made']['command']}`):",
        "",
        "| trait | block | held-out AUC | rank p | random 95% | placebo 95% | text-only | d | odd at 0.5 "
        "| odd at 1.0 (random) | r across | r within | passes | judge |",
        "|" + "---|" * 14,
    ]
    for trait, row in e["traits"].items():
        half = (row.get("causal") or {}).get("0.5") or {}
        judge = _filtered_by(row)
        cells = [
            *_separability_cells(trait, row),
            number(half.get("odd"), 3),
            _odd_at_one(row),
            number(row["monitor_r_across"]) + _weak_judge(trait, row),
            number(row["monitor_r_within"]) + _weak_judge(trait, row),
            "yes" if row["passes"] else "no",
            judge,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


UNVALIDATED = " (unvalidated)"


def _filtered_by(row: dict[str, Any]) -> str:
    """The judge that filtered a trait's rows, marked where nobody validated it for the trait."""
    return row["judge"] + (UNVALIDATED if row["judge_validated"] is False else "")


def _scored(trait: str, judge: str | None, shown: str) -> str:
    """A figure that rests on a judge's scores, marked where nobody validated that judge for the trait."""
    if judge is None or shown == number(None):
        return shown
    return shown + ("" if evidence("judges")["judges"][judge][trait]["validated"] else UNVALIDATED)


def _weak_judge(trait: str, row: dict[str, Any]) -> str:
    """A mark behind figures whose outcome judge orders fewer than three quarters of the trait's trap pairs rightly."""
    if row["monitor_r_across"] is None:
        return ""
    measured = evidence("judges")["judges"][row["outcome_judge"]][trait]["traps"]
    return "†" if measured["pair_accuracy"] < 0.75 else ""


def controls_table() -> str:
    """What else stands beside each vector: kept rows, A/A, control pairs, monitoring's own null, sensitivity."""
    lines = [
        "",
        "| trait | kept rows: positive / neutral / negative | cosine filtered, unfiltered | A/A length | split-half "
        "| odd at 1.0 less control pairs | damage at 1.0 | r with the filter's score inside the positive arm "
        "| r across: interval (placebo 95%) | r within: interval (placebo 95%) | nearest placebo | cosine below .9 |",
        "|" + "---|" * 12,
    ]
    for trait, row in evidence("personas")["traits"].items():
        kept = row["kept_counts"]
        at_one = (row.get("causal") or {}).get("1.0") or {}
        monitored = [
            _scored(
                trait,
                row.get("outcome_judge"),
                span(row.get(f"monitor_{kind}_interval")).strip() + f" ({number(row.get(f'monitor_{kind}_placebo_q95'))})",
            )
            for kind in ("r_across", "r_within")
        ]
        low = {name: row["sensitivity"][name] for name in row["sensitivity"]["warnings"]}
        cells = [
            trait,
            " / ".join(f"{kept[arm]['kept']} of {kept[arm]['rows']}" for arm in ARMS if arm in kept),
            number(row["cosine_filtered_unfiltered"]),
            number(row["aa_norm_ratio"]),
            number(row["split_half_cosine"]),
            number(at_one.get("specific"), 3),
            number(at_one.get("damage"), 3),
            number(row["judge_correlation_within_positive"]) + (UNVALIDATED if row["judge_validated"] is False else ""),
            *monitored,
            f"{row['nearest_placebo']} ({row['cosine_nearest']:+.2f})",
            ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in low.items()) or "none",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def common_table() -> str:
    """The same at the block of the shipped SAE."""
    whole = evidence("personas")["traits"]
    traits = {trait: row["common"] or row for trait, row in whole.items()}
    lines = [
        "",
        "| trait | block | held-out AUC | rank p | random 95% | placebo 95% | text-only | d | odd at 1.0 (random) | passes "
        "| judge |",
        "|" + "---|" * 11,
    ]
    for trait, row in traits.items():
        cells = [
            *_separability_cells(trait, row),
            _odd_at_one(row),
            "yes" if row["passes"] else "no",
            _filtered_by(whole[trait]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, _verdict(traits)])


def _odd_at_one(row: dict[str, Any]) -> str:
    """The odd effect at one median norm, with the middle 95% of random directions."""
    one = (row.get("causal") or {}).get("1.0") or {}
    low, high = one.get("random_interval") or (None, None)
    return f"{number(one.get('odd'), 3)} ({number(low, 3)}, {number(high, 3)})"


def personas_verdict() -> str:
    """How many traits meet which bar at their own blocks, by name."""
    return _verdict(evidence("personas")["traits"])


def fixed_questions() -> str:
    """For which traits the aim would be met if only instructions and extraction questions were drawn."""
    traits = evidence("personas")["traits"]
    met = [name for name, row in traits.items() if row["auc_interval_fixed_questions"][0] > row["auc_random_q95"]]
    return f"{len(met)} of {len(traits)}" + (f" ({', '.join(met)})" if met else "")


def unfiltered_table() -> str:
    """Every vector with and without the judge's filter, at its own block and at the common one."""
    traits = evidence("personas")["traits"]
    lines = [
        "",
        "| trait | block | filtered: AUC | rank p | passes | unfiltered: AUC | rank p | random 95% | placebo 95% | passes |",
        "|" + "---|" * 10,
    ]
    for trait, row in traits.items():
        for one in (row, row["common"]):
            if one is not None:
                lines.append("| " + " | ".join(_both_filters(trait, one)) + " |")
    own, common = list(traits.values()), [row["common"] or row for row in traits.values()]
    block = common[0]["hook"].split(".")[1]

    def passing(rows: list[dict[str, Any]]) -> tuple[int, int]:
        return sum(bool(row["passes"]) for row in rows), sum(bool(row["unfiltered"]["passes"]) for row in rows)

    (kept, bare), (kept_common, bare_common) = passing(own), passing(common)
    hurt = [name for name, row in traits.items() if row["unfiltered"]["auc"] > row["auc_stripped"]]
    clear = [name for name, row in traits.items() if row["unfiltered"]["auc_interval"][0] > row["unfiltered"]["random_q95"]]
    clear_names = f" ({', '.join(clear)})" if clear else ""
    told = [name for name, row in traits.items() if row["unfiltered"]["auc"] > _text_only(row) and row["unfiltered"]["passes"]]
    return "\n".join(
        [
            *lines,
            "",
            f"At their own blocks {kept} of {len(own)} vectors pass with the filter and {bare} of {len(own)} without it; at "
            f"block {block} {kept_common} with it and {bare_common} without. At its own block the AUC is higher without the "
            f"filter for {len(hurt)} of {len(own)} ({', '.join(hurt)}); unfiltered {len(told)} of {len(own)} pass and are better "
            f"than every text-only classifier ({', '.join(told)}), and {len(clear)} of {len(own)} have an interval wholly above "
            f"the random directions' 95th percentile{clear_names}.",
            "",
        ]
    )


def _both_filters(trait: str, row: dict[str, Any]) -> list[str]:
    bare = row["unfiltered"]
    return [
        trait,
        row["hook"].split(".")[1],
        number(row["auc_stripped"]) + span(row["auc_interval"]),
        number(row["auc_rank_p"], 4),
        "yes" if row["passes"] else "no",
        number(bare["auc"]) + span(bare["auc_interval"]),
        number(bare["rank_p"], 4),
        number(bare["random_q95"]),
        number(bare["placebo_q95"]),
        "yes" if bare["passes"] else "no",
    ]


def _verdict(traits: dict[str, Any]) -> str:
    def names(key: str) -> str:
        held = [trait for trait, row in traits.items() if row[key]]
        return f"{len(held)} of {len(traits)}" + (
            f" ({', '.join(held)})" if 0 < len(held) < len(traits) else ""
        )

    winners = [row for row in traits.values() if row["beats_text"]]
    margins = [row["auc_stripped"] - _text_only(row) for row in winners]
    below = [row["auc_stripped"] - row["auc_interval"][0] for row in winners]
    within = (
        f", by at most {number(max(margins), 3)}, where the intervals reach {number(min(below), 3)} or more below the AUC"
        if winners
        else ""
    )
    return (
        f"\nRank p at most .01, interval above .5 and above the placebos: {names('passes')}. Interval wholly above the 95th "
        f"percentile of random directions (the aim): {names('above_random_q95')}. Passing, and better than every text-only "
        f"classifier on the same replies: {names('beats_text')}{within}.\n"
    )


def _separability_cells(trait: str, row: dict[str, Any]) -> list[str]:
    """The columns that both tables of all traits begin with."""
    return [
            trait,
            row["hook"].split(".")[1],
            number(row["auc_stripped"]) + span(row["auc_interval"]),
            number(row["auc_rank_p"], 4),
            number(row["auc_random_q95"]),
            number(row["auc_placebo_q95"]),
            number(_text_only(row)),
            number(row["effect_size"]),
    ]


def _text_only(row: dict[str, Any]) -> float:
    known = [row.get(name) for name in ("auc_text_only", "auc_length_only", "auc_embedding")]
    return max(value for value in known if value is not None)


def outcomes_table() -> str:
    """The judge-free outcomes of the two traits that have one."""
    lines = [
        "",
        "| outcome (no judge, **unvalidated**: nobody scored replies for these traits) | positive instructions "
        "| negative instructions | difference |",
        "|---|---|---|---|",
    ]
    for trait, row in evidence("personas")["traits"].items():
        for name, one in (row.get("judge_free") or {}).items():
            if isinstance(one, dict):
                low = number(one["difference"], 3) + span(one["interval"], 3)
                lines.append(
                    f"| {trait}: {name} | {number(one['positive'], 3)} | {number(one['negative'], 3)} | {low} |"
                )
    return "\n".join([*lines, ""])


def geometry_table() -> str:
    """What the vectors share, and whose vector predicts whose rows and scores best."""
    g, rows = (evidence("personas")[name] for name in ("geometry", "traits"))
    lines = [
        "",
        "| trait | share of v along the shared direction | AUC of its own vector | best vector for its rows "
        "| without the shared part | r of its own vector with its score | best vector for its score |",
        "|" + "---|" * 7,
    ]
    for i, trait in enumerate(g["traits"]):
        by_rows, by_score, bare = (
            g[f"own_wins_{name}"][trait] for name in ("auc", "correlation", "auc_minus_shared")
        )
        cells = [trait, number(g["shared_share"][i]), number(by_rows["own"]), _winner(by_rows),
                 f"{number(bare['own'])}, {_winner(bare)}",
                 _scored(trait, rows[trait]["outcome_judge"], number(by_score["own"])), _winner(by_score)]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    wins = [sum(bool(one["own_wins"]) for one in g[f"own_wins_{name}"].values()) for name in ("auc", "correlation")]
    return "\n".join(
        [
            *lines,
            "",
            f"A trait's own vector is the best of the seven for its rows in {wins[0]} of {len(g['traits'])} cases, for its score "
            f"in {wins[1]}. Mean share along the shared direction: {number(g['shared_share_mean'])}; sets of as many placebo "
            f"vectors have {number(g['shared_share_placebo_mean'])} (95th percentile "
            f"{number(g['shared_share_placebo_mean_q95'])}), orthogonal ones {number(g['shared_share_orthogonal'])}. "
            f"95th percentile of the cosine between a trait and a placebo: "
            f"{number(g['placebo_cosine_q95'])}.",
            "",
        ]
    )


def _winner(one: dict[str, Any]) -> str:
    if one["own_wins"] is None:
        return "–"
    return "its own" if one["own_wins"] else f"{one['best_vector']} ({number(one['best'])})"


def methods_table() -> str:
    """Extraction methods side by side, for the first trait compared."""
    lines = []
    for trait, found in evidence("methods")["methods"].items():
        lines += [
            "",
            f"**{trait}**",
            "",
            "| method | read at | AUC | d | odd at 1.0 | of the pattern | split-half | seeds | cosine with "
            "the default |",
            "|" + "---|" * 9,
        ]
        for row, cosine in zip(found["rows"], found["cosines"][0], strict=True):
            causal, pattern = row["causal"] or {}, row.get("causal_pattern") or {}
            odd = (causal.get("1.0") or {}).get("odd")
            site = row["hook"].split(".", 2)[2].replace("hook_", "")
            where = f"{row['position']}, {site}{', rows of length 1' if row['normalised'] else ''}"
            cells = [
                row["method"],
                where,
                number(row["auc"]) + span(row["auc_interval"]),
                number(row["effect_size"]),
                number(odd, 3),
                number((pattern.get("1.0") or {}).get("odd"), 3),
                number(row["split_half_cosine"]),
                number(row["seed_cosine"]),
                number(cosine),
            ]
            lines.append("| " + " | ".join(cells) + " |")
        for hook, spread in found["causal_random"].items():
            lines += ["", f"Random directions pushed at {hook}: odd at 1.0{span(spread['1.0'], 3)}."]
    return "\n".join([*lines, ""])


def layers_line() -> str:
    """Which block each criterion chooses."""
    rows = [
        f"{trait}: {found['chosen']['separability']} by separability, {found['chosen']['causal']} by causal effect"
        for trait, found in evidence("methods")["layers"].items()
    ]
    return "\n" + "; ".join(rows) + ".\n"


def second_family_line() -> str:
    """How far the traits separate in the second model."""
    other = evidence("personas")["second_model"]
    areas = {trait: row["auc_stripped"] for trait, row in other["traits"].items()}
    n_clear = sum(row["auc_rank_p"] <= 0.01 for row in other["traits"].values())
    hooks = sorted({row["hook"] for row in other["traits"].values()})
    return (
        f"held-out AUC {min(areas.values()):.2f} to {max(areas.values()):.2f} at {', '.join(hooks)}, rank p at most .01 for "
        f"{n_clear} of {len(areas)}"
    )


def transfer_table() -> str:
    """Carried vectors against their nulls."""
    t = evidence("transfer")["transfer"]
    carried, drawn = t["carried"], t["pushed"]
    lines = [
        "",
        "| trait | cosine of the carried vector with the target's own | permuted segments, 95% | carried placebos, 95% (p) "
        f"| rank among the target's vectors | odd, carried | less control pairs | carried placebos (bound from "
        f"{drawn['n_placebos_at_most']}) | odd, own | random (bound from {drawn['n_random']}) |",
        "|" + "---|" * 10,
    ]
    for trait, row in carried["traits"].items():
        did = t["behaviour"].get(trait) or {}
        moved, own = (did.get(name) or {} for name in ("carried", "own"))
        cells = [
            trait,
            number(row["cosine"], 3),
            f"{number(row['null_q95'], 3)} ({number(row['p_permuted'], 3)})",
            f"{number(row['placebo_q95'], 3)} ({number(row['p_placebo'], 2)})",
            str(row["rank"]),
            number(moved.get("odd")),
            number(moved.get("specific")) + span(moved.get("specific_interval")),
            span(moved.get("placebo_interval")).strip(),
            number(own.get("odd")),
            span(moved.get("random_interval")).strip(),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    used, fit, asked = t["similarity_used"], carried["map"], t["shared_questions"]
    placebo = carried["placebo_retrieval"]
    lines += [
        "",
        f"From {t['source_hook']} to {t['target_hook']} (the block whose segments are represented most alike; no vector takes "
        f"part in that choice). There CKA is {number(used['cka'])} and RSA {number(used['rsa'])} (95th percentile of permuted "
        f"segments {number(used['cka_permuted_q95'], 3)} and {number(used['rsa_permuted_q95'], 3)}); over the shared "
        f"questions, each model's own answers, {number(asked['cka'])} and {number(asked['rsa'])}. The map, fitted on "
        f"{fit['n_segments']:,} segments, explains {100 * fit['r2_held_out']:.0f}% of the variance of others (fitted on "
        f"permuted ones {100 * fit['r2_permuted']:.0f}%). The nearest of the target's own vectors is the right one for "
        f"{100 * carried['retrieval']:.0f}% of the carried traits (chance {100 * carried['chance']:.0f}%) and for "
        f"{'–' if placebo is None else f'{100 * placebo:.0f}%'} of the {carried['n_placebos']} carried placebos "
        f"(chance {100 / max(1, carried['n_placebos']):.0f}%). Mean cosine with the own counterpart: traits "
        f"{number(carried['mean_matched'])}, placebos {number(carried['placebo_mean_matched'])}.",
        "",
        _pushed(t),
        "",
    ]
    return "\n".join(lines)


def _pushed(t: dict[str, Any]) -> str:
    """How many directions were pushed, and how many traits went beyond all of them."""
    did = [row for row in t["behaviour"].values() if row]
    n_random, n_placebos = ({row["carried"][key] for row in did} for key in ("n_random", "n_placebos"))
    n = [max(n_random), max(n_placebos)]
    carried, own = ([_beyond(row[name], "p", "n_random") for row in did] for name in ("carried", "own"))
    placebos = [_beyond(row["carried"], "p_placebo", "n_placebos") for row in did]
    return (
        f"Pushed at {t['pushed']['dose']:g} median norms on the sealed pairs, beside {n[0]} random directions and "
        f"{'at most ' * (len(n_placebos) > 1)}{n[1]} carried placebos per trait. Toward the trait by more than every random "
        f"direction: the carried vector for {sum(carried)} of {len(did)} traits, the target's own for {sum(own)} (by chance at "
        f"most {number(len(did) / (n[0] + 1), 1)}). By more than every carried placebo: the carried vector for {sum(placebos)} "
        f"(by chance at most {number(len(did) / (n[1] + 1), 1)}). A bound is the middle 95% of so few draws, either side alike: "
        f"it lies within the largest of them, so that an effect outside the bound need not beat them all."
    )


def _beyond(row: dict[str, Any], p: str, n: str) -> bool:
    """Whether no direction of the null reaches the effect, in either direction."""
    return row[p] is not None and row[p] < 1.5 / (row[n] + 1)


def foreign_line() -> str:
    """The imported trait."""
    f = evidence("personas")["foreign_trait"]
    return (
        f"held-out AUC {number(f['auc_stripped'])}{span(f['auc_stripped_interval'])}, rank p {number(f['auc_rank_p'], 4)}, "
        f"95th percentile of random directions {number(f['auc_random_q95'])}, words alone {number(f['auc_text_only'])}"
    )


def resume_line() -> str:
    """Killed and resumed runs."""
    return evidence("personas")["kill_resume_identical"]


def scale_table() -> str:
    """Planned and measured memory and time of random models."""
    e = evidence("scale")
    lines = [
        "",
        "| shape | parameters | budget | peak, planned | measured | time, planned | measured | processor, planned | measured |",
        "|" + "---|" * 9,
    ]
    for name, row in e["shapes"].items():
        plan, done = row["planned"], row["measured"]
        sizes = [value / 2**30 for value in (row["max_memory"], plan["memory"]["peak"], done["peak"])]
        seconds = [one[key] for key in ("seconds", "processor_seconds") for one in (plan, done)]
        lines.append(
            f"| {name} | {plan['n_parameters'] / 1e9:.2f} billion | "
            + " | ".join([*(f"{size:.2f} GiB" for size in sizes), *(f"{value:.0f} s" for value in seconds)])
            + " |"
        )
    return "\n".join([*lines, ""])


def speed_table() -> str:
    """The speed ratios."""
    e = evidence("main_job")
    rows = {
        "capture against the bare model stopped at the same block": e["capture_vs_bare"],
        "capture at all blocks against one rollout at a time": e["capture_vs_naive"],
        "sampling with fused capture against sampling and a second pass": e["fused_vs_two_passes"],
    }
    body = [f"| {name} | {value:.2f} |" for name, value in rows.items()]
    return "\n".join(["", "| ratio (above 1: faster) | |", "|---|---|", *body, ""])


PLACES: dict[str, Callable[[], str]] = {
    function.__name__: function
    for function in (
        demo_minutes,
        main_job_table,
        judges_table,
        personas_table,
        personas_verdict,
        common_table,
        unfiltered_table,
        fixed_questions,
        controls_table,
        outcomes_table,
        geometry_table,
        methods_table,
        layers_line,
        transfer_table,
        second_family_line,
        foreign_line,
        resume_line,
        scale_table,
        speed_table,
        saes_table,
        sae_excess_table,
        sae_frontier_table,
        sae_seeds_table,
        sae_speed_table,
        importers_line,
        *comparison_places.PLACES,
        *decomposition_places.PLACES,
        *falsify_places.PLACES,
        *labels_places.PLACES,
        *large_runs_places.PLACES,
        *reliability_places.PLACES,
        *reports_places.PLACES,
        *steering_places.PLACES,
        *claims_places.PLACES,
        *axis_places.PLACES,
        mixtures_effects,
        mixtures_table,
        mixtures_controls,
        mixtures_verdict,
    )
}


def filled(text: str) -> str:
    """The document with every place rewritten; whitespace around short values is not added."""
    return PLACE.sub(
        lambda match: f"<!-- evidence: {match[1]} -->{PLACES[match[1]]()}<!-- /evidence -->", text
    )


def main() -> int:
    changed = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = path.read_text(encoding="utf-8")
        if (new := filled(text)) != text:
            changed.append(path)
            if "--check" not in sys.argv:
                path.write_text(new, encoding="utf-8")
    for path in changed:
        print(path.relative_to(ROOT))
    return 1 if changed and "--check" in sys.argv else 0


if __name__ == "__main__":
    raise SystemExit(main())
