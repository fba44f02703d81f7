"""Do the first k features do what the vector does? The behavioural test of a decomposition, and the denoised vector.

    r_k = sum of dz_j d_j over the k features of the largest |share|          rest_k = v - r_k

At equal dose: v, r_k, rest_k, the SAE's error, and *random mixtures*: directions that have r_k's cosine with v while the
remainder is random with the activations' covariance. A mixture keeps what any vector that close to v keeps; features that
steer no better than it have explained nothing beyond their cosine. At natural scale (each part as long as it is in v) the
effects of r_k and rest_k are shown beside v's, to which they add up as long as the model is linear.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from workbench.base.errors import WorkbenchError
from workbench.base.progress import track
from workbench.base.randomness import derive_seed, generator
from workbench.maths.geometry import covariance_matched_directions
from workbench.maths.statistics import percentile_interval, rank_p

from ..methods import decoder_of
from .controls import require_pairs, sealed_pairs
from .pushing import Bench, Pushed

if TYPE_CHECKING:
    from workbench.models.model import Model
    from workbench.personas.traits import Trait
    from workbench.saes.interface import SparseAutoencoder

    from ..result import Decomposition

SIZES = (2, 4, 8, 16, 32, 64, 128)
DOSES = (0.125, 0.25, 0.375, 0.5)
DOSE = 0.25
KEPT = 0.8
N_MIXTURES = 19
TOKENS_PER_RESPONSE = 16


def audit(
    parts: Decomposition, model: Model, sae: SparseAutoencoder, trait: Trait, activations: Tensor, *, seed: int = 0
) -> dict[str, Any]:
    """The behavioural audit of a vector's decomposition; `activations [n, d_model]` give the covariance of random parts.

    k is chosen on the `select` pairs: the fewest features that keep 80% of v's odd effect at a quarter of the median norm (None
    when none of SIZES does); everything else is read from the sealed pairs. Returns

    {vector: {odd, interval, damage, kl}, curve: [{k, cosine, energy, odd, kept}], k, denoised, parts, doses}.
    denoised (None without a k, or unless the interval of v's own effect lies above 0 on both kinds of pairs): effect_kept =
    odd(r_k) / odd(v) with its interval over pairs; mixtures_kept, the same of the random mixtures (mean, most, p: rank of r_k
    among them; difference: r_k less their mean, with its interval); coherence_gain = KL(v) - KL(r_k) on neutral text in nats per
    token and kl_ratio = KL(r_k) / KL(v), both at equal effect (`at_equal_effect`).
    parts: odd of "features", "rest" and "error" at natural scale with |v| at that dose, and at equal dose.
    """
    direction, decoder = parts.direction.float(), decoder_of(sae)
    if not (parts.has_shares and direction.isfinite().all()):
        found = "a decomposition without shares or direction"
        raise WorkbenchError(found, "one of a vector with its rollouts", "decompose the vector again")
    require_pairs(trait)
    ladder = _Ladder.of(parts, direction, decoder)
    with track("audit", 3, "steps") as step:
        select = Bench(model, sae.hook, sealed_pairs(trait, "select"))
        curve, k = _curve(select, ladder, seed)
        step()
        sealed = Bench(model, sae.hook, sealed_pairs(trait))
        compared = torch.stack([direction, *([] if k is None else [ladder.of_size(k)])])
        doses = {dose: sealed.at_dose(compared, dose) for dose in DOSES}
        whole = _summary(sealed, doses[DOSE], 0, seed)
        step()
        shown = k or min(32, ladder.sizes[-1])
        found = _parts(sealed, ladder, shown)
        denoised = None if k is None or whole["interval"][0] <= 0 else _denoised(sealed, doses, ladder, k, activations, seed)
        step()
    return {"dose_norms": DOSE, "vector": whole, "curve": curve, "k": k, "denoised": denoised, "parts": {"k": shown, **found}}


def sampled_tokens(vector: Any, hook: Any, model: Model | None) -> Tensor:
    """Some tokens `[n, d_model]` of every response behind the vector, evenly spread over it: the activations' covariance.

    Raises WorkbenchError when they are neither stored nor a model is given to read them through.
    """
    from ..decompose import tokens_of, used_rows

    parts = []
    for _, tokens in tokens_of(vector, hook, model, used_rows(vector.rows)):
        stride = max(1, len(tokens) // TOKENS_PER_RESPONSE)
        parts.append(tokens[::stride][:TOKENS_PER_RESPONSE].float())
    return torch.cat(parts)


@dataclass(frozen=True, eq=False)
class _Ladder:
    """v `[d_model]`, and its first features' sums: `sums [n_sizes, d_model]` for `sizes`."""

    vector: Tensor
    sizes: tuple[int, ...]
    sums: Tensor
    everything: Tensor
    """The sum over all features: v less the SAE's error."""

    @classmethod
    def of(cls, parts: Decomposition, direction: Tensor, decoder: Tensor) -> _Ladder:
        delta = parts.delta_code.nan_to_num(0.0).float()
        order = parts.share.nan_to_num(0.0).abs().argsort(descending=True)
        sizes = tuple(size for size in SIZES if size <= int((delta != 0).sum()))
        if not sizes:
            raise WorkbenchError("fewer than two features that change", "a decomposition with some", "check vector and SAE")
        sums = torch.stack([delta[order[:size]] @ decoder[order[:size]] for size in sizes])
        return cls(direction, sizes, sums, delta @ decoder)

    def of_size(self, k: int) -> Tensor:
        """r_k `[d_model]`."""
        return self.sums[self.sizes.index(k if k in self.sizes else self.sizes[-1])]

    def cosine(self, k: int) -> float:
        """cos(r_k, v)."""
        return float(torch.nn.functional.cosine_similarity(self.of_size(k), self.vector, dim=0))


def _curve(bench: Bench, ladder: _Ladder, seed: int) -> tuple[list[dict[str, Any]], int | None]:
    """How much of v's effect each r_k keeps at equal dose on these pairs, and the smallest k that keeps KEPT of it."""
    pushed = bench.at_dose(torch.cat([ladder.vector[None], ladder.sums]), DOSE)
    odd = pushed.odd @ bench.contrast
    left = (ladder.vector - ladder.sums).square().sum(dim=1) / ladder.vector.square().sum()
    rows = [
        {"k": k, "cosine": ladder.cosine(k), "energy": 1 - float(gone), "odd": float(value),
         "kept": float(value / odd[0]) if odd[0] > 0 else None}
        for k, gone, value in zip(ladder.sizes, left, odd[1:], strict=True)
    ]  # fmt: skip
    low, _ = percentile_interval(bench.draws(seed) @ pushed.odd[0])
    enough = [row["k"] for row in rows if low > 0 and row["kept"] >= KEPT]
    return rows, enough[0] if enough else None


def _summary(bench: Bench, pushed: Pushed, place: int, seed: int) -> dict[str, Any]:
    odd = pushed.odd[place]
    low, high = percentile_interval(bench.draws(seed) @ odd)
    return {
        "odd": float(odd @ bench.contrast), "interval": [float(low), float(high)], "control_odd": float(odd @ bench.control),
        "damage": float(pushed.even[place] @ bench.contrast), "kl": float(pushed.kl[place]),
    }  # fmt: skip


def _parts(bench: Bench, ladder: _Ladder, k: int) -> dict[str, Any]:
    """Odd effects of the parts of v, as long as they are in it and at equal dose."""
    kept = ladder.of_size(k)
    pieces = {"vector": ladder.vector, "features": kept, "rest": ladder.vector - kept, "error": ladder.vector - ladder.everything}
    stacked = torch.stack(list(pieces.values()))
    scale = DOSE * bench.median_norm / ladder.vector.norm()
    found = {}
    for name, pushed in (("natural", bench.push(stacked * scale)), ("equal_dose", bench.at_dose(stacked, DOSE))):
        found[name] = dict(zip(pieces, (pushed.odd @ bench.contrast).tolist(), strict=True))
    return {**found, "norms": {name: float(piece.norm() / ladder.vector.norm()) for name, piece in pieces.items()}}


def _denoised(
    bench: Bench, doses: dict[float, Pushed], ladder: _Ladder, k: int, activations: Tensor, seed: int
) -> dict[str, Any]:
    at = doses[DOSE]
    odd = at.odd @ bench.contrast
    draws = bench.draws(seed) @ at.odd.T
    low, high = percentile_interval(draws[:, 1] / draws[:, 0])
    mixed = bench.at_dose(mixtures(ladder.vector, ladder.cosine(k), activations, N_MIXTURES, seed), DOSE)
    kept = (mixed.odd @ bench.contrast) / odd[0]
    apart = (draws[:, 1] - (bench.draws(seed) @ mixed.odd.mean(dim=0))) / draws[:, 0]
    least, most = percentile_interval(apart)
    return {
        "k": k, "cosine": ladder.cosine(k), "effect_kept": float(odd[1] / odd[0]), "interval": [float(low), float(high)],
        "mixtures_kept": {
            "mean": float(kept.mean()), "most": float(kept.max()), "n": len(kept), "p": float(rank_p(odd[1] / odd[0], kept)),
            "difference": float(odd[1] / odd[0] - kept.mean()), "interval": [float(least), float(most)],
        },
        **at_equal_effect(bench, doses),
    }  # fmt: skip


def mixtures(vector: Tensor, cosine: float, activations: Tensor, n: int, seed: int) -> Tensor:
    """Unit directions `[n, d_model]` with that cosine to `vector [d_model]`, the rest random with `activations`' covariance."""
    unit = vector.float() / vector.float().norm()
    random = covariance_matched_directions(activations, n, generator(derive_seed("audit mixtures", seed))).float()
    random = torch.nn.functional.normalize(random - (random @ unit)[:, None] * unit, dim=1)
    return cosine * unit + max(0.0, 1 - cosine**2) ** 0.5 * random


def at_equal_effect(bench: Bench, doses: dict[float, Pushed]) -> dict[str, float | None]:
    """{compared_at, coherence_gain, kl_ratio}: KL of r_k on neutral text beside v's where both have the same odd effect.

    That effect is v's at DOSE, or the most that r_k reaches if this is less (`compared_at`: as a share of v's). Curves are
    followed up to where they stop rising; between doses sqrt(KL), nearly linear in the dose, is interpolated. All None when
    either has no effect toward the trait.
    """
    curves = [
        _rising([(0.0, 0.0), *((float(p.odd[place] @ bench.contrast), float(p.kl[place]) ** 0.5) for p in doses.values())])
        for place in (0, 1)
    ]
    wanted = float(doses[DOSE].odd[0] @ bench.contrast)
    target = min(wanted, *(curve[-1][0] for curve in curves))
    if not target > 0:
        return dict.fromkeys(("compared_at", "coherence_gain", "kl_ratio"))
    effects_and_roots = [tuple(zip(*curve, strict=True)) for curve in curves]
    whole, kept = (float(np.interp(target, effects, roots)) ** 2 for effects, roots in effects_and_roots)
    return {"compared_at": target / wanted, "coherence_gain": whole - kept, "kl_ratio": kept / whole if whole > 0 else None}


def _rising(curve: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points up to the first one whose effect is not larger than the one before."""
    end = next((n for n in range(1, len(curve)) if curve[n][0] <= curve[n - 1][0]), len(curve))
    return curve[:end]
