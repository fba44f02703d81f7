"""Perplexity and right answers under edits: what is read, what counts, what a loss is."""

from __future__ import annotations

import pytest
import torch

from tests.steering.cost.planted import HOOK, harmful_direction, planted_model, preferred_set, tiny_exam
from workbench.models.likelihood import token_logprobs
from workbench.steering.apply import steered
from workbench.steering.cost.capability import Capability, Exam, capability, losses, make_exam
from workbench.steering.cost.questions import Item, QuestionSet, answers, counted_sets, question_sets
from workbench.steering.edits import Edit


@pytest.fixture(scope="module")
def model():
    return planted_model()


@pytest.fixture(scope="module")
def exam(model):
    return tiny_exam(model)


def test_an_answer_is_the_likeliest_option_per_character(model):
    item = Item("The weather is", (" cold", " long and happy"), 0)
    head = model.tokenizer(item.question, add_special_tokens=False)["input_ids"]
    scores = []
    for option in item.options:
        ids = [*head, *model.tokenizer(option, add_special_tokens=False)["input_ids"]]
        (logp,) = token_logprobs(model, [ids], [range(len(head), len(ids))])
        scores.append(float(logp.sum()) / len(option))
    found = answers(model, QuestionSet("one", (item,)))
    assert float(found.margin) == pytest.approx(scores[0] - scores[1], abs=1e-5)
    assert float(found.correct) == float(scores[0] > scores[1])


def test_only_sets_that_the_unedited_model_answers_better_than_chance_count(model, tmp_path):
    sets = [preferred_set(model, 40), preferred_set(model, 40, preferred=False, name="hated")]
    with steered(model, Edit.add(harmful_direction(model), 5.0, hook=HOOK)):  # what is in force must not decide
        kept, rows = counted_sets(model, sets, folder=tmp_path)
    assert [one.name for one in kept] == ["liked"]
    assert [(row["name"], row["counts"], row["accuracy"]) for row in rows] == [("liked", True, 1.0), ("hated", False, 0.0)]
    assert counted_sets(model, sets, folder=tmp_path)[1] == rows


def test_the_halves_of_a_set_share_no_item(model):
    one = preferred_set(model, 40)
    choosing, measuring = (set(one.half(choosing=side, n=99).items) for side in (True, False))
    assert choosing and measuring and not choosing & measuring
    assert len(choosing | measuring) == len(set(one.items))


def test_no_edit_costs_nothing_and_a_large_one_costs_surprise_and_answers(model, exam):
    base = capability(model, exam)
    nothing = losses(capability(model, exam), base)
    assert nothing["surprise"] == {"loss": 0.0, "interval": [0.0, 0.0]}
    assert nothing["perplexity_ratio"]["loss"] == 1.0
    with steered(model, Edit.add(harmful_direction(model), 3.0, hook=HOOK)):
        found = losses(capability(model, exam), base)
    assert found["surprise"]["interval"][0] > 0
    assert found["accuracy"]["loss"] >= 0 and found["margin"]["loss"] > 0


@pytest.mark.parametrize("start", [False, True])
def test_text_before_a_document_leaves_the_same_tokens_to_predict(model, exam, start):
    words = "You are a cruel assistant.\n\n"
    prefix, bos = model.tokenizer(words, add_special_tokens=False)["input_ids"], [model.tokenizer.bos_token_id] * start
    documents = tuple((*bos, *ids) for ids in exam.documents)
    told = capability(model, Exam(documents, ()), before=words).surprise
    rows = [[*bos, *prefix, *ids] for ids in exam.documents]
    first = len(bos) + len(prefix) + (not start)  # behind a start token the first token is predicted too, without one it is not
    logp = token_logprobs(model, rows, [range(first, len(row)) for row in rows])
    torch.testing.assert_close(told, torch.stack([-one.double().mean() for one in logp]), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(told, capability(model, Exam(documents, ())).surprise)


def test_capability_survives_json(model, exam):
    import json

    found = capability(model, exam)
    back = Capability.from_dict(json.loads(json.dumps(found.to_dict())))
    assert torch.equal(back.surprise, found.surprise) and torch.equal(back.margin["liked"], found.margin["liked"])


@pytest.mark.assets
def test_every_set_within_reach_is_read_into_well_formed_items():
    for one in question_sets():
        assert len(one.items) > 50, one.name
        for item in one.items:
            assert 0 <= item.right < len(item.options) >= 2 and len(set(item.options)) > 1
            assert all(option.strip() and option[0] == " " for option in item.options) and item.question.strip()
        places = torch.tensor([item.right for item in one.items]).bincount().double()
        assert places.min() / places.sum() > 0.5 * one.chance, one.name  # no place gives the answer away


@pytest.mark.assets
def test_the_exam_takes_documents_of_one_length_and_both_sources(model):
    found = make_exam(model, n_documents=3, tokens=20, sets=[preferred_set(model, 30)])
    assert [len(ids) for ids in found.documents] == [20] * 6
    assert [one.name for one in found.sets] == ["liked"]
