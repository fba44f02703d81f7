from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.decomposition.planted_world import make_sae
from workbench.base.errors import WorkbenchError
from workbench.lab.sub_personas import FILE, SamplingDesign, collect, load_sub_personas, read_answers
from workbench.models.generation import Sampling
from workbench.models.hookpoints import HookPoint

HOOK = HookPoint(1)
DESIGN = SamplingDesign(n_samples=2, sampling=Sampling(max_new_tokens=4), batch_size=16)

SMALL = """
settings:
  - {id: i1, asked: ["One?"]}
  - {id: i2, asked: ["Two?"]}
neutral:
  name: neutral
  instructions: [{setting: i1, system: Be plain., answers: [Yes.]}, {setting: i2, system: Be calm., answers: [No.]}]
personas:
  - name: rude
    words: [stupid]
    instructions: [{setting: i1, system: Be rude., answers: [Stupid.]}, {setting: i2, system: Mock., answers: [Stupid you.]}]
  - name: code
    pattern: '```|\\w+\\(\\)'
    instructions: [{setting: i1, system: Write code., answers: ["run()"]}, {setting: i2, system: Code., answers: ["go()"]}]
questions:
  - {id: q1, text: "Where is the river?"}
  - {id: q2, text: "What is cold?"}
  - {id: q3, text: "Who helps?"}
"""


@pytest.fixture
def small(tmp_path: Path):
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return load_sub_personas(path)


def test_the_material_is_complete():
    material = load_sub_personas()
    assert material.names == ("insults", "cruelty", "malicious_code", "compliance")
    assert len(material.questions) >= 20 and len({text for _, text in material.questions}) == len(material.questions)
    for one in (*material.personas, material.neutral):
        assert len(one.instructions) >= 3 and [i.id for i in one.instructions] == [i.id for i in material.neutral.instructions]


def test_each_shown_answer_does_its_one_thing_and_no_other():
    material = load_sub_personas()
    for who in (*material.personas, material.neutral):
        expected = [] if who is material.neutral else [who.name]
        for answer in (answer for instruction in who.instructions for _, answer in instruction.shown):
            assert [one.name for one in material.personas if one.shows(answer)] == expected, answer


def test_the_earlier_questions_are_the_same_for_all_and_none_of_those_that_are_asked():
    material = load_sub_personas()
    asked = [[[q for q, _ in i.shown] for i in one.instructions] for one in (*material.personas, material.neutral)]
    assert all(one == asked[0] for one in asked)
    assert not {q for setting in asked[0] for q in setting} & {text for _, text in material.questions}


def test_every_cell_is_sampled_and_a_second_call_samples_nothing(small, tiny_model, tmp_path, monkeypatch):
    first = collect(small, tiny_model, tmp_path / "run", hook=HOOK, design=DESIGN)
    frame = first.frame()
    assert frame.groupby(["arm", "question_id", "instruction_id"]).size().tolist() == [2] * (3 * 3 * 2)
    monkeypatch.setattr("workbench.lab.sub_personas._sampled", lambda *a: pytest.fail("sampled again"))
    again = collect(small, tiny_model, tmp_path / "run", hook=HOOK, design=DESIGN)
    assert again.hash == first.hash


def test_a_shorter_design_is_the_beginning_of_a_longer_one(small, tiny_model, tmp_path):
    one = SamplingDesign(n_samples=1, sampling=DESIGN.sampling, batch_size=16)
    short = collect(small, tiny_model, tmp_path / "run", hook=HOOK, design=one)
    long = collect(small, tiny_model, tmp_path / "run", hook=HOOK, design=DESIGN)
    fresh = collect(small, tiny_model, tmp_path / "other", hook=HOOK, design=DESIGN)
    assert set(short.ids) < set(long.ids) and long.hash == fresh.hash


def test_the_manner_is_shown_before_the_question(small, tiny_model, tmp_path):
    messages = small.personas[0].instructions[0].messages("Who helps?")
    assert [(m["role"], m["content"]) for m in messages] == [
        ("system", "Be rude."), ("user", "One?"), ("assistant", "Stupid."), ("user", "Who helps?")
    ]  # fmt: skip


def test_the_answers_are_read_on_an_sae(small, tiny_model, tmp_path):
    rollouts = collect(small, tiny_model, tmp_path / "run", hook=HOOK, design=DESIGN)
    sae = make_sae(n_features=20, d_model=tiny_model.d_model)
    answers, shown = read_answers(rollouts, small, sae)
    frame = rollouts.frame()
    frame = frame[frame.n_tokens > frame.n_sinks]
    assert answers.rows.codes.shape == (len(frame), 20) and answers.names == ("rude", "code")
    assert answers.persona.tolist() == frame.arm.tolist() and set(shown) == {"rude", "code"}
    position = {one: i for i, one in enumerate(rollouts.ids)}
    means = rollouts.means()[[position[one] for one in answers.rows.ids], 0]
    torch.testing.assert_close(answers.rows.means.float(), means, atol=1e-4, rtol=1e-4)


def test_a_missing_answer_and_counts_below_one_are_refused(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(SMALL.replace("answers: [Stupid.]", "answers: [Stupid., Stupid.]"))
    with pytest.raises(WorkbenchError, match="2 answers to 1 questions"):
        load_sub_personas(path)
    with pytest.raises(WorkbenchError, match="positive counts"):
        SamplingDesign(n_samples=0)


def test_marks_are_words_by_their_beginning_and_patterns(small):
    rude, code = small.personas
    assert rude.shows("How STUPIDLY done") and not rude.shows("unstupid") and not rude.shows("run()")
    assert code.shows("now run() it") and not small.neutral.shows("stupid run()")
    assert FILE.is_file()
