"""Conversations as ids, what goes through the model, and playing them."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import CHATML, GPT_OSS, LLAMA3, NO_SYSTEM, QWEN2, QWEN3, tiny_model
from workbench.axis.drift.conversation import (
    Conversation,
    Turn,
    conversation_from,
    first_in_context,
    from_messages,
    opening,
    told,
)
from workbench.axis.drift.passes import CONTEXTS, Place, passes_of
from workbench.axis.drift.playing import Scripted, play
from workbench.axis.drift.reading import activations_of
from workbench.axis.drift.users import EndpointUser
from workbench.base.errors import WorkbenchError
from workbench.models.endpoints import ChatEndpoint, EndpointConfig
from workbench.models.generation import generate
from workbench.models.hookpoints import HookPoint
from workbench.models.prompts import PLAIN_TEMPLATE
from workbench.models.sampling import Sampling

HOOK = HookPoint(1)
USER = Scripted({
    "a": ("Who are you?", "And then?", "Why?", "What is it like?"),
    "b": ("Fix the loop.", "It fails.", "Now a test.", "Thanks, once more."),
})  # fmt: skip
SHORT = Sampling(max_new_tokens=6, temperature=1.0)


def beginnings(system: str = "") -> list[Conversation]:
    return [Conversation("a", "philosophy", system=system, script="a"), Conversation("b", "coding", system=system, script="b")]


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


@pytest.fixture(scope="module")
def played(model: Any, tmp_path_factory: Any) -> tuple[Conversation, ...]:
    return play(model, beginnings("Be kind."), USER, tmp_path_factory.mktemp("played"), n_turns=3, sampling=SHORT)


def test_every_turn_is_what_the_model_says_to_the_conversation_so_far(model, played):
    for one in played:
        assert [turn.user for turn in one.turns] == list(USER.messages[one.script][:3])
        assert [len(turn.ids) > 0 for turn in one.turns] == [True] * 3 and one.turns[2].first == 0
        prompt = opening(model, one.system, one.turns[:2], one.turns[2].user)
        start = 0
        for turn in one.turns[:2]:  # the history has the sampled ids, not the text tokenised again
            places = [i for i in range(start, len(prompt.ids)) if prompt.ids[i : i + len(turn.ids)] == turn.ids]
            assert places
            start = places[0]
        text = model.tokenizer.decode(prompt.ids)
        assert text.startswith("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n") and text.endswith("assistant\n")
        assert text.count("<|im_end|>") == 6
        assert conversation_from(one.to_json()) == one


def test_reading_gives_the_activations_of_the_generation_itself(model, played):
    one = played[0]
    prompt = opening(model, one.system, one.turns[:2], "What is it like?")
    made = next(generate(model, [prompt], SHORT, row_seeds=[3], hooks=(HOOK,)))[1][0]
    whole = replace(one, turns=(*one.turns[:2], Turn("What is it like?", made.text, made.response_ids)))
    passes = list(passes_of(model, [whole], ["history"]))
    read = {place.turn: (start, tokens) for place, start, tokens in activations_of(model, passes, HOOK)}
    assert made.means is not None and len(passes) == 1 and read[2][0] == len(prompt.ids)
    torch.testing.assert_close(read[2][1].mean(dim=0), made.means[0], atol=1e-5, rtol=1e-4)


def test_a_whole_conversation_is_one_pass_and_otherwise_one_per_turn(model, played):
    passes = list(passes_of(model, played, ["history"]))
    assert len(passes) == 2 and all(len(one.replies) == 3 for one in passes)
    thinking = tiny_model("qwen3", chat_template=QWEN3.replace("{{ message['content'].split('</think>')[-1].lstrip('\n') }}",
                          "{% if loop.last %}<think></think>{% endif %}{{ message['content'] }}"))  # fmt: skip
    turns = tuple(Turn(f"user {k}", "Yes", (270 + k, 280 + k)) for k in range(3))
    apart = list(passes_of(thinking, [Conversation("x", "", turns)], ["history"]))
    assert [len(one.replies) for one in apart] == [1, 1, 1]
    for k, one in enumerate(apart):
        (start, end), = one.replies.values()
        assert one.ids[start:end] == turns[k].ids and end == len(one.ids)


@pytest.mark.parametrize("template", [CHATML, LLAMA3, QWEN2, NO_SYSTEM, GPT_OSS, PLAIN_TEMPLATE])
def test_what_was_said_begins_as_the_prompt_did_under_every_template(template):
    other = tiny_model(chat_template=template)
    space = other.tokenizer(" word", add_special_tokens=False)["input_ids"]
    turns = tuple(Turn(f"Question {k}", " word", (*space, 280 + k)) for k in range(3))
    for k in range(3):
        prompt = opening(other, "Be kind.", turns[:k], turns[k].user)
        whole = told(other, "Be kind.", turns[: k + 1])
        start, end = whole.spans["response"][-1]
        assert whole.ids[: len(prompt.ids)] == prompt.ids and whole.ids[start:end] == turns[k].ids and end == len(whole.ids)
        assert template == GPT_OSS or start == len(prompt.ids), "the reply follows the prompt at once"
    assert len(list(passes_of(other, [Conversation("x", "", turns, "Be kind.")], ["history"]))) == 1


def test_contexts_keep_the_message_and_the_reply(model, played):
    found: dict[str, dict[int, tuple[int, ...]]] = {context: {} for context in CONTEXTS}
    for one in passes_of(model, played):
        for place, (start, end) in one.replies.items():
            if place.row == 0:
                found[place.context][place.turn] = one.ids[:end]
                assert one.ids[start:end] == played[0].turns[place.turn].ids
    assert {context: sorted(turns) for context, turns in found.items()} == {
        "history": [0, 1, 2], "alone": [0, 1, 2], "shuffled": [2], "swapped": [1, 2],
    }  # fmt: skip
    assert found["history"][0] == found["alone"][0], "the first turn has no history"
    assert len(found["shuffled"][2]) == len(found["history"][2]) and found["shuffled"][2] != found["history"][2]
    text = model.tokenizer.decode(found["swapped"][2])
    assert text.startswith("<|im_start|>system\nBe kind.") and "Fix the loop." in text and "It fails." in text
    assert "Who are you?" not in text and "Why?" in text


def test_replies_are_kept_and_a_longer_run_takes_up_a_shorter_one(model, played, tmp_path, monkeypatch):
    first = play(model, beginnings("Be kind."), USER, tmp_path, n_turns=2, sampling=SHORT)
    assert [one.turns for one in first] == [one.turns[:2] for one in played]
    sampled = []

    def counting(model: Any, prompts: Any, *rest: Any, **options: Any) -> Any:
        sampled.append(len(prompts))
        return generate(model, prompts, *rest, **options)

    monkeypatch.setattr("workbench.axis.drift.playing.generate", counting)
    again = play(model, beginnings("Be kind."), USER, tmp_path, n_turns=3, sampling=SHORT)
    assert again == played and sampled == [2]
    assert play(model, beginnings("Be kind."), USER, tmp_path, n_turns=3, sampling=SHORT) == played and sampled == [2]
    other = play(model, beginnings("Be kind."), USER, tmp_path, n_turns=1, sampling=SHORT, seed=1)
    assert [one.turns[0].ids for one in other] != [one.turns[0].ids for one in played]


def test_a_user_who_stops_ends_the_conversation(model, tmp_path):
    user = Scripted({"a": ("Hello.",), "b": ("Hello.", "Again.")})
    played = play(model, beginnings(), user, tmp_path, n_turns=3, sampling=SHORT)
    assert [len(one.turns) for one in played] == [1, 2]


def test_the_oldest_turns_are_cut_off_when_the_context_is_full(model, tmp_path):
    room = len(opening(model, "", [Turn("Who are you?", "", (1,) * 6)], "And then?").ids) + 6
    played = play(model, beginnings()[:1], USER, tmp_path, n_turns=4, sampling=SHORT, max_context=room)
    firsts = [turn.first for turn in played[0].turns]
    assert firsts[:2] == [0, 0] and firsts == sorted(firsts) and firsts[-1] >= 2
    places = {place: ids for one in passes_of(model, played, ["history"]) for place, ids in ((p, one.ids) for p in one.replies)}
    last = model.tokenizer.decode(places[Place(0, 3, "history")])
    assert "Who are you?" not in last and "What is it like?" in last
    with pytest.raises(WorkbenchError, match="A message of 64"):
        first_in_context(model, "", (), "long " * 50, 20)


def test_a_conversation_that_was_had_elsewhere(model):
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "One."}, {"role": "user", "content": "Two."},
            {"role": "assistant", "content": "I will help."}, {"role": "user", "content": "Why?"},
            {"role": "assistant", "content": " "}, {"role": "user", "content": "No answer to this."}]  # fmt: skip
    one = from_messages(model, said, name="chat", domain="d")
    assert one.system == "Be brief." and [turn.user for turn in one.turns] == ["One.\n\nTwo.", "Why?"]
    assert model.tokenizer.decode(one.turns[0].ids) == "I will help." and one.turns[1].ids == ()
    text = model.tokenizer.decode(told(model, one.system, one.turns).ids)
    assert text == model.tokenizer.decode(told(model, one.system, one.turns[:1]).ids) + (
        "<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n")  # fmt: skip
    assert CHATML.count("im_start") == 2


@pytest.mark.parametrize("said", [
    [{"role": "assistant", "content": "I begin."}, {"role": "user", "content": "Yes."}],
    [{"role": "user", "content": "Hello."}],
    [{"role": "tool", "content": "x"}],
    [{"role": "user", "content": None}, {"role": "assistant", "content": "x"}],
])  # fmt: skip
def test_what_is_no_conversation_is_refused(model, said):
    with pytest.raises(WorkbenchError, match=r"(?i)chat"):
        from_messages(model, said, name="chat")


# --------------------------------------------------------------------------------------------- a user behind an endpoint

_file = Path(__file__).parents[2] / "personas" / "judges" / "server.py"
_spec = importlib.util.spec_from_file_location("drift_test_server", _file)
assert _spec and _spec.loader
server = importlib.util.module_from_spec(_spec)
sys.modules["drift_test_server"] = server
_spec.loader.exec_module(server)


def test_an_endpoint_plays_the_user_and_is_asked_once(model, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_API_KEY", "sk-secret")
    opened = Scripted({name: messages[:1] for name, messages in USER.messages.items()})

    def played(endpoint: Any) -> tuple[Conversation, ...]:
        with ChatEndpoint(EndpointConfig(model="m", base_url=endpoint.url), tmp_path / "cache") as chat:
            return play(model, beginnings(), EndpointUser(chat, first=opened), tmp_path / "replies", n_turns=3, sampling=SHORT)

    with server.running(lambda prompt: server.completion(f" Heard: {prompt[:20]} ")) as endpoint:
        first = played(endpoint)
        n_asked = len(endpoint.bodies)
        assert played(endpoint) == first and len(endpoint.bodies) == n_asked == 4
        asked = next(body["messages"] for body in endpoint.bodies if len(body["messages"]) == 6)
    one = next(one for one in first if one.turns[0].user == asked[2]["content"])
    assert [turn.user for turn in one.turns[:1]] == [USER.messages[one.script][0]]
    assert one.turns[1].user == f"Heard: {one.turns[0].reply[:20]}".strip()
    assert [message["role"] for message in asked] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert asked[5]["content"] == (one.turns[1].reply or "(says nothing)"), "the model's replies are what the user hears"
    assert "programmer" in asked[0]["content"] or "wonders what the other really is" in asked[0]["content"]


def test_a_chat_that_is_longer_than_the_context_loses_its_beginning_for_good(model):
    said = [{"role": role, "content": f"{role} {k} " + "word " * 6} for k in range(6) for role in ("user", "assistant")]
    one = from_messages(model, said, name="chat", max_context=160)
    firsts = [turn.first for turn in one.turns]
    assert firsts == sorted(firsts) and firsts[0] == 0 < firsts[-1]
    for k, turn in enumerate(one.turns):
        assert len(told(model, "", one.turns[turn.first : k + 1]).ids) <= 160
    with pytest.raises(WorkbenchError, match="a reply of"):
        from_messages(model, said, name="chat", max_context=10)
