"""Changing activations while the model runs: adding a direction, removing it, clamping it, or any function.

Each is a context manager over `Model.hooked`: nothing stays behind after it, also after an exception. Projections are
on the unit direction, so the length of the direction that is passed does not matter for `ablating` and `clamping`.
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
from .scopes import PassWatch, Places

if TYPE_CHECKING:
    from .model import Model

Edit = contextlib.AbstractContextManager[None]


def replacing(model: Model, hook: HookPoint, fn: Callable[[Tensor], Tensor]) -> Edit:
    """A context in which the activations h [batch, seq, d_model] at `hook` are replaced by fn(h), of the same shape."""

    def replace(tensor: Tensor) -> Tensor:
        changed = fn(tensor)
        if changed.shape != tensor.shape:
            raise WorkbenchError(
                f"the replacement at {hook} has shape {tuple(changed.shape)}",
                f"the shape of the activations, {tuple(tensor.shape)}",
                "return a tensor of the same shape",
            )
        return changed.to(tensor.dtype)

    return model.hooked({hook: replace})


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


def adding(model: Model, hook: HookPoint, delta: Tensor, positions: Tensor | None = None) -> Edit:
    """A context in which h becomes h + delta at `hook`: delta [d_model], or [batch, d_model] with one row per sequence.

    `positions` [batch, seq] (bool or 0/1) restricts it to some tokens; while generating token by token, where a pass
    has other positions than that mask, leave it out. Sign: toward delta.
    """
    _check_width(model, hook, delta, allowed=(1, 2))

    def add(tensor: Tensor) -> Tensor:
        added = delta.to(tensor.device, tensor.dtype)
        added = added if delta.dim() == 1 else _rows(added, tensor, hook)[:, None, :]
        return tensor + added if positions is None else tensor + added * _mask(positions, tensor, hook)

    return replacing(model, hook, add)


def ablating(model: Model, hook: HookPoint, direction: Tensor) -> Edit:
    """A context in which h loses its part along `direction` [d_model]: h - <h, u> u, with u the unit direction."""
    return clamping(model, hook, direction, 0.0)


def clamping(model: Model, hook: HookPoint, direction: Tensor, value: float) -> Edit:
    """A context in which the coordinate of h along the unit `direction` is `value`: h + (value - <h, u>) u."""
    unit = _unit(model, hook, direction)

    def clamp(tensor: Tensor) -> Tensor:
        u = unit.to(tensor.device)
        wide = tensor.float()
        return wide + (value - wide @ u)[..., None] * u

    return replacing(model, hook, clamp)


def dose_in_norms(delta: Tensor, model: Model, hook: HookPoint) -> float:
    """||delta|| / the median non-sink token norm at `hook`: how large an added vector is by the model's own measure."""
    return float(delta.float().norm()) / float(model.norm_medians([hook])[0])


def delta_for_dose(direction: Tensor, dose: float, model: Model, hook: HookPoint) -> Tensor:
    """The vector along `direction` [d_model] whose length is `dose` median token norms at `hook` (negative: against it)."""
    return _unit(model, hook, direction) * (dose * float(model.norm_medians([hook])[0]))


def _unit(model: Model, hook: HookPoint, direction: Tensor) -> Tensor:
    _check_width(model, hook, direction, allowed=(1,))
    norm = direction.float().norm()
    if not torch.isfinite(norm) or norm == 0:
        raise WorkbenchError(
            f"the direction for {hook} has length {float(norm)}",
            "a direction of finite length above 0",
            "check where it came from",
        )
    return direction.float() / norm


def _check_width(model: Model, hook: HookPoint, vector: Tensor, *, allowed: tuple[int, ...]) -> None:
    if vector.dim() not in allowed or vector.shape[-1] != model.d_model:
        raise WorkbenchError(
            f"the vector for {hook} has shape {tuple(vector.shape)}",
            f"{model.name}'s width: [{model.d_model}]"
            + (f" or [batch, {model.d_model}]" if 2 in allowed else ""),
            "use a vector that was computed on this model",
        )


def _rows(delta: Tensor, tensor: Tensor, hook: HookPoint) -> Tensor:
    if delta.shape[0] != tensor.shape[0]:
        raise WorkbenchError(
            f"{delta.shape[0]} vectors for {hook} met a batch of {tensor.shape[0]} sequences",
            "one vector per sequence",
            "pass one vector [d_model] for all of them, or run the batch that they were made for",
        )
    return delta


def _mask(positions: Tensor, tensor: Tensor, hook: HookPoint) -> Tensor:
    if positions.shape != tensor.shape[:2]:
        raise WorkbenchError(
            f"the position mask for {hook} has shape {tuple(positions.shape)}",
            f"[batch, seq] = {tuple(tensor.shape[:2])}",
            "make it from the same padded batch; while generating, leave it out",
        )
    return positions.to(tensor.device, tensor.dtype)[..., None]
