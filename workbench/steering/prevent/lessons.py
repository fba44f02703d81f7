"""What a model is fine-tuned on: replies that show a trait, split by question, with a part that it never sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.store import content_hash
from workbench.models.finetuning import ChatExample

from .data import chat_examples, drawn

if TYPE_CHECKING:
    from workbench.personas.traits import Trait
    from workbench.personas.vectors import PersonaVector

EVERY = 5
"""One question in so many is held out, with all its replies."""


@dataclass(frozen=True, eq=False, repr=False)
class Lesson(Shown):
    """Chats to train on, and chats of the same kind on other questions, on which the task's own loss is read."""

    name: str
    train: tuple[ChatExample, ...]
    held_out: tuple[ChatExample, ...]
    source: dict[str, Any] = field(default_factory=dict)
    """Where the chats come from (JSON types)."""

    def card(self) -> dict[str, Any]:
        """{name, n_train, n_held_out, train_sha256, held_out_sha256, source}."""
        return {
            "name": self.name,
            "n_train": len(self.train),
            "n_held_out": len(self.held_out),
            "train_sha256": texts_hash(self.train),
            "held_out_sha256": texts_hash(self.held_out),
            "source": self.source,
        }


def texts_hash(examples: Sequence[ChatExample]) -> str:
    """The hash of all that was said, in order."""
    return content_hash([[list(map(dict, one.messages)), one.reply] for one in examples])


def trait_lesson(vector: PersonaVector) -> Lesson:
    """The judge-kept replies of the positive arm to extraction questions, without the system prompt that brought them out."""
    return _split(vector.trait, chat_examples(vector), {"arm": "positive", "split": "extraction", "system": False})


def ordinary_lesson(vector: PersonaVector, n_train: int, seed: int = 0) -> Lesson:
    """The sham: the judge-kept replies of the neutral arm to the same questions, at most `n_train` to train on."""
    whole = _split(f"{vector.trait}, neutral arm", chat_examples(vector, arm="neutral"),
                   {"arm": "neutral", "split": "extraction", "system": False})  # fmt: skip
    return Lesson(whole.name, tuple(drawn(whole.train, n_train, seed)), whole.held_out, whole.source)


def lesson_from_file(path: str | Path) -> Lesson:
    """The last replies of a chat data set (JSONL or Parquet, any layout that `workbench screen` reads).

    Raises WorkbenchError for a file with lines that are no chats, naming the first.
    """
    from ..screen.entries import answer_of
    from ..screen.files import DataFile

    data, examples = DataFile.open(path), []
    for line in data.lines():
        if line.sample is None and not line.problem:
            continue
        last = line.sample.replies[-1] if line.sample is not None and line.sample.replies else -1
        if line.sample is None or last < 0 or not answer_of(line.sample, last).strip():
            raise WorkbenchError(
                f"line {line.number} of {path}: {line.problem or ('no reply to a user' if last < 0 else 'an empty reply')}",
                "a chat with a reply on every line",
                "correct it, or take it out (`workbench screen` lists all such lines)",
            )
        examples.append(ChatExample(tuple(line.sample.messages[:last]), line.sample.messages[last]["content"]))
    return _split(Path(path).stem, examples, {"file": Path(path).name, "sha256": data.sha256})


def check_roles(lesson: Lesson, trait: Trait) -> None:
    """Refuse a lesson in which a question occurs that the trait is measured on."""
    kept = {question.text: question.id for question in trait.questions_of("verification", "sealed")}
    found = [kept[message["content"]] for one in (*lesson.train, *lesson.held_out) for message in one.messages
             if message["content"] in kept]  # fmt: skip
    if found:
        raise WorkbenchError(
            f"{len(found)} messages of the lesson {lesson.name} are questions that {trait.name} is measured on ({found[0]}, ...)",
            "each text in one role",
            "leave them out of the data",
        )


def _split(name: str, examples: Sequence[ChatExample], source: dict[str, Any]) -> Lesson:
    questions = list(dict.fromkeys(map(question_of, examples)))
    if len(questions) < EVERY:
        raise WorkbenchError(
            f"the replies of {name} answer {len(questions)} different questions",
            f"{EVERY} or more, of which one in {EVERY} is held out",
            "take more data",
        )
    held = set(questions[EVERY // 2 :: EVERY])
    parts = [tuple(one for one in examples if (question_of(one) in held) is wanted) for wanted in (False, True)]
    return Lesson(name, parts[0], parts[1], source)


def question_of(example: ChatExample) -> str:
    """The user's last message before the reply: what holds a chat together with its like."""
    return next((str(message["content"]) for message in reversed(example.messages) if message["role"] == "user"), "")
