"""What the model says under an edit: sampled replies, the trait in them by a judge that filtered nothing, and their coherence.

Three measures of coherence: the judges' readability rule (0-100: words, repetition, variety, fluency under a character model),
the share of repeated word trigrams, and the surprise of the reply to the model without any edit, in nats per token. Text that
has fallen apart fails the first two; a loop fails the first two and pleases the third: read them together.

Edits act under "predicting": on the last prompt token and every token of the reply, never on what the user said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.randomness import derive_seed
from workbench.models.generation import Generated, generate
from workbench.models.likelihood import token_logprobs
from workbench.models.prompts import with_response
from workbench.models.sampling import Sampling
from workbench.personas.judges import Judge, JudgeItem
from workbench.personas.judges.rules import repeated_trigrams
from workbench.personas.judging import check_judge
from workbench.personas.reencoding import prompt_tokens

if TYPE_CHECKING:
    from workbench.models.model import Model
    from workbench.models.prompts import ChatTokens
    from workbench.personas.traits import Question, Trait

SCOPE = "predicting"
"""Where edits act while replies are sampled."""
STARTS = ("neutral", "trait")
N_SURPRISES = 1
"""Replies per question whose surprise is measured: it takes a second pass."""
MEASURES = ("points", "coherence", "repeated", "surprise", "refused", "n_tokens")


@dataclass(frozen=True)
class Asking:
    """Which questions are asked, how often, from which start and how replies are sampled."""

    start: str = "neutral"
    """"neutral": no system prompt of ours. "trait": the trait's positive system prompts in turn, so that there is a trait to
    take away."""
    splits: tuple[str, ...] = ("sealed",)
    """Whose questions: choose on "verification", report on "sealed"."""
    n_samples: int = 4
    """Replies per question."""
    sampling: Sampling = field(default_factory=lambda: Sampling(max_new_tokens=48))
    """How replies are sampled."""
    batch_size: int = 64
    """Replies sampled together."""
    seed: int = 0
    """Of the sampling noise, which every edit shares."""

    def __post_init__(self) -> None:
        if self.start not in STARTS or self.n_samples < 1:
            raise WorkbenchError(f"start {self.start!r} with {self.n_samples} samples", f"a start among {', '.join(STARTS)} "
                                 "and one sample or more", "correct the settings")  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class Replies(Shown):
    """One row per question and sample: question_id, sample, system, question, response, and MEASURES (points None: unjudged)."""

    rows: tuple[Mapping[str, Any], ...]

    def by_question(self, measure: str) -> Tensor:
        """Mean of a measure over the samples of each question, float64 `[n_questions]` in order of appearance; NaN if unknown."""
        ids = list(dict.fromkeys(row["question_id"] for row in self.rows))
        cells = [[row[measure] for row in self.rows if row["question_id"] == one and row[measure] is not None] for one in ids]
        return torch.tensor([sum(cell) / len(cell) if cell else torch.nan for cell in cells], dtype=torch.float64)

    def mean(self, measure: str) -> float:
        """Mean over questions, each weighing the same."""
        return float(self.by_question(measure).nanmean())


def sample_replies(model: Model, trait: Trait, asking: Asking, *, told: str = "") -> list[dict[str, Any]]:
    """Replies under the edits in force; `told` ("positive" or "negative") adds the trait's own instruction to the start.

    Columns question_id, sample, system, question, response, n_tokens and `chat` (ChatTokens of the whole).
    """
    questions = trait.questions_of(*asking.splits)
    if not questions:
        found = f"{trait.name} has no questions of {', '.join(asking.splits)}"
        raise WorkbenchError(found, "one or more", "write them into its trait.yaml")
    rows = [_row(trait, asking, told, place, question, sample) for place, question in enumerate(questions)
            for sample in range(asking.n_samples)]  # fmt: skip
    prompts = [prompt_tokens(model, row["system"], row["question"]) for row in rows]
    seeds = [derive_seed("steering cost", asking.seed, row["question_id"], row["sample"]) for row in rows]
    for indices, made in generate(model, prompts, asking.sampling, row_seeds=seeds, batch_size=asking.batch_size):
        for index, one in zip(indices, made, strict=True):
            rows[index] |= {"response": one.text, "n_tokens": len(one.response_ids), "chat": _chat(one)}
    return rows


def judged(
    rows: Sequence[dict[str, Any]], model: Model, trait: Trait, judge: Judge, *, filtered_by: str | None = None
) -> Replies:
    """The measures of sampled rows: a refusal shows no trait and counts 0 points; what no judge scored has None.

    Call it with no edit in force. Raises WorkbenchError for a judge that filtered the rollouts behind the vector (`filtered_by`)
    or that reads with the model's own weights.
    """
    if judge.name == filtered_by:
        raise WorkbenchError(f"{judge.name} filtered the rollouts that the vector is made from",
                             "a judge that shares nothing with it",
                             "score with another judge (`workbench judge list`), offline-outcome for instance")  # fmt: skip
    check_judge(judge, model)
    verdicts = judge.score([JudgeItem(row["question"], row["response"]) for row in rows], trait)
    read = [row for row in rows if row["sample"] < N_SURPRISES]
    surprises = dict(zip(map(id, read), reply_surprises(model, [row["chat"] for row in read]), strict=True))
    found = []
    for row, verdict in zip(rows, verdicts, strict=True):
        points = {"scored": verdict.score, "refused": 0.0}.get(verdict.outcome)
        measures = {"points": points, "coherence": verdict.coherence, "repeated": repeated_trigrams(row["response"]),
                    "surprise": surprises.get(id(row)), "refused": float(verdict.outcome == "refused")}  # fmt: skip
        found.append({key: value for key, value in row.items() if key != "chat"} | measures)
    return Replies(tuple(found))


def reply_surprises(model: Model, chats: Sequence[ChatTokens]) -> list[float | None]:
    """Mean -log p of each chat's last response under the model without any edit, nats per token; None for an empty one."""
    spans = [list(chat.positions("response")) for chat in chats]
    with model.without_hooks():
        logp = token_logprobs(model, [chat.ids for chat in chats], spans)
    return [-float(one.double().mean()) if len(one) else None for one in logp]


def start_prompt(trait: Trait, start: str, place: int, told: str = "") -> str:
    """The system prompt of the row at `place`: instructions take turns; "" where nobody is told anything."""
    instruction = trait.instructions[place % len(trait.instructions)]
    if start == "neutral":
        return trait.system_prompt(instruction, told) if told else ""
    return " ".join([trait.system_prompt(instruction, "positive"), *([getattr(instruction, told)] if told else [])])


def _row(trait: Trait, asking: Asking, told: str, place: int, question: Question, sample: int) -> dict[str, Any]:
    system = start_prompt(trait, asking.start, place + sample, told)
    return {"question_id": question.id, "sample": sample, "system": system, "question": question.text}


def _chat(one: Generated) -> ChatTokens:
    return with_response(one.prompt, one.response_ids, lead_ids=one.lead_ids)
