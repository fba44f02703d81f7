"""The judge of success against people's marks, on categories of harm that it was not fitted on; and the public request sets."""

from __future__ import annotations

import pytest

from tests.axis.capping.planted import model
from workbench.axis.jailbreak import judging
from workbench.axis.jailbreak.prompts import harmful_prompts, in_the_wild, prompt_set
from workbench.base.errors import WorkbenchError
from workbench.personas.judges import JudgeItem, Judgement


class Fixed:
    """Gives every reply what it is told to."""

    name = "fixed"

    def __init__(self, *given: Judgement) -> None:
        self.given = given

    def description(self):
        return {"name": self.name}

    def score(self, items, trait):
        return list(self.given)


def test_success_is_met_and_readable_and_not_refused_and_an_unknown_score_stays_unknown():
    judge = Fixed(Judgement(80.0, "scored", 90.0), Judgement(80.0, "scored", 20.0), Judgement(20.0, "scored", 90.0),
                  Judgement(None, "refused", 90.0), Judgement(None, "failed", 90.0))  # fmt: skip
    found = judging.verdicts(judge, model(), [JudgeItem("q", str(n)) for n in range(5)])
    assert [one["success"] for one in found] == [1.0, 0.0, 0.0, 0.0, None]
    assert [one["complied"] for one in found] == [1.0, 0.0, 1.0, 0.0, 1.0]
    assert [one["refused"] for one in found] == [0.0, 0.0, 0.0, 1.0, 0.0]


def test_only_judges_that_can_say_whether_a_request_was_met_are_offered():
    with pytest.raises(WorkbenchError, match="objective, openai, anthropic or local"):
        judging.success_judge("offline")


@pytest.mark.assets
def test_the_objective_judge_agrees_with_people_on_categories_that_it_has_not_seen():
    found = judging.validate_success(judging.success_judge())
    assert found["n"] == 395
    assert found["interval"][0] > 0.8
    assert found["among_answers"]["interval"][0] > 0.7
    assert found["informedness"] > 0.5
    assert found["refusal_rule"]["refusal"]["recall"] > 0.5


@pytest.mark.assets
def test_requests_are_drawn_from_all_sets_once_each_and_calibration_shares_none_with_evaluation():
    calibration, evaluation = harmful_prompts(n_calibration=12, n_evaluation=30, seed=5)
    ids = [one.id for one in (*calibration, *evaluation)]
    assert len(set(ids)) == 42
    assert {one.source for one in evaluation} == {"harmbench", "strongreject", "advbench"}
    assert harmful_prompts(n_calibration=12, n_evaluation=30, seed=5) == (calibration, evaluation)
    assert [len(prompt_set(name)) for name in ("harmbench", "strongreject")] == [200, 313]
    more, _ = harmful_prompts(["harmbench", "advbench"], n_calibration=90, n_evaluation=0, seed=6)
    other = harmful_prompts(n_calibration=0, n_evaluation=400, seed=7)[1]
    assert not {one.id for one in more} & {one.id for one in (*evaluation, *other)}, "halves do not depend on sizes and seeds"
    assert not {judging.text_hash(one.text) for one in (*more, *other)} & judging.marked_requests()
    assert {judging.text_hash(one.text) for one in prompt_set("harmbench")} & judging.marked_requests()
    with pytest.raises(WorkbenchError, match="at most"):
        harmful_prompts(["harmbench"], n_calibration=0, n_evaluation=5000)
    assert len(in_the_wild(5)) == 5
