"""How a page is made again: the command with the settings that decide its numbers, and what no command says."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError

if TYPE_CHECKING:
    from workbench.reports.content import Report

_SETTINGS = {
    "--seed": ("seed",),
    "--samples": ("config", "design", "n_samples"),
    "--max-new-tokens": ("config", "design", "sampling", "max_new_tokens"),
    "--batch-size": ("config", "design", "batch_size"),
    "--judge": ("config", "judge", "name"),
    "--judge-model": ("config", "judge", "model"),
}
_ONLY_IN_PYTHON = ("n_extraction", "n_evaluation", "n_instructions")


def command(reports: Sequence[Report]) -> str:
    """The command line that makes these reports again, with every setting that all of their vectors were made with."""
    first = reports[0]
    words = ["workbench", "report", *(one.trait for one in reports), "--model", str(first.vector.model.get("name", "MODEL"))]
    words += ["--sae", str(first.parts.sae.get("id", "SAE"))]
    for flag, known in _settings(reports).items():
        words += [flag, *known] if len(known) == 1 and known != {"None"} else []
    return shlex.join(words)


def _settings(reports: Sequence[Report]) -> dict[str, set[str]]:
    """{flag: what it was for the vectors}; more than one where they differ."""
    return {flag: {str(_at(one.vector.provenance, place)) for one in reports} for flag, place in _SETTINGS.items()}


def command_notes(reports: Sequence[Report]) -> list[str]:
    """Why the command alone does not give this page: vectors from elsewhere, a design set in Python, traits of the user's."""
    own = [one.trait for one in reports if not _shipped(one.trait)]
    foreign = [one.trait for one in reports if not _at(one.vector.provenance, ("config", "design"))]
    smaller = [
        one.trait for one in reports
        if any(_at(one.vector.provenance, ("config", "design", name)) is not None for name in _ONLY_IN_PYTHON)
    ]  # fmt: skip
    differing = [flag for flag, known in _settings(reports).items() if len(known) > 1]
    told = (
        (differing, "The traits differ in {}: run each with its own first (the provenance of its vector says which)."),
        (own, "{} is not found by name here: give the folder of the trait."),
        (foreign, "How the replies behind {} were sampled is unknown: the command samples its own."),
        (smaller, "{} was made in Python with fewer questions or instructions than the command takes."),
    )
    return [text.format(", ".join(names)) for names, text in told if names]


def _at(value: Any, place: Sequence[str]) -> Any:
    for name in place:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _shipped(trait: str) -> bool:
    from workbench.personas.traits import trait_path

    try:
        return bool(trait_path(trait))
    except WorkbenchError:
        return False
