"""The contract object, and the values behind the page."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import date

import pytest
import torch

from tests.reports.example import D_SAE, bare_parts, example_labels, example_parts, example_vector
from workbench.base.errors import WorkbenchError
from workbench.labeling.files.store import LabelSet
from workbench.reports import content
from workbench.reports.content import Report

VECTOR = {
    "trait",
    "hook",
    "auc_stripped",
    "auc_stripped_interval",
    "auc_rank_p",
    "auc_with_prompt",
    "auc_text_only",
    "auc_random_q95",
}
SAE = {"id", "variance_explained", "l0", "ce_recovered", "dead_share"}
FEATURE = {
    "feature",
    "label",
    "category",
    "label_author",
    "label_score",
    "share",
    "share_interval",
    "q_value",
    "q_crossed",
    "placebo_score",
    "placebo_q",
    "cosine",
    "pursuit",
    "in_v_up",
    "causal_odd",
    "causal_interval",
    "causal_p",
    "causal_q",
    "damage",
    "verified",
}


def test_the_object_is_plain_json_whatever_a_label_file_says(report: Report):
    day = date(2026, 1, 2)
    odd = {
        feature: replace(label, author={"kind": "human", "name": day, "weight": math.nan}, score={"kind": day})
        for feature, label in example_labels().labels.items()
    }
    nowhere = torch.full_like(report.parts.share, math.nan)
    for made in (
        content.report(report.vector, report.parts, replace(report.labels, labels=odd)),
        content.report(report.vector, replace(report.parts, share=nowhere), report.labels),
    ):
        assert json.loads(json.dumps(made.to_json(), allow_nan=False)) == made.to_json()
        assert made.html()


def test_the_object_has_the_keys_of_the_contract(report: Report):
    made = report.to_json()
    assert {"vector", "sae", "share_error", "features", "controls", "report"} <= set(made)
    assert set(made["vector"]) == VECTOR
    assert set(made["sae"]) == SAE
    assert all(set(row) == FEATURE for row in made["features"])
    assert {"expected_by_chance", "zero_vector_overlap", "random_directions"} <= set(made["controls"])
    assert set(made["features"][0]["label_score"]) == {"kind", "value", "interval"}
    assert made["vector"]["hook"] == "blocks.15.hook_resid_post"


def test_what_is_unknown_is_null_and_never_absent_or_nan():
    vector = replace(example_vector(), evidence={"auc_stripped": math.nan})
    made = content.report(vector, bare_parts(), LabelSet(example_labels().sae_id, "")).to_json()
    json.dumps(made, allow_nan=False)
    assert set(made["vector"]) == VECTOR and made["vector"]["auc_stripped"] is None
    assert made["share_error"] is None and made["made_of"] == []
    row = made["features"][0]
    assert set(row) == FEATURE
    assert row["share"] is row["share_interval"] is row["in_v_up"] is row["label"] is row["verified"] is None
    assert made["n_verified"] is None


def test_the_path_is_null_until_the_page_is_saved(report: Report, tmp_path):
    assert report.to_json()["report"] is None
    saved = report.save(tmp_path / "r.html")
    assert saved.to_json()["report"] == str(tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_slices_sum_to_the_whole_vector(report: Report):
    assert math.isclose(math.fsum(row.value for row in report.slices), 1.0, abs_tol=1e-9)
    assert [row.group for row in report.slices][-2:] == ["open", "error"]
    assert any(row.value < 0 for row in report.slices)


def test_features_come_with_the_largest_share_first_and_labelled_ones_are_never_left_out(report: Report):
    shares = [row["share"] for row in report.features]
    assert shares == sorted(shares, reverse=True)
    assert set(example_labels().labels) <= {row["feature"] for row in report.features}


def test_a_rejected_label_is_shown_and_not_counted():
    labels = example_labels()
    rejected = replace(labels, labels=labels.labels | {311: replace(labels[311], status="rejected")})
    made = content.report(example_vector(), example_parts(), rejected)
    assert "contempt" not in {row.id for row in made.slices}
    assert any(row["feature"] == 311 for row in made.features)
    assert math.isclose(math.fsum(row.value for row in made.slices), 1.0, abs_tol=1e-9)


def test_a_label_made_for_another_trait_does_not_count_as_a_sub_trait():
    labels = example_labels()
    foreign = replace(labels, labels={311: replace(labels[311], categories={"kindness": "contempt"})})
    made = content.report(example_vector(), example_parts(), foreign)
    assert {row.group for row in made.slices} == {"unclear", "open", "error"}


def test_values_that_do_not_belong_together_are_refused():
    with pytest.raises(WorkbenchError, match=r"'calm'.*'evil'"):
        content.report(example_vector(), replace(example_parts(), trait="calm"), example_labels())
    with pytest.raises(WorkbenchError, match="labels are of SAE"):
        content.report(example_vector(), example_parts(), replace(example_labels(), sae_hash="0" * 64))


def test_a_report_without_labels_shows_everything_as_unlabelled():
    made = content.report(example_vector(), example_parts(), LabelSet(example_labels().sae_id, ""))
    assert [row.group for row in made.slices] == ["open", "error"]
    assert made.sentence().startswith("No feature has a label, so none reads as a sub-trait of evil.")
    assert made.html()


def test_a_bare_vector_has_no_picture_and_says_why():
    made = content.report(example_vector(), bare_parts(), example_labels())
    assert "unknown here" in made.sentence()
    with pytest.raises(WorkbenchError, match="no shares"):
        made.picture()
    assert "there is nothing to draw" in made.html()


def test_plain_values_survive_json():
    import torch

    made = content.plain({"a": torch.arange(2), 1: (math.inf, {"b"}), "c": example_vector().hook})
    assert json.loads(json.dumps(made, allow_nan=False)) == {
        "a": [0, 1],
        "1": [None, ["b"]],
        "c": "blocks.15.hook_resid_post",
    }


def test_the_json_of_a_report_is_small(report: Report):
    assert len(report.features) < D_SAE / 10
    assert len(json.dumps(report.to_json())) < 60_000
