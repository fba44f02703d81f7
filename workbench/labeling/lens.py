"""The logit lens: which tokens a feature's decoder direction makes more and less likely, were it read out at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from workbench.labeling.tokens import REPLACEMENT, special_ids, token_strings

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.models.model import Model

Ranked = tuple[tuple[str, float], ...]


def norm_scale(model: Model) -> Tensor:
    """The factor [d_model] by which the final norm multiplies a direction, whatever the norm's class (Gemma's is 1 + weight).

    Measured, not read: for x of entries +-1, norm(x) - norm(-x) = 2 scale x (a bias cancels).
    """
    import torch

    weight = next(iter(model.final_norm.parameters()), None)
    device, dtype = (model.device, model.dtype) if weight is None else (weight.device, weight.dtype)
    x = torch.ones(model.d_model, device=device, dtype=dtype)
    x[1::2] = -1.0
    with torch.no_grad():
        return ((model.final_norm(x[None]) - model.final_norm(-x[None]))[0] * x / 2).float()


def lens_logits(model: Model, directions: Tensor) -> Tensor:
    """Centred logits [n, vocab_size] of directions [n, d_model]: (direction * norm scale) @ unembedding', minus their mean.

    In units of logits per unit of code, up to the (positive) factor that the final norm divides by.
    Source: nostalgebraist 2020, "interpreting GPT: the logit lens".
    """
    unembedding = model.unembedding.float()
    scaled = directions.float().to(unembedding.device) * norm_scale(model).to(unembedding.device)
    logits = scaled @ unembedding.T
    return logits - logits.mean(dim=-1, keepdim=True)


def promoted_and_suppressed(
    model: Model, directions: Tensor, *, n: int = 10
) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """For each direction [d_model] its `n` most promoted and `n` most suppressed tokens as readable strings, strongest first.

    Special tokens, rows beyond the tokenizer and pieces of characters are left out.
    """
    return [
        (tuple(text for text, _ in up), tuple(text for text, _ in down))
        for up, down in largest_and_smallest(model, lens_logits(model, directions), n=n)
    ]


def largest_and_smallest(model: Model, values: Tensor, *, n: int = 10) -> list[tuple[Ranked, Ranked]]:
    """For each row of `values` [rows, vocab_size] the `n` tokens of the largest and of the smallest values, extreme first.

    Tokens are readable strings with their value; special tokens, rows beyond the tokenizer and pieces of characters are left out.
    """
    unusable = unusable_tokens(model, values)
    wanted = min(3 * n, values.shape[1])
    best = (values - unusable).topk(wanted, dim=-1).indices.tolist()
    worst = (-values - unusable).topk(wanted, dim=-1).indices.tolist()
    return [
        (_readable(model, row, up, n), _readable(model, row, down, n))
        for row, up, down in zip(values, best, worst, strict=True)
    ]


def unusable_tokens(model: Model, like: Tensor) -> Tensor:
    """[vocab_size], on the device of `like`: infinite for special tokens and rows beyond the tokenizer, 0 for the others."""
    unusable = like.new_zeros(like.shape[-1])
    unusable[min(len(model.tokenizer), len(unusable)) :] = float("inf")
    unusable[[i for i in special_ids(model.tokenizer) if i < len(unusable)]] = float("inf")
    return unusable


def _readable(model: Model, values: Tensor, ids: Sequence[int], n: int) -> Ranked:
    named = ((token_strings(model.tokenizer, [token])[0], float(values[token])) for token in ids)
    return tuple([(text, value) for text, value in named if text and REPLACEMENT not in text][:n])
