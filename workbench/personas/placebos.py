"""Placebo contrasts: differences of two system prompts that are no persona trait, the null for what a trait's vector shows.

With enough rollouts almost any two system prompts give a stable vector that separates its own arms. A trait's vector
has to beat the vectors of formal / casual, pirate / librarian, sea / mountain and so on, made
the same way but for the filter: no judge knows them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.progress import track
from workbench.base.provenance import provenance
from workbench.base.store import content_hash
from workbench.base.tensors import load_artifact, save_artifact
from workbench.base.untrusted import refuses_damage
from workbench.models.hookpoints import HookPoint
from workbench.models.loading import Model
from workbench.models.servers import ChatServer
from workbench.personas.extraction import contrast_weights, weighted_sum
from workbench.personas.fields import Fields, read_fields
from workbench.personas.judging import usable_mask
from workbench.personas.rollouts import RolloutDesign, Rollouts, collect_rollouts
from workbench.personas.traits import InstructionTriple, Question, Trait

KIND, SCHEMA = "placebo_vectors", 1
_FILE = Path(__file__).parent / "data" / "placebos" / "placebos.yaml"
_ARMS = ("positive", "negative")


@dataclass(frozen=True)
class Placebo:
    """One contrast: the two adjectives and the instruction pairs; `related` names traits that it comes close to."""

    name: str
    positive: str
    negative: str
    pairs: tuple[tuple[str, str], ...]
    related: tuple[str, ...] = ()


@cache
def list_placebos() -> tuple[Placebo, ...]:
    """The placebo contrasts that come with the package, in file order."""
    return read_fields(_FILE).each("placebos", _placebo)


@cache
def placebo_questions() -> tuple[Question, ...]:
    """The questions that every placebo is asked; none of them is a question of a trait."""
    return read_fields(_FILE).each("questions", lambda item: Question(item.text("id"), item.text("text"), "extraction"))


@dataclass(frozen=True, eq=False, repr=False)
class PlaceboVectors(Shown):
    """One direction per placebo and hook point, `directions [n_placebos, n_hooks, d_model]`, positive minus negative.

    Made like a trait's vector (mean over response tokens with the system prompt in context, each question weighing
    the same), but from all rows: no judge knows these contrasts.
    """

    names: tuple[str, ...]
    related: tuple[tuple[str, ...], ...]
    hooks: tuple[HookPoint, ...]
    directions: Tensor
    model: dict[str, Any]
    provenance: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    def at(self, hook: HookPoint | str, *, trait: str | None = None) -> Tensor:
        """The directions `[n, d_model]` at `hook`; with `trait`, without the placebos that come close to it."""
        wanted = HookPoint.parse(hook)
        if wanted not in self.hooks:
            raise unknown_name("hook point of the placebos", str(wanted), [str(known) for known in self.hooks])
        return self.directions[self.unrelated(trait), self.hooks.index(wanted)]

    def unrelated(self, trait: str | None) -> list[int]:
        """The places of the placebos that do not come close to `trait`."""
        return [i for i, close in enumerate(self.related) if trait not in close]

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the directions and, last, the JSON; returns the JSON's path."""
        document = {"names": self.names, "related": self.related, "hooks": [str(hook) for hook in self.hooks],
                    "model": self.model, "provenance": self.provenance}  # fmt: skip
        return save_artifact(Path(folder), KIND, SCHEMA, document, {"directions": self.directions})

    @classmethod
    @refuses_damage
    def load(cls, folder: str | os.PathLike[str]) -> PlaceboVectors:
        """The vectors saved in `folder`."""
        document, tensors = load_artifact(Path(folder), KIND, SCHEMA)
        hooks = tuple(map(HookPoint.parse, document["hooks"]))
        related = tuple(map(tuple, document["related"]))
        return cls(tuple(document["names"]), related, hooks, tensors["directions"], document["model"],
                   document["provenance"])  # fmt: skip


def placebo_vectors(
    model: Model,
    folder: str | Path,
    *,
    hooks: Sequence[HookPoint] | None = None,
    design: RolloutDesign | None = None,
    placebos: Sequence[Placebo] | None = None,
    seed: int = 0,
    server: ChatServer | None = None,
) -> PlaceboVectors:
    """The vectors of all placebo contrasts, their rollouts kept in `folder` (resumed after an interruption).

    hooks: block outputs by default. design: sampling, samples and batch size are taken from it; arms and splits are
    positive / negative and extraction only. server: who samples, as in `collect_rollouts`.
    """
    chosen = tuple(placebos or list_placebos())
    where = tuple(hooks or (HookPoint(block) for block in range(model.n_blocks)))
    plan = placebo_design(design or RolloutDesign())
    directions = []
    with track("placebo contrasts", len(chosen), "contrasts") as step:
        for placebo in chosen:
            collected = collect_rollouts(
                placebo_trait(placebo), model, Path(folder) / placebo.name, design=plan, hooks=where, seed=seed,
                server=server,
            )  # fmt: skip
            directions.append(contrast(collected, placebo.name))
            step()
    inputs = {"placebos": content_hash([asdict(one) for one in chosen]), "model": model.weights_hash}
    config = {"design": asdict(plan), "n_placebos": len(chosen)}
    config |= {"server": server.description()} if server else {}
    return PlaceboVectors(
        tuple(one.name for one in chosen), tuple(one.related for one in chosen), where, torch.stack(directions),
        model.description(), provenance(seed=seed, inputs=inputs, config=config),
    )  # fmt: skip


def placebo_design(design: RolloutDesign) -> RolloutDesign:
    """`design` for placebos: two arms, no evaluation questions."""
    return replace(design, arms=_ARMS, splits=("extraction",))


def contrast(rollouts: Rollouts, name: str) -> Tensor:
    """Mean of the positive rows minus mean of the negative ones, `[n_hooks, d_model]`, each question weighing the same."""
    rows = rollouts.frame()
    rows["weight"] = contrast_weights(rows, usable_mask(rows), *_ARMS)
    direction = weighted_sum(rows["weight"], rollouts.means())
    if direction is None:
        raise WorkbenchError(
            f"no question of the placebo {name!r} has answers in both arms",
            "a model that answers some questions under both system prompts",
            "look at its answers; raise max_new_tokens",
        )
    return direction


def placebo_trait(placebo: Placebo) -> Trait:
    """The contrast in the shape of a trait, so that its rollouts are sampled by the same code."""
    triples = tuple(
        InstructionTriple(f"i{number}", positive, None, negative)
        for number, (positive, negative) in enumerate(placebo.pairs, start=1)
    )
    return Trait(f"placebo-{placebo.name}", placebo.positive, placebo.negative, placebo.name, triples,
                 placebo_questions(), rubric="", taxonomy=())  # fmt: skip


def _placebo(item: Fields) -> Placebo:
    pairs = item.value("pairs")
    if not all(isinstance(pair, list) and len(pair) == 2 and all(isinstance(s, str) for s in pair) for pair in pairs):
        raise item.wrong("a pair is not two strings.", "A list of [positive, negative] pairs.", "Correct 'pairs'.")
    texts = (item.text(key) for key in ("name", "positive", "negative"))
    return Placebo(*texts, pairs=tuple(map(tuple, pairs)), related=item.words("related"))
