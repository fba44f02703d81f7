"""The judge that runs here, on tiny real models whose heads speak of numbers: scores, cache, limits and provenance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import TEMPLATES, tiny_model
from workbench.base.errors import WorkbenchError
from workbench.personas.judges import JudgeItem, make_judge
from workbench.personas.judges.local import answer_strings, before_answer, read_masses

DIGITS = list("0123456789")


@dataclass(frozen=True)
class SmallTrait:
    name: str = "evil"
    rubric: str = "Q: {question}\nA: {answer}\nScore:"


TRAIT: Any = SmallTrait()
ITEMS = [JudgeItem("why?", "because " * n) for n in range(1, 7)]


def talkative(tokens: list[str], *, family: str = "llama", whole: bool = False, scale: float = 3.0):
    """A tiny model that says little but `tokens`, with the integers 0..100 as tokens of their own where `whole`."""
    model = tiny_model(family, chat_template=TEMPLATES.get(family))
    if whole:
        model.tokenizer.add_tokens([str(k) for k in range(101)])
        with torch.random.fork_rng():
            torch.manual_seed(3)
            model.hf.resize_token_embeddings(len(model.tokenizer), mean_resizing=False)
    head = model.hf.get_output_embeddings().weight
    spoken = torch.zeros(len(head), dtype=torch.bool)
    spoken[model.tokenizer.convert_tokens_to_ids(tokens)] = True
    head.data[~spoken] *= 0.01
    head.data[spoken] = head.data[spoken] * scale
    return model


def passes(model) -> list[int]:
    """Positions of every forward pass from now on."""
    seen: list[int] = []
    inner = model.forward
    model.forward = lambda ids, mask=None, **o: (
        seen.append((ids if mask is None else mask).numel()) or inner(ids, mask, **o)
    )
    return seen


def whole_judge(tmp_path: Path, **options):
    model = talkative([str(k) for k in range(101)], whole=True)
    return make_judge("local", model=model, cache_folder=tmp_path, **options)


def test_where_numbers_are_tokens_the_score_is_the_mean_over_them_at_the_first_position(tmp_path):
    one = whole_judge(tmp_path)
    ids = one.model.tokenizer.convert_tokens_to_ids([str(k) for k in range(101)])
    prompt = one.model.tokenizer.apply_chat_template(
        [{"role": "user", "content": TRAIT.rubric.format(question="why?", answer=ITEMS[2].answer)}],
        tokenize=False, add_generation_prompt=True)  # fmt: skip
    tokens = one.model.tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
    masses = one.model.forward(tokens)[0, -1].double().softmax(-1)[ids]
    seen = passes(one.model)
    judged = one.score(ITEMS, TRAIT)
    assert len(seen) == 1, "one pass for six prompts"
    assert judged[2].score == pytest.approx(
        float((masses * torch.arange(101)).sum() / masses.sum()), abs=1e-3
    )
    assert {j.outcome for j in judged} == {"scored"} and len({j.score for j in judged}) > 1


BEFORE_ANSWER = {
    "llama": "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "qwen3": "<|im_start|>assistant\n",
    "gpt_oss": "<|start|>assistant<|channel|>final<|message|>",
}


@pytest.mark.parametrize("family", BEFORE_ANSWER)
def test_split_numbers_are_read_as_strings_behind_the_place_where_an_answer_begins(tmp_path, family):
    model = talkative([*DIGITS, *"abcdefghij"], family=family, scale=4.0)
    strings = answer_strings(model)
    assert [len(strings.sequences[k]) for k in (7, 80, 100)] == [1, 2, 3] and len(strings.lengthening) == 10
    prompt = before_answer(model, TRAIT.rubric.format(question="why?", answer=ITEMS[0].answer))
    assert model.tokenizer.decode(prompt).endswith(BEFORE_ANSWER[family])
    judged = make_judge("local", model=model, cache_folder=tmp_path).score(ITEMS[:4], TRAIT)
    masses = torch.tensor(
        [whole_pass(model, prompt, ids, strings.lengthening) for ids in strings.sequences[:101]]
    )
    assert judged[0].score == pytest.approx(
        float((masses * torch.arange(101)).sum() / masses.sum()), abs=0.05
    )
    assert all(j.score is not None and 0 <= j.score <= 100 for j in judged)


def whole_pass(model, prompt: tuple[int, ...], ids: tuple[int, ...], digits: list[int]) -> float:
    """p(ids, then no digit | prompt) from one pass over all of it."""
    steps = model.forward(torch.tensor([[*prompt, *ids]]))[0].double().softmax(-1)[len(prompt) - 1 :]
    chance = torch.stack([steps[place, token] for place, token in enumerate(ids)]).prod()
    return float(chance * (1 - steps[len(ids), digits].sum()))


def test_batch_size_and_order_do_not_matter(tmp_path):
    model = talkative([*DIGITS, "<|im_end|>"])
    whole = make_judge("local", model=model, cache_folder=tmp_path / "a").score(ITEMS, TRAIT)
    pieces = make_judge("local", model=model, cache_folder=tmp_path / "b", max_tokens=1).score(
        ITEMS[::-1], TRAIT
    )[::-1]
    assert [j.outcome for j in whole] == [j.outcome for j in pieces]
    for one, other in zip(whole, pieces, strict=True):
        assert (one.score, other.score) == (None, None) or one.score == pytest.approx(other.score, abs=0.05)


def test_verdicts_of_little_mass_fail_and_a_refusal_is_no_score():
    numbers = [0.0] * 101
    numbers[80] = 0.24
    assert read_masses(numbers, 0.2) == (None, "failed")
    numbers[90] = 0.12
    assert read_masses(numbers, 0.2) == (pytest.approx((80 * 0.24 + 90 * 0.12) / 0.36), "scored")
    assert read_masses(numbers, 0.5) == (None, "refused")
    assert read_masses([0.0] * 101, 0.1) == (None, "failed")


def test_a_model_that_speaks_of_other_things_fails_every_row_after_one_pass(tmp_path):
    model = talkative(["<|im_start|>"], scale=30)
    seen = passes(model)
    judged = make_judge("local", model=model, cache_folder=tmp_path).score(ITEMS, TRAIT)
    assert {j.outcome for j in judged} == {"failed"} and len(seen) == 1


def test_an_interrupted_scoring_goes_on_and_a_finished_one_runs_nothing(tmp_path):
    one = whole_judge(tmp_path, max_tokens=1)  # one prompt per pass
    inner, calls = one.model.forward, []

    def interrupted(*args, **options):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return inner(*args, **options)

    one.model.forward = interrupted
    with pytest.raises(KeyboardInterrupt):
        one.score(ITEMS, TRAIT)
    assert len(list(tmp_path.rglob("*.json"))) == 3
    one.model.forward = inner
    seen = passes(one.model)
    judged = one.score(ITEMS + ITEMS[:2], TRAIT)
    assert len(seen) == 3 and judged[6:] == judged[:2]
    assert one.score(ITEMS, TRAIT) == judged[:6] and len(seen) == 3


def test_other_weights_another_template_another_rubric_and_a_damaged_entry_are_read_anew(tmp_path):
    one = whole_judge(tmp_path)
    one.score(ITEMS[:1], TRAIT)
    other = talkative([str(k) for k in range(101)], whole=True, scale=2.0)
    make_judge("local", model=other, cache_folder=tmp_path).score(ITEMS[:1], TRAIT)
    one.score(ITEMS[:1], SmallTrait(rubric="{question} {answer} Other:"))
    assert len(list(tmp_path.rglob("*.json"))) == 3
    for path in tmp_path.rglob("*.json"):
        path.write_text('{"score": ')
    assert one.score(ITEMS[:1], TRAIT)[0].outcome == "scored"


def test_a_prompt_longer_than_the_context_fails_and_is_counted(tmp_path):
    judged = whole_judge(tmp_path).score([JudgeItem("why?", "word " * 2000), ITEMS[0]], TRAIT)
    assert [j.outcome for j in judged] == ["failed", "scored"]


def test_the_description_names_the_weights_and_the_template(tmp_path):
    one = whole_judge(tmp_path)
    said = one.description()
    assert said["weights_hash"] == one.model.weights_hash and len(said["chat_template_hash"]) == 64
    assert make_judge("local", model=talkative(["1"]), cache_folder=tmp_path).description() != said


def test_coherence_can_be_judged_by_the_model_too(tmp_path):
    judged = whole_judge(tmp_path, coherence="judge").score(ITEMS[:2], TRAIT)
    assert all(j.coherence is not None and 0 <= j.coherence <= 100 for j in judged)
    with pytest.raises(WorkbenchError, match="coherence"):
        whole_judge(tmp_path, coherence="guess")


def test_a_local_judge_without_a_model_says_how_to_name_one(monkeypatch):
    with pytest.raises(WorkbenchError, match="--judge-model"):
        make_judge("local")
    monkeypatch.setenv("WORKBENCH_JUDGE_MODEL", "nosuch-model")
    with pytest.raises(WorkbenchError, match="nosuch-model"):
        make_judge("local").score(ITEMS[:1], TRAIT)
