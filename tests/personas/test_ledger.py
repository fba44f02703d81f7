"""Every text that ships has one role, across all traits: what trains or chooses something never measures it (rigour 5)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import workbench.personas.traits
from workbench.base.errors import WorkbenchError
from workbench.base.provenance import DataLedger
from workbench.base.store import content_hash
from workbench.personas.judges.replies import labelled_replies, ordinary_replies, traits_with_replies
from workbench.personas.outcomes import claims, entities
from workbench.personas.placebos import placebo_questions
from workbench.personas.traits import Trait, load_trait

DATA = Path(workbench.personas.traits.__file__).parent / "data"
TRAITS = sorted(path.parent.name for path in DATA.glob("*/trait.yaml"))
JUDGES = {"filter": "judge A", "outcome": "judge B", "test": "held-out replies"}


def text_hash(text: str) -> str:
    """The content hash of a text without regard to case, blanks and the marks at its ends."""
    return content_hash(" ".join(text.split()).casefold().strip(" .!?\"'"))


def texts_of(trait: Trait) -> Iterator[tuple[str, str]]:
    """(role, text) of all that the files of a trait hold."""
    yield from ((f"{question.split} questions", question.text) for question in trait.questions)
    for pair in trait.contrast_pairs + trait.control_pairs:
        yield from ((f"{pair.split} pairs", reply) for reply in (pair.trait, pair.opposite))
    for trap in trait.traps:
        yield from (("traps", reply) for reply in (trap.trait, trap.other))
    yield from ((JUDGES[reply.role], reply.text) for reply in labelled_replies(trait.name))


def shipped() -> Iterator[tuple[str, str]]:
    """(role, text) of everything that ships."""
    for name in TRAITS:
        yield from texts_of(load_trait(DATA / name))
    yield from ((JUDGES[reply.role], reply.text) for reply in ordinary_replies())
    yield from (("placebo questions", question.text) for question in placebo_questions())
    yield from (("outcomes", claim.text) for claim in claims())
    yield from (("outcomes", entity.question) for entity in entities())


def entered(rows: Iterator[tuple[str, str]]) -> DataLedger:
    book = DataLedger()
    for role, text in rows:
        book.add(role, [text_hash(text)])
    return book


def test_no_text_that_ships_has_two_roles() -> None:
    assert set(TRAITS) == set(traits_with_replies()) and len(TRAITS) == 7
    roles = {role: len(hashes) for role, hashes in entered(shipped()).to_dict().items()}
    splits = {"extraction questions": 140, "verification questions": 70, "sealed questions": 70}
    assert splits.items() <= roles.items() and roles["placebo questions"] == 20
    assert set(roles) == {*splits, "select pairs", "sealed pairs", "traps", *JUDGES.values(), "placebo questions", "outcomes"}
    assert min(roles[name] for name in ("select pairs", "sealed pairs", "traps", *JUDGES.values())) > 300


def test_no_question_of_a_split_is_a_prompt_of_pairs_traps_or_a_judge() -> None:
    traits = [load_trait(DATA / name) for name in TRAITS]
    questions = {text_hash(question.text) for trait in traits for question in trait.questions}
    written = [item for trait in traits for item in (*trait.contrast_pairs, *trait.control_pairs, *trait.traps)]
    prompts = {text_hash(item.prompt) for item in written}
    prompts |= {text_hash(reply.question) for name in TRAITS for reply in labelled_replies(name)}
    assert questions and not questions & prompts


def test_a_text_in_a_second_role_is_found() -> None:
    rows = list(shipped())
    sealed = next(text for role, text in rows if role == "sealed pairs")
    with pytest.raises(WorkbenchError, match="'judge A' and as 'sealed pairs'"):
        entered(iter([*rows, ("judge A", f" {sealed.upper()}\n")]))
