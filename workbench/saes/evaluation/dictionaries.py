"""The dictionaries that an SAE has to beat: random directions, the activations themselves, and principal components."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.base.errors import unknown_name
from workbench.base.randomness import derive_seed, generator
from workbench.saes.evaluation.fitness import pieces

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.saes.interface import SparseAutoencoder

RANDOM_KINDS = ("random_isotropic", "random_covariance")
KEPT_VALUES = 2**24
"""Codes above a random dictionary's threshold that are held while it is sought (64 MiB of float32)."""


def random_directions(kind: str, activations: Tensor, n: int, seed: int) -> Tensor:
    """`n` unit directions [n, d_model]: uniform on the sphere, or drawn from N(0, covariance of `activations`)."""
    from workbench.maths.geometry import covariance_matched_directions, isotropic_directions

    random = generator(derive_seed("random dictionary", kind, seed))
    if kind == "random_isotropic":
        return isotropic_directions(n, activations.shape[1], random)
    if kind != "random_covariance":
        raise unknown_name("random dictionary", kind, RANDOM_KINDS)
    drawn = covariance_matched_directions(activations, n, random)
    return drawn / drawn.norm(dim=1, keepdim=True).clamp_min(1e-12)


def activation_directions(activations: Tensor, n: int, seed: int) -> Tensor:
    """At most `n` unit directions of different tokens of `activations [m, d_model]`, about their mean: what `start: data` is.

    There are fewer than `n` where there are fewer tokens.
    """
    import torch

    centred = activations.float() - activations.float().mean(0)
    lengths = centred.norm(dim=1)
    usable = (lengths > 1e-6 * lengths.max()).nonzero().flatten()
    random = generator(derive_seed("directions of activations", seed))
    chosen = usable[torch.randperm(len(usable), generator=random)[:n]]
    return centred[chosen] / lengths[chosen, None]


def random_dictionary(
    sae: SparseAutoencoder, activations: Tensor, *, kind: str, seed: int = 0
) -> SparseAutoencoder:
    """An SAE that learnt nothing: as many random unit directions, encoder = decoder transposed, and the SAE's own L0.

    Codes are <h - mean, d_j> where above one threshold, which is set so that on `activations [n, d_model]` as many features
    fire per token as the SAE's do. Random baselines match trained SAEs on many usual measures (arXiv 2602.14111).
    """
    import torch

    from workbench.saes.interface import SparseAutoencoder

    directions = random_directions(kind, activations, sae.d_sae, seed).to(sae.device)
    mean = activations.float().mean(0).to(sae.device)
    l0 = mean_l0(sae, activations)
    threshold = _threshold(directions, activations, mean, l0)
    return SparseAutoencoder(
        id=kind,
        hook=sae.hook,
        model_name=sae.model_name,
        architecture="jumprelu",
        encoder=directions.T.contiguous(),
        encoder_bias=torch.zeros(sae.d_sae, device=sae.device),
        decoder_directions=directions,
        decoder_bias=mean,
        threshold=torch.full((sae.d_sae,), threshold, device=sae.device),
        weights_hash=kind,
    )


def mean_l0(sae: SparseAutoencoder, activations: Tensor) -> float:
    """The mean number of features that fire on a token of `activations [n, d_model]`."""
    fired = sum(int((sae.encode(part) != 0).sum()) for part in pieces(activations, sae.d_sae))
    return fired / max(len(activations), 1)


def _threshold(directions: Tensor, activations: Tensor, mean: Tensor, l0: float) -> float:
    """The value that `l0` of the codes exceed on an average token.

    On all tokens; where more than `KEPT_VALUES` codes would exceed it, on fewer, spread evenly over all text sets.
    """
    import torch

    n = min(len(activations), max(1, int(KEPT_VALUES / max(l0, 1e-6))))
    tokens = activations[torch.arange(n) * len(activations) // n]
    rank = min(max(round(l0 * n), 1), n * len(directions) - 1) + 1
    top = torch.empty(0, device=directions.device)
    for part in pieces(tokens, len(directions)):
        codes = ((part.float().to(directions.device) - mean) @ directions.T).flatten()
        codes = codes if len(top) < rank else codes[codes > top.min()]
        top = torch.cat([top, codes])
        top = top.topk(min(rank, len(top)), sorted=False).values
    return max(float(top.min()), 0.0)


def principal_directions(activations: Tensor) -> Tensor:
    """The principal components of `activations [n, d_model]`, strongest first: orthonormal rows [<= d_model, d_model]."""
    import torch

    centred = activations.double() - activations.double().mean(0)
    vectors = torch.linalg.eigh(centred.T @ centred).eigenvectors
    n = min(len(activations) - 1, activations.shape[1])
    return vectors.flip(1).T[:n].float().contiguous()
