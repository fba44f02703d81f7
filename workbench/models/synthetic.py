"""Models of a configuration's shape with random numbers as weights: to count and to measure, not to talk to."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_PIECE = 2**20
ENOUGH_BYTES = 2**26
"""Weights beyond any processor's cache: a miniature this large is as slow per block as the whole."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a model that decide what it costs."""

    n_parameters: int
    n_blocks: int
    d_model: int
    vocab_size: int

    @classmethod
    def of(cls, hf: Any) -> Shape:
        """The shape of a transformers model, on the meta device or loaded."""
        config = hf.config.get_text_config()
        vocab_size = hf.get_output_embeddings().weight.shape[0]
        n_parameters = sum(parameter.numel() for parameter in hf.parameters())
        return cls(n_parameters, int(config.num_hidden_layers), int(config.hidden_size), int(vocab_size))


def shape_of(config: Any) -> Shape:
    """The shape of a transformers configuration; the model is built on the meta device, without memory."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return Shape.of(AutoModelForCausalLM.from_config(config))


def random_model(config: Any, *, dtype: str = "float32", device: str = "cpu") -> Any:
    """A transformers model of `config` with random weights, written in place: never two copies in memory."""
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    with no_init_weights(), torch.device(device):
        hf = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    hf.tie_weights()
    piece = torch.randn(_PIECE, generator=torch.Generator().manual_seed(0)).to(device, getattr(torch, dtype))
    for name, parameter in hf.named_parameters():
        _fill(name, parameter.data, piece)
    return hf.eval().requires_grad_(False)


@torch.no_grad()
def _fill(name: str, weights: Tensor, piece: Tensor) -> None:
    """Norms become 1, biases 0, matrices N(0, 1 / inputs): activations neither die nor explode."""
    if weights.dim() < 2:
        weights.fill_(0.0 if name.endswith("bias") else 1.0)
        return
    scaled, flat = piece * weights.shape[-1] ** -0.5, weights.view(-1)
    for start in range(0, flat.numel(), _PIECE):
        flat[start : start + _PIECE] = scaled[: flat.numel() - start]


def miniature(config: Any, shape: Shape, *, dtype: str, device: str) -> Any:
    """A random model with the blocks of `config`, as few as exceed a processor's cache, and hardly any vocabulary."""
    width = getattr(torch, dtype).itemsize
    tables = shape.vocab_size * shape.d_model * (1 if getattr(config, "tie_word_embeddings", False) else 2)
    per_block = max(1, (shape.n_parameters - tables) * width // shape.n_blocks)
    n_blocks = min(shape.n_blocks, -(-ENOUGH_BYTES // per_block))
    return random_model(_with_blocks(config, n_blocks), dtype=dtype, device=device)


def _with_blocks(config: Any, n_blocks: int, vocab_size: int = 256) -> Any:
    small = copy.deepcopy(config.get_text_config())
    small.num_hidden_layers, small.vocab_size = n_blocks, vocab_size
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(small, name, None)
    if getattr(small, "layer_types", None):
        small.layer_types = small.layer_types[:n_blocks]
    return small
