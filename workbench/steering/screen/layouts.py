"""One record of a chat data set as messages, whichever of the common layouts it has.

    messages        {"messages": [{"role", "content"}, ...]}
    conversations   {"conversations": [{"from", "value"}, ...]}             (ShareGPT)
    instruction     {"instruction", "input" (optional), "output"}           (Alpaca)
    prompt          {"prompt", "response" | "completion" | ...}; both may be lists of messages
    question        {"question" | "query", "answer" | "response"}

The layout is found record by record. A list of messages may stand as JSON in a text, and the content of a message may be a list
of text parts. Fields that belong to no layout are ignored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ROLES = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
_LISTS = {"messages": "messages", "conversations": "conversations", "conversation": "conversations"}
_QUESTIONS = {"instruction": "instruction", "prompt": "prompt", "question": "question", "query": "question"}
_REPLIES = ("response", "completion", "output", "answer", "reply")
_SURROGATE = re.compile("[\ud800-\udfff]")


class Unreadable(ValueError):
    """Why a record is no chat; the text is short and may quote the record."""


@dataclass(frozen=True)
class Sample:
    """A chat: messages {role, content} with the roles system, user and assistant, and the layout that they came in."""

    messages: tuple[Mapping[str, str], ...]
    layout: str

    @property
    def replies(self) -> list[int]:
        """The places of the assistant's messages that somebody spoke before."""
        return [i for i, message in enumerate(self.messages) if message["role"] == "assistant" and self._asked(i)]

    def _asked(self, place: int) -> bool:
        return any(message["role"] == "user" for message in self.messages[:place])


def read_record(record: Any) -> Sample:
    """The chat in a record (a JSON object, or a row of a table). Raises Unreadable, with the reason in words."""
    if not isinstance(record, Mapping):
        raise Unreadable(f"a {_kind(record)} where an object is needed")
    for key, layout in _LISTS.items():
        if record.get(key) is not None:
            return Sample(_messages(record[key]), layout)
    for key, layout in _QUESTIONS.items():
        reply = next((name for name in _REPLIES if record.get(name) is not None), None)
        if record.get(key) is not None and reply is not None:
            return Sample(_pair(record, key, reply), layout)
    named = ", ".join(_quoted(key) for key in list(record)[:6]) or "no fields"
    raise Unreadable(f"no known layout (it has {named})")


def _pair(record: Mapping[str, Any], key: str, reply: str) -> tuple[Mapping[str, str], ...]:
    asked, answered = record[key], record[reply]
    before = [] if record.get("system") is None else [_message("system", record["system"])]
    if isinstance(asked, str) and isinstance(more := record.get("input"), str) and more.strip():
        asked = f"{asked}\n\n{more}"
    opened = [_message("user", asked)] if isinstance(asked, str) else _messages(asked)
    closed = [_message("assistant", answered)] if isinstance(answered, str) else _messages(answered)
    return (*before, *opened, *closed)


def _messages(value: Any) -> tuple[Mapping[str, str], ...]:
    """A list of messages, or one that is written as JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise Unreadable("a text where a list of messages is needed") from None
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)) or not value:
        raise Unreadable(f"a {_kind(value)} where a list of messages is needed")
    return tuple(_said(one) for one in value)


def _said(message: Any) -> Mapping[str, str]:
    if not isinstance(message, Mapping):
        raise Unreadable(f"a {_kind(message)} where a message is needed")
    role = message.get("role", message.get("from"))
    return _message(role, message.get("content", message.get("value")))


def _message(role: Any, content: Any) -> Mapping[str, str]:
    known = ROLES.get(role.lower()) if isinstance(role, str) else None
    if known is None:
        raise Unreadable(f"the role {_quoted(role)}")
    return {"role": known, "content": _text(content)}


def _text(content: Any) -> str:
    """The text of a message; half a sign (a lone surrogate) becomes U+FFFD, as no tokenizer takes it."""
    if isinstance(content, str):
        return _SURROGATE.sub("\ufffd", content)
    if isinstance(content, Sequence) and content and all(isinstance(part, Mapping) for part in content):
        parts = [part.get("text") for part in content]
        if all(isinstance(part, str) for part in parts):
            return "".join(map(_text, parts))
        raise Unreadable("a content with parts that are no text")
    raise Unreadable(f"a {_kind(content)} where the text of a message is needed")


def _kind(value: Any) -> str:
    names = {dict: "JSON object", list: "list", str: "text", bool: "truth value", int: "number", float: "number"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


def _quoted(value: Any) -> str:
    text = str(value)
    return repr(text if len(text) <= 40 else text[:39] + "…")
