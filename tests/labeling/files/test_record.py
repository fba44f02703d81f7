"""One label file: what is written is what is read, and what is refused."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.labeling.files.making import (
    HASH,
    SAE,
    a_label,
    a_record,
    context,
    evidence_of,
    labels,
    records,
    said,
    written,
)
from workbench.base.errors import WorkbenchError
from workbench.labeling.evidence import Context, FeatureEvidence
from workbench.labeling.files.evidence_part import read_evidence
from workbench.labeling.files.folders import check_folder
from workbench.labeling.files.reader import Reader
from workbench.labeling.files.record import from_text, to_text
from workbench.labeling.files.store import load_label_file, load_labels, save_record, trait_categories
from workbench.labeling.files.yamlfile import LabelFileError, YamlFile
from workbench.labeling.labels import FeatureLabel, FeatureRecord

MANY = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
GOLDEN = Path(__file__).with_name("golden")
TRAITS = trait_categories()


def test_a_label_comes_back_equal_from_its_file(tmp_path: Path) -> None:
    label = a_label()
    path = written(tmp_path, label)
    assert path == tmp_path / "tiny" / "blocks.1.hook_resid_post" / "17.yaml"
    record = load_label_file(path)
    assert (record.label, record.sae_id, record.sae_hash) == (label, SAE, HASH)
    assert record.evidence is not None and label.evidence is not None
    assert record.evidence.hash == label.evidence.hash == label.evidence_hash


def test_a_label_without_a_hash_names_the_evidence_it_comes_with(tmp_path: Path) -> None:
    label = load_label_file(written(tmp_path, a_label(evidence_hash="", origin="made"))).label
    assert label is not None and label.evidence_hash == evidence_of().hash


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    first = written(tmp_path).read_bytes()
    assert written(tmp_path, load_label_file(tmp_path / SAE / "17.yaml").label).read_bytes() == first


@MANY
@given(record=records())
def test_a_record_comes_back_equal_from_its_text(record: FeatureRecord) -> None:
    assert from_text(to_text(record), Path("17.yaml"), TRAITS) == record


@MANY
@given(record=records(), data=st.data())
def test_the_order_of_the_labels_does_not_change_the_file(record: FeatureRecord, data: st.DataObject) -> None:
    other = replace(record, labels=tuple(data.draw(st.permutations(record.labels))))
    assert to_text(other) == to_text(record)


@MANY
@given(label=labels())
def test_the_label_that_counts_stands_first_in_the_file(label: FeatureLabel) -> None:
    record = a_record(label, said("nothing to see", by="offline", name="z"))
    read = from_text(to_text(record), Path("17.yaml"), TRAITS)
    assert read.label in (read.labels[0], None)


def test_the_peak_token_is_marked_for_the_reader(tmp_path: Path) -> None:
    text = written(tmp_path).read_text(encoding="utf-8")
    assert " you «« idiot»»," in text
    assert "  - label: insults aimed at the reader\n" in text


def test_what_is_not_known_of_a_label_takes_no_line(tmp_path: Path) -> None:
    text = written(tmp_path, said("anger", date="")).read_text(encoding="utf-8")
    assert text.splitlines()[5:] == [
        "labels:", "  - label: anger", "    category: {}", "    author: {kind: model, name: m}", "    status: proposed",
        "evidence: null",
    ]  # fmt: skip


@MANY
@given(tokens=st.lists(st.text(max_size=6), min_size=1, max_size=6), notes=st.text(max_size=40), data=st.data())
def test_any_text_survives_the_round_trip(tokens: list[str], notes: str, data: st.DataObject) -> None:
    peak = data.draw(st.integers(0, len(tokens) - 1))
    values = tuple(data.draw(st.floats(0, 1e4, width=32)) for _ in tokens)
    found = Context(tuple(tokens), values, peak, "owt", "d1", 3)
    evidence = FeatureEvidence(17, 0.1, 1.0, top=(found,), promoted=tuple(tokens))
    label = a_label(notes=notes, evidence=evidence, evidence_hash=evidence.hash)
    record = a_record(label, evidence=evidence)
    assert from_text(to_text(record), Path("17.yaml"), TRAITS) == record


def test_text_that_may_not_be_passed_on_is_named_but_not_written(tmp_path: Path) -> None:
    secret = Context((" top", " secret"), (0.0, 2.0), 1, "texts", "d9", 4)
    evidence = FeatureEvidence(17, 0.1, 2.0, top=(secret, context()))
    path = written(tmp_path, a_label(evidence=evidence, evidence_hash="", origin="made"))
    assert "secret" not in path.read_text(encoding="utf-8")
    record = load_label_file(path)
    kept = record.evidence
    assert kept is not None and record.label is not None
    assert kept.top[0].is_withheld and kept.top[1] == context()
    assert (kept.top[0].document, kept.top[0].position, kept.top[0].peak_value) == ("d9", 4, 2.0)
    assert record.label.evidence_hash == evidence.hash != kept.hash  # of what the author read


def test_evidence_stays_below_12_kilobytes_by_dropping_its_weakest_contexts(tmp_path: Path) -> None:
    many = tuple(Context((" long" * 120, " peak"), (0.0, 50.0 - i), 1, "owt", f"d{i}", 9) for i in range(30))
    path = written(tmp_path, a_label(evidence=FeatureEvidence(17, 0.1, 50.0, top=many)))
    kept = load_label_file(path).evidence
    assert len(path.read_bytes().partition(b"\nevidence:")[2]) < 12_000
    assert kept is not None and 5 < len(kept.top) < 30 and kept.top == many[: len(kept.top)]


def test_html_in_a_label_stays_plain_text(tmp_path: Path) -> None:
    label = load_label_file(written(tmp_path, a_label(label="<script>alert(1)</script>", notes="<b>&amp;</b>"))).label
    assert label is not None and (label.label, label.notes) == ("<script>alert(1)</script>", "<b>&amp;</b>")


def test_a_date_without_quotes_is_the_same_date(tmp_path: Path) -> None:
    path = written(tmp_path)
    for date, expected in (
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
        ("2026-01-31T13:00:00+01:00", "2026-01-31T12:00:00Z"),
        ("2026-01-31", "2026-01-31"),
    ):
        text = path.read_text(encoding="utf-8")
        line = next(line for line in text.splitlines() if line.startswith("    date:"))
        path.write_text(text.replace(line, f"    date: {date}"), encoding="utf-8")
        label = load_label_file(path).label
        assert label is not None and label.date == expected


LABEL_LINE = "- label: insults aimed at the reader"
DAMAGE = {
    "broken yaml": ((LABEL_LINE, "- label: 'open"), "17.yaml, line"),
    "tab": (("    status: proposed", "\tstatus: proposed"), "line 1"),
    "duplicate key": (("    status: proposed", "    status: proposed\n    status: rejected"), "the key `status` stands twice"),
    "unknown key": ((LABEL_LINE, LABEL_LINE + "\n    lable: x"), "line 8, `labels.0.lable`: an unknown field"),
    "missing key": ((LABEL_LINE + "\n    explanation", "- explanation"), "line 7, `labels.0.label`: the field is missing"),
    "wrong type": (("feature: 17", "feature: seventeen"), "line 5, `feature`: found 'seventeen'"),
    "boolean as number": (("feature: 17", "feature: true"), "`feature`: found True"),
    "list as label": ((LABEL_LINE, "- label: [a, b]"), "`labels.0.label`: found ['a', 'b']. Expected: text"),
    "empty list": (("labels:\n", "labels: []\nevidences:\n"), "line 8, `evidences`: an unknown field"),
    "over-long label": ((LABEL_LINE, "- label: " + "word " * 13), "line 7, `labels.0.label`: a label of 13 words"),
    "label of two lines": ((LABEL_LINE, '- label: "a\\nb"'), "several lines"),
    "empty label": ((LABEL_LINE, "- label: ''"), "an empty label"),
    "unknown status": (("status: proposed", "status: final"), "`labels.0.status`: found 'final'. Expected: one of"),
    "unknown author kind": (("kind: model", "kind: robot"), "`labels.0.author.kind`: found 'robot'"),
    "bad date": (("'2026-01-31T12:00:00Z'", "'2026-02-30T12:00:00Z'"), "a date such as"),
    "date without a zone": (("'2026-01-31T12:00:00Z'", "2026-01-31T12:00:00"), "Write it in UTC"),
    "date in words": (("'2026-01-31T12:00:00Z'", "yesterday"), "a date such as"),
    "short hash": ((HASH, "abc"), "line 4, `sae.weights_hash`: 3 characters"),
    "hash in capitals": ((HASH, HASH.upper()), "other characters than 0-9 and a-f"),
    "short evidence hash": (("evidence_hash: ", "evidence_hash: f"), "`labels.0.evidence_hash`: 65 characters"),
    "bad category": (("evil: insulting_language", "evil: insulting"), "nearest first: insulting_language"),
    "confidence without category": (("evil: 0.75", "rude: 0.75"), "a confidence for 'rude'"),
    "edited context": ((" you «« idiot»»", " you «« IDIOTS»»"), "does not fit its token lengths"),
    "score out of range": (("value: 0.81", "value: 8.1"), "a number between -1 and 1"),
    "score not a number": (("value: 0.81", "value: .nan"), "`labels.0.score.value`: found nan"),
    "interval of one": (("[0.7, 0.9]", "[0.7]"), "two numbers, [low, high]"),
    "interval reversed": (("[0.7, 0.9]", "[0.9, 0.7]"), "score.interval`: found [0.9, 0.7]. Expected: the lower end first"),
    "anchor": ((LABEL_LINE, "- label: &a x"), "an anchor"),
    "unknown field of a score": (("n: {positives", "vlaue: {positives"), "`labels.0.score.vlaue`: an unknown field"),
    "unknown field of a breakdown": (("random: {value", "random: {vlaue"), "`labels.0.score.by.random.vlaue`: an unknown field"),
    "alias": ((LABEL_LINE, "- label: *a"), "an alias"),
    "two documents": (("labels:\n", "...\n---\nlabels:\n"), "a second document"),
    "billion laughs": (("notes: ", "a: &a [x, x]\n    b: &b [*a, *a]\n    notes: "), "line 27: an anchor"),
    "tag": ((LABEL_LINE, "- label: !!python/name:os.system"), "which is not read here"),
    "object tag": (("feature: 17", "feature: !!python/object/apply:os.system ['true']"), "line 5"),
    "set": (("sources: {", "sources: !!set {"), "which is not read here"),
    "newer schema": (("schema: 2", "schema: 3"), "`schema`: found 3"),
    "schema in words": (("schema: 2", "schema: two"), "`schema`: found 'two'"),
    "schema 1 with labels": (("schema: 2", "schema: 1"), "`labels`: an unknown field"),
    "deep nesting": (("notes: ", "notes: " + "[" * 60 + "]" * 60 + "\n    x: "), "nested more than 12 levels"),
    "very deep nesting": (("notes: ", "notes: " + "[" * 100_000 + "]" * 100_000 + "\n    x: "), "17.yaml, line"),
    "number too long": (("n_tokens: 1000", "n_tokens: " + "9" * 5000), "a number or date of 5,000 characters"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused_with_file_line_and_remedy(tmp_path: Path, damage: str) -> None:
    (old, new), message = DAMAGE[damage]
    path = written(tmp_path)
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(LabelFileError) as caught:
        load_labels(SAE, tmp_path)
    error = caught.value
    assert message in str(error) and "17.yaml, line" in str(error)
    assert error.path == path and error.line and error.expected and error.remedy and error.exit_code == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a mapping"),
        (b"- 1\n", "a mapping"),
        (b"schema: 2\nlabel: \xff\n", "line 2: not UTF-8"),
        (b"a: \x00\n", "17.yaml, line 1"),
        (b"x" * 300_000, "300,000 bytes"),
    ],
)
def test_a_file_that_is_no_label_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / SAE / "17.yaml"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(LabelFileError, match=message) as caught:
        load_labels(SAE, tmp_path)
    assert caught.value.remedy


def test_a_feature_without_a_label_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_text(to_text(a_record()), encoding="utf-8")
    with pytest.raises(LabelFileError, match="line 6, `labels`: a feature without a label"):
        load_label_file(path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    outside = written(tmp_path / "elsewhere")
    link = tmp_path / "labels" / SAE / "17.yaml"
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    with pytest.raises(LabelFileError, match="a symbolic link"):
        load_labels(SAE, tmp_path / "labels")
    link.unlink()
    link.parent.rmdir()
    link.parent.symlink_to(outside.parent)
    with pytest.raises(WorkbenchError, match="is a symbolic link"):
        load_labels(SAE, tmp_path / "labels")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_raises_anything_but_a_workbench_error(tmp_path: Path, data: st.DataObject) -> None:
    path = save_record(a_record(a_label(), said("x", name="n"), evidence=evidence_of()), tmp_path)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(raw) - 1))
        raw[position : position + data.draw(st.integers(0, 5))] = data.draw(st.binary(max_size=5))
    path.write_bytes(bytes(raw))
    try:
        load_label_file(path)
    except WorkbenchError as error:
        assert "17.yaml" in str(error)
    finally:
        path.unlink()


def test_the_file_name_must_be_the_feature(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.rename(path.with_name("18.yaml"))
    with pytest.raises(LabelFileError, match=r"line 5, `feature`: feature 17 in a file named 18\.yaml"):
        load_labels(SAE, tmp_path)


@pytest.mark.parametrize("name", ["17.yaml", "18.yaml"])
def test_files_of_the_first_schema_are_read_as_they_were(name: str) -> None:
    record = load_label_file(GOLDEN / name)
    assert len(record.labels) == 1 and record.label is not None
    label = record.label
    if name == "17.yaml":
        assert label == a_label(date="", evidence_hash="", category_confidence={}, scores=(),
                                score={"kind": "glove_detection_auroc", "value": 0.81, "interval": [0.7, 0.9]})  # fmt: skip
    else:
        assert (label.label, label.status) == ("polite refusals", "confirmed")
        assert label.author == {"kind": "human", "name": "a reader"}
        assert (label.evidence, label.score, label.categories) == (None, None, {})


PLAIN = f"schema: 2\nsae: {{id: {SAE}, weights_hash: {HASH}}}\nfeature: 17\nlabels:\n"
ONE = "  - {label: x, category: {}, author: {kind: model, name: m}, status: proposed}\n"
HARMFUL = {
    "a date before the year 1": PLAIN + ONE.replace("status", "date: 0001-01-01T00:00:00+14:00, status"),
    "a date after the year 9999": PLAIN + ONE.replace("status", "date: 9999-12-31T23:59:59-14:00, status"),
    "a feature of 5,000 digits": PLAIN.replace("17", "0x" + "F" * 5000) + ONE,
    "a density of 5,000 digits": PLAIN + ONE + "evidence: {density: 0x" + "F" * 5000 + "}\n",
    "a number to the base of 60": PLAIN + ONE + "evidence: {n_tokens: 1" + ":59" * 60_000 + "}\n",
    "a key of 5,000 digits": PLAIN + ONE + "0x" + "F" * 5000 + ": 1\n",
    "an author without a name": PLAIN + ONE.replace("name: m", "name: ' '"),
}


@pytest.mark.parametrize("what", HARMFUL)
def test_what_would_crash_or_hang_the_reader_is_refused_with_its_line(tmp_path: Path, what: str) -> None:
    path = tmp_path / "17.yaml"
    path.write_text(PLAIN + ONE, encoding="utf-8")
    assert load_label_file(path).feature == 17
    path.write_text(HARMFUL[what], encoding="utf-8")
    with pytest.raises(LabelFileError) as caught:
        load_label_file(path)
    assert caught.value.line is not None and len(str(caught.value)) < 600


def test_many_tokens_of_no_length_take_no_time() -> None:
    n = 60_000
    top = [{"source": "owt", "document": "d", "peak": 0, "text": "«»", "values": {}, "lengths": [0] * n}]
    file = YamlFile(Path("17.yaml"), {"feature": 17, "evidence": {"top": top}}, {})
    start = time.process_time()
    evidence = read_evidence(Reader(file))
    assert evidence is not None and len(evidence.top[0].tokens) == n
    assert time.process_time() - start < 5  # less than a second; a sum for each token takes a quarter of a minute


def test_a_pipe_and_a_folder_named_like_a_label_file_are_two_problems_among_others(tmp_path: Path) -> None:
    folder = written(tmp_path).parent
    os.mkfifo(folder / "18.yaml")
    (folder / "19.yaml").mkdir()
    found = check_folder(tmp_path)
    assert [(problem.path.name, problem.problem) for problem in found.problems] == [
        ("18.yaml", "no ordinary file"),
        ("19.yaml", "a folder"),
    ]
    assert len(found.records) == 1


def test_labels_take_nothing_away_from_the_evidence(tmp_path: Path) -> None:
    contexts = tuple(Context((" long" * 120, " peak"), (0.0, 50.0 - i), 1, "owt", f"d{i}", 9) for i in range(8))
    evidence = FeatureEvidence(17, 0.1, 50.0, top=contexts)
    path = written(tmp_path, a_label(evidence=evidence))
    written(tmp_path, said("wordy", name="n", explanation="word " * 4000))
    kept = load_label_file(path)
    assert kept.evidence is not None and kept.evidence.top == contexts and len(kept.labels) == 2


def test_what_is_too_large_to_be_read_back_is_not_written(tmp_path: Path) -> None:
    path = written(tmp_path)
    before = path.read_bytes()
    with pytest.raises(LabelFileError, match="at most 256,000 bytes"):
        written(tmp_path, said("wordy", name="n", notes="word " * 60_000))
    assert path.read_bytes() == before
