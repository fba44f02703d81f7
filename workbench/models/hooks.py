"""Attaching functions to hook points, and stopping a forward pass early.

The pass always runs on the plain transformers modules. With TransformerLens installed, each hooked site hands its
tensor to the bridge's own HookPoint module of that name, where the functions are registered: TransformerLens'
semantics (and hooks that users put on the bridge) at the speed of the bare model. Running the bridge's rewrapped
modules instead gives the same numbers and costs about 20% on a CPU, because they recompute attention and norms in
hookable pieces.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..base.errors import WorkbenchError
from .hookpoints import HookPoint

if TYPE_CHECKING:
    from .model import Model

HookFunction = Callable[[Tensor], Tensor | None]


class StopForward(Exception):
    """Ends a forward pass once the last block that is needed has run; never seen by callers of `Model`."""


@contextlib.contextmanager
def attached(
    model: Model, hooks: Mapping[HookPoint, HookFunction], *, stop_after: int | None = None
) -> Iterator[None]:
    """A context in which `hooks` fire and no block after `stop_after` runs; both are undone on leaving it."""
    check_hooks(model, hooks, stop_after)
    with contextlib.ExitStack() as stack, contextlib.suppress(StopForward):
        for hook, function in hooks.items():
            _attach(model, hook, function, stack)
        if stop_after is not None:
            stack.callback(_stop_before(model, stop_after + 1).remove)
        yield


def check_hooks(model: Model, hooks: Iterable[HookPoint], stop_after: int | None = None) -> None:
    """Raise WorkbenchError unless the model has the blocks of `hooks`, and a pass that stops after a block reaches them."""
    hooks = list(hooks)
    deepest = max((hook.block for hook in hooks), default=0)
    last = model.n_blocks - 1
    if max(deepest, stop_after or 0) > last:
        found = max(deepest, stop_after or 0)
        raise WorkbenchError(
            f"block {found} was asked for but {model.name} has {model.n_blocks} blocks",
            f"a block from 0 to {last}",
            f"choose for instance blocks.{last // 2}.hook_resid_post",
        )
    if stop_after is not None and hooks and deepest > stop_after:
        raise WorkbenchError(
            f"a hook at block {deepest} never fires when the pass stops after block {stop_after}",
            "hooks at or before the last block that runs",
            "raise stop_after",
        )


def _attach(model: Model, hook: HookPoint, function: HookFunction, stack: contextlib.ExitStack) -> None:
    def guarded(tensor: Tensor) -> Tensor | None:
        return None if model.hooks_suspended else function(tensor)

    module, side = site_module(model.blocks[hook.block], hook.site)
    register = on_input if side == "input" else on_output
    if model.backend == "transformer_lens":
        point = model.hook_points[str(hook)]
        stack.callback(_on_point(point, guarded))
        stack.callback(_feeding(model, hook, lambda: register(module, point)))
    else:
        stack.callback(register(module, guarded).remove)


def _on_point(point: Any, function: HookFunction) -> Callable[[], None]:
    """Registers `function` on a TransformerLens HookPoint; returns what takes it off again."""
    point.add_hook(lambda tensor, hook: function(tensor))
    handle = point.fwd_hooks[-1]

    def remove() -> None:
        handle.hook.remove()
        if handle in point.fwd_hooks:  # a user's bridge.reset_hooks() may have been there first
            point.fwd_hooks.remove(handle)

    return remove


def _feeding(model: Model, hook: HookPoint, register: Callable[[], Any]) -> Callable[[], None]:
    """Sees that the site's tensor goes through its HookPoint once per pass, however many functions are registered there."""
    fed = model.fed_points
    handle, users = fed.get(hook) or (register(), 0)
    fed[hook] = (handle, users + 1)

    def release() -> None:
        handle, users = fed.pop(hook)
        if users > 1:
            fed[hook] = (handle, users - 1)
        else:
            handle.remove()

    return release


def site_module(block: nn.Module, site: str) -> tuple[nn.Module, str]:
    """The module of a decoder block whose "input" or "output" is `site`.

    In families that normalise what attention and MLP add (Gemma 2 and 3), the site is after that norm.
    """
    if site == "hook_resid_pre":
        return block, "input"
    if site == "hook_resid_post":
        return block, "output"
    sandwich = hasattr(block, "post_feedforward_layernorm")
    names = {
        "hook_attn_out": ["post_attention_layernorm"] if sandwich else ["self_attn", "attn", "attention"],
        "hook_mlp_out": ["post_feedforward_layernorm"] if sandwich else ["mlp", "feed_forward"],
    }[site]
    for name in names:
        if hasattr(block, name):
            return getattr(block, name), "output"
    raise WorkbenchError(
        f"{type(block).__name__} has no part for {site}", "attention and MLP modules", "use hook_resid_post"
    )


def on_output(module: nn.Module, function: HookFunction) -> Any:
    """Call `function` with the module's output (the first of a tuple); returns torch's handle."""

    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        tensor = output[0] if isinstance(output, tuple) else output
        changed = function(tensor)
        if changed is None or changed is tensor:
            return None
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    return module.register_forward_hook(hook)


def on_input(module: nn.Module, function: HookFunction) -> Any:
    """Call `function` with the module's hidden-state input; returns torch's handle."""

    def hook(_module: nn.Module, args: tuple, kwargs: dict) -> Any:
        tensor = args[0] if args else kwargs["hidden_states"]
        changed = function(tensor)
        if changed is None or changed is tensor:
            return None
        return ((changed, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": changed})

    return module.register_forward_pre_hook(hook, with_kwargs=True)


def _stop_before(model: Model, block: int) -> Any:
    # On the *next* module's input, so that every hook of the last block fires, whenever it was attached.
    module = model.blocks[block] if block < model.n_blocks else model.final_norm

    def stop(_module: nn.Module, _args: Any) -> None:
        if not model.hooks_suspended:
            raise StopForward

    return module.register_forward_pre_hook(stop, prepend=True)
