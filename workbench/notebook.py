"""Notebook functions that join layers: `wb.extract` knows the SAEs on the shelf, which `personas` must not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.models.hookpoints import HookPoint
    from workbench.models.loading import Model
    from workbench.personas.traits import Trait
    from workbench.personas.vectors import PersonaVector


def extract(
    trait: str | Path | Trait, model: Model, *, hook: HookPoint | str | None = None, **options: Any
) -> PersonaVector:
    """The persona vector of `trait`, reported on at `hook`; all other options as in `personas.extraction.extract`.

    `hook=None` takes the site of the first SAE on the shelf that reads this model, so that the vector can be decomposed;
    without such an SAE, or with hook="auto", the block is chosen by cross-validation inside the extraction questions.
    Token activations are stored at every site that has an SAE on the shelf.
    """
    from workbench.models.hookpoints import HookPoint
    from workbench.personas.extraction import extract as extract_vector
    from workbench.saes.registry import list_saes

    sites = list(dict.fromkeys(entry.hook for entry in list_saes() if entry.model == model.name))
    if hook is None and sites:
        hook = sites[0]
    chosen = None if hook is None or hook == "auto" else HookPoint.parse(hook)
    stored = list(dict.fromkeys([*sites, *([chosen] if chosen else [])])) or None
    return extract_vector(trait, model, hook=chosen, **{"token_hooks": stored, **options})
