"""Chat messages as token ids, with the exact token spans of what each speaker said.

The chat template is applied by transformers, the text is tokenised once as a whole, and character positions are mapped
to tokens by the tokenizer's offsets. Where the contents lie in the text is found by rendering the template a second
time with a marker in place of each content: the pieces between the markers are the template's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..base.errors import WorkbenchError
from ..base.store import content_hash
from .thinking import answer_start

if TYPE_CHECKING:
    from .model import Model

Message = Mapping[str, str]
Span = tuple[int, int]

SPAN_NAMES = {"system": "system", "user": "user", "assistant": "response"}
"""Role in the message -> name of its span."""

PLAIN_TEMPLATE = (
    "{{ bos_token or '' }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] }}\n\n"
    "{% elif message['role'] == 'user' %}Question: {{ message['content'] }}\n"
    "{% else %}Answer: {{ message['content'] }}\n\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}Answer:{% endif %}"
)
"""Plain text for models that were never taught a chat format: the system text as a paragraph, then Question / Answer."""

_MARKER = re.compile("\ue000(\\d+)\ue001")
_HALF_SIGN = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class ChatTokens:
    """Token ids of a chat and, per speaker, the half-open index ranges of the content tokens.

    Template tokens and thinking are in no span. A conversation of several turns has several ranges per name.
    """

    ids: tuple[int, ...]
    """All token ids, template included."""
    spans: Mapping[str, tuple[Span, ...]] = field(default_factory=dict)
    """"system", "user", "response" -> ranges of token indices."""

    def __len__(self) -> int:
        return len(self.ids)

    def positions(self, span: str) -> list[int]:
        """The token indices of a span, in order; [] when the chat has none."""
        return [index for start, end in self.spans.get(span, ()) for index in range(start, end)]


@dataclass(frozen=True)
class Content:
    """One piece of what somebody said: `lead` (thinking) stays in the template, `body` is what the span covers."""

    span: str
    lead: str
    body: str


def tokenize_chat(
    model: Model, messages: Sequence[Message], *, add_generation_prompt: bool = False
) -> ChatTokens:
    """Ids and spans of `messages` (role "system", "user" or "assistant") under the model's chat template.

    A template without a system role gets the system text in front of the first user message. Raises WorkbenchError
    for a tokenizer without template, an unknown role, or a template that changes what was said.
    """
    messages = whole_signs(messages)
    _check_messages(model, messages)
    layout, marked = _fitting_layout(model, messages, add_generation_prompt)
    text = _render(model, _plain(layout), add_generation_prompt)
    contents = [content for _, parts in layout for content in parts if isinstance(content, Content)]
    return tokenize_located(model, text, locate(model, text, marked, contents))


def messages_to_send(model: Model, messages: Sequence[Message]) -> list[dict[str, str]]:
    """`messages` as a server that applies this model's chat template takes them: a template without a system role gets
    the system text in front of the first user message, as in `tokenize_chat`."""
    messages = whole_signs(messages)
    _check_messages(model, messages)
    layout, _ = _fitting_layout(model, messages, True)
    return _plain(layout)


def with_response(
    prompt: ChatTokens, response_ids: Sequence[int], *, lead_ids: Sequence[int] = ()
) -> ChatTokens:
    """`prompt` (which ends with a generation prompt) followed by sampled ids, which become its last "response" range.

    `lead_ids` (thinking, the header of a channel) stand between the two and are in no span.
    """
    start = len(prompt.ids) + len(lead_ids)
    ids = tuple(prompt.ids) + tuple(int(token) for token in (*lead_ids, *response_ids))
    earlier = tuple(prompt.spans.get("response", ()))
    added = ((start, len(ids)),) if len(ids) > start else ()
    return ChatTokens(ids, {**prompt.spans, "response": earlier + added})


def chat_template_hash(model: Model) -> str:
    """SHA-256 of the chat template and of the options it is rendered with ("" as template when there is none)."""
    template = getattr(model.tokenizer, "chat_template", None) or ""
    return content_hash({"template": template, "kwargs": model.chat_template_kwargs})


def whole_signs(value: Any) -> Any:
    """Texts in lists and mappings with half signs (lone surrogates, of cut JSON or bytes that are no UTF-8) as U+FFFD: no
    tokenizer takes them."""
    if isinstance(value, str):
        return _HALF_SIGN.sub("\ufffd", value)
    if isinstance(value, Mapping):
        return {whole_signs(key): whole_signs(one) for key, one in value.items()}
    return [whole_signs(one) for one in value] if isinstance(value, (list, tuple)) else value


def _check_messages(model: Model, messages: Sequence[Message]) -> None:
    if not getattr(model.tokenizer, "chat_template", None):
        raise WorkbenchError(
            f"the tokenizer of {model.name} has no chat template",
            "a chat model",
            "choose an instruction-tuned model, or load it with prompt_format='plain' (Question / Answer)",
        )
    for message in messages:
        if message.get("role") not in SPAN_NAMES or not isinstance(message.get("content"), str):
            raise WorkbenchError(
                f"a message has role {message.get('role')!r} and content of type {type(message.get('content')).__name__}",
                "role system, user or assistant, and text as content",
                "correct the messages",
            )


def _fitting_layout(
    model: Model, messages: Sequence[Message], add_generation_prompt: bool
) -> tuple[list[tuple[str, list[Content | str]]], list[str]]:
    for folded in (False, True):
        layout = _layout(messages, folded=folded)
        if (marked := _render_marked(model, layout, add_generation_prompt)) is not None:
            return layout, marked
    raise _cannot_place(model)


def _layout(messages: Sequence[Message], *, folded: bool) -> list[tuple[str, list[Content | str]]]:
    """Each message as role and parts; `folded` puts the system text in front of the first user message."""
    layout: list[tuple[str, list[Content | str]]] = [
        (message["role"], [content_of(SPAN_NAMES[message["role"]], message["role"], message["content"])]) for message in messages
    ]
    return fold_system(layout) if folded else layout


def fold_system(layout: list[tuple[str, list[Content | str]]]) -> list[tuple[str, list[Content | str]]]:
    """The layout with the system text in front of the first user message, for templates without a system role."""
    if not layout or layout[0][0] != "system":
        return layout
    (_, system), *rest = [(role, list(parts)) for role, parts in layout]
    for role, parts in rest:
        if role == "user":
            parts[:0] = [*system, "\n\n"]
            return rest
    return [("user", system), *rest]


def content_of(span: str, role: str, text: str) -> Content:
    """What somebody said under the name of its span; an assistant's thinking is no part of it."""
    start = answer_start(text) if role == "assistant" else 0
    return Content(span, text[:start], text[start:])


def _fill(layout: list[tuple[str, list[Content | str]]], text_of: Any) -> list[dict[str, str]]:
    """Messages whose contents are joined from the parts; `text_of(k, content)` gives the k-th content's text."""
    messages, k = [], 0
    for role, parts in layout:
        texts = []
        for part in parts:
            texts.append(part if isinstance(part, str) else text_of(k, part))
            k += not isinstance(part, str)
        messages.append({"role": role, "content": "".join(texts)})
    return messages


def _plain(layout: list[tuple[str, list[Content | str]]]) -> list[dict[str, str]]:
    return _fill(layout, lambda _, content: content.lead + content.body)


def render_layout(model: Model, layout: list[tuple[str, list[Content | str]]]) -> tuple[str, list[str]] | None:
    """(text of the template, the same cut at the contents); None when a content does not come through."""
    marked = _render_marked(model, layout, False)
    return None if marked is None else (_render(model, _plain(layout), False), marked)


def _render(model: Model, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
    return model.tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=add_generation_prompt, **model.chat_template_kwargs
    )


def _render_marked(
    model: Model, layout: list[tuple[str, list[Content | str]]], add_generation_prompt: bool
) -> list[str] | None:
    """The template's text cut at the markers: [piece, number, piece, ...]; None when a content did not come through."""
    import jinja2

    marked = _fill(layout, lambda k, content: f"{content.lead}\ue000{k}\ue001")
    try:
        cut = _MARKER.split(_render(model, marked, add_generation_prompt))
    except (jinja2.TemplateError, TypeError, ValueError):  # "System role not supported"
        return None
    n_contents = sum(isinstance(part, Content) for _, parts in layout for part in parts)
    return cut if sorted(cut[1::2]) == sorted(str(k) for k in range(n_contents)) else None


def locate(model: Model, text: str, cut: list[str], contents: list[Content]) -> list[tuple[str, int, int]]:
    """(span, start, end) in characters of `text`: the contents, as the template printed them, between its own pieces."""
    found, cursor = [], len(cut[0])
    if not text.startswith(cut[0]):
        raise _cannot_place(model)
    for number, piece in zip(cut[1::2], cut[2::2], strict=True):
        content = contents[int(number)]
        # Some templates trim what they print.
        forms = (content.body, content.body.strip(), content.body.rstrip(), content.body.lstrip())
        body = next((form for form in forms if text.startswith(form + piece, cursor)), None)
        if body is None:
            raise _cannot_place(model)
        found.append((content.span, cursor, cursor + len(body)))
        cursor += len(body) + len(piece)
    return found


def tokenize_located(model: Model, text: str, located: list[tuple[str, int, int]]) -> ChatTokens:
    """The tokens of a rendered chat, with the spans of `located` (name, start, end in characters)."""
    encoded = model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    anchors = [_anchor(text, start, end) for start, end in encoded["offset_mapping"]]
    spans: dict[str, list[Span]] = {}
    for name, start, end in located:
        inside = [index for index, anchor in enumerate(anchors) if start <= anchor < end]
        if inside:
            spans.setdefault(name, []).append((inside[0], inside[-1] + 1))
    return ChatTokens(tuple(encoded["input_ids"]), {name: tuple(ranges) for name, ranges in spans.items()})


def _anchor(text: str, start: int, end: int) -> int:
    """Where a token counts as lying: at its first visible character (-1 for a token of no characters).

    A tokenizer may join a content's first word with the template's space before it; the word is content.
    """
    if end <= start:
        return -1
    visible = len(text[start:end]) - len(text[start:end].lstrip())
    return start + (visible if visible < end - start else 0)


def _cannot_place(model: Model) -> WorkbenchError:
    return WorkbenchError(
        f"the chat template of {model.name} does not print the messages as they are",
        "a template whose output contains each message's text",
        "check the order of roles (user and assistant take turns), or set another model.tokenizer.chat_template",
    )
