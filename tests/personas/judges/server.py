"""A real HTTP server on 127.0.0.1 that plays an endpoint in either dialect, faults included."""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def completion(text: str, top: dict[str, float] | None = None) -> dict[str, Any]:
    """A chat completion; `top` = {token: probability} of the first token."""
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    if top is not None:
        entries = [{"token": token, "logprob": math.log(share)} for token, share in top.items()]
        choice["logprobs"] = {"content": [{"token": text, "logprob": 0.0, "top_logprobs": entries}]}
    return {"id": "x", "object": "chat.completion", "choices": [choice]}


def message(text: str) -> dict[str, Any]:
    """An answer of Anthropic's messages API."""
    content = [{"type": "text", "text": text}]
    return {"id": "x", "type": "message", "role": "assistant", "content": content, "stop_reason": "end_turn"}


class FakeEndpoint:
    """Answers with `answer(prompt)`; before that, the faults of `faults(prompt, attempt)`: a status ("429", "500", ...),
    "malformed", "truncated" (the connection ends before the body does), "wrong shape", "timeout" (no answer within
    `hang_seconds`) or "refused" (400, and the key in the answer from character 280 or so on)."""

    hang_seconds = 0.6

    def __init__(self, answer: Callable[[str], dict[str, Any]], faults: Callable[[str, int], str | None],
                 name: Callable[[Any], str]) -> None:  # fmt: skip
        self.answer, self.faults, self.name = answer, faults, name
        self.bodies: list[Any] = []
        self.seen: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.injected: Counter[str] = Counter()
        self.headers: list[dict[str, str]] = []
        self.keys: set[str | None] = set()
        self.lock = threading.Lock()
        self.url = ""

    def reply(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        prompt = self.name(body)
        with self.lock:
            self.bodies.append(body)
            self.seen[prompt] += 1
            attempt = self.seen[prompt]
            self.keys.add(handler.headers.get("Authorization"))
            self.headers.append({name.lower(): value for name, value in handler.headers.items()})
        if fault := self.faults(prompt, attempt):
            with self.lock:
                self.injected[fault] += 1
            return self._fail(handler, fault, json.dumps(self.answer(prompt)).encode())
        with self.lock:
            self.answered[prompt] += 1
        _send(handler, 200, json.dumps(self.answer(prompt)).encode())

    def _fail(self, handler: BaseHTTPRequestHandler, fault: str, answer: bytes) -> None:
        key = handler.headers.get("Authorization") or handler.headers.get("x-api-key", "")
        if fault == "timeout":
            time.sleep(self.hang_seconds)
        elif fault == "malformed":
            _send(handler, 200, answer[: len(answer) // 2])
        elif fault == "wrong shape":
            _send(handler, 200, b'{"choices": [], "content": null, "stop_reason": "end_turn"}')
        elif fault == "truncated":
            _send(handler, 200, answer[: len(answer) // 2], {"Content-Length": str(len(answer))})
        elif fault == "refused":
            _send(handler, 400, b"x" * 280 + key.encode())
        else:
            _send(handler, int(fault), f"no: {key}".encode(), {"Retry-After": "0"} if fault in ("429", "529") else {})


def _send(handler: BaseHTTPRequestHandler, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
    with contextlib.suppress(OSError):  # a client that timed out has gone
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(data)), "Connection": "close", **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)


@contextlib.contextmanager
def running(answer: Callable[[str], dict[str, Any]],
            faults: Callable[[str, int], str | None] = lambda prompt, attempt: None,
            name: Callable[[Any], str] = lambda body: body["messages"][-1]["content"]) -> Iterator[FakeEndpoint]:  # fmt: skip
    """The endpoint, served from a thread until the block ends; `name` makes of a request what counts as its prompt."""
    endpoint = FakeEndpoint(answer, faults, name)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            endpoint.reply(self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    endpoint.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
