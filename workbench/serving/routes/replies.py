"""Two replies side by side: as the model is, and steered."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter

from workbench.base.errors import WorkbenchError
from workbench.models.generation import Generated
from workbench.models.prompts import tokenize_chat
from workbench.models.sampling import Sampling
from workbench.serving.answers import quality_json, reading_json, reply_json
from workbench.serving.explorer import Explorer
from workbench.serving.reading import read_tokens, with_roles
from workbench.serving.requests import SteerRequest, as_messages
from workbench.serving.streams import LineStream
from workbench.steering.edits import Edit
from workbench.steering.replies import compare_replies, conversation, reply_quality


def make_router(explorer: Explorer) -> APIRouter:
    """POST /api/steer."""
    router = APIRouter(prefix="/api", tags=["steering"])

    @router.post("/steer")
    def steer(request: SteerRequest) -> LineStream:
        """Lines of JSON: {event: "start", ...}, then {event: "token", replies: [unsteered, steered]} after each token.

        At the end {event: "measured", replies: [...]} with the signs of a broken reply and what the unsteered model reads in
        each, and {event: "end", why}. Closing the connection stops the model after the token at hand.
        """
        messages, edit = as_messages(request.messages, explorer.limits.max_characters), _edit(explorer, request)
        sampling = Sampling(min(request.max_new_tokens, explorer.limits.max_new_tokens), request.temperature, request.top_p)
        _check_tokens(explorer, messages)
        end = explorer.turns.take()
        return LineStream(_told(_lines(explorer, messages, edit, sampling, request.seed)), end)

    return router


def _edit(explorer: Explorer, request: SteerRequest) -> Edit:
    if (request.feature is None) == (request.trait is None):
        raise WorkbenchError("a feature and a trait, or neither", "one direction", "send a feature or a trait")
    most = explorer.limits.max_dose
    if abs(request.dose) > most:
        raise WorkbenchError(
            f"a dose of {request.dose:g}", f"-{most:g} to {most:g} typical token norms", "choose a smaller one"
        )
    if request.feature is not None:
        sae = explorer.require_sae()
        feature = explorer.feature(request.feature)
        return Edit.feature(sae, feature, request.dose, scope="predicting")
    _ = explorer.model
    vector = explorer.run(request.trait).vector
    return Edit.add(vector, request.dose, scope="predicting")


def _check_tokens(explorer: Explorer, messages: list[dict[str, str]]) -> None:
    n, most = len(tokenize_chat(explorer.model, messages, add_generation_prompt=True).ids), explorer.limits.max_tokens
    if n > most:
        raise WorkbenchError(f"a conversation of {n} tokens", f"at most {most}", "shorten it")


def _told(lines: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The lines; an error after the first one can only be told in a line of its own."""
    try:
        yield from lines
    except WorkbenchError as error:
        yield {"event": "error", "found": error.found, "expected": error.expected, "remedy": error.remedy}


def _lines(
    explorer: Explorer, messages: list[dict[str, str]], edit: Edit, sampling: Sampling, seed: int
) -> Iterator[dict[str, Any]]:
    model, started = explorer.model, time.monotonic()
    typical, (dose,) = float(model.norm_medians([edit.hook])[0]), edit.amounts
    yield {"event": "start", "hook": str(edit.hook), "dose": dose, "typical_norm": typical,
           "delta_norm": abs(dose) * typical, "max_new_tokens": sampling.max_new_tokens}  # fmt: skip
    replies, why = None, "done"
    turns = compare_replies(model, messages, [(), (edit,)], sampling, seed=seed)
    try:
        for replies in turns:
            yield {"event": "token", "replies": [reply_json(reply) for reply in replies]}
            if time.monotonic() - started > explorer.limits.max_seconds:
                why = f"stopped after {explorer.limits.max_seconds:.0f} seconds"
                break
    finally:
        turns.close()  # type: ignore[attr-defined]
    assert replies is not None
    yield {"event": "measured", "replies": list(_measured(explorer, replies, edit))}
    yield {"event": "end", "why": why, "seconds": round(time.monotonic() - started, 2)}


def _measured(explorer: Explorer, replies: tuple[Generated, ...], edit: Edit) -> Iterator[dict[str, Any]]:
    """Of each reply: its signs of being broken, and what the model, unsteered, reads in it."""
    for reply, applied in zip(replies, ((), (edit,)), strict=True):
        quality = quality_json(reply_quality(explorer.model, reply, applied))
        ids, roles = with_roles(conversation(reply))
        first = len(reply.prompt.ids) + len(reply.lead_ids)
        # Only this reply is the assistant's here, whatever the assistant said earlier.
        roles = [("template" if role == "assistant" else role) if place < first else role for place, role in enumerate(roles)]
        most = explorer.limits.max_tokens + explorer.limits.max_new_tokens
        reading = read_tokens(explorer.model, explorer.sae, explorer.personas, ids, roles, max_tokens=most)
        said = reading_json(reading, explorer, role="assistant")
        for projection in said["projections"]:
            for name in ("cosine", "deviations"):
                projection[name] = projection[name] and projection[name][first:]
        yield {"quality": quality, **said, "tokens": said["tokens"][first:], "n_prompt": first}
