"""Answers that come line by line while the model works, and end its work when the reader goes away."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, StreamingResponse

from workbench.base.store import plain
from workbench.serving.security import Receive, Scope, Send

_END = object()


def as_json(value: Any) -> bytes:
    """JSON in ASCII, so that no text can break it, and without NaN."""
    return json.dumps(plain(value), ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")


class Answer(JSONResponse):
    """A JSON answer."""

    def render(self, content: Any) -> bytes:
        return as_json(content)


class LineStream(StreamingResponse):
    """One JSON object per line, as `work` gives them. `end` is called when it is over, however it ended.

    The steps run in worker threads, one after the other. When the reader closes the connection, the step at hand is finished, the
    iterator is closed and no other one is taken.
    """

    media_type = "application/x-ndjson"

    def __init__(self, work: Iterator[dict[str, Any]], end: Callable[[], None]) -> None:
        super().__init__(self._lines())
        self.work, self.end = work, end

    async def _lines(self) -> AsyncIterator[bytes]:
        while (value := await run_in_threadpool(next, self.work, _END)) is not _END:
            yield as_json(value) + b"\n"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            close = getattr(self.work, "close", None)
            try:
                if close is not None:
                    close()
            finally:
                self.end()


class EventStream(LineStream):
    """The same as server-sent events, one `data:` each, the last of them [DONE]: what clients of OpenAI's API read."""

    media_type = "text/event-stream"

    async def _lines(self) -> AsyncIterator[bytes]:
        async for line in super()._lines():
            yield b"data: " + line + b"\n"
        yield b"data: [DONE]\n\n"
