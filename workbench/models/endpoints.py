"""A client for OpenAI-compatible chat endpoints: retries, a cache on disk, and a key that is never written anywhere."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from workbench.base.errors import WorkbenchError
from workbench.base.settings import cache_dir, setting
from workbench.base.store import content_hash, read_json, write_json

if TYPE_CHECKING:
    import httpx
    import tenacity

KEY_VARIABLES = ("WORKBENCH_API_KEY", "OPENAI_API_KEY")
DEFAULT_URL = "https://api.openai.com/v1"
_CACHE_SCHEMA = 1


class EndpointError(WorkbenchError):
    """The endpoint gave no usable answer after all attempts (429, 5xx, time-outs, malformed answers)."""


class _Retryable(Exception):
    def __init__(self, reason: str, wait_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds


@dataclass(frozen=True)
class ChatReply:
    """One reply: its text, and per sampled token the token with its most probable alternatives (empty if withheld)."""

    text: str
    tokens: tuple[str, ...] = ()
    top_logprobs: tuple[tuple[tuple[str, float], ...], ...] = ()


@dataclass(frozen=True)
class EndpointConfig:
    """Where and how to ask. The key is no part of it: it is read from the environment when a request is sent."""

    model: str
    """The model's name as the endpoint knows it."""
    base_url: str = DEFAULT_URL
    """Everything before `/chat/completions`."""
    timeout_seconds: float = 60.0
    """For one attempt."""
    n_attempts: int = 6
    """Attempts in all before a request is given up."""
    max_wait_seconds: float = 30.0
    """Longest pause between two attempts; pauses double from `first_wait_seconds`, with jitter."""
    first_wait_seconds: float = 1.0
    """The pause after the first failed attempt, at most."""

    def __post_init__(self) -> None:
        url = urlsplit(self.base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise WorkbenchError("the endpoint's base_url is no http(s) address", "something like https://host/v1",
                                 "set WORKBENCH_BASE_URL or pass base_url")  # fmt: skip
        if url.username or url.password:
            raise WorkbenchError("the endpoint's base_url holds a user name or a password", "an address without secrets",
                                 f"put the key into {KEY_VARIABLES[0]}")  # fmt: skip
        if not self.model:
            raise WorkbenchError("no endpoint model is named", "the name of a model",
                                 "set WORKBENCH_JUDGE_MODEL or pass model")  # fmt: skip
        if self.n_attempts < 1:
            raise WorkbenchError(f"n_attempts is {self.n_attempts}", "at least 1")

    @classmethod
    def from_settings(cls, *, model: str | None = None, base_url: str | None = None, **options: Any) -> EndpointConfig:
        """The configuration from arguments, WORKBENCH_JUDGE_MODEL and WORKBENCH_BASE_URL (or the config files)."""
        url = setting("base_url", base_url, DEFAULT_URL)
        return cls(model=setting("judge_model", model, ""), base_url=str(url).rstrip("/"), **options)


@dataclass
class ChatEndpoint:
    """Sends chat requests. Thread-safe; close it, or use it as a context manager.

    Replies are cached by the content hash of (base URL, request); only complete replies are, so a failed request is
    asked again by the next run and an answered one never is.
    """

    config: EndpointConfig
    cache_folder: Path | None = None
    n_requests: int = field(default=0, init=False)
    _client: httpx.Client = field(init=False, repr=False)

    def __post_init__(self) -> None:
        import httpx

        self.cache_folder = Path(self.cache_folder) if self.cache_folder else cache_dir() / "endpoints"
        self._client = httpx.Client(timeout=self.config.timeout_seconds)

    def __enter__(self) -> ChatEndpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def chat(self, messages: Sequence[dict[str, str]], *, max_tokens: int = 8, temperature: float = 0.0,
             n_top_logprobs: int = 0, sample: int = 0) -> ChatReply:  # fmt: skip
        """The reply to `messages`; `sample` numbers independent samples of one prompt (part of the cache key).

        Raises EndpointError when every attempt failed, WorkbenchError when the endpoint refuses the request itself
        (wrong key, unknown model).
        """
        body = {"model": self.config.model, "messages": list(messages), "max_tokens": max_tokens,
                "temperature": temperature}  # fmt: skip
        if n_top_logprobs:
            body |= {"logprobs": True, "top_logprobs": n_top_logprobs}
        key = content_hash({"schema": _CACHE_SCHEMA, "url": self.config.base_url, "body": body, "sample": sample})
        cached = self._read_cache(key)
        if cached is not None:
            return cached
        reply = self._ask(body)
        self._write_cache(key, reply)
        return reply

    def _ask(self, body: dict[str, Any]) -> ChatReply:
        import tenacity

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Retryable),
            stop=tenacity.stop_after_attempt(self.config.n_attempts),
            wait=self._pause,
            reraise=True,
        )
        try:
            return retrying(self._attempt, body)
        except _Retryable as error:
            raise EndpointError(
                f"the endpoint gave no usable answer in {self.config.n_attempts} attempts (last: {error})",
                "a chat completion",
                "run again later: rows that were answered are cached and are not asked again",
            ) from None

    def _pause(self, state: tenacity.RetryCallState) -> float:
        import tenacity

        error = state.outcome.exception() if state.outcome else None
        asked = error.wait_seconds if isinstance(error, _Retryable) else None
        if asked is not None:
            return min(max(asked, 0.0), self.config.max_wait_seconds)
        growing = tenacity.wait_exponential_jitter(
            multiplier=self.config.first_wait_seconds / 2, max=self.config.max_wait_seconds,
            jitter=self.config.first_wait_seconds / 2)  # fmt: skip
        return min(growing(state), self.config.max_wait_seconds)

    def _attempt(self, body: dict[str, Any]) -> ChatReply:
        import httpx

        self.n_requests += 1
        key = api_key()
        try:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            response = self._client.post(f"{self.config.base_url}/chat/completions", json=body, headers=headers)
        except httpx.HTTPError as error:
            raise _Retryable(_redacted(f"{type(error).__name__}: {error}")) from None
        self._check_status(response)
        try:
            return _read_reply(response.json())
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            raise _Retryable("the answer was no chat completion") from None

    def _check_status(self, response: httpx.Response) -> None:
        status = response.status_code
        if status in (408, 409, 425, 429) or status >= 500:
            raise _Retryable(f"status {status}", _retry_after(response.headers.get("retry-after")))
        if status != 200:
            key = f"check the key in {' or '.join(KEY_VARIABLES)}"
            advice = key if status in (401, 403) else "check the base URL and the model"
            raise WorkbenchError(f"the endpoint answered with status {status}: {_redacted(response.text[:300])}",
                                 "status 200", advice)  # fmt: skip

    def _cache_path(self, key: str) -> Path:
        assert self.cache_folder is not None
        return self.cache_folder / key[:2] / f"{key}.json"

    def _read_cache(self, key: str) -> ChatReply | None:
        path = self._cache_path(key)
        if not path.exists():
            return None
        try:
            stored = read_json(path)
            return _reply_from(stored["text"], stored["tokens"], stored["top_logprobs"])
        except (WorkbenchError, KeyError, TypeError, ValueError):
            return None  # a damaged entry is asked again and overwritten

    def _write_cache(self, key: str, reply: ChatReply) -> None:
        tops = [[[_redacted(token), value] for token, value in row] for row in reply.top_logprobs]
        tokens = [_redacted(token) for token in reply.tokens]
        write_json(self._cache_path(key), {"text": _redacted(reply.text), "tokens": tokens, "top_logprobs": tops})


def api_key() -> str | None:
    """The key from WORKBENCH_API_KEY or OPENAI_API_KEY; None when neither is set (local servers need none)."""
    return next((value for name in KEY_VARIABLES if (value := os.environ.get(name))), None)


def _redacted(text: str) -> str:
    key = api_key()
    return text.replace(key, "[key]") if key else text


def _read_reply(answer: Any) -> ChatReply:
    choice = answer["choices"][0]
    text = choice["message"]["content"]
    if not isinstance(text, str):
        raise ValueError("the content is no text")
    steps = (choice.get("logprobs") or {}).get("content") or []
    tops = [[(entry["token"], entry["logprob"]) for entry in step.get("top_logprobs") or []] for step in steps]
    return _reply_from(text, [step["token"] for step in steps], tops)


def _reply_from(text: str, tokens: Any, tops: Any) -> ChatReply:
    rows = tuple(tuple((str(token), float(value)) for token, value in row) for row in tops)
    return ChatReply(str(text), tuple(str(token) for token in tokens), rows)


def _retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header: a number, or a date; None when absent or unreadable."""
    if not value:
        return None
    try:
        return float(value)
    except ValueError:
        pass
    try:
        return parsedate_to_datetime(value).timestamp() - time()
    except (TypeError, ValueError):
        return None
