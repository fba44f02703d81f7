"""What stands behind a chapter's claims, as values for the page: separability, and the controls."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from workbench.reports import verdict
from workbench.reports.evidence import energy_curves, kept_table, layer_points, null_sentences
from workbench.reports.figures import energy_curve, layer_curve
from workbench.reports.shares import finite, interval
from workbench.reports.svg import Figure
from workbench.reports.tables import flat_rows

if TYPE_CHECKING:
    from workbench.reports.content import Report


def drawn(figure: Figure | None) -> Markup | None:
    """A figure as trusted markup: its words were escaped where it was drawn.

    In a page its name for screen readers is said once; its paper, and what only a file of its own needs, are left out.
    """
    return None if figure is None else Markup(_ONLY_ALONE.sub("", figure.inline))


_ONLY_ALONE = re.compile(
    r'<title>.*?</title>|<desc>.*?</desc>|<rect [^<>]*class="wbf-paper"/>| xmlns="http://www.w3.org/2000/svg"', re.S
)


@dataclass(frozen=True)
class Measure:
    """One measured AUC and what it is compared with."""

    name: str
    value: str
    meaning: str


def vector_part(report: Report) -> dict[str, Any]:
    """Does the vector measure the trait? AUC, what it is compared with, the choice of the block, kept replies."""
    evidence = report.vector.evidence
    points = layer_points(evidence)
    chosen = float(report.vector.hook.block)
    return {
        "auc": _two(evidence.get("auc_stripped")),
        "auc_interval": _ends(evidence.get("auc_stripped_interval")),
        "measures": _measures(evidence),
        "text_comparison": verdict.text_comparison(evidence),
        "layers": drawn(layer_curve(points, chosen=chosen)) if len(points) > 1 else None,
        "kept": kept_table(evidence),
        "filtered_cosine": _two(evidence.get("cosine_filtered_unfiltered")),
    }


def _measures(evidence) -> list[Measure]:
    n_random = finite(evidence.get("n_random"))
    against = f"{n_random:,.0f} " if n_random else ""
    return [
        Measure(
            "With the system prompt",
            _two(evidence.get("auc_with_prompt")),
            "the prompt is in context, so it helps",
        ),
        Measure(
            "Words alone (TF-IDF)",
            _two(evidence.get("auc_text_only")),
            "a bag of words, trained on the same replies",
        ),
        Measure("Length alone", _two(evidence.get("auc_length_only")), "how long the reply is"),
        Measure(
            "Random directions, 95th percentile",
            _two(evidence.get("auc_random_q95")),
            f"of {against}with the activations’ covariance",
        ),
        Measure(
            "Rank p", _small(evidence.get("auc_rank_p")), "how often such a direction does as well or better"
        ),
    ]


def _two(value: Any) -> str:
    known = finite(value)
    return "–" if known is None else f"{known:.2f}"


def _small(value: Any) -> str:
    known = finite(value)
    return "–" if known is None else f"{known:.2g}"


def _ends(pair: Any) -> str:
    ends = interval(pair)
    return f"[{ends[0]:.2f}, {ends[1]:.2f}]" if ends else "interval unknown"


def controls_part(report: Report) -> dict[str, Any]:
    """What the shares and the causal effects are held against."""
    curves = energy_curves(report.parts.audit)
    closure = finite(report.parts.share_sum_error)
    named = {
        "expected_by_chance",
        "zero_vector_overlap",
        "causal_control_odd",
        "placebos",
        "same_against_same",
        *(["random_directions"] if curves else []),
    }
    rest = {key: value for key, value in report.parts.controls.items() if key not in named}
    if isinstance(used := rest.get("causal_controls_used"), dict):  # which way each candidate was pushed stands in its row
        rest["causal_controls_used"] = {key: value for key, value in used.items() if key != "signs"}
    return {
        "closure": None if closure is None else f"{closure:.1e}",
        "zero_overlap": flat_rows({"zero_vector_overlap": report.parts.controls.get("zero_vector_overlap")}),
        "expected": _small(report.parts.controls.get("expected_by_chance")),
        "n_verified": report.n_verified,
        "n_tested": sum(row["verified"] is not None for row in report.features),
        "nulls": null_sentences(report.parts.controls, report.parts.audit),
        "other_controls": flat_rows(rest, limit=24),
        "n_half": report.parts.audit.get("n_features_half"),
        "energy": drawn(energy_curve(curves)) if curves else None,
    }
