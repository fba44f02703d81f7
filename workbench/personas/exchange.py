"""Traits in the layout of persona_vectors: two JSON files {"instruction", "questions", "eval_prompt"}, in and out.

Source of the layout: Chen et al. 2025 (arXiv 2507.21509), data_generation/trait_data_extract and trait_data_eval. Its
evaluation prompt is filled by `str.format`, so a brace that is meant is written twice there and once in a rubric here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, cycle, zip_longest
from pathlib import Path
from string import Formatter

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.store import read_json, write_json
from workbench.personas.fields import Fields, refuse_repeats
from workbench.personas.trait_files import free_folder, write_trait
from workbench.personas.traits import SPLITS, InstructionTriple, Question, Trait, list_traits, load_trait

OPPOSITE = "helpful"
EXTRACTION_FOLDER, EVALUATION_FOLDER = "trait_data_extract", "trait_data_eval"
MIN_EXTRACTION = 8  # fewer questions make no vector: `extraction.MIN_QUESTIONS`
MIN_EVALUATION = 4
MIN_INSTRUCTIONS = 2
SPLITS_IN_TURN = ("extraction", "verification", "extraction", "sealed")
"""How one file's questions are divided: spread over it, because questions of one kind may stand together."""
_SECOND_FILE = ("verification", "sealed")
_MARKS = ("question", "answer")
_SUFFIX = re.compile(r"[_-](extract|extraction|eval|evaluation)$")


@dataclass(frozen=True, repr=False)
class Imported(Shown):
    """A trait that was imported: its folder, the trait, and what is to be known about it, in sentences."""

    folder: Path
    trait: Trait
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Document:
    file: Path
    pairs: tuple[tuple[str, str], ...]
    questions: tuple[str, ...]
    rubric: str


def import_trait(
    file: str | Path,
    *,
    evaluation: str | Path | None = None,
    name: str | None = None,
    adjective: str | None = None,
    opposite: str = OPPOSITE,
    out: str | Path = "traits",
) -> Imported:
    """Write the trait in a persona_vectors file to `<out>/<name>`, checked; nothing is left when it is refused.

    evaluation: the second file, whose questions become the verification and the sealed ones, in turn. Without it the
    questions of the one file are divided 2 : 1 : 1, each used once. name: default the file's. adjective: default the
    name. Raises WorkbenchError for a malformed file, a question that stands twice, or too few questions.
    """
    first = _read(Path(file))
    second = None if evaluation is None else _read(Path(evaluation))
    name = name or _SUFFIX.sub("", first.file.stem.lower())
    free_folder(name, out)
    shadowed = name in list_traits()
    trait = Trait(
        name=name,
        adjective=(adjective or re.sub("[_-]", " ", name)).strip(),
        opposite=opposite.strip(),
        description=f"Imported from the persona_vectors file {first.file.name}; the rubric says what shows it.",
        instructions=tuple(
            InstructionTriple(f"i{i}", pos, None, neg) for i, (pos, neg) in enumerate(first.pairs, start=1)
        ),
        questions=_divided(first, second),
        rubric=first.rubric,
        taxonomy=(),
        author={"kind": "import", "name": first.file.name},
    )
    notes = [*_notes(trait, first, second)]
    if shadowed:
        notes.append(
            f"There is another trait named {name}: give this one by its folder, or import it with --name."
        )
    return Imported(write_trait(trait, out), trait, tuple(notes))


def export_trait(trait: str | Path | Trait, out: str | Path) -> tuple[Path, Path]:
    """Write `<out>/trait_data_extract/<name>.json` and `<out>/trait_data_eval/<name>.json`; returns both paths.

    These are the folders of persona_vectors' data_generation. Refuses to overwrite a file.
    """
    trait = trait if isinstance(trait, Trait) else load_trait(trait)
    held_out = zip_longest(trait.questions_of("verification"), trait.questions_of("sealed"))
    questions = {
        EXTRACTION_FOLDER: trait.questions_of("extraction"),
        EVALUATION_FOLDER: [question for question in chain.from_iterable(held_out) if question],
    }
    files = {folder: Path(out) / folder / f"{trait.name}.json" for folder in questions}
    for file in files.values():
        if file.exists():
            raise WorkbenchError(
                f"{file} exists already.", "A new file.", "Choose another folder with --out."
            )
    common = {
        "instruction": [{"pos": triple.positive, "neg": triple.negative} for triple in trait.instructions],
        "eval_prompt": as_format(trait.rubric),
    }
    try:
        for folder, file in files.items():
            texts = [question.text for question in questions[folder]]
            write_json(file, {"instruction": common["instruction"], "questions": texts, **common})
    except WorkbenchError:
        for file in files.values():
            file.unlink(missing_ok=True)
        raise
    return files[EXTRACTION_FOLDER], files[EVALUATION_FOLDER]


def left_out(trait: Trait) -> list[str]:
    """What a trait has that the layout of persona_vectors has no place for."""
    parts = {
        "neutral stances": "neutral" in trait.arms,
        "taxonomy": trait.taxonomy,
        "reply pairs": trait.contrast_pairs + trait.control_pairs,
        "traps": trait.traps,
    }
    return [name for name, there in parts.items() if there]


def _read(file: Path) -> _Document:
    value = read_json(file)
    if not isinstance(value, dict):
        raise WorkbenchError(
            f"{file} holds {type(value).__name__}, not an object.",
            'A persona_vectors trait: {"instruction": [{"pos", "neg"}, ...], "questions": [...], "eval_prompt"}.',
            "Give a file of that layout.",
        )
    document = Fields(value, str(file))
    build = lambda item: (_text(item, "pos"), _text(item, "neg"))  # noqa: E731
    pairs = document.each("instruction", build, at_least=MIN_INSTRUCTIONS)
    stances = [
        (f"instruction[{i}].{key}", text)
        for i, pair in enumerate(pairs)
        for key, text in zip(("pos", "neg"), pair, strict=True)
    ]
    refuse_repeats(stances, "text", str(file))
    return _Document(file, pairs, _questions(document), as_rubric(document))


def _text(item: Fields, key: str) -> str:
    text = item.text(key)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise item.wrong(
            f"'{key}' holds half a character.", "Text in Unicode.", f"Correct '{key}'."
        ) from None
    return text


def _questions(document: Fields) -> tuple[str, ...]:
    listed = document.value("questions")
    if not isinstance(listed, list):
        raise document.wrong(
            f"'questions' is {type(listed).__name__}.", "A list of strings.", "Write the questions as a list."
        )
    places = [f"questions[{i}]" for i in range(len(listed))]
    texts = [
        _text(Fields({place: text}, document.place), place)
        for place, text in zip(places, listed, strict=True)
    ]
    refuse_repeats(list(zip(places, texts, strict=True)), "question", document.place)
    return tuple(texts)


def as_rubric(document: Fields) -> str:
    """The rubric in the field `eval_prompt`, a template of `str.format` with {question} and {answer}; braces made single."""
    prompt = _text(document, "eval_prompt")
    expected = "A template with {question} and {answer}, and with every other brace written twice."
    try:
        parts = list(Formatter().parse(prompt))
    except ValueError as error:
        raise document.wrong(
            f"'eval_prompt' is no template ({error}).", expected, "Correct its braces."
        ) from None
    names = [name for _, name, _, _ in parts if name is not None]
    for name in names:
        if name not in _MARKS:
            raise document.wrong(f"'eval_prompt' has a place for {name!r}.", expected, "Correct its braces.")
    missing = [f"{{{mark}}}" for mark in _MARKS if mark not in names]
    if missing:
        raise document.wrong(
            f"'eval_prompt' lacks {' and '.join(missing)}.", expected, "Write them where they belong."
        )
    return "".join(text + (f"{{{name}}}" if name is not None else "") for text, name, _, _ in parts)


def as_format(rubric: str) -> str:
    """A rubric as a template of `str.format`: every brace doubled but those of {question} and {answer}."""
    doubled = rubric.replace("{", "{{").replace("}", "}}")
    for mark in _MARKS:
        doubled = doubled.replace(f"{{{{{mark}}}}}", f"{{{mark}}}")
    return doubled


def _divided(first: _Document, second: _Document | None) -> tuple[Question, ...]:
    if second is None:
        _refuse_few(first, MIN_EXTRACTION * 2, "the one file is divided: half for extraction")
        return _in_splits(zip(first.questions, cycle(SPLITS_IN_TURN), strict=False))
    _refuse_few(first, MIN_EXTRACTION, "for extraction")
    _refuse_few(second, MIN_EVALUATION, "for evaluation")
    both = [
        (f"{document.file}, question", text) for document in (first, second) for text in document.questions
    ]
    refuse_repeats(both, "question", str(second.file))
    extraction = ((text, "extraction") for text in first.questions)
    return _in_splits(chain(extraction, zip(second.questions, cycle(_SECOND_FILE), strict=False)))


def _in_splits(texts: Iterable[tuple[str, str]]) -> tuple[Question, ...]:
    count: Counter[str] = Counter()
    questions = []
    for text, split in texts:
        count[split] += 1
        questions.append(Question(f"{split[0]}{count[split]:02d}", text, split))
    return tuple(sorted(questions, key=lambda question: SPLITS.index(question.split)))


def _refuse_few(document: _Document, needed: int, purpose: str) -> None:
    if len(document.questions) < needed:
        raise WorkbenchError(
            f"{document.file} holds {len(document.questions)} questions.",
            f"At least {needed} ({purpose}).",
            "Add questions, or give the evaluation questions as a second file with --evaluation.",
        )


def _notes(trait: Trait, first: _Document, second: _Document | None) -> Iterable[str]:
    counts = ", ".join(f"{len(trait.questions_of(split))} {split}" for split in SPLITS)
    if second is None:
        yield f"One file: its {len(trait.questions)} questions were divided into {counts}, each used once."
    else:
        yield f"Two files: {counts}."
        if second.pairs != first.pairs or second.rubric != first.rubric:
            yield f"{second.file.name} has other instructions or another eval_prompt; those of {first.file.name} count."
    yield "The layout has no neutral stances: the design has two arms, and v_up and v_down are not made."
    yield "It has no taxonomy, reply pairs or traps: no categories, no causal view. Add them in the folder if you like."
