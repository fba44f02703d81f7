"""Reading the open records of vectors and decompositions."""

from __future__ import annotations

import math

from tests.reports.example import HOOK, example_evidence, example_parts
from workbench.reports.evidence import (
    control_effects,
    energy_curves,
    kept_table,
    layer_points,
    null_sentences,
)


def test_controls_turn_with_the_direction_in_which_the_feature_was_pushed():
    controls = {
        "causal_control_odd": [0.1, -0.3, math.nan],
        "causal_controls_used": {"signs": {"1": 1, "2": 1, "3": -1}},
    }
    assert control_effects(controls, 1) == [0.1, -0.3]
    assert control_effects(controls, 3) == [-0.1, 0.3]
    assert control_effects({}, 1) == []


def test_curves_begin_with_the_sae_and_leave_out_what_was_not_computed():
    energy = {**example_parts().audit["energy"], "covariance_matched": None}
    names = [name for name, _ in energy_curves({"energy": energy})]
    assert names == ["the SAE", "real activations", "principal components", "random, isotropic"]
    assert energy_curves({}) == [] and energy_curves({"energy": {"atoms": [4], "sae": [math.nan]}}) == []


def test_the_layer_curve_is_in_order_of_the_blocks():
    points = [
        {"hook": "blocks.9.hook_resid_post", "auc": 0.8, "low": None, "high": 0.9},
        {"hook": str(HOOK), "auc": None},
        {"hook": "blocks.2.hook_resid_post", "auc": 0.6},
    ]
    assert layer_points({"layer_curve": points}) == [(2.0, 0.6, None, None), (9.0, 0.8, None, 0.9)]
    assert layer_points({}) == []


def test_reasons_that_never_occurred_are_left_out_of_the_kept_counts():
    found = kept_table(example_evidence(()))
    assert found is not None
    names, rows = found
    assert names == ["rows", "kept", "wrong side", "incoherent", "refused"]
    assert [row[0] for row in rows] == ["negative", "neutral", "positive"]
    assert kept_table({}) is None


def test_what_placebos_get_stands_beside_what_the_trait_gets():
    parts = example_parts()
    said = dict(null_sentences(parts.controls, parts.audit))
    assert "31 features" in said["What a placebo gets"] and "6 in the middle of 24 and 44 at most" in said["What a placebo gets"]
    assert "20.0%" in said["An arm against itself"] and "6 of 6" in said["An arm against itself"]
    assert "not shown" in said["The SAE’s excess"]
    assert null_sentences({}, {}) == [] and null_sentences({"placebos": {"n_specific": 3}}, {"energy": {"excess": None}}) == []
