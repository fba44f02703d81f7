"""What the evidence is read from: documents as token ids, and the half of the data that each of them belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from workbench.base.display import Shown

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.models.hookpoints import HookPoint
    from workbench.models.model import Model
    from workbench.personas.vectors import PersonaVector

MAX_DOCUMENT_TOKENS = 128
MAX_CHAT_TOKENS = 512

KINDS = ("corpus", "chat", "rollouts")
"""Kinds of source: text that somebody wrote, chats with their spans, responses that a persona vector was made from."""
ROLES = ("plain", "template", "system", "user", "assistant")
"""Who says a token: nobody (plain text), the chat template, or a speaker; documents hold indices into this."""
_SPANS = {"system": "system", "user": "user", "response": "assistant"}


class TextDocument(Protocol):
    """A text with an id and the name of its source, such as `workbench.saes.corpus.Document`."""

    @property
    def id(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def source(self) -> str: ...


@dataclass(frozen=True, eq=False, repr=False)
class TokenDocument(Shown):
    """A document as token ids, with the activations [n_tokens, d_model] if they are known already.

    `group` is what must not stand on both sides of the split between explaining and scoring: the document itself, or the
    question of a rollout. `roles` are indices into ROLES, one per token; None is plain text.
    """

    ids: tuple[int, ...]
    source: str
    id: str
    group: str
    activations: Tensor | None = None
    roles: tuple[int, ...] | None = None

    @property
    def kind(self) -> str:
        """One of KINDS, by the name of the source."""
        return kind_of(self.source)


def kind_of(source: str) -> str:
    """The kind of a source: "rollouts:..." and "given:..." are rollouts, "chats..." is chat, all others are corpus."""
    if source.split(":", 1)[0] in ("rollouts", "given"):
        return "rollouts"
    return "chat" if source.startswith("chats") else "corpus"


def is_scoring(group: str) -> bool:
    """Whether documents of this group are kept for scoring; the other half is what labels are explained from.

    A function of the name alone, so that a label written today is never scored on what it was written from.
    """
    return hashlib.sha256(f"label split/{group}".encode()).digest()[0] % 2 == 1


def text_stream(
    model: Model, documents: Iterable[TextDocument | str], *, max_tokens: int = MAX_DOCUMENT_TOKENS
) -> Iterator[TokenDocument]:
    """The beginning of each text as token ids; a bare string counts as a document of the source "texts"."""
    for document in documents:
        text = document if isinstance(document, str) else document.text
        ids = tuple(
            model.tokenizer(text[: 12 * max_tokens], add_special_tokens=False)["input_ids"][:max_tokens]
        )
        if len(ids) < 2:
            continue
        if isinstance(document, str):
            name, source = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:24], "texts"
        else:
            name, source = document.id, document.source
        yield TokenDocument(ids, source, name, name)


def chat_stream(
    model: Model,
    dialogues: Iterable[tuple[str, str, str]],
    *,
    source: str = "chats",
    max_tokens: int = MAX_CHAT_TOKENS,
) -> Iterator[TokenDocument]:
    """Chats (system, user, assistant) in the model's chat format, cut to `max_tokens`, with the role of every token.

    An empty system prompt is left out. The group is the user's message, so that two answers to one never stand on both sides.
    """
    from workbench.models.prompts import tokenize_chat

    for system, user, assistant in dialogues:
        head = [{"role": "system", "content": system}] if system else []
        chat = tokenize_chat(
            model, [*head, {"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
        )
        roles = [ROLES.index("template")] * len(chat.ids)
        for span, ranges in chat.spans.items():
            for start, end in ranges:
                roles[start:end] = [ROLES.index(_SPANS[span])] * (end - start)
        name = hashlib.sha256(repr((system, user, assistant)).encode("utf-8", "replace")).hexdigest()[:24]
        group = hashlib.sha256(user.encode("utf-8", "replace")).hexdigest()[:24]
        yield TokenDocument(chat.ids[:max_tokens], source, name, group, roles=tuple(roles[:max_tokens]))


def rollout_stream(
    vector: PersonaVector, hook: HookPoint, *, split: str = "extraction"
) -> Iterator[TokenDocument]:
    """The responses a vector was made from, with the activations that were captured while they were generated.

    Only rows of one split, so that sealed questions stay sealed. Rows without stored activations, or whose activations no longer
    line up with their tokens because a sink was left out, come without them: they are then read through the model as plain text,
    outside their prompt. The source is "rollouts:TRAIT:ARM", or "given:TRAIT:ARM" for a user's own responses, whose text is never
    passed on.
    """
    rows = {row["id"]: row for row in vector.rows.to_dict("records") if row["split"] == split}
    source = "given" if _is_given(vector) else "rollouts"
    for row_id, activations in _stored(vector, hook):
        row = rows.get(row_id)
        if row is not None and len(_listed(row["response_ids"])) == len(activations) > 0:
            yield _rollout(rows.pop(row_id), source, vector.trait, activations)
    yield from (
        _rollout(row, source, vector.trait, None)
        for row in rows.values()
        if len(_listed(row["response_ids"])) > 1
    )


def has_rollouts(vector: PersonaVector | None) -> bool:
    """Whether the vector knows the responses it was made from."""
    return vector is not None and len(vector.rows) > 0 and "response_ids" in vector.rows


def _stored(vector: PersonaVector, hook: HookPoint) -> Iterable[tuple[str, Tensor]]:
    return vector.tokens.rows(hook) if vector.tokens is not None and hook in vector.tokens.hooks else ()


def _is_given(vector: PersonaVector) -> bool:
    config = vector.provenance.get("config") or {}
    return "design" in config and config["design"] is None


def _rollout(row: dict[str, Any], source: str, trait: str, activations: Tensor | None) -> TokenDocument:
    ids = tuple(int(token) for token in _listed(row["response_ids"]))
    roles = None if activations is None else (ROLES.index("assistant"),) * len(ids)
    return TokenDocument(
        ids, f"{source}:{trait}:{row['arm']}", str(row["id"]), str(row["question_id"]), activations, roles
    )


def _listed(value: Any) -> list[Any]:
    return [] if value is None or isinstance(value, float) else list(value)
