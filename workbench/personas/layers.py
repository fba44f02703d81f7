"""Which block to read the vector at: by what it does (the paper's way) and by what it separates, block by block.

Neither curve sees an evaluation question or a sealed reply pair. The causal one pushes the vector of every block along
itself, at the same dose in that block's median token norms, and measures the odd effect on the `select` reply pairs
(Chen et al. 2025, arXiv 2507.21509, section 3.2, choose the block at which steering raises the trait score most; here
the score is a log-probability contrast on written replies, see `causal`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.progress import track
from workbench.base.randomness import derive_seed, generator
from workbench.maths.statistics import bootstrap_counts, percentile_interval
from workbench.models.hookpoints import RESIDUAL_POST, HookPoint
from workbench.models.loading import Model
from workbench.personas.effects import DoseInstrument
from workbench.personas.evidence import best_hook
from workbench.personas.traits import ReplyPair, Trait

DOSE = 0.5
CHOICES = ("separability", "causal")
N_BOOTSTRAP = 1000


def causal_curve(
    trait: Trait,
    model: Model,
    directions: Tensor,
    hooks: Sequence[HookPoint],
    *,
    dose: float = DOSE,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """[{hook, odd, low, high}] of directions `[n_hooks, d_model]`: nats per token at `dose` on the select pairs.

    Raises WorkbenchError for a trait without reply pairs to select by.
    """
    pairs = _select_pairs(trait)
    curve = []
    with track("causal curve", len(hooks), "blocks") as step:
        for hook, direction in zip(hooks, directions, strict=True):
            odd, _ = DoseInstrument(model, hook, pairs).odd_even(direction[None], dose)
            dice = generator(derive_seed("causal curve", seed))  # the same draws of the pairs at every block
            low, high = percentile_interval(
                bootstrap_counts(len(pairs), N_BOOTSTRAP, dice) @ odd[0] / len(pairs)
            )
            curve.append(
                {"hook": str(hook), "odd": float(odd.mean()), "low": float(low), "high": float(high)}
            )
            step()
    return curve


def check_choice(by: str, trait: Trait) -> None:
    """Refuse an unknown way to choose a block, and the causal one for a trait without pairs, before any work."""
    if by not in CHOICES:
        raise unknown_name("way to choose a block", by, CHOICES)
    if by == "causal":
        _select_pairs(trait)


def choose_hook(
    by: str,
    separability: Sequence[dict[str, Any]],
    causal: Sequence[dict[str, Any]],
    hooks: Sequence[HookPoint],
) -> HookPoint:
    """The hook with the highest cross-validated AUC, or the one with the largest effect toward the trait."""
    if by == "separability":
        return best_hook(separability, hooks)
    effects = torch.tensor([point["odd"] for point in causal])
    return HookPoint.parse(causal[int(effects.argmax())]["hook"])


def causal_points(
    trait: Trait, model: Model, directions: Tensor, hooks: Sequence[HookPoint], *, seed: int = 0
) -> list[dict[str, Any]]:
    """`causal_curve` at those of `hooks` that are residual streams after a block, where a push is defined."""
    rows = [i for i, hook in enumerate(hooks) if hook.site == RESIDUAL_POST]
    return causal_curve(trait, model, directions[rows], [hooks[i] for i in rows], seed=seed)


def _select_pairs(trait: Trait) -> list[ReplyPair]:
    pairs = [pair for pair in trait.contrast_pairs if pair.split == "select"]
    if not pairs:
        raise WorkbenchError(
            f"the trait {trait.name} has no reply pairs with the split `select`",
            "written reply pairs, which the causal choice of a block measures on",
            "add them to its pairs.yaml, or choose by separability",
        )
    return pairs
