"""Replies that come with what the monitor sees: token by token, as an iterator or an asynchronous one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.base.display import Shown
from workbench.models.generation import Generated, stream
from workbench.steering.apply import steered
from workbench.steering.edits import Edit
from workbench.steering.monitor.monitor import Monitor
from workbench.steering.monitor.watching import AlarmRaised, TokenSeen, WatchedReply, watching

if TYPE_CHECKING:
    from workbench.models.model import Model
    from workbench.models.prompts import ChatTokens
    from workbench.models.sampling import Sampling


@dataclass(frozen=True, eq=False, repr=False)
class Step(Shown):
    """One step of a batch: what every row has said so far, and the tokens read and alarms raised since the last step.

    A token is read when the next one is computed: what was read lags one token behind what was said.
    """

    replies: list[Generated]
    seen: list[TokenSeen]
    alarms: list[AlarmRaised]


def watched_stream(
    model: Model, monitor: Monitor, prompts: Sequence[ChatTokens], sampling: Sampling | None = None, *, row_seeds: Sequence[int],
    edits: Edit | Iterable[Edit] = (), on_reply: Callable[[WatchedReply], None] | None = None,
) -> Generator[Step, None, None]:  # fmt: skip
    """`models.generation.stream` under the monitor; the tokens are those that it would give alone.

    `edits` (`steering.edits`) act behind the monitor: at their own hook point it sees the activations before they are changed.

    The last step has the alarms that only the end of a reply decides. The hooks are in force until the iterator ends or is
    closed; closed early, it still tells `on_reply` what was seen until then.
    """
    seen: deque[TokenSeen] = deque()
    alarms: deque[AlarmRaised] = deque()
    replies: list[Generated] = []
    with watching(monitor, model, on_token=seen.append, on_alarm=alarms.append, on_reply=on_reply) as watch:
        try:
            with steered(model, edits):
                for replies in stream(model, prompts, sampling, row_seeds=row_seeds):
                    yield Step(replies, _taken(seen), _taken(alarms))
        except GeneratorExit:
            watch.end_turn()
            raise
        watch.end_turn()
    yield Step(replies, _taken(seen), _taken(alarms))


async def watched_stream_async(make: Callable[[], Iterator[Step]]) -> AsyncIterator[Step]:
    """The steps of an iterator that `make` gives (such as `watched_stream`), computed in a worker thread: the event loop stays
    free.

    Closing the asynchronous iterator, or cancelling the task that reads it, ends the generation and removes its hooks.
    """
    steps, end = make(), object()
    pending: asyncio.Future | None = None
    try:
        while True:
            pending = asyncio.ensure_future(asyncio.to_thread(next, steps, end))
            step = await asyncio.shield(pending)  # a step that runs cannot be broken off, only awaited
            if step is end:
                return
            yield step  # type: ignore[misc]
    finally:
        if pending is not None and not pending.done():
            await asyncio.wait([pending])
        steps.close()  # type: ignore[attr-defined]


def _taken(waiting: deque) -> list:
    found = list(waiting)
    waiting.clear()
    return found


