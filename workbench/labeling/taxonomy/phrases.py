"""Written phrases in the manner of feature labels, each with its category: examples of it, and what confidence is fitted on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.store import content_hash, read_yaml
from workbench.labeling.labels import UNCLEAR

if TYPE_CHECKING:
    from workbench.personas.traits import Category, Trait

PHRASES = Path(__file__).parent / "data" / "phrases.yaml"


def assignable(trait: Trait) -> tuple[Category, ...]:
    """The categories that a label can be assigned to: all but "unclear", which says that nobody could tell."""
    return tuple(category for category in trait.taxonomy if category.id != UNCLEAR)


def category_phrases(trait: Trait) -> dict[str, tuple[str, ...]]:
    """Category id -> its example phrases, in the order of the taxonomy.

    Empty unless there are phrases for every category of the trait: a taxonomy of one's own is told apart by its descriptions
    and words alone, so that no category has an advantage.
    """
    known = {**_book()["every_trait"], **_book()["traits"].get(trait.name, {})}
    ids = [category.id for category in assignable(trait)]
    return {name: tuple(known[name]) for name in ids} if all(name in known for name in ids) else {}


def none_phrases(trait: Trait) -> tuple[str, ...]:
    """Phrases that belong to no category of the trait: of none at all, then those of other traits or harmless near misses."""
    found = _book()["none"]
    return (*found["every_trait"], *found.get(trait.name, ()))


def taxonomy_hash(trait: Trait) -> str:
    """The content hash of the taxonomy alone."""
    return content_hash([asdict(category) for category in trait.taxonomy])


@lru_cache(maxsize=1)
def _book() -> Mapping[str, Any]:
    return read_yaml(PHRASES)
