"""Checks of the direction itself: the site, the activations' subspace, and what other dictionaries make of it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from workbench.base.randomness import derive_seed, generator
from workbench.decomposition.energy import ENERGY_ATOMS, HARD, energy_table
from workbench.maths.geometry import covariance_matched_directions, isotropic_directions, signed_cosines
from workbench.maths.pursuit import energy_curve, signed_omp
from workbench.maths.statistics import rank_p
from workbench.models.hookpoints import HookPoint

from .answers import cosine
from .criteria import CRITERIA, Check
from .material import Answers, Material

N_ATOMS = max(ENERGY_ATOMS)
N_REPLICATES = 64
N_RANDOM = 1_000
N_CHANCE = 4
N_TOP = 10
N_COMPONENTS = 5
SAME_FEATURE = 0.7
VARIANCE = 0.99
MIN_PLACEBOS = 19
"""Fewer cannot reach p = .05."""


def own_site(given: Material) -> Check:
    """Does the SAE read where the vector was chosen?"""
    same = given.vector.hook == given.sae.hook
    apart = f"the vector was chosen at {given.vector.hook}, the SAE reads {given.sae.hook}"
    return CRITERIA["own_site"].judged(float(same), f"both at {given.sae.hook}" if same else apart)


def neighbours(given: Material) -> Check:
    """Do the neighbouring blocks hold the same direction, as they do for placebos?"""
    criterion, hook, placebos = CRITERIA["neighbours"], given.sae.hook, given.placebo_vectors
    around = [HookPoint(hook.block + step, hook.site) for step in (-1, 1) if hook.block + step >= 0]
    around = [one for one in around if one in given.vector.hooks]
    if not around:
        return criterion.untested("the vector is known at no neighbouring block")
    if placebos is None or not {hook, *around} <= set(placebos.hooks):
        return criterion.untested("there are no placebo vectors at these blocks")
    here = given.direction
    own = sum(cosine(here, given.vector.at(one).double()) for one in around) / len(around)
    theirs = [placebos.at(one, trait=given.vector.trait).double() for one in (hook, *around)]
    if len(theirs[0]) < MIN_PLACEBOS:
        return criterion.untested(f"{len(theirs[0])} placebos cannot reach p = .05; it takes {MIN_PLACEBOS}")
    null = torch.stack([torch.cosine_similarity(theirs[0], one, dim=1) for one in theirs[1:]]).mean(dim=0)
    p = float(rank_p(torch.tensor(-own), -null))
    blocks = " and ".join(str(one.block) for one in around)
    beside = f"placebos {float(null.min()):.2f} to {float(null.max()):.2f}"
    return criterion.judged(p, f"cosine {own:.2f} with block {blocks}; {beside}",
                            cosine=own, of_placebos=null.tolist())  # fmt: skip


def subspace(given: Material) -> Check:
    """Does v lie where the activations vary?"""
    criterion, held = CRITERIA["subspace"], given.activations
    if held is None:
        return criterion.untested("there are no activations of the model to compare with")
    if len(held) < 2 * held.shape[1]:
        return criterion.untested(f"{len(held)} activations are too few to know {held.shape[1]} dimensions",
                                  needs=f"{2 * held.shape[1]} activations: a run with more answers")  # fmt: skip
    inside = _components(held)
    random = covariance_matched_directions(held, N_RANDOM, generator(derive_seed("falsify subspace", given.seed)))
    own, null = _outside(given.direction[None], inside)[0], _outside(random.double(), inside)
    placebos = given.placebo_directions
    others = None if placebos is None else float(_outside(placebos, inside).median())
    q95 = float(null.quantile(0.95))
    beside = "" if others is None else f", placebos {100 * others:.1f}% (median)"
    return criterion.judged(
        float(own), f"{inside.shape[1]} of {held.shape[1]} dimensions hold 99% of the variance; {100 * own:.1f}% of |v|^2 lies "
        f"outside, covariance-matched directions {100 * q95:.1f}% (95th percentile){beside}",
        n_dimensions=inside.shape[1], random_q95=q95, placebo_median=others,
    )  # fmt: skip


def _components(held: Tensor, share: float = VARIANCE) -> Tensor:
    """The principal components `[d_model, k]` that hold `share` of the variance, the largest first."""
    centred = held.double() - held.double().mean(dim=0)
    values, vectors = torch.linalg.eigh(centred.T @ centred)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    reached = values.cumsum(0) / values.sum()
    return vectors[:, : int((reached < share).sum()) + 1]


def _outside(vectors: Tensor, inside: Tensor) -> Tensor:
    """The share of each squared length `[n]` outside the span of orthonormal columns."""
    return 1 - (vectors @ inside).square().sum(dim=1) / vectors.square().sum(dim=1)


def generic(given: Material) -> Check:
    """Is v the mean activation, or a top principal component?"""
    criterion, held = CRITERIA["generic"], given.within_arms  # v itself must not make the components
    if held is None:
        return criterion.untested("there are no activations of the model to compare with")
    random = covariance_matched_directions(held, N_RANDOM, generator(derive_seed("falsify generic", given.seed))).double()
    axes = {"the mean activation": held.double().mean(dim=0)[:, None], "the nearest of five components": _components(held)}
    found = {}
    for name, columns in axes.items():
        unit = columns[:, :N_COMPONENTS] / columns[:, :N_COMPONENTS].norm(dim=0)
        own, null = (_nearest(vectors, unit) for vectors in (given.direction[None], random))
        found[name] = {"cosine": float(own[0]), "p": float(rank_p(own[0], null)), "random_q95": float(null.quantile(0.95))}
    worst = min(found, key=lambda name: found[name]["p"])
    told = "; ".join(f"|cos| {one['cosine']:.2f} with {name} (random {one['random_q95']:.2f})" for name, one in found.items())
    return criterion.judged(min(1.0, 2 * found[worst]["p"]), told, against=found)


def _nearest(vectors: Tensor, unit: Tensor) -> Tensor:
    return (vectors @ unit).abs().max(dim=1).values / vectors.norm(dim=1)


def dictionary(given: Material) -> Check:
    """Does the SAE suit v better than a random dictionary suits any vector?"""
    criterion, table = CRITERIA["dictionary"], given.parts.audit.get("energy") or {}
    if table.get("excess") is None:
        if given.activations is None:
            return criterion.untested("there are no activations of the model, so no covariance to match")
        table = energy_table(given.direction.float(), given.decoder, given.activations, n_atoms=N_ATOMS, seed=given.seed,
                             placebos=given.placebo_directions, only=("sae", HARD))  # fmt: skip
    excess = table["excess"]
    low, high = excess["interval"]
    drawn = "" if excess["n_replicates"] else "; the interval holds v fixed: there are no answers to draw again"
    return criterion.judged(
        low, f"the SAE explains {100 * table['sae'][-1]:.0f}%, a covariance-matched dictionary {100 * table[HARD][-1]:.0f}%; "
        f"excess over {excess['n_others']} {'placebos' if excess['others'] == 'placebos' else 'random vectors'} "
        f"{excess['value']:+.3f} [{low:+.3f}, {high:+.3f}]{drawn}", excess=excess,
        energy={name: value[-1] for name, value in table.items() if isinstance(value, list) and name != "atoms"},
    )  # fmt: skip


def soft_frozen(given: Material) -> Check:
    """Does it take what the SAE learned?"""
    return against_controls(given.direction, given.decoder, given.answers, given.controls, seed=given.seed)


def against_controls(
    direction: Tensor, decoder: Tensor, answers: Answers | None, controls: Mapping[str, Tensor], *, seed: int
) -> Check:
    """Does the SAE explain v `[d_model]` better than decoders of the same size that hardly left their random start?"""
    criterion = CRITERIA["soft_frozen"]
    if not controls:
        return criterion.untested("no soft-frozen SAE was given")
    fair = {name: rows for name, rows in controls.items() if rows.shape == decoder.shape}
    if not fair:
        sizes = ", ".join(f"{name} has {len(rows):,}" for name, rows in controls.items())
        return criterion.untested(f"the SAE has {len(decoder):,} features, {sizes}: a larger dictionary explains more")
    vectors = _with_replicates(direction, answers, seed)
    own = _energy(vectors, decoder)
    found = {}
    for name, rows in fair.items():
        more = own - _energy(vectors, rows)
        low, high = more[1:].quantile(more.new_tensor([0.025, 0.975])).tolist() if len(more) > 1 else 2 * [float(more[0])]
        found[name] = {"value": float(more[0]), "interval": [low, high]}
    worst = min(found, key=lambda name: found[name]["interval"][0])
    value, (low, high) = found[worst]["value"], found[worst]["interval"]
    drawn = "" if len(vectors) > 1 else " (no interval: there are no answers to draw again)"
    return criterion.judged(low, f"the SAE explains {value:+.3f} [{low:+.3f}, {high:+.3f}] more than {worst}{drawn}",
                            controls=found)  # fmt: skip


def _with_replicates(direction: Tensor, answers: Answers | None, seed: int) -> Tensor:
    """v and its bootstrap replicates over questions and instructions `[1 + B, d_model]`; v alone without its answers."""
    if answers is None:
        return direction[None].float()
    drawn = answers.design.resampled(N_REPLICATES, generator(derive_seed("falsify replicates", seed)))
    made = drawn @ answers.means
    return torch.cat([direction[None], made[made.isfinite().all(dim=1)]]).float()


def _energy(vectors: Tensor, rows: Tensor) -> Tensor:
    """The share of each vector's squared length `[n]` that 32 atoms explain."""
    n_atoms = min(N_ATOMS, *rows.shape)
    return energy_curve(vectors, signed_omp(vectors, rows.float(), n_atoms=n_atoms))[:, -1]


def seed(given: Material) -> Check:
    """Are the largest features of v in another SAE as well?"""
    criterion, other = CRITERIA["seed"], given.other_seed
    if other is None:
        return criterion.untested("no SAE from another seed was given")
    top = list(given.parts.top(N_TOP))
    nearest = signed_cosines(given.decoder[top], other.float()).max(dim=1).values
    own, chance = float((nearest >= SAME_FEATURE).double().mean()), _chance(given, top, len(other))
    limit = max(criterion.threshold or 0, chance + 1 / len(top))
    lost = [feature for feature, value in zip(top, nearest.tolist(), strict=True) if value < SAME_FEATURE]
    return criterion.judged(
        own, f"{round(own * len(top))} of {len(top)} are found again, {100 * chance:.0f}% by chance; median cosine "
        f"{float(nearest.median()):.2f}", threshold=limit, chance=chance, not_found=lost, nearest=nearest.tolist(),
    )  # fmt: skip


def _chance(given: Material, top: list[int], n: int) -> float:
    """How many of the features random directions find: those of the activations' covariance where that is known."""
    shares = []
    for draw in range(N_CHANCE):
        source = generator(derive_seed("falsify seed", given.seed, draw))
        if given.activations is None:
            rows = isotropic_directions(n, given.decoder.shape[1], source)
        else:
            rows = covariance_matched_directions(given.activations, n, source)
        shares.append(float((signed_cosines(given.decoder[top], rows).max(dim=1).values >= SAME_FEATURE).double().mean()))
    return sum(shares) / len(shares)
