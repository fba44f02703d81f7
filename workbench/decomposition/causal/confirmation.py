"""Is a verified feature verified again in a second SAE (another seed, width or training)?

The other SAE's nearest feature (signed decoder cosine, .7 or more) is pushed on the sealed pairs at the same KL and compared
with the same matched controls. A feature without such a counterpart is a feature of one training run, whatever it does.
A counterpart at cosine near 1 is nearly the same direction on the same pairs: what is confirmed is that the other SAE holds the
feature, not that another experiment gives the effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from workbench.base.errors import WorkbenchError
from workbench.maths.geometry import signed_cosines
from workbench.maths.statistics import benjamini_hochberg, rank_p
from workbench.personas.causal import CausalInstrument

from ..checks import check_trained_on
from ..methods import decoder_of
from .controls import ControlDistribution, control_key, pair_weights, sealed_pairs
from .verdict import LEVEL, direction_sign

if TYPE_CHECKING:
    from workbench.models.model import Model
    from workbench.personas.traits import Trait
    from workbench.saes.interface import SparseAutoencoder

    from ..result import Decomposition

MATCH = 0.7


def confirmed(
    parts: Decomposition,
    model: Model,
    sae: SparseAutoencoder,
    other: SparseAutoencoder,
    trait: Trait,
    controls: ControlDistribution,
) -> list[dict[str, Any]]:
    """Per causal row of `parts`: {feature, verified, match (feature of `other`), cosine, odd, p, q, confirmed}.

    odd, p and q are the match's effect toward the trait (contrast minus control pairs) and its rank among `controls`, which are
    those of `sae`; None where no direction of `other` reaches cosine .7. BH runs over the features that have a match.
    `confirmed` = verified, matched and q <= .05. Raises WorkbenchError without causal rows, and for an SAE of another site.
    """
    if not parts.causal:
        found = "a decomposition without causal rows"
        raise WorkbenchError(found, "one with its causal stage", "run `workbench decompose` first")
    if other.weights_hash == sae.weights_hash:
        raise WorkbenchError(f"{other.id} twice", "a second SAE", "name one of another seed, width or training")
    check_trained_on(model.description(), other)
    if other.hook != sae.hook or other.d_model != sae.d_model:
        raise WorkbenchError(f"an SAE of {other.hook}", f"one of {sae.hook}", "name a second SAE of the same site")
    controls.check(control_key(model, sae, trait, kl=controls.key["kl"]))
    rows = list(parts.causal)
    best = signed_cosines(decoder_of(sae)[[row.feature for row in rows]], decoder_of(other)).max(dim=1)
    unknown: dict[str, Any] = {"odd": None, "p": None, "q": None, "confirmed": False}
    found = [
        {"feature": row.feature, "verified": row.verified, "match": int(match), "cosine": float(cosine), **unknown}
        for row, match, cosine in zip(rows, best.indices, best.values, strict=True)
    ]
    matched = [one for one in found if one["cosine"] >= MATCH]
    if not matched:
        return found
    pairs = sealed_pairs(trait)
    contrast, control = pair_weights(pairs)
    instrument = CausalInstrument(model, sae.hook, pairs, kl=controls.key["kl"])
    odd = instrument.measure(decoder_of(other)[[one["match"] for one in matched]]).odd @ (contrast - control)
    signs = torch.tensor([direction_sign(parts, one["feature"]) for one in matched], dtype=torch.float64)
    null = controls.without([row.feature for row in rows])
    p = torch.stack([rank_p(sign * effect, sign * null) for sign, effect in zip(signs, odd, strict=True)])
    q = benjamini_hochberg(p)
    for one, sign, effect, p_value, q_value in zip(matched, signs, odd, p, q, strict=True):
        one |= {"odd": float(sign * effect), "p": float(p_value), "q": float(q_value)}
        one["confirmed"] = bool(one["verified"] and q_value <= LEVEL + 1e-12)
    return found
