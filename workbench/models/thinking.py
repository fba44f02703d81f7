"""Where an answer begins: behind the model's thinking, or behind the header of the channel that the user is shown.

Two ways of writing are known: `<think>...</think>answer` (Qwen3, DeepSeek R1, SmolLM3), and channels (gpt-oss):
`<|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>answer`. What is looked for are these
texts, whatever tokens they are written with; a model is looked at only if its chat template names them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .model import Model
    from .prompts import ChatTokens

ANSWER_RULE = "answers begin behind the thinking"
"""Part of the identity of rollouts of a model that may think: before this rule the thinking was part of the answer."""

_NAMED = ("</think>", "<|channel|>")
_OPENING = re.compile(r"<think>|<\|channel\|>")
_CLOSING = re.compile(r"(?:</think>|<\|channel\|>final[^<]*<\|message\|>)\s*")
_CLOSED = re.compile(_CLOSING.pattern + r"\Z")
_INSIDE = re.compile(r"\s*<think>|(?s:.*)(?:</think>|<\|channel\|>)")
_TAIL = 64  # tokens in which the longest closing marker fits, were each letter a token


def may_think(model: Model) -> bool:
    """Whether the chat template names markers of thinking."""
    template = str(getattr(model.tokenizer, "chat_template", None) or "")
    return any(marker in template for marker in _NAMED)


def answer_start(text: str) -> int:
    """The character of `text` at which its answer begins: 0 without markers, len(text) if the thinking is never left."""
    start = max((found.end() for found in _CLOSING.finditer(text)), default=0)
    return len(text) if never_left(text[start:]) else start


def never_left(text: str) -> bool:
    """Whether `text`, which follows the last closing marker (or none), is thinking to its end."""
    return _INSIDE.match(text) is not None


def ends_thinking(tokenizer: Any, ids: Sequence[int]) -> bool:
    """Whether sampled `ids` end in a closing marker, or in the blanks behind one: what follows is the answer."""
    return _CLOSED.search(tokenizer.decode(ids[-_TAIL:])) is not None


def opened_thinking(tokenizer: Any, prompt: ChatTokens) -> str:
    """The thinking that a generation prompt opens and leaves to the model ("" for most)."""
    said = max((end for ranges in prompt.spans.values() for _, end in ranges), default=0)
    text = tokenizer.decode(prompt.ids[said:])
    opening = _OPENING.search(text)
    return text[opening.start() :] if opening and not _CLOSED.search(text) else ""
