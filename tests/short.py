"""Shipped traits cut short, so that a command walks its whole path in seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from workbench.personas.trait_files import write_trait
from workbench.personas.traits import SPLITS, load_trait


def short_trait(
    name: str, folder: Path, *, n_questions: tuple[int, int, int] = (12, 4, 4), n_instructions: int = 3
) -> Path:
    """The trait under its own name in `folder`, with the first questions of each split and the first instructions."""
    trait = load_trait(name)
    asked = dict(zip(SPLITS, n_questions, strict=True))
    questions = tuple(question for split, n in asked.items() for question in trait.questions_of(split)[:n])
    return write_trait(replace(trait, instructions=trait.instructions[:n_instructions], questions=questions), folder)
