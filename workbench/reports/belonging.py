"""Whether values belong to one report: the same trait, the same SAE by the hash of its weights, the same vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError

if TYPE_CHECKING:
    from workbench.decomposition.falsify import Falsification
    from workbench.decomposition.result import Decomposition
    from workbench.labeling.labels import LabelSet
    from workbench.labeling.taxonomy.values import MadeOf
    from workbench.labeling.views.view import FeatureView
    from workbench.personas.vectors import PersonaVector


def belong_together(
    vector: PersonaVector,
    parts: Decomposition,
    labels: LabelSet,
    *,
    views: Mapping[int, FeatureView] | None = None,
    falsification: Falsification | None = None,
    made_of: MadeOf | None = None,
) -> None:
    """Refuse values of another trait or SAE than the decomposition's, by a WorkbenchError that names both."""
    if parts.trait != vector.trait:
        raise WorkbenchError(
            f"the decomposition is of {parts.trait!r} and the vector is {vector.trait!r}",
            "a vector and its own decomposition",
            f"decompose the {vector.trait!r} vector and report that",
        )
    if len(labels) and not labels.matches(parts.sae):
        _refuse("labels", labels.sae_id, labels.sae_hash, parts, "label this decomposition with `workbench label`")
    for view in (views or {}).values():
        if view.sae.get("weights_hash") != parts.sae.get("weights_hash"):
            _refuse("feature views", view.sae.get("id"), view.sae.get("weights_hash"), parts,
                    "make them on that SAE (`feature_views`), or leave them out")  # fmt: skip
    if made_of is not None and (made_of.trait, made_of.sae.get("weights_hash")) != (parts.trait, parts.sae.get("weights_hash")):
        _refuse(f"shares per sub-trait of {made_of.trait!r}", made_of.sae.get("id"), made_of.sae.get("weights_hash"), parts,
                "make them of this decomposition (`made_of`), or leave them out")  # fmt: skip
    if falsification is not None and not is_falsification_of(falsification, parts):
        raise WorkbenchError(
            f"the falsification is of {falsification.trait!r} on {falsification.sae.get('id')!r}, not of this vector and SAE",
            f"one of {parts.trait!r} with the hash {str(parts.vector.get('sha256'))[:12]!r} on {parts.sae.get('id')!r}",
            "run `workbench falsify` on this vector, or leave it out",
        )


def is_falsification_of(found: Falsification, parts: Decomposition) -> bool:
    """Whether those checks were made of the vector and the SAE of this decomposition, by their hashes."""
    same_vector = bool(parts.vector.get("sha256")) and found.vector.get("sha256") == parts.vector.get("sha256")
    return found.trait == parts.trait and same_vector and found.sae.get("weights_hash") == parts.sae.get("weights_hash")


def identity(parts: Decomposition) -> dict[str, str]:
    """What a study of a decomposition is of: trait, vector and SAE, the last two by hash. Kept with the study as `of`."""
    return {
        "trait": parts.trait,
        "vector": str(parts.vector.get("sha256")),
        "sae": str(parts.sae.get("weights_hash")),
    }


def is_audit_of(found: Mapping[str, Any], parts: Decomposition) -> bool:
    """Whether a study says that it is of this decomposition; one that does not say is of none."""
    return bool(parts.vector.get("sha256")) and found.get("of") == identity(parts)


def _refuse(what: str, found_id: object, found_hash: object, parts: Decomposition, remedy: str) -> None:
    raise WorkbenchError(
        f"the {what} are of SAE {found_id!r} with weights {str(found_hash)[:12]!r}, the decomposition used "
        f"{parts.sae['id']!r} with weights {str(parts.sae.get('weights_hash'))[:12]!r}",
        f"{what} of the features of the same SAE",
        remedy,
    )
