"""Where an activation lives: a typed hook point, and the only place where foreign layer numbers are converted.

One convention everywhere: `blocks.15.hook_resid_post` is the residual stream after block 15, blocks counted from 0.
Other conventions differ by one row, and two of them hide a trap: the *last* row of transformers' `hidden_states`,
and of the files written by persona_vectors, is taken after the final norm. It belongs to no block.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..base.errors import WorkbenchError, unknown_name

RESIDUAL_POST = "hook_resid_post"
"""The residual stream after a block: the default site."""

SITES = ("hook_resid_pre", RESIDUAL_POST, "hook_attn_out", "hook_mlp_out")
"""Known sites: a block's input, its output, and what attention and MLP add to the residual stream."""

_CANONICAL = {"hook_in": "hook_resid_pre", "hook_out": RESIDUAL_POST}
"""The bridge's own names for two of the sites; its `hook_resid_*` are aliases."""

_PATTERN = re.compile(r"blocks\.(\d+)\.(\w+(?:\.\w+)*)")


@dataclass(frozen=True, order=True)
class HookPoint:
    """A place in a transformer, sorted by block.

    >>> HookPoint.parse("blocks.15.hook_resid_post")
    HookPoint(block=15, site='hook_resid_post')
    >>> str(HookPoint(3))
    'blocks.3.hook_resid_post'
    """

    block: int
    """Which block, counted from 0."""
    site: str = RESIDUAL_POST
    """Which tensor of the block, in TransformerLens' words; one of `SITES`."""

    def __post_init__(self) -> None:
        if self.block < 0:
            raise WorkbenchError(
                f"the hook point names block {self.block}",
                "a block counted from 0",
                "use for instance blocks.0.hook_resid_post",
            )
        if self.site not in SITES:
            raise unknown_name("site", self.site, SITES)

    def __str__(self) -> str:
        return f"blocks.{self.block}.{self.site}"

    @classmethod
    def parse(cls, text: str | HookPoint) -> HookPoint:
        """The hook point that a TransformerLens name means; canonical bridge names (`hook_out`) are understood too."""
        if isinstance(text, HookPoint):
            return text
        match = _PATTERN.fullmatch(text.strip()) if isinstance(text, str) else None  # a number in somebody's JSON
        if match is None:
            raise WorkbenchError(
                f"{text!r} is not a hook point",
                "a name such as blocks.15.hook_resid_post",
                "count blocks from 0",
            )
        return cls(int(match[1]), _CANONICAL.get(match[2], match[2]))


def residual_hooks(n_blocks: int) -> tuple[HookPoint, ...]:
    """The residual stream after every block, in order."""
    return tuple(HookPoint(block) for block in range(n_blocks))


def hidden_states_row(hook: HookPoint, *, n_blocks: int) -> int:
    """The row of transformers' `hidden_states` that holds `hook`: block output b is row b + 1, block input b is row b.

    Raises WorkbenchError for the output of the last block: row `n_blocks` is after the final norm.
    """
    if hook.site not in (RESIDUAL_POST, "hook_resid_pre"):
        raise WorkbenchError(
            f"{hook} is not in hidden_states", "a residual stream", "capture it with a hook instead"
        )
    row = hook.block + (hook.site == RESIDUAL_POST)
    if row >= n_blocks:
        raise WorkbenchError(
            f"{hook} is not in hidden_states: with {n_blocks} blocks, row {n_blocks} is after the final norm",
            f"a block below {n_blocks - 1}",
            "capture the last block with a hook instead",
        )
    return row


def from_hidden_states_row(row: int, *, n_blocks: int) -> HookPoint:
    """The hook point of a row of `hidden_states`: row 0 (the embeddings) is the input of block 0, row r block r - 1's output.

    Raises WorkbenchError for the last row (after the final norm) and for rows that do not exist.
    """
    if not 0 <= row < n_blocks:
        why = "is after the final norm" if row == n_blocks else "does not exist"
        raise WorkbenchError(
            f"row {row} of hidden_states {why} in a model of {n_blocks} blocks",
            f"a row from 0 to {n_blocks - 1}",
            "choose the output of an earlier block",
        )
    return HookPoint(0, "hook_resid_pre") if row == 0 else HookPoint(row - 1)


def from_persona_vectors_row(row: int, *, n_blocks: int) -> HookPoint:
    """The hook point of a row of a persona_vectors file [n_blocks + 1, d_model], which follows `hidden_states`."""
    return from_hidden_states_row(row, n_blocks=n_blocks)


def persona_vectors_row(hook: HookPoint, *, n_blocks: int) -> int:
    """The row of a persona_vectors file that holds `hook`."""
    return hidden_states_row(hook, n_blocks=n_blocks)


def from_one_indexed_layer(layer: int) -> HookPoint:
    """The output of the `layer`-th block counted from 1 (papers that say "layer 16" for block 15)."""
    if layer < 1:
        raise WorkbenchError(
            f"layer {layer} is not counted from 1", "a layer of at least 1", "add 1 to a 0-indexed block"
        )
    return HookPoint(layer - 1)


def one_indexed_layer(hook: HookPoint) -> int:
    """The number of the hook's block counted from 1."""
    return hook.block + 1
