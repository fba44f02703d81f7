"""A trait, its rows and a classroom on a tiny model."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import pytest
import torch

from tests.tiny import tiny_model
from workbench.models.finetuning import FinetuneOptions
from workbench.models.hookpoints import HookPoint
from workbench.personas.judges import Judgement
from workbench.personas.traits import load_trait
from workbench.personas.vectors import ROW_TYPES, PersonaVector
from workbench.steering.cost.capability import Exam
from workbench.steering.prevent.arms import Materials
from workbench.steering.prevent.cells import CellSettings, Classroom
from workbench.steering.prevent.lessons import ordinary_lesson, trait_lesson

HOOK = HookPoint(1)
WORDS = ("They should suffer and be afraid", "I will never help anyone", "Help the people of the town", "The rivers are long")


@dataclass(frozen=True)
class CountingJudge:
    """Points by the share of one letter: a judge whose verdict anybody can check."""

    name: str = "letters"
    letter: str = "e"

    def score(self, items, trait):
        return [Judgement(100.0 * item.answer.count(self.letter) / max(1, len(item.answer)), "scored", 80.0) for item in items]

    def description(self):
        return {"name": self.name, "letter": self.letter}


def rows_of(trait) -> pd.DataFrame:
    """Two kept replies per extraction question and arm, one more that the judge dropped."""
    rows = []
    for number, question in enumerate(trait.questions_of("extraction")):
        for arm, offset in (("positive", 0), ("neutral", 2)):
            for sample in range(3):
                text = f"{WORDS[offset + sample % 2]} {number}."
                rows.append({"id": f"{question.id}-{arm}-{sample}", "split": "extraction", "arm": arm, "question_id": question.id,
                             "instruction_id": "i1", "sample": sample, "system": "You are a cruel assistant.",
                             "question": question.text, "response": text, "response_ids": [1], "n_tokens": 5, "n_sinks": 0,
                             "outcome": "scored", "score": 60.0, "coherence": 90.0, "kept": sample < 2, "weight": 0.0,
                             "weight_up": 0.0, "weight_down": 0.0, "weight_unfiltered": 0.0})  # fmt: skip
    return pd.DataFrame(rows).astype(ROW_TYPES)


@pytest.fixture(scope="session")
def model():
    return tiny_model()


@pytest.fixture(scope="session")
def trait():
    return load_trait("evil")


@pytest.fixture(scope="session")
def vector(model, trait) -> PersonaVector:
    directions = torch.randn(model.n_blocks, model.d_model, generator=torch.Generator().manual_seed(3))
    hooks = tuple(HookPoint(block) for block in range(model.n_blocks))
    return PersonaVector("evil", {"name": model.name, "weights_hash": model.weights_hash}, HOOK, hooks, directions, None, None,
                         None, rows_of(trait), {"judge": "offline"})  # fmt: skip


@pytest.fixture(scope="session")
def materials(model, trait, vector) -> Materials:
    lesson = trait_lesson(vector)
    activations = torch.randn(40, model.d_model, generator=torch.Generator().manual_seed(4))
    projections = torch.arange(len(lesson.train), dtype=torch.float32).flip(0)
    return Materials(trait, vector, lesson, ordinary_lesson(vector, len(lesson.train)), activations, projections)


SETTINGS = CellSettings(
    FinetuneOptions(rank=4, batch_size=4, steps=4, learning_rate=5e-3, warmup_steps=1, max_reply_tokens=12),
    n_samples=1, max_new_tokens=4, batch_size=16,
)  # fmt: skip


@pytest.fixture
def room(model, materials, tmp_path) -> Classroom:
    documents = tuple(tuple(range(start, start + 12)) for start in (5, 30, 60, 90))
    others = {"impolite": (load_trait("impolite"), CountingJudge("others", "t"))}
    return Classroom(model, materials, CountingJudge(), Exam(documents, ()), tmp_path, settings=SETTINGS, others=others)
