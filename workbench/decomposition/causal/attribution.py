"""A first-order screen of every feature: what would pushing it do to the written replies? One backward pass, all features.

The log-probability contrast C of a pair (see `personas.causal`) changes by <dC/d delta, d_j> per unit of a small delta along
a feature's direction d_j, and its gradient does not depend on the feature. So one backward pass per reply and one matrix
product with the decoder give the odd effect of every feature at once (attribution patching; Nanda 2023, Syed et al. 2023,
arXiv 2310.10348). It is exact for small doses only: what it chooses is measured.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from workbench.models.hookpoints import HookPoint
from workbench.models.model import Model
from workbench.personas.causal import ReplyContrast
from workbench.personas.traits import ReplyPair

from .controls import pair_weights


def contrast_gradient(model: Model, hook: HookPoint, pairs: Sequence[ReplyPair], *, batch_tokens: int = 1024) -> Tensor:
    """d C / d delta [d_model] (float64): the mean over the contrast pairs minus that over the control pairs (if there are any).

    delta is one vector added wherever `personas.causal` adds it; C in nats per token. Some 8 bytes x `batch_tokens` x
    vocabulary are kept for the backward pass.
    """
    contrast, control = pair_weights(pairs)
    weights = contrast - control
    replies = ReplyContrast(model, hook, pairs, batch_tokens=batch_tokens)
    total = torch.zeros(model.d_model, dtype=torch.float64)
    for batch, gradient in replies.gradients():
        of_pair = weights[[row // 2 for row in batch.rows]]
        total += of_pair @ gradient.sum(dim=1).double().cpu()
    return total


def push_attribution(gradient: Tensor, decoder: Tensor) -> Tensor:
    """Predicted odd effect [d_sae] of +d_j per unit of |delta|: <gradient, d_j / |d_j|>; `decoder [d_sae, d_model]`.

    Positive: pushing along the feature moves the model toward the trait. A direction of length 0 gets 0.
    """
    unit = torch.nn.functional.normalize(decoder.float(), dim=1)
    return unit @ gradient.float().to(unit.device)
