"""What has to go through the model so that every reply is read in every context: as few passes as possible, each content once.

Contexts of reply k: "history" (all that came before), "alone" (the system prompt and the user's message k), "shuffled" (the same
exchanges in another order) and "swapped" (exchanges of a conversation about something else, of about as many tokens). The reply
and the user's message k are the same, token by token, in all four.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, groupby
from typing import TYPE_CHECKING

from workbench.axis.drift.conversation import Conversation, Turn, told
from workbench.base.errors import unknown_name
from workbench.base.randomness import derive_seed

if TYPE_CHECKING:
    from workbench.models.model import Model

CONTEXTS = ("history", "alone", "shuffled", "swapped")


@dataclass(frozen=True)
class Place:
    """Reply `turn` (from 0) of conversation `row`, in a context."""

    row: int
    turn: int
    context: str


@dataclass(frozen=True)
class Pass:
    """Token ids, and which of them are which reply: {place: (start, end)}."""

    ids: tuple[int, ...]
    replies: dict[Place, tuple[int, int]]


def passes_of(
    model: Model, conversations: Sequence[Conversation], contexts: Sequence[str] = CONTEXTS, *, seed: int = 0
) -> Iterator[Pass]:
    """The passes for every reply in these contexts. A context that a reply does not have is left out: no two earlier turns to
    shuffle, no conversation about something else, and after the first turn no history that was not cut off (such a reply is alone
    already, and its drift of exactly 0 would pass for standing still)."""
    if unknown := [context for context in contexts if context not in CONTEXTS]:
        raise unknown_name("context", unknown[0], CONTEXTS)
    lengths = [[len(turn.ids) + len(turn.user) // 4 for turn in one.turns] for one in conversations]
    for row, one in enumerate(conversations):
        if "history" in contexts:
            yield from _with_history(model, one, row)
        for k, turn in enumerate(one.turns):
            before = one.turns[turn.first : k]
            if "alone" in contexts and (before or k == 0):
                yield _single(model, one.system, (), turn, Place(row, k, "alone"))
            if "shuffled" in contexts and (order := _shuffled(before, f"{one.id}/{k}/{seed}")):
                yield _single(model, one.system, order, turn, Place(row, k, "shuffled"))
            if "swapped" in contexts and before:
                other = _partner(conversations, lengths, row, k)
                if other:
                    yield _single(model, one.system, other, turn, Place(row, k, "swapped"))


def _with_history(model: Model, one: Conversation, row: int) -> Iterator[Pass]:
    """One pass for all turns whose context begins at the same turn, where the template prints a chat as the beginning of every
    longer one (checked); else one per turn."""
    for first, group in groupby(enumerate(one.turns), key=lambda item: item[1].first):
        numbers = [k for k, _ in group]
        chats = [told(model, one.system, one.turns[first : k + 1]) for k in numbers]
        whole = chats[-1]
        if all(whole.ids[: len(chat.ids)] == chat.ids for chat in chats):
            places = {Place(row, k, "history"): whole.spans["response"][k - first] for k in numbers}
            yield Pass(whole.ids, places)
        else:
            yield from (Pass(chat.ids, {Place(row, k, "history"): chat.spans["response"][-1]})
                        for k, chat in zip(numbers, chats, strict=True))  # fmt: skip


def _single(model: Model, system: str, before: Sequence[Turn], turn: Turn, place: Place) -> Pass:
    chat = told(model, system, [*before, turn])
    return Pass(chat.ids, {place: chat.spans["response"][-1]})


def _shuffled(before: Sequence[Turn], key: str) -> list[Turn] | None:
    """The turns in an order that is not theirs, the same whenever it is asked for; None for fewer than two different ones."""
    if len(set(before)) < 2:
        return None
    for attempt in count():
        order = sorted(range(len(before)), key=lambda i: derive_seed("shuffled", key, attempt, i))
        if [before[i] for i in order] != list(before):
            return [before[i] for i in order]
    raise AssertionError  # two different turns have another order


def _partner(
    conversations: Sequence[Conversation], lengths: Sequence[Sequence[int]], row: int, k: int
) -> tuple[Turn, ...] | None:
    """As many turns, from the conversation of another domain whose length up to there is nearest; ties by its id. Conversations
    of the same persona first."""
    one = conversations[row]
    wanted = sum(lengths[row][one.turns[k].first : k])
    n = k - one.turns[k].first

    def distance(other: int) -> tuple[bool, int, str]:
        return (conversations[other].persona != one.persona, abs(sum(lengths[other][:n]) - wanted), conversations[other].id)

    others = [i for i, other in enumerate(conversations) if other.domain != one.domain and len(other.turns) >= n]
    return conversations[min(others, key=distance)].turns[:n] if others else None
