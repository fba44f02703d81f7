"""What the pages are told, as JSON types; every text of a model or a file has its control and bidi characters spelled out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from workbench.base.store import plain
from workbench.base.text import visible_lines
from workbench.labeling.labels import LabelSet
from workbench.reports.shares import category_name, taxonomy_of
from workbench.reports.text import clean, clean_token
from workbench.serving.labelling import record_json

if TYPE_CHECKING:
    from workbench.labeling.contexts.index import FeatureIndex
    from workbench.labeling.contexts.stats import FeatureStats, Rate
    from workbench.labeling.evidence import Context, FeatureEvidence
    from workbench.labeling.views.values import Direction, Near, TokenValue, Usual
    from workbench.models.generation import Generated
    from workbench.reports.content import Report
    from workbench.serving.explorer import Explorer
    from workbench.serving.reading import TextReading
    from workbench.steering.replies import ReplyQuality

N_CONTEXTS, WINDOW, N_STRONGEST = 6, 16, 12
_CODE_NAMES = ("feature", "label", "category", "status", "share", "share_interval", "cosine", "q_value", "placebo_q",
               "causal_odd", "causal_interval", "verified")  # fmt: skip


def spelled(value: Any) -> Any:
    """JSON types with every text cleaned, at any depth: no control or bidi characters, no lone surrogates, nothing endless."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {clean(key): spelled(item) for key, item in value.items()}
    return [spelled(item) for item in value] if isinstance(value, list) else value


# ---------------------------------------------------------------------------------------------------- traits


def live_report(explorer: Explorer, trait: str | None = None) -> Report | None:
    """The report of a run, its labels as they are now, with those in the user's folder; None where it has no decomposition.

    The labels that only the shelf has are left out, as they are of the run's own report.
    """
    from workbench.reports.content import report

    run = explorer.run(trait)
    if run.parts is None:
        return None
    book = explorer.book
    own = {*(run.labels.records if run.labels else ()), *book.own()}
    records = {feature: record for feature, record in book.records().items() if feature in own}
    labels = {feature: record.label for feature, record in records.items() if record.label is not None}
    return report(run.vector, run.parts, LabelSet(book.sae_id, book.sae_hash, labels, records=records))


def trait_json(found: Report) -> dict[str, Any]:
    """{trait, sentence, features: [...]}: the rows of the table, largest share first, each with the name of its category."""
    rows = []
    for row in found.features:
        label = found.label(row["feature"])
        named = category_name(found.taxonomy, row["category"])
        known = {**row, "status": label.status if label else None}
        rows.append({**{name: known.get(name) for name in _CODE_NAMES}, "category": named.name, "group": named.group})
    return spelled(plain({"trait": found.trait, "sentence": found.sentence(), "features": rows}))


# ---------------------------------------------------------------------------------------------------- features


def feature_json(explorer: Explorer, feature: int) -> dict[str, Any]:
    """Everything known of a feature without the model: labels, shares by trait, where it fires (index, else the label's
    evidence).
    """
    book, index = explorer.book, explorer.index
    version = book.version(explorer.feature(feature))  # before the record: what is written in between has to be a conflict
    record = book.record(feature)
    stats = index.stats(feature) if index is not None else None
    categories = taxonomy_of(book.trait)
    found = {
        **record_json(record),
        "version": version,
        "trait": None if book.trait is None else book.trait.name,
        "categories": [{"id": key, "name": named.name} for key, named in categories.items()],
        "shares": [_share(run.trait, run.parts.row(feature)) for run in explorer.runs if run.parts is not None],
        "stats": None if stats is None else stats_json(stats),
        "density": None if record.evidence is None else record.evidence.density,
        "maximum": None if record.evidence is None else record.evidence.max_activation,
    }
    return spelled(plain({**found, **_contexts(index, record.evidence, feature)}))


def _share(trait: str, row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("share", "share_interval", "cosine", "q_value", "placebo_q", "causal_odd", "causal_interval", "verified")
    return {"trait": trait, **{name: row.get(name) for name in names}}


def _contexts(index: FeatureIndex | None, evidence: FeatureEvidence | None, feature: int) -> dict[str, Any]:
    """{contexts: {name: [...]}, contexts_from}: from the index by kind of source, else those that the label carries."""
    if index is not None:
        listed = {kind: index.contexts(feature, source=kind, n=N_CONTEXTS) for kind in ("rollouts", "chat", "corpus")}
        origin = "the feature index"
    elif evidence is not None:
        listed = {"strongest": evidence.top[:N_CONTEXTS], "from weak to strong": evidence.quantiles[:N_CONTEXTS]}
        origin = "the label file; with --index there are more, for every feature"
    else:
        listed, origin = {}, "nowhere: nobody has labelled this feature, and the explorer was started without --index"
    shown = {name: [_context(context) for context in contexts] for name, contexts in listed.items() if contexts}
    return {"contexts": shown, "contexts_from": origin}


def _context(context: Context) -> dict[str, Any]:
    """{tokens: [[text, activation]], peak, value, source}: `WINDOW` tokens on either side of the peak."""
    first = max(0, context.peak - WINDOW)
    cut = slice(first, context.peak + WINDOW + 1)
    pairs = [[clean_token(t), round(v, 3)] for t, v in zip(context.tokens[cut], context.values[cut], strict=False)]
    return {"tokens": pairs, "peak": context.peak - first, "value": round(context.peak_value, 3),
            "source": clean(context.source, limit=90)}  # fmt: skip


def stats_json(stats: FeatureStats) -> dict[str, Any]:
    """The counts of an index of one feature; `histogram` [[low, high, n]], `roles` and `traits` by name."""
    traits = sorted({name.split(":")[1] for name in stats.sources if len(name.split(":")) == 3})
    return {
        "n_tokens": stats.n_tokens, "n_fired": stats.n_fired, "density": stats.density, "mean": stats.mean,
        "maximum": stats.maximum, "histogram": [list(row) for row in stats.histogram],
        "roles": {name: _rate(rate) for name, rate in stats.roles.items()},
        "traits": {trait: {arm: _rate(rate) for arm, rate in stats.arms(trait).items()} for trait in traits},
        "top_tokens": [[clean_token(one.text), one.share] for one in stats.top_tokens[:10]],
    }  # fmt: skip


def _rate(rate: Rate) -> dict[str, Any]:
    return {"n_tokens": rate.n_tokens, "density": rate.density, "mean": rate.mean}


def direction_json(found: Direction, usual: Usual, names: Mapping[int, str]) -> dict[str, Any]:
    """What a decoder direction says by itself; `usual` is the median of the first entry over other features."""

    def tokens(listed: Iterable[TokenValue]) -> list[list[Any]]:
        return [[clean_token(one.token), round(one.value, 3)] for one in listed]

    def near(listed: Iterable[Near]) -> list[dict[str, Any]]:
        return [{"feature": one.feature, "cosine": one.cosine, "label": names.get(one.feature)} for one in listed]

    return {
        "promoted": tokens(found.promoted), "suppressed": tokens(found.suppressed),
        "nearest": near(found.nearest), "opposite": near(found.opposite),
        "usual": {name: getattr(usual, name).median for name in ("promoted", "suppressed", "nearest", "opposite")},
    }  # fmt: skip


def names_of(explorer: Explorer) -> dict[int, str]:
    """Feature -> the words of the label that counts."""
    if not explorer.has_features:
        return {}
    return {feature: clean(label.label) for feature, label in explorer.book.labels().items()}


# ---------------------------------------------------------------------------------------------------- texts and replies


def reading_json(reading: TextReading, explorer: Explorer, *, role: str | None = None) -> dict[str, Any]:
    """A reading as the pages draw it; with `role`, the strongest features are those on its tokens.

    {tokens: [{text, role, counts, n, features: [[feature, activation]]}], projections, strongest, labels, maxima}; `maxima` are
    the largest activations in the index, where there is one, of the features in `strongest`.
    """
    strongest = reading.strongest(N_STRONGEST, role=role)
    listed = {feature for token in reading.features for feature, _ in token}
    index = explorer.index
    maxima = (
        {}
        if index is None
        else {row["feature"]: float(index.arrays["largest"][:, row["feature"]].max()) for row in strongest}
    )
    tokens = [
        {
            "text": clean_token(text),
            "role": said,
            "counts": counts,
            "n": n,
            "features": [[f, round(v, 3)] for f, v in features],
        }
        for text, said, counts, n, features in zip(
            reading.tokens, reading.roles, reading.counts, reading.n_firing, reading.features, strict=True
        )
    ]
    return {
        "tokens": tokens,
        "projections": [{**asdict(one), "trait": clean(one.trait)} for one in reading.projections.values()],
        "neutral": {clean(one.trait): None if one.neutral is None else asdict(one.neutral) for one in explorer.personas},
        "strongest": strongest,
        "labels": {feature: name for feature, name in names_of(explorer).items() if feature in listed},
        "maxima": maxima,
    }


def reply_json(reply: Generated) -> dict[str, Any]:
    """{text, n_tokens, finished} of a reply so far; line ends are kept."""
    return {"text": visible_lines(reply.text), "n_tokens": len(reply.response_ids), "finished": reply.finished}


def quality_json(quality: ReplyQuality) -> dict[str, Any]:
    """The signs of a broken reply."""
    return asdict(quality)
