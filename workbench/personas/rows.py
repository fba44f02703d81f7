"""Rollouts before they are sampled: who is asked what under which system prompt, and which are sampled together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from workbench.base.randomness import derive_seed
from workbench.base.store import content_hash
from workbench.models.generation import Sampling
from workbench.models.model import Model
from workbench.models.prompts import chat_template_hash
from workbench.models.servers import ChatServer
from workbench.models.thinking import ANSWER_RULE, may_think
from workbench.personas.reencoding import prompt_tokens


@dataclass(frozen=True)
class PlannedRow:
    """One rollout before it is sampled; `id` hashes all that its text depends on."""

    id: str
    trait: str
    split: str
    question_id: str
    instruction_id: str
    arm: str
    sample: int
    system: str
    question: str
    seed: int


class RowIdentity:
    """What all rows of a plan have in common, and the rows that it makes: `id` and seed hash all that a text depends on."""

    def __init__(self, model: Model, sampling: Sampling, seed: int, server: ChatServer | None = None) -> None:
        self._fixed = [model.weights_hash, chat_template_hash(model), asdict(sampling), seed, str(model.dtype)]
        self._fixed += [server.description()] if server else []
        self._fixed += [ANSWER_RULE] if may_think(model) else []
        self._fixed.append(model.chat_template_kwargs)

    def row(self, place: tuple[str, str, str, str, str, int], system: str, question: str) -> PlannedRow:
        """The row at `place`: trait, split, question id, instruction id, arm, sample (the only one of them that it hashes)."""
        row_id = content_hash([*self._fixed, system, question, place[-1]])[:24]
        return PlannedRow(row_id, *place, system, question, derive_seed("rollout", row_id))


def prompt_lengths(rows: Sequence[PlannedRow], model: Model) -> dict[str, int]:
    """{row id: tokens of its prompt}."""
    return {row.id: len(prompt_tokens(model, row.system, row.question).ids) for row in rows}


def plan_batches(rows: Sequence[PlannedRow], lengths: dict[str, int], batch_size: int) -> list[list[str]]:
    """Row ids batch by batch: by sample, then extraction before evaluation, then by prompt length.

    Samples come first so that a design with more samples begins with the batches of the smaller one.
    """

    def group(row: PlannedRow) -> tuple[int, bool]:
        return row.sample, row.split != "extraction"

    ordered = sorted(rows, key=lambda row: (group(row), lengths[row.id], row.id))
    batches: list[list[str]] = []
    previous = None
    for row in ordered:
        if group(row) != previous or len(batches[-1]) == batch_size:
            batches.append([])
        previous = group(row)
        batches[-1].append(row.id)
    return batches
