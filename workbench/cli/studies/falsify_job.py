"""What `workbench falsify` reads: a vector in any format, and everything that it can be held against."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError, nearest
from workbench.base.runs import default_run_folder

from .. import inputs
from ..console import note
from ..options import DEFAULT_MODEL

if TYPE_CHECKING:
    from workbench.decomposition.falsify import Falsification
    from workbench.personas.placebos import PlaceboVectors
    from workbench.personas.vectors import PersonaVector


def read_vector(
    name: str, *, format: str = "auto", model: str | None = None, hook: str | None = None, trait: str | None = None,
    sae: str | None = None,
) -> PersonaVector:  # fmt: skip
    """The vector that `name` means: a run folder, a folder of vectors, a foreign file, or a trait (its default run folder).

    Of several hook points the one at `hook`, else the one that was chosen, else the one of the SAE. Raises WorkbenchError
    for anything else, and where the readers do.
    """
    from workbench.personas.formats import read_vectors

    path = Path(name).expanduser()
    if path.is_file():
        return _at(read_vectors(path, format, model=model, hook=hook, trait=trait), hook, sae)
    if path.is_dir():
        return _of_folder(path, hook, sae)
    folder = default_run_folder(name, model or DEFAULT_MODEL)
    if folder.is_dir():
        return _of_folder(folder, hook, sae)
    raise _unknown(name, folder)


def _of_folder(folder: Path, hook: str | None, sae: str | None) -> PersonaVector:
    from dataclasses import replace

    from workbench.models.hookpoints import HookPoint
    from workbench.personas.formats import load_vectors
    from workbench.personas.vectors import PersonaVector

    for place in (folder, folder / "vector"):
        if (place / "persona_vector.json").is_file():
            found = PersonaVector.load(place)
            return found if hook is None else replace(found, hook=HookPoint.parse(hook))
    return _at(load_vectors(folder), hook, sae)


def _at(vectors: Any, hook: str | None, sae: str | None) -> PersonaVector:
    if hook is None and vectors.hook is None and len(vectors.hooks) > 1:
        site = inputs.find_sae(sae, str(vectors.model.get("name"))).hook
        if site in map(str, vectors.hooks):
            note(f"the file names no hook point: the one of the SAE, {site}, is taken")
            hook = site
    return vectors.persona_vector(hook)


def _unknown(name: str, folder: Path) -> WorkbenchError:
    from workbench.personas.traits import list_traits

    traits = list_traits()
    if name in traits:
        return WorkbenchError(f"{folder} does not exist: there is no vector of {name} yet", "a finished extraction",
                              f"run `workbench extract {name}`, or name the folder")  # fmt: skip
    close = ", ".join(nearest(name, traits)[:3])
    return WorkbenchError(f"there is no file, folder or trait {name!r}",
                          "a run folder, a folder of vectors, a file of another tool, or a trait's name",
                          f"check the path; traits like it: {close}")  # fmt: skip


def falsified(
    vector: PersonaVector, *, sae: str | None, other_seed: str | None = None, controls: Sequence[str] = (),
    placebos: Path | None = None, reference: Path | None = None, seed: int = 0,
) -> Falsification:  # fmt: skip
    """The vector put to every check; what is named is loaded, and refused when it does not belong together."""
    from dataclasses import replace

    from workbench.decomposition.falsify import falsify
    from workbench.saes.registry import load_sae

    site = inputs.find_sae(sae, str(vector.model.get("name")))
    dictionary = replace(load_sae(site.reference), id=site.id)
    model = _model(vector, dictionary)
    vectors, codes = _placebos(vector, dictionary, placebos, model)
    return falsify(
        vector, dictionary, model=model, tokenizer=_tokenizer(vector), placebos=codes, placebo_vectors=vectors,
        controls={Path(name).name: load_sae(name) for name in controls},
        other_seed=None if other_seed is None else load_sae(other_seed),
        reference=None if reference is None else _of_folder(reference, None, sae), seed=seed,
    )  # fmt: skip


def _model(vector: PersonaVector, sae: Any) -> Any:
    """The model, where the answers have to be read through it again; None otherwise."""
    source = vector.tokens
    if not len(vector.rows) or (source is not None and sae.hook in source.hooks and source.intact()):
        return None
    from workbench.models.loading import load_model

    return load_model(str(vector.model.get("name")))


def _tokenizer(vector: PersonaVector) -> Any:
    """The tokenizer of the vector's model where it is at hand, so that tokens have words."""
    from workbench.models.loading import config_at_hand

    found = config_at_hand(str(vector.model.get("name"))) if len(vector.rows) else None
    return None if found is None else found[1]


def _placebos(vector: PersonaVector, sae: Any, folder: Path | None, model: Any) -> tuple[PlaceboVectors | None, Any]:
    """(placebo vectors, placebo codes of this SAE), None where there are none; codes beside the SAE need no folder."""
    from workbench.decomposition.placebos import PlaceboCodes, codes_of_runs
    from workbench.models.loading import load_model
    from workbench.personas.placebos import PlaceboVectors

    name = str(vector.model.get("name"))
    found = folder or default_run_folder("placebos", name)
    codes = PlaceboCodes.beside(sae)
    if folder is None and not (found / "placebo_vectors.json").is_file():
        return None, codes
    vectors = PlaceboVectors.load(found)
    if codes is None and len(vector.rows):
        codes = codes_of_runs(found, lambda: model or load_model(name), sae)
    return vectors, codes
