"""What a cap along the axis is held against: random and placebo directions, a refusal direction, and the same KL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.base.errors import WorkbenchError
from workbench.base.randomness import derive_seed, generator
from workbench.maths.geometry import covariance_matched_directions
from workbench.models.capture import capture
from workbench.models.hookpoints import HookPoint
from workbench.models.prompts import ChatTokens
from workbench.personas.placebos import PlaceboVectors
from workbench.personas.reencoding import prompt_tokens
from workbench.personas.vectors import PersonaVector, empty_rows

if TYPE_CHECKING:
    from workbench.models.model import Model
    from workbench.steering.edits import Edit

_LAST = "last"
_STEPS = 10


def direction_at_hooks(
    name: str, model: Mapping[str, Any], directions: Mapping[HookPoint, Tensor], hook: HookPoint | None = None
) -> PersonaVector:
    """Directions [d_model] at several hooks as one vector without rows, which can be capped like an axis."""
    hooks = tuple(directions)
    stacked = torch.stack([directions[one].float() for one in hooks])
    return PersonaVector(name, dict(model), hook or hooks[0], hooks, stacked, None, None, None, empty_rows())


def random_axes(
    axis: PersonaVector, activations: Mapping[HookPoint, Tensor], n: int, *, seed: int = 0
) -> tuple[PersonaVector, ...]:
    """`n` random directions per hook, with the covariance of the tokens [n_tokens, d_model] there (the hard null)."""
    drawn = {
        hook: covariance_matched_directions(rows, n, generator(derive_seed("random axes", str(hook), seed)))
        for hook, rows in activations.items()
    }
    return tuple(direction_at_hooks(f"random {number}", axis.model, {hook: rows[number] for hook, rows in drawn.items()})
                 for number in range(n))  # fmt: skip


def placebo_axes(
    placebos: PlaceboVectors, axis: PersonaVector, hooks: Sequence[HookPoint], n: int, *, seed: int = 0
) -> tuple[PersonaVector, ...]:
    """`n` contrasts that are no character of the map, drawn by the seed among those unrelated to the axis' trait."""
    usable = placebos.unrelated(axis.trait)
    order = torch.randperm(len(usable), generator=generator(derive_seed("placebo axes", seed))).tolist()
    found = []
    for place in order[:n]:
        row = usable[place]
        directions = {hook: placebos.directions[row, placebos.hooks.index(hook)] for hook in hooks if hook in placebos.hooks}
        if len(directions) < len(hooks):
            raise WorkbenchError(f"the placebos have directions at {len(directions)} of {len(hooks)} hooks",
                                 "all of the band", "make them at every block (`workbench extract` with placebos)")  # fmt: skip
        found.append(direction_at_hooks(f"placebo {placebos.names[row]}", axis.model, directions))
    return tuple(found)


def refusal_axis(
    model: Model, harmful: Sequence[str], harmless: Sequence[str], hooks: Sequence[HookPoint], *, name: str = "refusal"
) -> PersonaVector:
    """Mean activation at the last prompt token of harmful requests less that of harmless ones, per hook: toward refusal.

    Source: Arditi et al. 2024 (arXiv 2406.11717), difference of means. What a small model refuses is little: the direction then
    says "harmful request", and is named so in no claim.
    """
    means = []
    for texts in (harmful, harmless):
        chats = [_last_token(model, text) for text in texts]
        rows = [one.means for _, batch in capture(model, chats, hooks, span=_LAST) for one in batch]
        means.append(torch.stack(rows).nanmean(dim=0))
    return direction_at_hooks(name, model.description(), dict(zip(hooks, means[0] - means[1], strict=True)))


def percentile_at_kl(
    shift: Callable[[Sequence[Edit]], float], edits_at: Callable[[float], Sequence[Edit]], kl: float, *, most: float = 100.0
) -> tuple[float, float]:
    """(percentile, KL reached) of the cap that moves neutral text by `kl` nats per token; the largest percentile, with what it
    reaches, where none moves it so far.

    `shift(edits)` is the mean KL on neutral text (`ReplyBench.kl`). It grows with the limit: ten steps of bisection, or to 5%.
    """
    low, high, reached = 0.0, most, shift(edits_at(most))
    if reached <= kl:
        return most, reached
    for _ in range(_STEPS):
        middle = (low + high) / 2
        reached = shift(edits_at(middle))
        if abs(reached - kl) <= 0.05 * kl:
            return middle, reached
        low, high = (middle, high) if reached < kl else (low, middle)
    return middle, reached  # pyright: ignore[reportPossiblyUnboundVariable]


def _last_token(model: Model, text: str) -> ChatTokens:
    ids = prompt_tokens(model, "", text).ids
    return ChatTokens(ids, {_LAST: ((len(ids) - 1, len(ids)),)})
