"""What an edit does to activations: coordinates along directions are fixed or limited by the smallest possible change.

`h` is [..., d_model] in any floating type, `directions` [k, d_model]; coordinates are <h, u> with unit u. The work is
done in float32 at least, and a token that needs no change comes back bit for bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

RANK_TOLERANCE = 3e-4
"""Below this share of the largest singular value directions repeat each other (the root of float32's precision: a smaller
one would amplify the rounding of h by more than what is left in place)."""
NEARLY_PARALLEL = 0.1
"""Below this singular value directions are nearly parallel (two of them: a cosine above .99)."""
MAX_SWEEPS = 200


def solver(units: Tensor) -> Tensor:
    """The pseudo-inverse [d_model, k] of unit directions [k, d_model], which `fix_coordinates` takes."""
    return torch.linalg.pinv(units.double(), rtol=RANK_TOLERANCE).to(units.dtype)


def fix_coordinates(h: Tensor, units: Tensor, values: Tensor, inverse: Tensor | None = None) -> Tensor:
    """The nearest h' with <h', u_i> = values_i for all i at once: h + (values - h U') (U^+)'.

    `values` broadcasts to [..., k]. Zeros remove the whole span of the directions (projection onto its orthogonal
    complement), whether or not they are orthogonal. Laws: twice is once; the order of the directions does not matter.
    """
    inverse = solver(units) if inverse is None else inverse
    wide = h.to(torch.promote_types(h.dtype, units.dtype))
    return (wide + (values - wide @ units.T) @ inverse.T).to(h.dtype)


def conflict(units: Tensor, values: Tensor) -> float:
    """How much of `values` [..., k] is asked of nearly parallel directions, as a share of |values| (0 = no conflict).

    Along those combinations of the directions that are almost nothing, any value but 0 takes a change many times as
    large as the value, or cannot be reached at all.
    """
    left, singular, _ = torch.linalg.svd(units.double(), full_matrices=True)
    weak = torch.zeros(len(units), dtype=torch.bool)
    weak[: len(singular)] = singular < NEARLY_PARALLEL
    weak[len(singular) :] = True
    size = values.double().norm()
    return float((values.double() @ left[:, weak]).norm() / size) if weak.any() and size > 0 else 0.0


def limit_coordinates(h: Tensor, units: Tensor, bounds: Tensor) -> Tensor:
    """The nearest h' with <h', u_i> <= bounds_i for all i; `bounds` broadcasts to [..., k], infinity is no bound.

    One direction: h - max(0, <h, u> - bound) u. Several: the projection onto the intersection of the half-spaces
    (Hildreth 1957), solved to float32's precision; so the order of the directions does not matter. A lower
    bound is the upper bound of the negated direction.
    """
    wide = h.to(torch.promote_types(h.dtype, units.dtype))
    excess = wide @ units.T - bounds
    push = torch.zeros_like(excess) if len(units) > 1 else excess.clamp_min(0)
    gram = units @ units.T
    scale = float(excess.detach().clamp_min(0).max()) if len(units) > 1 and excess.numel() else 0.0
    for _ in range(MAX_SWEEPS if scale > 0 else 0):
        before = push
        for i in range(len(units)):
            left = excess[..., i] - push @ gram[i] + push[..., i]
            push = torch.cat([push[..., :i], left.clamp_min(0)[..., None], push[..., i + 1 :]], dim=-1)
        if float((push - before).detach().abs().max()) <= 1e-6 * scale:
            break
    return torch.where((push > 0).any(dim=-1, keepdim=True), (wide - push @ units).to(h.dtype), h)
