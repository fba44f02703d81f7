"""The file of one feature's label: what it looks like, and what is refused.

    schema: 1
    sae: {id: MODEL/HOOK, weights_hash: 64 hexadecimal digits}
    feature: 17
    label: at most 12 words
    explanation: one or two sentences
    category: {evil: contempt}
    author: {kind: human | model | offline, name: who}
    status: proposed | confirmed | disputed | rejected
    score: {kind: glove_detection_auroc, value: 0.81, interval: [0.7, 0.9]}
    confidence: 0.6
    notes: ""
    evidence: {density, max_activation, n_tokens, sources, promoted, suppressed, top: [...], quantiles: [...]}

A context is {source, document, position, peak, text, lengths, values}: the text with the peak token between « and », the
length of each token in characters, and the activations that are not zero by token index. A context of which the text may not be
passed on has {source, document, position, value} only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from workbench.base.errors import nearest
from workbench.labeling.evidence import PEAK_CLOSE, PEAK_OPEN, Context, FeatureEvidence
from workbench.labeling.files.reader import Reader
from workbench.labeling.files.yamlfile import Where, YamlFile
from workbench.labeling.labels import AUTHOR_KINDS, MAX_CHARACTERS, MAX_WORDS, STATUSES, UNCLEAR, FeatureLabel

SCHEMA = 1
FIELDS = (
    "schema", "sae", "feature", "label", "explanation", "category", "author", "status", "score", "confidence", "notes",
    "evidence",
)  # fmt: skip
Taxonomies = Callable[[str], Collection[str] | None]


@dataclass(frozen=True)
class LabelRecord:
    """A label together with the SAE that its file names."""

    sae_id: str
    sae_hash: str
    label: FeatureLabel
    warnings: tuple[str, ...] = ()


# ---------------------------------------------------------------------------------------------------- writing


def to_document(label: FeatureLabel, sae_id: str, sae_hash: str) -> dict[str, Any]:
    """The plain document of one label, in the order in which it is written."""
    document = {
        "schema": SCHEMA,
        "sae": {"id": sae_id, "weights_hash": sae_hash},
        "feature": label.feature,
        "label": label.label,
        "explanation": label.explanation,
        "category": dict(label.categories),
        "author": dict(label.author),
        "status": label.status,
        "score": None if label.score is None else _score_document(label.score),
        "confidence": label.confidence,
        "notes": label.notes,
        "evidence": None,
    }
    if label.evidence is not None:
        document["evidence"] = _evidence_document(label.evidence.without_foreign_text())
    return document


def to_yaml(document: Mapping[str, Any]) -> str:
    """The document as text: blocks for what people edit, one line each for contexts, tokens and numbers."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            super().increase_indent(flow, False)

    def flow_list(dumper: Any, data: Any) -> Any:
        return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)

    def flow_map(dumper: Any, data: Any) -> Any:
        return dumper.represent_mapping("tag:yaml.org,2002:map", data.items(), flow_style=True)

    def text(dumper: Any, data: str) -> Any:
        style = (
            '"' if data != " ".join(data.split()) else None
        )  # white space at the edges and line ends stay visible
        return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    Dumper.add_representer(_Flow, flow_list)
    Dumper.add_representer(_FlowMap, flow_map)
    Dumper.add_representer(str, text)
    return yaml.dump(document, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=1000)


class _Flow(list):
    """A list that is written on one line."""


class _FlowMap(dict):
    """A mapping that is written on one line."""


def _score_document(score: Mapping[str, Any]) -> dict[str, Any]:
    interval = score.get("interval")
    rounded = None if interval is None else _Flow(round(float(x), 4) for x in interval)
    return {"kind": score["kind"], "value": round(float(score["value"]), 4), "interval": rounded}


def _evidence_document(evidence: FeatureEvidence) -> dict[str, Any]:
    return {
        "density": evidence.density,
        "max_activation": evidence.max_activation,
        "n_tokens": evidence.n_tokens,
        "sources": _FlowMap(evidence.sources),
        "promoted": _Flow(evidence.promoted),
        "suppressed": _Flow(evidence.suppressed),
        "top": [_context_document(c) for c in evidence.top],
        "quantiles": [_context_document(c) for c in evidence.quantiles],
    }


def _context_document(context: Context) -> dict[str, Any]:
    place = {"source": context.source, "document": context.document, "position": context.position}
    if context.is_withheld:
        return place | {"value": context.peak_value}
    return place | {
        "peak": context.peak,
        "text": context.marked(),
        "lengths": _Flow(len(token) for token in context.tokens),
        "values": _FlowMap({i: value for i, value in enumerate(context.values) if value}),
    }


# ---------------------------------------------------------------------------------------------------- reading


def from_file(file: YamlFile, taxonomies: Taxonomies) -> LabelRecord:
    """The label in a parsed file, every field checked.

    `taxonomies` gives the category ids of a trait, None for a trait that is not known here (kept, with a warning).

    Raises:
        WorkbenchError: naming file, line, what stands there and what was expected.
    """
    read = Reader(file)
    read.mapping((), required=FIELDS[:4] + ("category", "author", "status"), allowed=FIELDS)
    if read.integer(("schema",)) != SCHEMA:
        raise read.wrong(("schema",), f"schema {SCHEMA}", "update the workbench, or write the file anew")
    read.mapping(("sae",), required=("id", "weights_hash"), allowed=("id", "weights_hash"))
    categories, warnings = _categories(read, taxonomies)
    label = FeatureLabel(
        feature=read.integer(("feature",), low=0),
        label=_label_text(read),
        explanation=read.text(("explanation",), default=""),
        categories=categories,
        author=_author(read),
        status=read.choice(("status",), STATUSES),
        score=_score(read),
        evidence=_evidence(read),
        notes=read.text(("notes",), default=""),
        confidence=read.number(("confidence",), low=0.0, high=1.0, optional=True),
        origin="shipped",
    )
    return LabelRecord(read.text(("sae", "id")), _weights_hash(read), label, warnings)


def _weights_hash(read: Reader) -> str:
    where = ("sae", "weights_hash")
    text = read.text(where)
    if len(text) != 64 or set(text) - set("0123456789abcdef"):
        raise read.wrong(
            where, "the SHA-256 of the SAE's weights, 64 hexadecimal digits", "put it between quotes"
        )
    return text


def label_problem(text: str) -> str | None:
    """What is wrong with the wording of a label, None when nothing is."""
    if not text.strip():
        return "an empty label"
    if "\n" in text or len(text) > MAX_CHARACTERS:
        return f"a label of {len(text)} characters or several lines"
    if len(text.split()) > MAX_WORDS:
        return f"a label of {len(text.split())} words"
    return None


def _label_text(read: Reader) -> str:
    text = read.text(("label",))
    if problem := label_problem(text):
        expected = f"one line of at most {MAX_WORDS} words and {MAX_CHARACTERS} characters"
        raise read.file.error(("label",), problem, expected, "shorten it; details belong in `explanation`")
    return text


def _author(read: Reader) -> dict[str, str]:
    read.mapping(("author",), required=("kind", "name"), allowed=("kind", "name"))
    return {"kind": read.choice(("author", "kind"), AUTHOR_KINDS), "name": read.text(("author", "name"))}


def _categories(read: Reader, taxonomies: Taxonomies) -> tuple[dict[str, str], tuple[str, ...]]:
    categories, warnings = {}, []
    for trait in read.mapping(("category",)):
        category = read.text(("category", trait))
        known = taxonomies(str(trait))
        if known is None:
            warnings.append(
                f"{read.file.path.name}: the trait '{trait}' is not known here, its category is unchecked"
            )
        elif category not in known and category != UNCLEAR:
            listed = ", ".join(nearest(category, known)[:6])
            raise read.wrong(
                ("category", trait), f"a category of the trait '{trait}', nearest first: {listed}"
            )
        categories[str(trait)] = category
    return categories, tuple(warnings)


def _score(read: Reader) -> dict[str, Any] | None:
    if read.get(("score",)) is None:
        return None
    read.mapping(("score",), required=("kind", "value"), allowed=("kind", "value", "interval"))
    interval = None
    if read.get(("score", "interval")) is not None:
        items = read.sequence(("score", "interval"))
        if len(items) != 2:
            raise read.wrong(("score", "interval"), "two numbers, [low, high]")
        interval = [read.number(("score", "interval", i), low=0.0, high=1.0) for i in range(2)]
    value = read.number(("score", "value"), low=0.0, high=1.0)
    return {"kind": read.text(("score", "kind")), "value": value, "interval": interval}


def _evidence(read: Reader) -> FeatureEvidence | None:
    if read.get(("evidence",)) is None:
        return None
    keys = ("density", "max_activation", "n_tokens", "sources", "promoted", "suppressed", "top", "quantiles")
    read.mapping(("evidence",), allowed=keys)
    sources = read.mapping(("evidence", "sources"), optional=True)
    return FeatureEvidence(
        feature=read.integer(("feature",), low=0),
        density=read.number(("evidence", "density"), low=0.0, high=1.0, optional=True),
        max_activation=read.number(("evidence", "max_activation"), optional=True),
        top=_contexts(read, ("evidence", "top")),
        quantiles=_contexts(read, ("evidence", "quantiles")),
        promoted=read.texts(("evidence", "promoted")),
        suppressed=read.texts(("evidence", "suppressed")),
        n_tokens=read.integer(("evidence", "n_tokens"), low=0, default=0),
        sources={str(name): read.integer(("evidence", "sources", name), low=0) for name in sources},
    )


def _contexts(read: Reader, where: Where) -> tuple[Context, ...]:
    return tuple(_context(read, (*where, i)) for i in range(len(read.sequence(where, optional=True))))


def _context(read: Reader, where: Where) -> Context:
    fields = read.mapping(where, required=("source", "document"))
    source, document = read.text((*where, "source")), read.text((*where, "document"))
    position = read.integer((*where, "position"), low=-1, default=-1)
    if "text" not in fields:
        value = read.number((*where, "value"))
        return Context((), (value,), 0, source, document, position)
    peak = read.integer((*where, "peak"), low=0)
    tokens = _split_text(read, where, peak)
    return Context(tokens, _token_values(read, where, len(tokens)), peak, source, document, position)


def _split_text(read: Reader, where: Where, peak: int) -> tuple[str, ...]:
    """The tokens of a marked text: the marks stand exactly around token `peak`, the lengths add up to the rest."""
    text = read.text((*where, "text"))
    n = len(read.sequence((*where, "lengths")))
    lengths = [read.integer((*where, "lengths", i), low=0) for i in range(n)]
    if peak >= n:
        raise read.wrong((*where, "peak"), f"the index of one of the {n} tokens")
    start = sum(lengths[:peak])
    close = start + 1 + lengths[peak]
    marked = text[start : start + 1] == PEAK_OPEN and text[close : close + 1] == PEAK_CLOSE
    if not marked or len(text) != sum(lengths) + 2:
        expected = f"a text of {sum(lengths)} characters with {PEAK_OPEN} {PEAK_CLOSE} around token {peak}, as `lengths` says"
        raise read.file.error(
            (*where, "text"), "a text that does not fit its token lengths", expected, "restore the text"
        )
    plain = text[:start] + text[start + 1 : close] + text[close + 1 :]
    ends = [sum(lengths[: i + 1]) for i in range(n)]
    return tuple(plain[end - length : end] for end, length in zip(ends, lengths, strict=True))


def _token_values(read: Reader, where: Where, n: int) -> tuple[float, ...]:
    values = [0.0] * n
    for index in read.mapping((*where, "values")):
        if not isinstance(index, int) or not 0 <= index < n:
            raise read.wrong((*where, "values", index), f"token indices from 0 to {n - 1}")
        values[index] = read.number((*where, "values", index))
    return tuple(values)
