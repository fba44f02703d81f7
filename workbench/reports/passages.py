"""Contexts as they are shown: text with the tokens on which a feature fires, cut around its peak."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.reports.text import clean, clean_token

if TYPE_CHECKING:
    from workbench.labeling.evidence import Context


FAINT = 0.05
"""Tokens whose activation is below this part of the strongest one are not marked: their shading could not be seen."""


@dataclass(frozen=True)
class Piece:
    """A run of text in a context: plain when `strength` is None, else shaded by strength in [0, 1]."""

    text: str
    strength: float | None = None
    value: str = ""
    peak: bool = False


@dataclass(frozen=True)
class Passage:
    """One context as it is shown; without pieces its text may not be passed on."""

    pieces: tuple[Piece, ...]
    source: str
    value: str


def passage(context: Context, *, window: int, highest: float) -> Passage:
    """One context, cut around its peak; neighbouring tokens on which the feature is silent are joined.

    `window` tokens either side of the peak, `highest` the activation that is shaded in full.
    """
    first, last = max(0, context.peak - window), context.peak + window + 1
    begins_inside = first > 0 or context.position > context.peak
    pieces: list[Piece] = [Piece("…")] if begins_inside and context.tokens else []
    for index, (token, value) in enumerate(zip(context.tokens, context.values, strict=False)):
        if first <= index < last:
            _append(pieces, clean_token(token), float(value), index == context.peak, highest)
    if last < len(context.tokens):
        pieces.append(Piece("…"))
    source = f"{context.source} · {context.document[:12]}"
    return Passage(tuple(pieces), clean(source, limit=90), f"{context.peak_value:.3g}")


def _append(pieces: list[Piece], text: str, value: float, peak: bool, highest: float) -> None:
    if value < FAINT * highest and not peak:
        silent = pieces and pieces[-1].strength is None
        pieces[-1:] = [Piece(pieces[-1].text + text)] if silent else [*pieces[-1:], Piece(text)]
        return
    pieces.append(Piece(text, round(min(1.0, max(0.0, value / highest)), 2), f"{value:.3g}", peak))
