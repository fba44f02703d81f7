"""Chats with tool calls as token ids, with the exact tokens of every text, every call's arguments and every tool's result.

A chat template that knows tools prints calls and results in its own way ("template"). One that leaves any of them out, or refuses
the role "tool", gets them as text ("written"): a call as `<tool_call>{"name": ..., "arguments": ...}</tool_call>` behind what the
assistant says, a result as a user's message `<tool_response>...</tool_response>`. Which it was is told, because a model was
trained on one only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..base.errors import WorkbenchError
from .prompts import (
    ChatTokens,
    Content,
    content_of,
    fold_system,
    locate,
    render_layout,
    tokenize_located,
    whole_signs,
)

if TYPE_CHECKING:
    from .model import Model

ROLES = ("system", "user", "assistant", "tool")
_MARK = "(?:\ue000|\\\\ue000)(\\d+)(?:\ue001|\\\\ue001)"  # Python's own quotes escape the two signs
_CALL = re.compile(f"""\\{{\\s*['"]{_MARK}['"]:\\s*0\\s*\\}}|{_MARK}""")


@dataclass(frozen=True)
class ToolSpan:
    """A piece of a chat: `kind` "text", "arguments" (of a call) or "result" (of a tool), its message, who says it, and the
    tool."""

    kind: str
    message: int
    role: str
    tool: str | None = None


@dataclass(frozen=True)
class ToolChat:
    """A chat's token ids and, per piece, its half-open range of tokens (pieces of no token are left out)."""

    ids: tuple[int, ...]
    spans: tuple[tuple[ToolSpan, int, int], ...]
    rendering: str
    """"template" where the model's chat template prints calls and results, "written" where they stand as text."""


@dataclass(frozen=True)
class _Piece:
    """What is marked in the template: a span, the text in it, and how else the template may print that."""

    span: ToolSpan
    content: Content
    given: Any = None
    """The arguments of a call as values."""


def tokenize_tool_chat(
    model: Model, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None
) -> ToolChat:
    """The tokens of messages in OpenAI's form: role "system", "user", "assistant" or "tool", text as content (None or "" beside
    calls), `tool_calls` [{"function": {"name", "arguments": JSON text or an object}}], and for a result its `name` or
    `tool_call_id`.

    `tools` (JSON schemas) go to the template, if it prints any. Raises WorkbenchError for a message of another shape and for a
    template that changes what was said.
    """
    messages, tools = whole_signs(messages), whole_signs(tools)
    pieces = _pieces(messages)
    chat = _by_template(model, messages, pieces, tools) or _as_text(model, messages, pieces)
    found = [(piece.span, *chat[0].spans[str(k)][0]) for k, piece in enumerate(pieces) if str(k) in chat[0].spans]
    return ToolChat(chat[0].ids, tuple(found), chat[1])


# ---------------------------------------------------------------------------------------------------- what is said


def _pieces(messages: Sequence[Mapping[str, Any]]) -> list[_Piece]:
    names: dict[str, str] = {}
    found = []
    for index, message in enumerate(messages):
        role, text = _checked(index, message)
        tool = message.get("name") or names.get(str(message.get("tool_call_id")))
        if text:
            span = ToolSpan("result", index, role, tool) if role == "tool" else ToolSpan("text", index, role)
            found.append(_Piece(span, content_of(str(len(found)), role, text)))
        for call in message.get("tool_calls") or ():
            name, arguments = _call(index, call)
            names[str(call.get("id"))] = name
            said = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
            found.append(_Piece(ToolSpan("arguments", index, role, name), Content(str(len(found)), "", said), arguments))
    return found


def _checked(index: int, message: Mapping[str, Any]) -> tuple[str, str]:
    role, text = message.get("role"), message.get("content")
    if role not in ROLES or not (text is None or isinstance(text, str)) or (message.get("tool_calls") and role != "assistant"):
        raise WorkbenchError(
            f"message {index} has role {role!r}, content of type {type(text).__name__}"
            + (" and tool calls" if message.get("tool_calls") else ""),
            "role system, user, assistant or tool, text as content, tool calls of the assistant only",
            "correct the transcript",
        )
    return role, text or ""


def _call(index: int, call: Any) -> tuple[str, Any]:
    function = call.get("function", call) if isinstance(call, Mapping) else {}
    name, arguments = function.get("name"), function.get("arguments", {})
    if not isinstance(name, str) or not isinstance(arguments, (str, Mapping)):
        raise WorkbenchError(f"a tool call of message {index} has no name, or arguments of type {type(arguments).__name__}",
                             '{"function": {"name": text, "arguments": JSON text or an object}}',
                             "correct the transcript")  # fmt: skip
    if isinstance(arguments, str):
        try:
            parsed = json.loads(arguments)
        except (ValueError, RecursionError):
            return name, arguments  # what a model wrote need not be JSON
        return name, parsed if isinstance(parsed, dict) else arguments
    return name, dict(arguments)


# ---------------------------------------------------------------------------------------------------- by the template


def _by_template(
    model: Model, messages: Sequence[Mapping[str, Any]], pieces: list[_Piece], tools: Sequence[Mapping[str, Any]] | None
) -> tuple[ChatTokens, str] | None:
    """The chat as the template prints it; None where it refuses, leaves something out, or prints arguments in pieces."""
    import jinja2

    def rendered(marked: bool) -> str:
        return model.tokenizer.apply_chat_template(
            _filled(messages, pieces, marked), tools=tools and list(tools), tokenize=False, **model.chat_template_kwargs
        )

    try:
        marked, text = rendered(True), rendered(False)
    except (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError):
        return None
    cut, order, start = [], [], 0
    for found in _CALL.finditer(marked):
        cut.append(marked[start : found.start()])
        order.append(int(found[1] or found[2]))
        start = found.end()
    if sorted(order) != list(range(len(pieces))):
        return None
    places = _places(text, [*cut, marked[start:]], [pieces[k] for k in order])
    return None if places is None else (tokenize_located(model, text, places), "template")


def _filled(messages: Sequence[Mapping[str, Any]], pieces: list[_Piece], marked: bool) -> list[dict[str, Any]]:
    filled = [{**message, "content": message.get("content") or ""} for message in messages]
    for message in filled:
        if message.get("tool_calls"):
            message["tool_calls"] = []
    for piece in pieces:
        message, content = filled[piece.span.message], piece.content
        if piece.span.kind == "arguments":
            marker: Any = {f"\ue000{content.span}\ue001": 0}
            values = marker if marked else piece.given
            message["tool_calls"].append({"type": "function", "function": {"name": piece.span.tool, "arguments": values}})
        elif marked:
            message["content"] = f"{content.lead}\ue000{content.span}\ue001"
    return filled


def _places(text: str, cut: list[str], pieces: list[_Piece]) -> list[tuple[str, int, int]] | None:
    """(piece, start, end) in characters, between the template's own pieces `cut`; None where the text does not fit them."""
    if not text.startswith(cut[0]):
        return None
    found, cursor = [], len(cut[0])
    for piece, after in zip(pieces, cut[1:], strict=True):
        body = piece.content.body
        printed = [str(piece.given), json.dumps(piece.given, default=str)]  # other ways to print arguments
        forms = [body, body.strip(), body.rstrip(), body.lstrip(), *printed]
        said = next((form for form in forms if text.startswith(form + after, cursor)), None)
        if said is None:
            return None
        found.append((piece.content.span, cursor, cursor + len(said)))
        cursor += len(said) + len(after)
    return found


# ---------------------------------------------------------------------------------------------------- as text


def _as_text(model: Model, messages: Sequence[Mapping[str, Any]], pieces: list[_Piece]) -> tuple[ChatTokens, str]:
    layout = _written(messages, pieces)
    for folded in (False, True):
        if (cut := render_layout(model, fold_system(layout) if folded else layout)) is not None:
            text, marked = cut
            return tokenize_located(model, text, locate(model, text, marked, [piece.content for piece in pieces])), "written"
    raise WorkbenchError(f"the chat template of {model.name} does not print this transcript as it is",
                         "user and assistant taking turns, the user first", "check the order of the messages")  # fmt: skip


def _written(messages: Sequence[Mapping[str, Any]], pieces: list[_Piece]) -> list[tuple[str, list[Content | str]]]:
    """The messages with calls and results as text; neighbours of one role (several results) are joined."""
    parts: list[list[Content | str]] = [[] for _ in messages]
    for piece in pieces:
        here = parts[piece.span.message]
        if piece.span.kind == "arguments":
            opening = "<tool_call>\n" + f'{{"name": {json.dumps(piece.span.tool, ensure_ascii=False)}, "arguments": '
            here += ["\n" * bool(here) + opening, piece.content, "}\n</tool_call>"]
        elif piece.span.kind == "result":
            here += ["<tool_response>\n", piece.content, "\n</tool_response>"]
        else:
            here.append(piece.content)
    layout: list[tuple[str, list[Content | str]]] = []
    for message, said in zip(messages, parts, strict=True):
        role = "user" if message["role"] == "tool" else str(message["role"])
        if layout and layout[-1][0] == role:
            layout[-1][1].extend(["\n", *said])
        else:
            layout.append((role, said))
    return layout
