"""The texts that both models read: prompts with a reply and unrelated text, with the places to look at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.base.errors import WorkbenchError
from workbench.base.randomness import derive_seed
from workbench.base.store import content_hash, read_text
from workbench.models.generation import generate
from workbench.models.prompts import ChatTokens, with_response
from workbench.models.sampling import Sampling
from workbench.personas.reencoding import prompt_tokens

if TYPE_CHECKING:
    from workbench.models.model import Model

PLACES = ("prompt", "reply", "opening", "unrelated")
"""Last prompt token and mean over the reply's tokens, of the prompts; mean over the first five tokens and over all tokens, of the
unrelated text."""
N_OPENING = 5
MAX_TOKENS = 64


@dataclass(frozen=True)
class Prompt:
    """A user message, and the reply that both models read after it (None: the model before writes one)."""

    question: str
    reply: str | None = None


@dataclass(frozen=True)
class DiffText:
    """Token ids that both models read; `tokens.spans` has a range for each of PLACES that it is looked at."""

    id: str
    tokens: ChatTokens

    @classmethod
    def of(cls, ids: Sequence[int], spans: dict[str, tuple[int, int]]) -> DiffText:
        """The text of these ids, named by them; ranges without tokens are left out."""
        kept = {place: ((start, end),) for place, (start, end) in spans.items() if end > start}
        return cls(content_hash(list(ids))[:16], ChatTokens(tuple(ids), kept))


def prompt_texts(model: Model, prompts: Iterable[Prompt | str], *, max_tokens: int = MAX_TOKENS, seed: int = 0) -> list[DiffText]:
    """Prompts without a system message and their replies, each text once; missing replies are sampled from `model`.

    A reply is cut to `max_tokens`. The seed of a sampled one comes from its question, so that the order of the prompts does not
    matter.
    """
    asked = list(dict.fromkeys(one if isinstance(one, Prompt) else Prompt(one) for one in prompts))
    opened = [prompt_tokens(model, "", one.question) for one in asked]
    replies = _sampled(model, asked, opened, max_tokens, seed)
    found = []
    for index, (one, prompt) in enumerate(zip(asked, opened, strict=True)):
        ids = replies[index] if one.reply is None else model.tokenizer(one.reply, add_special_tokens=False)["input_ids"]
        whole, n = with_response(prompt, ids[:max_tokens]).ids, len(prompt.ids)
        found.append(DiffText.of(whole, {"prompt": (n - 1, n), "reply": (n, len(whole))}))
    return list({text.id: text for text in found}.values())


def _sampled(
    model: Model, asked: Sequence[Prompt], opened: Sequence[ChatTokens], max_tokens: int, seed: int
) -> dict[int, tuple[int, ...]]:  # fmt: skip
    missing = [index for index, one in enumerate(asked) if one.reply is None]
    if not missing:
        return {}
    seeds = [derive_seed("reply to read", seed, asked[index].question) for index in missing]
    replies = {}
    rows = generate(model, [opened[index] for index in missing], Sampling(max_new_tokens=max_tokens), row_seeds=seeds)
    for indices, made in rows:
        replies.update({missing[index]: one.response_ids for index, one in zip(indices, made, strict=True)})
    return replies


def unrelated_texts(model: Model, documents: Iterable[str], *, max_tokens: int = MAX_TOKENS) -> list[DiffText]:
    """Documents as token rows, each once, cut to `max_tokens`; those with fewer than six tokens are left out.

    Position 0 is an attention sink in most models: the opening is tokens 1 to 5.
    """
    tokenizer = model.tokenizer
    start = [tokenizer.bos_token_id] if tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id] else []
    rows = [[*start, *tokenizer(text, add_special_tokens=False)["input_ids"]][:max_tokens] for text in documents]
    texts = [
        DiffText.of(ids, {"opening": (1, 1 + N_OPENING), "unrelated": (1, len(ids))}) for ids in rows if len(ids) > N_OPENING
    ]
    return list({text.id: text for text in texts}.values())


def read_prompts(path: str | Path) -> list[Prompt]:
    """A user's prompts: plain text with one question a line, or JSONL with {"prompt", "reply"?} or {"messages": [...]} a line.

    Of messages the first user message and the assistant's answer to it are read. Raises WorkbenchError naming the line.
    """
    import json

    path, found = Path(path), []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        if path.suffix != ".jsonl":
            found.append(Prompt(line.strip()))
            continue
        try:
            found.append(_prompt(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError, StopIteration, RecursionError) as error:
            raise WorkbenchError(
                f"{path}, line {number}: {line[:60]!r} is no prompt",
                'one {"prompt": "...", "reply": "..."} (the reply may be missing) or {"messages": [...]} a line',
                "mend or drop the line",
            ) from error
    if not found:
        raise WorkbenchError(f"{path} holds no prompt", "at least one line", "write one question a line")
    return found


def _prompt(row: dict) -> Prompt:
    if "messages" in row:
        said = {role: next((m["content"] for m in row["messages"] if m["role"] == role), None) for role in ("user", "assistant")}
        row = {"prompt": said["user"], "reply": said["assistant"]}
    question, reply = row["prompt"], row.get("reply")
    if not isinstance(question, str) or not isinstance(reply, str | None):
        raise TypeError
    return Prompt(question, reply)
