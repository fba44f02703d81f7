"""The evaluation on disk: merged into the SAE's card.json and README.md, or put into a folder of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError
from workbench.base.store import atomic_write, read_json, write_json
from workbench.saes.evaluation.gate import FROM_EVALUATION, filled_in
from workbench.saes.evaluation.markdown import card_markdown, opening

if TYPE_CHECKING:
    from workbench.saes.interface import SparseAutoencoder

CARD, README = "card.json", "README.md"
BEGIN, END = "<!-- evaluation card: begin -->", "<!-- evaluation card: end -->"
HEADLINES = ("variance_explained", "l0", "ce_recovered", "kl", "cosine", "dead_share", "dense_share")


def check_writable(sae: SparseAutoencoder) -> None:
    """WorkbenchError unless the SAE came from a folder that can be written to."""
    if sae.folder is None or not Path(sae.folder).is_dir():
        raise WorkbenchError(f"{sae.id} has no folder", "an SAE on the shelf or in a folder", "use --out instead of --write-card")
    if not os.access(sae.folder, os.W_OK):
        raise WorkbenchError(f"{sae.folder} cannot be written to", "a writable folder", "use --out instead of --write-card")


def write_evaluation(
    sae: SparseAutoencoder, value: Mapping[str, Any], *, out: Path | None, write_card: bool
) -> list[Path]:
    """The files written: card.json and README.md in `out`, and with `write_card` in the SAE's own folder."""
    written: list[Path] = []
    folders = ([Path(out)] if out is not None else []) + ([Path(sae.folder)] if write_card and sae.folder else [])
    for folder in folders:
        known = read_json(folder / CARD) if (folder / CARD).is_file() else dict(sae.card)
        written.append(write_json(folder / CARD, merged(known, value)))
        before = (folder / README).read_text(encoding="utf-8") if (folder / README).is_file() else opening(sae)
        written.append(atomic_write(folder / README, with_section(before, card_markdown(value))))
    return written


def merged(card: Mapping[str, Any], value: Mapping[str, Any]) -> dict[str, Any]:
    """The card with the evaluation under its own key; what training measured stays, figures that it lacks are filled in.

    Those that an evaluation filled in are listed in the card, and the next evaluation's take their place. An evaluation on
    another model than the SAE was trained on fills in nothing.
    """
    gone = {*filled_in(card), *_filled_unlisted(card), FROM_EVALUATION}
    own = {key: figure for key, figure in card.items() if figure is not None and key not in gone}
    measured = {} if value.get("trained_on_this_model") is False else value["headline"]
    filled = {name: measured[name] for name in HEADLINES if measured.get(name) is not None and name not in own}
    return {**filled, **own, **({FROM_EVALUATION: list(filled)} if filled else {}), "evaluation": dict(value)}


def _filled_unlisted(card: Mapping[str, Any]) -> list[str]:
    """What an evaluation filled in before such figures were listed: those that equal its own (but training's dead features)."""
    evaluation = card.get("evaluation")
    headline = evaluation.get("headline") if isinstance(evaluation, Mapping) else None
    if FROM_EVALUATION in card or not isinstance(headline, Mapping):
        return []
    return [name for name in HEADLINES if name != "dead_share" and name in headline and card.get(name) == headline[name]]


def with_section(text: str, section: str) -> str:
    """`text` with the section between its marks replaced, or put at the end."""
    block = f"{BEGIN}\n{section.strip()}\n{END}\n"
    if BEGIN in text and END in text:
        return text[: text.index(BEGIN)] + block + text[text.index(END) + len(END) :].lstrip("\n")
    return f"{text.rstrip()}\n\n{block}" if text.strip() else block
