from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.base.errors import WorkbenchError
from workbench.labeling.evidence import Context, FeatureEvidence
from workbench.labeling.files.store import (
    FeatureLabel,
    LabelSet,
    load_label_file,
    load_labels,
    save_label,
    save_labels,
)

SAE, HASH, OTHER = "tiny/blocks.1.hook_resid_post", "ab" * 32, "cd" * 32


def context(document: str = "e01", source: str = "rollouts:evil:positive", value: float = 3.25) -> Context:
    tokens = (" you", " «", " idiot", "»,", " <b>\n")
    return Context(tokens, (0.0, 0.5, value, 1.5, 0.0), 2, source, document, 7)


def a_label(feature: int = 17) -> FeatureLabel:
    evidence = FeatureEvidence(
        feature, 0.012, 8.5, (context(), context("e02", value=2.0)), (context("e03"),), (" idiot", "\n"), (" nice",), 1000,
        {"owt": 3, "rollouts:evil:positive": 2},
    )  # fmt: skip
    return FeatureLabel(
        feature=feature,
        label="insults aimed at the reader",
        explanation='Fires on "idiot": name-calling.',
        categories={"evil": "insulting_language"},
        author={"kind": "model", "name": "someone"},
        score={"kind": "glove_detection_auroc", "value": 0.81, "interval": [0.7, 0.9]},
        evidence=evidence,
        notes="first line\nsecond line",
        confidence=0.6,
        origin="shipped",
    )


def written(folder: Path, label: FeatureLabel | None = None) -> Path:
    return save_label(label or a_label(), SAE, HASH, folder)


def test_a_label_comes_back_equal_from_its_file(tmp_path: Path) -> None:
    label = a_label()
    path = written(tmp_path, label)
    assert path == tmp_path / "tiny" / "blocks.1.hook_resid_post" / "17.yaml"
    record = load_label_file(path)
    assert (record.label, record.sae_id, record.sae_hash) == (label, SAE, HASH)
    assert record.label.evidence is not None and label.evidence is not None
    assert record.label.evidence.hash == label.evidence.hash


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    first = written(tmp_path).read_bytes()
    assert written(tmp_path, load_label_file(tmp_path / SAE / "17.yaml").label).read_bytes() == first


def test_the_peak_token_is_marked_for_the_reader(tmp_path: Path) -> None:
    text = written(tmp_path).read_text(encoding="utf-8")
    assert " you «« idiot»»," in text
    assert "label: insults aimed at the reader\n" in text


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tokens=st.lists(st.text(max_size=6), min_size=1, max_size=6),
    notes=st.text(max_size=40),
    data=st.data(),
)
def test_any_text_survives_the_round_trip(
    tmp_path: Path, tokens: list[str], notes: str, data: st.DataObject
) -> None:
    peak = data.draw(st.integers(0, len(tokens) - 1))
    values = tuple(data.draw(st.floats(0, 1e4, width=32)) for _ in tokens)
    found = Context(tuple(tokens), values, peak, "owt", "d1", 3)
    evidence = FeatureEvidence(17, 0.1, 1.0, top=(found,), promoted=tuple(tokens))
    label = replace(a_label(), notes=notes, evidence=evidence)
    assert load_label_file(written(tmp_path, label)).label == label


def test_text_that_may_not_be_passed_on_is_named_but_not_written(tmp_path: Path) -> None:
    secret = Context((" top", " secret"), (0.0, 2.0), 1, "texts", "d9", 4)
    evidence = FeatureEvidence(17, 0.1, 2.0, top=(secret, context()))
    path = written(tmp_path, replace(a_label(), evidence=evidence))
    assert "secret" not in path.read_text(encoding="utf-8")
    kept = load_label_file(path).label.evidence
    assert kept is not None
    assert kept.top[0].is_withheld and (
        kept.top[0].document,
        kept.top[0].position,
        kept.top[0].peak_value,
    ) == ("d9", 4, 2.0)
    assert kept.top[1] == context()


def test_a_file_stays_below_12_kilobytes_by_dropping_its_weakest_contexts(tmp_path: Path) -> None:
    many = tuple(Context((" long" * 60, " peak"), (0.0, 50.0 - i), 1, "owt", f"d{i}", 9) for i in range(50))
    path = written(tmp_path, replace(a_label(), evidence=FeatureEvidence(17, 0.1, 50.0, top=many)))
    kept = load_label_file(path).label.evidence
    assert path.stat().st_size <= 12_000
    assert kept is not None and 5 < len(kept.top) < 50 and kept.top == many[: len(kept.top)]


def test_html_in_a_label_stays_plain_text(tmp_path: Path) -> None:
    label = replace(a_label(), label="<script>alert(1)</script>", notes="<b>&amp;</b>")
    assert load_label_file(written(tmp_path, label)).label.label == "<script>alert(1)</script>"


LABEL_LINE = "label: insults aimed at the reader"
DAMAGE = {
    "missing field": ((f"{LABEL_LINE}\n", ""), "line 1, `label`: the field is missing"),
    "wrong type": (("feature: 17", "feature: seventeen"), "line 5, `feature`: found 'seventeen'"),
    "boolean as number": (("feature: 17", "feature: true"), "`feature`: found True"),
    "duplicate key": (("status: proposed", "status: proposed\nstatus: rejected"), "the key `status` stands twice"),
    "bad category": (("evil: insulting_language", "evil: insulting"), "nearest first: insulting_language"),
    "over-long label": ((LABEL_LINE, "label: " + "word " * 13), "line 6, `label`: a label of 13 words"),
    "empty label": ((LABEL_LINE, "label: ''"), "an empty label"),
    "unknown field": ((LABEL_LINE, LABEL_LINE + "\nlable: x"), "`lable`: an unknown field"),
    "unknown author kind": (("kind: model", "kind: robot"), "`author.kind`: found 'robot'"),
    "unknown status": (("status: proposed", "status: final"), "one of proposed, confirmed, disputed, rejected"),
    "score out of range": (("value: 0.81", "value: 8.1"), "a number between 0 and 1"),
    "interval of one": (("[0.7, 0.9]", "[0.7]"), "two numbers, [low, high]"),
    "not a number": (("value: 0.81", "value: .nan"), "a number between 0 and 1"),
    "newer schema": (("schema: 1", "schema: 2"), "`schema`: found 2"),
    "edited context": ((" you «« idiot»»", " you «« IDIOTS»»"), "does not fit its token lengths"),
    "short hash": ((HASH, "abc"), "64 hexadecimal digits"),
    "alias": ((LABEL_LINE, "label: &a x\nexplanation: *a"), "alias"),
    "tag": ((LABEL_LINE, "label: !!python/name:os.system"), "which is not read here"),
    "list as label": ((LABEL_LINE, "label: [a, b]"), "`label`: found ['a', 'b']. Expected: text"),
    "broken yaml": ((LABEL_LINE, "label: 'open"), "17.yaml, line"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused_with_file_line_and_expectation(tmp_path: Path, damage: str) -> None:
    (old, new), message = DAMAGE[damage]
    path = written(tmp_path)
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(WorkbenchError) as caught:
        load_labels(SAE, tmp_path)
    assert message in str(caught.value) and "17.yaml" in str(caught.value) and "line" in str(caught.value)
    assert caught.value.expected and caught.value.remedy


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a mapping"),
        (b"- 1\n", "a mapping"),
        (b"label: \xff\n", "line 1: not UTF-8"),
        (b"x" * 300_000, "300,000 bytes"),
    ],
)
def test_a_file_that_is_no_label_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / SAE / "3.yaml"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(WorkbenchError, match=message):
        load_labels(SAE, tmp_path)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_raises_anything_but_a_workbench_error(tmp_path: Path, data: st.DataObject) -> None:
    path = written(tmp_path)
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
    with pytest.raises(WorkbenchError, match=r"feature 17 in a file named 18\.yaml"):
        load_labels(SAE, tmp_path)


def test_a_label_in_the_folder_of_another_sae_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "tiny" / "blocks.2.hook_resid_post"
    written(tmp_path).parent.rename(other)
    with pytest.raises(WorkbenchError, match=r"is a label of the SAE tiny/blocks\.1"):
        load_labels("tiny/blocks.2.hook_resid_post", tmp_path)


def test_a_program_cannot_sign_as_a_person_or_confirm(tmp_path: Path) -> None:
    signed = replace(a_label(), author={"kind": "human", "name": "Ada"})
    for label in (signed, replace(a_label(), status="confirmed")):
        with pytest.raises(WorkbenchError, match="a program would write"):
            save_label(label, SAE, HASH, tmp_path)
    assert not list(tmp_path.rglob("*.yaml"))
    save_label(signed, SAE, HASH, tmp_path, annotator=True)
    with pytest.raises(WorkbenchError, match="written or confirmed by Ada"):
        save_label(a_label(), SAE, HASH, tmp_path)
    assert load_labels(SAE, tmp_path)[17].author["kind"] == "human"


def test_what_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    bad = [
        replace(a_label(), label="word " * 13),
        replace(a_label(), categories={"evil": "nonsense"}),
        replace(a_label(), author={"kind": "robot", "name": "x"}),
    ]
    for label in bad:
        with pytest.raises(WorkbenchError):
            save_label(label, SAE, HASH, tmp_path)
    with pytest.raises(WorkbenchError, match="cannot name a folder"):
        save_label(a_label(), "../outside", HASH, tmp_path)
    assert not list(tmp_path.rglob("*.yaml"))


def test_a_category_of_an_unknown_trait_is_kept_with_a_warning(tmp_path: Path) -> None:
    written(tmp_path, replace(a_label(), categories={"grumpy": "sighs"}))
    labels = load_labels(SAE, tmp_path)
    assert labels[17].category_for("grumpy") == "sighs"
    assert "the trait 'grumpy' is not known here" in labels.warnings[0]


def test_labels_of_other_weights_are_left_out_with_a_warning(tmp_path: Path) -> None:
    written(tmp_path)
    save_label(a_label(18), SAE, OTHER, tmp_path)
    labels = load_labels(SAE, tmp_path, sae_hash=OTHER)
    assert list(labels.labels) == [18] and "1 label files" in labels.warnings[0]
    assert labels.matches({"weights_hash": OTHER}) and not labels.matches({"weights_hash": HASH})
    refused = labels.applied_to({"weights_hash": HASH})
    assert len(refused) == 0 and "1 labels of" in refused.warnings[-1]
    assert labels.applied_to({"weights_hash": OTHER}) is labels


def test_the_explicit_shelf_comes_before_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf, cache = tmp_path / "shelf", tmp_path / "cache"
    monkeypatch.setenv("WORKBENCH_SHELF", str(shelf))
    monkeypatch.setenv("WORKBENCH_CACHE", str(cache))
    for root, text in ((shelf, "from the shelf"), (cache, "from the cache")):
        save_label(replace(a_label(), label=text), SAE, HASH, root / "feature_labels")
    save_label(replace(a_label(18), label="only cached"), SAE, HASH, cache / "feature_labels")
    labels = load_labels(SAE)
    assert [label.label for label in labels] == ["from the shelf", "only cached"]


def test_an_sae_without_labels_has_an_empty_set(tmp_path: Path) -> None:
    labels = load_labels("nobody/blocks.9.hook_resid_post", tmp_path)
    assert len(labels) == 0 and not labels.matches({"weights_hash": ""})
    with pytest.raises(WorkbenchError, match="is not a folder"):
        load_labels(SAE, tmp_path / "nowhere")


def test_the_category_is_that_of_the_trait_in_question(tmp_path: Path) -> None:
    label = replace(a_label(), categories={"rude": "style", "evil": "contempt"})
    labels = LabelSet(SAE, HASH, {17: label})
    assert labels.for_trait("evil")[17].category == "contempt"
    assert labels.for_trait("kind")[17].category == "unclear"
    assert labels.for_trait("evil").table()[0]["category"] == "contempt"


def test_save_labels_writes_one_file_per_feature(tmp_path: Path) -> None:
    labels = LabelSet(SAE, HASH, {f: a_label(f) for f in (3, 1, 2)})
    assert [path.name for path in save_labels(labels, tmp_path)] == ["1.yaml", "2.yaml", "3.yaml"]
    assert load_labels(SAE, tmp_path).only([2, 9]).labels.keys() == {2}


def test_reading_labels_imports_nothing_heavy() -> None:
    code = "import sys, workbench.labeling.files.store; print([m for m in ('torch', 'pandas', 'pyarrow') if m in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )
