"""Conversations as values, and as token ids in which every reply keeps the tokens that were sampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.models.prompts import ChatTokens, Message, tokenize_chat

if TYPE_CHECKING:
    from workbench.models.model import Model

MAX_CONTEXT = 2048
_STAND_IN = "the"
"""What stands in a chat where the ids of a reply are put: a word of one token, with and without a space before it, that no
tokenizer joins with the template around it."""


@dataclass(frozen=True)
class Turn:
    """One exchange: what the user says, and the reply as text and as token ids (without the end token). `first` is the oldest
    turn (from 0) in the reply's context; what came before was cut off."""

    user: str
    reply: str
    ids: tuple[int, ...]
    first: int = 0
    finished: bool = True


@dataclass(frozen=True, repr=False)
class Conversation(Shown):
    """A conversation of a model: `turns` in order, behind the `system` prompt ("": none).

    `script` names what the user's side follows (conversations of one script are comparable), `domain` what it is about, `persona`
    the system prompt ("" for none), `split` whether it serves for calibration or for evaluation.
    """

    id: str
    domain: str
    turns: tuple[Turn, ...] = ()
    system: str = ""
    script: str = ""
    topic: str = ""
    persona: str = ""
    split: str = "evaluation"

    def messages(self) -> list[dict[str, str]]:
        """What was said, as chat messages."""
        said = [{"role": "system", "content": self.system}] if self.system else []
        for turn in self.turns:
            said += [{"role": "user", "content": turn.user}, {"role": "assistant", "content": turn.reply}]
        return said

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON types; `conversation_from` reads it back."""
        names = ("id", "domain", "system", "script", "topic", "persona", "split")
        turns = [{**vars(turn), "ids": list(turn.ids)} for turn in self.turns]
        return {**{name: getattr(self, name) for name in names}, "turns": turns}


def conversation_from(stored: dict[str, Any]) -> Conversation:
    """A conversation from its JSON."""
    turns = tuple(Turn(**{**turn, "ids": tuple(turn["ids"])}) for turn in stored["turns"])
    return Conversation(**{**stored, "turns": turns})


def opening(model: Model, system: str, before: Sequence[Turn], user: str) -> ChatTokens:
    """The prompt to which the model replies: the system prompt, the turns `before` with their sampled tokens, the user's message
    and the opening of the answer. Its span "response" holds the earlier replies."""
    messages = [*_messages(system, before), {"role": "user", "content": user}]
    return _with_ids(tokenize_chat(model, messages, add_generation_prompt=True), before)


def told(model: Model, system: str, turns: Sequence[Turn]) -> ChatTokens:
    """Finished turns with their sampled tokens, up to the last token of the last reply; span "response" has one range per turn
    (an empty one for a reply without tokens). Thinking is left out, as templates leave it out of what was said before."""
    chat = _with_ids(tokenize_chat(model, _messages(system, turns)), turns)
    return ChatTokens(chat.ids[: chat.spans["response"][-1][1]], chat.spans)


def _messages(system: str, turns: Sequence[Turn]) -> list[Message]:
    said: list[Message] = [{"role": "system", "content": system}] if system else []
    for turn in turns:
        said += [{"role": "user", "content": turn.user}, {"role": "assistant", "content": _STAND_IN}]
    return said


def _with_ids(chat: ChatTokens, turns: Sequence[Turn]) -> ChatTokens:
    """The chat with the turns' own ids in the place of the words that stand in for them."""
    ids: list[int] = []
    spans, at = [], 0
    for (start, end), turn in zip(chat.spans.get("response", ()), turns, strict=True):
        ids += [*chat.ids[at:start], *turn.ids]
        spans.append((len(ids) - len(turn.ids), len(ids)))
        at = end
    return ChatTokens((*ids, *chat.ids[at:]), {"response": tuple(spans)})


def first_in_context(model: Model, system: str, before: Sequence[Turn], user: str, n_tokens: int) -> int:
    """The oldest of the turns `before` with which prompt and history take at most `n_tokens` tokens: the oldest go first, and
    what was cut off at the last of them stays cut off.

    Raises WorkbenchError when the message alone is longer.
    """
    for first in range(before[-1].first if before else 0, len(before) + 1):
        length = len(opening(model, system, before[first:], user).ids)
        if length <= n_tokens:
            return first
    raise WorkbenchError(f"a message of {length} tokens with its system prompt", f"at most {n_tokens} tokens",
                         "raise the context, or shorten the message")  # fmt: skip


def from_messages(
    model: Model, messages: Sequence[Message], *, name: str, domain: str = "", max_context: int = MAX_CONTEXT, **facts: str
) -> Conversation:
    """A conversation that somebody had already (role system, user or assistant, turn by turn), with the replies as this model
    tokenises them.

    Messages of one speaker in a row are joined by a blank line; a last message without a reply is left out. Raises WorkbenchError
    for another role, for an assistant that speaks first, and for a conversation without a reply.
    """
    system, said = _exchanges(messages, name)
    ids = _ids_of(model, system, said)
    turns: list[Turn] = []
    for (user, reply), own in zip(said, ids, strict=True):
        if len(own) >= max_context:
            raise WorkbenchError(f"{name} has a reply of {len(own)} tokens", f"less than {max_context}", "raise the context")
        first = first_in_context(model, system, turns, user, max_context - len(own))
        turns.append(Turn(user, reply, own, first))
    return Conversation(name, domain, tuple(turns), system, **{"script": name, **facts})


def _exchanges(messages: Sequence[Message], name: str) -> tuple[str, list[tuple[str, str]]]:
    """(system prompt, [(user, reply)])."""
    joined: list[list[str]] = []
    for message in messages:
        role, text = message.get("role"), message.get("content")
        if role not in ("system", "user", "assistant") or not isinstance(text, str):
            raise WorkbenchError(f"{name} has a message of role {role!r} and content of type {type(text).__name__}",
                                 "role system, user or assistant, and text", "correct the transcript")  # fmt: skip
        if joined and joined[-1][0] == role:
            joined[-1][1] += f"\n\n{text}"
        else:
            joined.append([role, text])
    system = joined.pop(0)[1] if joined and joined[0][0] == "system" else ""
    roles = [role for role, _ in joined]
    if roles[: len(roles) // 2 * 2] != ["user", "assistant"] * (len(roles) // 2) or roles[-1:] == ["system"] or len(roles) < 2:
        raise WorkbenchError(f"{name} goes {', '.join(roles[:6]) or 'without a message'}", "user and assistant in turn, the user "
                             "first, at least one reply", "correct the transcript")  # fmt: skip
    return system, [(joined[i][1], joined[i + 1][1]) for i in range(0, len(joined) - 1, 2)]


def _ids_of(model: Model, system: str, said: Sequence[tuple[str, str]]) -> list[tuple[int, ...]]:
    """The ids of every reply as they stand in the whole chat; () for a blank one."""
    turns = [Turn(user, reply, ()) for user, reply in said]
    messages = Conversation("", "", tuple(turns), system).messages()
    chat = tokenize_chat(model, messages)
    spans = iter(chat.spans.get("response", ()))
    return [chat.ids[slice(*next(spans))] if reply.strip() else () for _, reply in said]


def without_replies(conversation: Conversation) -> Conversation:
    """The same beginning, nothing said yet."""
    return replace(conversation, turns=())
