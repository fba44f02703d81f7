"""The whole study on a tiny model: choosing, cells, resuming, the table."""

from __future__ import annotations

import json

import pytest

from workbench.base.errors import WorkbenchError
from workbench.steering.prevent import cells
from workbench.steering.prevent.arms import make_arm
from workbench.steering.prevent.cells import SEALED, SELECT, Classroom, points_by_question
from workbench.steering.prevent.choosing import SEED, choose_steps, choose_strengths
from workbench.steering.prevent.study import checked_arms, study

ARMS = ("none", "sham", "preventative", "random", "subtraction")


def test_a_study_has_a_row_per_arm_and_is_taken_up_again(room, monkeypatch) -> None:
    table = study(room, ARMS, (0, 1), steps=(2, 3))
    assert table.arms == ("base", "none", "sham", "preventative", "random", "subtraction")
    assert table.n_seeds == 2 and table.row("base").moved.value == 0 and table.row("base").surprise.value == 0
    assert table.row("none").prevented is None and table.row("random").strength == table.row("preventative").strength
    assert table.row("none").points.n_units == 10 and table.row("none").surprise.n_units == 4
    assert table.row("none").task_loss.n_units == 4 == len(room.materials.lesson.held_out) / 2  # questions, not replies
    assert [row.strength for row in table.rows if row.arm == "subtraction"] == [0.06, 0.12, 0.25, 0.4]
    assert set(table.contrasts) == {"preventative", "random"}
    assert json.loads(json.dumps(table.to_json()))["arms"]["none"]["trait"] == table.row("none").points.value
    assert "impolite" in table.row("none").others
    monkeypatch.setattr(cells, "finetune", None)  # nothing is trained again
    assert study(room, ARMS, (0, 1), steps=(2, 3)).to_json() == table.to_json()


def test_a_random_vector_in_training_gives_another_model_than_none(room) -> None:
    plain, random = (room.cell(make_arm(name, room.materials, dose, 0), 0, SEALED)
                     for name, dose in (("none", None), ("random", 0.5)))  # fmt: skip
    assert plain["losses"] != random["losses"] and plain["task_loss"] != random["task_loss"]
    again = room.cell(make_arm("random", room.materials, 0.5, 1), 1, SEALED)
    assert again["losses"][0] != random["losses"][0]


def test_subtraction_uses_the_plain_adapter_and_steers_only_afterwards(room) -> None:
    plain = room.cell(make_arm("none", room.materials), 0, SEALED)
    steered = room.cell(make_arm("subtraction", room.materials, 0.4), 0, SEALED)
    assert steered["losses"] == plain["losses"] and steered["kl"] > 0 and plain["kl"] == 0
    assert steered["task_loss"] != plain["task_loss"]
    assert steered["capability"]["surprise"] != plain["capability"]["surprise"]
    assert len(list((room.folder / "adapters").iterdir())) == 1


def test_adapters_of_other_arms_are_deleted_once_their_cell_is_written(room) -> None:
    room.cell(make_arm("ablation", room.materials), 0, SEALED)
    assert not list((room.folder / "adapters").iterdir())
    assert len(list((room.folder / "cells").glob("sealed-ablation-seed0-*.json"))) == 1


def test_a_cell_that_was_killed_goes_on_at_its_checkpoint(room, monkeypatch) -> None:
    arm = make_arm("preventative", room.materials, 0.25)
    monkeypatch.setattr(cells.Bench, "replies", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        room.cell(arm, 0, SEALED)
    monkeypatch.undo()
    assert not (room.folder / "cells").exists() and list((room.folder / "adapters").iterdir())
    trained = []
    monkeypatch.setattr("workbench.models.finetuning._Run._update", lambda *_: trained.append(1))
    assert len(room.cell(arm, 0, SEALED)["replies"]) == 10 and not trained


def test_steps_and_strengths_are_chosen_on_select_questions_alone(room) -> None:
    steps = choose_steps(room, (2, 3))
    assert [one["steps"] for one in steps["tried"]] == ([2] if steps["power"] and steps["steps"] == 2 else [2, 3])
    found = choose_strengths(room, ("none", "preventative", "random", "filtering"), 2)
    assert set(found) == {"preventative", "random", "filtering"} and found["filtering"]["strength"] == 0.5
    best = min(found["preventative"]["tried"], key=lambda one: abs(one["points"] - found["preventative"]["aim"]))
    assert found["random"]["strength"] == found["preventative"]["strength"] == best["strength"]
    names = [path.name for path in (room.folder / "cells").iterdir()]
    assert names and all(name.startswith(SELECT) and f"seed{SEED}" in name for name in names)
    sealed = {question.id for question in room.materials.trait.questions_of("sealed")}
    assert not sealed & set(points_by_question(room.base(SELECT, SEED)))


def test_arms_seeds_and_judges_that_cannot_be_meant_are_refused(room, model, materials, tmp_path) -> None:
    with pytest.raises(WorkbenchError, match=r"[Ff]ilter"):
        Classroom(model, materials, type(room.judge)("offline"), None, tmp_path)
    with pytest.raises(WorkbenchError, match="random without preventative"):
        checked_arms(("none", "random"))
    with pytest.raises(WorkbenchError, match="preventative"):
        checked_arms(("preventive",))
    for seeds in ((), (0, 0), (SEED,)):
        with pytest.raises(WorkbenchError, match="eeds"):
            study(room, ("none",), seeds)
    assert checked_arms(("kl", "sham")) == ("none", "sham", "kl")
