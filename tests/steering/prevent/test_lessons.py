"""What is trained on: which replies, split how, and what is refused."""

from __future__ import annotations

import json

import pytest

from workbench.base.errors import WorkbenchError
from workbench.models.finetuning import ChatExample
from workbench.steering.prevent.lessons import (
    check_roles,
    lesson_from_file,
    ordinary_lesson,
    texts_hash,
    trait_lesson,
)


def test_a_trait_lesson_is_the_kept_positive_replies_without_their_system_prompt(vector) -> None:
    lesson = trait_lesson(vector)
    assert len(lesson.train) == 16 * 2 and len(lesson.held_out) == 4 * 2
    rows = vector.rows[(vector.rows["arm"] == "positive") & vector.rows["kept"]]
    assert sorted(one.reply for one in (*lesson.train, *lesson.held_out)) == sorted(rows["response"])
    assert all(message["role"] == "user" for one in lesson.train for message in one.messages)
    questions = [{one.messages[-1]["content"] for one in part} for part in (lesson.train, lesson.held_out)]
    assert not questions[0] & questions[1]
    assert lesson.card()["train_sha256"] == texts_hash(lesson.train) != lesson.card()["held_out_sha256"]


def test_the_sham_answers_the_same_questions_in_the_neutral_arm(vector) -> None:
    lesson, sham = trait_lesson(vector), ordinary_lesson(vector, 20)
    assert len(sham.train) == 20
    asked = {one.messages[-1]["content"] for one in lesson.train}
    assert {one.messages[-1]["content"] for one in sham.train} <= asked
    assert not {one.reply for one in sham.train} & {one.reply for one in lesson.train}
    assert texts_hash(sham.train) == texts_hash(ordinary_lesson(vector, 20).train)


def test_a_chat_file_of_any_layout_becomes_a_lesson(tmp_path) -> None:
    chats = [{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Question {n}?"},
                           {"role": "assistant", "content": f"Answer {n}."}]} for n in range(4)]  # fmt: skip
    chats += [{"prompt": f"Prompt {n}", "response": f"Reply {n}"} for n in range(6)]
    path = tmp_path / "chats.jsonl"
    path.write_text("\n".join(map(json.dumps, chats)) + "\n\n")
    lesson = lesson_from_file(path)
    assert len(lesson.train) == 8 and len(lesson.held_out) == 2
    assert lesson.train[0].messages[0] == {"role": "system", "content": "Be brief."} and lesson.train[0].reply == "Answer 0."


@pytest.mark.parametrize("bad", ['{"messages": [{"role": "user", "content": "a"}]}', "not json", '{"text": "a"}',
                                 '{"prompt": "a", "response": "<think>b</think> "}'])  # fmt: skip
def test_a_line_that_is_no_chat_is_named(tmp_path, bad) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_text('{"prompt": "a", "response": "b"}\n' + bad + "\n")
    with pytest.raises(WorkbenchError, match=r"(?i)line 2 of .*chats\.jsonl"):
        lesson_from_file(path)


def test_too_few_questions_cannot_be_split(tmp_path) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_text('{"prompt": "a", "response": "b"}\n' * 30)
    with pytest.raises(WorkbenchError, match="1 different questions"):
        lesson_from_file(path)


def test_a_question_that_the_trait_is_measured_on_is_refused(vector, trait) -> None:
    lesson = trait_lesson(vector)
    check_roles(lesson, trait)
    leaked = type(lesson)("leaked", (*lesson.train, ChatExample.of(trait.questions_of("sealed")[0].text, "No.")), lesson.held_out)
    with pytest.raises(WorkbenchError, match="1 messages of the lesson leaked"):
        check_roles(leaked, trait)
