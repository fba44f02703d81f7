from __future__ import annotations

from pathlib import Path

import pytest

from workbench.cli import views
from workbench.cli.console import cell, interval, percent, signed
from workbench.cli.headline import headline
from workbench.cli.stages import JobResult

FEATURE = {
    "feature": 7, "label": "insults [bold]and[/bold] threats", "category": "insults", "label_author": None,
    "label_score": {"kind": "auroc", "value": 0.87, "interval": [0.8, 0.9]}, "share": 0.031,
    "share_interval": [0.02, 0.04], "q_value": 0.01, "cosine": 0.33, "pursuit": 1.2, "in_v_up": True,
    "causal_odd": 0.121, "causal_interval": [0.08, 0.16], "damage": -0.01, "verified": True,
}  # fmt: skip
UNKNOWN = {**dict.fromkeys(FEATURE), "feature": 9, "cosine": 0.1}
REPORT = {
    "vector": {"trait": "evil", "hook": "blocks.15.hook_resid_post"},
    "share_error": 0.25,
    "features": [FEATURE, UNKNOWN],
    "controls": {"expected_by_chance": 0.05},
    "made_of": [
        {"category": "insults", "group": "trait", "share": 0.2},
        {"category": "threats", "group": "trait", "share": 0.1},
        {"category": "open", "group": "open", "share": 0.45},
        {"category": "error", "group": "error", "share": 0.25},
    ],
    "warnings": ["a warning"],
    "report": "/x/report.html",
}


def shown(capsys, view, value, ran=()) -> str:
    view(value, JobResult(Path("run"), {}, ran, 75.0))
    return capsys.readouterr().out


def test_the_final_table_shows_every_column_and_the_path(capsys):
    text = shown(capsys, views.show_report, REPORT, ran=("vector", "report"))
    for piece in ("insults [bold]and[/bold] threats", "3.1%", "+0.33", "+0.121", "[+0.080, +0.160]", "yes", "0.87"):
        assert piece in text
    assert "feature 9 (no label)" in text
    assert "note: a warning" in text and "ran vector, report in 1 min 15 s" in text
    assert text.rstrip().endswith("report: /x/report.html")


def test_a_second_run_says_that_nothing_was_left_to_do(capsys):
    assert "nothing was left to do" in shown(capsys, views.show_report, REPORT)


def test_the_headline_names_sub_traits_largest_first_the_rest_and_the_error():
    text = headline(REPORT)
    assert "30.0% of |v|^2 lies in features labelled as sub-traits (insults 20.0%, threats 10.0%)" in text
    assert "45.0% in all others, 25.0% is the SAE's own error" in text
    assert "1 of 1 tested (0.05 expected by chance)" in text


def test_the_headline_of_a_bare_vector_says_that_shares_are_unknown():
    assert "shares are not known" in headline({**REPORT, "share_error": None, "made_of": []})


def test_the_vector_and_the_labels_show_what_is_unknown_as_a_dash(capsys):
    value = {"trait": "evil", "hook": "blocks.1.hook_resid_post", "auc_stripped": 0.79, "auc_stripped_interval": [0.7, 0.9]}
    text = shown(capsys, views.show_vector, value)
    assert "0.790" in text and "[+0.700, +0.900]" in text and " - " in text
    row = {"feature": 1, "label": "x", "category": "unclear", "author": {"kind": "model", "name": "n"}, "score": None}
    assert "model n" in shown(capsys, views.show_labels, {"sae": "s", "labels": [row]})


def test_the_decomposition_shows_the_error_beside_the_features(capsys):
    row = {"feature": 5, "share": None, "cosine": 0.2, "pursuit": 0.0, "q_value": None}
    value = {"trait": "evil", "sae": {"id": "s"}, "features": [row], "share_error": 0.36, "warnings": []}
    assert "the SAE's own error: 36.0% of |v|^2" in shown(capsys, views.show_decomposition, value)
    group = {"features": [5, 8], "share": 0.041, "interval": [0.03, 0.05], "cohesion": 0.4, "p": 0.02}
    text = shown(capsys, views.show_decomposition, {**value, "groups": {"groups": [group]}})
    assert "features that act as one" in text and "5 8" in text and "4.1%" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (cell(None), "-"), (cell(True), "yes"), (cell(0.12345), "0.123"), (signed(-0.5, 2), "-0.50"),
        (percent(None), "-"), (interval(None), ""), (interval([None, 1.0]), ""),
    ],
)  # fmt: skip
def test_values_read_plainly(text, expected):
    assert text == expected


@pytest.mark.parametrize(("arms", "said"), [(("negative", "positive"), True), (("negative", "neutral", "positive"), False)])
def test_a_vector_without_a_neutral_arm_says_what_is_not_made(capsys, arms, said):
    value = {"trait": "pedantic", "hook": "blocks.1.hook_resid_post", "kept_counts": {arm: {} for arm in arms}}
    assert ("v_up and v_down were not made" in shown(capsys, views.show_vector, value)) is said
