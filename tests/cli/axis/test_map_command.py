"""`workbench axis roles` lists and plans; `workbench axis map` makes the space and a page of a planted run."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch

from tests.axis.space.planted import HOOKS, judged_rows, planted_rows, stored
from workbench.axis.roles import ASSISTANT_END, FAR_END
from workbench.axis.space.axis import assistant_axis
from workbench.axis.space.mapping import ROLES, VECTOR
from workbench.axis.space.role_vectors import role_vectors

NAMES = (*ASSISTANT_END[:5], *FAR_END[:5], "coral_reef")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, tiny_model) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "axis-tiny"
    along = torch.linspace(3, -3, len(NAMES))
    places = {name: along[i] * torch.eye(32)[0] for i, name in enumerate(NAMES)}
    rollouts = stored(folder, *planted_rows(places, 5 * torch.eye(32)[0], noise=0.3), part=64)
    judged = judged_rows(rollouts)
    role_vectors(rollouts, judged, tiny_model, hook=HOOKS[0]).save(folder / ROLES)
    vector = assistant_axis(rollouts, judged, tiny_model, hook=HOOKS[0])
    vector.save(folder / VECTOR)
    vector.save(folder.parent / "evil-tiny" / "vector")  # a neighbour that is placed in the space
    return folder


def test_the_map_says_where_the_ends_stand_and_writes_a_page_that_needs_nothing_else(workbench, run_folder):
    answer = workbench("axis", "map", run_folder, "--bootstrap", "20", "--json")
    value = answer.json
    assert answer.code == 0 and value["n_roles"] == 11 and value["cos_axis_pc1"] > 0.9
    assert value["cos_axis_pc1_interval"][0] < value["cos_axis_pc1"] and value["pcs_for_70"] == 1
    assert value["ends_rank_correlation"] > 0.8 and value["ranking"][0]["role"] == NAMES[0]
    assert value["traits"]["vectors"][0]["trait"] == "assistant-axis" and value["traits"]["vectors"][0]["cos_axis"] > 0.99
    page = Path(value["page"]).read_text(encoding="utf-8")
    assert len(page.encode()) < 1_000_000 and "coral reef" in page and 'data-name="coral_reef"' in page
    assert not re.search(r'(?:src|href)="(?!data:)', page) and "://" not in re.sub(r'xmlns="[^"]*"', "", page)
    assert page.count('class="pt"') == 11 and "default-src &#39;none&#39;" in page


def test_two_models_are_compared_and_the_words_name_what_was_found(workbench, run_folder):
    answer = workbench("axis", "map", run_folder, "--compare", run_folder, "--bootstrap", "20", "--out", "two.html")
    assert answer.code == 0 and "cosine of the axes +1.00" in answer.out and "positions correlate +1.00" in answer.out
    assert "then farthest" in answer.out
    assert "Beside tiny-llama-0" in Path("two.html").read_text(encoding="utf-8")
    assert (run_folder / "space" / "comparison.json").is_file()


def test_a_neighbour_that_is_no_vector_is_passed_over(workbench, run_folder, tmp_path):
    shutil.copytree(run_folder, tmp_path / "axis-tiny")
    (tmp_path / "torn" / "vector").mkdir(parents=True)
    (tmp_path / "torn" / "vector" / "persona_vector.json").write_text('{"kind": "persona_vector"}')
    answer = workbench("axis", "map", tmp_path / "axis-tiny", "--bootstrap", "10", "--json")
    assert answer.code == 0 and answer.json["traits"]["vectors"] == []


def test_the_plans_create_nothing(workbench, run_folder, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    planned = workbench("axis", "map", run_folder, "--plan", "--json").json
    assert planned["seconds"] > 0 and "11 characters" in planned["what"]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "found"),
    [(["map", "nowhere"], "holds no role vectors"), (["map", "nowhere", "--plan"], "holds no role vectors"),
     (["map", "nowhere", "--model", "gpt2"], "a run folder and --model"), (["roles", "gost"], "'ghost'"),
     (["roles", "--model", "smollm2-135m-instruct", "--judge", "reader", "--plan"], "the judge 'reader'")],
    ids=["no run", "no run to plan", "two runs", "unknown role", "unknown judge"],
)  # fmt: skip
def test_bad_input_is_explained(workbench, arguments, found):
    answer = workbench("axis", *arguments)
    assert answer.code == 2 and found in answer.err and not list(Path().iterdir())


def test_characters_are_listed_with_who_speaks_and_exported_as_published_files(workbench):
    value = workbench("axis", "roles", "ghost", "pirate", "--json").json
    assert [one["name"] for one in value["roles"]] == ["ghost", "pirate"] and len(value["roles"][0]["prompts"]) == 5
    assert workbench("axis", "roles", "ghost", "--export", "files").code == 0
    again = workbench("axis", "roles", "--folder", "files", "--json").json
    assert again["roles"][0]["prompts"] == value["roles"][0]["prompts"] and Path("files/questions.jsonl").is_file()
