"""JSON over HTTP that outlasts faults: bounded retries with growing pauses, and keys that show up nowhere."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time
from typing import TYPE_CHECKING, Any, TypeVar

from workbench.base.errors import WorkbenchError

if TYPE_CHECKING:
    import httpx
    import tenacity

T = TypeVar("T")
OWN_KEY = "WORKBENCH_API_KEY"
"""The key for whatever address is named; providers' keys go to their own addresses only."""
KEY_VARIABLES = (OWN_KEY, "OPENAI_API_KEY", "ANTHROPIC_API_KEY")
_RETRIED = (408, 409, 425, 429)
_UNREADABLE = (ValueError, KeyError, TypeError, IndexError, AttributeError)


class EndpointError(WorkbenchError):
    """The endpoint gave no usable answer after all attempts (429, 529, 5xx, time-outs, malformed answers)."""


class _Retryable(Exception):
    def __init__(self, reason: str, wait_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to wait and how often to try."""

    timeout_seconds: float = 60.0
    """For one attempt."""
    n_attempts: int = 6
    """Attempts in all before a request is given up."""
    max_wait_seconds: float = 30.0
    """Longest pause between two attempts; pauses double from `first_wait_seconds`, with jitter."""
    first_wait_seconds: float = 1.0
    """The pause after the first failed attempt, at most."""

    def __post_init__(self) -> None:
        if self.n_attempts < 1:
            raise WorkbenchError(f"n_attempts is {self.n_attempts}", "at least 1")


class Transport:
    """Sends JSON requests and reads JSON answers. Thread-safe; close it when done.

    Tried again: connections that break, time-outs, status 408, 409, 425, 429 and 5xx (529 included; a Retry-After
    header decides the pause), and answers that `read` cannot make sense of. Any other status is an error at once.
    """

    def __init__(self, patience: Patience, keys: Sequence[str] = KEY_VARIABLES) -> None:
        self.patience, self.keys = patience, keys
        self._closed = threading.Event()
        self._client = _client(patience.timeout_seconds)

    def close(self) -> None:
        """Give up what is waiting for another attempt, and close the connections."""
        self.give_up()
        self._client.close()

    def give_up(self) -> None:
        """No further attempts from now on; a request under way may still be answered."""
        self._closed.set()

    def post(
        self, url: str, body: Mapping[str, Any], headers: Mapping[str, str], read: Callable[[Any], T]
    ) -> T:
        """`read(answer)` of the JSON that `url` answers; EndpointError when every attempt failed, WorkbenchError when
        the request itself is refused (wrong key, unknown model)."""
        import tenacity

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Retryable),
            stop=tenacity.stop_after_attempt(self.patience.n_attempts)
            | tenacity.stop_when_event_set(self._closed),
            wait=self._pause,
            sleep=tenacity.sleep_using_event(self._closed),
            reraise=True,
        )
        try:
            return retrying(self._attempt, url, body, headers, read)
        except _Retryable as error:
            raise EndpointError(
                f"the endpoint gave no usable answer in {retrying.statistics['attempt_number']} attempts (last: {error})",
                "an answer in the endpoint's own format",
                "run again later: rows that were answered are cached and are not asked again",
            ) from None

    def _pause(self, state: tenacity.RetryCallState) -> float:
        import tenacity

        longest, first = self.patience.max_wait_seconds, self.patience.first_wait_seconds
        error = state.outcome.exception() if state.outcome else None
        asked = error.wait_seconds if isinstance(error, _Retryable) else None
        if asked is not None:
            return min(max(asked, 0.0), longest)
        growing = tenacity.wait_exponential(multiplier=first / 2) + tenacity.wait_random(0, first / 2)
        return min(growing(state), longest)

    def _attempt(
        self, url: str, body: Mapping[str, Any], headers: Mapping[str, str], read: Callable[[Any], T]
    ) -> T:
        import httpx

        try:
            response = self._client.post(url, json=body, headers=headers)
        except httpx.HTTPError as error:
            raise _Retryable(redacted(f"{type(error).__name__}: {error}")) from None
        self._check_status(response)
        try:
            return read(response.json())
        except _UNREADABLE:
            raise _Retryable("the answer was not in the endpoint's format") from None

    def _check_status(self, response: httpx.Response) -> None:
        status = response.status_code
        if status in _RETRIED or status >= 500:
            raise _Retryable(f"status {status}", _retry_after(response.headers.get("retry-after")))
        if status != 200:
            key = f"check the key in {' or '.join(self.keys)}"
            if self.keys == (OWN_KEY,):
                key += " (the keys of providers are sent to the providers' own addresses only)"
            advice = key if status in (401, 403) else "check the base URL and the model"
            raise WorkbenchError(f"the endpoint answered with status {status}: {redacted(response.text)[:300]}",
                                 "status 200", advice)  # fmt: skip


def _client(timeout_seconds: float) -> httpx.Client:
    try:
        import httpx
        import tenacity  # noqa: F401
    except ImportError as error:
        raise WorkbenchError(f"an endpoint was named but {error.name} is not installed", "httpx and tenacity",
                             "install them with: pip install 'persona-workbench[llm]'") from error  # fmt: skip
    return httpx.Client(timeout=timeout_seconds)


def api_key(variables: Sequence[str]) -> str | None:
    """The first key that the environment has under one of `variables`; None when there is none (local servers need none)."""
    return next((value for name in variables if (value := os.environ.get(name))), None)


def redacted(value: Any) -> Any:
    """`value` (JSON types) with every key of the environment replaced by "[key]" in all its texts."""
    if isinstance(value, str):
        for name in KEY_VARIABLES:
            if secret := os.environ.get(name):
                value = value.replace(secret, "[key]")
        return value
    if isinstance(value, Mapping):
        return {name: redacted(item) for name, item in value.items()}
    return [redacted(item) for item in value] if isinstance(value, (list, tuple)) else value


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
