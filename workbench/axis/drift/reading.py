"""Reading replies in their contexts: means at one hook point, and the projection of every token, kept on disk by content.

Means are all that is needed for any number of directions: a projection is linear, so placebos and random directions are one
matrix product later. A reply that has the same context twice (the first reply, with and without history) is read once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.axis.drift.conversation import Conversation
from workbench.axis.drift.passes import CONTEXTS, Pass, Place, passes_of
from workbench.base.display import Shown
from workbench.base.store import content_hash
from workbench.base.tensors import tensor_hash
from workbench.models.capture import padded, plan_batches, sink_limits
from workbench.models.memory import fitting_tokens
from workbench.personas.parts import PartStore, Produced, complete_parts
from workbench.saes.token_rows import activations_at_hooks

if TYPE_CHECKING:
    from workbench.models.hookpoints import HookPoint
    from workbench.models.model import Model

BATCH_TOKENS = 2048
_PART = 32  # passes


@dataclass(frozen=True, eq=False, repr=False)
class Readings(Shown):
    """What was read of n replies, in the order of conversations and turns.

    `row`, `turn` [n]: which conversation and turn (from 0). `means` {context: [n, d_model]} (float32): the mean over the reply's
    tokens without sinks, NaN where the reply has no such context or no token. `values`: per reply the projection of each of its
    tokens in the "history" context [n_tokens] (raw, NaN on sinks), `alone` the same without history; both along a unit direction.
    `n_before` [n]: tokens in front of the reply in the "history" context.
    """

    row: Tensor
    turn: Tensor
    means: Mapping[str, Tensor]
    values: tuple[Tensor, ...]
    alone: tuple[Tensor, ...]
    n_before: Tensor


@torch.no_grad()
def activations_of(model: Model, passes: Sequence[Pass], hook: HookPoint, batch_tokens: int = BATCH_TOKENS
                   ) -> Iterator[tuple[Place, int, Tensor]]:  # fmt: skip
    """(place, tokens in front, activations [n_tokens, d_model] float32 on the CPU) of every reply in `passes`, sinks included.

    Passes of similar length go together, longest first, at most `batch_tokens` tokens (fewer with a memory budget) at a time.
    """
    lengths = [len(one.ids) for one in passes]
    together = fitting_tokens(model, max(lengths, default=1), batch_tokens, 1)
    for batch in plan_batches(lengths, together):
        ids, _ = padded([passes[index].ids for index in batch], pad=0)
        found = activations_at_hooks(model, [hook], ids)[hook]
        for line, index in zip(found, batch, strict=True):
            for place, (start, end) in passes[index].replies.items():
                yield place, start, line[start:end].float().cpu()


def read_replies(
    model: Model, conversations: Sequence[Conversation], hook: HookPoint, direction: Tensor, folder: str | Path, *,
    contexts: Sequence[str] = CONTEXTS, seed: int = 0, batch_tokens: int = BATCH_TOKENS,
) -> Readings:  # fmt: skip
    """Every reply of `conversations` read at `hook` in `contexts`, projected on `direction` [d_model] (normalised here).

    Finished passes lie in `folder`, by the hash of weights, hook, direction and tokens; a second call reads them.
    """
    unit = direction.float() / direction.float().norm()
    fixed = content_hash([model.weights_hash, str(model.dtype), str(hook), tensor_hash(unit)])
    named: dict[Place, str] = {}
    wanted: dict[str, tuple[Pass, Place]] = {}
    for one in passes_of(model, conversations, contexts, seed=seed):
        for place, (start, end) in one.replies.items():
            named[place] = content_hash([fixed, start, list(one.ids[:end])])[:24]
            wanted.setdefault(named[place], (one, place))
    kept = _read(model, wanted, hook, unit, Path(folder), batch_tokens)
    return _gathered(conversations, named, kept, contexts, model.d_model)


def _read(
    model: Model, wanted: Mapping[str, tuple[Pass, Place]], hook: HookPoint, unit: Tensor, folder: Path, batch_tokens: int
) -> dict[str, tuple[Tensor, Tensor, int]]:
    """{name: (mean [d_model], values [n_tokens], tokens in front)} of every wanted reply, completed in `folder`."""
    import pyarrow as pa

    limit = float(sink_limits(model, [hook])[0])

    def produce(names: list[str]) -> Produced:
        place_of = {wanted[name][1]: name for name in names}
        passes = {id(wanted[name][0]): wanted[name][0] for name in names}
        chosen = [Pass(one.ids, {p: ends for p, ends in one.replies.items() if p in place_of}) for one in passes.values()]
        means, values, before = {}, {}, {}
        for place, start, tokens in activations_of(model, chosen, hook, batch_tokens):
            name, keep = place_of[place], tokens.norm(dim=-1) <= limit
            means[name] = tokens[keep].mean(dim=0)
            values[name] = (tokens @ unit).masked_fill(~keep, torch.nan)
            before[name] = start
        table = pa.table({
            "id": names, "n_before": [before[name] for name in names],
            "values": pa.array([values[name].numpy() for name in names], pa.list_(pa.float32())),
        })  # fmt: skip
        return table, torch.stack([means[name] for name in names])[:, None], {}

    store = PartStore(folder)
    batches = _batches(wanted)
    complete_parts(store, batches, produce, hooks=(hook,), label="replies in their contexts", unit="replies")
    found = {}
    for header in store.headers():
        if not wanted.keys().isdisjoint(header.ids):
            lines = store.table(header.number).to_pylist()
            for line, mean in zip(lines, store.means(header, (hook,)), strict=True):
                if line["id"] in wanted:
                    found[line["id"]] = (mean[0], torch.tensor(line["values"], dtype=torch.float32), line["n_before"])
    return found


def _batches(wanted: Mapping[str, tuple[Pass, Place]]) -> list[list[str]]:
    """Names part by part: the replies of some passes of similar length, a function of the design alone."""
    members: dict[int, list[str]] = {}
    for name, (one, _) in wanted.items():
        members.setdefault(id(one), []).append(name)
    length = {id(one): (-len(one.ids), one.ids) for one, _ in wanted.values()}
    ordered = sorted(members, key=lambda key: length[key])
    return [[name for key in ordered[i : i + _PART] for name in members[key]] for i in range(0, len(ordered), _PART)]


def _gathered(
    conversations: Sequence[Conversation], named: Mapping[Place, str], kept: Mapping[str, tuple[Tensor, Tensor, int]],
    contexts: Sequence[str], d_model: int,
) -> Readings:  # fmt: skip
    spots = [(row, turn) for row, one in enumerate(conversations) for turn in range(len(one.turns))]
    nothing = (torch.full((d_model,), torch.nan), torch.zeros(0), 0)

    def of(spot: tuple[int, int], context: str) -> tuple[Tensor, Tensor, int]:
        name = named.get(Place(*spot, context))
        return nothing if name is None else kept[name]

    means = {c: torch.stack([of(spot, c)[0] for spot in spots]) if spots else torch.zeros(0, d_model) for c in contexts}
    values, alone = (tuple(of(spot, c)[1] for spot in spots) for c in ("history", "alone"))
    rows, turns = (torch.tensor([spot[i] for spot in spots], dtype=torch.long) for i in (0, 1))
    return Readings(rows, turns, means, values, alone, torch.tensor([of(spot, "history")[2] for spot in spots]))
