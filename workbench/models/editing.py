"""Changing activations while the model runs, at exactly the tokens that are meant; what nothing but a context puts in force.

`steering` builds every kind of edit on `editing`; `adding` is what the layers below it need.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..base.errors import WorkbenchError
from .capture import sink_limits
from .hookpoints import HookPoint
from .scopes import PassWatch, Places, checked_scope

if TYPE_CHECKING:
    from .model import Model


@contextlib.contextmanager
def editing(
    model: Model,
    functions: Mapping[HookPoint, Callable[[Tensor, Places], Tensor]],
    *,
    prompt_width: int | Sequence[int] | None = None,
) -> Iterator[None]:
    """A context in which h [batch, seq, d_model] becomes function(h, places) at each hook, at every token but sinks.

    `places` says which tokens the pass holds (`models.scopes`, also for `prompt_width`). A sink is a token whose norm
    exceeds ten of the model's median norms at the hook; it stays as it is. Hooks are removed on leaving, also after an exception.
    """
    hooks = list(functions)
    limits = dict(zip(hooks, sink_limits(model, hooks).tolist(), strict=True))
    watch = PassWatch(model, prompt_width)

    def guarded(hook: HookPoint) -> Callable[[Tensor], Tensor | None]:
        def edit(h: Tensor) -> Tensor | None:
            changed = functions[hook](h, watch.of(h))
            sink = h.detach().float().norm(dim=-1, keepdim=True) > limits[hook]
            return None if changed is h else torch.where(sink, h, changed)

        return edit

    with watch.attached(), model.hooked({hook: guarded(hook) for hook in hooks}):
        yield


def adding(
    model: Model,
    hook: HookPoint,
    delta: Tensor,
    *,
    scope: str = "all",
    prompt_width: int | Sequence[int] | None = None,
) -> contextlib.AbstractContextManager[None]:
    """A context in which h becomes h + delta at `hook`: delta [d_model], or [n_rows, d_model] with one row per sequence.

    Rows are the prompts of our own generation, also as it sorts and drops them. `scope` and `prompt_width` as in
    `models.scopes`. Sign: toward delta.
    """
    _check_width(model, hook, delta)
    checked_scope(scope)
    rows = delta if delta.dim() == 2 else delta[None]

    def add(h: Tensor, places: Places) -> Tensor:
        mine = rows if len(rows) == 1 else rows[places.rows(len(rows))]
        return torch.where(places.within(scope).to(h.device)[..., None], h + mine[:, None].to(h), h)

    return editing(model, {hook: add}, prompt_width=prompt_width)


def dose_in_norms(delta: Tensor, model: Model, hook: HookPoint) -> float:
    """||delta|| / the median non-sink token norm at `hook`: how large an added vector is by the model's own measure."""
    return float(delta.float().norm()) / float(model.norm_medians([hook])[0])


def delta_for_dose(direction: Tensor, dose: float, model: Model, hook: HookPoint) -> Tensor:
    """The vector along `direction` [d_model] whose length is `dose` median token norms at `hook` (negative: against it)."""
    return _unit(model, hook, direction) * (dose * float(model.norm_medians([hook])[0]))


def _unit(model: Model, hook: HookPoint, direction: Tensor) -> Tensor:
    _check_width(model, hook, direction[None])
    norm = direction.float().norm()
    if not torch.isfinite(norm) or norm == 0:
        raise WorkbenchError(
            f"the direction for {hook} has length {float(norm)}",
            "a direction of finite length above 0",
            "check where it came from",
        )
    return direction.float() / norm


def _check_width(model: Model, hook: HookPoint, vector: Tensor) -> None:
    if vector.dim() not in (1, 2) or vector.shape[-1] != model.d_model or not len(vector):
        raise WorkbenchError(
            f"the vector for {hook} has shape {tuple(vector.shape)}",
            f"{model.name}'s width: [{model.d_model}] or [batch, {model.d_model}]",
            "use a vector that was computed on this model",
        )
