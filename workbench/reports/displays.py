"""How values show themselves in notebooks. Importing this module registers the displays; nothing heavy is imported.

A display is short: one headline, one figure or one table, never thousands of numbers. All words are escaped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.base.display import register, register_figure

if TYPE_CHECKING:
    from markupsafe import Markup

    from workbench.decomposition.falsify import Falsification
    from workbench.decomposition.result import Decomposition
    from workbench.lab.mixture_study import MixtureResult
    from workbench.lab.result import LabResult
    from workbench.labeling.files.store import LabelSet
    from workbench.labeling.taxonomy.values import MadeOf, Part
    from workbench.labeling.views.view import FeatureView
    from workbench.personas.vectors import PersonaVector
    from workbench.reports.content import Report
    from workbench.reports.svg import Figure
    from workbench.saes.interface import SparseAutoencoder

N_ROWS = 15


def report_html(report: Report) -> str:
    """The answer, the picture and the largest features."""
    from workbench.reports.figures import waterfall

    rows = [_feature_line(row) for row in report.features[:N_ROWS]]
    where = (
        f"The whole report: {report.path}"
        if report.path
        else '`.save("report.html")` writes the whole report.'
    )
    return _show(
        f"What is {report.trait} made of?",
        lines=[report.sentence()],
        figure=waterfall(report.slices, trait=report.trait) if report.slices else None,
        columns=["feature", "label", "category", "share", "causal effect", "verified"],
        rows=rows,
        notes=[where],
    )


def _feature_line(row: dict[str, Any]) -> list[str]:
    from workbench.reports.svg import percent
    from workbench.reports.tables import signed

    verified = {True: "yes", False: "no", None: "–"}[row["verified"]]
    texts = [str(row["feature"]), row["label"] or "–", row["category"] or "–", percent(row["share"], 2)]
    return [*texts, signed(row["causal_odd"], 3) or "–", verified]


def vector_html(vector: PersonaVector) -> str:
    """The separability with what it is compared with, and the curve over blocks."""
    from workbench.reports import verdict
    from workbench.reports.evidence import layer_points
    from workbench.reports.figures import layer_curve

    evidence, points = vector.evidence, layer_points(vector.evidence)
    names = (
        "auc_stripped",
        "auc_with_prompt",
        "auc_text_only",
        "auc_length_only",
        "auc_random_q95",
        "auc_rank_p",
    )
    where = f"{vector.model.get('name', 'a model')}, {vector.hook}, one of {len(vector.hooks)} hook points"
    return _show(
        f"Persona vector: {vector.trait}",
        lines=[f"{where}; {len(vector.rows)} replies."],
        figure=layer_curve(points, chosen=float(vector.hook.block)) if len(points) > 1 else None,
        columns=["measure", "value"],
        rows=[[name.replace("_", " "), _figure(evidence.get(name))] for name in names],
        notes=verdict.vector_warnings(evidence),
    )


def parts_html(parts: Decomposition) -> str:
    """The largest features, the SAE's error and the warnings; words for the features come from labels."""
    from workbench.reports.svg import percent
    from workbench.reports.tables import signed

    rows = [
        [
            str(row["feature"]),
            percent(row["share"], 2),
            _figure(row["q_value"]),
            _figure(row["placebo_q"]),
            signed(row["cosine"], 2),
            signed(row["causal_odd"], 3) or "–",
        ]
        for row in parts.table(N_ROWS)
    ]
    error = percent(parts.share_error)
    return _show(
        f"Decomposition of {parts.trait}",
        lines=[f"{parts.sae.get('id')}: {parts.d_sae:,} features; the SAE’s own error: {error} of |v|²."],
        columns=["feature", "share", "q", "own q", "cosine", "causal effect"],
        rows=rows,
        notes=[str(item) for item in parts.warnings],
    )


def labels_html(labels: LabelSet) -> str:
    """One line per label, with author, status and score."""
    rows = [
        [
            str(row["feature"]),
            row["label"],
            row["category"],
            row["author"].get("kind", "–"),
            row["status"],
            _score(row["score"]),
        ]
        for row in labels.table()[: 2 * N_ROWS]
    ]
    return _show(
        "Labels",
        lines=[f"{len(labels)} labels of {labels.sae_id}."],
        notes=[str(item) for item in labels.warnings],
        columns=["feature", "label", "category", "author", "status", "score"],
        rows=rows,
    )


def feature_html(view: FeatureView) -> str:
    """Where the feature fires, what it writes, and what taking it out does."""
    from workbench.reports.feature_view import feature_view_html

    return feature_view_html(view)


def sae_html(sae: SparseAutoencoder) -> str:
    """The SAE's measured fitness, with the light and its thresholds."""
    from workbench.reports.shares import finite
    from workbench.reports.verdict import SAE_THRESHOLDS

    lights = [rule.light(finite(sae.card.get(rule.key))) for rule in SAE_THRESHOLDS]
    return _show(
        f"SAE {sae.id}",
        lines=[
            f"{sae.architecture}, {sae.d_model} to {sae.d_sae:,} features, L0 {_figure(sae.card.get('l0'))}."
        ],
        columns=["measure", "value", "light", "thresholds"],
        rows=[[x.name, x.shown, x.level, x.rule] for x in lights],
    )


def lab_html(result: LabResult) -> str:
    """The two matrices, and which aims the package's own tests miss."""
    from workbench.lab.methods import CROSSED, PRIMARY

    missed = [aim for method in (PRIMARY, CROSSED) for aim in result.aims(method) if not aim.met]
    return _show(
        f"Planted truth: {result.sae} SAE, {len(result.seeds)} worlds per difficulty",
        lines=["Left: how much of what is found is false. Right: how much of what the oracle finds is found."],
        figure=lab_figure(result),
        columns=["difficulty", "method", "aim missed", "value", "limit"],
        rows=[[aim.difficulty, aim.method, aim.name, _figure(aim.value), _figure(aim.limit)] for aim in missed],
    )


def lab_figure(result: LabResult) -> Figure:
    """Realised FDR and power as two matrices."""
    from workbench.reports.lab import lab_figure as drawn

    return drawn(result)


def mixtures_html(result: MixtureResult) -> str:
    """Known against estimated proportions, and every method's figures."""
    from workbench.reports.mixtures import mixture_figure

    rows = [[one.method, *(_figure(x) for x in (one.share_error, one.order_right, one.largest_error))] for one in result.scores]
    return _show(
        f"Known mixtures of {', '.join(result.names)}",
        lines=["Known against estimated proportions: two readings of the decomposition, and regression without an SAE."],
        figure=mixture_figure(result),
        columns=["method", "share error", "order right", "largest error"],
        rows=rows,
    )


def mixtures_figure(result: MixtureResult) -> Figure:
    """Known against estimated proportions, the decomposition beside the baseline."""
    from workbench.reports.mixtures import mixture_figure

    return mixture_figure(result)


def falsification_html(found: Falsification) -> str:
    """The headline, the checks in one line, and what failed or is not tested."""
    from workbench.reports.falsify import MARKS, falsification_figure

    order = ("fail", "not tested", "pass")
    shown = sorted((one for one in found.checks if one.verdict in order), key=lambda one: order.index(one.verdict))
    return _show(
        f"Is {found.trait} an artefact?",
        lines=[found.headline()],
        figure=falsification_figure(found),
        columns=["", "check", "value", "threshold", "why"],
        rows=[[MARKS[x.verdict], x.question, _figure(x.value), f"{x.bound} {_figure(x.threshold)}", x.reason] for x in shown],
    )


def falsification_figure(found: Falsification) -> Figure:
    """The checks as one row of fields."""
    from workbench.reports.falsify import falsification_figure as drawn

    return drawn(found)


def _figure(value: Any) -> str:
    from workbench.reports.shares import finite

    known = finite(value)
    return "–" if known is None else f"{known:.3g}"


def made_of_html(made: MadeOf) -> str:
    """The answer, the picture, and the shares with what chance gets."""
    from workbench.reports.svg import percent

    def row(part: Part) -> list[str]:
        ends = f"{percent(part.low)} to {percent(part.high)}"
        p = "–" if part.swapped is None else f"{part.swapped.p:.3f}"
        return [part.name, percent(part.share), ends, str(part.n_features or "–"), percent(part.drawn), p]

    return _show(
        f"What is {made.trait} made of?",
        lines=[made.sentence()],
        figure=made_of_figure(made),
        columns=["part", "share", "95% interval", "features", "with uncertain labels", "p against permuted labels"],
        rows=[row(part) for part in made.parts if part.n_features or part.kind == "error"],
        notes=[str(item) for item in made.warnings],
    )


def made_of_figure(made: MadeOf) -> Figure:
    """Bars by kind and by category."""
    from workbench.reports.made_of import made_of_figure as draw

    return draw(made)


def _score(score: Any) -> str:
    return _figure(score.get("value")) if score else "–"


def _show(
    title: str,
    *,
    lines: list[str],
    columns: list[str],
    rows: list[list[str]],
    figure: Figure | None = None,
    notes: list[str] | None = None,
) -> str:
    from workbench.reports.html import environment

    picture: Markup | None = _trusted(figure)
    template = environment().get_template("display.html.jinja")
    return template.render(
        title=title, lines=lines, columns=columns, rows=rows, figure=picture, notes=notes or []
    )


def _trusted(figure: Figure | None) -> Markup | None:
    from markupsafe import Markup

    return None if figure is None else Markup(figure.svg)


register("workbench.reports.content.Report", report_html)
register("workbench.personas.vectors.PersonaVector", vector_html)
register("workbench.decomposition.result.Decomposition", parts_html)
register("workbench.labeling.labels.LabelSet", labels_html)
register("workbench.labeling.views.view.FeatureView", feature_html)
register("workbench.saes.interface.SparseAutoencoder", sae_html)
register("workbench.lab.result.LabResult", lab_html)
register("workbench.decomposition.falsify.result.Falsification", falsification_html)
register_figure("workbench.decomposition.falsify.result.Falsification", falsification_figure)
register_figure("workbench.lab.result.LabResult", lab_figure)
register("workbench.lab.mixture_study.MixtureResult", mixtures_html)
register_figure("workbench.lab.mixture_study.MixtureResult", mixtures_figure)
register("workbench.labeling.taxonomy.values.MadeOf", made_of_html)
register_figure("workbench.labeling.taxonomy.values.MadeOf", made_of_figure)
