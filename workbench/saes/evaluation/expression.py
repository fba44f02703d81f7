"""Expression: how much of a persona vector can so many atoms of a dictionary rebuild, with signs, and is that remarkable?

Energy explained by signed orthogonal matching pursuit (`maths.pursuit`), beside dictionaries that learnt nothing. In few
dimensions any large dictionary expresses any vector: .44 at 32 of 4,608 isotropic atoms in 576 dimensions, and far more when
the atoms have the activations' covariance; only an excess over both says something. The principal components are orthogonal
and at most `d_model` many, however large the dictionary: with n_atoms = d_model they express everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from workbench.saes.evaluation.dictionaries import RANDOM_KINDS, principal_directions, random_directions

if TYPE_CHECKING:
    from torch import Tensor

N_ATOMS = (8, 32, 128)
N_DRAWS = 3
PCA = "pca"


def expressed(vectors: Tensor, dictionary: Tensor, n_atoms: Sequence[int] = N_ATOMS) -> Tensor:
    """Energy 1 - |r|^2 / |v|^2 of `vectors [n, d_model]` after each of `n_atoms` signed atoms: float64 [n, len(n_atoms)].

    A number beyond the dictionary's size, or beyond d_model, means all that these allow.
    """
    import torch

    from workbench.maths.pursuit import energy_curve, signed_omp

    most = min(max(n_atoms), len(dictionary), vectors.shape[1])
    curve = energy_curve(vectors, signed_omp(vectors.float(), dictionary, n_atoms=most)).cpu()
    return torch.stack([curve[:, min(n, most) - 1] for n in n_atoms], dim=1)


def expression(
    vectors: Mapping[str, Tensor],
    decoders: Mapping[str, Tensor],
    activations: Tensor,
    *,
    n_atoms: Sequence[int] = N_ATOMS,
    n_draws: int = N_DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """{"n_atoms", "per_vector": {vector: {dictionary: [energy, ...]}}, "mean": {dictionary: [...]}, "spread": {...}}.

    `decoders` are the SAEs' decoders `[d_sae, d_model]` by name; random dictionaries of the first one's size are drawn
    `n_draws` times (their mean is shown, their standard deviation over draws is `spread`); `activations [n, d_model]` give
    the covariance and the principal components.
    """
    import torch

    names, stacked = list(vectors), torch.stack([vector.float().cpu() for vector in vectors.values()])
    energies = {name: expressed(stacked, decoder.float().cpu(), n_atoms) for name, decoder in decoders.items()}
    size, spread = len(next(iter(decoders.values()))), {}
    for kind in RANDOM_KINDS:
        drawn = torch.stack(
            [expressed(stacked, random_directions(kind, activations, size, seed + i), n_atoms) for i in range(n_draws)]
        )
        energies[kind] = drawn.mean(0)
        spread[kind] = drawn.mean(1).std(0).nan_to_num().tolist()
    energies[PCA] = expressed(stacked, principal_directions(activations), n_atoms)
    return {
        "n_atoms": list(n_atoms),
        "d_model": stacked.shape[1],
        "per_vector": {v: {name: energy[i].tolist() for name, energy in energies.items()} for i, v in enumerate(names)},
        "mean": {name: energy.mean(0).tolist() for name, energy in energies.items()},
        "spread_over_draws": spread,
    }
