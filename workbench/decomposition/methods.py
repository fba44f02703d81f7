"""The secondary views of a vector on an SAE; the primary one, the shares, lives in `shares`.

Each method is a function (vector [d_model], sae, n_atoms) -> [d_sae] and one line of a registry: `METHODS` are the columns of
every `Decomposition`, `COMPARISON_METHODS` are there to compare them with (`workbench lab` scores both).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from workbench.maths.elastic_net import elastic_net_path
from workbench.maths.geometry import signed_cosines
from workbench.maths.pursuit import gradient_pursuit, least_squares, non_negative_omp, signed_omp

ZERO_CONTROL_TOP = 10
L1_RATIO = 0.9


def decoder_of(sae: Any) -> Tensor:
    """The decoder directions `[d_sae, d_model]` as float32 on the CPU."""
    return sae.decoder_directions.detach().float().cpu()


def encode(sae: Any, activations: Tensor) -> Tensor:
    """Codes `[n, d_sae]` (float32) of `activations [n, d_model]`, on the SAE's own device."""
    with torch.no_grad():
        return sae.encode(activations.to(sae.decoder_directions.device, torch.float32)).float()


def cosine(vector: Tensor, sae: Any, n_atoms: int) -> Tensor:
    """Signed decoder cosine: does the feature's direction point the way the vector does?"""
    return signed_cosines(vector.float(), decoder_of(sae))


def pursuit(vector: Tensor, sae: Any, n_atoms: int) -> Tensor:
    """Signed coefficients of the `n_atoms` features that rebuild the vector best together, 0 elsewhere."""
    found = signed_omp(vector.float(), decoder_of(sae), n_atoms=min(n_atoms, sae.d_sae))
    return found.dense(sae.d_sae)[0]


def naive(vector: Tensor, sae: Any, n_atoms: int) -> Tensor:
    """encode(v), shown as a control only: a trap, not a method.

    A difference of means lies outside the distribution that the encoder was trained on, so its code mostly repeats
    the code of the zero vector (the encoder's bias), and a code that cannot be negative cannot express what the
    vector takes away (Mayne, Yang and Mahdi 2024, arXiv 2411.08790). Read it beside `zero_vector_overlap`.
    """
    return encode(sae, vector[None])[0].cpu()


def cosine_refit(vector: Tensor, sae: Any, n_atoms: int) -> Tensor:
    """Least-squares coefficients of the `n_atoms` features of the largest |cosine|: similar features crowd others out."""
    decoder = decoder_of(sae)
    support = torch.topk(signed_cosines(vector.float(), decoder).abs(), min(n_atoms, sae.d_sae)).indices
    return torch.zeros(sae.d_sae).index_copy_(0, support, least_squares(vector.float(), decoder, support)[0])


def gradient(vector: Tensor, sae: Any, n_atoms: int) -> Tensor:
    """Signed coefficients of gradient pursuit in `n_atoms` steps: as `pursuit`, without its least squares."""
    found = gradient_pursuit(vector.float(), decoder_of(sae), n_atoms=min(n_atoms, sae.d_sae))
    return found.dense(sae.d_sae)[0]


def elastic_net(vector: Tensor, sae: Any, n_atoms: int) -> Tensor:
    """Signed coefficients where the elastic-net path ends, with at most `n_atoms` features: shrunk, similar ones together."""
    return elastic_net_path(vector.float(), decoder_of(sae), n_atoms=n_atoms, l1_ratio=L1_RATIO).dense(sae.d_sae)[0, -1]


def non_negative(vector: Tensor, sae: Any, n_atoms: int) -> Tensor:
    """Coefficients of the non-negative pursuit: what is lost when a feature cannot be taken away."""
    found = non_negative_omp(vector.float(), decoder_of(sae), n_atoms=min(n_atoms, sae.d_sae))
    return found.dense(sae.d_sae)[0]


Method = Callable[[Tensor, Any, int], Tensor]
METHODS: dict[str, Method] = {"cosine": cosine, "pursuit": pursuit, "naive": naive}
COMPARISON_METHODS: dict[str, Method] = {
    "cosine_refit": cosine_refit,
    "gradient_pursuit": gradient,
    "elastic_net": elastic_net,
    "non_negative_pursuit": non_negative,
}


def zero_vector_overlap(vector: Tensor, sae: Any, *, n_top: int = ZERO_CONTROL_TOP) -> float | None:
    """The share of the top `n_top` active features of encode(v) that are among the top `n_top` of encode(0).

    Near 1, the naive code says more about the encoder's bias than about the vector (Mayne et al. 2024, section 3).
    None when encode(v) is empty.
    """
    of_vector = _top_active(naive(vector, sae, 0), n_top)
    of_zero = _top_active(naive(torch.zeros_like(vector), sae, 0), n_top)
    return len(of_vector & of_zero) / len(of_vector) if of_vector else None


def _top_active(codes: Tensor, n_top: int) -> set[int]:
    values, features = torch.topk(codes, min(n_top, codes.shape[0]))
    return set(features[values > 0].tolist())
