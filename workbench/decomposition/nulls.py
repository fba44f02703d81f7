"""What chance would have given: sign flips over questions, and random dictionaries for the energy explained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.base.randomness import derive_seed, generator
from workbench.maths.geometry import covariance_matched_directions, isotropic_directions
from workbench.maths.pursuit import energy_curve, signed_omp
from workbench.maths.signflips import sign_flip_test
from workbench.maths.statistics import benjamini_hochberg

ENERGY_ATOMS = (4, 8, 16, 32)
N_DICTIONARIES = 4


@dataclass(frozen=True, eq=False)
class FeatureTests:
    """Per feature `[d_sae]`: p, max-T family-wise p, BH q (NaN for a feature that never fires), and how exact."""

    p_value: Tensor
    p_family: Tensor
    q_value: Tensor
    n_active: int
    n_patterns: int
    exact: bool
    family_exact: bool


def feature_tests(differences: Tensor, *, seed: int = 0, family: bool = True) -> FeatureTests:
    """Sign-flip tests of the per-question differences `[n_questions, d_sae]` of mean codes.

    BH runs over the features that are active (not zero on every question). With one question nothing can be
    tested: p and q are NaN.
    """
    active = (differences != 0).any(dim=0)
    n_active, unknown = int(active.sum()), torch.full((differences.shape[1],), torch.nan, dtype=torch.float64)
    if differences.shape[0] < 2:
        return FeatureTests(unknown, unknown, unknown, n_active, 0, True, True)
    flips = sign_flip_test(differences, seed=seed, family=family)
    q_value = benjamini_hochberg(torch.where(active, flips.p, unknown))
    return FeatureTests(
        flips.p, flips.p_family, q_value, n_active, flips.n_patterns, flips.exact, flips.family_exact
    )


def energy_against_random(
    vector: Tensor, decoder: Tensor, activations: Tensor | None, *, n_atoms: int, seed: int
) -> dict[str, Any]:
    """Energy of `vector` explained by n atoms of the SAE, and by as many atoms of random dictionaries of its size.

    "isotropic" dictionaries are the easy control: with thousands of rows they explain much of *any* vector.
    "covariance_matched" rows are drawn with the covariance of `activations [n, d_model]` (None without them), which
    is the control that matters. Means over 4 seeded dictionaries. Returns {atoms, sae, isotropic,
    covariance_matched, n_dictionaries} with one number per entry of `atoms`.
    """
    steps = [k for k in ENERGY_ATOMS if k <= min(n_atoms, *decoder.shape)] or [min(n_atoms, *decoder.shape)]
    d_sae, d_model = decoder.shape
    sources = [generator(derive_seed("energy", seed, draw)) for draw in range(N_DICTIONARIES)]
    isotropic = [_energies(vector, isotropic_directions(d_sae, d_model, source), steps) for source in sources]
    matched = None
    if activations is not None:
        matched = [
            _energies(vector, covariance_matched_directions(activations, d_sae, s), steps) for s in sources
        ]
    return {
        "atoms": steps,
        "sae": _energies(vector, decoder, steps).tolist(),
        "isotropic": torch.stack(isotropic).mean(dim=0).tolist(),
        "covariance_matched": None if matched is None else torch.stack(matched).mean(dim=0).tolist(),
        "n_dictionaries": N_DICTIONARIES,
    }


def _energies(vector: Tensor, dictionary: Tensor, steps: list[int]) -> Tensor:
    found = signed_omp(vector.float(), dictionary.float(), n_atoms=max(steps))
    return energy_curve(vector.float(), found)[0, [k - 1 for k in steps]]
