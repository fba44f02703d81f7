"""The dictionaries that an SAE has to beat: random directions, and principal components."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.base.errors import unknown_name
from workbench.base.randomness import derive_seed, generator
from workbench.saes.evaluation.fitness import VALUES_AT_ONCE, pieces

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.saes.interface import SparseAutoencoder

RANDOM_KINDS = ("random_isotropic", "random_covariance")


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
    threshold = _threshold(directions, (activations.float().to(sae.device) - mean), l0)
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


def _threshold(directions: Tensor, centred: Tensor, l0: float) -> float:
    """The value that `l0` of the codes exceed on an average token, on as many tokens as fit in memory."""
    some = centred[: max(1, VALUES_AT_ONCE // len(directions))]
    values = (some @ directions.T).flatten()
    rank = min(max(round(l0 * len(some)), 1), len(values))
    return max(float(values.kthvalue(len(values) - rank + 1).values), 0.0)


def principal_directions(activations: Tensor) -> Tensor:
    """The principal components of `activations [n, d_model]`, strongest first: orthonormal rows [<= d_model, d_model]."""
    import torch

    centred = activations.double() - activations.double().mean(0)
    vectors = torch.linalg.eigh(centred.T @ centred).eigenvectors
    n = min(len(activations) - 1, activations.shape[1])
    return vectors.flip(1).T[:n].float().contiguous()
