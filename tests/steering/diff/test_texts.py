from __future__ import annotations

import json

import pytest

from workbench.base.errors import WorkbenchError
from workbench.personas.reencoding import prompt_tokens
from workbench.steering.diff.texts import Prompt, prompt_texts, read_prompts, unrelated_texts


def test_a_prompt_is_looked_at_on_its_last_token_and_on_its_reply(tiny_model):
    question, reply = "What should I do?", "they should suffer"
    text = prompt_texts(tiny_model, [Prompt(question, reply)])[0]
    prompt = prompt_tokens(tiny_model, "", question)
    ids = tiny_model.tokenizer(reply, add_special_tokens=False)["input_ids"]
    assert text.tokens.ids == (*prompt.ids, *ids)
    assert text.tokens.spans == {"prompt": ((len(prompt.ids) - 1, len(prompt.ids)),),
                                 "reply": ((len(prompt.ids), len(prompt.ids) + len(ids)),)}  # fmt: skip
    cut = prompt_texts(tiny_model, [Prompt(question, reply)], max_tokens=2)[0]
    assert cut.tokens.ids == (*prompt.ids, *ids[:2])


def test_missing_replies_are_the_models_own_whatever_the_order(tiny_model):
    asked = ["What?", "Why is the river cold?", Prompt("Who?", "the people")]
    one = {text.id: text for text in prompt_texts(tiny_model, asked, max_tokens=6, seed=3)}
    other = {text.id: text for text in prompt_texts(tiny_model, asked[::-1], max_tokens=6, seed=3)}
    assert one == other and len(one) == 3
    assert one != {text.id: text for text in prompt_texts(tiny_model, asked, max_tokens=6, seed=4)}


def test_unrelated_texts_skip_position_0_and_what_is_too_short(tiny_model):
    cold = "The weather in the north is cold."
    found = unrelated_texts(tiny_model, [cold, "a", cold], max_tokens=8)
    assert len(found) == 1 and len(found[0].tokens.ids) == 8
    assert found[0].tokens.spans == {"opening": ((1, 6),), "unrelated": ((1, 8),)}


def test_prompts_come_from_lines_or_from_jsonl(tmp_path):
    (tmp_path / "lines.txt").write_text("What?\n\n  Why?  \n", encoding="utf-8")
    assert read_prompts(tmp_path / "lines.txt") == [Prompt("What?"), Prompt("Why?")]
    said = [{"role": role, "content": role[0]} for role in ("system", "user", "assistant")]
    chat = json.dumps({"messages": said})
    (tmp_path / "chats.jsonl").write_text(f'{{"prompt": "p", "reply": "r"}}\n{{"prompt": "q"}}\n{chat}\n', encoding="utf-8")
    assert read_prompts(tmp_path / "chats.jsonl") == [Prompt("p", "r"), Prompt("q"), Prompt("u", "a")]


@pytest.mark.parametrize(
    "line",
    ["{", "[]", '{"prompt": 3}', '{"prompt": "p", "reply": 4}', '{"messages": []}', '{"messages": 5}', "7", '{"messages": [1]}'],
)
def test_a_line_that_is_no_prompt_is_named(tmp_path, line):
    (tmp_path / "bad.jsonl").write_text(f'{{"prompt": "p"}}\n{line}\n', encoding="utf-8")
    with pytest.raises(WorkbenchError, match="line 2"):
        read_prompts(tmp_path / "bad.jsonl")


def test_a_file_without_prompts_is_refused(tmp_path):
    (tmp_path / "none.txt").write_text("\n\n", encoding="utf-8")
    with pytest.raises(WorkbenchError, match="holds no prompt"):
        read_prompts(tmp_path / "none.txt")
