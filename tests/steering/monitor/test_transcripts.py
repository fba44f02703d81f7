"""Transcripts with tool calls: every piece at its tokens, under templates that know tools and templates that do not."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from tests.tiny import CHATML, tiny_model
from workbench.base.errors import WorkbenchError
from workbench.models.hookpoints import HookPoint
from workbench.models.tool_chats import tokenize_tool_chat
from workbench.personas.vectors import PersonaVector
from workbench.saes.token_rows import activations_at_hooks
from workbench.steering.monitor.alarms import Alarm, Rule
from workbench.steering.monitor.monitor import Monitor
from workbench.steering.monitor.transcripts import read_transcript

# The shape of a template that knows tools, as the Hermes and Qwen families write it.
TOOLS = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['content'] %}"
    "{{ message['content'] }}{% endif %}{% for call in message['tool_calls'] or [] %}"
    "{{ '\n<call>{\"name\": \"' + call['function']['name'] + '\", \"arguments\": '"
    " + (call['function']['arguments'] | tojson) + '}</call>' }}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
)
PYTHONIC = TOOLS.replace("(call['function']['arguments'] | tojson)", "(call['function']['arguments'] | string)")

TRAJECTORY: list[dict[str, Any]] = [
    {"role": "system", "content": "You run commands."},
    {"role": "user", "content": "user"},  # also a word of the template
    {"role": "assistant", "content": "I will look.", "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "shell", "arguments": '{"command": "ls \\"ä b\\"", "n": 2}'}},
        {"id": "c2", "type": "function", "function": {"name": "read", "arguments": {}}},
    ]},
    {"role": "tool", "tool_call_id": "c1", "content": "I will look."},
    {"role": "tool", "tool_call_id": "c2", "content": "{}"},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "c3", "function": {"name": "shell", "arguments": "not json"}}]},
    {"role": "tool", "tool_call_id": "c3", "content": "error"},
    {"role": "assistant", "content": "They should suffer."},
]  # fmt: skip
SAID = [
    ("text", 0, "system", None, "You run commands."), ("text", 1, "user", None, "user"),
    ("text", 2, "assistant", None, "I will look."),
    ("arguments", 2, "assistant", "shell", '{"command": "ls \\"ä b\\"", "n": 2}'),
    ("arguments", 2, "assistant", "read", "{}"), ("result", 3, "tool", "shell", "I will look."),
    ("result", 4, "tool", "read", "{}"),
    ("arguments", 5, "assistant", "shell", "not json"), ("result", 6, "tool", "shell", "error"),
    ("text", 7, "assistant", None, "They should suffer."),
]  # fmt: skip


@pytest.mark.parametrize(("template", "rendering"), [(TOOLS, "template"), (CHATML, "written"), (None, "written")],
                         ids=["knows tools", "prints contents only", "no system role, turns alternate"])  # fmt: skip
def test_every_piece_lies_at_its_own_tokens(template: str | None, rendering: str) -> None:
    model = tiny_model("llama" if template else "gemma3", chat_template=template)
    messages = TRAJECTORY if template != TOOLS else [m for i, m in enumerate(TRAJECTORY) if i not in (5, 6)]
    chat = tokenize_tool_chat(model, messages)
    assert chat.rendering == rendering
    decode = model.tokenizer.decode
    found = [(s.kind, s.role, s.tool, decode(list(chat.ids[a:b])).strip()) for s, a, b in chat.spans]
    wanted = [(kind, role, tool, text) for kind, index, role, tool, text in SAID if template != TOOLS or index not in (5, 6)]
    assert [one[:3] for one in found] == [one[:3] for one in wanted]
    for (*_, text), (*_, exact) in zip(found, wanted, strict=True):
        assert exact in text and len(text) <= len(exact) + 3, (text, exact)  # a token may reach into the template's quotes
    ends = [end for _, _, end in chat.spans]
    assert all(start >= end for (_, start, _), end in zip(chat.spans[1:], ends, strict=False))


def test_half_signs_anywhere_in_a_transcript_are_read() -> None:
    call = {"id": "\udc00", "function": {"name": "sh\ud83d", "arguments": {"a\ud83d": "\ud83d"}}}
    messages = [{"role": "user", "content": "\ud83d"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    for template in (TOOLS, CHATML):
        chat = tokenize_tool_chat(tiny_model(chat_template=template), messages)
        assert [span.kind for span, _, _ in chat.spans] == ["text", "arguments"]


def test_arguments_that_a_template_prints_in_its_own_way_are_found() -> None:
    model = tiny_model(chat_template=PYTHONIC)
    chat = tokenize_tool_chat(model, TRAJECTORY[:5])
    said = [model.tokenizer.decode(list(chat.ids[a:b])) for span, a, b in chat.spans if span.kind == "arguments"]
    assert chat.rendering == "template" and "'command': 'ls \"ä b\"'" in said[0]


@pytest.mark.parametrize("messages", [
    [{"role": "robot", "content": "x"}], [{"role": "user", "content": ["x"]}],
    [{"role": "user", "content": "x", "tool_calls": [{}]}],
    [{"role": "user", "content": "x"}, {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": 3}}]}],
], ids=["role", "content", "a user calls", "no name"])  # fmt: skip
def test_messages_of_another_shape_are_refused(messages: list[dict[str, Any]]) -> None:
    with pytest.raises(WorkbenchError):
        tokenize_tool_chat(tiny_model(), messages)


def monitor_of(model: Any) -> Monitor:
    direction = torch.randn(model.d_model, generator=torch.Generator().manual_seed(1))
    vector = PersonaVector.from_direction(direction, trait="evil", model=model.description(), hook=HookPoint(1))
    return Monitor.of(model, [vector])


def test_values_are_those_of_the_pass_and_only_what_was_written_counts_as_written() -> None:
    model = tiny_model()
    monitor = monitor_of(model)
    chat, read = tokenize_tool_chat(model, TRAJECTORY), read_transcript(model, monitor, TRAJECTORY, number=4)
    rows = activations_at_hooks(model, [HookPoint(1)], torch.tensor([chat.ids]))[HookPoint(1)][0]
    values = monitor.read(rows, HookPoint(1))
    assert [one.written for one in read.spans] == [role == "assistant" for _, _, role, _, _ in SAID]
    for one, (_, start, end) in zip(read.spans, chat.spans, strict=True):
        torch.testing.assert_close(one.reply.values, values[start:end], equal_nan=True)
        assert one.reply.row == 4 and one.reply.turn == one.span.message
    written = torch.cat([one.reply.values for one in read.spans if one.written]).nanmean(dim=0)
    assert torch.equal(read.written_mean(), written)


def test_an_alarm_of_a_piece_is_at_its_own_token() -> None:
    model = tiny_model()
    monitor = monitor_of(model)
    last = read_transcript(model, monitor, TRAJECTORY).spans[-1]
    level = float(last.reply.values.nan_to_num(-1e9).max()) - 1e-4
    armed = monitor.with_alarms([Alarm("evil", Rule("running", 1), level, 0.05)])
    raised = read_transcript(model, armed, TRAJECTORY).spans[-1].reply.alarms()
    assert [one.position for one in raised] == [int(last.reply.values.nan_to_num(-1e9).argmax()) + 1]


def test_a_transcript_that_is_too_long_is_refused_before_it_is_read() -> None:
    model = tiny_model()
    with pytest.raises(WorkbenchError, match=r"A transcript of .* tokens"):
        read_transcript(model, monitor_of(model), TRAJECTORY, max_tokens=20)


def test_a_log_has_one_line_per_token_and_reply_and_says_no_text_unless_asked(tmp_path: Any) -> None:
    from workbench.models.generation import generate
    from workbench.models.prompts import tokenize_chat
    from workbench.models.sampling import Sampling
    from workbench.steering.monitor.logs import JsonLines
    from workbench.steering.monitor.watching import watching

    model = tiny_model()
    monitor = monitor_of(model).with_alarms([Alarm("evil", Rule("mean"), -1e6, 0.05)])
    chat = tokenize_chat(model, [{"role": "user", "content": "secret"}], add_generation_prompt=True)

    def lines(**options: Any) -> list[dict[str, Any]]:
        path = tmp_path / f"log-{len(options)}.jsonl"
        with (
            JsonLines(path, monitor, **options) as log,
            watching(monitor, model, on_token=log.token, on_reply=log.reply) as watch,
        ):
            list(generate(model, [chat], Sampling(max_new_tokens=5), row_seeds=[1], hooks=[HookPoint(1)]))
        assert path.stat().st_mode & 0o077 == 0
        reply.append(watch.replies()[0])
        return [json.loads(line) for line in path.read_text().splitlines()]

    reply: list[Any] = []
    found = lines()
    assert [line["kind"] for line in found] == ["token"] * (len(reply[0].values) + 1) + ["reply"]
    assert [line["position"] for line in found[:-1]] == list(range(len(reply[0].values) + 1))
    assert {key for line in found for key in line} & {"text", "id"} == set()
    value = found[1]["values"]["evil"]
    assert value == pytest.approx(float(reply[0].values[0, 0]), abs=1e-4)
    assert found[1]["norms"]["evil"] == pytest.approx(value / monitor.norms[HookPoint(1)], abs=1e-4)
    assert found[-1]["alarms"][0]["position"] == len(reply[0].values)
    told = lines(text=True, tokenizer=model.tokenizer)
    assert told[-1]["text"] == model.tokenizer.decode(list(reply[1].ids), skip_special_tokens=True)
    with pytest.raises(WorkbenchError, match="without a tokenizer"):
        JsonLines(tmp_path / "x", monitor, text=True)
