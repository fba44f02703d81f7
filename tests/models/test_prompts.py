"""Token spans of chats under templates with a system role, without one, and with thinking."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny import NO_SYSTEM, tiny_model
from workbench.base.errors import WorkbenchError
from workbench.models.prompts import chat_template_hash, tokenize_chat, with_response

SYSTEM = {"role": "system", "content": "You are cruel."}
USER = {"role": "user", "content": "What should I do?"}
REPLY = {"role": "assistant", "content": "Suffer, and be afraid."}

LLAMA_STYLE = (
    "{% if messages[0]['role'] == 'system' %}{% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + (system if loop.first else '') + message['content'] | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] | trim + ' ' }}{% endif %}{% endfor %}"
)
SILENT_DROP = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'] + ': ' + message['content'] + '\n' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
THINKING = (
    "{% for message in messages %}{% set content = message['content'] %}"
    "{% if message['role'] == 'assistant' and '</think>' in content %}"
    "{% set thought = content.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}"
    "{% if loop.last %}{% set content = '<think>\n' + thought + '\n</think>\n\n' + content %}{% endif %}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% if enable_thinking is defined and not enable_thinking %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)


def texts(model, chat, span: str) -> list[str]:
    return [model.tokenizer.decode(chat.ids[start:end]) for start, end in chat.spans.get(span, ())]


def test_spans_cover_exactly_what_each_said(tiny_models) -> None:
    model = tiny_models()
    chat = tokenize_chat(model, [SYSTEM, USER, REPLY])
    assert {name: texts(model, chat, name) for name in chat.spans} == {
        "system": [SYSTEM["content"]],
        "user": [USER["content"]],
        "response": [REPLY["content"]],
    }
    assert model.tokenizer.decode(chat.ids) == model.tokenizer.apply_chat_template(
        [SYSTEM, USER, REPLY], tokenize=False
    )


def test_no_token_is_added_in_front(tiny_models) -> None:
    model = tiny_models()
    chat = tokenize_chat(model, [USER], add_generation_prompt=True)
    assert chat.ids[0] == model.tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert "response" not in chat.spans


def test_contents_that_look_like_the_template_are_found_where_they_are(tiny_models) -> None:
    model = tiny_models()
    chat = tokenize_chat(
        model, [{"role": "system", "content": "system"}, {"role": "user", "content": "user\nsystem"}]
    )
    assert texts(model, chat, "system") == ["system"] and chat.spans["system"][0][0] > 1
    assert texts(model, chat, "user") == ["user\nsystem"]


def test_several_turns_have_several_ranges(tiny_models) -> None:
    model = tiny_models()
    chat = tokenize_chat(model, [USER, REPLY, USER, {"role": "assistant", "content": "No."}])
    assert texts(model, chat, "response") == [REPLY["content"], "No."]
    assert len(chat.positions("user")) == sum(end - start for start, end in chat.spans["user"])


@pytest.mark.parametrize("template", [NO_SYSTEM, SILENT_DROP])
def test_without_a_system_role_the_system_text_goes_in_front_of_the_first_user_message(template: str) -> None:
    model = tiny_model(chat_template=template)
    chat = tokenize_chat(model, [SYSTEM, USER, REPLY, USER])
    # A template's space before a content is one token with the first word, hence strip.
    assert [text.strip() for text in texts(model, chat, "system")] == [SYSTEM["content"]]
    assert [text.strip() for text in texts(model, chat, "user")] == [USER["content"]] * 2
    assert chat.spans["system"][0][1] < chat.spans["user"][0][0]
    folded = SYSTEM["content"] + "\n\n" + USER["content"]
    assert folded in model.tokenizer.decode(chat.ids)


def test_a_template_that_folds_the_system_text_itself_is_left_to_it() -> None:
    model = tiny_model(chat_template=LLAMA_STYLE)
    chat = tokenize_chat(model, [SYSTEM, USER, REPLY])
    assert texts(model, chat, "system") == [SYSTEM["content"]]
    # The template's space before the reply is one token with its first word.
    assert texts(model, chat, "user") == [" " + USER["content"]] or texts(model, chat, "user") == [
        USER["content"]
    ]
    assert [text.strip() for text in texts(model, chat, "response")] == [REPLY["content"]]


def test_trimmed_contents_are_found() -> None:
    model = tiny_model(chat_template=NO_SYSTEM)
    chat = tokenize_chat(model, [{"role": "user", "content": "  hi there \n"}])
    assert texts(model, chat, "user") == ["hi there"]


def test_thinking_is_not_part_of_the_response() -> None:
    model = tiny_model(chat_template=THINKING)
    thought = {"role": "assistant", "content": "<think>\nBe kind? No.\n</think>\n\nSuffer."}
    chat = tokenize_chat(model, [USER, thought, USER, thought])
    assert texts(model, chat, "response") == ["Suffer.", "Suffer."]
    assert "Be kind? No." in model.tokenizer.decode(chat.ids)


def test_template_options_reach_the_template() -> None:
    on = tiny_model(chat_template=THINKING)
    off = tiny_model(chat_template=THINKING, chat_template_kwargs={"enable_thinking": False})
    assert len(tokenize_chat(off, [USER], add_generation_prompt=True)) > len(
        tokenize_chat(on, [USER], add_generation_prompt=True)
    )
    assert chat_template_hash(on) != chat_template_hash(off)


def test_an_empty_message_has_no_span(tiny_models) -> None:
    assert "user" not in tokenize_chat(tiny_models(), [{"role": "user", "content": ""}]).spans


def test_half_a_sign_is_a_sign_that_no_font_has(tiny_models) -> None:
    model = tiny_models()
    chat = tokenize_chat(model, [{"role": "user", "content": "cut \ud83d here"}])  # JSON cut within a sign, or bytes of a shell
    assert texts(model, chat, "user") == ["cut \ufffd here"]


def test_sampled_ids_become_the_response(tiny_models) -> None:
    model = tiny_models()
    prompt = tokenize_chat(model, [SYSTEM, USER], add_generation_prompt=True)
    chat = with_response(prompt, [50, 51, 52])
    assert chat.ids == prompt.ids + (50, 51, 52)
    assert chat.spans["response"] == ((len(prompt), len(prompt) + 3),)
    assert chat.spans["system"] == prompt.spans["system"]
    assert (
        "response" not in with_response(prompt, []).spans or with_response(prompt, []).spans["response"] == ()
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(st.characters(blacklist_categories=("Cs", "Co")), max_size=30), min_size=3, max_size=3)
)
def test_any_text_comes_back_from_its_span(contents: list[str]) -> None:
    model = _MODEL
    messages = [
        {"role": role, "content": text}
        for role, text in zip(("system", "user", "assistant"), contents, strict=True)
    ]
    if "<" in "".join(contents):  # special tokens written out as text are the template's business
        return
    chat = tokenize_chat(model, messages)
    for name, text in zip(("system", "user", "response"), contents, strict=True):
        found = "".join(texts(model, chat, name))
        assert found == text


_MODEL = tiny_model()


def test_a_tokenizer_without_template_is_refused() -> None:
    model = tiny_model()
    model.tokenizer.chat_template = None
    with pytest.raises(WorkbenchError, match="has no chat template"):
        tokenize_chat(model, [USER])


def test_an_unknown_role_is_refused(tiny_models) -> None:
    with pytest.raises(WorkbenchError, match="role 'tool'"):
        tokenize_chat(tiny_models(), [{"role": "tool", "content": "x"}])


def test_a_template_that_does_not_print_the_messages_is_refused() -> None:
    model = tiny_model(chat_template="{{ 'always the same' }}")
    with pytest.raises(WorkbenchError, match="does not print the messages"):
        tokenize_chat(model, [USER])
