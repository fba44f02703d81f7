"""The sentences: they say what the numbers say, and no more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.reports.example import example_evidence, example_labels, example_parts, example_vector
from workbench.reports import content, verdict
from workbench.reports.content import Report

GOOD = {
    "auc_stripped": 0.9,
    "auc_stripped_interval": [0.85, 0.95],
    "auc_rank_p": 0.001,
    "auc_random_q95": 0.7,
    "auc_text_only": 0.8,
}


def test_the_answer_names_every_part_of_the_vector(report: Report):
    sentence = report.sentence()
    assert sentence.startswith("16.3% [") and "of the evil vector’s squared length is carried by 6 features" in sentence
    for part in (
        "labelled as its sub-traits (contempt 4.6%",
        "labelled unclear",
        "that nobody labelled",
        "the SAE misses 27.0% [24.0, 31.0].",
    ):
        assert part in sentence


def test_labels_of_no_sub_trait_are_counted_and_not_called_none_of_the_vector():
    foreign = {f: replace(one, categories={"evil": "style"}) for f, one in example_labels().labels.items()}
    sentence = content.report(example_vector(), example_parts(), replace(example_labels(), labels=foreign)).sentence()
    assert sentence.startswith("None of the 11 labelled features reads as a sub-trait of evil. Of its vector’s squared length,")


def test_a_passing_feature_is_counted_beside_chance(report: Report):
    told = verdict.causal_sentence(report)
    assert told.startswith("3 of the 10 tested features move the model") and "chance alone: 0.30" in told


def test_without_a_causal_test_none_is_claimed():
    untested = content.report(example_vector(), replace(example_parts(), causal=()), example_labels())
    assert untested.n_verified is None
    assert "No causal test was run" in verdict.causal_sentence(untested)


def test_features_that_any_contrast_moves_are_counted_on_the_first_screen(report: Report):
    n = sum(row["placebo_q"] <= 0.05 for row in report.features)
    assert verdict.placebo_sentence(report).startswith(f"{n} of the {len(report.features)} features shown move further")
    rows = tuple({**row, "placebo_q": 0.4} for row in report.features)
    assert verdict.placebo_sentence(replace(report, features=rows)).startswith("None of the")
    unknown = tuple({**row, "placebo_q": None} for row in report.features)
    assert verdict.placebo_sentence(replace(report, features=unknown)) == ""
    one = (*rows[1:], {**rows[0], "placebo_q": 0.01})
    assert verdict.placebo_sentence(replace(report, features=one)).startswith(f"1 of the {len(one)} features shown moves")


def test_the_authors_of_labels_are_named_and_confirmation_is_not_implied(report: Report):
    assert verdict.authors_sentence(report) == "11 labels, written by a language model (11); 0 confirmed by a person."


def test_without_described_sub_traits_no_feature_is_said_to_miss_them(report: Report):
    bare = replace(report, taxonomy={}, slices=tuple(row for row in report.slices if row.group != "trait"))
    assert bare.sentence().startswith("No sub-traits of evil are described here, so no label can name one. Of its vector’s")


@pytest.mark.parametrize(
    ("key", "value", "level"),
    [
        ("variance_explained", 0.85, "good"),
        ("variance_explained", 0.7, "fair"),
        ("variance_explained", 0.69, "poor"),
        ("ce_recovered", 0.93, "good"),
        ("dead_share", 0.03, "good"),
        ("dead_share", 0.2, "poor"),
        ("dead_share", None, "unknown"),
    ],
)
def test_a_light_follows_its_stated_threshold(key, value, level):
    rule = next(rule for rule in verdict.SAE_THRESHOLDS if rule.key == key)
    assert rule.light(value).level == level


def test_the_overall_light_is_the_worst_one(report: Report):
    lights = verdict.lights(report)
    assert [light.level for light in lights] == ["good", "fair", "good", "fair"]
    assert verdict.overall(lights) == "fair"
    assert verdict.overall([replace(lights[0], level="unknown"), lights[0]]) == "unknown"


def test_a_good_vector_earns_no_warning_and_a_doubtful_one_each_of_its_own():
    assert verdict.vector_warnings(GOOD) == []
    weak = {**GOOD, "auc_stripped": 0.6, "auc_stripped_interval": [0.45, 0.75], "auc_rank_p": 0.2}
    assert len(verdict.vector_warnings(weak)) == 4
    few = verdict.vector_warnings({**GOOD, "kept_counts": {"positive": {"rows": 100, "kept": 9}}})
    assert few == ["Of the 100 replies of the positive arm the judge kept only 9."]
    assert "was not measured" in verdict.vector_warnings({})[0]


def test_the_comparison_with_words_is_not_a_victory_unless_the_interval_says_so():
    assert "separates better (0.90) than a bag of words" in verdict.text_comparison(GOOD)
    assert "cannot be told apart" in verdict.text_comparison({**GOOD, "auc_text_only": 0.88})
    assert "for detection, read the text" in verdict.text_comparison({**GOOD, "auc_text_only": 0.97})
    assert "not available" in verdict.text_comparison({})


def test_the_example_is_warned_about():
    assert len(verdict.vector_warnings(example_evidence(()))) == 2
