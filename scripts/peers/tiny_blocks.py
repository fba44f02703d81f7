"""What the peers' sides share: a tiny model, and which of its blocks a vector changes."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM


def tiny_llama(n_blocks: int, d_model: int) -> LlamaForCausalLM:
    """A seeded Llama of a few hundred weights."""
    torch.manual_seed(0)
    heads: dict[str, Any] = {
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "num_hidden_layers": n_blocks,
    }
    return LlamaForCausalLM(
        LlamaConfig(hidden_size=d_model, intermediate_size=16, vocab_size=32, **heads)
    ).eval()


def outputs(model: torch.nn.Module, blocks: torch.nn.ModuleList) -> list[torch.Tensor]:
    """What each block hands on, in order."""
    seen: list[torch.Tensor] = []

    def keep(_module: object, _inputs: object, output: object) -> None:
        seen.append((output[0] if isinstance(output, tuple) else output).detach().clone())  # type: ignore[union-attr]

    handles = [block.register_forward_hook(keep) for block in blocks]
    with torch.no_grad():
        model(input_ids=torch.tensor([[3, 5, 7]]))
    for handle in handles:
        handle.remove()
    return seen


def first_change(plain: list[torch.Tensor], steered: list[torch.Tensor]) -> int:
    """The first block whose output differs."""
    return next(
        i for i, (a, b) in enumerate(zip(plain, steered, strict=True)) if not torch.allclose(a, b, atol=1e-6)
    )
