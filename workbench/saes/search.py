"""Looking for an SAE on the shelf and in the SAELens registry, and what of it lies in the local hub cache."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from workbench.base.errors import WorkbenchError
from workbench.saes.published import PublishedSae, published, thousands
from workbench.saes.registry import SaeEntry, list_saes

SHELF, REGISTRY = "shelf", "registry"


@dataclass(frozen=True, kw_only=True)
class Query:
    """What is looked for; everything that is given must hold. Texts match in part and in any case."""

    words: tuple[str, ...] = ()
    """Each must occur in the id, the model, the hook, or the repository."""
    model: str | None = None
    """In the model's name."""
    site: str | None = None
    """A hook point (blocks.15.hook_resid_post), a kind of site (resid_post), or a block (15)."""
    width: str | None = None
    """Features: a number, 16k, or a range such as 16k-65k."""
    l0: str | None = None
    """Features that fire on a token: a number (met within a tenth), or a range such as 30-80."""

    def __post_init__(self) -> None:
        for name, value in (("--width", self.width), ("--l0", self.l0)):
            if value is not None:
                span(value, name)


@dataclass(frozen=True)
class Hit:
    """One SAE that was found. `files` are those in its repository; on the shelf there is nothing to download."""

    id: str
    source: str
    model: str
    hook: str | None
    d_sae: int | None
    l0: float | None
    readable: bool
    folder: str | None = None
    published: PublishedSae | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """As JSON types, with what is cached and what would be downloaded."""
        facts = {"id": self.id, "source": self.source, "model": self.model, "hook": self.hook, "d_sae": self.d_sae}
        files = [] if self.published is None else local_files(self.published)
        cached = all(file["cached"] for file in files)
        return {**facts, "l0": self.l0, "readable": self.readable, "folder": self.folder, "cached": cached,
                "repo": self.published.repo if self.published else None, "files": files,
                "download": [file["file"] for file in files if not file["cached"]]}  # fmt: skip


def search(query: Query, *, registry: bool = True) -> list[Hit]:
    """The hits, the shelf's first, each source in its own order; without SAELens (or `registry`) the shelf's alone."""
    hits = [hit for hit in map(_on_shelf, list_saes()) if _fits(hit, query)]
    return hits + [hit for hit in _in_registry() if _fits(hit, query)] if registry else hits


def _in_registry() -> Iterator[Hit]:
    for entry in published():
        yield Hit(entry.id, REGISTRY, entry.model, entry.hook, entry.d_sae, entry.l0, entry.readable, published=entry)


def _on_shelf(entry: SaeEntry) -> Hit:
    l0 = entry.card.get("l0")
    stated = float(l0) if isinstance(l0, (int, float)) else None
    return Hit(entry.id, SHELF, entry.model, str(entry.hook), entry.d_sae, stated, True, str(entry.folder))


def _fits(hit: Hit, query: Query) -> bool:
    repo = hit.published.repo if hit.published else ""
    text = " ".join((hit.id, hit.model, hit.hook or "", repo)).lower()
    return (
        all(word.lower() in text for word in query.words)
        and (query.model is None or query.model.lower() in hit.model.lower())
        and (query.site is None or _at(query.site.strip().lower(), hit.hook))
        and (query.width is None or _within(hit.d_sae, span(query.width, "--width")))
        and (query.l0 is None or _within(hit.l0, span(query.l0, "--l0", slack=0.1)))
    )


def _at(site: str, hook: str | None) -> bool:
    if hook is None:
        return False
    if site.isdecimal():
        return hook.startswith(f"blocks.{site}.")
    return site == hook if site.startswith("blocks.") else site in hook


def _within(value: float | None, bounds: tuple[float, float]) -> bool:
    return value is not None and bounds[0] <= value <= bounds[1]


def span(text: str, name: str, *, slack: float = 0.0) -> tuple[float, float]:
    """(least, most) of "50", "16k" or "30-80"; a single number is met within `slack` of it."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)(k?)\s*(?:(?:-|\.\.)\s*(\d+(?:\.\d+)?)(k?))?\s*", text, re.IGNORECASE)
    if match is None:
        raise WorkbenchError(f"{name} is {text!r}", "a number, 16k, or a range such as 30-80", f"correct {name}")
    least = _value(match[1], match[2])
    most = _value(match[3], match[4]) if match[3] else least * (1 + slack)
    return (least if match[3] else least * (1 - slack)), most


def _value(number: str, unit: str) -> float:
    """What is meant: 16k is a power of two, half a thousand is 512."""
    if not unit:
        return float(number)
    whole = float(number) >= 1 and float(number).is_integer()
    return float(thousands(int(float(number)))) if whole else float(round(float(number) * 1024))


def local_files(entry: PublishedSae) -> list[dict[str, Any]]:
    """{"repo", "file", "cached", "bytes", "path"} of each file that loading reads; the size is known once it is cached."""
    from pathlib import Path

    from huggingface_hub import try_to_load_from_cache

    found = []
    for name in entry.files:
        place = try_to_load_from_cache(entry.repo, name)
        path = Path(place) if isinstance(place, str) else None
        size = path.stat().st_size if path is not None and path.is_file() else None
        found.append({"repo": entry.repo, "file": name, "cached": size is not None, "bytes": size,
                      "path": None if path is None else str(path)})  # fmt: skip
    return found
