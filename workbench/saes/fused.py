"""One training step of the topk family with its gradients written out, so that every large product runs in low precision.

The parameters are named as in SAELens' training SAEs; tests hold the gradients of the loss against the autograd of its
`BatchTopKTrainingSAE`, `TopKTrainingSAE` and `MatryoshkaBatchTopKTrainingSAE`, which spends most of its time in dense
float32 element-wise work. The auxiliary loss on dead features is that of Gao et al. with its gradient kept to the dead
features' own parameters: SAELens' reaches b_dec as well. Nothing here waits for a GPU, but for the auxiliary loss.

With x [batch, d_model], xc = x - b_dec, pre = xc W_enc + b_enc, codes = pre where it is among the largest (k per token
on average for batchtopk, k of every token for topk; always above 0), e = codes W_dec - xc and loss = mean_b |e_b|^2:

    G = 2 e / batch        dW_dec = codes' G       dC = (G W_dec') * (codes > 0)
    dW_enc = xc' dC        db_enc = sum_b dC       db_dec = sum_b G - (sum_b dC) W_enc'

A matryoshka SAE adds the losses of its nested prefixes; a feature then sees the sum of G over the prefixes it is in.

Sources: Bussmann, Leask, Nanda 2024 (arXiv 2412.06410) for BatchTopK; Gao et al. 2024 (arXiv 2406.04093) for TopK and
the auxiliary loss on dead features; Bussmann et al. 2025 (arXiv 2503.17547) for the nested levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.base.display import Shown


@dataclass(repr=False)
class StepResult(Shown):
    """What one step measured, on the device: mean squared error per token [], active codes per sampled token [],
    threshold [], and which features fired [d_sae] bool."""

    loss: Tensor
    l0: Tensor
    threshold: Tensor
    fired: Tensor


def batch_threshold(pre: Tensor, k: float, rows: int) -> Tensor:
    """The value above which (strictly) `k` codes per token survive on average, from the first `rows` tokens; never below 0.

    The whole batch (rows >= len(pre)) gives BatchTopK's exact threshold. A sample of 256 tokens and k = 48 misses the
    mean number of active codes by about 1%, and costs a sixteenth.
    """
    sample = pre[:rows]
    count = min(int(k * len(sample)), sample.numel())
    smallest_kept = sample.float().flatten().topk(count, sorted=False).values.min()
    return torch.nextafter(smallest_kept, torch.full_like(smallest_kept, -torch.inf)).clamp_min(0.0)


def set_gradients(
    sae: Any,
    x: Tensor,
    k: float,
    *,
    per_token: bool = False,
    bounds: tuple[int, ...] = (),
    precision: torch.dtype = torch.bfloat16,
    threshold_rows: int = 256,
    dead: Tensor | None = None,
    aux_coefficient: float = 0.0,
    aux_rows: int = 1024,
) -> StepResult:
    """Set `.grad` of W_enc, b_enc, W_dec and b_dec for one batch x [batch, d_model] (already scaled).

    `per_token`: exactly k codes of every token (topk). `bounds`: 0, the widths of nested levels, d_sae (matryoshka).
    `dead` [d_sae] bool: features that get the auxiliary loss, on the first `aux_rows` tokens.
    """
    w_enc, w_dec = sae.W_enc.detach().to(precision), sae.W_dec.detach().to(precision)
    centred = x - sae.b_dec.detach()
    low = centred.to(precision)
    pre = (low @ w_enc).add_(sae.b_enc.detach().to(precision))
    codes, threshold = _largest_of_each(pre, k) if per_token else _largest(pre, k, threshold_rows)
    levels = list(zip(bounds or (0,), bounds[1:] or (len(w_dec),), strict=False))
    errors = _errors(codes, w_dec, centred, levels)
    code_gradient, total = torch.empty_like(codes), torch.zeros_like(centred)
    sae.W_dec.grad = torch.empty_like(sae.W_dec)
    for (first, last), error in zip(reversed(levels), reversed(errors), strict=True):
        total += error * (2.0 / len(x))
        level, part, low_total = codes[:, first:last], w_dec[first:last], total.to(precision)
        code_gradient[:, first:last] = torch.ops.aten.threshold_backward(low_total @ part.T, level, 0.0)
        sae.W_dec.grad[first:last] = level.T @ low_total
    code_sum = (torch.ones(1, len(x), dtype=precision, device=x.device) @ code_gradient).squeeze(0).float()
    sae.W_enc.grad = (low.T @ code_gradient).float()
    sae.b_enc.grad = code_sum.to(sae.b_enc.dtype)
    sae.b_dec.grad = total.sum(0) - sae.W_enc.detach() @ code_sum
    if aux_coefficient and dead is not None and bool(dead.any()):
        _add_auxiliary(sae, centred[:aux_rows], -errors[-1][:aux_rows], dead, aux_coefficient)
    return StepResult(
        loss=errors[-1].square().sum(1).mean(),
        l0=(codes[:threshold_rows] > 0).sum() / len(codes[:threshold_rows]),
        threshold=threshold,
        fired=codes.amax(0) > 0,
    )


def _largest(pre: Tensor, k: float, threshold_rows: int) -> tuple[Tensor, Tensor]:
    threshold = batch_threshold(pre, k, threshold_rows)
    if pre.is_cuda:  # reading the threshold would wait for the device; in `pre`'s precision it is the smallest kept value
        return torch.where(pre >= threshold.to(pre.dtype), pre, 0.0), threshold
    # One pass; pre * mask would copy the mask twice.
    return torch.nn.functional.threshold(pre, float(threshold), 0.0), threshold


def _largest_of_each(pre: Tensor, k: float) -> tuple[Tensor, Tensor]:
    values, places = pre.topk(int(k), dim=1, sorted=False)
    codes = torch.zeros_like(pre).scatter_(1, places, values.relu())
    return codes, values.min(dim=1).values.float().mean().clamp_min(0.0)


def _errors(codes: Tensor, w_dec: Tensor, centred: Tensor, levels: list[tuple[int, int]]) -> list[Tensor]:
    """codes W_dec - xc [batch, d_model] float32 with the features up to the end of each level."""
    errors, so_far = [], -centred
    for first, last in levels:
        so_far = so_far + (codes[:, first:last] @ w_dec[first:last]).float()
        errors.append(so_far)
    return errors


def _add_auxiliary(sae: Any, centred: Tensor, residual: Tensor, dead: Tensor, coefficient: float) -> None:
    """Add the gradients of coefficient * mean_b |a W_dec - residual|^2, a = the top dead pre-activations of each token.

    The number of dead features used per token is at most half of d_model (Gao et al. 2024), scaled down with fewer.
    """
    index = dead.nonzero().squeeze(1)
    w_enc, w_dec = sae.W_enc.detach()[:, index], sae.W_dec.detach()[index]
    pre = centred @ w_enc + sae.b_enc.detach()[index]
    most = centred.shape[1] // 2
    count = min(len(index), most)
    values, places = pre.topk(count, dim=1, sorted=False)
    codes = torch.zeros_like(pre).scatter_(1, places, values.relu())
    scale = coefficient * min(len(index) / most, 1.0)
    gradient = (codes @ w_dec - residual) * (2.0 * scale / len(centred))
    code_gradient = (gradient @ w_dec.T) * (codes > 0)
    sae.W_dec.grad.index_add_(0, index, codes.T @ gradient)
    sae.W_enc.grad.index_add_(1, index, centred.T @ code_gradient)
    sae.b_enc.grad.index_add_(0, index, code_gradient.sum(0))


def project_gradient(sae: Any) -> None:
    """Before a step: drop the part of the decoder gradient along each row (rows are kept at unit norm)."""
    rows = sae.W_dec.detach()
    sae.W_dec.grad -= (sae.W_dec.grad * rows).sum(1, keepdim=True) * rows


@torch.no_grad()
def renormalise(sae: Any) -> None:
    """After a step: decoder rows back to unit norm."""
    sae.W_dec.div_(sae.W_dec.norm(dim=1, keepdim=True).clamp_min(1e-8))


@torch.no_grad()
def hold_near(sae: Any, start: Tensor, least_cosine: float) -> None:
    """After a step: decoder rows that left their start [d_sae, d_model] (unit rows) further than this come back to the limit.

    Source: the soft-frozen decoder of Korznikov et al. 2026 (arXiv 2602.14111).
    """
    cosine = (sae.W_dec * start).sum(1, keepdim=True)
    aside = sae.W_dec - cosine * start
    aside = aside / aside.norm(dim=1, keepdim=True).clamp_min(1e-8)
    limit = least_cosine * start + (1 - least_cosine**2) ** 0.5 * aside
    sae.W_dec.copy_(torch.where(cosine < least_cosine, limit, sae.W_dec))
