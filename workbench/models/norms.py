"""The typical size of a token's activation at each hook point, measured on a neutral text that ships with the package."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..base.errors import WorkbenchError
from .halving import halving
from .hookpoints import HookPoint
from .memory import fitting_tokens

if TYPE_CHECKING:
    from .model import Model

SINK_FACTOR = 10.0
"""A token whose norm exceeds this many medians is an attention sink and no evidence of anything."""

WINDOW = 128
"""Tokens per row of the neutral text."""


def neutral_text() -> str:
    """The fixed text: everyday subjects, no persona, written for this package."""
    return (resources.files("workbench.models") / "data" / "neutral.txt").read_text(encoding="utf-8")


def measure_norm_medians(model: Model, hooks: Sequence[HookPoint]) -> dict[HookPoint, float]:
    """The median token norm at each of `hooks` on the neutral text, position 0 and sinks left out."""
    from .hooks import check_hooks

    check_hooks(model, hooks)
    rows = neutral_rows(model)
    together = max(1, fitting_tokens(model, rows.shape[1], rows.numel()) // rows.shape[1])
    with model.without_hooks():
        parts = [part.tolist() for part in torch.arange(len(rows)).split(together)]
        found = [norms for _, norms in halving(parts, lambda part: _norms(model, rows[part], hooks))]
    norms = {hook: torch.cat([part[hook] for part in found]) for hook in hooks}
    for hook in hooks:
        if bool((bad := ~torch.isfinite(norms[hook])).any()):
            raise not_finite(model, f"{int(bad.sum())} of {len(bad)} tokens of the neutral text at {hook}")
    return {hook: robust_median(norms[hook]) for hook in hooks}


def not_finite(model: Model, where: str) -> WorkbenchError:
    """The error for numbers inside `model` that are NaN or infinite; they are no attention sinks and nothing to average."""
    half = model.dtype == torch.float16
    other = "load it with --dtype bfloat16 or float32: float16 ends at 65,504"
    remedy = other if half else "check its weights, and the dose of edits"
    return WorkbenchError(f"{model.name} in {str(model.dtype).removeprefix('torch.')} gives NaN or infinity: {where}",
                          "finite activations", remedy)  # fmt: skip


def neutral_rows(model: Model) -> Tensor:
    """The neutral text as full rows [n, WINDOW], each behind the start token where the tokenizer wants one."""
    tokenizer = model.tokenizer
    ids = tokenizer(neutral_text(), add_special_tokens=False)["input_ids"]
    wants_start = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    start = [tokenizer.bos_token_id] if wants_start else []
    width = min(WINDOW, len(ids))
    return torch.tensor([start + ids[at : at + width] for at in range(0, len(ids) - width + 1, width)])


def _norms(model: Model, rows: Tensor, hooks: Sequence[HookPoint]) -> dict[HookPoint, Tensor]:
    norms: dict[HookPoint, Tensor] = {}

    def keep(hook: HookPoint):
        return lambda tensor: norms.__setitem__(hook, tensor.detach().float().norm(dim=-1)[:, 1:].flatten().cpu())

    _collect(model, rows, {hook: keep(hook) for hook in hooks})
    return norms


def _collect(model: Model, rows: Tensor, functions: dict) -> None:
    # Edits in force stay silent (`without_hooks`), so these few functions go straight onto the modules.
    from .hooks import on_input, on_output, site_module

    handles = []
    try:
        for hook, function in functions.items():
            module, side = site_module(model.blocks[hook.block], hook.site)
            handles.append((on_input if side == "input" else on_output)(module, function))
        with torch.no_grad():
            model.decoder(input_ids=rows.to(model.device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()


def robust_median(norms: Tensor) -> float:
    """The median of `norms` after dropping those above ten times the first median."""
    first = norms.median()
    return float(norms[norms <= SINK_FACTOR * first].median())
