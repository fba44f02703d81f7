"""Token ids as readable strings that join to the text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

REPLACEMENT = "�"


def special_ids(tokenizer: Any) -> list[int]:
    """The ids of all special tokens, those of the chat template included, in ascending order."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return sorted({*tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)})


def token_strings(tokenizer: Any, ids: Sequence[int]) -> tuple[str, ...]:
    """One string per id; joined, they are the text.

    A character spread over several tokens stands with the last of them (the others are empty), and the leading space
    that SentencePiece tokenizers drop from a lone token is kept.
    """
    strings: list[str] = []
    pending: list[int] = []
    for token in ids:
        pending.append(int(token))
        text = _decoded(tokenizer, pending)
        if text.endswith(REPLACEMENT) and len(pending) < 5:
            strings.append("")
            continue
        strings.append(text)
        pending = []
    if pending and strings:
        strings[-1] = _decoded(tokenizer, pending)
    return tuple(strings)


def _decoded(tokenizer: Any, ids: list[int]) -> str:
    text = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    first = tokenizer.convert_ids_to_tokens(ids[0])
    dropped = isinstance(first, str) and first.startswith("▁") and not text.startswith(" ")
    return " " + text if dropped else text
