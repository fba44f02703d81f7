"""Characters played on a tiny model through the commands, its axis taken apart, and the space of both."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.cli.shelf import write_sae
from tests.tiny import tiny_model
from workbench.personas.vectors import PersonaVector

HOOK = "blocks.1.hook_resid_post"
NAMES = ("ghost", "poet", "reviewer", "supervisor")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with model/, sae/ and axis-tiny/, the run of four characters."""
    from workbench.cli.run import run

    folder = tmp_path_factory.mktemp("axis")
    model = tiny_model("llama")
    model.hf.save_pretrained(folder / "model")
    model.tokenizer.save_pretrained(folder / "model")
    write_sae(folder / "sae", model="model", d_model=model.d_model, d_sae=120)
    assert run(asked(folder)) == 0
    return folder


def asked(folder: Path, *more: str) -> list[str]:
    return ["axis", "roles", *NAMES, "--model", str(folder / "model"), "--out", str(folder / "axis-tiny"), "--hook", HOOK,
            "--judge", "none", "--questions", "8", "--prompts", "1", "--max-new-tokens", "4", "--min-count", "2", "-q",
            *more]  # fmt: skip


def test_a_finished_run_says_again_what_it_has_and_names_the_next_step(workbench, place):
    answer = workbench(*asked(place))
    assert answer.code == 0 and "4 role vectors and the axis at blocks.1.hook_resid_post" in answer.out
    assert f"workbench axis map {place / 'axis-tiny'}" in answer.out
    value = workbench(*asked(place), "--json").json
    assert [row["name"] for row in value["roles"]] == list(NAMES) and all(row["kept"] == 8 for row in value["roles"])
    assert value["n_roles"] == 4 and value["keep"] == 3 and value["cosine_filtered_unfiltered"] == pytest.approx(1)


def test_too_few_answers_are_explained_and_the_run_stays(workbench, place):
    for more in ((), ("--plan",), ("--out", "elsewhere")):
        answer = workbench(*asked(place, "--min-count", "9"), *more)
        assert answer.code == 2 and "0 of 4 roles have 9 or more answers in this design (the most any has is 8)" in answer.err
    assert not Path("elsewhere").exists(), "nothing is sampled for vectors that cannot be"
    assert workbench("axis", "map", place / "axis-tiny", "--bootstrap", "10", "-q").code == 0


def test_the_axis_is_decomposed_by_naming_its_run_folder(workbench, place):
    run = place / "axis-tiny"
    options = ("--model", place / "model", "--sae", place / "sae", "-q")
    value = workbench("decompose", run, *options, "--json").json
    assert value["trait"] == "assistant-axis" and value["share_sum_error"] < 1e-4 and value["n_questions"] == 8
    assert (run / "decomposition").is_dir()
    planned = workbench("decompose", run, *options, "--plan", "--json").json
    assert [stage["state"] for stage in planned["stages"]] == ["done", "done"]
    whole = workbench("report", run, *options, "--plan", "--json").json
    assert [stage["state"] for stage in whole["stages"]] == ["done", "done", "to run", "to run"]
    elsewhere = workbench("decompose", run, *options, "--out", "other")
    assert elsewhere.code == 2 and "--out other" in elsewhere.err


def test_the_published_tensors_are_written_on_demand(workbench, place):
    answer = workbench("axis", "map", place / "axis-tiny", "--bootstrap", "10", "--tensors", "files", "-q")
    assert answer.code == 0 and "axis.pt and 5 role vectors" in answer.out
    assert sorted(file.name for file in Path("files/vectors").iterdir()) == sorted(f"{name}.pt" for name in (*NAMES, "default"))


@pytest.mark.stress
def test_shares_on_ray_give_the_same_vectors_bit_for_bit(workbench, place):
    pytest.importorskip("ray")
    there = [*asked(place, "--engine", "ray", "--shares", "2", "--address", "local"), "--out", str(place / "axis-shares")]
    answer = workbench(*there, "--json")
    assert answer.code == 0, answer.err
    found, expected = (PersonaVector.load(place / run / "vector").directions for run in ("axis-shares", "axis-tiny"))
    assert torch.equal(found, expected)
