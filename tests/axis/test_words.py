"""What the axis is made with: roles, questions, scripts. Counts, repeats, lengths, and that no text gives another away."""

from __future__ import annotations

import itertools
import json
import re

import numpy as np
import pytest

from workbench.axis.questions import N_QUESTIONS, bank_hash, question_bank, self_description_questions
from workbench.axis.roles import (
    ASSISTANT_END,
    FAR_END,
    Role,
    default_role,
    gardener_levels,
    jailbreak_personas,
    load_roles,
    role_names,
)
from workbench.axis.scripts import (
    DOMAINS,
    benign_role_play,
    load_scripts,
    reminder,
    scripts_hash,
    steadying_sentences,
)
from workbench.base.errors import WorkbenchError
from workbench.personas.traits import SPLITS, list_traits, load_trait


def words(text: str) -> int:
    return len(text.split())


def test_every_role_has_five_prompts_of_a_dozen_to_thirty_words_and_no_two_are_alike():
    roles = load_roles()
    prompts = list(itertools.chain.from_iterable(role.prompts for role in roles))
    assert len(roles) == 275 and all(len(role.prompts) == 5 for role in roles)
    assert len({" ".join(re.findall(r"\w+", prompt.lower())) for prompt in prompts}) == len(prompts)
    assert all(12 <= words(prompt) <= 32 for prompt in prompts)
    assert len({role.description for role in roles}) == len(roles)


def test_the_published_ends_are_there_and_the_default_stands_apart():
    assert {*ASSISTANT_END, *FAR_END} <= set(role_names())
    assert default_role().name not in role_names()
    assert default_role().prompts[0] == ""
    assert "7B" in " ".join(default_role().called("Some-7B").prompts)


def test_no_prompt_of_a_role_names_another_role():
    names = role_names()
    patterns = {name: re.compile(rf"\b{name.replace('_', ' ')}s?\b", re.IGNORECASE) for name in names}
    for role in load_roles():
        for name in set(names) - {role.name}:
            if name in role.name.split("_"):  # the advocate in the devil's advocate
                continue
            assert not patterns[name].search(" ".join(role.prompts)), (role.name, name)


def test_a_rubric_names_its_role_and_leaves_the_marks_for_the_judge():
    ghost, pirate = load_roles(["ghost", "pirate"])
    assert ghost.description in ghost.rubric and "{question}" in ghost.rubric and "{answer}" in ghost.rubric
    assert "{role}" not in ghost.rubric and ghost.rubric != pirate.rubric
    assert ghost.hash != pirate.hash and len(ghost.hash) == 64


def test_texts_are_plain_and_bear_no_blanks_at_their_ends():
    everything = [*load_roles(), default_role(), *jailbreak_personas(), *gardener_levels()]
    texts = [text for role in everything for text in (*role.prompts, role.description)]
    texts += [question.text for question in (*question_bank(), *self_description_questions())]
    assert all(text == " ".join(text.split()) and text.isascii() for text in texts)


def test_unknown_and_repeated_names_are_refused_with_the_nearest_one():
    with pytest.raises(WorkbenchError, match="pirate"):
        load_roles(["pirat"])
    with pytest.raises(WorkbenchError, match="repeats the name"):
        load_roles(["ghost", "ghost"])


def test_the_bank_has_240_questions_divided_two_to_one_to_one():
    bank = question_bank()
    assert len(bank) == N_QUESTIONS == len({question.id for question in bank})
    assert [len(question_bank(split)) for split in SPLITS] == [120, 60, 60]
    assert len({question.text.casefold() for question in bank}) == N_QUESTIONS
    assert bank_hash(bank) != bank_hash(bank[1:])


def test_no_question_is_one_of_a_trait_or_names_a_role():
    taken = {question.text.casefold() for name in list_traits() for question in load_trait(name).questions}
    names = re.compile(rf"\b({'|'.join(name.replace('_', ' ') for name in role_names())})s?\b", re.IGNORECASE)
    for question in question_bank():
        assert question.text.casefold() not in taken
        if question.id == "e097":  # parents: said in the docstring
            continue
        found = names.search(question.text)
        assert not found, (question.text, found)


def test_twenty_questions_ask_who_speaks():
    questions = self_description_questions()
    assert len(questions) == 20 == len({question.text for question in questions})
    assert {question.split for question in questions} == {"self-description"}


def test_jailbreak_personas_are_twenty_and_a_plain_control_and_the_gardener_grows_by_level():
    personas = jailbreak_personas()
    assert len(personas) == 21 and [role.group for role in personas].count("control") == 1
    lengths = [words(level.prompts[0]) for level in gardener_levels()]
    assert lengths == sorted(lengths) and lengths[0] <= 6 and 220 <= lengths[-1] <= 280
    assert all(isinstance(role, Role) and len(role.prompts) == 1 for role in (*personas, *gardener_levels()))


def test_roles_show_themselves_briefly():
    assert repr(load_roles(["ghost"])[0]).startswith("Role(name='ghost', prompts=5 items")


def test_a_role_survives_the_public_layout(tmp_path):
    from workbench.axis.exchange import read_questions, read_roles, write_questions, write_roles

    roles = load_roles(["ghost", "editor"])
    write_roles([*roles, default_role()], tmp_path / "out", question_bank("extraction")[:40])
    document = json.loads((tmp_path / "out" / "ghost.json").read_text())
    assert [entry["pos"] for entry in document["instruction"]] == list(roles[0].prompts) and len(document["questions"]) == 40
    back = {role.name: role for role in read_roles(tmp_path / "out")}
    assert back["ghost"].prompts == roles[0].prompts and back["ghost"].rubric == roles[0].rubric
    assert back["default"].prompts == default_role().prompts
    assert load_roles(["ghost", "pirate"], tmp_path / "out")[0].questions  # the folder's own file goes first
    write_questions(question_bank(), tmp_path / "bank.jsonl")
    assert read_questions(tmp_path / "bank.jsonl") == question_bank()
    with pytest.raises(WorkbenchError, match="exists already"):
        write_roles(roles, tmp_path / "out")


def test_published_files_load_without_our_own_fields(tmp_path):
    from workbench.axis.exchange import read_questions, read_role_file

    path = tmp_path / "coral_reef.json"
    published = {
        "instruction": [{"pos": "You are {model_name}, grown over by polyps."}, {"pos": "Speak as a reef."}],
        "questions": ["What is enough?"],
        "eval_prompt": "Rate {answer} to {question}. Write {{score}}.",
    }
    path.write_text(json.dumps(published))
    role = read_role_file(path)
    assert role.name == "coral_reef" and role.title == "coral reef" and role.rubric.endswith("Write {score}.")
    assert role.called("M-1").prompts[0] == "You are M-1, grown over by polyps."
    lines = [json.dumps({"question": f"Question {i}?", "id": i}) for i in range(8)]
    (tmp_path / "q.jsonl").write_text("\n".join(lines))
    splits = [question.split for question in read_questions(tmp_path / "q.jsonl")]
    assert splits == ["extraction", "verification", "extraction", "sealed"] * 2


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"questions": []}', "no field 'instruction'"),
        ('{"instruction": [{"pos": "A."}, {"pos": "a."}]}', "repeats the prompt"),
        ('{"instruction": [{"pos": "A."}], "eval_prompt": "no marks"}', "lacks"),
        ('{"instruction": [{"pos": "A."}], "questions": [1]}', "no list of texts"),
        ("[]", "A mapping"),
    ],
)
def test_broken_role_files_are_refused_in_words(tmp_path, content, told):
    from workbench.axis.exchange import read_roles

    (tmp_path / "broken.json").write_text(content)
    with pytest.raises(WorkbenchError, match=told):
        read_roles(tmp_path)


def test_every_domain_has_thirty_scripts_for_evaluation_and_four_for_calibration():
    for domain in DOMAINS:
        splits = [script.split for script in load_scripts(domain)]
        assert splits.count("evaluation") >= 30 and splits.count("calibration") == 4
    scripts = load_scripts()
    assert len({script.id for script in scripts}) == len(scripts) == len({script.topic for script in scripts})
    assert all(6 <= len(script.turns) <= 8 for script in scripts)
    assert scripts_hash(scripts) != scripts_hash(load_scripts(split="evaluation"))
    assert load_scripts("therapy", split="calibration")[0].hash != load_scripts("coding")[0].hash


def test_no_turn_stands_twice_and_all_are_plain_text():
    turns = [turn for script in load_scripts() for turn in script.turns]
    assert len({turn.casefold() for turn in turns}) == len(turns)
    assert all(turn.isascii() and turn == " ".join(turn.split()) for turn in turns)


@pytest.mark.parametrize("split", ["calibration", "evaluation"])
def test_domains_are_equally_long_within_fifteen_percent(split):
    means = [np.mean([script.n_words for script in load_scripts(domain, split=split)]) for domain in DOMAINS]
    assert max(means) / min(means) < 1.15


def test_role_play_reminder_and_steadying_sentences_are_there():
    plays = benign_role_play()
    assert len(plays) == 40 == len({play.system for play in plays}) == len({play.user for play in plays})
    assert "assistant" in reminder() and 8 <= len(steadying_sentences()) <= 12


def test_an_unknown_domain_or_split_is_refused():
    with pytest.raises(WorkbenchError, match="therapy"):
        load_scripts("therapist")
    with pytest.raises(WorkbenchError, match="calibration"):
        load_scripts(split="calibrate")
