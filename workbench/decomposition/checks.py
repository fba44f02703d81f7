"""Do vector, SAE and model belong together? What does not is refused, with a way out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from workbench.base.errors import WorkbenchError

logger = logging.getLogger(__name__)
MAX_RELATIVE_DIFFERENCE = 1e-4


def check_same_site(vector: Any, sae: Any) -> None:
    """Raise WorkbenchError unless the SAE reads the vector's model, at one of its hook points, at its width."""
    check_trained_on(vector.model, sae)
    if sae.hook not in vector.hooks:
        known = ", ".join(str(hook) for hook in vector.hooks[:4]) + (", ..." if len(vector.hooks) > 4 else "")
        raise WorkbenchError(
            f"the SAE {sae.id} reads {sae.hook}, but the vector holds {known}",
            "a vector and an SAE from the same hook point",
            f"choose an SAE for {vector.hook} (`workbench sae list`), or extract the vector with that hook",
        )
    if sae.d_model != vector.at(sae.hook).shape[0]:
        raise WorkbenchError(
            f"the SAE {sae.id} reads d_model={sae.d_model} but the vector has {vector.at(sae.hook).shape[0]}",
            "the same width on both sides",
            f"the vector came from {vector.model.get('name')} {vector.hook}; choose an SAE for that site (`workbench sae list`)",
        )


def check_trained_on(described: dict[str, Any], sae: Any) -> None:
    """Raise WorkbenchError unless the SAE was trained on the model with this description (`Model.description()`).

    A model with an adapter may be read with an SAE of the model below it, which is said in the log: how well the dictionary
    still fits is what the share of its error tells.
    """
    below = described.get("tuned_from")
    if below is not None and not _same_model(described, sae) and _same_model(below, sae):
        logger.info("%s is read with an SAE of %s, from which it was fine-tuned.", described.get("name"), below.get("name"))
    elif not _same_model(described, sae):
        raise WorkbenchError(
            f"the SAE {sae.id} was trained on {sae.model_name}, but the vector came from {described.get('name')}",
            "a vector and an SAE of the same model (name, or weights hash where both are known)",
            f"choose an SAE of {described.get('name')} (`workbench sae list`), or extract the vector from {sae.model_name}",
        )


def _same_model(described: Mapping[str, Any], sae: Any) -> bool:
    """Hashes decide when both are known: the same weights may go by a folder's name."""
    recorded = sae.card.get("model_weights_hash") or (sae.card.get("model") or {}).get("weights_hash")
    made_with = described.get("weights_hash")
    return recorded == made_with if recorded and made_with else sae.model_name == described.get("name")


def check_model(vector: Any, model: Any) -> None:
    """Raise WorkbenchError unless `model` has the weights that the vector was extracted from."""
    expected = vector.model.get("weights_hash")
    if expected and model.weights_hash != expected:
        raise WorkbenchError(
            f"the model {model.name} has weights {model.weights_hash[:12]}, the vector came from {expected[:12]}",
            f"the model that the vector was extracted from ({vector.model.get('name')})",
            "load that model, or extract the vector again with this one",
        )


def check_reproduces(rebuilt: Tensor, stored: Tensor, hook: Any) -> None:
    """Raise WorkbenchError unless the tokens give the stored direction back within 1e-4 of its norm."""
    difference = ((rebuilt - stored.double()).norm() / stored.double().norm()).item()
    if not difference <= MAX_RELATIVE_DIFFERENCE:
        raise WorkbenchError(
            f"the tokens give a direction at {hook} that differs from the vector by {difference:.1e} of its norm",
            f"at most {MAX_RELATIVE_DIFFERENCE:.0e}",
            "the tokens are not those of this vector (other rollouts, weights or precision): run extract again",
        )
