"""The folder of label files: who may write what, and what a reader gets."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.labeling.files.making import HASH, OTHER, SAE, a_label, a_record, evidence_of, said, written
from workbench.base.errors import WorkbenchError
from workbench.labeling.files.store import (
    LabelSet,
    load_label_file,
    load_labels,
    replace_labels,
    save_label,
    save_labels,
    save_record,
)
from workbench.labeling.labels import FeatureLabel


def test_a_label_in_the_folder_of_another_sae_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "tiny" / "blocks.2.hook_resid_post"
    written(tmp_path).parent.rename(other)
    with pytest.raises(WorkbenchError, match=r"is a label of the SAE tiny/blocks\.1"):
        load_labels("tiny/blocks.2.hook_resid_post", tmp_path)


def test_a_program_cannot_sign_as_a_person_or_confirm(tmp_path: Path) -> None:
    signed = said("name-calling", "human", "Ada")
    for label in (signed, a_label(status="confirmed")):
        with pytest.raises(WorkbenchError, match="a program would write"):
            save_label(label, SAE, HASH, tmp_path)
    assert not list(tmp_path.rglob("*.yaml"))
    save_label(signed, SAE, HASH, tmp_path, annotator=True)
    save_label(a_label(), SAE, HASH, tmp_path)
    labels = load_labels(SAE, tmp_path)
    assert labels[17] == replace(signed, evidence=evidence_of())
    assert [label.author["name"] for label in labels.all_of(17)] == ["Ada", "someone"]


def test_a_program_cannot_replace_what_a_person_confirmed(tmp_path: Path) -> None:
    save_label(a_label(status="confirmed"), SAE, HASH, tmp_path, annotator=True)
    with pytest.raises(WorkbenchError, match="a label of someone that a person confirmed"):
        save_label(a_label(label="something else"), SAE, HASH, tmp_path)
    assert load_labels(SAE, tmp_path)[17] == a_label(status="confirmed")


def test_an_author_has_one_label_and_the_others_keep_theirs(tmp_path: Path) -> None:
    for label in (said("first", name="a"), said("other", name="b"), said("second", name="a")):
        save_label(label, SAE, HASH, tmp_path)
    record = load_label_file(tmp_path / SAE / "17.yaml")
    assert {(item.author["name"], item.label) for item in record.labels} == {("a", "second"), ("b", "other")}


def test_a_new_label_is_dated_and_keeps_its_date_while_it_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    days = iter(["2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z"])
    monkeypatch.setattr("workbench.labeling.files.store.utc_now", lambda: next(days))
    made = said("anger", origin="made", date="")
    first = save_label(made, SAE, HASH, tmp_path).read_bytes()
    assert load_labels(SAE, tmp_path)[17].date == "2026-03-01T00:00:00Z"
    assert save_label(made, SAE, HASH, tmp_path).read_bytes() == first
    save_label(replace(made, label="rage"), SAE, HASH, tmp_path)
    assert load_labels(SAE, tmp_path)[17].date == "2026-03-02T00:00:00Z"


def test_a_file_for_other_weights_is_not_added_to(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(WorkbenchError, match="holds labels for the weights abababababab"):
        save_label(said("anger"), SAE, OTHER, tmp_path)


def test_the_evidence_from_more_tokens_stays(tmp_path: Path) -> None:
    less, more = evidence_of(), replace(evidence_of(), n_tokens=5000)
    for given in (more, less):
        save_label(a_label(evidence=given, evidence_hash="", origin="made"), SAE, HASH, tmp_path)
    record = load_label_file(tmp_path / SAE / "17.yaml")
    assert record.evidence == more and record.labels[0].evidence_hash == less.hash


def test_a_feature_whose_labels_were_rejected_has_none_that_counts(tmp_path: Path) -> None:
    save_record(a_record(said("anger", status="rejected"), said("rage", name="n", status="rejected")), tmp_path)
    labels = load_labels(SAE, tmp_path)
    assert 17 not in labels and len(labels) == 0 and len(labels.all_of(17)) == 2


def test_a_run_keeps_what_a_person_said_in_its_own_copy(tmp_path: Path) -> None:
    def run(*labels: FeatureLabel) -> LabelSet:
        replace_labels(LabelSet(SAE, HASH, {item.feature: item for item in labels}), tmp_path)
        return load_labels(SAE, tmp_path)

    run(a_label(1), a_label(2), a_label(3))
    save_label(replace(said("my words", "human", "Ada"), feature=2), SAE, HASH, tmp_path, annotator=True)
    after = run(replace(a_label(2), author={"kind": "offline", "name": "another"}), a_label(3, label="rage"))
    assert list(after.labels) == [2, 3] and after[3].label == "rage"
    assert [item.author["name"] for item in after.all_of(2)] == ["Ada", "another"]
    assert list(run(a_label(3)).labels) == [2, 3]


def test_a_run_does_not_replace_a_file_that_it_cannot_read(tmp_path: Path) -> None:
    signed = said("my words", "human", "Ada")
    path = save_label(signed, SAE, HASH, tmp_path, annotator=True)
    damaged = path.read_text(encoding="utf-8").replace("kind: human", "kind: humn")
    path.write_text(damaged, encoding="utf-8")
    for features in ((17,), (18,)):
        with pytest.raises(WorkbenchError, match=r"17\.yaml, line 9, `labels\.0\.author\.kind`: found 'humn'"):
            replace_labels(LabelSet(SAE, HASH, {f: a_label(f) for f in features}), tmp_path)
    assert path.read_text(encoding="utf-8") == damaged


def test_a_run_copies_a_persons_label_from_the_shelf_but_makes_none(tmp_path: Path) -> None:
    signed = said("my words", "human", "Ada", status="confirmed")
    replace_labels(LabelSet(SAE, HASH, {17: signed}), tmp_path)
    assert load_labels(SAE, tmp_path)[17] == signed
    with pytest.raises(WorkbenchError, match="a program would write"):
        replace_labels(LabelSet(SAE, HASH, {17: replace(signed, origin="made")}), tmp_path)


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
    written(tmp_path, a_label(categories={"grumpy": "sighs"}, category_confidence={"grumpy": 0.5}))
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
