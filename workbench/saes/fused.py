"""One BatchTopK training step with its gradients written out, so that every large product runs in low precision.

The parameters live in SAELens' own `BatchTopKTrainingSAE`; this module only replaces its autograd step, which spends
most of its time in dense float32 element-wise work. A test holds the gradients against SAELens' autograd.

With x [batch, d_model], xc = x - b_dec, pre = xc W_enc + b_enc, the batch threshold t such that `k` codes per token
survive on average, codes = pre * (pre > t), e = codes W_dec + b_dec - x and loss = mean_b |e_b|^2:

    G = 2 e / batch        dW_dec = codes' G       dC = (G W_dec') * (codes > 0)
    dW_enc = xc' dC        db_enc = sum_b dC       db_dec = sum_b G - (sum_b dC) W_enc'

Source: Bussmann, Leask, Nanda 2024 (arXiv 2412.06410) for BatchTopK; Gao et al. 2024 (arXiv 2406.04093) for the
auxiliary loss on dead features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class StepResult:
    """What one step measured: mean squared error per token, active codes per sampled token, threshold, features that fired."""

    loss: float
    l0: float
    threshold: float
    fired: Tensor


def batch_threshold(pre: Tensor, k: float, rows: int) -> Tensor:
    """The value above which (strictly) `k` codes per token survive on average, from the first `rows` tokens; never below 0.

    The whole batch (rows >= len(pre)) gives BatchTopK's exact threshold. A sample of 256 tokens and k = 48 misses the
    mean number of active codes by about 1%, and costs a sixteenth.
    """
    sample = pre[:rows]
    count = min(int(k * len(sample)), sample.numel())
    smallest_kept = sample.float().flatten().topk(count, sorted=False).values.min()
    return torch.nextafter(smallest_kept, smallest_kept.new_tensor(-torch.inf)).clamp_min(0.0)


def set_gradients(
    sae: Any,
    x: Tensor,
    *,
    precision: torch.dtype = torch.bfloat16,
    threshold_rows: int = 256,
    dead: Tensor | None = None,
    aux_coefficient: float = 0.0,
    aux_rows: int = 1024,
) -> StepResult:
    """Set `.grad` of W_enc, b_enc, W_dec and b_dec for one batch x [batch, d_model] (already scaled).

    `dead` [d_sae] bool: features that get the auxiliary loss, on the first `aux_rows` tokens.
    """
    w_enc, w_dec = sae.W_enc.detach().to(precision), sae.W_dec.detach().to(precision)
    centred = x - sae.b_dec.detach()
    low = centred.to(precision)
    pre = (low @ w_enc).add_(sae.b_enc.detach().to(precision))
    threshold = batch_threshold(pre, sae.cfg.k, threshold_rows)
    codes = torch.nn.functional.threshold(
        pre, float(threshold), 0.0
    )  # one pass; pre * mask would copy the mask twice
    error = (codes @ w_dec).float() - centred
    gradient = error * (2.0 / len(x))
    low_gradient = gradient.to(precision)
    code_gradient = torch.ops.aten.threshold_backward(low_gradient @ w_dec.T, codes, 0.0)
    code_sum = (torch.ones(1, len(x), dtype=precision, device=x.device) @ code_gradient).squeeze(0).float()
    sae.W_dec.grad = (codes.T @ low_gradient).float()
    sae.W_enc.grad = (low.T @ code_gradient).float()
    sae.b_enc.grad = code_sum.to(sae.b_enc.dtype)
    sae.b_dec.grad = gradient.sum(0) - sae.W_enc.detach() @ code_sum
    if aux_coefficient and dead is not None and bool(dead.any()):
        _add_auxiliary(sae, centred[:aux_rows], -error[:aux_rows], dead, aux_coefficient)
    return StepResult(
        loss=float(error.square().sum(1).mean()),
        l0=float((codes[:threshold_rows] > 0).sum()) / len(codes[:threshold_rows]),
        threshold=float(threshold),
        fired=codes.amax(0) > 0,
    )


def _add_auxiliary(sae: Any, centred: Tensor, residual: Tensor, dead: Tensor, coefficient: float) -> None:
    """Add the gradients of coefficient * mean_b |a W_dec - residual|^2, a = the top dead pre-activations of each token.

    The number of dead features used per token is at most half of d_model (Gao et al. 2024), scaled down with fewer.
    """
    index = dead.nonzero().squeeze(1)
    w_enc, w_dec = sae.W_enc.detach()[:, index], sae.W_dec.detach()[index]
    pre = centred @ w_enc + sae.b_enc.detach()[index]
    count = min(len(index), sae.cfg.d_in // 2)
    values, places = pre.topk(count, dim=1, sorted=False)
    codes = torch.zeros_like(pre).scatter_(1, places, values.relu())
    scale = coefficient * min(len(index) / (sae.cfg.d_in // 2), 1.0)
    gradient = (codes @ w_dec - residual) * (2.0 * scale / len(centred))
    code_gradient = (gradient @ w_dec.T) * (codes > 0)
    sae.W_dec.grad.index_add_(0, index, codes.T @ gradient)
    sae.W_enc.grad.index_add_(1, index, centred.T @ code_gradient)
    sae.b_enc.grad.index_add_(0, index, code_gradient.sum(0))


def project_and_normalise(sae: Any) -> None:
    """Before a step: drop the part of the decoder gradient along each row (rows are kept at unit norm)."""
    rows = sae.W_dec.detach()
    sae.W_dec.grad -= (sae.W_dec.grad * rows).sum(1, keepdim=True) * rows


@torch.no_grad()
def renormalise(sae: Any) -> None:
    """After a step: decoder rows back to unit norm."""
    sae.W_dec.div_(sae.W_dec.norm(dim=1, keepdim=True).clamp_min(1e-8))
