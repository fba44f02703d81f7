"""Neuronpedia's layouts of a feature: its API's answer, its bulk explanations, and the body of an upload.

Sources: the public API and exports documentation (docs.neuronpedia.org) and the validation in the open-source web app
(github.com/hijohnnylin/neuronpedia, api/feature/upload-batch), as of 2026. `neuronpedia_upload.schema.json` beside this file
says the same about uploads as a JSON schema.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workbench.base.errors import WorkbenchError
from workbench.labeling.files.foreignjson import Field, read_json_file, read_json_lines

MAX_BATCH, MAX_TEXT, MAX_TOKENS, MAX_LOGITS, MAX_INDEX = 128, 512, 1024, 20, 10_000_000
MAX_QUANTILE = 99_999_999
SCHEMA_FILE = Path(__file__).with_name("neuronpedia_upload.schema.json")
_LONGEST, _MANY = 20_000, 10_000  # of what is read, where they set no limit


@dataclass(frozen=True)
class Explanation:
    """What a feature is said to be; `method` and `model` are Neuronpedia's names of how and by which model, None if unknown."""

    text: str
    method: str | None = None
    model: str | None = None


@dataclass(frozen=True)
class Activation:
    """A text in tokens, the activation on each of them, and the quantile bin it was drawn from (bounds, share of tokens)."""

    tokens: tuple[str, ...]
    values: tuple[float, ...]
    quantile_min: float | None = None
    quantile_max: float | None = None
    quantile_fraction: float | None = None


@dataclass(frozen=True)
class NeuronpediaFeature:
    """One feature as Neuronpedia knows it. Logits are (token, value) pairs, the most promoted and suppressed first."""

    model_id: str
    source: str
    index: int
    density: float | None = None
    top_logits: tuple[tuple[str, float], ...] = ()
    bottom_logits: tuple[tuple[str, float], ...] = ()
    explanations: tuple[Explanation, ...] = ()
    activations: tuple[Activation, ...] = ()


# ---------------------------------------------------------------------------------------------------- any file


def read_features(paths: Iterable[Path], *, only: frozenset[int] | None = None) -> list[NeuronpediaFeature]:
    """The features in files of any of the three layouts (.json, .jsonl, either with .gz), put together by index.

    Raises:
        WorkbenchError: a damaged file, by file, line and field; files of several models or sources.
    """
    found: dict[int, NeuronpediaFeature] = {}
    for feature in (feature for path in paths for feature in features_of(path)):
        first = next(iter(found.values()), feature)
        if (feature.model_id, feature.source) != (first.model_id, first.source):
            raise WorkbenchError(
                f"features of {first.model_id}/{first.source} and of {feature.model_id}/{feature.source}",
                "files of one source",
                "import them one by one",
            )
        if only is None or feature.index in only:
            known = found.get(feature.index)
            found[feature.index] = feature if known is None else _joined(known, feature)
    return [found[index] for index in sorted(found)]


def features_of(path: Path) -> Iterator[NeuronpediaFeature]:
    """The features in one file, as they stand there."""
    if ".jsonl" in path.suffixes:
        for row in read_json_lines(path):
            yield from_explanation_row(row) if row.has("description") else from_feature(row)
        return
    read = read_json_file(path)
    if isinstance(read.value, dict) and "features" in read.value:
        yield from from_upload(read)
    elif isinstance(read.value, list):
        yield from (from_feature(item) for item in read.items(most=_MANY))
    else:
        yield from_feature(read)


def _joined(one: NeuronpediaFeature, other: NeuronpediaFeature) -> NeuronpediaFeature:
    explanations = tuple(dict.fromkeys((*one.explanations, *other.explanations)))
    return replace(one if one.activations else other, explanations=explanations)


# ---------------------------------------------------------------------------------------------------- GET api/feature


def from_feature(read: Field) -> NeuronpediaFeature:
    """The feature in the answer of GET /api/feature/{model}/{source}/{index}; fields that are not named here are passed over."""
    density = read["frac_nonzero"].optional_number()
    return NeuronpediaFeature(
        model_id=read["modelId"].text(least=1, most=200),
        source=read["layer"].text(least=1, most=200),
        index=read["index"].index(most=MAX_INDEX),
        density=density if density is not None and 0 <= density <= 1 else None,  # theirs is -1 when it is not known
        top_logits=_parallel(read["pos_str"], read["pos_values"]),
        bottom_logits=_parallel(read["neg_str"], read["neg_values"]),
        explanations=tuple(_explanation(item) for item in read["explanations"].items(most=_MANY)),
        activations=tuple(_activation(item) for item in read["activations"].items(most=_MANY)),
    )


def to_feature(feature: NeuronpediaFeature) -> dict[str, Any]:
    """The same layout, written."""
    return {
        "modelId": feature.model_id,
        "layer": feature.source,
        "index": str(feature.index),
        "frac_nonzero": -1 if feature.density is None else feature.density,
        "maxActApprox": max((max(act.values) for act in feature.activations), default=0.0),
        "pos_str": [token for token, _ in feature.top_logits],
        "pos_values": [value for _, value in feature.top_logits],
        "neg_str": [token for token, _ in feature.bottom_logits],
        "neg_values": [value for _, value in feature.bottom_logits],
        "explanations": [_explanation_row(item) for item in feature.explanations],
        "activations": [
            {
                "tokens": list(act.tokens),
                "values": list(act.values),
                "maxValue": max(act.values),
                "maxValueTokenIndex": act.values.index(max(act.values)),
                "minValue": min(act.values),
                "binMin": act.quantile_min,
                "binMax": act.quantile_max,
                "binContains": act.quantile_fraction,
            }
            for act in feature.activations
        ],
    }


def _parallel(names: Field, values: Field) -> tuple[tuple[str, float], ...]:
    tokens, numbers = names.items(most=_MANY), values.items(most=_MANY)
    if len(tokens) != len(numbers):
        values.refuse(f"a list of {len(tokens)}, one for each token", f"a list of {len(numbers)}")
    return tuple((t.text(most=_LONGEST), v.number()) for t, v in zip(tokens, numbers, strict=True))


def _explanation(read: Field) -> Explanation:
    return Explanation(
        text=read["description"].text(most=_LONGEST),
        method=read["typeName"].optional_text(most=200),
        model=read["explanationModelName"].optional_text(most=200),
    )


def _explanation_row(item: Explanation) -> dict[str, Any]:
    return {"description": item.text, "typeName": item.method, "explanationModelName": item.model}


def _activation(read: Field) -> Activation:
    tokens = tuple(token.text(most=_LONGEST) for token in read["tokens"].items(least=1, most=_MANY))
    values = tuple(value.number() for value in read["values"].items(least=1, most=_MANY))
    if len(tokens) != len(values):
        read["values"].refuse(f"a list of {len(tokens)}, one for each token", f"a list of {len(values)}")
    low, high, share = (read[name].optional_number() for name in ("binMin", "binMax", "binContains"))
    return Activation(tokens, values, low, high, share)


# ---------------------------------------------------------------------------------------------------- bulk explanations


def from_explanation_row(read: Field) -> NeuronpediaFeature:
    """The feature with one explanation, in a row of the exports (v1/{model}/{source}/explanations/batch-N.jsonl.gz)."""
    return NeuronpediaFeature(
        model_id=read["modelId"].text(least=1, most=200),
        source=read["layer"].text(least=1, most=200),
        index=read["index"].index(most=MAX_INDEX),
        explanations=(_explanation(read),),
    )


def to_explanation_rows(features: Iterable[NeuronpediaFeature]) -> list[dict[str, Any]]:
    """The rows of the exports, one for each explanation."""
    return [
        {"modelId": feature.model_id, "layer": feature.source, "index": str(feature.index), **_explanation_row(item)}
        for feature in features
        for item in feature.explanations
    ]


# ---------------------------------------------------------------------------------------------------- uploads


def from_upload(read: Field) -> list[NeuronpediaFeature]:
    """The features in the body of POST /api/feature/upload-batch, checked against all of its limits."""
    read.only("modelId", "source", "features")
    model_id, source = (_lower(read[name]) for name in ("modelId", "source"))
    features = [_uploaded(item, model_id, source) for item in read["features"].items(least=1, most=MAX_BATCH)]
    if len({feature.index for feature in features}) < len(features):
        read["features"].refuse("every index once", "an index that stands twice")
    return features


def check_upload(body: Mapping[str, Any], path: Path | str = "the upload") -> None:
    """Refuse a body that Neuronpedia would refuse. Raises WorkbenchError naming the field."""
    from_upload(Field(body, Path(path)))


def to_uploads(features: Iterable[NeuronpediaFeature]) -> list[dict[str, Any]]:
    """Bodies of at most 128 features each; all features are of one source and have activations."""
    ready = sorted(features, key=lambda feature: feature.index)
    pieces = [ready[i : i + MAX_BATCH] for i in range(0, len(ready), MAX_BATCH)]
    bodies = [
        {"modelId": piece[0].model_id, "source": piece[0].source, "features": [_to_upload(f) for f in piece]} for piece in pieces
    ]
    for body in bodies:
        check_upload(body)
    return bodies


def _lower(read: Field) -> str:
    text = read.text(least=1, most=200)
    return text if text == text.lower() else read.refuse("lower case")


def _uploaded(read: Field, model_id: str, source: str) -> NeuronpediaFeature:
    read.only("index", "density", "topLogits", "bottomLogits", "explanations", "activations")
    if isinstance(read["index"].value, str):
        read["index"].refuse("a whole number")
    for name in ("density", "explanations"):
        if name in read.value and read.value[name] is None:
            read[name].refuse("a value, or no such field", "null")
    return NeuronpediaFeature(
        model_id,
        source,
        index=read["index"].index(most=MAX_INDEX),
        density=read["density"].optional_number(low=0, high=1),
        top_logits=_logits(read["topLogits"]),
        bottom_logits=_logits(read["bottomLogits"]),
        explanations=tuple(_uploaded_explanation(item) for item in read["explanations"].items(most=_MANY)),
        activations=tuple(_uploaded_activation(item) for item in read["activations"].items(least=1, most=_MANY)),
    )


def _logits(read: Field) -> tuple[tuple[str, float], ...]:
    pairs = read.items(most=MAX_LOGITS)
    for item in pairs:
        item.only("token", "value")
    return tuple((item["token"].text(least=1, most=_LONGEST), item["value"].number()) for item in pairs)


def _uploaded_explanation(read: Field) -> Explanation:
    read.only("text", "methodName", "modelName")
    method, model = (None if read[name].value is None else _lower(read[name]) for name in ("methodName", "modelName"))
    return Explanation(read["text"].text(least=1, most=MAX_TEXT), method, model)


def _uploaded_activation(read: Field) -> Activation:
    read.only("tokens", "values", "quantileMin", "quantileMax", "quantileFraction")
    tokens = tuple(token.text(least=1, most=_LONGEST) for token in read["tokens"].items(least=1, most=MAX_TOKENS))
    values = tuple(value.number() for value in read["values"].items(least=1, most=MAX_TOKENS))
    if len(tokens) != len(values):
        read["values"].refuse(f"a list of {len(tokens)}, one for each token", f"a list of {len(values)}")
    low, high = (read[name].optional_number(high=MAX_QUANTILE) for name in ("quantileMin", "quantileMax"))
    return Activation(tokens, values, low, high, read["quantileFraction"].optional_number(low=0, high=1))


def _to_upload(feature: NeuronpediaFeature) -> dict[str, Any]:
    body = {
        "index": feature.index,
        "density": feature.density,
        "topLogits": [{"token": token, "value": value} for token, value in feature.top_logits],
        "bottomLogits": [{"token": token, "value": value} for token, value in feature.bottom_logits],
        "explanations": [{"text": e.text, "methodName": e.method, "modelName": e.model} for e in feature.explanations],
        "activations": [_to_uploaded_activation(act) for act in feature.activations],
    }
    return {name: value for name, value in body.items() if value is not None}


def _to_uploaded_activation(act: Activation) -> dict[str, Any]:
    quantiles = {"quantileMin": act.quantile_min, "quantileMax": act.quantile_max, "quantileFraction": act.quantile_fraction}
    known = {name: value for name, value in quantiles.items() if value is not None}
    return {"tokens": list(act.tokens), "values": list(act.values), **known}
