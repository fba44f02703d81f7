from __future__ import annotations

import json
import shutil

import pytest

from workbench.base.errors import WorkbenchError
from workbench.serving.explorer import Explorer, NotReady
from workbench.serving.runs import find_runs, read_run


def test_a_run_folder_and_the_folder_of_run_folders_name_the_same_runs(world):
    (alone,), (inside,) = find_runs([world.run]), find_runs([world.run.parent])
    assert alone == inside and alone.trait == "evil" and alone.sae is not None
    run = read_run(alone)
    assert run.parts is not None and run.labels is not None and len(run.labels) == 4


@pytest.mark.parametrize("kind", ["nothing", "empty", "file"])
def test_what_is_no_run_is_refused_in_words(tmp_path, kind):
    place = tmp_path / "x"
    if kind == "empty":
        place.mkdir()
    elif kind == "file":
        place.write_text("a")
    with pytest.raises(WorkbenchError, match="workbench report"):
        find_runs([place])


def test_runs_of_two_models_and_two_runs_of_a_trait_are_refused(world, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(world.run, other)
    with pytest.raises(WorkbenchError, match="both of evil"):
        find_runs([world.run, other])
    path = other / "vector" / "persona_vector.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "trait": "apathetic", "model": {**document["model"], "weights_hash": "0" * 64}}))
    with pytest.raises(WorkbenchError, match="different models"):
        find_runs([world.run, other])


def test_a_vector_alone_can_be_served(world, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(world.run, bare)
    shutil.rmtree(bare / "decomposition")
    explorer = Explorer(find_runs([bare]), lambda: (world.model, None))
    explorer.load_all()
    assert explorer.status()["sae"] is None and explorer.run().parts is None
    with pytest.raises(NotReady, match="No run here was decomposed"):
        _ = explorer.book


def test_what_cannot_be_loaded_is_told_and_stops_nothing_else(world):
    def fails():
        raise WorkbenchError("the model is broken", "a whole one", "fetch it again")

    explorer = Explorer(find_runs([world.run]), fails)
    with pytest.raises(NotReady, match="still being loaded"):
        _ = explorer.model
    explorer.load_all()
    assert explorer.states["model"][0] == "failed" and explorer.states["runs"][0] == "ready"
    with pytest.raises(NotReady, match="The model is broken"):
        _ = explorer.model


def test_another_model_than_that_of_the_run_is_refused(world):
    from tests.tiny import tiny_model

    explorer = Explorer(find_runs([world.run]), lambda: (tiny_model(seed=1), world.sae))
    explorer.load_all()
    assert explorer.states["model"][0] == "failed" and "weights" in explorer.states["model"][1]
