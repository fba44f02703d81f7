"""A client for chat endpoints in two dialects (OpenAI-compatible chat completions, Anthropic messages).

Both share one transport (retries, keys) and one cache on disk; a dialect says only how a request and an answer look.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol
from urllib.parse import urlsplit

from workbench.base.answers import AnswerCache
from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.settings import cache_dir, setting
from workbench.models.transport import OWN_KEY, EndpointError, Patience, Transport, api_key, redacted

_CACHE_SCHEMA = 2


@dataclass(frozen=True)
class ChatReply:
    """One reply: its text, and per sampled token the token with its most probable alternatives (empty if withheld)."""

    text: str
    tokens: tuple[str, ...] = ()
    top_logprobs: tuple[tuple[tuple[str, float], ...], ...] = ()
    finish_reason: str | None = None
    """Why it ended, in the endpoint's words ("stop", "length", ...); None if it does not say."""


class Dialect(Protocol):
    """How one kind of endpoint is spoken to."""

    default_url: str
    """The provider's own address."""
    provider_key: str
    """The environment variable of the provider's key, which is sent to `default_url` and nowhere else."""

    def address(self, base_url: str) -> str:
        """Where requests go."""
        ...

    def headers(self, key: str | None) -> dict[str, str]:
        """The headers beside those of JSON; the key (None: the endpoint needs none) goes nowhere else."""
        ...

    def body(self, messages: Sequence[Mapping[str, str]], n_top_logprobs: int) -> dict[str, Any]:
        """The dialect's own part of a request (model, max_tokens and temperature are common to both)."""
        ...

    def read(self, answer: Any, *, silence: bool = False) -> ChatReply:
        """The reply in an answer; any lookup or value error means that the answer is malformed. `silence`: an answer
        that ended without text is an empty reply."""
        ...


class OpenAIDialect:
    """Chat completions, as OpenAI, vLLM, llama.cpp, Ollama and many others serve them; with log-probabilities."""

    default_url: str = "https://api.openai.com/v1"
    provider_key: str = "OPENAI_API_KEY"

    def address(self, base_url: str) -> str:
        """`base_url`/chat/completions."""
        return f"{base_url}/chat/completions"

    def headers(self, key: str | None) -> dict[str, str]:
        """The key as a bearer token."""
        return {"Authorization": f"Bearer {key}"} if key else {}

    def body(self, messages: Sequence[Mapping[str, str]], n_top_logprobs: int) -> dict[str, Any]:
        """The messages as they are."""
        asked = {"logprobs": True, "top_logprobs": n_top_logprobs} if n_top_logprobs else {}
        return {"messages": [dict(message) for message in messages], **asked}

    def read(self, answer: Any, *, silence: bool = False) -> ChatReply:
        """The first choice. There is no content where all of it was thinking, or a filter took it."""
        choice = answer["choices"][0]
        text, ended = choice["message"].get("content"), choice.get("finish_reason")
        if silence and text is None and isinstance(ended, str):
            text = ""
        steps = (choice.get("logprobs") or {}).get("content") or []
        tops = [
            [(entry["token"], entry["logprob"]) for entry in step.get("top_logprobs") or []] for step in steps
        ]
        return _reply(text, [step["token"] for step in steps], tops, ended)


class AnthropicDialect:
    """Anthropic's messages API (version 2023-06-01). It sends no log-probabilities."""

    default_url: str = "https://api.anthropic.com"
    provider_key: str = "ANTHROPIC_API_KEY"

    def address(self, base_url: str) -> str:
        """`base_url`/v1/messages; a base URL that ends in /v1 already serves as well."""
        return f"{base_url.removesuffix('/v1')}/v1/messages"

    def headers(self, key: str | None) -> dict[str, str]:
        """The version and the key."""
        return {"anthropic-version": "2023-06-01"} | ({"x-api-key": key} if key else {})

    def body(self, messages: Sequence[Mapping[str, str]], n_top_logprobs: int) -> dict[str, Any]:
        """System messages stand apart from the turns."""
        system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
        turns = [dict(message) for message in messages if message["role"] != "system"]
        return {"messages": turns} | ({"system": system} if system else {})

    def read(self, answer: Any, *, silence: bool = False) -> ChatReply:
        """The text blocks, joined; a model that declines (stop_reason "refusal") may send none."""
        blocks = [block["text"] for block in answer["content"] if block["type"] == "text"]
        ended = answer.get("stop_reason")
        if not blocks and not (silence and isinstance(ended, str)) and ended != "refusal":
            raise ValueError("no text in the answer")
        return _reply("".join(blocks), (), (), ended)


DIALECTS: Mapping[str, Dialect] = {"openai": OpenAIDialect(), "anthropic": AnthropicDialect()}


@dataclass(frozen=True, kw_only=True)
class EndpointConfig(Patience):
    """Where and how to ask. The key is no part of it: it is read from the environment when a request is sent.

    Keys of providers (OPENAI_API_KEY, ANTHROPIC_API_KEY) go to the provider's own address only; any other address gets
    WORKBENCH_API_KEY, or none.
    """

    model: str
    """The model's name as the endpoint knows it."""
    dialect: str = "openai"
    """"openai" or "anthropic"."""
    base_url: str = ""
    """Everything before `/chat/completions` or `/v1/messages`; "" is the dialect's own provider."""
    name_model: ClassVar[str] = "give --judge-model, set WORKBENCH_JUDGE_MODEL or pass model"
    name_url: ClassVar[str] = "give --judge-url, set WORKBENCH_BASE_URL or pass base_url"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dialect not in DIALECTS:
            raise unknown_name("endpoint dialect", self.dialect, DIALECTS)
        object.__setattr__(
            self, "base_url", (self.base_url or DIALECTS[self.dialect].default_url).rstrip("/")
        )
        if not self.model:
            raise WorkbenchError("no endpoint model is named", "the name of a model", self.name_model)
        _check_url(self.base_url, self.name_url)

    @property
    def keys(self) -> tuple[str, ...]:
        """Environment variables that may hold the key for this address, the first that is set wins: WORKBENCH_API_KEY,
        and before it the provider's own key at the provider's own address."""
        dialect = DIALECTS[self.dialect]
        own = dialect.address(self.base_url) == dialect.address(dialect.default_url)
        return (dialect.provider_key, OWN_KEY) if own else (OWN_KEY,)

    @classmethod
    def from_settings(
        cls, *, model: str | None = None, base_url: str | None = None, **options: Any
    ) -> EndpointConfig:
        """The configuration from arguments, WORKBENCH_JUDGE_MODEL and WORKBENCH_BASE_URL (or the config files)."""
        return cls(
            model=str(setting("judge_model", model, "")),
            base_url=str(setting("base_url", base_url, "")),
            **options,
        )


def _check_url(base_url: str, remedy: str) -> None:
    url = urlsplit(base_url)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise WorkbenchError("the endpoint's base_url is no http(s) address", "something like https://host/v1", remedy)
    if url.username or url.password:
        raise WorkbenchError("the endpoint's base_url holds a user name or a password", "an address without secrets",
                             f"put the key into {OWN_KEY}")  # fmt: skip


class ChatEndpoint:
    """Sends chat requests. Thread-safe; close it, or use it as a context manager.

    Replies are cached by the content of (address, request); only complete replies are, so a failed request is asked
    again by the next run and an answered one never is.
    """

    def __init__(self, config: EndpointConfig, cache_folder: Path | None = None) -> None:
        self.config, self.dialect = config, DIALECTS[config.dialect]
        self.cache = AnswerCache(cache_folder or cache_dir() / "endpoints")
        self._transport = Transport(config, config.keys)

    def __enter__(self) -> ChatEndpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self._transport.close()

    def give_up(self) -> None:
        """Send nothing again from now on; what is under way may still be answered, and is kept."""
        self._transport.give_up()

    def chat(self, messages: Sequence[Mapping[str, str]], *, max_tokens: int = 8, temperature: float = 0.0,
             n_top_logprobs: int = 0, sample: int = 0, fields: Mapping[str, Any] | None = None,
             silence: bool = False) -> ChatReply:  # fmt: skip
        """The reply to `messages`; `sample` numbers independent samples of one prompt (part of the cache key).

        fields: what else the request says (top_p, seed, ...). silence: an answer that ended without text is an empty
        reply instead of a malformed answer.

        Raises EndpointError when every attempt failed, WorkbenchError when the endpoint refuses the request itself
        (wrong key, unknown model).
        """
        asked = {"max_tokens": max_tokens, "temperature": temperature, **(fields or {})}
        question = self._question(messages, asked, n_top_logprobs, sample)
        if (cached := _stored_reply(self.cache.read(question))) is not None:
            return cached
        headers = self.dialect.headers(api_key(self.config.keys))
        read = partial(self.dialect.read, silence=silence)
        reply = self._transport.post(question["url"], question["body"], headers, read)
        self.cache.write(question, redacted(asdict(reply)))
        return reply

    def stored(self, messages: Sequence[Mapping[str, str]], *, max_tokens: int = 8, temperature: float = 0.0,
               sample: int = 0) -> ChatReply | None:  # fmt: skip
        """The reply that `chat` would find in the cache, None when it would have to ask. Sends nothing."""
        asked = {"max_tokens": max_tokens, "temperature": temperature}
        return _stored_reply(self.cache.read(self._question(messages, asked, 0, sample)))

    def _question(
        self, messages: Sequence[Mapping[str, str]], asked: Mapping[str, Any], n_top_logprobs: int, sample: int
    ) -> dict[str, Any]:
        """All that the answer depends on: where, the request, and which sample of it."""
        body = {"model": self.config.model, **self.dialect.body(messages, n_top_logprobs), **asked}
        url = self.dialect.address(self.config.base_url)
        return {"schema": _CACHE_SCHEMA, "url": url, "body": body, "sample": sample}


def _reply(text: Any, tokens: Any, tops: Any, finish_reason: Any) -> ChatReply:
    if not isinstance(text, str):
        raise ValueError("the content is no text")
    rows = tuple(tuple((str(token), float(value)) for token, value in row) for row in tops)
    ended = None if finish_reason is None else str(finish_reason)
    return ChatReply(text, tuple(str(token) for token in tokens), rows, ended)


def _stored_reply(stored: Any) -> ChatReply | None:
    try:
        # Answers of judges from before finish reasons were kept are as good as ever.
        return _reply(stored["text"], stored["tokens"], stored["top_logprobs"], stored.get("finish_reason"))
    except (AttributeError, KeyError, TypeError, ValueError):
        return None  # nothing there, or a damaged entry


__all__ = ["DIALECTS", "ChatEndpoint", "ChatReply", "EndpointConfig", "EndpointError"]
