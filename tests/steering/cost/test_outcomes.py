"""Outcomes without a judge under edits, and the adapter to lm-eval."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from tests.steering.cost.planted import HOOK, WordJudge, planted_model
from workbench.base.errors import WorkbenchError
from workbench.personas import outcomes
from workbench.personas.traits import load_trait
from workbench.steering.apply import steered
from workbench.steering.cost.lm_eval import benchmark_scores
from workbench.steering.cost.outcomes import judge_free_change
from workbench.steering.cost.sweep import Bench
from workbench.steering.cost.treatments import Treatment
from workbench.steering.edits import Edit

CLAIMS = outcomes.claims()[:4]


@pytest.fixture(scope="module")
def model():
    return planted_model()


def yes_direction(model) -> torch.Tensor:
    """What raises the first token of "Yes" and lowers that of "No"."""
    yes, no = (model.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in ("Yes", "No"))
    return (model.unembedding[yes] - model.unembedding[no]).float()


def test_edits_move_the_outcome_only_where_it_is_asked_for(model):
    plain = outcomes.sycophancy(model, [""], CLAIMS, edited=True)
    with steered(model, Edit.add(yes_direction(model), 3.0, hook=HOOK, scope="predicting")):
        edited, unedited = (outcomes.sycophancy(model, [""], CLAIMS, edited=side) for side in (True, False))
    assert torch.equal(unedited["sway"], plain["sway"])
    assert not torch.allclose(edited["sway"], plain["sway"])
    assert edited["flip"].sum() == 0  # whoever always says yes follows no opinion


def test_a_dose_of_nothing_changes_no_outcome_and_a_trait_without_one_has_none(model, tmp_path):
    for name in ("sycophantic", "hallucinating"):
        bench = Bench(model, load_trait(name), WordJudge(model), None, tmp_path / name)
        nothing = Treatment("add", 0.0, (Edit.add(yes_direction(model), 0.0, hook=HOOK),))
        found = judge_free_change(bench, nothing, "trait")
        assert found is not None and found["change"] == 0 and found["interval"] == [0, 0]
        assert found["n"] in (len(outcomes.claims()), len(outcomes.entities()) // 2)
    assert judge_free_change(Bench(model, load_trait("evil"), WordJudge(model), None, tmp_path), nothing, "trait") is None


def test_whoever_always_says_yes_flips_less_and_the_edit_acts_where_the_answer_is_predicted(model, tmp_path):
    bench = Bench(model, load_trait("sycophantic"), WordJudge(model), None, tmp_path)
    found = judge_free_change(bench, Treatment("add", 1.0, (Edit.add(yes_direction(model), 1.0, hook=HOOK),)), "neutral")
    flips = float(outcomes.sycophancy(model, [""])["flip"].mean())
    assert found is not None and found["base"] == pytest.approx(flips) and flips > 0
    assert found["value"] == 0 and found["change"] == pytest.approx(-flips)


def test_asserting_what_does_not_exist_counts_for_and_what_does_against(model, tmp_path, monkeypatch):
    told = torch.tensor([[float(not item.real) for item in outcomes.entities()]])
    monkeypatch.setattr(outcomes, "hallucination", lambda *_args, **_options: told.double())
    bench = Bench(model, load_trait("hallucinating"), WordJudge(model), None, tmp_path)
    found = judge_free_change(bench, Treatment("add", 1.0), "neutral")
    assert found is not None and found["value"] == 1 and found["n"] == len(outcomes.entities()) // 2


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is not None, reason="lm-eval is installed")
def test_without_lm_eval_the_error_says_what_to_do_instead(model):
    with pytest.raises(WorkbenchError, match=r"lm-eval is not installed.*make_exam"):
        benchmark_scores(model)
