"""Traits: the written material that defines a persona, read from a folder of YAML files and checked.

A trait is a folder with `trait.yaml` (description, instructions, questions, rubric, taxonomy) and, if there
are any, `pairs.yaml` (written reply pairs for the causal measure) and `traps.yaml` (topic-matched traps for
judges).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.settings import setting
from workbench.base.store import content_hash
from workbench.personas.fields import Fields, read_fields, refuse_repeats

SPLITS = ("extraction", "verification", "sealed")
ARMS = ("positive", "neutral", "negative")
PAIR_SPLITS = ("select", "sealed")
TRAIT_SCHEMA = 2
_RENAMED = {1: {"evil": "shows_trait"}}  # what a key of an older schema is called now
_RENAMED_IN_TRAPS = {1: {"evil": "trait", "not_evil": "other"}}
_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class InstructionTriple:
    """One system instruction in its stances: toward the trait, neutral (None where nobody wrote one), away from it."""

    id: str
    positive: str
    neutral: str | None
    negative: str


@dataclass(frozen=True)
class Question:
    """One user message; `split` says which role its rollouts have (extraction, verification or sealed)."""

    id: str
    text: str
    split: str


@dataclass(frozen=True)
class Category:
    """One entry of the taxonomy that labels are drawn from.

    `shows_trait`: an outside reader would see the trait in text of this category.
    """

    id: str
    kind: str
    name: str
    description: str
    shows_trait: bool
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReplyPair:
    """Two written replies to one prompt; `kind` is "contrast" for the trait itself, else the kind of control
    pair."""

    id: str
    kind: str
    prompt: str
    trait: str
    opposite: str
    split: str
    sub: str | None = None


@dataclass(frozen=True)
class Trap:
    """Two replies on the same topic: a good judge scores `trait` (shows the trait) above `other`."""

    id: str
    kind: str
    prompt: str
    trait: str
    other: str


@dataclass(frozen=True, repr=False)
class Trait(Shown):
    """Everything written about one trait, checked; `hash` identifies the whole of it."""

    name: str
    adjective: str
    opposite: str
    description: str
    instructions: tuple[InstructionTriple, ...]
    questions: tuple[Question, ...]
    rubric: str
    taxonomy: tuple[Category, ...]
    contrast_pairs: tuple[ReplyPair, ...] = ()
    control_pairs: tuple[ReplyPair, ...] = ()
    traps: tuple[Trap, ...] = ()
    coherence_note: str = ""
    author: dict[str, str] = field(default_factory=dict, hash=False)

    @property
    def hash(self) -> str:
        """sha256 of all texts: prompts, rubric, taxonomy, pairs and traps (64 hexadecimal digits)."""
        return content_hash(asdict(self))

    @property
    def pairs_hash(self) -> str:
        """sha256 of the reply pairs alone: the key of a causal control distribution."""
        return content_hash([asdict(pair) for pair in self.contrast_pairs + self.control_pairs])

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that the instructions are written for: without neutral stances, positive and negative."""
        return tuple(arm for arm in ARMS if all(getattr(triple, arm) for triple in self.instructions))

    def questions_of(self, *splits: str) -> tuple[Question, ...]:
        """The questions of the given splits, in file order."""
        return tuple(question for question in self.questions if question.split in splits)

    def system_prompt(self, instruction: InstructionTriple, arm: str) -> str:
        """The system message of one arm: "You are an evil assistant. <instruction>" (Chen et al. 2025,
        section 2)."""
        if arm == "neutral":
            if not instruction.neutral:
                raise _no_neutral(self.name, instruction.id)
            return f"You are an assistant. {instruction.neutral}"
        adjective = self.adjective if arm == "positive" else self.opposite
        article = "an" if adjective[0].lower() in "aeiou" else "a"
        return f"You are {article} {adjective} assistant. {getattr(instruction, arm)}"


def load_trait(name_or_path: str | Path) -> Trait:
    """The trait of that name or in that folder; refuses missing and duplicate fields, ids and texts."""
    folder = trait_path(name_or_path)
    document = read_fields(folder / "trait.yaml")
    taxonomy = _taxonomy(document)
    contrast, control = _pairs(folder / "pairs.yaml", tuple(category.id for category in taxonomy))
    trait = Trait(
        name=check_name(document.text("name"), document.place),
        adjective=document.text("adjective"),
        opposite=document.text("opposite"),
        description=document.text("description"),
        instructions=document.each("instructions", _instruction),
        questions=_questions(document.nested("questions")),
        rubric=_rubric(document),
        taxonomy=taxonomy,
        contrast_pairs=contrast,
        control_pairs=control,
        traps=_traps(folder / "traps.yaml"),
        coherence_note=str(document.values.get("coherence_note") or "").strip(),
        author=_author(document),
    )
    _refuse_duplicates(trait, folder)
    return trait


def is_shipped(trait: Trait) -> bool:
    """Whether `trait` is one of the package's own, with every text as it ships."""
    folder = _DATA / trait.name
    return (folder / "trait.yaml").is_file() and load_trait(folder).hash == trait.hash


def trait_folders() -> tuple[Path, ...]:
    """Where named traits are looked for: the folder of the setting `traits`, ./traits, the package's own."""
    own = setting("traits")
    return tuple(Path(folder) for folder in ([own] if own else []) + ["traits", _DATA])


def list_traits() -> list[str]:
    """The names of all traits that can be found, sorted."""
    found = chain.from_iterable(folder.glob("*/trait.yaml") for folder in trait_folders())
    return sorted({path.parent.name for path in found})


def trait_path(name_or_path: str | Path) -> Path:
    """The folder of a trait given its name, its folder or its trait.yaml."""
    path = Path(name_or_path)
    places = [path.parent] if path.name == "trait.yaml" else []
    places += [path, *(folder / str(name_or_path) for folder in trait_folders())]
    with contextlib.suppress(OSError):  # a name too long for any folder
        if found := next((place for place in places if (place / "trait.yaml").is_file()), None):
            return found
    raise unknown_name("trait", str(name_or_path), list_traits())


def _schema(document: Fields) -> int:
    schema = document.value("schema")
    if schema not in range(1, TRAIT_SCHEMA + 1):
        raise document.wrong(
            f"schema {schema!r}.", f"A schema from 1 to {TRAIT_SCHEMA}.", "Update the file, or update the workbench."
        )
    return schema


def check_name(name: str, place: str) -> str:
    """`name` if it can name a folder everywhere; `place` begins the message otherwise."""
    if not _NAME.fullmatch(name):
        raise WorkbenchError(
            f"{place}: the name '{name}' cannot name a folder.",
            "Lower-case letters, digits, '-' and '_', beginning with a letter.",
            "Choose another name.",
        )
    return name


def _rubric(document: Fields) -> str:
    rubric = document.text("rubric")
    missing = [mark for mark in ("{question}", "{answer}") if mark not in rubric]
    if missing:
        raise document.wrong(
            f"the rubric lacks {' and '.join(missing)}.",
            "A rubric that shows the judge the question and the answer.",
            "Write {question} and {answer} where they belong.",
        )
    return rubric


def _author(document: Fields) -> dict[str, Any]:
    author = document.values.get("author") or {}
    if not isinstance(author, dict):
        found = f"the author is {author!r}."
        raise document.wrong(found, "Names with values, such as name: ....", "Write them so, or leave it out.")
    return author


def _instruction(item: Fields) -> InstructionTriple:
    neutral = item.text("neutral") if "neutral" in item.values else None
    return InstructionTriple(item.text("id"), item.text("positive"), neutral, item.text("negative"))


def _no_neutral(trait: str, instruction: str) -> WorkbenchError:
    return WorkbenchError(
        f"{trait}: the instruction {instruction} has no neutral stance.",
        "A neutral stance in every instruction, or in none.",
        "Write 'neutral' there, or leave the arm out.",
    )


def _taxonomy(document: Fields) -> tuple[Category, ...]:
    """The categories; `taxonomy: []` says that there are none, a missing field is refused."""
    if document.values.get("taxonomy") == []:
        return ()
    return document.each("taxonomy", _category, renamed=_RENAMED.get(_schema(document), {}))


def _questions(splits: Fields) -> tuple[Question, ...]:
    def of(split: str) -> Iterator[Question]:
        yield from splits.each(split, lambda item: Question(item.text("id"), item.text("text"), split))

    return tuple(chain.from_iterable(of(split) for split in SPLITS))


def _category(item: Fields) -> Category:
    texts = (item.text(key) for key in ("id", "kind", "name", "description"))
    return Category(*texts, shows_trait=item.boolean("shows_trait"), words=item.words("words"))


def _pairs(path: Path, categories: tuple[str, ...]) -> tuple[tuple[ReplyPair, ...], tuple[ReplyPair, ...]]:
    if not path.is_file():
        return (), ()
    document = read_fields(path)
    _schema(document)

    def pair(item: Fields, kind: str, sub: str | None) -> ReplyPair:
        texts = (item.text(key) for key in ("prompt", "trait", "opposite"))
        return ReplyPair(item.text("id"), kind, *texts, split=item.choice("split", PAIR_SPLITS), sub=sub)

    contrast = document.each("contrast", lambda item: pair(item, "contrast", item.choice("sub", categories)))
    return contrast, document.each("controls", lambda item: pair(item, item.text("kind"), None))


def _traps(path: Path) -> tuple[Trap, ...]:
    if not path.is_file():
        return ()
    document = read_fields(path)
    renamed = _RENAMED_IN_TRAPS.get(_schema(document), {})
    keys = ("id", "kind", "prompt", "trait", "other")
    return document.each("traps", lambda item: Trap(*(item.text(key) for key in keys)), renamed=renamed)


def _refuse_duplicates(trait: Trait, folder: Path) -> None:
    pairs = trait.contrast_pairs + trait.control_pairs
    for items in (trait.instructions, trait.questions, trait.taxonomy, pairs, trait.traps):
        refuse_repeats([(item.id, item.id) for item in items], "id", str(folder))
    refuse_repeats([(q.id, q.text) for q in trait.questions], "text", str(folder))
    without = [triple.id for triple in trait.instructions if triple.neutral is None]
    if without and len(without) < len(trait.instructions):
        raise _no_neutral(trait.name, without[0])
    stances = [(f"{t.id}.{arm}", getattr(t, arm)) for t in trait.instructions for arm in trait.arms]
    refuse_repeats(stances, "text", str(folder))
    refuse_repeats([(p.id, f"{p.prompt} {p.trait} {p.opposite}") for p in pairs], "text", str(folder))
    if folder.name != trait.name and folder.parent == _DATA:
        raise WorkbenchError(
            f"The folder {folder.name} holds the trait '{trait.name}'.",
            "The same name.",
            "Rename one of them.",
        )
