"""What a report gathers: views that may travel, examples, cautions beside their claims, label history, studies of this vector."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.reports.example import NAMED, SAE_HASH, SAE_ID, bare_parts, example_labels, example_vector
from tests.reports.studied import (
    example_audit,
    example_falsification,
    example_history,
    example_view,
    example_views,
    full_report,
    known_parts,
)
from workbench.base.errors import WorkbenchError
from workbench.labeling.labels import LabelSet
from workbench.labeling.taxonomy.ranking import ranked
from workbench.reports.cautions import CLAIMS, Caution
from workbench.reports.content import Report, report
from workbench.reports.gathered import N_CONTEXTS


@pytest.fixture(scope="module")
def full() -> Report:
    return full_report()


def test_views_travel_without_text_that_may_not_be_passed_on(full):
    view = full.views[311]
    assert [c.is_withheld for c in view.contexts["corpus"]] == [True, False]
    assert len(view.contexts["rollouts"]) == N_CONTEXTS < len(example_views()[311].contexts["rollouts"])
    assert set(full.views) <= {row["feature"] for row in full.features}
    assert view.histogram == example_views()[311].histogram


def test_examples_are_the_first_features_of_the_declared_ranking_each_in_a_text_of_its_own(full):
    readable = [row for row in ranked(full.parts) if row.feature in full.views][:3]
    assert [(one.feature, one.rank) for one in full.examples] == [(row.feature, row.rank) for row in readable]
    assert len({one.context.document for one in full.examples}) == 3
    assert all(one.context.source == "rollouts:evil:positive" for one in full.examples)
    assert [one.label.label for one in full.examples] == [full.label(one.feature).label for one in full.examples]


def test_a_text_that_two_features_share_is_shown_once():
    first, second = [row.feature for row in ranked(known_parts()) if row.feature in {f for f, *_ in NAMED}][:2]
    texts = {feature: text for feature, *_, text in NAMED}
    views = {first: example_view(first, texts[first])}
    views[second] = replace(views[first], feature=second)
    shared = report(example_vector(), known_parts(), LabelSet(SAE_ID, SAE_HASH), views=views)
    assert [one.feature for one in shared.examples] == [first, second]
    assert shared.examples[0].context.document != shared.examples[1].context.document


def test_an_example_without_a_label_says_so():
    unlabelled = report(example_vector(), known_parts(), LabelSet(SAE_ID, SAE_HASH), views=example_views())
    assert len(unlabelled.examples) == 3 and all(one.label is None for one in unlabelled.examples)
    assert unlabelled.warnings_on("examples") == ("None of these features has a label.",)


def test_without_views_examples_come_from_the_evidence_of_the_labels():
    made = report(example_vector(), known_parts(), example_labels())
    assert made.views == {} and 0 < len(made.examples) <= 3
    assert not any(one.context.is_withheld for one in made.examples)


@pytest.mark.parametrize(
    ("evidence", "weak"),
    [
        ({"auc_stripped": 0.46, "auc_stripped_interval": [0.41, 0.52], "auc_rank_p": 0.9}, "may not separate the trait at all"),
        ({"auc_stripped": 0.71, "auc_stripped_interval": [0.63, 0.77], "auc_rank_p": 0.2}, "A random direction may separate"),
        ({"auc_stripped": 0.7, "auc_stripped_interval": [0.52, 0.75], "auc_rank_p": 0.001}, ""),
        ({}, ""),
    ],
)
def test_parts_of_a_vector_that_does_not_separate_carry_that_caution(evidence, weak):
    vector = replace(example_vector(), evidence=evidence)
    told = report(vector, known_parts(), example_labels()).warnings_on("picture")
    found = [text for text in told if "AUC" in text]
    assert (weak in found[0] and len(found) == 1) if weak else not found


def test_every_caution_belongs_to_a_claim_of_the_page(full):
    features = {row["feature"] for row in full.features}
    assert full.warnings and all(one.claim in CLAIMS or one.feature in features for one in full.warnings)
    assert full.warnings_on("energy") and "random dictionaries" in full.warnings_on("energy")[0]
    order = [CLAIMS.index(one.claim) for one in full.warnings if one.feature is None]
    assert order == sorted(order)


def test_a_feature_that_placebos_move_as_far_is_called_so_and_no_other(full):
    said = {one.feature for one in full.warnings if "Placebo contrasts" in one.text}
    assert said == {row["feature"] for row in full.features if row["placebo_q"] > 0.05}
    wide = {one.feature for one in full.warnings if one.text == "The interval of its share includes 0."}
    assert wide == {r["feature"] for r in full.features if r["share_interval"][0] <= 0 <= r["share_interval"][1]}


def test_a_sealed_effect_that_random_mixtures_keep_as_well_is_a_caution_of_the_audit(full):
    assert any("Random vectors as close" in text for text in full.warnings_on("audit"))
    clear = example_audit(full.parts)
    clear["behaviour"]["denoised"]["mixtures_kept"]["interval"] = [0.05, 0.2]
    assert report(example_vector(), known_parts(), example_labels(), audit=clear).warnings_on("audit") == ()


def test_failed_checks_are_a_caution(full):
    assert full.warnings_on("falsification") == (full.falsification.headline(),)
    assert Caution("311", "x").feature == 311 and Caution("table", "x").feature is None


def test_the_history_holds_every_label_of_the_store_newest_first(full):
    told = full.label_history[311]
    assert [one.label for one in told] == ["Scorn for the weak and the ordinary", "Kings", "Being rude"]
    assert [one.status for one in told] == ["proposed", "rejected", "proposed"]
    assert told[0].score and [one.label for one in full.label_history[94]] == ["Calling the user names"]


def test_the_store_of_another_sae_tells_nothing():
    foreign = replace(example_history(), sae_hash="f" * 64)
    made = report(example_vector(), known_parts(), example_labels(), history=foreign)
    assert [one.label for one in made.label_history[311]] == ["Scorn for the weak and the ordinary"]


def test_the_shares_per_sub_trait_sum_to_one_and_stand_in_the_object(full):
    assert sum(part.share for part in full.made_of.parts) == pytest.approx(1.0)
    value = json.loads(json.dumps(full.to_json(), allow_nan=False))
    assert value["sub_traits"]["made_of"]["contempt"][0] == pytest.approx(0.046)
    assert [one["feature"] for one in value["examples"]] == [one.feature for one in full.examples]
    assert value["cautions"] == [{"claim": one.claim, "text": one.text} for one in full.warnings]
    assert value["audit"]["behaviour"]["k"] == 32 and value["falsification"]["colour"] == "red"
    assert value["n_views"] == len(full.views)


def test_a_report_without_any_of_it_still_has_every_key():
    old = report(example_vector(), bare_parts(), LabelSet(SAE_ID, ""))
    value = old.to_json()
    assert value["audit"] is value["falsification"] is value["sub_traits"] is None
    assert value["examples"] == [] and value["n_views"] == 0 and set(value) == set(full_report().to_json())


def test_views_of_another_sae_are_refused():
    other = {f: replace(v, sae={**v.sae, "weights_hash": "0" * 64}) for f, v in example_views().items()}
    with pytest.raises(WorkbenchError, match=r"feature views are of SAE .* weights '000000000000'"):
        report(example_vector(), known_parts(), example_labels(), views=other)


def test_checks_of_another_vector_are_refused():
    parts = known_parts()
    foreign = example_falsification(replace(parts, vector={**parts.vector, "sha256": "else"}))
    with pytest.raises(WorkbenchError, match="not of this vector and SAE"):
        report(example_vector(), parts, example_labels(), falsification=foreign)
