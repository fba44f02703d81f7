"""The questions that every role is asked: 240 neutral ones that any character can answer, and 20 that ask who speaks."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from workbench.axis.roles import DATA
from workbench.base.store import content_hash, read_json
from workbench.personas.fields import Fields, fields
from workbench.personas.traits import SPLITS, Question

N_QUESTIONS = 240


def question_bank(*splits: str) -> tuple[Question, ...]:
    """The shared bank, or the questions of the given splits: 120 extraction, 60 verification and 60 sealed.

    Eight kinds of question (life, choices, opinions, practical things, explanations, imagination, other people, habits) are
    spread evenly over the splits. None names a character (but for the parents of e097), and none is a question of a shipped
    trait. Ids begin with the letter of the split.
    """
    wanted = splits or SPLITS
    return tuple(question for question in _bank() if question.split in wanted)


def self_description_questions() -> tuple[Question, ...]:
    """Twenty questions that ask who speaks, with which claims of an identity are read (`split` is "self-description")."""
    return _texts(_document().nested("self_description"), "self-description")


def bank_hash(questions: Sequence[Question]) -> str:
    """sha256 of ids, texts and splits: what a result depends on."""
    return content_hash([(question.id, question.text, question.split) for question in questions])


@functools.cache
def _bank() -> tuple[Question, ...]:
    splits = _document().nested("questions")
    return tuple(question for split in SPLITS for question in _texts(splits.nested(split), split))


def _document() -> Fields:
    return fields(read_json(DATA / "questions.json"), "questions.json")


def _texts(items: Fields, split: str) -> tuple[Question, ...]:
    return tuple(Question(identifier, items.text(identifier), split) for identifier in items.values)
