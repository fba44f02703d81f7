"""Question sets with a right answer, scored by how probable the model finds each option behind the question.

    answer = argmax_o  log p(o | question) / characters of o         margin = right option - best wrong one, nats per character

A set says nothing about lost capability unless the unedited model has some to lose: sets count where its accuracy beats
chance by 10 points on a *choosing* half of the items (by hash), and are read on the other half.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import unknown_name
from workbench.base.store import content_hash, read_json, sha256_bytes, write_json
from workbench.models.assets import asset_path
from workbench.models.likelihood import token_logprobs
from workbench.saes.evaluation.labelled import probe_rows

if TYPE_CHECKING:
    from workbench.models.model import Model

ABOVE_CHANCE = 0.10
N_CHOOSING = 64
"""Items of the choosing half that decide whether a set counts: a standard error of some 6 points."""


@dataclass(frozen=True)
class Item:
    """A question as it is put to the model, its options as they go on from it, and the place of the right one."""

    question: str
    options: tuple[str, ...]
    right: int

    @property
    def chooses(self) -> bool:
        """Whether it belongs to the half that decides if its set counts."""
        return int(sha256_bytes(f"{self.question}\x1f{self.options}".encode())[:8], 16) % 2 == 0


@dataclass(frozen=True, repr=False)
class QuestionSet(Shown):
    """Items of one kind; `chance` is the accuracy of a guess."""

    name: str
    items: tuple[Item, ...]

    @property
    def chance(self) -> float:
        """Mean of 1 / options."""
        return sum(1 / len(item.options) for item in self.items) / max(len(self.items), 1)

    def half(self, *, choosing: bool, n: int) -> QuestionSet:
        """The first `n` items of the choosing or of the measuring half."""
        kept = [item for item in self.items if item.chooses == choosing]
        return QuestionSet(self.name, tuple(kept[:n]))


@dataclass(frozen=True, eq=False, repr=False)
class Answers(Shown):
    """`correct` (1 or 0) and `margin` (nats per character) of the items of one set, float64 `[n]`."""

    correct: Tensor
    margin: Tensor


def answers(model: Model, one: QuestionSet, *, before: str = "", batch_tokens: int = 2048) -> Answers:
    """How the model answers; `before` is text that stands before every question. Edits in force act."""
    rows, places = [], []
    for item in one.items:
        for option in item.options:
            ids, start = _joined(model, before + item.question, option)
            rows.append(ids)
            places.append(range(start, len(ids)))
    summed = [float(logp.double().sum()) for logp in token_logprobs(model, rows, places, batch_tokens=batch_tokens)]
    correct, margin, cursor = [], [], 0
    for item in one.items:
        scores = [summed[cursor + i] / len(option) for i, option in enumerate(item.options)]
        cursor += len(item.options)
        best_wrong = max(score for i, score in enumerate(scores) if i != item.right)
        margin.append(scores[item.right] - best_wrong)
        correct.append(float(scores[item.right] > best_wrong))
    return Answers(torch.tensor(correct, dtype=torch.float64), torch.tensor(margin, dtype=torch.float64))


def counted_sets(
    model: Model, sets: Sequence[QuestionSet], *, n_choosing: int = N_CHOOSING, folder: str | Path | None = None
) -> tuple[tuple[QuestionSet, ...], list[dict[str, Any]]]:
    """(the sets that count, a row per set: name, n, chance, accuracy, counts), decided by the unedited model.

    With `folder`, what was decided for this model and these items is kept there and taken up.
    """
    rows = [_considered(model, one.half(choosing=True, n=n_choosing), folder) for one in sets]
    return tuple(one for one, row in zip(sets, rows, strict=True) if row["counts"]), rows


def _considered(model: Model, chosen: QuestionSet, folder: str | Path | None) -> dict[str, Any]:
    key = content_hash([model.weights_hash, str(model.dtype), asdict(chosen)])[:24]
    path = None if folder is None else Path(folder) / "sets" / f"{chosen.name}-{key}.json"
    if path is not None and path.is_file():
        return read_json(path)
    with model.without_hooks():
        accuracy = float(answers(model, chosen).correct.mean()) if chosen.items else 0.0
    row = {"name": chosen.name, "n": len(chosen.items), "chance": chosen.chance, "accuracy": accuracy,
           "counts": accuracy >= chosen.chance + ABOVE_CHANCE}  # fmt: skip
    if path is not None:
        write_json(path, row)
    return row


def _joined(model: Model, question: str, option: str) -> tuple[tuple[int, ...], int]:
    """Ids of question and option and the first position of the option; the option is tokenised by itself, its blank with it."""
    first = model.tokenizer("a")["input_ids"][:1] == [model.tokenizer.bos_token_id]
    start = [model.tokenizer.bos_token_id] if first else []
    head = [*start, *model.tokenizer(question, add_special_tokens=False)["input_ids"]]
    return (*head, *model.tokenizer(option, add_special_tokens=False)["input_ids"]), len(head)


# The sets within reach: each is read from an asset as data; what a row is made of follows from the set's own layout.


def question_sets(names: Sequence[str] | None = None) -> tuple[QuestionSet, ...]:
    """The sets of that name, by default all of `SETS`; assets are fetched on first use. An unknown name lists the known."""
    chosen = list(SETS) if names is None else list(names)
    for name in chosen:
        if name not in SETS:
            raise unknown_name("question set", name, SETS)
    return tuple(QuestionSet(name, tuple(SETS[name](name))) for name in chosen)


def _lettered(pattern: str, head: str, letters: str) -> Callable[[str], Iterator[Item]]:
    """Sets whose options stand in the question: `pattern` finds its parts and the options, `head` writes the question."""
    compiled = re.compile(pattern, re.DOTALL)

    def read(name: str) -> Iterator[Item]:
        for prompt, target in _held_out(name):
            if (found := compiled.fullmatch(prompt)) and target in letters:
                parts = [part.strip() for part in found.groups()]
                told = tuple(f" {option}" for option in parts[-len(letters) :])
                if all(parts):
                    yield Item(head.format(*parts[: -len(letters)]), told, letters.index(target))

    return read


def _against_others(separator: str, right: str) -> Callable[[str], Iterator[Item]]:
    """Sets of single answers, right or wrong: a right answer stands against the right answer of the next question, so that
    answers alone tell nothing."""

    def read(name: str) -> Iterator[Item]:
        rows = [prompt.partition(separator) for prompt, target in _held_out(name) if target == right]
        for (question, _, answer), (_, _, other) in zip(rows, rows[1:] + rows[:1], strict=True):
            if answer.strip().lower() != other.strip().lower() and answer.strip() and other.strip():
                swapped = int(sha256_bytes(question.encode())[:2], 16) % 2
                options = (f" {answer.strip()}", f" {other.strip()}")
                yield Item(question + separator.rstrip(), options[::-1] if swapped else options, swapped)

    return read


def _held_out(name: str) -> Iterator[tuple[str, str]]:
    """(prompt, target) of a set's texts that no SAE of this package was trained on (one text, one role)."""
    from workbench.saes.corpus import HELD_OUT_PERCENT, Document

    return (row for row in probe_rows(name) if Document.of(row[0], name).bucket < HELD_OUT_PERCENT)


def _exam(_name: str) -> Iterator[Item]:
    """MMLU questions of the `evals` asset: four lettered options, of which the text is scored."""
    path = next(Path(asset_path("evals")).rglob("samples-all.jsonl"))
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        found = re.fullmatch(r"(.*)\nA\. (.*)\nB\. (.*)\nC\. (.*)\nD\. (.*)\nAnswer:", row["question"], re.DOTALL)
        if found and row["answer"] in "ABCD":
            question, *options = found.groups()
            told = tuple(f" {option.strip()}" for option in options)
            if all(len(option) > 1 for option in told):
                yield Item(f"Question: {question.strip()}\nAnswer:", told, "ABCD".index(row["answer"]))


SETS: Mapping[str, Callable[[str], Iterator[Item]]] = {
    "44_phys_tf": _lettered(r"(.*)\n\nA\.(.*)\nB\.(.*)", "Question: {}\nAnswer:", "01"),
    "36_sciq_tf": _against_others("\nA:", "1"),
    "47_reasoning_tf": _lettered(r"(.*)\nA\. (.*) B\. (.*)", "{}", "AB"),
    "55_open_qa": _lettered(r"(.*) \(A\) (.*) \(B\) (.*) \(C\) (.*) \(D\) (.*)", "{}", "ABCD"),
    "86_social_iqa": _lettered(
        r"The following is a multiple choice question\. Context: (.*)\| Question: (.*)\| Option A: (.*)\| Option B: (.*)"
        r"\| Option C: (.*)\. The correct answer is ",
        "{} {}",
        "123",
    ),
    "37_arith_mc": _lettered(r"Calculate (.*) =\nA\.(.*) B\.(.*) C\.(.*) D\.(.*)", "{} =", "ABCD"),
    "exam": _exam,
}
"""Physical everyday reasoning (PIQA-like), science (SciQ-like), qualitative physics, OpenBookQA- and Social-IQA-like sets,
arithmetic of the `sae-probes` asset, and MMLU questions of the `evals` asset."""
