"""The whole comparison of two models: similarity of what they represent, carried vectors, and what these do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.base.errors import WorkbenchError
from workbench.base.progress import track
from workbench.base.randomness import derive_seed, generator
from workbench.models.hookpoints import HookPoint
from workbench.models.model import Model
from workbench.personas.effects import effects_side_by_side
from workbench.personas.placebos import PlaceboVectors
from workbench.personas.runs import PersonaRun, read_run
from workbench.personas.traits import Trait, load_trait
from workbench.personas.transfer import (
    MIN_SEGMENTS,
    CarriedPlacebos,
    Transfer,
    pair_similarity,
    segment_means,
    similarity_map,
    split_segments,
    transfer,
)
from workbench.personas.vectors import PersonaVector

N_PUSHED = 8
"""Random directions, and carried placebos, that are pushed per trait: each costs two passes over its replies."""


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two models with its vectors; `hook` is where its vectors are taken, None = chosen by similarity."""

    model: Model
    folders: Mapping[str, Path]
    vectors: Mapping[str, PersonaVector]
    placebos: PlaceboVectors | None
    hook: HookPoint | None

    @classmethod
    def read(cls, model: Model, folders: Mapping[str, Path], placebos: Path, hook: str | None = None) -> Side:
        """The vectors in the run folders of the traits, and the placebos of that folder if there are any."""
        vectors = {name: PersonaVector.load(folder / "vector") for name, folder in folders.items()}
        found = PlaceboVectors.load(placebos) if (placebos / "placebo_vectors.json").is_file() else None
        return cls(model, folders, vectors, found, None if hook is None else HookPoint.parse(hook))

    @property
    def hooks(self) -> tuple[HookPoint, ...]:
        """Every block output."""
        return tuple(HookPoint(block) for block in range(self.model.n_blocks))

    def at(self, hook: HookPoint) -> dict[str, Tensor]:
        """The vectors `[d_model]` at `hook`."""
        return {name: vector.at(hook) for name, vector in self.vectors.items()}

    def placebos_at(self, hook: HookPoint) -> dict[str, Tensor] | None:
        """The placebo vectors at `hook`."""
        return None if self.placebos is None else dict(zip(self.placebos.names, self.placebos.at(hook), strict=True))

    def related(self) -> dict[str, tuple[str, ...]]:
        """Per placebo the traits that it comes close to."""
        return {} if self.placebos is None else dict(zip(self.placebos.names, self.placebos.related, strict=True))


def study(
    source: Side,
    target: Side,
    documents: Sequence[str],
    *,
    n_segments: int | None = None,
    dose: float = 1.0,
    n_pushed: int = N_PUSHED,
    min_segments: int = MIN_SEGMENTS,
    seed: int = 0,
) -> dict[str, Any]:
    """{source_hook, target_hook, n_segments, similarity, similarity_used, shared_questions, carried, pushed, behaviour}.

    JSON values. n_segments: how many are read at most (None = all that the documents hold); `min_segments` of them must be
    left to fit the map. n_pushed: random directions, and carried placebos, whose behaviour is measured beside each trait's
    (every placebo takes part in the cosines). similarity_used: CKA and RSA of the two hooks in use, beside permuted
    segments of this pair alone. The source hook is that of its vectors; the target hook is the block whose segment
    representations are most like those at the source hook (RSA), so that no vector takes part in choosing it.
    """
    segments = split_segments(documents, limit=n_segments)
    means = [segment_means(side.model, segments, side.hooks) for side in (source, target)]
    alike = similarity_map(means[0], means[1], seed=seed)
    hooks = _hooks(source, target, alike)
    places = [side.hooks.index(hook) for side, hook in zip((source, target), hooks, strict=True)]
    used = [side[:, place] for side, place in zip(means, places, strict=True)]
    found = transfer(
        used[0], used[1], source.at(hooks[0]), target.at(hooks[1]),
        source_placebos=source.placebos_at(hooks[0]), target_placebos=target.placebos_at(hooks[1]),
        related=source.related(), min_segments=min_segments, seed=seed,
    )  # fmt: skip
    runs = [
        {name: read_run(folder, side.model, hook) for name, folder in side.folders.items()}
        for side, hook in zip((source, target), hooks, strict=True)
    ]
    return {"source_hook": str(hooks[0]), "target_hook": str(hooks[1]), "n_segments": len(segments), "similarity": alike,
            "similarity_used": pair_similarity(used[0], used[1], seed=seed),
            "shared_questions": shared_questions(runs[0], runs[1], seed=seed), "carried": found.to_json(),
            "pushed": {"dose": dose, "n_random": n_pushed, "n_placebos_at_most": n_pushed, "placebos_pushed": "carried"},
            "behaviour": _behaviour(target.model, found, runs[1], dose, n_pushed, seed)}  # fmt: skip


def _hooks(source: Side, target: Side, alike: Mapping[str, Any]) -> tuple[HookPoint, HookPoint]:
    first = source.hook or next(iter(source.vectors.values())).hook
    if first not in source.hooks:
        raise WorkbenchError(f"the source vectors are at {first}", "a block output", "name one with --hook")
    likest = torch.tensor(alike["rsa"][source.hooks.index(first)]).argmax()
    return first, target.hook or target.hooks[int(likest)]


def shared_questions(source: Mapping[str, PersonaRun], target: Mapping[str, PersonaRun], *, seed: int = 0) -> dict[str, Any]:
    """CKA and RSA over the shared cells (trait x question x arm): each model's own answers, averaged per cell."""
    sides = [_cells(runs) for runs in (source, target)]
    keys = sorted(set(sides[0]) & set(sides[1]))
    items = [torch.stack([side[key] for key in keys]) for side in sides]
    return {"n_cells": len(keys), **pair_similarity(items[0], items[1], n_items=len(keys), seed=seed)}


def _cells(runs: Mapping[str, PersonaRun]) -> dict[tuple[str, str, str], Tensor]:
    cells = {}
    for name, run in runs.items():
        frame: Any = run.make.frame.reset_index(drop=True)
        for key, group in frame.groupby(["question_id", "arm"]):
            cells[(name, *key)] = run.make.with_system[group.index.to_numpy().copy(), 0].mean(dim=0)
    return cells


def _behaviour(
    model: Model, found: Transfer, runs: Mapping[str, PersonaRun], dose: float, n_pushed: int, seed: int
) -> dict[str, Any]:
    """Per trait what the carried and the model's own vector do on the sealed pairs at the same dose.

    Both beside the same random directions, the carried vector beside carried placebos as well, whose names it tells.
    """
    measured: dict[str, Any] = {}
    with track("vectors pushed", len(found.traits), "traits") as step:
        for name, carried in zip(found.traits, found.carried, strict=True):
            measured[name] = _pushed(model, found, name, carried, runs[name], dose, n_pushed, seed)
            step()
    return measured


def _pushed(
    model: Model, found: Transfer, trait: str, carried: Tensor, run: PersonaRun, dose: float, n_pushed: int, seed: int
) -> dict[str, Any] | None:  # fmt: skip
    pairs = _sealed(load_trait(trait))
    if not pairs:
        return None
    names, placebos = placebos_to_push(found.placebos, trait, n_pushed, seed)
    did = effects_side_by_side(
        model, run.hook, pairs, {"carried": carried, "own": run.direction}, run.make.with_system[:, 0],
        placebos={"carried": placebos} if names else {}, dose=dose, n_random=n_pushed, seed=seed,
    )  # fmt: skip
    did["carried"]["placebos"] = names
    return did


def placebos_to_push(placebos: CarriedPlacebos | None, trait: str, n: int, seed: int) -> tuple[list[str], Tensor]:
    """(names, vectors `[m, d_target]`) of at most `n` carried placebos that do not come close to the trait.

    They are taken from one order, drawn once for all traits: two traits have the same ones, but for those related to one.
    """
    if placebos is None:
        return [], torch.zeros(0, 0)
    order = torch.randperm(len(placebos.names), generator=generator(derive_seed("pushed placebos", seed)))
    there = set(placebos.unrelated(trait))
    chosen = [i for i in order.tolist() if i in there][:n]
    return [placebos.names[i] for i in chosen], placebos.vectors[chosen]


def _sealed(trait: Trait) -> list[Any]:
    chosen = [pair for pair in (*trait.contrast_pairs, *trait.control_pairs) if pair.split == "sealed"]
    return chosen if any(pair.kind == "contrast" for pair in chosen) else []
