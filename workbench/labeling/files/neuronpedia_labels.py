"""Neuronpedia's explanations as labels, and labels as what Neuronpedia takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from workbench.base.text import clean_text
from workbench.labeling.evidence import Context, FeatureEvidence
from workbench.labeling.files.foreignjson import utf16_length
from workbench.labeling.files.label_part import label_problem
from workbench.labeling.files.merge import Key, Records
from workbench.labeling.files.neuronpedia import (
    MAX_TEXT,
    MAX_TOKENS,
    Activation,
    Explanation,
    NeuronpediaFeature,
    to_uploads,
)
from workbench.labeling.files.record import in_order
from workbench.labeling.files.yamlfile import LabelFileError
from workbench.labeling.labels import MAX_CHARACTERS, MAX_WORDS, FeatureLabel, FeatureRecord, preferred

SITE = "neuronpedia"
MAX_CONTEXTS = 10
MAX_EXPLANATIONS, MAX_EXPLANATION = 16, 2000  # of what is imported of a feature; the length in characters
CUT = "…"


def records_of(features: Iterable[NeuronpediaFeature], sae_id: str, sae_hash: str) -> Records:
    """The features that have explanations, as records of the SAE that Neuronpedia's source is.

    Each explanation is a label of the model that wrote it (author kind "model", name "neuronpedia" when none is named), proposed.
    One that is longer than a label may be is cut there and kept as `explanation`, of which 2,000 characters are taken; of a
    feature's explanations the first 16. The texts of activations belong to their
    datasets: as evidence they are named by place, not copied.
    """
    records: dict[Key, FeatureRecord] = {}
    for feature in features:
        if labels := _labels(feature):
            evidence = _evidence(feature) if feature.activations else None
            records[sae_id, feature.index] = FeatureRecord(sae_id, sae_hash, feature.index, labels, evidence)
    return records


def _labels(feature: NeuronpediaFeature) -> tuple[FeatureLabel, ...]:
    place = f"From Neuronpedia: {feature.model_id}/{feature.source}/{feature.index}."
    made = []
    for item in [item for item in feature.explanations if _on_one_line(item.text)][:MAX_EXPLANATIONS]:
        name, method = _on_one_line(item.model or ""), _on_one_line(item.method or "")
        author = {"kind": "model", "name": name or SITE} | ({"method": method} if method else {})
        label, explanation = _wording(item.text)
        made.append(FeatureLabel(feature.index, label, explanation, author=author, notes=place, origin="shipped"))
    return in_order(made)


def _on_one_line(text: str) -> str:
    """Without control characters: none of them reaches a label or an author's name."""
    return clean_text(" ".join(text.split()), len(text))


def _wording(text: str) -> tuple[str, str]:
    """(label, explanation): the text as the label if it fits; otherwise its beginning, and the whole."""
    if label_problem(text) is None and text == " ".join(text.split()):
        return text, ""
    words = _on_one_line(text).split()
    label = " ".join(words[:MAX_WORDS])
    if len(words) > MAX_WORDS or len(label) > MAX_CHARACTERS:
        label = label[: MAX_CHARACTERS - 1].rstrip() + CUT
    return label, text if len(text) <= MAX_EXPLANATION else text[: MAX_EXPLANATION - 1] + CUT


def _evidence(feature: NeuronpediaFeature) -> FeatureEvidence:
    source = f"{SITE}:{feature.model_id}/{feature.source}"
    ranked = sorted(enumerate(feature.activations), key=lambda pair: -max(pair[1].values))
    contexts = tuple(_context(act, source, str(place)) for place, act in ranked[:MAX_CONTEXTS])
    return FeatureEvidence(
        feature.index,
        feature.density,
        max(context.peak_value for context in contexts),
        top=contexts,
        promoted=tuple(token for token, _ in feature.top_logits),
        suppressed=tuple(token for token, _ in feature.bottom_logits),
        n_tokens=sum(len(act.tokens) for act in feature.activations),
        sources={source: len(feature.activations)},
    )


def _context(act: Activation, source: str, document: str) -> Context:
    peak = act.values.index(max(act.values))
    return Context(act.tokens, act.values, peak, source, document, peak)


# ---------------------------------------------------------------------------------------------------- out


@dataclass(frozen=True)
class Upload:
    """The features that can be uploaded, and those that cannot, each with the reason."""

    features: tuple[NeuronpediaFeature, ...]
    left_out: Mapping[int, str]


def upload_of(
    records: Iterable[FeatureRecord],
    model_id: str,
    source: str,
    *,
    method: str | None = None,
    explainer: str | None = None,
    every_author: bool = False,
) -> Upload:
    """The labels that count as explanations, with the contexts whose text may be passed on as activations.

    `model_id` and `source` are Neuronpedia's names, in lower case. It takes only methods and explainers' names that it knows:
    `method` and `explainer` stand in for those of the labels. With `every_author`, all labels that are not rejected. Logits are
    left out, because label files hold their tokens without values. A feature without a label that counts, without a context to
    show, or past one of Neuronpedia's limits is left out.
    """
    features, left_out = [], {}
    for record in sorted(records, key=lambda record: record.feature):
        counting = preferred(record.labels)
        chosen = [x for x in in_order(record.labels) if x.status != "rejected"] if every_author else [counting]
        activations = tuple(_activation(context) for context in _shown(record.evidence))
        if counting is None or not activations:
            left_out[record.feature] = "no label counts" if counting is None else "no context whose text may be passed on"
            continue
        told = dict.fromkeys(_explanation(label, method, explainer) for label in chosen if label is not None)
        density = None if record.evidence is None else record.evidence.density
        feature = NeuronpediaFeature(
            model_id.lower(), source.lower(), record.feature, density, explanations=tuple(told), activations=activations
        )
        if problem := _upload_problem(feature):
            left_out[record.feature] = problem
        else:
            features.append(feature)
    return Upload(tuple(features), left_out)


def _upload_problem(feature: NeuronpediaFeature) -> str | None:
    """Why Neuronpedia would not take that feature, None when it would."""
    try:
        to_uploads([feature])
    except LabelFileError as error:
        return f"{error.field}: {error.problem}; expected {error.expected}"
    return None


def _shown(evidence: FeatureEvidence | None) -> list[Context]:
    contexts = () if evidence is None else evidence.without_foreign_text().contexts
    return [context for context in contexts if context.text]


def _explanation(label: FeatureLabel, method: str | None, explainer: str | None) -> Explanation:
    author = label.author
    named = author["name"].lower() if author["kind"] == "model" and author["name"] != SITE else None
    own = author.get("method")
    return Explanation(_text(label), method or (own.lower() if own else None), explainer or named)


def _text(label: FeatureLabel) -> str:
    """The label, or the explanation where the label is its beginning."""
    beginning = label.label.removesuffix(CUT)
    whole = bool(label.explanation) and " ".join(label.explanation.split()).startswith(beginning)
    return label.explanation if whole and utf16_length(label.explanation) <= MAX_TEXT else label.label


def _activation(context: Context) -> Activation:
    """The context in tokens that have text; the value of a token without one goes to its neighbour, if it is larger.

    Of more tokens than Neuronpedia takes, those around the peak.
    """
    tokens: list[str] = []
    values: list[float] = []
    waiting = 0.0
    for token, value in zip(context.tokens, context.values, strict=True):
        if token:
            tokens.append(token)
            values.append(max(value, waiting))
            waiting = 0.0
        elif tokens:
            values[-1] = max(values[-1], value)
        else:
            waiting = max(waiting, value)
    peak = values.index(max(values))
    start = max(0, min(peak - MAX_TOKENS // 2, len(tokens) - MAX_TOKENS))
    return Activation(tuple(tokens[start : start + MAX_TOKENS]), tuple(values[start : start + MAX_TOKENS]))
