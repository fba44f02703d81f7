"""Neuronpedia's layouts: read, written, read back; what is too large, damaged or not allowed is refused."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.labeling.files.making import HASH, SAE, a_label, a_record, context, evidence_of, said
from workbench.base.errors import WorkbenchError
from workbench.labeling.evidence import Context, FeatureEvidence
from workbench.labeling.files import foreignjson
from workbench.labeling.files.folders import read_folder, write_records
from workbench.labeling.files.merge import merge
from workbench.labeling.files.neuronpedia import (
    SCHEMA_FILE,
    Activation,
    Explanation,
    NeuronpediaFeature,
    check_upload,
    read_features,
    to_explanation_rows,
    to_feature,
    to_uploads,
)
from workbench.labeling.files.neuronpedia_labels import records_of, upload_of

LONG = "references to people, places and institutions of the late Roman empire, in particular those named in legal texts"


def theirs(index: int = 10956) -> dict[str, Any]:
    """A feature laid out as the API answers (the numbers and texts are made up), with fields that are not read."""
    return {
        "modelId": "gemma-2-2b", "layer": "20-gemmascope-res-16k", "index": str(index), "sourceSetName": "gemmascope-res-16k",
        "creatorId": "c", "createdAt": "2024-07-31T00:00:00.000Z", "maxActApprox": 12.5, "hasVector": False, "vector": [],
        "topkCosSimIndices": [1, 2], "neg_str": [" no"], "neg_values": [-1.5], "pos_str": [" law", " court"],
        "pos_values": [2.5, 1.25], "frac_nonzero": 0.00125, "freq_hist_data_bar_heights": [1], "lists": [], "comments": [],
        "activations": [
            {"id": "a", "tokens": ["The", " law", "\u0120s"], "values": [0, 12.5, 0.5], "maxValue": 12.5, "maxValueTokenIndex": 1,
             "minValue": 0, "dataIndex": None, "binMin": 10.0, "binMax": 12.5, "binContains": 0.25, "lossValues": []},
            {"id": "b", "tokens": ["court"], "values": [3.5], "maxValue": 3.5, "maxValueTokenIndex": 0, "minValue": 3.5},
        ],
        "explanations": [
            {"id": "x", "description": "legal terms", "explanationModelName": "gpt-4o-mini", "typeName": "oai_token-act-pair",
             "scores": [], "triggeredByUser": None},
            {"id": "y", "description": LONG, "explanationModelName": None, "typeName": None, "scores": []},
        ],
    }  # fmt: skip


def saved(folder: Path, name: str, value: Any) -> Path:
    path = folder / name
    rows = value if isinstance(value, list) and ".jsonl" in name else [value]
    raw = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return path


def test_a_feature_laid_out_as_theirs_reads_back_equal(tmp_path: Path) -> None:
    (feature,) = read_features([saved(tmp_path, "f.json", theirs())])
    assert feature == NeuronpediaFeature(
        "gemma-2-2b", "20-gemmascope-res-16k", 10956, 0.00125, ((" law", 2.5), (" court", 1.25)), ((" no", -1.5),),
        (Explanation("legal terms", "oai_token-act-pair", "gpt-4o-mini"), Explanation(LONG)),
        (Activation(("The", " law", "\u0120s"), (0, 12.5, 0.5), 10.0, 12.5, 0.25), Activation(("court",), (3.5,))),
    )  # fmt: skip
    again = to_feature(feature)
    assert {name: again[name] for name in ("index", "pos_str", "pos_values", "frac_nonzero", "maxActApprox")} == {
        name: theirs()[name] for name in ("index", "pos_str", "pos_values", "frac_nonzero", "maxActApprox")
    }
    assert read_features([saved(tmp_path, "again.json.gz", again)]) == [feature]
    assert read_features([saved(tmp_path, "many.jsonl", [again])]) == [feature]


def test_bulk_explanations_are_put_together_by_feature(tmp_path: Path) -> None:
    (feature,) = read_features([saved(tmp_path, "f.json", theirs())])
    other = replace(feature, index=3, explanations=(Explanation("dates"),))
    unread = {"id": "x", "embedding": "[0.1,0.2]", "authorId": "u"}
    rows = [{**unread, **row} for row in to_explanation_rows([feature, other])]
    assert len(rows) == 3
    paths = [saved(tmp_path, f"batch-{n}.jsonl.gz", [row]) for n, row in enumerate(rows)]
    found = read_features(paths)
    assert [(item.index, item.explanations) for item in found] == [(3, other.explanations), (10956, feature.explanations)]
    assert read_features([*paths, *paths]) == found
    assert [item.index for item in read_features(paths, only=frozenset({3}))] == [3]
    assert [item.activations for item in read_features([*paths, tmp_path / "f.json"])][1] == feature.activations


def test_explanations_become_labels_of_the_model_that_wrote_them(tmp_path: Path) -> None:
    records = records_of(read_features([saved(tmp_path, "f.json", theirs())]), SAE, HASH)
    (record,) = records.values()
    assert {(x.label, x.explanation, x.author["name"], x.author.get("method"), x.status) for x in record.labels} == {
        ("legal terms", "", "gpt-4o-mini", "oai_token-act-pair", "proposed"),
        ("references to people, places and institutions of the late Roman empire, in…", LONG, "neuronpedia", None, "proposed"),
    }
    assert all(label.author["kind"] == "model" for label in record.labels)
    assert all("gemma-2-2b/20-gemmascope-res-16k/10956" in label.notes for label in record.labels)
    write_records(records, tmp_path / "labels")
    kept = read_folder(tmp_path / "labels")
    (read,) = kept.values()
    assert read.evidence is not None and all(found.is_withheld for found in read.evidence.contexts)
    assert "court" not in [token for found in read.evidence.contexts for token in found.tokens]
    once = merge(kept, records)
    assert not once.conflicts and merge(once.records, records).records == once.records


def test_labels_become_upload_bodies_and_read_back_equal(tmp_path: Path) -> None:
    records = [a_record(replace(a_label(n), feature=n), evidence=evidence_of(n), feature=n) for n in range(130)]
    upload = upload_of(records, "SmolLM2", "15-Mine")
    bodies = to_uploads(upload.features)
    assert [len(body["features"]) for body in bodies] == [128, 2] and not upload.left_out
    assert (bodies[0]["modelId"], bodies[0]["source"]) == ("smollm2", "15-mine")
    paths = [saved(tmp_path, f"batch-{n}.json", body) for n, body in enumerate(bodies)]
    assert tuple(read_features(paths)) == upload.features
    first = upload.features[0]
    assert first.explanations == (Explanation("insults aimed at the reader", None, "someone"),)
    assert [act.tokens for act in first.activations] == [context().tokens] * 3


def test_only_what_may_be_passed_on_is_uploaded() -> None:
    secret = Context((" top", " secret"), (0.0, 2.0), 1, "texts", "d9", 4)
    pieces = Context(("", "a", "", " b"), (5.0, 1.0, 2.0, 0.5), 1, "owt", "d1", 4)
    shown = FeatureEvidence(1, 0.5, 2.0, top=(secret, pieces))
    records = [
        replace(a_record(a_label(1), feature=1), evidence=shown),
        replace(a_record(a_label(2), feature=2), evidence=FeatureEvidence(2, 0.5, 2.0, top=(secret,))),
        replace(a_record(a_label(3, status="rejected"), feature=3), evidence=shown),
    ]
    upload = upload_of(records, "m", "s")
    assert [feature.index for feature in upload.features] == [1]
    assert upload.features[0].activations == (Activation(("a", " b"), (5.0, 0.5)),)
    assert upload.left_out == {2: "no context whose text may be passed on", 3: "no label counts"}


def test_the_label_that_counts_is_uploaded_or_all_of_them() -> None:
    person = said("my words", "human", "Ada")
    record = a_record(a_label(), person, said("no", name="r", status="rejected"), evidence=evidence_of())
    (feature,) = upload_of([record], "m", "s").features
    assert feature.explanations == (Explanation("my words"),)
    (feature,) = upload_of([record], "m", "s", every_author=True, method="known", explainer="gpt").features
    words = ("my words", "insults aimed at the reader")
    assert feature.explanations == tuple(Explanation(said, "known", "gpt") for said in words)


def test_an_imported_explanation_goes_back_as_it_came(tmp_path: Path) -> None:
    (feature,) = read_features([saved(tmp_path, "f.json", theirs())])
    (record,) = records_of([feature], SAE, HASH).values()
    shown = replace(record, evidence=evidence_of(10956))
    (back,) = upload_of([shown], feature.model_id, feature.source, every_author=True).features
    assert set(back.explanations) == set(feature.explanations)


# ---------------------------------------------------------------------------------------------------- what is refused


def body() -> dict[str, Any]:
    (one,) = to_uploads(upload_of([a_record(a_label(), evidence=evidence_of())], "m", "s").features)
    logits = [{"token": " a", "value": 1.5}]
    quantiles = {"quantileMin": 0.5, "quantileMax": 2.5, "quantileFraction": 0.25}
    acts = [{**act, **quantiles} for act in one["features"][0]["activations"]]
    return {**one, "features": [{**one["features"][0], "topLogits": logits, "bottomLogits": None, "activations": acts}]}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The body with the value at `path` set; the value `...` removes it."""
    made = json.loads(json.dumps(body()))
    *parts, last = [int(part) if part.isdecimal() else part for part in path.split(".")]
    place = made
    for part in parts:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return made


ACT, EXPLAINED = "features.0.activations.0", "features.0.explanations.0"
REFUSED = [
    ("modelId", ...), ("modelId", "M"), ("modelId", ""), ("source", 3), ("features", []), ("features", [{}] * 129), ("extra", 1),
    ("features.0.index", -1), ("features.0.index", 10_000_001), ("features.0.index", "17"), ("features.0.index", 1.5),
    ("features.0.index", True), ("features.0.density", 1.5), ("features.0.density", None), ("features.0.activations", []),
    ("features.0.activations", ...), ("features.0.topLogits", [{"token": "a", "value": 1}] * 21),
    ("features.0.topLogits.0.value", "1"), ("features.0.topLogits.0.token", ""), (f"{EXPLAINED}.text", "x" * 513),
    (f"{EXPLAINED}.text", ""), (f"{EXPLAINED}.text", ...), (f"{EXPLAINED}.methodName", "Upper"), (f"{EXPLAINED}.modelName", 4),
    (f"{EXPLAINED}.score", 1), ("features.0.explanations", None), (f"{ACT}.tokens", []), (f"{ACT}.tokens.0", ""),
    (f"{ACT}.values.0", None), (f"{ACT}.quantileFraction", 1.5), (f"{ACT}.quantileMax", 1e9), (f"{ACT}.surprise", 1),
    (f"{ACT}.tokens", ["a"] * 1025), ("features.0", 3), ("features", {"0": 1}),
]  # fmt: skip
ALLOWED = [
    ("features.0.density", ...), ("features.0.topLogits", None), ("features.0.explanations", []),
    ("features.0.explanations", ...),
    (f"{EXPLAINED}.methodName", None), (f"{EXPLAINED}.modelName", ...),
    (f"{ACT}.quantileMin", None), (f"{ACT}.quantileMax", ...),
    (f"{EXPLAINED}.text", "x" * 512), ("features.0.index", 10_000_000), (f"{ACT}.values.0", -3),
]  # fmt: skip


@pytest.fixture(scope="module")
def validator() -> Any:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize(("path", "value"), REFUSED, ids=lambda x: str(x)[:30])
def test_what_their_limits_forbid_is_refused_by_the_check_and_by_the_schema(validator: Any, path: str, value: Any) -> None:
    made = changed(path, value)
    assert not validator.is_valid(made)
    with pytest.raises(WorkbenchError) as caught:
        check_upload(made)
    assert caught.value.expected and caught.value.remedy


@pytest.mark.parametrize(("path", "value"), ALLOWED, ids=lambda x: str(x)[:30])
def test_what_their_limits_allow_is_accepted_by_both(validator: Any, path: str, value: Any) -> None:
    made = changed(path, value)
    assert validator.is_valid(made)
    check_upload(made)


def test_what_a_schema_cannot_say_is_checked_too() -> None:
    twice = body()
    twice["features"] = twice["features"] * 2
    with pytest.raises(WorkbenchError, match="an index that stands twice"):
        check_upload(twice)
    with pytest.raises(WorkbenchError, match=r"values`: a list of 1.* one for each token"):
        check_upload(changed(f"{ACT}.values", [1]))


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("f.json", b"", "not JSON"),
        ("f.json", b"{\n\"modelId\": 3,\n", "f.json, line 3"),
        ("f.json", b'{"modelId": NaN}', "NaN, which is no number"),
        ("f.json", b"[" * 100_000, "nested too deeply"),
        ("f.json", b'{"modelId": "m", "layer": "s", "index": ' + b"9" * 5000 + b"}", "f.json, line 1"),
        ("f.json", b'{"modelId": "m"}', "`layer`: the field is missing"),
        ("f.json", b"3", "an object"),
        ("f.json", b"\xff", "line 1: not UTF-8"),
        ("f.jsonl", b'{"modelId": "m", "layer": "s", "index": "1", "description": "x"}\n{"modelId": "m"}\n', "f.jsonl, line 2"),
        ("f.jsonl", b'{"modelId": "m", "layer": "s", "index": "-1", "description": "x"}\n', "a whole number from 0"),
        ("f.jsonl", b'{"modelId": "m", "layer": "s", "index": "1", "description": 5}\n', "`description`: found 5"),
        ("f.jsonl.gz", b"no gzip", "not a whole gzip file"),
        ("f.jsonl.gz", gzip.compress(b"x" * 1000)[:20], "not a whole gzip file"),
    ],
    ids=range(13),
)  # fmt: skip
def test_a_damaged_file_is_refused(tmp_path: Path, name: str, raw: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(WorkbenchError) as caught:
        read_features([tmp_path / name])
    assert message in str(caught.value) and caught.value.remedy


def test_a_file_that_unpacks_to_too_much_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreignjson, "MAX_LINE_BYTES", 100_000)
    one_line = tmp_path / "line.jsonl.gz"
    one_line.write_bytes(gzip.compress(b" " * 5_000_000))
    with pytest.raises(WorkbenchError, match="a line of more than 100,000 bytes"):
        read_features([one_line])
    many = tmp_path / "many.jsonl.gz"
    many.write_bytes(gzip.compress(b" \n" * 100_000))
    with pytest.raises(WorkbenchError, match="more than 150,000 bytes"):
        list(foreignjson.read_json_lines(many, max_bytes=150_000))


def test_files_of_two_sources_are_not_mixed(tmp_path: Path) -> None:
    one, other = saved(tmp_path, "a.json", theirs()), saved(tmp_path, "b.json", {**theirs(), "layer": "0-res"})
    with pytest.raises(WorkbenchError, match="files of one source"):
        read_features([one, other])


@settings(max_examples=40, deadline=None)
@given(text=st.text(max_size=200), surrogate=st.booleans())
def test_any_explanation_becomes_a_label_that_can_be_written(text: str, surrogate: bool) -> None:
    from workbench.labeling.files.record import from_text, to_text
    from workbench.labeling.files.store import trait_categories

    text = text + "\ud800" * surrogate
    feature = NeuronpediaFeature("m", "s", 1, explanations=(Explanation(foreignjson.Field(text, Path("f")).text(most=500)),))
    for record in records_of([feature], SAE, HASH).values():
        read = from_text(to_text(record), Path("1.yaml"), trait_categories())
        assert read == record


def test_one_json_value_of_much_memory_is_not_read(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.json.gz"
    bomb.write_bytes(gzip.compress(b'{"x":[' + b"[]," * 6_000_000 + b"[]]}", 1))
    with pytest.raises(WorkbenchError, match="more than 16,000,000 bytes"):
        read_features([bomb])


def test_imported_explanations_are_bounded_in_length_and_number(tmp_path: Path) -> None:
    many = [Explanation(f"{i} " + "long " * 3900, f"method-{i}") for i in range(40)]
    found = records_of([NeuronpediaFeature("m", "s", 17, explanations=tuple(many))], SAE, HASH)
    labels = found[SAE, 17].labels
    assert len(labels) == 16 and all(len(label.explanation) == 2000 and label.explanation.endswith("…") for label in labels)
    write_records(found, tmp_path)
    assert len(read_folder(tmp_path)[SAE, 17].labels) == 16


def test_text_is_measured_as_javascript_does() -> None:
    whole = "😈 " * 200 + "end of it"
    label = said(" ".join(whole.split()[:12]) + "…", explanation=whole)
    (feature,) = upload_of([a_record(label, evidence=evidence_of())], "m", "s").features
    assert feature.explanations[0].text == label.label  # 609 units, though 409 characters
    with pytest.raises(WorkbenchError, match="1 to 512 characters"):
        check_upload(changed(f"{EXPLAINED}.text", "😈" * 257))


def test_a_context_that_is_too_long_is_cut_around_its_peak() -> None:
    for n, peak in ((1200, 1199), (1200, 0), (3000, 1500), (1024, 1023)):
        values = [0.0] * n
        values[peak] = 3.0
        context = Context(tuple(f"{i} " for i in range(n)), tuple(values), peak, "owt", "d")
        evidence = FeatureEvidence(17, 0.1, 3.0, top=(context,))
        (feature,) = upload_of([a_record(said("anger"), evidence=evidence)], "m", "s").features
        shown = feature.activations[0]
        assert len(shown.tokens) == 1024 and shown.tokens[shown.values.index(3.0)] == f"{peak} "


def test_a_feature_that_they_would_refuse_is_listed_and_the_others_go() -> None:
    bad = replace(said("anger", name=""), feature=18)
    upload = upload_of([a_record(said("rage"), evidence=evidence_of()),
                        a_record(bad, feature=18, evidence=evidence_of(18))], "m", "s")  # fmt: skip
    assert [feature.index for feature in upload.features] == [17]
    assert "modelName" in upload.left_out[18] and len(to_uploads(upload.features)) == 1
