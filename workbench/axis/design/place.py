"""`place`: where a system prompt lands among the characters of a model, what makes it so, and what would steady it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from workbench.axis.design.answers import (
    CHOOSING,
    REPORTING,
    Answers,
    PlaceDesign,
    both_known,
    collect_answers,
    default_prompts,
)
from workbench.axis.design.parts import drift_risk, prompt_features, trait_loads
from workbench.axis.design.result import Placement
from workbench.axis.design.sentences import added, best_addition, kept_character, moves, pieces, without_each
from workbench.axis.design.standing import axis_covector, expected_ranks, self_retrieval, standing
from workbench.axis.scripts import steadying_sentences
from workbench.axis.space.axis import role_vector
from workbench.axis.space.mapping import VECTOR, read_role_vectors
from workbench.axis.space.role_vectors import RoleVectors
from workbench.base.errors import WorkbenchError
from workbench.base.provenance import provenance
from workbench.base.tensors import tensor_hash
from workbench.models.model import Model
from workbench.personas.placebos import PlaceboVectors
from workbench.personas.vectors import PersonaVector

if TYPE_CHECKING:
    from workbench.labeling.labels import LabelSet
    from workbench.models.servers import ChatServer
    from workbench.saes.interface import SparseAutoencoder

PLACES, ANSWERS = "place", "answers"


def place(
    model: Model,
    prompt: str,
    run: str | Path,
    *,
    name: str = "prompt",
    folder: str | Path | None = None,
    design: PlaceDesign | None = None,
    traits: Sequence[PersonaVector] = (),
    placebos: PlaceboVectors | None = None,
    sae: SparseAutoencoder | None = None,
    labels: LabelSet | None = None,
    expected: Sequence[str] = (),
    additions: Mapping[str, str] | None = None,
    seed: int = 0,
    server: ChatServer | None = None,
) -> Placement:
    """Where the system prompt `prompt` lands in the map of `run` (a folder of `workbench axis roles`), and what to change.

    The prompt and the default assistant answer the same held-out questions (`design`): position and nearest characters; shifts
    along `traits` beside `placebos`; features of prompt - default on `sae`, as any persona vector is decomposed; drift over
    scripted therapy and philosophy talk; each sentence of the prompt left out in turn; and sentences that might be added
    (`additions` {name: sentence}, default: `steadying_sentences`), of which the one that moves the prompt most toward the
    assistant on one split of the questions is chosen and reported on the other, with the drift that it leaves. `expected`: roles
    that were named beforehand as near. Everything lies in `folder` (default: run/place/NAME, and the answers of all prompts
    together in run/place/answers) and is taken up again.

    Raises WorkbenchError for a prompt that is empty or the default's own, for role vectors of another model, and for a folder in
    which the run's own axis lies.
    """
    design, vectors = design or PlaceDesign(), read_role_vectors(run)
    _check(model, prompt, vectors)
    place = Path(folder) if folder is not None else Path(run) / PLACES / name
    _check_folder(place, Path(run))
    store = place / ANSWERS if folder is not None else Path(run) / PLACES / ANSWERS
    shared: dict[str, Any] = {"hook": vectors.hook, "design": design, "seed": seed, "server": server}
    default, questions = default_prompts(model), design.questions(REPORTING)
    answers = collect_answers(model, store, [*default, prompt], questions, token_hooks=(sae.hook,) if sae else (), **shared)
    shifts, spoken = shift_of(answers, prompt, default)
    vector = role_vector(answers.rollouts, answers.frame(name, prompt, default), model, name, hook=vectors.hook, seed=seed)
    vector.save(place / VECTOR)
    covector, stood = axis_covector(vectors), standing(shifts, vectors, seed=seed)
    features = prompt_features(vector, sae, vectors, labels, model, place / "decomposition", seed) if sae else {}
    sentences = _sentences(model, prompt, answers, covector, shared)
    changed = _additions(model, prompt, answers, covector, additions or steadying_sentences(), shared)
    personas = {name: prompt} | ({f"{name}, steadied": changed["chosen"]["prompt"]} if changed.get("chosen") else {})
    toward = PersonaVector.load(Path(run) / VECTOR)
    drift = drift_risk(model, toward, vectors, personas, place / "drift", placebos, design, seed) if design.conversations else {}
    inputs = {"model": model.weights_hash, "role vectors": tensor_hash(vectors.means), "answers": answers.rollouts.hash}
    found = Placement(
        name, prompt, model.description(), str(vectors.hook), len(vectors), stood, self_retrieval(vectors),
        expected_ranks(stood["nearest"], expected, seed=seed) if expected else {},
        trait_loads(model, shifts, spoken, vectors.hook, traits, placebos, seed), features, drift, sentences, changed,
        provenance(seed=seed, inputs=inputs, config=asdict(design)),
    )  # fmt: skip
    found.save(place)
    return found


def _check(model: Model, prompt: str, vectors: RoleVectors) -> None:
    if not prompt.strip() or prompt in default_prompts(model):
        raise WorkbenchError("the system prompt is empty or the default assistant's own", "a prompt that makes a character",
                             "write one; the default assistant stands at 1 by definition")  # fmt: skip
    if vectors.model.get("weights_hash") != model.weights_hash:
        raise WorkbenchError(f"role vectors of {vectors.model.get('name')}", f"those of {model.name}",
                             "map this model first: workbench axis roles --model MODEL")  # fmt: skip


def _check_folder(place: Path, run: Path) -> None:
    if place.resolve() in (run.resolve(), (run / PLACES).resolve(), (run / PLACES / ANSWERS).resolve()):
        raise WorkbenchError(f"{place} as the folder of a placed prompt", "a folder of its own, apart from the run's",
                             "choose another name, or another folder (--out)")  # fmt: skip


def shift_of(answers: Answers, prompt: str, default: Sequence[str]) -> tuple[Tensor, Tensor]:
    """(prompt - default per question `[n_known, d_model]`, the default's means `[n_prompts * n_known, d_model]`).

    The default is the mean of its prompts; questions without replies on either side are left out.
    """
    spoken = [answers.of(one) for one in default]
    mean = sum(spoken[1:], spoken[0]) / len(spoken)
    known = both_known(answers.of(prompt), mean)
    return (answers.of(prompt) - mean)[known], answers.means[: len(default), known].flatten(0, 1)


def _sentences(
    model: Model, prompt: str, answers: Answers, covector: Tensor, shared: dict[str, Any]
) -> list[dict[str, Any]]:
    """What each sentence of the prompt moves along the axis: with all of it - without the sentence, on the same questions."""
    parts, store = pieces(prompt, shared["design"].most_pieces), answers.rollouts.folder
    if len(parts) < 2:
        return []
    without = without_each(parts)
    left = collect_answers(model, store, without, answers.questions, **shared)
    changes = [answers.of(prompt) - left.of(one) for one in without]
    return moves([one.strip() for one in parts], _known(changes), covector, seed=shared["seed"])


def _additions(
    model: Model, prompt: str, answers: Answers, covector: Tensor, sentences: Mapping[str, str], shared: dict[str, Any]
) -> dict[str, Any]:
    """{measured: what each sentence moves on the choosing questions, chosen: the best of them on the reporting questions}."""
    design, seed, store = shared["design"], shared["seed"], answers.rollouts.folder
    longer = {key: added(prompt, sentence) for key, sentence in sentences.items()}
    if not longer:
        return {}
    tried = collect_answers(model, store, [prompt, *longer.values()], design.questions(CHOOSING), **shared)
    measured = moves(list(longer), _known([tried.of(text) - tried.of(prompt) for text in longer.values()]), covector, seed=seed)
    best = best_addition(measured)
    if best is None:
        return {"measured": measured, "chosen": None}
    text, key = longer[best["name"]], best["name"]
    again = collect_answers(model, store, [text], answers.questions, **shared)
    (told,) = moves([key], _known([again.of(text) - answers.of(prompt)]), covector, seed=seed)
    default = default_prompts(model)
    mean = sum((answers.of(one) for one in default[1:]), answers.of(default[0])) / len(default)
    known = both_known(mean, again.of(text), answers.of(prompt))
    kept = kept_character((answers.of(prompt) - mean)[known], (again.of(text) - mean)[known])
    return {"measured": measured, "chosen": {**told, "sentence": sentences[key], "prompt": text, "kept_character": kept}}


def _known(changes: Sequence[Tensor]) -> Tensor:
    """Changes per name `[n_questions, d_model]` as `[n_known, n_names, d_model]`."""
    import torch

    stacked = torch.stack(list(changes))
    return stacked[:, both_known(stacked)].transpose(0, 1)
