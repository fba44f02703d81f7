"""A prompt placed on a tiny model: every part of the result, what is taken up again, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.tiny import tiny_model as make_tiny
from tests.toy_run import sae_of
from workbench.axis.design.answers import PlaceDesign, collect_answers, default_prompts
from workbench.axis.design.place import place, shift_of
from workbench.axis.design.result import Placement
from workbench.axis.design.standing import axis_covector
from workbench.axis.questions import question_bank
from workbench.axis.space.design import RoleDesign
from workbench.axis.space.mapping import map_roles, read_role_vectors
from workbench.base.errors import WorkbenchError
from workbench.models.hookpoints import HookPoint
from workbench.models.sampling import Sampling
from workbench.personas.vectors import PersonaVector

SHORT = Sampling(max_new_tokens=4, temperature=0.7, top_p=0.9)
DESIGN = PlaceDesign(n_questions=8, n_choosing=8, conversations=1, most_pieces=2, sampling=SHORT)
PROMPT = "You tend a garden. Go slowly and say what you leave alone."
TRAITS = ("evil", "kind")
ADDITIONS = {"calm": "Stay calm.", "plain": "Speak plainly."}


@pytest.fixture(scope="module")
def model():
    return make_tiny()


@pytest.fixture(scope="module")
def run(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("axis-run")
    design = RoleDesign(n_roles=4, n_questions=8, n_calibration=2, n_prompts=1, n_default_samples=1, min_count=2, sampling=SHORT)
    map_roles(model, folder, design=design, judge="none", hook=sae_of(model).hook, token_hooks=())
    return folder


@pytest.fixture(scope="module")
def placed(run, model):
    sae = sae_of(model)
    known = {"model": model.description(), "hook": sae.hook}
    traits = [PersonaVector.from_direction(torch.eye(model.d_model)[i], trait=name, **known) for i, name in enumerate(TRAITS)]
    return place(model, PROMPT, run, name="gardener", design=DESIGN, traits=traits, sae=sae, additions=ADDITIONS,
                 expected=["bohemian"])  # fmt: skip


def test_every_part_of_a_placement_is_there(placed, run, model):
    assert placed.n_roles == 4 and len(placed.standing["nearest"]) == 4 and placed.standing["n_questions"] == 8
    assert placed.retrieval["n"] == 4 and placed.expected["of"] == 4
    assert [row["trait"] for row in placed.traits] == ["evil", "kind"]
    assert [row["name"] for row in placed.sentences] == ["You tend a garden.", "Go slowly and say what you leave alone."]
    assert [row["name"] for row in placed.additions["measured"]] == ["calm", "plain"]
    assert set(placed.drift["domains"]) == {"therapy", "philosophy"}
    features = placed.features
    within = sum(row["along_axis"] for row in features["features"])
    assert abs(features["error_along_axis"] + within - features["along_axis"]) < 1.0 and features["sae"]
    assert "gardener stands at" in placed.to_json()["headline"] and "Named beforehand: bohemian" in placed.to_json()["headline"]
    assert (run / "place" / "gardener" / "vector" / "persona_vector.json").is_file()
    assert (run / "place" / "gardener" / "decomposition" / "decomposition.json").is_file()


def test_the_position_is_one_plus_the_projection_of_the_prompts_own_vector(placed, run, model):
    vector = PersonaVector.load(run / "place" / "gardener" / "vector")
    along = float(vector.at(HookPoint.parse(placed.hook)).double() @ axis_covector(read_role_vectors(run)))
    assert placed.position[0] == pytest.approx(1 + along, abs=1e-4)
    assert placed.features["along_axis"] == pytest.approx(along, abs=1e-4)


def test_a_placement_is_saved_read_again_and_taken_up_without_sampling(placed, run, model, monkeypatch):
    again = Placement.load(run / "place" / "gardener")
    assert again.to_json() == placed.to_json()
    monkeypatch.setattr("workbench.personas.rollouts.generate", lambda *a, **k: pytest.fail("sampled again"))
    answers = collect_answers(model, run / "place" / "answers", [*default_prompts(model), PROMPT], DESIGN.questions("sealed"),
                              hook=HookPoint.parse(placed.hook), design=DESIGN)  # fmt: skip
    shifts, spoken = shift_of(answers, PROMPT, default_prompts(model))
    assert len(shifts) == 8 and len(spoken) == 5 * 8


def test_figures_are_reported_on_questions_that_nothing_was_chosen_on():
    asked = {split: {one.id for one in DESIGN.questions(split)} for split in ("sealed", "verification")}
    assert not asked["sealed"] & asked["verification"]
    assert not (asked["sealed"] | asked["verification"]) & {one.id for one in question_bank("extraction")}


@pytest.mark.parametrize("prompt", ["", "  ", "You are a helpful assistant."])
def test_a_prompt_of_the_default_itself_is_refused(run, model, prompt):
    with pytest.raises(WorkbenchError, match="default assistant"):
        place(model, prompt, run, design=DESIGN)


@pytest.mark.parametrize("where", [{"name": ".."}, {"name": "."}, {"folder": "run"}, {"name": "answers"}], ids=str)
def test_the_axis_of_the_run_is_never_written_over(run, model, where):
    before = (run / "vector" / "persona_vector.json").read_bytes()
    given = {"folder": run} if "folder" in where else where
    with pytest.raises(WorkbenchError, match="a folder of its own"):
        place(model, PROMPT, run, design=DESIGN, **given)
    assert (run / "vector" / "persona_vector.json").read_bytes() == before


def test_another_model_and_a_folder_without_roles_are_refused(run, model, tmp_path):
    with pytest.raises(WorkbenchError, match="Map this model first"):
        place(make_tiny(seed=7), PROMPT, run, design=DESIGN)
    with pytest.raises(WorkbenchError, match="role vectors"):
        place(model, PROMPT, tmp_path, design=DESIGN)


def test_a_design_with_too_few_questions_is_refused():
    with pytest.raises(WorkbenchError, match="n_questions = 3"):
        replace(DESIGN, n_questions=3)
