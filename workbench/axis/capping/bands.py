"""Bands of blocks to cap in."""

from __future__ import annotations

from workbench.base.errors import WorkbenchError, unknown_name
from workbench.models.hookpoints import HookPoint
from workbench.personas.vectors import PersonaVector

AROUND = 2
"""Blocks on either side of the axis' own block in the band "around"."""
PUBLISHED = (46 / 64, 54 / 64)
"""The published band for Qwen3-32B, blocks 46-53 of 64, as shares of the depth (Lu et al. 2026, arXiv 2601.10387)."""
NAMES = ("own", "around", "published", "early", "middle", "late", "all")


def bands(axis: PersonaVector, n_blocks: int) -> dict[str, tuple[HookPoint, ...]]:
    """{name: hooks in order}: the axis' own block, two blocks around it, the published band by depth, thirds, all blocks.

    Only hooks that the axis has a direction at; a band without any is left out.
    """
    own, third = axis.hook.block, n_blocks / 3
    inside = {
        "own": lambda block: block == own,
        "around": lambda block: abs(block - own) <= AROUND,
        "published": lambda block: round(PUBLISHED[0] * n_blocks) <= block < max(
            round(PUBLISHED[1] * n_blocks), round(PUBLISHED[0] * n_blocks) + 1
        ),
        "early": lambda block: block < third,
        "middle": lambda block: third <= block < 2 * third,
        "late": lambda block: block >= 2 * third,
        "all": lambda _: True,
    }  # fmt: skip
    there = sorted(hook for hook in axis.hooks if hook.site == axis.hook.site and hook.block < n_blocks)
    found = {name: tuple(hook for hook in there if chosen(hook.block)) for name, chosen in inside.items()}
    return {name: hooks for name, hooks in found.items() if hooks}


def band(axis: PersonaVector, n_blocks: int, text: str) -> tuple[HookPoint, ...]:
    """The band called `text`, or blocks "20-24" (both ends included)."""
    known = bands(axis, n_blocks)
    if text in known:
        return known[text]
    first, dash, last = text.partition("-")
    if not (dash and first.isdigit() and last.isdigit()):
        raise unknown_name("band of blocks", text, [*known, "FIRST-LAST"])
    hooks = tuple(hook for hook in known.get("all", ()) if int(first) <= hook.block <= int(last))
    if not hooks:
        raise WorkbenchError(f"the blocks {text}", f"blocks from 0 to {n_blocks - 1} that the axis has directions at",
                             "choose others")  # fmt: skip
    return hooks
