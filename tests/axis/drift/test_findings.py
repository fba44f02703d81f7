"""What moved, what predicts it, and an alarm on it: each against something planted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.axis.drift.world import HOOK, NORM, axis_of, spoken, study_of, written
from tests.labeling.planted import planted_sae
from tests.tiny import tiny_model
from workbench.axis.drift.alarm import drift_alarm
from workbench.axis.drift.attribution import read_codes, what_moved
from workbench.axis.drift.passes import Place
from workbench.axis.drift.prediction import predict_positions
from workbench.base.errors import WorkbenchError
from workbench.personas.placebos import PlaceboVectors
from workbench.steering.monitor.monitor import Monitor


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


@pytest.fixture(scope="module")
def codes(model: Any) -> Any:
    sae = replace(planted_sae(), model_name=model.name)
    few = [spoken(domain, number, 4) for domain in ("coding", "therapy") for number in range(4)]
    return read_codes(model, axis_of(model, torch.linspace(-1, 1, model.d_model)), few, sae)


@pytest.mark.parametrize("what", ["history", "late"])
def test_parts_and_error_sum_to_the_drift(codes, what):
    found = what_moved(codes, what=what, n_shown=4, n_bootstrap=100)
    assert found.n == 8 and len(found.features) == 4
    assert found.total == pytest.approx(sum(one.part for one in found.features) + found.rest + found.error, abs=1e-6)
    assert abs(found.features[0].part) == max(abs(one.part) for one in found.features)
    for one in found.features:
        assert one.interval is not None and one.interval[0] <= one.part <= one.interval[1]
        assert 1 / 201 <= one.p_random <= 1 and one.p_placebo is None
        assert one.share == pytest.approx(one.part / found.total)
    assert found.installed is not None
    assert found.installed.shares_total + found.installed.error == pytest.approx(1, abs=1e-5)
    assert found.to_json()["of_its_length"]["features"]


def test_a_reply_without_one_of_its_contexts_counts_on_neither_side(codes):
    places = {place: at for place, at in codes.places.items() if place != Place(5, 2, "alone")}
    lacking = what_moved(replace(codes, places=places), members=[5], n_shown=2)
    for context in ("alone", "history"):
        places.pop(Place(5, 2, context), None)
    assert lacking.total == what_moved(replace(codes, places=places), members=[5], n_shown=2).total


def test_the_parts_are_those_of_the_replies_read_one_by_one(codes, model):
    one = what_moved(codes, what="history", members=[5], n_shown=16)
    rows = {place: codes.rows.codes[index].toarray()[0] for place, index in codes.places.items()}
    change = sum(rows[Place(5, k, "history")] - rows[Place(5, k, "alone")] for k in (1, 2, 3)) / 3
    loads = (codes.sae.decoder_directions.float() @ codes.unit).numpy()
    for feature in one.features:
        assert feature.part == pytest.approx(float(change[feature.feature] * loads[feature.feature] / codes.norm), abs=1e-6)
        assert feature.interval is None
    assert one.installed is None and one.n == 1


def test_a_feature_with_as_large_a_part_along_placebos_is_told(codes):
    same = codes.unit.repeat(9, 1)[:, None]
    placebos = PlaceboVectors(tuple("abcdefghi"), ((),) * 9, (HOOK,), same, {})
    found = what_moved(codes, placebos=placebos, n_shown=3, n_bootstrap=50)
    assert [one.p_placebo for one in found.features] == [1.0] * 3


def test_what_cannot_be_taken_apart_is_refused(codes, model):
    with pytest.raises(WorkbenchError, match="late"):
        what_moved(codes, what="early")
    with pytest.raises(WorkbenchError, match="two turns"):
        what_moved(read_codes(model, axis_of(model, torch.ones(model.d_model)), [spoken("a", 0, 1)], codes.sae))
    with pytest.raises(WorkbenchError, match="another SAE"):
        read_codes(tiny_model(d_model=16), axis_of(model, torch.ones(16)), [spoken("a", 0, 2)], codes.sae)


# ----------------------------------------------------------------------------------------------------- prediction

TALKS = [spoken(domain, number) for domain in ("coding", "therapy") for number in range(10)]


def numbers(texts: Any) -> torch.Tensor:
    """An embedding that knows of each message one number and much that does not matter."""
    drawn = [torch.Generator().manual_seed(abs(hash_of(text))) for text in texts]
    return torch.stack([torch.randn(8, generator=one) for one in drawn])


def hash_of(text: str) -> int:
    return int.from_bytes(text.encode()[-8:], "big") % 2**31 + len(text)


def test_a_position_that_follows_the_message_is_predicted_and_noise_is_not():
    message = {(one.id, k): float(numbers([turn.user])[0, 0]) for one in TALKS for k, turn in enumerate(one.turns)}
    follows = study_of(TALKS, written(TALKS, lambda one, k: message[one.id, k] if k else 0.0, noise=0.1))
    found = predict_positions(follows, numbers)
    assert found["drift"]["r2"] > 0.8 and found["drift"]["interval"][0] > 0.6 and found["drift"]["p"] <= 2 / 201
    assert found["drift"]["beyond"] > 0.8 and found["drift"]["group"] < 0.1 and found["drift"]["n_replies"] == 100
    noise = predict_positions(study_of(TALKS, written(TALKS, lambda *_: 0.0, noise=1.0)), numbers)
    assert noise["drift"]["r2"] < 0.15 and noise["drift"]["p"] > 0.01
    short = [replace(one, turns=one.turns[:1]) for one in TALKS[1:]] + TALKS[:1]
    assert set(predict_positions(study_of(short, written(short, lambda *_: 0.0, noise=1.0)), numbers)) == {"position"}
    with pytest.raises(WorkbenchError, match="at least 5"):
        predict_positions(study_of(TALKS[:3], written(TALKS[:3], lambda *_: 0.0)), numbers)


def test_what_the_domain_says_already_is_told_apart():
    apart = written(TALKS, lambda one, k: 2.0 * (one.domain == "coding") if k else 0.0, noise=0.1)
    found = predict_positions(study_of(TALKS, apart), lambda texts: torch.tensor([[float("coding" in text)] for text in texts]))
    assert found["drift"]["r2"] > 0.9 and found["drift"]["group"] > 0.9 and found["drift"]["beyond"] < 0.1


# ---------------------------------------------------------------------------------------------------------- alarm


def test_an_alarm_that_is_quiet_on_ordinary_talk_hears_the_drift(model, tmp_path):
    ordinary = [spoken("coding", 100 + number) for number in range(20)]
    calibration = study_of(ordinary, written(ordinary, lambda *_: 0.0, noise=0.3, seed=1))
    drifting = written(TALKS, lambda one, k: -0.5 * k if one.domain == "therapy" else 0.0, noise=0.3, seed=2)
    found = drift_alarm(calibration, study_of(TALKS, drifting))
    assert found.groups["therapy"]["conversations"] == 1.0 and 2 <= found.groups["therapy"]["first_turn"] <= 3
    assert found.groups["coding"]["replies"]["rate"] <= 0.15 and found.alarm.check == found.groups["coding"]["replies"]
    assert found.alarm.threshold > 0 and found.alarm.signal == "away from assistant-axis"
    with pytest.raises(WorkbenchError, match="disjoint"):
        drift_alarm(calibration, calibration)
    direction = torch.zeros(model.d_model)
    direction[3] = 2 * NORM
    found.save_monitor(model, axis_of(model, direction), tmp_path)
    monitor = Monitor.load(tmp_path)
    assert monitor.alarms[0].threshold == found.alarm.threshold
    away = monitor.read(-direction[None], HOOK)
    assert float(away[0, 0]) == pytest.approx(2 * NORM), "the signal grows away from the assistant"
