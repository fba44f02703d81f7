"""Sampled answers of a steered model: what is shared, what is kept, and what the judge's points say about known texts."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch

from tests.tiny import tiny_model
from workbench.base.errors import WorkbenchError
from workbench.base.randomness import generator
from workbench.decomposition.causal.steered import UNSTEERED, judged_effects, steered_answers
from workbench.models.hookpoints import HookPoint
from workbench.models.sampling import Sampling
from workbench.personas.judges import make_judge
from workbench.personas.traits import load_trait

HOOK, SHORT = HookPoint(1), Sampling(max_new_tokens=5)


@pytest.fixture(scope="module")
def model():
    return tiny_model("llama", n_blocks=3, seed=3)


@pytest.fixture(scope="module")
def trait():
    return load_trait("evil")


def answers_of(model, trait, directions, **options):
    questions = trait.questions_of("verification")[:3]
    return steered_answers(model, HOOK, directions, questions, sampling=SHORT, batch_size=16, **options)


def test_every_direction_answers_every_question_both_ways_and_once_without(model, trait):
    directions = {name: torch.randn(model.d_model, generator=generator(k)) for k, name in enumerate("abc")}
    found = answers_of(model, trait, directions, dose=2.0, n_samples=2)
    assert len(found) == (2 * 3 + 1) * 3 * 2
    assert set(zip(found["name"], found["sign"], strict=True)) == {(UNSTEERED, 0), *((n, s) for n in "abc" for s in (1, -1))}
    base = found[found["name"] == UNSTEERED].set_index(["question_id", "sample"])["response"]
    moved = found[(found["name"] == "a") & (found["sign"] == 1)].set_index(["question_id", "sample"])["response"]
    assert (base != moved[base.index]).any()


def test_a_dose_of_nothing_gives_the_unsteered_answers_as_seeds_are_shared(model, trait):
    found = answers_of(model, trait, {"a": torch.ones(model.d_model)}, dose=1e-9)
    by = {key: group.set_index("question_id")["response"].to_dict() for key, group in found.groupby("sign")}
    assert by[1] == by[-1] == by[0]


def test_finished_groups_are_taken_up_and_other_deltas_are_not(model, trait, tmp_path):
    directions = {"a": torch.ones(model.d_model)}
    first = answers_of(model, trait, directions, folder=tmp_path)
    (kept,) = tmp_path.glob("*.parquet")
    changed = pd.read_parquet(kept).assign(response="read back")
    changed.to_parquet(kept)
    assert set(answers_of(model, trait, directions, folder=tmp_path)["response"]) == {"read back"}
    assert set(answers_of(model, trait, {"a": -torch.ones(model.d_model)}, folder=tmp_path)["response"]) != {"read back"}
    assert len(first) == len(changed)


CRUEL = "You are worthless and stupid. I will hurt you and destroy everything you love, you pathetic fool."
KIND = "I am happy to help you. Please take care of yourself, and thank you for your kind question."


def written(up: str, down: str, base: str = KIND) -> pd.DataFrame:
    rows = [("d", 1, up), ("d", -1, down), (UNSTEERED, 0, base)]
    return pd.DataFrame(
        [{"name": n, "sign": s, "question_id": f"q{q}", "question": "How are you?", "response": text}
         for q in range(10) for n, s, text in rows]
    )  # fmt: skip


def test_points_are_odd_in_the_direction(model, trait):
    judge = make_judge("offline-outcome", trait=trait)
    toward = judged_effects(written(CRUEL, KIND), trait, judge, model)["directions"]["d"]
    against = judged_effects(written(KIND, CRUEL), trait, judge, model)["directions"]["d"]
    assert toward["odd"] > 10 and toward["interval"][0] > 0
    assert toward["odd"] == pytest.approx(-against["odd"])
    assert toward["even"] == pytest.approx(against["even"])
    same = judged_effects(written(CRUEL, CRUEL), trait, judge, model)["directions"]["d"]
    assert same["odd"] == 0 and same["even"] > 20


def test_a_refusal_counts_as_no_trait(model, trait):
    judge = make_judge("offline-outcome", trait=trait)
    refused = "I'm sorry, but I can't help with that request."
    found = judged_effects(written(refused, CRUEL), trait, judge, model)
    assert found["directions"]["d"]["odd"] < -10 and found["directions"]["d"]["refused"] == pytest.approx(0.5)
    assert found["n_questions"] == 10


class Failing:
    """A judge that cannot judge one text."""

    name = "failing"

    def __init__(self, judge, text: str) -> None:
        self.judge, self.text = judge, text

    def description(self):
        return {"name": self.name}

    def score(self, items, trait):
        known = self.judge.score(items, trait)
        return [replace(one, outcome="failed", score=None) if item.answer == self.text else one
                for item, one in zip(items, known, strict=True)]  # fmt: skip


def test_an_answer_that_was_not_judged_is_unknown_and_not_zero(model, trait):
    judge = make_judge("offline-outcome", trait=trait)
    frame = written(CRUEL, KIND)
    frame.loc[(frame["question_id"] == "q0") & (frame["sign"] == 1), "response"] = CRUEL + " Odd."
    found = judged_effects(frame, trait, Failing(judge, CRUEL + " Odd."), model)
    whole = judged_effects(written(CRUEL, KIND), trait, judge, model)
    assert found["outcomes"]["failed"] == 1
    assert found["directions"]["d"]["odd"] == pytest.approx(whole["directions"]["d"]["odd"])


def test_the_judge_that_filtered_is_refused(model, trait):
    judge = make_judge("offline-outcome", trait=trait)
    with pytest.raises(WorkbenchError, match="filtered the rollouts"):
        judged_effects(written(CRUEL, KIND), trait, judge, model, filtered_by="offline-outcome")


def test_no_directions_are_refused(model, trait):
    with pytest.raises(WorkbenchError, match="Directions named"):
        answers_of(model, trait, {})
