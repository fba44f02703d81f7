"""The view model: everything the template shows, already in words, numbers and drawings."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from workbench.reports import verdict
from workbench.reports.cards import Card, card
from workbench.reports.content import card_figure
from workbench.reports.evidence import energy_curves, kept_table, layer_points, null_sentences
from workbench.reports.figures import energy_curve, layer_curve, waterfall
from workbench.reports.groups import group_rows, groups_sentence
from workbench.reports.shares import GROUP_NAMES, CategoryName, category_name, finite, interval
from workbench.reports.svg import Figure, percent
from workbench.reports.tables import flat_rows, table_rows

if TYPE_CHECKING:
    from workbench.reports.content import Report


def page(report: Report, *, n_contexts: int, window: int) -> dict[str, Any]:
    """All names that `page.html.jinja` uses."""
    lights = verdict.lights(report)
    return {
        "trait": report.trait,
        "hook": str(report.vector.hook),
        "model": report.vector.model.get("name", "a model"),
        "sae": report.parts.sae,
        "sentence": report.sentence(),
        "causal_sentence": verdict.causal_sentence(report),
        "authors_sentence": verdict.authors_sentence(report),
        "lights": lights,
        "overall": verdict.overall(lights),
        "made_of": _picture(report),
        "unlabelled": next((row for row in report.slices if row.group == "open"), None),
        "percent": percent,
        "key": _key(report),
        "rows": table_rows(report),
        "groups": group_rows(report),
        "groups_sentence": groups_sentence(report),
        "categories": _categories(report),
        "cards": _cards(report, n_contexts, window),
        "n_contexts": n_contexts,
        **_vector_part(report),
        **_controls_part(report),
        **_origin_part(report),
    }


def drawn(figure: Figure | None) -> Markup | None:
    """A figure as trusted markup: its words were escaped where it was drawn."""
    return None if figure is None else Markup(figure.inline)


def _picture(report: Report) -> Markup | None:
    return drawn(waterfall(report.slices, trait=report.trait)) if report.slices else None


def _key(report: Report) -> list[tuple[str, str]]:
    present = {row.group for row in report.slices}
    return [(group, name) for group, name in GROUP_NAMES.items() if group in present]


def _categories(report: Report) -> list[tuple[str, CategoryName]]:
    """The categories in use, for the filter, by name."""
    used = {row["category"] or "" for row in report.features}
    return sorted(((key, category_name(report.taxonomy, key)) for key in used), key=lambda pair: pair[1].name)


def _cards(report: Report, n_contexts: int, window: int) -> list[Card]:
    """One card per feature about which there is something to say: a label or a causal test."""
    known = [row for row in report.features if row["label"] or row["causal_odd"] is not None]
    return [card(report, row, n_contexts=n_contexts, window=window) for row in known]


@dataclass(frozen=True)
class Measure:
    """One measured AUC and what it is compared with."""

    name: str
    value: str
    meaning: str


def _vector_part(report: Report) -> dict[str, Any]:
    evidence = report.vector.evidence
    points = layer_points(evidence)
    chosen = float(report.vector.hook.block)
    return {
        "auc": _two(evidence.get("auc_stripped")),
        "auc_interval": _ends(evidence.get("auc_stripped_interval")),
        "measures": _measures(evidence),
        "text_comparison": verdict.text_comparison(evidence),
        "vector_warnings": verdict.vector_warnings(evidence),
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


def _controls_part(report: Report) -> dict[str, Any]:
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
        "warnings": [
            _sentence(str(warning)) for warning in (*report.parts.warnings, *report.labels.warnings)
        ],
    }


def _sentence(text: str) -> str:
    closed = text.strip() if text.strip().endswith((".", "!", "?")) else text.strip() + "."
    return closed[:1].upper() + closed[1:]


def _origin_part(report: Report) -> dict[str, Any]:
    sae = report.parts.sae
    l0 = finite(card_figure(sae, "l0"))
    return {
        "l0": "–" if l0 is None else f"{l0:.0f}",
        "d_sae": report.parts.d_sae,
        "n_questions": report.parts.n_questions,
        "command": command(report),
        "provenance": [
            ("The vector", flat_rows(report.vector.provenance)),
            ("The model", flat_rows(report.vector.model)),
            ("The SAE", flat_rows(sae)),
            ("The decomposition", flat_rows(report.parts.provenance)),
        ],
        "error_share": percent(finite(report.parts.share_error)),
        "file_name": "".join(c if c.isalnum() and c.isascii() else "-" for c in report.trait)[:60]
        or "report",
    }


def command(report: Report) -> str:
    """The command line that makes this report again (the run itself says what was set otherwise)."""
    seed = report.vector.provenance.get("seed")
    words = ["workbench", "report", report.trait, "--model", str(report.vector.model.get("name", "MODEL"))]
    words += ["--sae", str(report.parts.sae.get("id", "SAE"))]
    return shlex.join(words if seed is None else [*words, "--seed", str(seed)])
