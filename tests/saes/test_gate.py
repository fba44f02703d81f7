"""The fitness gate: what fails, what is unknown, and what it says."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import pytest

from workbench.base.errors import WorkbenchError
from workbench.saes.evaluation.gate import Limits, card_figure, check_fitness, require_fit, warn_unless_fit


@dataclass(frozen=True)
class Weights:
    """An SAE as the gate sees it."""

    card: Any
    weights_hash: str = "these"


def these(card: dict) -> Weights:
    """Weights whose card was written for them."""
    return Weights(card | {"weights_hash": "these"})


GOOD = {"variance_explained": 0.86, "ce_recovered": 0.99, "dead_share": 0.01, "l0": 48.0}


def test_a_good_card_passes_and_names_what_was_not_measured() -> None:
    gate = check_fitness(these(GOOD))
    assert gate.passed is True
    assert gate.failures == ()
    assert gate.unmeasured == ("persona_probe_gap",)
    require_fit("good", gate)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variance_explained": 0.6}, "variance explained is 0.6, at least 0.7 is needed"),
        ({"ce_recovered": 0.5}, "cross-entropy recovered is 0.5, at least 0.8 is needed"),
        ({"dead_share": 0.4}, "share of dead features is 0.4, at most 0.1 is needed"),
        ({"l0": 0.5}, "active features per token (L0) is 0.5, at least 2 is needed"),
        ({"l0": 900}, "active features per token (L0) is 900, at most 300 is needed"),
        ({"persona_probe_gap": 0.2}, "persona probe gap is 0.2, at most 0.1 is needed"),
    ],
)
def test_every_limit_fails_alone_and_says_what_is_needed(change: dict, message: str) -> None:
    gate = check_fitness(these(GOOD | change))
    assert (gate.passed, gate.failures) == (False, (message,))


def test_a_card_without_figures_is_unmeasured_neither_fit_nor_unfit() -> None:
    gate = check_fitness(
        these({"author": "somebody", "l0": None, "dead_share": float("nan"), "ce_recovered": True})
    )
    assert gate.passed is None
    assert set(gate.unmeasured) == {"variance_explained", "ce_recovered", "dead_share", "l0", "persona_probe_gap"}
    with pytest.raises(WorkbenchError) as caught:
        require_fit("foreign", gate)
    assert caught.value.exit_code == 1  # a check that failed, not bad input
    assert caught.value.found == "the SAE foreign is unmeasured here"
    assert "workbench sae eval foreign --write-card" in caught.value.remedy


def test_a_strict_check_refuses_with_every_reason() -> None:
    with pytest.raises(WorkbenchError) as caught:
        require_fit("poor", check_fitness(these(GOOD | {"variance_explained": 0.1, "dead_share": 0.9})))
    assert "variance explained is 0.1" in caught.value.found
    assert "share of dead features is 0.9" in caught.value.found
    assert caught.value.expected and caught.value.remedy


def test_warnings_are_loud(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        warn_unless_fit("poor", check_fitness(these(GOOD | {"l0": 900})))
        warn_unless_fit("foreign", check_fitness(Weights({})))
    assert "poor FAILS the fitness gate: active features per token (L0) is 900" in caplog.text
    assert "poor: not measured here: persona_probe_gap" in caplog.text
    assert "foreign is unmeasured here" in caplog.text


def test_what_was_evaluated_goes_before_what_training_said() -> None:
    sae = these(GOOD | {"evaluation": {"weights_hash": "these", "headline": {"variance_explained": 0.3, "l0": None}}})
    assert card_figure(sae, "variance_explained") == 0.3
    assert card_figure(sae, "l0") == 48
    assert check_fitness(sae).passed is False


@pytest.mark.parametrize("recorded", [{}, {"weights_hash": "others"}, {"weights_hash": None}, {"weights_hash": ["these"]}])
def test_figures_that_do_not_name_these_weights_count_for_nothing(recorded: dict) -> None:
    strangers = Weights(GOOD | recorded | {"evaluation": {"headline": GOOD | {"persona_probe_gap": 0.0}, **recorded}})
    assert check_fitness(strangers).passed is None
    with pytest.raises(WorkbenchError, match="unmeasured here"):
        require_fit("strangers", check_fitness(strangers))
    measured = Weights(strangers.card | {"evaluation": {"headline": {"l0": 900.0}, "weights_hash": "these"}})
    gate = check_fitness(measured)
    assert (gate.passed, len(gate.failures)) == (False, 1)
    assert "dead_share" in gate.unmeasured


@dataclass(frozen=True)
class Sited(Weights):
    """Weights that know where they read."""

    hook: str = "blocks.15.hook_resid_post"


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({}, True),
        ({"trained_on_this_model": None}, True),
        ({"trained_on_this_model": False}, False),
        ({"hook": "blocks.9.hook_resid_post"}, False),
        ({"hook": None}, False),
    ],
)
def test_an_evaluation_at_another_hook_or_on_another_model_counts_for_nothing(changes: dict, counts: bool) -> None:
    own = {"weights_hash": "these", "hook": "blocks.15.hook_resid_post", "trained_on_this_model": True, "headline": GOOD}
    sae = Sited({"evaluation": own | changes})
    assert check_fitness(sae).passed is (True if counts else None)
    assert card_figure(sae, "l0") == (48 if counts else None)
    trained = Sited({"weights_hash": "these", "l0": 30.0, "evaluation": own | changes})
    assert card_figure(trained, "l0") == (48 if counts else 30)


def test_a_figure_that_an_evaluation_filled_in_is_not_trainings_own() -> None:
    filled = {"weights_hash": "these", "ce_recovered": 0.9, "l0": 30.0, "from_evaluation": ["ce_recovered", 3]}
    assert (card_figure(Sited(filled), "ce_recovered"), card_figure(Sited(filled), "l0")) == (None, 30)
    assert card_figure(Sited(filled | {"from_evaluation": 1}), "ce_recovered") == 0.9


@pytest.mark.parametrize("lacking", ["variance_explained", "ce_recovered"])
def test_a_strict_check_needs_variance_explained_and_loss_recovered(lacking: str) -> None:
    gate = check_fitness(these({key: value for key, value in GOOD.items() if key != lacking}))
    assert gate.passed is True
    with pytest.raises(WorkbenchError, match=f"some is unmeasured here: it lacks {lacking}") as caught:
        require_fit("some", gate)
    assert "workbench sae eval some --write-card" in caught.value.remedy
    with pytest.raises(WorkbenchError, match="lacks variance_explained and ce_recovered"):
        require_fit("some", check_fitness(these({"l0": 50})))


@pytest.mark.parametrize("evaluation", ["good", [GOOD], {"headline": [1], "weights_hash": "these"}, {"weights_hash": "these"}])
def test_a_card_of_odd_shape_is_unmeasured(evaluation: Any) -> None:
    assert check_fitness(Weights({"evaluation": evaluation})).passed is None
    assert check_fitness(Weights(["a", "list"])).passed is None


def test_a_card_without_its_sae_is_refused() -> None:
    with pytest.raises(WorkbenchError, match="without its weights"):
        check_fitness(GOOD)  # pyright: ignore[reportArgumentType]


def test_limits_can_be_chosen() -> None:
    assert check_fitness(these(GOOD), Limits(variance_explained=0.9)).passed is False
    assert check_fitness(these(GOOD), Limits(variance_explained=0.9)).to_dict()["limits"]["variance_explained"] == 0.9
