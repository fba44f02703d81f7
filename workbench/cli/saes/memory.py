"""The peak memory of making and of evaluating SAEs, by arithmetic from sizes: nothing is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..plan import BASE_GIB, BATCH_GIB

if TYPE_CHECKING:
    from workbench.models.synthetic import Shape
    from workbench.saes.recipe import SaePlan

PER_WEIGHT = 22
"""Bytes of an SAE's weight while it is trained, as measured: itself, gradient and moments (16), copies in low precision."""
PER_CODE = 20
"""Bytes of a token's place at a feature in a step, as measured: what is encoded, the codes and their gradient."""


def shape_at_hand(model: str) -> Shape | None:
    """The model's sizes, where its configuration is on this machine."""
    from workbench.models.loading import config_at_hand
    from workbench.models.synthetic import shape_of

    found = config_at_hand(model)
    return None if found is None else shape_of(found[0])


def reading_gib(shape: Shape, dtype: str) -> float:
    """The libraries and the model with a batch that it reads."""
    width = 4 if dtype == "float32" else 2
    return BASE_GIB + BATCH_GIB + shape.n_parameters * width / 2**30


def pass_gib(plans: Sequence[SaePlan], d_model: int) -> float:
    """The libraries and the SAEs that are trained in one pass: all of their weights, one step at a time."""
    weights = sum(2 * d_model * plan.training.d_sae for plan in plans)
    codes = max(plan.training.batch_size * plan.training.d_sae for plan in plans)
    return BASE_GIB + (weights * PER_WEIGHT + codes * PER_CODE) / 2**30


def saes_gib(widths: Sequence[int], d_model: int) -> float:
    """So many SAEs in memory, float32."""
    return sum(2 * d_model * d_sae for d_sae in widths) * 4 / 2**30
