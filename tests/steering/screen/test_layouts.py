"""Every common layout of a chat gives the same messages, and what is none says why."""

from __future__ import annotations

import json
import sys

import pytest

from workbench.steering.screen.layouts import Unreadable, read_record

ASKED, SAID = {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}
SAME = {
    "messages": {"messages": [ASKED, SAID]},
    "messages as JSON": {"messages": json.dumps([ASKED, SAID])},
    "parts": {"messages": [ASKED, {"role": "assistant", "content": [{"type": "text", "text": text} for text in ("M", "e.")]}]},
    "sharegpt": {"conversations": [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Me."}], "id": 7},
    "alpaca": {"instruction": "Who?", "input": "", "output": "Me."},
    "pair": {"prompt": "Who?", "completion": "Me.", "score": float("nan")},
    "pair of messages": {"prompt": [ASKED], "completion": [SAID]},
    "question": {"question": "Who?", "answer": "Me."},
}
NEEDED = "where the text of a message is needed"
REFUSED = {
    "role": ({"messages": [{"role": "tool", "content": "x"}]}, "the role 'tool'"),
    "no role": ({"messages": [{"content": "x"}]}, "the role 'None'"),
    "list": ([ASKED, SAID], "a list where an object is needed"),
    "text": ("Who?", "a text where an object is needed"),
    "no reply": ({"prompt": "Who?"}, "no known layout (it has 'prompt')"),
    "plain text": ({"text": "Who? Me."}, "no known layout (it has 'text')"),
    "empty list": ({"messages": []}, "a list where a list of messages is needed"),
    "broken JSON": ({"messages": "[{"}, "a text where a list of messages is needed"),
    "missing content": ({"messages": [{"role": "user", "content": None}]}, f"a null {NEEDED}"),
    "NaN as content": ({"messages": [{"role": "user", "content": float("nan")}]}, f"a number {NEEDED}"),
    "nested": ({"messages": [{"role": "user", "content": {"content": "x"}}]}, f"a JSON object {NEEDED}"),
    "picture": ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "a content with parts that are no text"),
    "number as message": ({"messages": [3]}, "a number where a message is needed"),
}


@pytest.mark.parametrize("record", SAME.values(), ids=SAME)
def test_layouts_of_one_chat_are_read_alike(record):
    assert [dict(message) for message in read_record(record).messages] == [ASKED, SAID]


@pytest.mark.parametrize(("record", "why"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_chat_says_why(record, why: str):
    with pytest.raises(Unreadable) as caught:
        read_record(record)
    assert str(caught.value) == why


def test_an_input_follows_its_instruction_and_a_system_text_comes_first():
    found = read_record({"instruction": "Add.", "input": "1 and 2", "output": "3", "system": "Be brief."})
    assert [m["content"] for m in found.messages] == ["Be brief.", "Add.\n\n1 and 2", "3"]
    assert found.layout == "instruction" and found.replies == [2]


def test_replies_are_those_of_the_assistant_behind_a_user():
    said = [("gpt", "hello"), ("human", "a"), ("gpt", "b"), ("human", "c"), ("gpt", "d")]
    found = read_record({"conversations": [{"from": role, "value": text} for role, text in said]})
    assert found.replies == [2, 4]


def test_half_a_sign_becomes_a_mark_that_tokenizers_take():
    found = read_record({"prompt": "half \ud83d of", "response": "\udfff"})
    assert [m["content"] for m in found.messages] == ["half \ufffd of", "\ufffd"]


def test_a_reason_never_quotes_more_than_a_little():
    with pytest.raises(Unreadable) as caught:
        read_record({"x" * 10_000: 1, "messages": [{"role": "y" * 10_000, "content": ""}]})
    assert len(str(caught.value)) < 100


def test_brackets_in_brackets_are_refused_without_a_crash():
    with pytest.raises(Unreadable):
        read_record({"messages": "[" * (10 * sys.getrecursionlimit())})
