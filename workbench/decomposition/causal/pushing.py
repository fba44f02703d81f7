"""What several deltas do to the written pairs and to neutral text, at doses that the caller chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.randomness import derive_seed, generator
from workbench.maths.statistics import bootstrap_counts
from workbench.personas.causal import NeutralText, ReplyContrast

from .controls import pair_weights

if TYPE_CHECKING:
    from workbench.models.hookpoints import HookPoint
    from workbench.models.model import Model
    from workbench.personas.traits import ReplyPair

N_BOOTSTRAP = 1000
_BLOCK = 16  # deltas per call, which bounds memory


@dataclass(frozen=True, eq=False, repr=False)
class Pushed(Shown):
    """`odd`, `even` [v, n_pairs] (nats per token; what nothing added gives is taken off `even`) and `kl` [v] on neutral text, the
    mean over both signs; float64."""

    odd: Tensor
    even: Tensor
    kl: Tensor


class Bench:
    """The pairs and the neutral text, read once at a hook; `contrast`, `control` [n_pairs] weigh the pairs' means."""

    def __init__(self, model: Model, hook: HookPoint, pairs: Sequence[ReplyPair]) -> None:
        self.replies, self.neutral = ReplyContrast(model, hook, pairs), NeutralText(model, hook)
        self.median_norm = float(model.norm_medians([hook])[0])
        self.contrast, self.control = pair_weights(pairs)

    def push(self, deltas: Tensor) -> Pushed:
        """Both signs of `deltas` [v, d_model], in the residual's units."""
        parts = [self._block(block.float()) for block in deltas.split(_BLOCK)]
        return Pushed(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def at_dose(self, directions: Tensor, dose: float) -> Pushed:
        """`push`, every direction [v, d_model] brought to `dose` median token norms."""
        return self.push(torch.nn.functional.normalize(directions.float(), dim=1) * (dose * self.median_norm))

    def _block(self, deltas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        both = torch.cat([deltas, -deltas])
        # Nothing added, in the same passes: in 16 bits they differ a little from the unedited ones.
        found = self.replies(torch.cat([both, torch.zeros_like(deltas[:1])]))
        up, down = found[:-1].split(len(deltas))
        kl = self.neutral(both).reshape(2, -1).mean(dim=0)
        return (up - down) / 2, (up + down) / 2 - found[-1], kl

    def draws(self, seed: int) -> Tensor:
        """Bootstrap weights [B, n_pairs] of the contrast mean: pairs drawn with replacement, each row sums to 1."""
        return contrast_draws(self.contrast, seed)


def contrast_draws(contrast: Tensor, seed: int, n_bootstrap: int = N_BOOTSTRAP) -> Tensor:
    """Bootstrap weights [B, n] over the pairs that `contrast` [n] weighs, each row of sum 1."""
    used = contrast != 0
    counts = bootstrap_counts(int(used.sum()), n_bootstrap, generator(derive_seed("pair bootstrap", seed)))
    drawn = torch.zeros(n_bootstrap, len(contrast), dtype=torch.float64)
    drawn[:, used] = counts * contrast[used]
    return drawn / drawn.sum(dim=1, keepdim=True)
