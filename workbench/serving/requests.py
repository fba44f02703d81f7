"""What a request may hold. Sizes are bounded here; the tighter limits of an explorer are checked where they apply."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from workbench.base.errors import WorkbenchError

MAX_TEXT = 200_000


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ChatMessage(_Request):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str = Field(max_length=MAX_TEXT)


class TextRequest(_Request):
    """A plain text, or a conversation under the model's chat template: one of the two."""

    text: str | None = Field(default=None, max_length=MAX_TEXT)
    messages: list[ChatMessage] | None = Field(default=None, max_length=64)


class SteerRequest(_Request):
    """A conversation to answer twice. `dose` is |delta| / |h|, the share of the median token norm; below 0: against the
    direction.

    The direction is that of a `feature` or of a `trait`: one of the two. `seed` is that of both replies.
    """

    messages: list[ChatMessage] = Field(min_length=1, max_length=64)
    feature: int | None = Field(default=None, ge=0)
    trait: str | None = Field(default=None, max_length=200)
    dose: float = Field(default=0.0, allow_inf_nan=False)
    seed: int = Field(default=0, ge=0, lt=2**31)
    max_new_tokens: int = Field(default=64, ge=1)
    temperature: float = Field(default=1.0, ge=0, le=5, allow_inf_nan=False)
    top_p: float = Field(default=1.0, gt=0, le=1, allow_inf_nan=False)


class VerdictRequest(_Request):
    """What a person says of a feature. `version` is that of the feature which the page showed."""

    verdict: Literal["confirm", "edit", "reject", "dispute"]
    annotator: str = Field(max_length=200)
    version: str = Field(max_length=64)
    label: str | None = Field(default=None, max_length=2000)
    category: str | None = Field(default=None, max_length=200)
    note: str | None = Field(default=None, max_length=2000)


def as_messages(messages: list[ChatMessage], max_characters: int) -> list[dict[str, str]]:
    """Plain messages. Raises WorkbenchError when they are longer than `max_characters` together, or nobody but the system
    speaks.
    """
    check_length(sum(len(message.content) for message in messages), max_characters)
    if all(message.role == "system" for message in messages):
        raise WorkbenchError("a conversation in which nobody speaks", "at least one message of a user", "write one")
    return [{"role": message.role, "content": message.content} for message in messages]


def check_length(length: int, most: int) -> None:
    """Refuse a text of more than `most` characters."""
    if length > most:
        raise WorkbenchError(f"a text of {length:,} characters", f"at most {most:,}", "shorten it")
