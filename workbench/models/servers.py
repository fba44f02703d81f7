"""Chat servers that sample in the place of the loaded model: vLLM, llama.cpp, Ollama and others, spoken to alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

from workbench.base.errors import WorkbenchError
from workbench.models.endpoints import EndpointConfig

UNTRUNCATED: Mapping[str, Any] = MappingProxyType({"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0})
"""Switches off what servers do to the distribution on their own account; those that do not know a field ignore it."""


@dataclass(frozen=True, kw_only=True)
class ChatServer(EndpointConfig):
    """An OpenAI-compatible server of the same weights and chat template as the loaded model.

    The key, if the server wants one, is read from WORKBENCH_API_KEY when a request is sent.

    >>> ChatServer(base_url="http://127.0.0.1:8000/v1", model="Qwen/Qwen2.5-7B-Instruct").n_workers
    32
    """

    timeout_seconds: float = 600.0
    """For one attempt; a server may let a request wait until others are done."""
    n_workers: int = 32
    """Requests under way at a time."""
    fields: Mapping[str, Any] = field(default_factory=lambda: dict(UNTRUNCATED))
    """What every request says besides; {} for a server that refuses fields beyond OpenAI's own."""
    name_model: ClassVar[str] = "give --generate-model, set WORKBENCH_GENERATE_MODEL or pass model"
    name_url: ClassVar[str] = "give --generate-with, set WORKBENCH_GENERATE_WITH or pass base_url"

    def __post_init__(self) -> None:
        if not self.base_url:
            raise WorkbenchError("no server is named", "something like http://127.0.0.1:8000/v1", self.name_url)
        super().__post_init__()
        if self.dialect != "openai" or self.n_workers < 1:
            raise WorkbenchError(
                f"a server with the dialect {self.dialect!r} and {self.n_workers} workers",
                "the dialect 'openai' and at least 1 worker",
                "name an OpenAI-compatible server",
            )

    def description(self) -> dict[str, Any]:
        """What decides the answers, and what artefacts record: address, model and `fields`; never the key."""
        return {"base_url": self.base_url, "model": self.model, "fields": dict(self.fields)}


def chosen_server(url: str | None, model: str | None) -> ChatServer | None:
    """The server of a pair of settings, None when neither is set; refuses one without the other."""
    if not url and not model:
        return None
    if not url or not model:
        given, lacking = ("--generate-with", "--generate-model") if url else ("--generate-model", "--generate-with")
        raise WorkbenchError(f"{given} is set without {lacking}", "both, or neither",
                             f"give {lacking}, or set WORKBENCH_{lacking[2:].replace('-', '_').upper()}")  # fmt: skip
    return ChatServer(base_url=str(url), model=str(model))
