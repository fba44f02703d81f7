"""A report from a run folder: everything that belongs to the decomposition there, nothing that does not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.reports.example import D_SAE, NAMED, SAE_HASH, example_labels, example_vector
from tests.reports.studied import (
    example_audit,
    example_falsification,
    example_history,
    example_views,
    known_parts,
)
from workbench import notebook
from workbench.base.errors import WorkbenchError
from workbench.base.store import read_json, write_json
from workbench.base.tensors import save_tensors
from workbench.labeling.files.store import replace_labels, save_record
from workbench.labeling.views.store import ReadFrom, load_views, save_views
from workbench.reports.content import Report
from workbench.reports.folders import report_of_folder
from workbench.reports.several import TraitReports


@pytest.fixture
def shelf(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("WORKBENCH_SHELF", str(tmp_path / "shelf"))
    return tmp_path / "shelf" / "feature_labels"


@pytest.fixture
def run(tmp_path, shelf) -> Path:
    """A folder as the stages leave it, with an audit, checks and another label on the shelf."""
    folder, parts = tmp_path / "run", known_parts()
    example_vector().save(folder / "vector")
    parts.save(folder / "decomposition")
    replace_labels(example_labels(), folder / "labels")
    save_views(example_views().values(), folder / "views", read_from=ReadFrom("k3y", 90_000, {"owt": 90_000}))
    for name, value in example_audit(parts).items():
        if value is not None:
            write_json(folder / "audit" / f"{name}.json", value)
    example_falsification(parts).save(folder / "falsify")
    save_record(example_history().records[311], shelf)
    return folder


def test_all_that_belongs_to_the_run_is_in_the_report(run):
    made = report_of_folder(run)
    assert set(made.views) == {feature for feature, *_ in NAMED} and made.audit["behaviour"]["k"] == 32
    assert made.audit["screen"] is None and made.falsification.colour == "red"
    assert {one.label for one in made.label_history[311]} == {"Scorn for the weak and the ordinary", "Kings", "Being rude"}
    assert made.labels[311].label == "Scorn for the weak and the ordinary"
    assert len(made.examples) == 3 and made.made_of["contempt"].share == pytest.approx(0.046)


def test_views_survive_the_folder_and_say_what_was_read(run):
    stored = load_views(run / "views")
    assert stored.views == example_views() and stored.weights_hash == SAE_HASH
    assert stored.read_from == ReadFrom("k3y", 90_000, {"owt": 90_000})


def test_an_old_run_without_any_of_it_still_gives_a_report(run):
    for name in ("views", "audit", "falsify", "labels"):
        (run / name).rename(run / f"no {name}")
    made = report_of_folder(run)
    assert made.views == {} and made.audit is made.falsification is made.made_of is None and len(made.labels) == 0
    assert made.features and made.slices and made.to_json()["examples"] == []


@pytest.mark.parametrize("change", [{"vector": "else"}, {"sae": "else"}, {"trait": "else"}, None])
def test_an_audit_of_something_else_is_left_out(run, change, caplog):
    path = run / "audit" / "behaviour.json"
    found = read_json(path)
    of = {**found["of"], **change} if change else None
    write_json(path, {**found, "of": of} if of else {k: v for k, v in found.items() if k != "of"})
    assert report_of_folder(run).audit is None
    assert "behaviour.json is not of this decomposition" in caplog.text


def test_checks_of_another_vector_are_left_out(run, caplog):
    path = run / "falsify" / "falsification.json"
    found = read_json(path)
    write_json(path, {**found, "vector": {**found["vector"], "sha256": "else"}})
    assert report_of_folder(run).falsification is None and "another vector or SAE" in caplog.text


def test_checks_beside_the_run_are_found(run):
    (run / "falsify").rename(run / "evil")
    (run.parent / "falsify").mkdir()
    (run / "evil").rename(run.parent / "falsify" / "evil")
    assert report_of_folder(run).falsification.colour == "red"


def test_views_of_another_sae_are_left_out(run, caplog):
    save_views([replace(v, sae={**v.sae, "weights_hash": "00"}) for v in example_views().values()], run / "views")
    assert report_of_folder(run).views == {} and "of another SAE" in caplog.text


@pytest.mark.parametrize("damage", [{"kind": "labels"}, {"schema": 99}, {"views": [{}]}, {"views": 3}])
def test_damaged_views_are_refused_in_words(run, damage):
    path = run / "views" / "feature_views.json"
    path.write_text(json.dumps({**read_json(path), **damage}))
    with pytest.raises(WorkbenchError, match=r"feature_view|feature view"):
        report_of_folder(run)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("audit/behaviour.json", {"curve": [-1]}),
        ("audit/behaviour.json", {"denoised": {"k": 32, "effect_kept": [1, "x"]}}),
        ("vector/persona_vector.json", {"evidence": {"layer_curve": [1]}}),
        ("vector/persona_vector.json", {"evidence": {"auc_stripped": "<b>"}}),
        ("decomposition/decomposition.json", {"audit": {"groups": "none"}}),
    ],
)
def test_values_of_another_shape_are_refused_in_words(run, file, damage):
    path = run / file
    path.write_text(json.dumps({**read_json(path), **damage}))
    with pytest.raises(WorkbenchError, match="cannot be read"):
        report_of_folder(run).html()


def test_a_damaged_decomposition_is_refused_with_its_folder(run):
    path = run / "decomposition" / "decomposition.json"
    path.write_text(json.dumps({**read_json(path), "causal": [None]}))
    with pytest.raises(WorkbenchError, match="decomposition is damaged"):
        report_of_folder(run)


def test_placebo_contrasts_stand_beside_the_sub_traits_where_they_were_kept(run):
    assert report_of_folder(run).made_of["contempt"].placebo is None
    shares = torch.zeros(24, D_SAE)
    save_tensors(run / "views" / "placebo_shares.safetensors", {"shares": shares}, {"sae": SAE_HASH})
    null = report_of_folder(run).made_of["contempt"].placebo
    assert null.n == 24 and null.median == 0.0 and null.p == pytest.approx(1 / 25)
    save_tensors(run / "views" / "placebo_shares.safetensors", {"shares": shares}, {"sae": "else"})
    assert report_of_folder(run).made_of["contempt"].placebo is None


def test_a_folder_that_holds_no_run_is_refused(tmp_path):
    with pytest.raises(WorkbenchError, match="holds no vector"):
        report_of_folder(tmp_path)


# ----------------------------------------------------------------------------------------------------- wb.report


def test_a_folder_its_path_as_text_and_its_values_give_the_same_report(run):
    of_folder = notebook.report(run)
    assert isinstance(of_folder, Report) and notebook.report(str(run)).to_json() == of_folder.to_json()
    of_values = notebook.report(example_vector(), known_parts(), example_labels(), views=example_views())
    assert of_values.features == of_folder.features and of_values.to_json()["examples"] == of_folder.to_json()["examples"]


def test_a_decomposition_alone_takes_its_labels_from_the_store_and_has_no_evidence(run, shelf):
    made = notebook.report(known_parts())
    assert [one.feature for one in made.labels] == [311] and made.vector.evidence == {}
    assert torch.equal(made.vector.direction, known_parts().direction.float())
    assert len(notebook.report(known_parts(), labels=example_labels()).labels) == len(NAMED)


def test_several_run_folders_become_one_page(run, tmp_path):
    from tests.reports.studied import other_trait

    vector, parts, labels = other_trait()
    vector.save(tmp_path / "other" / "vector")
    parts.save(tmp_path / "other" / "decomposition")
    replace_labels(labels, tmp_path / "other" / "labels")
    both = notebook.report(run, tmp_path / "other")
    assert isinstance(both, TraitReports) and both.names == ("evil", "impolite")
    assert both.comparison is None  # the SAE of the example is on no shelf
    assert both["evil"].to_json() == notebook.report(run).to_json()


def test_what_cannot_be_a_report_is_refused_in_words(run):
    with pytest.raises(WorkbenchError, match=r"(?i)a dict"):
        notebook.report({})
    with pytest.raises(WorkbenchError, match=r"(?i)without its decomposition"):
        notebook.report(example_vector())
    with pytest.raises(WorkbenchError, match=r"(?i)audit for several traits"):
        notebook.report(run, run, audit={})
    with pytest.raises(WorkbenchError, match=r"(?i)nothing to report on"):
        notebook.report()


