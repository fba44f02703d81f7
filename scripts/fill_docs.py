"""Write the tables and figures that docs quote from docs/evidence/*.json into their marked places.

    python scripts/fill_docs.py            # rewrite
    python scripts/fill_docs.py --check    # exit 1 when a document differs from its evidence

A place is `<!-- evidence: NAME -->...<!-- /evidence -->`; NAME is a function below.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workbench.base.store import read_json

ROOT = Path(__file__).resolve().parents[1]
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
        ("called evil by a blind reader: verified / 30 largest / 20 random", _blind(e)),
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
        "| feature | label | category | share | cosine with v | causal effect | verified |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in report["features"][:10]:
        causal = number(row["causal_odd"], 3) + span(row["causal_interval"], 3)
        mark = {True: "yes", False: "no", None: "–"}[row["verified"]]
        share = number(row["share"], 3) + span(row["share_interval"], 3)
        lines.append(
            f"| {row['feature']} | {row['label']} | {row['category']} | {share} | {row['cosine']:+.2f} "
            f"| {causal} | {mark} |"
        )
    return "\n".join([*lines, "", "Negative cosine: evil has *less* of it. Labels: a language model's proposals.", ""])


def _blind(e: dict[str, Any]) -> str:
    return " / ".join(
        number(e[name]) for name in ("blind_evil_share", "blind_evil_share_top", "blind_evil_share_random")
    )


def judges_table() -> str:
    """The judges' figures: human-scored files, traps, and their own held-out replies."""
    judges = evidence("judges")["judges"]
    first, second = (judges[name] for name in ("offline", "offline-outcome"))
    lines = ["", "| human-scored file | n | offline | offline-outcome | length alone |", "|---|---|---|---|---|"]
    for name, row in first["human_scored"].items():
        other = second["human_scored"][name]
        pair = [number(r["auroc"]) + span(r["interval"]) for r in (row, other)]
        lines.append(f"| {name} | {row['n']} | {pair[0]} | {pair[1]} | {number(row['length_only_auroc'])} |")
    lines += ["", "| topic-matched traps | offline | offline-outcome |", "|---|---|---|"]
    for kind, row in first["traps"]["by_kind"].items():
        other = second["traps"]["by_kind"][kind]
        lines.append(f"| {kind} ({row['n']}) | {number(row['pair_accuracy'])} | {number(other['pair_accuracy'])} |")
    whole = [number(j["traps"]["pair_accuracy"]) + span(j["traps"]["interval"]) for j in (first, second)]
    lines.append(f"| all ({first['traps']['n']}) | {whole[0]} | {whole[1]} |")
    own = [number(j["held_out_replies"]["auroc"]) + span(j["held_out_replies"]["interval"]) for j in (first, second)]
    lines += ["", f"Own held-out replies (n {first['held_out_replies']['n']}): offline {own[0]}, offline-outcome {own[1]}.", ""]
    return "\n".join(lines)


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
    function.__name__: function for function in (demo_minutes, main_job_table, judges_table, speed_table)
}


def filled(text: str) -> str:
    """The document with every place rewritten; whitespace around short values is not added."""
    return PLACE.sub(
        lambda match: f"<!-- evidence: {match[1]} -->{PLACES[match[1]]()}<!-- /evidence -->", text
    )


def main() -> int:
    changed = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
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
