"""A text through the model: features and projections token by token."""

from __future__ import annotations

from fastapi import APIRouter

from workbench.base.errors import WorkbenchError
from workbench.serving.answers import reading_json
from workbench.serving.explorer import Explorer
from workbench.serving.reading import TextReading, read_chat, read_text
from workbench.serving.requests import TextRequest, as_messages, check_length
from workbench.serving.streams import Answer


def make_router(explorer: Explorer) -> APIRouter:
    """POST /api/text."""
    router = APIRouter(prefix="/api", tags=["texts"])

    @router.post("/text")
    def text(request: TextRequest) -> Answer:
        """Every token of a text or a conversation: who says it, the features that fire, the projection on each persona vector."""
        _ = explorer.model  # before a turn is waited for
        end = explorer.turns.take()
        try:
            return Answer(reading_json(_read(explorer, request), explorer))
        finally:
            end()

    return router


def _read(explorer: Explorer, request: TextRequest) -> TextReading:
    limits, given = explorer.limits, (explorer.model, explorer.sae, explorer.personas)
    if (request.text is None) == (request.messages is None):
        raise WorkbenchError("a text and a conversation, or neither", "one of the two", "send text or messages")
    if request.messages is not None:
        messages = as_messages(request.messages, limits.max_characters)
        return read_chat(*given, messages, max_tokens=limits.max_tokens)
    text = request.text or ""
    check_length(len(text), limits.max_characters)
    return read_text(*given, text, max_tokens=limits.max_tokens)
