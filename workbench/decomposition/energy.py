"""How much of a vector few atoms explain, and how much of that any dictionary would have explained of any vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from workbench.base.randomness import derive_seed, generator
from workbench.maths.geometry import covariance_factor, covariance_matched_directions, isotropic_directions
from workbench.maths.pursuit import energy_curve, signed_omp

ENERGY_ATOMS = (4, 8, 16, 32)
N_DICTIONARIES = 4
N_RANDOM_VECTORS = 24
HARD = "covariance_matched"
"""The dictionary that the SAE has to beat."""


def energy_table(
    vector: Tensor,
    decoder: Tensor,
    activations: Tensor | None,
    *,
    n_atoms: int,
    seed: int,
    placebos: Tensor | None = None,
    controls: dict[str, Tensor] | None = None,
    replicates: Tensor | None = None,
    only: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Energy explained by signed pursuit, vectors against dictionaries: the SAE's excess is read from both directions.

    Dictionaries: "sae"; "isotropic" directions, a straw man (with thousands of rows they explain much of *any* vector);
    directions with the covariance of `activations [n, d_model]`, the control that matters; "activations" themselves as
    atoms; "pca", their principal components; and decoders given as `controls` {name: [d, d_model]} (a soft-frozen SAE).
    Random ones are means over 4 seeded draws. Vectors: the trait's `vector [d_model]`; `placebos [n, d_model]`; as many
    covariance-matched random directions as there is room for ("random").

    With `only`, of these dictionaries alone, and the random vectors are left out where there are placebos: ("sae",
    "covariance_matched") are what excess needs.

    Returns {atoms, n_dictionaries, <dictionary>: [energy per entry of atoms], vectors: {placebos, random: {<dictionary>:
    [...]}}, excess: {value, interval, of_placebos, n_placebos, n_replicates} or None}. excess, at the largest number of
    atoms: (SAE minus covariance-matched) of the trait, minus the same for the placebos (for the random vectors without
    them); the interval resamples placebos and takes `replicates [B, d_model]` of the vector (its bootstrap over questions
    and instructions). A claim that the SAE suits *this* vector needs an interval above 0.
    """
    steps = [k for k in ENERGY_ATOMS if k <= min(n_atoms, *decoder.shape)] or [min(n_atoms, *decoder.shape)]
    made = _dictionaries(decoder, activations, controls or {}, seed)
    dictionaries = made if only is None else {name: draws for name, draws in made.items() if name in only}
    groups = {"trait": vector[None].float()}
    if placebos is not None and len(placebos):
        groups["placebos"] = placebos.float()
    if activations is not None and (only is None or "placebos" not in groups):
        random = covariance_matched_directions(activations, N_RANDOM_VECTORS, generator(derive_seed("energy vectors", seed)))
        groups["random"] = random.float()
    again = {} if replicates is None else {"replicates": replicates[replicates.isfinite().all(dim=1)].float()}
    energies, own = {}, {}
    for name, draws in dictionaries.items():
        energies[name], repeated = _by_group(draws, steps, groups, again if name in ("sae", HARD) else {})
        own |= {name: repeated["replicates"][:, -1]} if repeated else {}
    means = {group: {name: found[group].mean(dim=0).tolist() for name, found in energies.items()} for group in groups}
    return {
        "atoms": steps,
        **means.pop("trait"),
        **({} if activations is not None else {HARD: None}),
        "n_dictionaries": N_DICTIONARIES,
        "vectors": means,
        "excess": _excess(energies, own, seed) if HARD in energies else None,
    }


def _dictionaries(
    decoder: Tensor, activations: Tensor | None, controls: dict[str, Tensor], seed: int
) -> dict[str, Sequence[Callable[[], Tensor]]]:
    """Per name, one function per draw that makes the dictionary: one at a time is in memory."""
    d_sae, d_model = decoder.shape

    def draws(make: Callable[[torch.Generator], Tensor]) -> list[Callable[[], Tensor]]:
        return [lambda n=n: make(generator(derive_seed("energy", seed, n))) for n in range(N_DICTIONARIES)]

    found: dict[str, Sequence[Callable[[], Tensor]]] = {
        "sae": [lambda: decoder], "isotropic": draws(lambda source: isotropic_directions(d_sae, d_model, source)),
        **{name: [lambda rows=rows: rows] for name, rows in controls.items()},
    }  # fmt: skip
    if activations is not None:
        centred = activations.float() - activations.float().mean(dim=0)
        factor = covariance_factor(activations)
        found[HARD] = draws(lambda source: covariance_matched_directions(activations, d_sae, source, factor=factor))
        found["activations"] = [lambda: centred[:d_sae]]
        found["pca"] = [lambda: torch.linalg.eigh(centred.T @ centred).eigenvectors.T]
    return found


def _by_group(
    draws: Sequence[Callable[[], Tensor]], steps: list[int], *groups: dict[str, Tensor]
) -> list[dict[str, Tensor]]:
    """Energies [n, n_steps] of each group of vectors in each of `groups`, the mean over the draws; a draw is made once."""
    every = [torch.cat(list(named.values())) if named else None for named in groups]
    totals = [torch.zeros(0 if vectors is None else len(vectors), len(steps), dtype=torch.float64) for vectors in every]
    for draw in draws:
        dictionary = draw()
        for total, vectors in zip(totals, every, strict=True):
            if vectors is not None:
                total += _energies(vectors, dictionary, steps)
    sizes = [[len(group) for group in named.values()] for named in groups]
    return [dict(zip(named, (total / len(draws)).split(size), strict=True)) if named else {}
            for named, total, size in zip(groups, totals, sizes, strict=True)]  # fmt: skip


def _energies(vectors: Tensor, dictionary: Tensor, steps: list[int]) -> Tensor:
    found = signed_omp(vectors, dictionary.float(), n_atoms=min(max(steps), len(dictionary)))
    return energy_curve(vectors, found)[:, [min(k, len(dictionary)) - 1 for k in steps]]


def _excess(energies: dict[str, dict[str, Tensor]], repeated: dict[str, Tensor], seed: int) -> dict[str, Any]:
    difference = {group: found[:, -1] - energies[HARD][group][:, -1] for group, found in energies["sae"].items()}
    others = difference["placebos" if "placebos" in difference else "random"]
    own = repeated["sae"] - repeated[HARD] if repeated else difference["trait"]
    source = generator(derive_seed("energy excess", seed))
    drawn = others[torch.randint(len(others), (2_000, len(others)), generator=source)].mean(dim=1)
    spread = own[torch.randint(len(own), (2_000,), generator=source)] - drawn
    low, high = spread.quantile(spread.new_tensor([0.025, 0.975])).tolist()
    return {
        "value": float(difference["trait"][0] - others.mean()),
        "interval": [low, high],
        "own": float(difference["trait"][0]),
        "of_others": float(others.mean()),
        "others": "placebos" if "placebos" in difference else "random",
        "n_others": len(others),
        "n_replicates": len(own) if repeated else 0,
    }
