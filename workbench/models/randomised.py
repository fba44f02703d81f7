"""A control: the same model without what it learned."""

from __future__ import annotations

import torch

from ..base.randomness import derive_seed, generator
from .model import Model, combined_hash


@torch.no_grad()
def with_shuffled_weights(model: Model, *, seed: int = 0) -> Model:
    """The model with the entries of every weight matrix shuffled in place: same sizes, same values, no structure.

    Vectors (norm scales, biases) stay. What is still found in its activations comes from the architecture, the tokens
    and the spread of the weights. After Heap et al. 2025 (arXiv 2501.17727).
    """
    seen: set[int] = set()
    for name, parameter in model.hf.named_parameters():
        if parameter.dim() < 2 or parameter.data_ptr() in seen:
            continue
        seen.add(parameter.data_ptr())
        order = torch.randperm(parameter.numel(), generator=generator(derive_seed(seed, name)))
        parameter.copy_(parameter.flatten()[order.to(parameter.device)].view_as(parameter))
    shuffled = combined_hash(model.weights_hash, f"shuffled-{seed}")
    return Model(
        model.hf, model.tokenizer, name=f"{model.name}-shuffled", weights_hash=shuffled, source=model.source
    )
