"""Role files and question files in the layout of the public assistant-axis repository, in and out.

A role is `NAME.json`: {"instruction": [{"pos": system prompt} x 5], "questions": [...], "eval_prompt"}; trait files of the same
repository add "neg", which a role has no use for. Questions are lines {"question", "id"}. Prompts may hold {model_name}. Files
written here add "description", "group" and "split", which other readers pass over and which are read back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from itertools import cycle
from pathlib import Path

from workbench.axis.roles import Role, rubric_for
from workbench.base.errors import WorkbenchError
from workbench.base.store import atomic_write, json_problem, make_folder, read_json, read_text, write_json
from workbench.personas.exchange import SPLITS_IN_TURN, as_format, as_rubric
from workbench.personas.fields import Fields, fields, refuse_repeats
from workbench.personas.traits import SPLITS, Question

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_LAYOUT = 'A role file: {"instruction": [{"pos": "..."}, ...], "questions": [...], "eval_prompt": "..."}.'


def read_roles(folder: str | Path) -> tuple[Role, ...]:
    """All role files of `folder` (or the one file), sorted by name; refuses a folder without any, and names no folder bears."""
    path = Path(folder)
    files = [path] if path.is_file() else sorted(path.glob("*.json"))
    if not files:
        raise WorkbenchError(f"{path} holds no role file", "a folder with files NAME.json", "give the folder of the role files")
    return tuple(map(read_role_file, files))


def read_role_file(file: str | Path) -> Role:
    """The role in one file, named after it; without "eval_prompt" it gets the common rubric."""
    file = Path(file)
    if not _NAME.fullmatch(file.stem):
        raise WorkbenchError(f"{file.name} names no role", "lower-case letters, digits, '_' and '-'", "rename the file")
    document = fields(read_json(file), str(file))
    if "instruction" not in document.values:
        raise document.wrong("it has no field 'instruction'.", _LAYOUT, "Give a file of that layout.")
    prompts = document.each("instruction", _prompt)
    refuse_repeats([(f"instruction[{i}]", text) for i, text in enumerate(prompts)], "prompt", str(file))
    title = file.stem.replace("_", " ")
    description = document.text("description") if document.values.get("description") else f"Plays the role: {title}."
    rubric = as_rubric(document) if document.values.get("eval_prompt") else rubric_for(title, description)
    group = document.text("group") if document.values.get("group") else None
    return Role(file.stem, prompts, description, rubric, group, _role_questions(document))


def write_roles(roles: Iterable[Role], folder: str | Path, questions: Sequence[Question] = ()) -> tuple[Path, ...]:
    """Write a file for each role into `folder`; a role without questions of its own gets `questions`. Refuses to overwrite."""
    folder, roles = make_folder(folder), tuple(roles)
    files = [folder / f"{role.name}.json" for role in roles]
    _refuse_existing(files)
    shared = [question.text for question in questions]
    for file, role in zip(files, roles, strict=True):
        write_json(file, _role_document(role, shared))
    return tuple(files)


def read_questions(file: str | Path) -> tuple[Question, ...]:
    """The questions in a JSONL file; without "split" they are divided in turn: half extraction, a quarter each for the others."""
    lines = [(i, line) for i, line in enumerate(read_text(file).splitlines(), start=1) if line.strip()]
    items = [_line(text, f"{file}, line {i}") for i, text in lines]
    if not items:
        raise WorkbenchError(f"{file} holds no question", 'lines {"question", "id"}', "give the file of the questions")
    questions = tuple(_question(item, split) for item, split in zip(items, cycle(SPLITS_IN_TURN), strict=False))
    refuse_repeats([(item.place, question.id) for item, question in zip(items, questions, strict=True)], "id", str(file))
    refuse_repeats([(item.place, question.text) for item, question in zip(items, questions, strict=True)], "question", str(file))
    return questions


def write_questions(questions: Iterable[Question], file: str | Path) -> Path:
    """Write one line {"question", "id", "split"} for each question; refuses to overwrite."""
    _refuse_existing([Path(file)])
    lines = [json.dumps({"question": one.text, "id": one.id, "split": one.split}, ensure_ascii=False) for one in questions]
    return atomic_write(file, "\n".join(lines) + "\n")


def _prompt(item: Fields) -> str:
    """The text under "pos"; "" is a role without a system message."""
    return "" if item.values.get("pos") == "" else item.text("pos")


def _role_questions(document: Fields) -> tuple[str, ...]:
    listed = document.values.get("questions") or []
    if not isinstance(listed, list) or not all(isinstance(text, str) and text.strip() for text in listed):
        raise document.wrong("'questions' is no list of texts.", _LAYOUT, "Write the questions as a list, or leave them out.")
    return tuple(text.strip() for text in listed)


def _role_document(role: Role, shared: list[str]) -> dict[str, object]:
    return {
        "instruction": [{"pos": prompt} for prompt in role.prompts],
        "questions": list(role.questions) or shared,
        "eval_prompt": as_format(role.rubric),
        "description": role.description,
        "group": role.group,
    }


def _line(text: str, place: str) -> Fields:
    try:
        return fields(json.loads(text), place)
    except (ValueError, RecursionError) as error:
        found = f"{place}: no JSON ({json_problem(error)})"
        raise WorkbenchError(found, 'a line {"question", "id"}', "correct the line") from error


def _question(item: Fields, split: str) -> Question:
    given = item.choice("split", SPLITS) if "split" in item.values else split
    identifier = item.values.get("id")
    if isinstance(identifier, bool) or not isinstance(identifier, (int, str)) or identifier == "":
        raise item.wrong(f"'id' is {identifier!r}.", "A number or a string.", "Give every question an id.")
    return Question(str(identifier), item.text("question"), given)


def _refuse_existing(files: Iterable[Path]) -> None:
    for file in files:
        if file.exists():
            raise WorkbenchError(f"{file} exists already", "a new file", "choose another folder")
