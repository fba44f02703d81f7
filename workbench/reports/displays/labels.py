"""Displays of labels, of what they were read from, and of how well they hold up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from workbench.reports.displays.frame import Display, ends, listing, number
from workbench.reports.svg import percent

if TYPE_CHECKING:
    from markupsafe import Markup

    from workbench.labeling.annotating.agreement import Agreement
    from workbench.labeling.contexts.index import FeatureIndex
    from workbench.labeling.contexts.reading import Collection
    from workbench.labeling.evidence import Context, FeatureEvidence
    from workbench.labeling.files.merge import Merged
    from workbench.labeling.labels import FeatureLabel, FeatureRecord, LabelSet
    from workbench.labeling.scores.closed_loop import ClosedLoop
    from workbench.labeling.scores.comparison import ExplainerVerdict, ScoreTable
    from workbench.labeling.scores.scoring import LabelScore

N_CONTEXTS, WINDOW = 5, 14


def labels_display(labels: LabelSet) -> Display:
    """One line per label, with author, status and score."""
    rows = [
        (str(row["feature"]), row["label"], row["category"] or "–", row["author"].get("kind", "–"), row["status"],
         _score(row["score"]))
        for row in labels.table()
    ]  # fmt: skip
    return Display(
        "Labels",
        [f"{len(labels)} labels of {labels.sae_id}."],
        [listing(("feature", "label", "category", "author", "status", "score"), rows, most=20, only_known=True)],
        notes=[str(item) for item in labels.warnings],
    )


def label_display(label: FeatureLabel) -> Display:
    """The label, who says so, how well it held up, and the contexts that it was read from."""
    author = " ".join(filter(None, (label.author.get("kind"), label.author.get("name"))))
    traits: dict[str, list[str]] = {}
    for trait, category in label.categories.items():
        traits.setdefault(category, []).append(trait)
    said = [("category", f"{category} (under {', '.join(names)})") for category, names in traits.items()]
    interval = ends((label.score or {}).get("interval"))
    score = "not scored" if label.score is None else f"{label.score['kind'].replace('_', ' ')} {_score(label.score)} [{interval}]"
    rows = [("author", author), ("status", label.status), ("score", score), *said]
    if label.notes:
        rows.append(("note", label.notes))
    found = evidence_display(label.evidence) if label.evidence else None
    return Display(
        f"Feature {label.feature}: {label.label}",
        [label.explanation] if label.explanation else [],
        [listing(("what", "said"), rows)],
        body=found.body if found else "",
    )


def record_display(record: FeatureRecord) -> Display:
    """What every author says of the feature, and the evidence that they share."""
    rows = [(one.label, one.category or "–", one.author.get("name", "–"), one.status, _score(one.score)) for one in record.labels]
    found = evidence_display(record.evidence) if record.evidence else None
    return Display(
        f"Feature {record.feature} of {record.sae_id}",
        tables=[listing(("label", "category", "author", "status", "score"), rows)],
        notes=record.warnings,
        body=found.body if found else "",
    )


def evidence_display(evidence: FeatureEvidence) -> Display:
    """Its strongest contexts, and what its direction makes likelier."""
    fires = "–" if evidence.density is None else percent(evidence.density, 2)
    return Display(
        f"Evidence of feature {evidence.feature}",
        [f"Fires on {fires} of {evidence.n_tokens:,} tokens; at most {number(evidence.max_activation)}."],
        [listing(("its direction makes", "tokens"), _tokens(evidence))],
        body=contexts_html(evidence.contexts, highest=evidence.max_activation),
    )


def _tokens(evidence: FeatureEvidence) -> Iterator[tuple[str, str]]:
    for name, tokens in (("likelier", evidence.promoted), ("unlikelier", evidence.suppressed)):
        if tokens:
            yield name, " ".join(f"“{token}”" for token in tokens[:10])


def context_display(context: Context) -> Display:
    """The text with its activations as shades, the strongest token in bold."""
    return Display("Context", body=contexts_html([context], highest=context.peak_value))


def contexts_html(contexts: Iterable[Context], *, highest: float | None, most: int = N_CONTEXTS) -> Markup:
    """A table with one context per row: the largest activation, the text, where it is from; withheld ones are counted."""
    from markupsafe import Markup

    from workbench.reports.html import environment
    from workbench.reports.passages import passage

    given = list(contexts)
    kept = [context for context in given if context.tokens][:most]
    withheld = sum(not context.tokens for context in given)
    top = max([highest or 0.0, 1e-9, *(value for context in kept for value in context.values)])
    listed = [passage(context, window=WINDOW, highest=top) for context in kept]
    return Markup(environment().get_template("contexts.html.jinja").render(contexts=listed, withheld=withheld))


def index_display(index: FeatureIndex) -> Display:
    """Whose features, what was read, and how many of them fire."""
    rows = [(name, n) for name, n in index.sources.items()]
    return Display(
        f"Index of {index.sae_id}",
        [f"{index.d_sae:,} features on {index.n_tokens:,} tokens. Ask it by feature, by text or by trait."],
        [listing(("source", "tokens"), rows, most=30)],
    )


def collection_display(found: Collection) -> Display:
    """What was gathered for how many features."""
    rows = [(str(f), one.density, one.max_activation, len(one.contexts)) for f, one in found.evidence.items()]
    return Display(
        f"Contexts of {len(rows)} features",
        tables=[listing(("feature", "fires on (share of tokens)", "largest activation", "contexts"), rows)],
    )


def label_score_display(found: LabelScore) -> Display:
    """AUROC against each kind of negative; chance is .5."""
    kinds = {"pooled": found.pooled, **found.by}
    rows = [
        (kind.replace("_", " "), one and one.auroc, ends(one and one.interval), one and one.balanced_accuracy)
        for kind, one in kinds.items()
    ]
    counts = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in found.n.items())
    columns = ("negatives", "AUROC", "95% interval", "balanced accuracy")
    return Display(f"Score of the label of feature {found.feature}", [f"{found.kind.replace('_', ' ')}: {counts}."],
                   [listing(columns, rows)])  # fmt: skip


def score_table_display(found: ScoreTable) -> Display:
    """Mean AUROC of the labels and of their controls, per kind of negative."""
    sorts = list(dict.fromkeys(sort for column in found.columns.values() if column for sort in column.mean))
    rows = []
    for name, column in found.columns.items():
        means = [_mean(column.mean.get(sort)) if column else "–" for sort in sorts]
        rows.append((name.replace("_", " "), column.n if column else 0, *means))
    columns = ("negatives", "features", *(sort.replace("_", " ") for sort in sorts))
    return Display(
        "Labels beside other labels",
        [f"Mean {found.kind.replace('_', ' ')} over features, with 95% intervals; {len(found.unscored)} could not be scored."],
        [listing(columns, rows)],
    )


def _mean(value: Any) -> str:
    return "–" if not value else f"{number(value['value'])} [{ends(value.get('interval'))}]"


def verdict_display(found: ExplainerVerdict) -> Display:
    """An explainer on features whose meaning was planted."""
    rows = [(name, getattr(found, name)) for name in ("correct", "explained", "swapped", "generic")]
    margins = [(name.replace("_", " "), value["value"], ends(value.get("interval"))) for name, value in found.margins.items()]
    return Display(
        "Explainer on planted features",
        tables=[listing(("labels", "mean AUROC"), rows), listing(("margin", "value", "95% interval"), margins)],
    )


def loop_display(found: ClosedLoop) -> Display:
    """How often a label leads the model back to its feature, beside chance."""
    rows = [
        ("own label first, by cosine", found.rank1, ends(found.rank1_interval), found.chance),
        ("own label first, by activation", found.code_rank1, ends(found.code_interval), found.chance),
        ("median rank", found.median_rank, ends(found.median_interval, 1), (found.n_swapped + 2) / 2),
    ]
    title = f"Closed loop: {found.n_labels} labels against {found.n_swapped} others each"
    return Display(title, tables=[listing(("measure", "value", "95% interval", "chance"), rows)])


def agreement_display(found: Agreement) -> Display:
    """Cohen's kappa of two people, on verdicts and on categories."""
    rows = [(name, one.n, one.agreed, one.kappa, ends(one.interval), one.reason or "–")
            for name, one in (("verdicts", found.status), ("categories", found.category))]  # fmt: skip
    upheld = [(one.annotator, one.n_blind, one.n_judged, one.upheld, ends(one.upheld_interval)) for one in found.blind]
    return Display(
        f"{found.annotators[0]} and {found.annotators[1]}: {found.n_both} features read by both",
        tables=[
            listing(("", "n", "agreed", "kappa", "95% interval", "why there is none"), rows),
            listing(("annotator", "read blind", "judged", "upheld", "95% interval"), upheld, title="Labels that were hidden"),
        ],
    )


def merged_display(found: Merged) -> Display:
    """How many records, and what the rule could not decide."""
    rows = [(str(one.feature), one.kind, "; ".join(one.labels)) for one in found.conflicts]
    lines = [f"{len(found.conflicts)} conflicts; {len(found.left_out)} labels of a person left out."]
    return Display("Merged labels", lines, [listing(("feature", "conflict", "labels"), rows)])


def _score(score: Any) -> str:
    return number(score.get("value")) if score else "–"
