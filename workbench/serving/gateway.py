"""A chat endpoint for a local model in the form of OpenAI's API, with what the monitor sees in every answer, and caps on request.

    POST /v1/chat/completions    messages, max_tokens, temperature, top_p, seed, stream; one choice
    GET  /v1/models              the one model

Beyond the API's own fields an answer holds `workbench`: {signals, reply: {n_tokens, values, norms, prompt, peak, alarms},
capped}, and the headers `x-workbench-alarms` (JSON: the signals whose alarm was raised) and `x-workbench-norms` (JSON: mean
projections in median token norms). Of a stream every chunk holds `workbench`: {tokens, alarms}, the last one the reply.

Every request needs the token (as the API key); whoever may not ask is refused as by the explorer (`security.Guard`).
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from workbench import __version__
from workbench.base.errors import WorkbenchError
from workbench.models.prompts import ChatTokens, tokenize_chat
from workbench.models.sampling import Sampling
from workbench.reports.text import clean
from workbench.serving.explorer import Limits
from workbench.serving.requests import MAX_TEXT, ChatMessage, as_messages
from workbench.serving.security import Access, Guard
from workbench.serving.streams import Answer, EventStream
from workbench.serving.turns import Busy, Turns
from workbench.steering.monitor.logs import JsonLines, reply_values, signal_values
from workbench.steering.monitor.streaming import Step, watched_stream
from workbench.steering.monitor.watching import WatchedReply

if TYPE_CHECKING:
    from workbench.models.model import Model
    from workbench.steering.edits import Edit
    from workbench.steering.monitor.monitor import Monitor


class ChatRequest(BaseModel):
    """What is read of a request; what the API knows beyond it and would change the answer is refused, the rest is left aside."""

    model_config = ConfigDict(extra="ignore")

    messages: list[ChatMessage] = Field(min_length=1, max_length=256)
    model: str = Field(default="", max_length=MAX_TEXT)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float = Field(default=1.0, ge=0, le=5, allow_inf_nan=False)
    top_p: float = Field(default=1.0, gt=0, le=1, allow_inf_nan=False)
    seed: int = Field(default=0, ge=0, lt=2**31)
    n: Literal[1] = 1
    stream: bool = False
    tools: None = None
    stop: None = None


@dataclass
class Gateway:
    """The model behind the endpoint, its monitor, and the edits (caps) that act on every answer. One answer at a time."""

    model: Model
    monitor: Monitor
    edits: Sequence[Edit] = ()
    log: JsonLines | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        self.monitor.check(self.model)
        self.turns = Turns(waiting=self.limits.waiting, patience=self.limits.patience)

    def prompt(self, request: ChatRequest) -> ChatTokens:
        """The tokens of a request. Raises WorkbenchError for a conversation that is too long or that no template prints."""
        chat = tokenize_chat(self.model, as_messages(request.messages, self.limits.max_characters), add_generation_prompt=True)
        if len(chat.ids) > self.limits.max_tokens:
            raise WorkbenchError(f"a conversation of {len(chat.ids)} tokens", f"at most {self.limits.max_tokens}", "shorten it")
        return chat

    def steps(self, request: ChatRequest, chat: ChatTokens, seen: list[WatchedReply]) -> Iterator[Step]:
        """The answer as it grows; what was seen of it is put into `seen` and the log at its end, also when it is cut off by the
        clock or by a reader who goes away."""
        wanted = request.max_completion_tokens or request.max_tokens or self.limits.max_new_tokens
        sampling = Sampling(min(wanted, self.limits.max_new_tokens), request.temperature, request.top_p)
        until = time.monotonic() + self.limits.max_seconds

        def keep(reply: WatchedReply) -> None:
            seen.append(reply)
            if self.log is not None:
                self.log.reply(reply)

        seeds, model = [request.seed], self.model
        work = watched_stream(model, self.monitor, [chat], sampling, row_seeds=seeds, edits=self.edits, on_reply=keep)
        with contextlib.closing(work):
            for step in work:
                yield step
                if time.monotonic() > until:
                    return


def make_gateway(gateway: Gateway, access: Access) -> Guard:
    """The ASGI application behind its guard; it answers under every path of the API that it has, and 404 elsewhere."""
    app = FastAPI(title="persona-workbench gateway", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/v1/models")
    def models() -> Answer:
        return Answer({"object": "list", "data": [{"id": gateway.model.name, "object": "model", "owned_by": "local"}]})

    @app.post("/v1/chat/completions")
    def complete(request: ChatRequest) -> Any:
        chat, end = gateway.prompt(request), gateway.turns.take()
        if request.stream:
            return EventStream(_chunks(gateway, request, chat), end)
        try:
            return _completion(gateway, request, chat)
        finally:
            end()

    for kind, status in ((WorkbenchError, 400), (RequestValidationError, 400), (HTTPException, None), (Exception, 500)):
        app.add_exception_handler(kind, _refusal(status))
    return Guard(app, access)


def _completion(gateway: Gateway, request: ChatRequest, chat: ChatTokens) -> Answer:
    seen: list[WatchedReply] = []
    *_, step = gateway.steps(request, chat, seen)
    reply, told = step.replies[0], _told(gateway, seen)
    choice = {"index": 0, "message": {"role": "assistant", "content": reply.text}, "finish_reason": _reason(step)}
    usage = _usage(chat, step)
    value = {**_head(gateway, "chat.completion"), "choices": [choice], "usage": usage, "workbench": told}
    return Answer(value, headers=_headers(told))


def _chunks(gateway: Gateway, request: ChatRequest, chat: ChatTokens) -> Iterator[dict[str, Any]]:
    head, seen, said, step = _head(gateway, "chat.completion.chunk"), [], "", None

    def chunk(delta: dict[str, Any], told: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}], "workbench": told}

    try:
        yield chunk({"role": "assistant", "content": ""}, {})
        for step in gateway.steps(request, chat, seen):
            text = step.replies[0].text
            whole = text if not text.endswith("\ufffd") else said  # half a character waits for its other half
            more, said = whole[len(said) :], whole
            tokens = [{"position": one.position, **signal_values(gateway.monitor, one.values)} for one in step.seen]
            alarms = [{"signal": one.alarm.signal, "position": one.position} for one in step.alarms]
            if more or tokens or alarms:
                yield chunk({"content": more}, {"tokens": tokens, "alarms": alarms})
        assert step is not None
        rest = step.replies[0].text[len(said) :]
        yield {**chunk({"content": rest} if rest else {}, _told(gateway, seen), _reason(step)), "usage": _usage(chat, step)}
    except WorkbenchError as error:  # the answer has begun: it can only be told here
        yield _error(str(error), "invalid_request_error")


def _told(gateway: Gateway, seen: Sequence[WatchedReply]) -> dict[str, Any]:
    reply = reply_values(seen[0]) if seen else None
    return {"signals": gateway.monitor.names, "reply": reply, "capped": [edit.description() for edit in gateway.edits]}


def _headers(told: dict[str, Any]) -> dict[str, str]:
    reply = told["reply"] or {"alarms": [], "norms": {}}
    raised = json.dumps([one["signal"] for one in reply["alarms"]])
    return {"x-workbench-alarms": raised, "x-workbench-norms": json.dumps(reply["norms"])}


def _head(gateway: Gateway, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": gateway.model.name}


def _reason(step: Step) -> str:
    return "stop" if step.replies[0].finished else "length"


def _usage(chat: ChatTokens, step: Step) -> dict[str, int]:
    reply = step.replies[0]
    n, written = len(chat.ids), len(reply.response_ids) + len(reply.lead_ids)
    return {"prompt_tokens": n, "completion_tokens": written, "total_tokens": n + written}


def _refusal(status: int | None) -> Any:
    def handle(_: Request, error: Any) -> Answer:
        if isinstance(error, RequestValidationError):
            listed = error.errors()[:5]  # what was sent is not sent back
            message = "; ".join(f"{'.'.join(map(str, one['loc'][1:])) or 'body'}: {one['msg']}" for one in listed)
        elif isinstance(error, WorkbenchError):
            message = str(error)
        elif isinstance(error, HTTPException):
            message = str(error.detail)
        else:
            message = f"something went wrong here ({type(error).__name__})"
        code = error.status if isinstance(error, Busy) else status or getattr(error, "status_code", 500)
        kind = "server_error" if code >= 500 else "rate_limit_error" if code == 429 else "invalid_request_error"
        return Answer(_error(message, kind), code, headers={"retry-after": "2"} if code in (429, 503) else None)

    return handle


def _error(message: str, kind: str) -> dict[str, Any]:
    return {"error": {"message": clean(message), "type": kind, "param": None, "code": None}}
