"""Sub-personas that do one thing each: our own texts, how their answers are recognised, and their rollouts.

Insults only, cruelty only, malicious code only, jailbreak compliance only, and a neutral set. What a vector should be made of
is not known for a trait; for answers of these four, put together in known proportions, it is (`lab.mixtures`). A small model
follows an adjective in the system message poorly, so an instruction is a system message and three earlier answers in that
manner; what was asked in them is the same for all, and so is the question that the model then answers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.randomness import derive_seed
from workbench.base.store import content_hash
from workbench.decomposition.rows import read_row_codes
from workbench.models.generation import Sampling, generate
from workbench.models.hookpoints import HookPoint
from workbench.models.prompts import ChatTokens, chat_template_hash, tokenize_chat
from workbench.personas.fields import Fields, read_fields
from workbench.personas.judging import usable_mask
from workbench.personas.parts import PartStore, Produced, complete_parts
from workbench.personas.rollouts import Rollouts, assemble, rollout_table

from .mixtures import Answers

if TYPE_CHECKING:
    from workbench.models.model import Model

FILE = Path(__file__).parent / "data" / "sub_personas.yaml"


@dataclass(frozen=True)
class Instruction:
    """A system message and earlier (question, answer) turns that show the manner."""

    id: str
    system: str
    shown: tuple[tuple[str, str], ...]

    def messages(self, question: str) -> list[dict[str, str]]:
        """The conversation up to `question`."""
        turns = [(role, text) for pair in self.shown for role, text in zip(("user", "assistant"), pair, strict=True)]
        said = [("system", self.system), *turns, ("user", question)]
        return [{"role": role, "content": text} for role, text in said]


@dataclass(frozen=True)
class SubPersona:
    """One manner of answering; `words` (beginnings of words) or `pattern` in an answer say that it was followed."""

    name: str
    instructions: tuple[Instruction, ...]
    words: tuple[str, ...] = ()
    pattern: str = ""

    @cached_property
    def _marks(self) -> re.Pattern[str]:
        starts = [rf"(?i:\b(?:{'|'.join(map(re.escape, self.words))}))"] if self.words else []
        return re.compile("|".join([*starts, *([f"(?:{self.pattern})"] if self.pattern else [])]), re.MULTILINE)

    def shows(self, text: str) -> bool:
        """Whether an answer does the one thing, by words and patterns alone: no judge, so neither irony nor quotation count."""
        return bool(self._marks.pattern) and self._marks.search(text) is not None


@dataclass(frozen=True, repr=False)
class SubPersonas(Shown):
    """The material: sub-personas, the neutral set, and (id, text) of the questions that all of them answer."""

    personas: tuple[SubPersona, ...]
    neutral: SubPersona
    questions: tuple[tuple[str, str], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the sub-personas, without neutral."""
        return tuple(one.name for one in self.personas)

    @property
    def hash(self) -> str:
        """sha256 of all texts."""
        return content_hash(asdict(self))


@dataclass(frozen=True)
class SamplingDesign:
    """How the answers of sub-personas are sampled."""

    n_samples: int = 2
    """Answers per question and instruction."""
    sampling: Sampling = field(default_factory=lambda: Sampling(max_new_tokens=32, temperature=0.7))
    """A small model follows what it was shown more closely below temperature 1."""
    batch_size: int = 64
    """Rows sampled together; part of the identity of a run, because it fixes the batches."""

    def __post_init__(self) -> None:
        if min(self.n_samples, self.batch_size) < 1:
            raise WorkbenchError(f"a count below 1 in {self}", "positive counts", "correct the design")


@cache
def load_sub_personas(path: Path = FILE) -> SubPersonas:
    """The sub-personas that come with the package (or those of another file of that form)."""
    document = read_fields(path)
    asked = dict(document.each("settings", lambda item: (item.text("id"), item.words("asked"))))

    def read(item: Fields) -> SubPersona:
        instructions = item.each("instructions", lambda one: _instruction(one, asked))
        pattern = item.text("pattern") if "pattern" in item.values else ""
        return SubPersona(item.text("name"), instructions, item.words("words"), pattern)

    questions = document.each("questions", lambda item: (item.text("id"), item.text("text")))
    return SubPersonas(document.each("personas", read), read(document.nested("neutral")), questions)


def _instruction(item: Fields, asked: dict[str, tuple[str, ...]]) -> Instruction:
    setting, answers = item.choice("setting", list(asked)), item.words("answers")
    if len(answers) != len(asked[setting]):
        raise item.wrong(f"{len(answers)} answers to {len(asked[setting])} questions.", "One answer per question of the setting.",
                         "Write the missing answers, or remove those that are too many.")  # fmt: skip
    return Instruction(setting, item.text("system"), tuple(zip(asked[setting], answers, strict=True)))


def collect(
    material: SubPersonas,
    model: Model,
    folder: str | Path,
    *,
    hook: HookPoint,
    design: SamplingDesign | None = None,
    seed: int = 0,
) -> Rollouts:
    """The answers of all sub-personas and of neutral, with every token's activation at `hook`.

    Columns as in `personas.rollouts`: `trait` and `arm` hold the sub-persona's name. What `folder` holds already is not sampled
    again; interrupt it and call it again. Whole designs of fewer samples are a beginning of those of more.
    """
    design = design or SamplingDesign()
    fixed = [model.weights_hash, chat_template_hash(model), asdict(design.sampling), seed, str(model.dtype)]
    rows, prompts = _planned(material, model, design, fixed)
    store, planned = PartStore(Path(folder)), {row["id"]: row for row in rows}

    def produce(ids: list[str]) -> Produced:
        return _sampled(model, [planned[one] for one in ids], [prompts[one] for one in ids], design.sampling, hook)

    batches = _batches(rows, {one: len(prompt.ids) for one, prompt in prompts.items()}, design.batch_size)
    complete_parts(store, batches, produce, hooks=(hook,), token_hooks=lambda _: (hook,), label="answers of sub-personas")
    return assemble(store, rows, (hook,), (hook,))


def read_answers(rollouts: Rollouts, material: SubPersonas, sae: Any) -> tuple[Answers, dict[str, list[bool]]]:
    """The answers on an SAE, and per sub-persona whether each answer does its one thing; answers without a token are left out."""
    frame = rollouts.frame()
    usable: Any = frame[usable_mask(frame)]
    rows = usable.to_dict("list")
    codes = read_row_codes(rollouts.tokens(sae.hook), rows["id"], sae)
    columns = (np.array(rows[name]) for name in ("arm", "question_id", "instruction_id"))
    shown = {one.name: [one.shows(text) for text in rows["response"]] for one in material.personas}
    return Answers(codes, *columns, names=material.names, neutral=material.neutral.name), shown


def _planned(
    material: SubPersonas, model: Model, design: SamplingDesign, fixed: Sequence[Any]
) -> tuple[list[dict[str, Any]], dict[str, ChatTokens]]:
    rows, prompts = [], {}
    cells = product(range(design.n_samples), (*material.personas, material.neutral), material.questions)
    for sample, persona, (question_id, question) in cells:
        for instruction in persona.instructions:
            messages = instruction.messages(question)
            row_id = content_hash([*fixed, model.chat_template_kwargs, messages, sample])[:24]
            prompts[row_id] = tokenize_chat(model, messages, add_generation_prompt=True)
            rows.append({"id": row_id, "trait": persona.name, "split": "extraction", "question_id": question_id,
                         "instruction_id": instruction.id, "arm": persona.name, "sample": sample, "system": instruction.system,
                         "question": question, "seed": derive_seed("sub-persona", row_id)})  # fmt: skip
    return rows, prompts


def _batches(rows: Sequence[dict[str, Any]], lengths: dict[str, int], size: int) -> list[list[str]]:
    """By sample, then by prompt length, so that a design with more samples begins with the smaller one's batches."""
    batches = []
    for sample in sorted({row["sample"] for row in rows}):
        ids = [row["id"] for row in rows if row["sample"] == sample]
        ids.sort(key=lambda one: (lengths[one], one))
        batches += [ids[start : start + size] for start in range(0, len(ids), size)]
    return batches


def _sampled(
    model: Model, rows: Sequence[dict[str, Any]], prompts: Sequence[ChatTokens], sampling: Sampling, hook: HookPoint
) -> Produced:
    made: dict[int, Any] = {}
    seeds = [row["seed"] for row in rows]
    for indices, results in generate(
        model, prompts, sampling, row_seeds=seeds, hooks=(hook,), token_hooks=(hook,), batch_size=len(rows)
    ):
        made.update(zip(indices, results, strict=True))
    ordered = [made[i] for i in range(len(rows))]
    texts = [
        {"response": one.text, "response_ids": list(one.response_ids), "finished": one.finished, "n_sinks": one.n_sinks}
        for one in ordered
    ]
    empty = torch.zeros(1, model.d_model)
    means = torch.stack([empty if one.means is None else one.means.float().nan_to_num() for one in ordered])
    table = rollout_table([{**row, **text} for row, text in zip(rows, texts, strict=True)])
    return table, means, {hook: [one.tokens[hook] for one in ordered]}
