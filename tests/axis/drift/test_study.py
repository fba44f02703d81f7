"""Drift against closed forms: planted slopes, a model without attention, no history, signs, controls, nulls."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.axis.drift.world import D_MODEL, HOOK, NORM, UNIT, axis_of, spoken, study_of, written
from tests.tiny import tiny_model
from workbench.axis.drift import study as studying
from workbench.axis.drift.conversation import Conversation
from workbench.axis.drift.effects import effect_vectors
from workbench.axis.drift.reading import read_replies
from workbench.axis.drift.result import DriftStudy
from workbench.axis.drift.study import drift_study
from workbench.base.errors import WorkbenchError
from workbench.personas.placebos import PlaceboVectors
from workbench.steering.apply import steered
from workbench.steering.edits import Edit

DOMAINS = ("coding", "therapy")
MANY = [spoken(domain, number) for domain in DOMAINS for number in range(12)]


def away(one: Conversation, turn: int) -> float:
    """Therapy drifts away by .3 norms at once and .1 more per turn, coding by a quarter of it."""
    return 0.0 if turn == 0 else -(0.2 + 0.1 * turn) * (1.0 if one.domain == "therapy" else 0.25)


@pytest.fixture(scope="module")
def planted() -> DriftStudy:
    return study_of(MANY, written(MANY, away, noise=0.05))


def test_planted_slopes_levels_and_their_ratio_come_back(planted):
    therapy = planted.groups["therapy"]["effects"]
    assert therapy["drift_per_turn"]["value"] == pytest.approx(-0.1, abs=0.01)
    assert therapy["drift"]["value"] == pytest.approx(-0.5, abs=0.02) and therapy["drift"]["n"] == 12
    assert therapy["per_1000_tokens"]["value"] == pytest.approx(-1.0, abs=0.1), "100 tokens a turn"
    assert therapy["content"]["value"] == pytest.approx(therapy["drift"]["value"]), "swapped histories do nothing here"
    assert therapy["order"]["value"] == pytest.approx(0.0, abs=1e-6), "nor does their order"
    for effect in ("drift", "drift_per_turn"):
        low, high = therapy[effect]["interval"]
        assert low < therapy[effect]["value"] < high < 0 and therapy[effect]["p"] <= 2 / 201
    row = planted.compared["therapy"]["drift_per_turn"]
    assert row["ratio"]["value"] == pytest.approx(4, rel=0.3) and row["ratio"]["interval"][0] > 1 and row["why"] is None
    assert row["difference"]["value"] == pytest.approx(-0.075, abs=0.01) and not row["difference"]["paired"]
    assert planted.speeds()["therapy"] == [therapy["drift_per_turn"]["value"], *therapy["drift_per_turn"]["interval"]]


def test_turns_and_traces_have_the_planted_values(planted):
    turns = planted.groups["therapy"]["turns"]
    assert [one["turn"] for one in turns] == [1, 2, 3, 4, 5, 6] and turns[0]["drift"]["value"] == 0
    assert turns[5]["position"]["value"] - turns[5]["alone"]["value"] == pytest.approx(-0.7, abs=0.02)
    trace = planted.trace("therapy-0")
    torch.testing.assert_close(trace.drift, trace.position - trace.alone)
    assert trace.drift[0] == 0 and trace.drift[5] == pytest.approx(-0.7, abs=0.1)
    torch.testing.assert_close(trace.values[5].mean().double(), trace.position[5], atol=1e-5, rtol=0)
    with pytest.raises(WorkbenchError, match="conversation"):
        planted.trace("nobody")


def test_there_is_no_ratio_where_the_reference_stands_still():
    still = study_of(MANY, written(MANY, lambda one, k: away(one, k) if one.domain == "therapy" else 0.0, noise=0.05))
    row = still.compared["therapy"]["drift_per_turn"]
    assert row["ratio"] is None and "coding" in row["why"] and "includes 0" in row["why"]
    assert still.groups["coding"]["effects"]["drift"]["p"] > 0.05
    few = study_of(MANY[:3] + MANY[-3:], written(MANY[:3] + MANY[-3:], away))
    assert few.groups["coding"]["effects"]["drift"]["interval"] is None
    assert "too few" in few.compared["therapy"]["drift_per_turn"]["why"]


def test_a_push_toward_the_assistant_raises_it_and_a_constant_direction_does_not_move():
    toward = study_of(MANY, written(MANY, lambda one, k: -away(one, k)))
    assert toward.groups["therapy"]["effects"]["drift"]["value"] > 0
    read = written(MANY, away)
    constant = replace(read, means={name: value * (1 - UNIT) + 5 * UNIT for name, value in read.means.items()})
    found = study_of(MANY, constant).groups["therapy"]["effects"]
    assert found["drift"]["value"] == 0 and found["drift_per_turn"]["value"] == pytest.approx(0, abs=1e-12)


def test_placebos_that_move_as_much_are_told():
    read = written(MANY, away, noise=0.05)
    noise = torch.randn(12, 1, D_MODEL, generator=torch.Generator().manual_seed(1)) * (1 - UNIT)
    names, related = tuple(f"p{i}" for i in range(12)), ((),) * 12
    idle = PlaceboVectors(names, related, (HOOK,), noise, {})
    same = replace(idle, directions=noise + 2 * UNIT)
    clear, dull = (study_of(MANY, read, placebos=one).groups["therapy"]["effects"]["drift"] for one in (idle, same))
    assert clear["n_placebos"] == 12 and clear["p_placebo"] < 0.01 < dull["p_placebo"] and dull["p"] >= dull["p_placebo"]


def test_personas_over_the_same_scripts_are_paired():
    both = [spoken("therapy", number, persona=persona) for persona in ("label", "soul") for number in range(8)]
    read = written(both, lambda one, k: -0.1 * k * (2 if one.persona == "label" else 1), noise=0.05)
    found = study_of(both, read, by=lambda one: one.persona, reference="label").compared["soul"]["drift"]["difference"]
    assert found["paired"] and found["n"] == 8 and found["value"] == pytest.approx(0.3, abs=0.03) and found["interval"][0] > 0.2


def test_a_study_is_saved_whole(planted, tmp_path):
    planted.save(tmp_path)
    again = DriftStudy.load(tmp_path)
    assert again.to_json() == planted.to_json() and again.tokens == planted.tokens
    assert again.conversations == planted.conversations
    for name, value in planted.readings.means.items():
        torch.testing.assert_close(again.readings.means[name], value, equal_nan=True, atol=0, rtol=0)
    assert all(map(torch.equal, again.readings.values, planted.readings.values))


# ------------------------------------------------------------------------------------------------------- on a model


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


def a_few() -> list[Conversation]:
    return [spoken(domain, number, 3) for domain in DOMAINS for number in range(2)]


def test_without_attention_a_reply_does_not_know_what_came_before(tmp_path):
    cut = tiny_model(seed=1)
    for block in cut.blocks:
        block.self_attn.o_proj.weight.data.zero_()
    read = read_replies(cut, a_few(), HOOK, torch.ones(cut.d_model), tmp_path)
    for context in ("alone", "shuffled", "swapped"):
        known = read.means[context].isfinite().all(dim=1)
        torch.testing.assert_close(read.means["history"][known], read.means[context][known], atol=1e-6, rtol=1e-6)
        assert known.sum() == {"alone": 12, "shuffled": 4, "swapped": 8}[context]


def test_the_first_turn_drifts_by_exactly_nothing_and_the_others_by_something(model, tmp_path):
    read = read_replies(model, a_few(), HOOK, torch.ones(model.d_model), tmp_path)
    gap = (read.means["history"] - read.means["alone"]).abs().amax(dim=1)
    assert bool((gap[read.turn == 0] == 0).all()) and bool((gap[read.turn > 0] > 1e-4).all())


def test_a_reply_whose_whole_history_was_cut_off_is_no_reply_that_stood_still(model, tmp_path):
    few = a_few()
    cut = replace(few[0], turns=(*few[0].turns[:2], replace(few[0].turns[2], first=2)))
    read = read_replies(model, [cut, *few[1:]], HOOK, torch.ones(model.d_model), tmp_path)
    assert bool(read.means["history"][2].isfinite().all()) and bool(read.means["alone"][2].isnan().all())
    gap = (read.means["history"] - read.means["alone"]).abs().amax(dim=1)
    assert gap.isnan().nonzero().flatten().tolist() == [2]


def test_read_together_or_one_by_one_and_once_only(model, tmp_path, monkeypatch):
    direction = torch.linspace(-1, 1, model.d_model)
    together = read_replies(model, a_few(), HOOK, direction, tmp_path / "a")
    apart = read_replies(model, a_few(), HOOK, direction, tmp_path / "b", batch_tokens=1)
    for context in together.means:
        torch.testing.assert_close(together.means[context], apart.means[context], atol=1e-5, rtol=1e-4, equal_nan=True)
    unit = direction / direction.norm()
    for mean, values in zip(together.means["history"], together.values, strict=True):
        torch.testing.assert_close(values.mean(), mean @ unit, atol=1e-5, rtol=1e-4)

    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("read again")

    monkeypatch.setattr("workbench.axis.drift.reading.activations_at_hooks", refused)
    again = read_replies(model, a_few(), HOOK, direction, tmp_path / "a")
    assert all(map(torch.equal, again.values, together.values))
    with pytest.raises(AssertionError, match="read again"):
        read_replies(model, a_few(), HOOK, -direction, tmp_path / "a")


def test_along_the_drift_itself_the_drift_is_its_length(model, tmp_path):
    few = a_few()
    read = read_replies(model, few, HOOK, torch.ones(model.d_model), tmp_path / "first")
    later = read.turn > 0
    shift = (read.means["history"] - read.means["alone"])[later].mean(dim=0)
    for sign in (1, -1):
        axis = axis_of(model, 7 * sign * shift)
        study = drift_study(model, axis, few, tmp_path / f"run{sign}", by=lambda _: "all", n_bootstrap=50)
        found = study.groups["all"]["effects"]["drift"]["value"]
        assert found == pytest.approx(sign * float(shift.norm()) / study.median_norm, rel=1e-3)
        assert study.tokens[0] == tuple(model.tokenizer.convert_ids_to_tokens(few[0].turns[0].ids))


def test_a_push_along_the_axis_moves_positions_by_its_dose_and_no_drift(model, tmp_path):
    axis = axis_of(model, torch.linspace(-1, 1, model.d_model))
    plain = drift_study(model, axis, a_few(), tmp_path / "plain", n_bootstrap=50)
    with steered(model, Edit.add(axis, 0.25, scope="all")):
        pushed = drift_study(model, axis, a_few(), tmp_path / "pushed", n_bootstrap=50)
    for context in ("history", "alone", "shuffled", "swapped"):
        gap = pushed.positions(context) - plain.positions(context)
        torch.testing.assert_close(gap[gap.isfinite()], torch.full_like(gap[gap.isfinite()], 0.25), atol=1e-4, rtol=0)
    assert pushed.groups["coding"]["effects"]["drift"]["value"] == pytest.approx(
        plain.groups["coding"]["effects"]["drift"]["value"], abs=1e-4)  # fmt: skip


def test_an_axis_of_another_model_and_silence_are_refused(model, tmp_path):
    axis = axis_of(tiny_model(seed=5), torch.ones(model.d_model))
    with pytest.raises(WorkbenchError, match="Choose an axis"):
        drift_study(model, axis, a_few(), tmp_path)
    with pytest.raises(WorkbenchError, match="sideways"):
        drift_study(model, axis_of(model, torch.ones(model.d_model)), a_few(), tmp_path, contexts=["sideways"])
    with pytest.raises(WorkbenchError, match="No conversation"):
        drift_study(model, axis_of(model, torch.ones(model.d_model)), [Conversation("x", "coding")], tmp_path)


def test_the_mean_slope_is_the_fixed_effect_of_a_mixed_model():
    """Balanced data: random intercepts and slopes change the standard error's model, not the estimate."""
    import pandas
    import statsmodels.formula.api as formulas

    talks = [spoken("therapy", number) for number in range(15)]
    read = written(talks, lambda one, k: -0.05 * k * (1 + 0.3 * (int(one.script[8:]) % 4)), noise=0.1)
    drift = ((read.means["history"] - read.means["alone"]) @ UNIT / NORM)[read.turn > 0]
    table = pandas.DataFrame({"drift": drift, "turn": read.turn[read.turn > 0], "talk": read.row[read.turn > 0]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its variances lie near 0
        fitted = formulas.mixedlm("drift ~ turn", table, groups="talk", re_formula="~turn").fit()
    ours = study_of(talks, read).groups["therapy"]["effects"]["drift_per_turn"]
    assert ours["value"] == pytest.approx(float(fitted.params["turn"]), abs=1e-4)
    low, high = fitted.conf_int().loc["turn"]
    assert ours["interval"][1] - ours["interval"][0] == pytest.approx(high - low, rel=0.35)


def test_an_axis_that_is_no_axis_is_called_special_no_more_often_than_stated():
    """Directions with the replies' own covariance take the axis' place: p is uniform, whatever moves."""
    talks = MANY[12:]
    read = written(talks, away, noise=0.3)
    sample, random = read.means["alone"], torch.Generator().manual_seed(3)
    vectors, found = effect_vectors(read, "drift", len(talks)), []
    for seed in range(30):
        direction = torch.randn(len(sample), generator=random) @ (sample - sample.mean(dim=0))
        site = studying._site(read, "none", HOOK, direction / direction.norm(), NORM, None, 39, seed)
        found.append(studying._nulls(site, vectors, 1)["p_random"])
    assert sum(p <= 0.05 for p in found) <= 5 and sum(p <= 0.5 for p in found) in range(7, 24)
