"""Playing conversations: a local model answers, turn by turn, what a script or another model says to it.

The conversations of one turn number are sampled together. Every reply is kept under the content hash of all that it depends on,
so that a run that was interrupted goes on where it stopped, and a longer run takes up a shorter one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from workbench.axis.drift.conversation import MAX_CONTEXT, Conversation, Turn, first_in_context, opening
from workbench.base.errors import WorkbenchError
from workbench.base.randomness import derive_seed
from workbench.base.store import content_hash
from workbench.models.generation import generate
from workbench.models.prompts import ChatTokens, chat_template_hash
from workbench.models.sampling import Sampling
from workbench.models.thinking import ANSWER_RULE, may_think
from workbench.personas.parts import PartStore, Produced, complete_parts

if TYPE_CHECKING:
    from workbench.axis.scripts import Script
    from workbench.models.model import Model

N_TURNS = 6
SAMPLING = Sampling(max_new_tokens=64, temperature=0.7, top_p=0.9)
"""The sampling of the assistant axis paper, with shorter answers."""


class UserSide(Protocol):
    """Who speaks to the model."""

    def say(self, conversations: Sequence[Conversation]) -> list[str | None]:
        """The next message of the user in each conversation; None where the user has nothing more to say."""
        ...


@dataclass(frozen=True)
class Scripted:
    """A user who says what stands in the scripts, whatever the model answers: {script id: messages}."""

    messages: dict[str, tuple[str, ...]]

    def say(self, conversations: Sequence[Conversation]) -> list[str | None]:
        """The message of that number; None behind the last."""
        said = [(self.messages[one.script], len(one.turns)) for one in conversations]
        return [messages[k] if k < len(messages) else None for messages, k in said]


def scenes(scripts: Sequence[Script], *, system: str = "", persona: str = "") -> list[Conversation]:
    """A conversation for every script, with nothing said yet, behind one system prompt that is called `persona`."""
    prefix = f"{persona}/" if persona else ""
    return [Conversation(f"{prefix}{one.id}", one.domain, (), system, one.id, one.topic, persona, one.split) for one in scripts]


def scripted(scripts: Sequence[Script]) -> Scripted:
    """The user's side of these scripts."""
    return Scripted({one.id: tuple(one.turns) for one in scripts})


def play_scripts(
    model: Model, scripts: Sequence[Script], folder: str | Path, *, personas: Sequence[tuple[str, str]] = (("", ""),),
    user: UserSide | None = None, **options: Any,
) -> tuple[Conversation, ...]:  # fmt: skip
    """Every script behind every persona (name, system prompt; by default once, without any), played by `play` with its options.

        talks = play_scripts(model, load_scripts("therapy", split="evaluation"), "replies", personas=[("gardener", prompt)])
        drift_study(model, axis, talks, "readings").speeds()
    """
    beginnings = [one for name, system in personas for one in scenes(scripts, system=system, persona=name)]
    return play(model, beginnings, user or scripted(scripts), folder, **options)


@dataclass(frozen=True)
class _Row:
    """A reply to come: its place among the conversations, the prompt, and the turn without it."""

    id: str
    place: int
    prompt: ChatTokens
    turn: Turn


def play(
    model: Model, conversations: Sequence[Conversation], user: UserSide, folder: str | Path, *, n_turns: int = N_TURNS,
    sampling: Sampling = SAMPLING, max_context: int = MAX_CONTEXT, batch_size: int = 32, seed: int = 0,
) -> tuple[Conversation, ...]:  # fmt: skip
    """The conversations, carried on until each has `n_turns` turns or its user stops; replies are kept in `folder`.

    max_context: tokens of prompt, history and reply together; where they do not fit, the oldest turns are cut off (`Turn.first`
    says up to where). Edits in force act on the replies (give each its own folder: they are no part of a reply's identity).
    Raises WorkbenchError for two conversations of one id and for a message that does not fit alone.
    """
    if len({one.id for one in conversations}) < len(conversations):
        raise WorkbenchError("two conversations of one name", "a name of its own for each", "name them apart")
    played, room = list(conversations), max_context - sampling.max_new_tokens
    fixed = [model.weights_hash, chat_template_hash(model), asdict(sampling), seed, str(model.dtype)]
    fixed += [ANSWER_RULE] if may_think(model) else []
    for number in range(n_turns):
        going = [place for place, one in enumerate(played) if len(one.turns) == number]
        messages = user.say([played[place] for place in going])
        rows = [
            _row(model, played[place], place, message, room, fixed)
            for place, message in zip(going, messages, strict=True) if message is not None
        ]  # fmt: skip
        if not rows:
            break
        found = _replies(model, rows, Path(folder), sampling, batch_size, f"turn {number + 1} of {n_turns}")
        for row in rows:
            one, reply = played[row.place], found[row.id]
            turn = replace(row.turn, reply=reply["reply"], ids=tuple(reply["ids"]), finished=reply["finished"])
            played[row.place] = replace(one, turns=(*one.turns, turn))
    return tuple(played)


def _row(model: Model, one: Conversation, place: int, message: str, room: int, fixed: list[Any]) -> _Row:
    first = first_in_context(model, one.system, one.turns, message, room)
    prompt = opening(model, one.system, one.turns[first:], message)
    name = content_hash([*fixed, one.id, list(prompt.ids)])[:24]
    return _Row(name, place, prompt, Turn(message, "", (), first))


def _replies(
    model: Model, rows: Sequence[_Row], folder: Path, sampling: Sampling, batch_size: int, label: str
) -> dict[str, dict[str, Any]]:
    """{row id: {reply, ids, finished}} of all rows; those that `folder` does not hold are sampled."""
    import pyarrow as pa
    import torch

    planned = {row.id: row for row in rows}

    def produce(ids: list[str]) -> Produced:
        prompts, seeds = [planned[name].prompt for name in ids], [derive_seed("drift", name) for name in ids]
        made = {place: reply for places, replies in generate(model, prompts, sampling, row_seeds=seeds, batch_size=len(ids))
                for place, reply in zip(places, replies, strict=True)}  # fmt: skip
        replies = [made[place] for place in range(len(ids))]
        columns = {"id": ids, "reply": [one.text for one in replies], "finished": [one.finished for one in replies]}
        tokens = pa.array([list(one.response_ids) for one in replies], pa.list_(pa.int32()))
        return pa.table({**columns, "ids": tokens}), torch.zeros(len(ids), 0, model.d_model), {}

    store = PartStore(folder)
    ordered = sorted(planned, key=lambda name: (len(planned[name].prompt.ids), name))
    batches = [ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size)]
    complete_parts(store, batches, produce, hooks=(), label=label, unit="replies")
    held = (store.table(one.number) for one in store.headers() if not planned.keys().isdisjoint(one.ids))
    return {row["id"]: row for table in held for row in table.to_pylist() if row["id"] in planned}
