"""One cell of the table: an arm with a seed is trained, used on a split's questions, and measured. One JSON file each.

A cell that is there is not made again; one that is killed goes on at its training's last checkpoint. Adapters are deleted once
their cell is written, except those of "none", which subtraction uses again.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.store import content_hash, read_json, write_json
from workbench.models.finetuning import Adapter, BatchEdit, FinetuneOptions, finetune, finetuned, reply_losses
from workbench.models.prompts import chat_template_hash
from workbench.models.sampling import Sampling
from workbench.personas.judges import Judge, JudgeItem

from ..apply import steered
from ..cost.capability import Exam
from ..cost.replies import Asking, Replies
from ..cost.sweep import Bench
from ..cost.treatments import Treatment
from .arms import NONE, Arm, Materials
from .lessons import question_of, texts_hash

if TYPE_CHECKING:
    from workbench.models.model import Model
    from workbench.personas.traits import Trait

SELECT, SEALED = "verification", "sealed"
BASE = "base"
"""The name of the cells of the model before any fine-tuning."""


@dataclass(frozen=True, repr=False)
class CellSettings(Shown):
    """How every cell is trained and read; saved with the table."""

    options: FinetuneOptions = field(
        default_factory=lambda: FinetuneOptions(learning_rate=5e-5, batch_size=8, steps=30, max_reply_tokens=48)
    )
    """Of the fine-tune; steps and seed are set per cell."""
    n_samples: int = 4
    """Replies per question."""
    max_new_tokens: int = 40
    """Longest reply."""
    batch_size: int = 40
    """Replies sampled together."""

    def asking(self, split: str, seed: int) -> Asking:
        """What is asked in the cells of one split and seed: every arm of a seed shares its sampling noise."""
        sampling = Sampling(max_new_tokens=self.max_new_tokens)
        return Asking(splits=(split,), n_samples=self.n_samples, sampling=sampling, batch_size=self.batch_size, seed=seed)


class Classroom:
    """Everything that the cells of one trait share.

    judge: scores replies, and must not be the one that filtered the rollouts behind the vector. others: further traits with
    the judge of each, read from the same replies. exam: what capability is measured on (sealed cells only).
    """

    def __init__(
        self,
        model: Model,
        materials: Materials,
        judge: Judge,
        exam: Exam | None,
        folder: str | Path,
        *,
        settings: CellSettings | None = None,
        others: Mapping[str, tuple[Trait, Judge]] | None = None,
    ) -> None:
        self.model, self.materials, self.judge, self.exam = model, materials, judge, exam
        self.folder, self.settings, self.others = Path(folder), settings or CellSettings(), dict(others or {})
        for one in (judge, *(other for _, other in self.others.values())):
            _check_judge(one, materials.vector.evidence.get("judge"))
        # Before anything is loaded: the same in every process.
        self._told_of_judges = [judge.description(), *([name, trait.hash, one.description()]
                                for name, (trait, one) in sorted(self.others.items()))]  # fmt: skip

    def base(self, split: str, seed: int) -> dict[str, Any]:
        """The cell of the model as it is, with the sampling noise of that seed."""
        return self._cell(Arm(BASE, None, ()), 0, seed, split)

    def cell(self, arm: Arm, seed: int, split: str, *, steps: int | None = None) -> dict[str, Any]:
        """{trait, arm, strength, seed, split, steps, n_examples, replies, others, capability, task_loss, kl, losses, key}.

        `replies` are the rows of `steering.cost.Replies`; `others` {trait: points per reply}; `task_loss` nats per reply token of
        the held-out chats, question by question, as the model is used; `losses` those of training; `capability` and `kl` (of
        edits, nats per token of neutral text) are None on select questions.
        """
        return self._cell(arm, steps or self.settings.options.steps, seed, split)

    def adapter(self, arm: Arm, seed: int, steps: int) -> Adapter:
        """The trained adapter of an arm, from the folder if it is there."""
        place = self._adapter_folder(arm, seed, steps)
        return finetune(self.model, arm.examples, place, self._options(arm, seed, steps), edit=arm.batch_edit())

    def _cell(self, arm: Arm, steps: int, seed: int, split: str) -> dict[str, Any]:
        key = content_hash([self._training_key(arm, seed, steps), self._testing_key(arm, split, seed)])
        name = "-".join([split, arm.name, *([] if arm.strength is None else [f"{arm.strength:g}"]), f"seed{seed}", key[:10]])
        path = self.folder / "cells" / f"{name}.json"
        if not path.is_file():
            write_json(path, {**self._made(arm, steps, seed, split), "key": key})
        if arm.name not in (NONE, BASE) and not arm.testing:
            shutil.rmtree(self._adapter_folder(arm, seed, steps), ignore_errors=True)
        return read_json(path)

    def _made(self, arm: Arm, steps: int, seed: int, split: str) -> dict[str, Any]:
        adapter = None if arm.name == BASE else self.adapter(arm, seed, steps)
        model = self.model if adapter is None else finetuned(self.model, adapter)
        exam = self.exam if split == SEALED else None
        bench = Bench(model, self.materials.trait, self.judge, exam, self.folder / "measured",
                      filtered_by=self.materials.vector.evidence.get("judge"))  # fmt: skip
        level = None if not arm.testing else -float(arm.strength or 0.0)
        treatment = Treatment(arm.name, level, arm.testing)
        replies = bench.replies(treatment, self.settings.asking(split, seed))
        capability, kl = (None, None) if exam is None else bench.effect(treatment)
        return {
            "trait": self.materials.trait.name, "arm": arm.name, "strength": arm.strength, "seed": seed, "split": split,
            "steps": steps, "n_examples": len(arm.examples), "replies": list(replies.rows),
            "others": self._other_points(replies), "kl": kl,
            "capability": None if capability is None else capability.to_dict(),
            "task_loss": self._task_losses(model, arm), "losses": [] if adapter is None else list(adapter.card["losses"]),
        }  # fmt: skip

    def _other_points(self, replies: Replies) -> dict[str, list[float | None]]:
        items = [JudgeItem(row["question"], row["response"]) for row in replies.rows]
        found = {}
        for name, (trait, judge) in self.others.items():
            verdicts = judge.score(items, trait)
            found[name] = [{"scored": one.score, "refused": 0.0}.get(one.outcome) for one in verdicts]
        return found

    def _task_losses(self, model: Model, arm: Arm) -> list[float]:
        options, edits = self.settings.options, [replace(edit, scope="predicting") for edit in arm.testing]
        used = BatchEdit(lambda one, width: steered(one, edits, width)) if edits else None
        held_out = self.materials.lesson.held_out
        losses = reply_losses(model, held_out, max_tokens=options.max_tokens, max_reply_tokens=options.max_reply_tokens,
                              edit=used)  # fmt: skip
        asked: dict[str, list[float]] = {}  # replies to one question are alike: the question is the unit
        for one, loss in zip(held_out, losses.tolist(), strict=True):
            asked.setdefault(question_of(one), []).extend([loss] if math.isfinite(loss) else [])
        return [sum(some) / len(some) for some in asked.values() if some]

    @cached_property
    def _model_key(self) -> list[Any]:
        return [self.model.weights_hash, str(self.model.dtype), chat_template_hash(self.model)]

    def _training_key(self, arm: Arm, seed: int, steps: int) -> str:
        edit, options = arm.batch_edit(), asdict(self._options(arm, seed, max(steps, 1)))
        return content_hash([*self._model_key, texts_hash(arm.examples), options, edit and edit.description])

    def _options(self, arm: Arm, seed: int, steps: int) -> FinetuneOptions:
        return replace(self.settings.options, steps=steps, seed=seed, kl_weight=arm.kl_weight)

    def _testing_key(self, arm: Arm, split: str, seed: int) -> list[Any]:
        exam = None if self.exam is None or split != SEALED else [self.exam.documents, [asdict(one) for one in self.exam.sets]]
        return [arm.name, [edit.description() for edit in arm.testing], asdict(self.settings.asking(split, seed)),
                self.materials.trait.hash, self._told_of_judges, content_hash(exam),
                texts_hash(self.materials.lesson.held_out)]  # fmt: skip

    def _adapter_folder(self, arm: Arm, seed: int, steps: int) -> Path:
        return self.folder / "adapters" / self._training_key(arm, seed, steps)[:16]


def _check_judge(judge: Judge, filtered_by: str | None) -> None:
    if judge.name == "none" or judge.name == filtered_by:
        found = f"{judge.name} {'scores nothing' if judge.name == 'none' else 'filtered the rollouts behind the vector'}"
        raise WorkbenchError(found, "a judge of outcomes that filtered nothing", "use offline-outcome for instance")


def points_by_question(cell: Mapping[str, Any], trait: str | None = None) -> dict[str, float]:
    """{question id: mean points} of a cell's own trait, or of another one; NaN where nothing was judged."""
    values: Sequence[float | None] = [row["points"] for row in cell["replies"]] if trait is None else cell["others"][trait]
    by_question: dict[str, list[float]] = {}
    for row, value in zip(cell["replies"], values, strict=True):
        by_question.setdefault(row["question_id"], []).extend([] if value is None else [float(value)])
    return {name: sum(some) / len(some) if some else float("nan") for name, some in by_question.items()}
