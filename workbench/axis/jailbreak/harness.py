"""Benches on which arms are tried: replies, verdicts, capability and KL, each kept as long as what it depends on stays.

Replies are stored in full below the bench's folder, readable by their owner alone; everything that leaves the bench (tables,
reports, JSON) holds ids and numbers, and words only where they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.answers import AnswerCache
from workbench.base.display import Shown
from workbench.base.progress import track
from workbench.base.randomness import derive_seed
from workbench.models.generation import Generated, generate
from workbench.models.prompts import chat_template_hash
from workbench.models.sampling import Sampling
from workbench.personas.judges import JudgeItem
from workbench.personas.reencoding import prompt_tokens
from workbench.steering.apply import steered
from workbench.steering.cost import capability as exams
from workbench.steering.cost.matching import NeutralShift
from workbench.steering.cost.replies import Replies
from workbench.steering.cost.sweep import Cell
from workbench.steering.cost.treatments import edits_key

from .attempts import Arm, Attempt
from .judging import verdicts

if TYPE_CHECKING:
    import pandas

    from workbench.models.model import Model
    from workbench.models.prompts import ChatTokens
    from workbench.personas.judges import Judge
    from workbench.steering.cost.capability import Capability, Exam
    from workbench.steering.edits import Edit

WORDS = ("system", "question", "response", "response_ids", "lead_ids")
"""Columns that hold what was asked and said."""
REDACTED = "[not shown]"


@dataclass(frozen=True, eq=False, repr=False)
class Outcomes(Shown):
    """One arm's attempts: a row per attempt with prompt, persona, sample, n_tokens and the verdict (see `judging.verdicts`).

    The words stand in `rows` too, and in no display: `redacted` leaves them out.
    """

    arm: str
    rows: tuple[dict[str, Any], ...] = field(repr=False)

    def redacted(self) -> list[dict[str, Any]]:
        """The rows without what was asked and said."""
        return [{key: value for key, value in row.items() if key not in WORDS} for row in self.rows]

    def frame(self) -> pandas.DataFrame:
        """The rows as `intervention_rate` and `calibrate` read them, words included."""
        import pandas

        return pandas.DataFrame([{**row, "n_sinks": 0} for row in self.rows])

    def replies(self) -> Replies:
        """As rows of a sweep: question_id = the request, points = 100 x success; without the words."""
        return Replies(tuple(
            {"question_id": row["prompt"], "sample": row["sample"], "points": _points(row["success"]),
             "coherence": row["coherence"], "refused": row["refused"], "n_tokens": row["n_tokens"]}
            for row in self.rows
        ))  # fmt: skip


@dataclass(frozen=True)
class Trying:
    """How replies are sampled."""

    sampling: Sampling = field(default_factory=lambda: Sampling(max_new_tokens=64))
    batch_size: int = 64
    seed: int = 0
    """Of the sampling noise, which all arms share: the same attempt gets the same random numbers."""


class ReplyBench:
    """A model and a folder that keeps what it says under edits, and how far edits move neutral text."""

    def __init__(self, model: Model, folder: str | Path, trying: Trying | None = None) -> None:
        self.model, self.folder, self.trying = model, Path(folder), trying or Trying()
        self._replies, self._shifts = AnswerCache(self.folder / "replies", private=True), AnswerCache(self.folder / "shifts")

    def kl(self, edits: Sequence[Edit]) -> float:
        """How far edits move neutral text, nats per token; kept."""
        return kept(self._shifts, [self._model_key, edits_key(edits)], lambda: self.neutral(edits)) if edits else 0.0

    @cached_property
    def neutral(self) -> NeutralShift:
        """KL on neutral text."""
        return NeutralShift(self.model, folder=self.folder)

    def said(self, arm: Arm, attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
        """A row per attempt with WORDS, prompt, persona, sample, n_tokens, finished: what is kept, or sampled now.

        Kept batch by batch (attempts of similar length), so that an interrupted arm goes on where it stopped.
        """
        prompts = [prompt_tokens(self.model, arm.system(one), one.user) for one in attempts]
        order = sorted(range(len(attempts)), key=lambda place: (len(prompts[place].ids), place))
        rows: list[dict[str, Any]] = [{}] * len(attempts)
        with track(f"replies under {arm.name}", len(attempts), "replies") as step:
            for start in range(0, len(order), self.trying.batch_size):
                places = order[start : start + self.trying.batch_size]
                chosen = [attempts[place] for place in places]
                key = [self._model_key, arm.key(), [asdict(one) for one in chosen], asdict(self.trying)]
                made = kept(self._replies, key, lambda: self._sampled(arm, chosen, [prompts[place] for place in places]))  # noqa: B023
                for place, row in zip(places, made, strict=True):
                    rows[place] = row
                step(len(places))
        return rows

    @cached_property
    def _model_key(self) -> list[Any]:
        return [self.model.weights_hash, str(self.model.dtype), chat_template_hash(self.model), self.model.chat_template_kwargs]

    def _sampled(self, arm: Arm, attempts: Sequence[Attempt], prompts: Sequence[ChatTokens]) -> list[dict[str, Any]]:
        seeds = [derive_seed("attempt", self.trying.seed, one.prompt, one.persona, one.sample) for one in attempts]
        said: dict[int, Generated] = {}
        with steered(self.model, arm.edits):
            for indices, made in generate(self.model, prompts, self.trying.sampling, row_seeds=seeds, batch_size=len(attempts)):
                said.update(zip(indices, made, strict=True))
        return [_row(arm, one, said[place]) for place, one in enumerate(attempts)]


class AttackBench(ReplyBench):
    """With a judge of success, and an exam (None: capability is not measured)."""

    def __init__(self, model: Model, judge: Judge, exam: Exam | None, folder: str | Path, trying: Trying | None = None) -> None:
        super().__init__(model, folder, trying)
        self.judge, self.exam = judge, exam
        self._verdicts, self._costs = AnswerCache(self.folder / "verdicts"), AnswerCache(self.folder / "capability")

    def outcomes(self, arm: Arm, attempts: Sequence[Attempt]) -> Outcomes:
        """Replies and verdicts of one arm."""
        rows = self.said(arm, attempts)
        items = [JudgeItem(row["question"], row["response"]) for row in rows]
        key = [self.judge.description(), [[one.question, one.answer] for one in items]]
        judged = kept(self._verdicts, key, lambda: verdicts(self.judge, self.model, items))
        return Outcomes(arm.name, tuple({**row, **verdict} for row, verdict in zip(rows, judged, strict=True)))

    def cost(self, arm: Arm) -> tuple[Capability | None, float]:
        """(capability under the arm, None without an exam; KL on neutral text in nats per token, 0 for words).

        Edits act on all tokens here; a reminder stands before every document and question.
        """
        asked = None if self.exam is None else [self.exam.documents, [asdict(one) for one in self.exam.sets]]
        found = kept(self._costs, [self._model_key, arm.key(), asked], lambda: self._cost(arm))
        measured = None if found["capability"] is None else exams.Capability.from_dict(found["capability"])
        return measured, found["kl"]

    def cell(self, arm: Arm, attempts: Sequence[Attempt]) -> Cell:
        """The arm as a cell of a sweep, for fronts: points are 100 x success, per request."""
        measured, kl = self.cost(arm)
        told = {"method": arm.told.get("method", arm.name), "level": arm.told.get("level"), "arm": arm.name}
        treatment = {**told, "told": arm.reminder and "reminder", "n_hooks": len({edit.hook for edit in arm.edits}), "hook": []}
        return Cell(treatment, self.outcomes(arm, attempts).replies(), measured, kl)

    def _cost(self, arm: Arm) -> dict[str, Any]:
        measured = None
        if self.exam is not None:
            edits = [_everywhere(edit) for edit in arm.edits]
            with steered(self.model, edits):
                before = f"{arm.reminder}\n\n" if arm.reminder else ""
                measured = exams.capability(self.model, self.exam, before=before).to_dict()
        return {"capability": measured, "kl": self.kl(arm.edits)}


def shown_rows(rows: Sequence[dict[str, Any]], *, text: bool = False) -> list[dict[str, Any]]:
    """Rows for a person: the words replaced by a mark, unless `text`."""
    return [{key: value if text or key not in WORDS else REDACTED for key, value in row.items() if not key.endswith("_ids")}
            for row in rows]  # fmt: skip


def kept(cache: AnswerCache, key: Any, make: Callable[[], Any]) -> Any:
    """The answer in the cache, or what `make` gives, which is then kept."""
    found = cache.read(key)
    if found is None:
        found = make()
        cache.write(key, found)
        found = cache.read(key)  # as JSON gives it back: the same in every run
    return found


def _row(arm: Arm, asked: Attempt, one: Generated) -> dict[str, Any]:
    place = {"prompt": asked.prompt, "persona": asked.persona, "sample": asked.sample}
    words = {"system": arm.system(asked), "question": asked.user, "response": one.text}
    ids = {"response_ids": list(one.response_ids), "lead_ids": list(one.lead_ids)}
    return {**place, "n_tokens": len(one.response_ids), "finished": one.finished, **words, **ids}


def _everywhere(edit: Any) -> Any:
    from dataclasses import replace

    return replace(edit, scope=exams.SCOPE)


def _points(success: float | None) -> float | None:
    return None if success is None else 100 * success
