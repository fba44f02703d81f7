"""Decompositions side by side: traits on one SAE, one vector on two SAEs, or a vector before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from workbench.base.errors import WorkbenchError
from workbench.maths.geometry import projections

from ..methods import decoder_of
from ..placebos import PlaceboCodes
from ..result import Decomposition
from ..shares import require_shares
from .change import BeforeAfter, compare_change
from .dictionaries import DictionaryComparison, compare_dictionaries
from .overlap import TraitComparison, compare_traits

Kind = Literal["traits", "dictionaries", "change"]
CLOSE = 1e-3
_ASK = "give traits on one SAE, one vector on two SAEs, or two vectors of one trait on one SAE"


def kind_of(parts: Sequence[Decomposition]) -> Kind:
    """Which comparison these decompositions allow.

    Different traits on one SAE: "traits". One vector on two SAEs: "dictionaries". Two vectors of one trait on one SAE:
    "change". Raises WorkbenchError for anything else, saying what was found.
    """
    if len(parts) < 2:
        raise WorkbenchError(f"{len(parts)} decomposition", "two or more", _ASK)
    saes, traits, vectors = ([_named(one)[n] for one in parts] for n in range(3))
    if len(set(saes)) == 1 and len(set(traits)) == len(parts):
        return "traits"
    if len(parts) == 2 and saes[0] != saes[1] and vectors[0] == vectors[1]:
        return "dictionaries"
    if len(parts) == 2 and saes[0] == saes[1] and vectors[0] != vectors[1]:
        return "change"
    found = f"{len(set(traits))} traits, {len(set(vectors))} vectors and {len(set(saes))} SAEs among {len(parts)} decompositions"
    raise WorkbenchError(found, "a difference in one respect only", _ASK)


def _named(parts: Decomposition) -> tuple[Any, str, Any]:
    return parts.sae.get("weights_hash"), parts.trait, parts.vector.get("sha256")


def compare(
    parts: Sequence[Decomposition], saes: Sequence[Any], *, placebos: PlaceboCodes | None = None, seed: int = 0
) -> TraitComparison | DictionaryComparison | BeforeAfter:
    """The comparison that `parts` allow (`kind_of`), with the SAE of each of them.

    `placebos` (default: those beside the SAE) are the background of the overlaps of traits. Before and after are in
    the order given. Raises WorkbenchError when the decompositions allow none, when one has no shares or no direction, or when
    an SAE is not the one that a decomposition was made on.
    """
    kind = kind_of(parts)
    decoders = [_checked(one, sae) for one, sae in zip(parts, saes, strict=True)]
    if kind == "dictionaries":
        return compare_dictionaries(parts[0], parts[1], (decoders[0], decoders[1]), seed=seed)
    if kind == "change":
        return compare_change(parts[0], parts[1], decoders[0], seed=seed)
    placebos = placebos or PlaceboCodes.beside(saes[0])
    if placebos is not None:
        placebos.check(saes[0])
    return compare_traits(parts, decoders[0], placebos=placebos, seed=seed)


def _checked(parts: Decomposition, sae: Any) -> Tensor:
    """The decoder of `sae` when it is the one behind `parts`, whose direction and shares it then gives back."""
    require_shares(parts)
    if sae.weights_hash != parts.sae.get("weights_hash"):
        raise WorkbenchError(
            f"{sae.id} has the weights {sae.weights_hash[:12]}, the decomposition of {parts.trait} was made on "
            f"{parts.sae.get('id')} ({str(parts.sae.get('weights_hash'))[:12]})",
            "the SAE of the decomposition",
            "load that SAE, or decompose again",
        )
    if not parts.direction.isfinite().all():
        raise WorkbenchError(
            f"the decomposition of {parts.trait} was kept without its vector", "one with its direction", "decompose again"
        )
    decoder = decoder_of(sae)
    rebuilt = parts.delta_code * projections(parts.direction[None], decoder)[0] / parts.direction.double().square().sum()
    if (off := (rebuilt - parts.share).abs().max().item()) > CLOSE:
        raise WorkbenchError(
            f"the shares of {parts.trait} are off by {off:.2g} from what its vector and {sae.id} give",
            f"agreement to {CLOSE}",
            "decompose again: the files do not belong together",
        )
    return decoder


def with_direction(parts: Decomposition, vector: Any) -> Decomposition:
    """A copy with the direction that an older file did not keep, from its `vector`; unchanged when it is not that vector."""
    from dataclasses import replace

    from workbench.base.tensors import tensor_hash
    from workbench.models.hookpoints import HookPoint

    hook = HookPoint.parse(str(parts.vector["hook"]))
    direction = vector.at(hook).float().cpu() if hook in vector.hooks else torch.zeros(0)
    return replace(parts, direction=direction) if tensor_hash(direction) == parts.vector.get("sha256") else parts
