"""The part of a label file that holds the evidence: how it is written, and how it is read back.

    evidence: {density, max_activation, n_tokens, sources, promoted, suppressed, top: [...], quantiles: [...]}

A context is {source, document, position, peak, text, lengths, values}: the text with the peak token between « and », the
length of each token in characters, and the activations that are not zero by token index. A context of which the text may not be
passed on has {source, document, position, value} only.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from workbench.labeling.evidence import PEAK_CLOSE, PEAK_OPEN, Context, FeatureEvidence
from workbench.labeling.files.reader import Reader
from workbench.labeling.files.yamlfile import Where
from workbench.labeling.files.yamltext import FlowList, FlowMap

_FIELDS = ("density", "max_activation", "n_tokens", "sources", "promoted", "suppressed", "top", "quantiles")
_PLACE = ("source", "document", "position")
_TEXT, _WITHHELD = (*_PLACE, "peak", "text", "lengths", "values"), (*_PLACE, "value")


def evidence_document(evidence: FeatureEvidence) -> dict[str, Any]:
    """The plain document of evidence, without text that may not be passed on."""
    shown = evidence.without_foreign_text()
    return {
        "density": shown.density,
        "max_activation": shown.max_activation,
        "n_tokens": shown.n_tokens,
        "sources": FlowMap(shown.sources),
        "promoted": FlowList(shown.promoted),
        "suppressed": FlowList(shown.suppressed),
        "top": [_context_document(c) for c in shown.top],
        "quantiles": [_context_document(c) for c in shown.quantiles],
    }


def _context_document(context: Context) -> dict[str, Any]:
    place = {"source": context.source, "document": context.document, "position": context.position}
    if context.is_withheld:
        return place | {"value": context.peak_value}
    return place | {
        "peak": context.peak,
        "text": context.marked(),
        "lengths": FlowList(len(token) for token in context.tokens),
        "values": FlowMap({i: value for i, value in enumerate(context.values) if value}),
    }


def read_evidence(read: Reader) -> FeatureEvidence | None:
    """The evidence in a file, None when it has none."""
    if read.get(("evidence",)) is None:
        return None
    read.mapping(("evidence",), allowed=_FIELDS)
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
    stands = read.get(where)
    has_text = isinstance(stands, dict) and "text" in stands
    read.mapping(where, required=("source", "document"), allowed=_TEXT if has_text else _WITHHELD)
    source, document = read.text((*where, "source")), read.text((*where, "document"))
    position = read.integer((*where, "position"), low=-1, default=-1)
    if not has_text:
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
        read.wrong((*where, "peak"), f"the index of one of the {n} tokens")
        return tuple("" for _ in lengths)
    start = sum(lengths[:peak])
    close = start + 1 + lengths[peak]
    marked = text[start : start + 1] == PEAK_OPEN and text[close : close + 1] == PEAK_CLOSE
    if not marked or len(text) != sum(lengths) + 2:
        expected = f"a text of {sum(lengths)} characters with {PEAK_OPEN} {PEAK_CLOSE} around token {peak}, as `lengths` says"
        found = "a text that does not fit its token lengths"
        read.refuse((*where, "text"), found, expected, "restore the text, or remove this context")
    plain = text[:start] + text[start + 1 : close] + text[close + 1 :]
    return tuple(plain[end - length : end] for end, length in zip(accumulate(lengths), lengths, strict=True))


def _token_values(read: Reader, where: Where, n: int) -> tuple[float, ...]:
    values = [0.0] * n
    for index in read.mapping((*where, "values")):
        if not isinstance(index, int) or not 0 <= index < n:
            read.refuse((*where, "values", index), f"a value of token {index!r}", f"token indices from 0 to {n - 1}")
        else:
            values[index] = read.number((*where, "values", index))
    return tuple(values)
