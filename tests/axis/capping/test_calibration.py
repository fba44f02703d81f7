"""Limits are percentiles of the rollouts, controls are capped as often, and an evaluation on calibration texts is refused."""

from __future__ import annotations

import pytest
import torch

from tests.axis.capping.planted import HOOKS, axis, model, rows
from workbench.axis.capping.arms import make_limits
from workbench.axis.capping.calibration import calibrate, intervention_rate, text_hash
from workbench.axis.capping.controls import percentile_at_kl, refusal_axis
from workbench.axis.capping.projections import reply_chats, token_projections
from workbench.base.errors import WorkbenchError
from workbench.maths.geometry import isotropic_directions
from workbench.models.prompts import ChatTokens
from workbench.steering.cost.matching import NeutralShift


@pytest.fixture(scope="module")
def limits():
    return make_limits(model(), axis(), HOOKS, n_random=2)


def test_a_quarter_of_the_tokens_lies_below_the_25th_percentile_for_the_axis_and_for_every_control(limits):
    for name, other in limits.axes.items():
        tau = limits.calibrations[name].tau(25, HOOKS)
        values = token_projections(model(), reply_chats(model(), rows()), {hook: other.at(hook)[None] for hook in HOOKS})
        for hook in HOOKS:
            below = (torch.cat(values[hook])[:, 0] < tau[hook]).float().mean()
            assert float(below) == pytest.approx(0.25, abs=0.02), (name, hook)
    rate = intervention_rate(model(), rows(), axis(), limits.calibration.tau(25))
    assert rate["places"] == pytest.approx(0.25, abs=0.02)
    assert rate["tokens"] >= rate["places"]


def test_limits_grow_with_the_percentile_and_replies_spread_less_than_tokens(limits):
    taus = [limits.calibration.tau(percentile)[HOOKS[0]] for percentile in (0, 10, 25, 50, 90, 100)]
    assert taus == sorted(taus)
    by_reply = calibrate(model(), rows(), {"a": axis()}, unit="reply")["a"]
    assert by_reply.n_values == 12
    width = by_reply.tau(90)[HOOKS[0]] - by_reply.tau(10)[HOOKS[0]]
    assert width < taus[4] - taus[1]
    with pytest.raises(WorkbenchError, match="from 0 to 100"):
        limits.calibration.tau(101)


def test_random_directions_have_another_direction_and_the_same_seed_gives_the_same(limits):
    again = make_limits(model(), axis(), HOOKS, n_random=2)
    assert torch.equal(again.axes["random 1"].directions, limits.axes["random 1"].directions)
    assert not torch.equal(limits.axes["random 0"].directions, limits.axes["random 1"].directions)


def test_the_texts_behind_a_calibration_cannot_be_evaluated_on(limits):
    from workbench.axis.jailbreak.study import check_disjoint

    assert text_hash(rows()["question"][0]) in limits.calibration.texts
    check_disjoint(limits.calibration.texts, ["Something that nobody calibrated on."])
    with pytest.raises(WorkbenchError, match="one role"):
        check_disjoint(limits.calibration.texts, ["  what should I do with the money in STREET 0?"])


def test_a_control_reaches_the_kl_of_the_axis_or_says_how_near_it_came(limits):
    neutral = NeutralShift(model(), ["The weather in the north is cold.", "The rivers are long."])
    wanted = neutral(limits.arm("assistant-axis", HOOKS, 60).edits)
    arm = limits.at_kl("random 0", HOOKS, wanted, neutral)
    assert arm.told["reached_kl"] == pytest.approx(neutral(arm.edits), rel=1e-4)
    assert arm.told["reached_kl"] == pytest.approx(wanted, rel=0.15) or arm.told["percentile"] == 100.0


def test_bisection_finds_the_percentile_of_a_known_curve():
    class Curve:
        def __call__(self, edits):
            return edits[0] ** 2 / 1e4

    percentile, reached = percentile_at_kl(Curve(), lambda p: (p,), 0.25)  # pyright: ignore[reportArgumentType]
    assert reached == pytest.approx(0.25, rel=0.05)
    assert percentile == pytest.approx(50, abs=2)
    assert percentile_at_kl(Curve(), lambda p: (p,), 2.0) == (100.0, 1.0)  # pyright: ignore[reportArgumentType]


def test_the_refusal_direction_is_the_difference_at_the_last_prompt_token():
    from workbench.models.capture import capture
    from workbench.personas.reencoding import prompt_tokens

    harmful, harmless = ["You should suffer.", "Nobody will help you."], ["The river is long."]
    found = refusal_axis(model(), harmful, harmless, HOOKS[:2])

    def last(text: str) -> torch.Tensor:
        ids = prompt_tokens(model(), "", text).ids
        chat = ChatTokens(ids, {"all": ((0, len(ids)),)})
        ((_, (pooled,)),) = capture(model(), [chat], (), span="all", token_hooks=[HOOKS[1]])
        return pooled.tokens[HOOKS[1]][-1]

    wanted = torch.stack([last(text) for text in harmful]).mean(dim=0) - last(harmless[0])
    assert torch.allclose(found.at(HOOKS[1]), wanted, atol=1e-4)


def test_an_isotropic_direction_is_no_special_case_of_calibration():
    units = isotropic_directions(1, 32, torch.Generator().manual_seed(0))[0]
    from workbench.axis.capping.controls import direction_at_hooks

    one = direction_at_hooks("one", model().description(), {HOOKS[2]: units})
    found = calibrate(model(), rows(), {"one": one})["one"]
    negated = calibrate(model(), rows(), {"n": direction_at_hooks("n", {}, {HOOKS[2]: -units})})["n"]
    assert found.tau(20)[HOOKS[2]] == pytest.approx(-negated.tau(80)[HOOKS[2]], abs=1e-5)
