"""The work of `workbench decompositions compare`: what it reads and what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError

from ..console import note

if TYPE_CHECKING:
    from workbench.decomposition.placebos import PlaceboCodes
    from workbench.decomposition.result import Decomposition
    from workbench.saes.interface import SparseAutoencoder

FILE = "decomposition.json"


def run_compare(
    folders: Sequence[Path], *, saes: Sequence[Path], placebos: Path | None, seed: int, out: Path | None
) -> dict[str, Any]:
    """The comparison as JSON values, with `folders`, `labels` {SAE: {feature: label}} and, when it was written, `file`."""
    from workbench.base.store import plain, write_json
    from workbench.decomposition.comparison.compare import compare, kind_of

    places = [_place(folder) for folder in folders]
    parts = [_load(place) for place in places]
    kind = kind_of(parts)  # before anything large is read
    found = _saes(parts, saes)
    background = _placebos(placebos, found[0], places) if kind == "traits" else None
    value = compare(parts, found, placebos=background, seed=seed).to_json()
    value = plain({**value, "folders": [str(folder) for folder in folders], "labels": _labels(parts)})
    if out is not None:
        value["file"] = str(write_json(out, value).resolve())
    return value


def _place(folder: Path) -> Path:
    """The folder of the decomposition itself."""
    for place in (folder, folder / "decomposition"):
        if (place / FILE).is_file():
            return place
    raise WorkbenchError(
        f"{folder} holds no decomposition",
        f"a folder with {FILE}, or a run folder with decomposition/",
        "make one: workbench decompose TRAIT",
    )


def _load(place: Path) -> Decomposition:
    """The decomposition, with its direction from the vector beside it where an older file did not keep one."""
    from workbench.decomposition.comparison.compare import with_direction
    from workbench.decomposition.result import Decomposition

    parts = Decomposition.load(place)
    vector = place.parent / "vector"
    if parts.direction.isfinite().all() or not (vector / "persona_vector.json").is_file():
        return parts
    from workbench.personas.vectors import PersonaVector

    return with_direction(parts, PersonaVector.load(vector))


def _saes(parts: Sequence[Decomposition], given: Sequence[Path]) -> list[SparseAutoencoder]:
    """The SAE of each decomposition: one of those given, else by its id."""
    from workbench.saes.registry import load_sae

    known = {sae.weights_hash: sae for sae in map(load_sae, given)}
    for one in parts:
        wanted = str(one.sae.get("weights_hash"))
        if wanted in known:
            continue
        try:
            sae = load_sae(str(one.sae.get("id")))
        except WorkbenchError as error:
            raise WorkbenchError(
                f"the SAE {one.sae.get('id')} of {one.trait} is not to be found ({error.found})",
                f"an SAE with the weights {wanted[:12]}",
                "give its folder with --sae",
            ) from error
        known[wanted] = sae  # another one of this id is refused by `compare`
    return [known[str(one.sae.get("weights_hash"))] for one in parts]


def _placebos(given: Path | None, sae: SparseAutoencoder, places: Sequence[Path]) -> PlaceboCodes | None:
    """Those given, beside the SAE, or made beside one of the runs."""
    from workbench.decomposition.placebos import PlaceboCodes

    if given is not None:
        return PlaceboCodes.load(given)
    beside = PlaceboCodes.beside(sae)
    if beside is not None:
        return beside
    name = f"placebos-*/codes-{sae.weights_hash[:16]}"
    made = [folder for place in places for folder in sorted(place.resolve().parent.parent.glob(name))]
    return PlaceboCodes.load(made[0]) if made else None


def _labels(parts: Sequence[Decomposition]) -> dict[str, dict[int, str]]:
    """The labels on the shelf of the features with large shares."""
    from workbench.labeling.files.store import load_labels

    found: dict[str, dict[int, str]] = {}
    for one in parts:
        name = str(one.sae.get("id"))
        kept = set(one.replicate_features.tolist())
        try:
            labels = load_labels(name, sae_hash=one.sae.get("weights_hash"))
        except WorkbenchError as error:  # labels are an ornament here: say what is wrong with them and go on
            note(f"no labels of {name}: {error.found}")
            continue
        words = {label.feature: label.label for label in labels if label.status != "rejected" and label.feature in kept}
        found.setdefault(name, {}).update(words)
    return found
