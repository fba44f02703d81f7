from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.cli.shelf import write_sae
from tests.decomposition.falsify_world import answers, placebos, world_sae
from workbench.decomposition.falsify import CRITERIA, Falsification
from workbench.decomposition.placebos import FOLDER
from workbench.models.hookpoints import HookPoint
from workbench.personas.formats.layered import LayeredVectors
from workbench.saes.formats import saelens
from workbench.saes.registry import load_sae

HUB, HOOK = "someone/tiny", "blocks.1.hook_resid_post"


@pytest.fixture
def sae(tmp_path):
    return write_sae(tmp_path / "sae", model=HUB)


@pytest.fixture
def foreign(tmp_path):
    """A bare tensor of another tool."""
    torch.save(torch.randn(8, generator=torch.Generator().manual_seed(0)), tmp_path / "evil.pt")
    return tmp_path / "evil.pt"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(run folder, SAE folder with placebo codes, folder of placebo vectors) of the planted persona."""
    folder = tmp_path_factory.mktemp("planted")
    vector = answers(folder / "run")
    vector.save(folder / "run" / "vector")
    saelens.write(world_sae(), folder / "sae")
    codes, vectors = placebos()
    replace(codes, sae={"id": "planted", "weights_hash": load_sae(folder / "sae").weights_hash}).save(folder / "sae" / FOLDER)
    vectors.save(folder / "placebos")
    return folder / "run", folder / "sae", folder / "placebos"


def test_a_foreign_file_gets_a_page_that_is_not_green(workbench, foreign, sae):
    answer = workbench("falsify", foreign, "--sae", sae, "--model", HUB, "--hook", HOOK, "-q")
    assert answer.code == 0, answer.err
    assert "evil: of 14 checks none failed" in answer.out and "to test length, format, token, reproducibility" in answer.out
    page = answer.out.split("page: ")[1].strip()
    assert page.endswith("runs/falsify/evil/falsify.html")
    text = Path(page).read_text(encoding="utf-8")
    assert "Is evil an artefact?" in text and "that is no green" in text
    assert "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text


def test_json_is_what_is_saved_and_the_block_can_be_said_short(workbench, foreign, sae, tmp_path):
    given = ("--sae", sae, "--model", HUB, "--layer", "1", "--trait", "cruel")
    answer = workbench("falsify", foreign, *given, "--out", tmp_path / "out", "--json", "-q")
    assert answer.code == 0, answer.err
    value = answer.json
    stored = json.loads((tmp_path / "out" / "falsification.json").read_text())
    assert {key: stored[key] for key in value if key != "page"} == {key: one for key, one in value.items() if key != "page"}
    assert value["trait"] == "cruel" and value["colour"] == "open" and value["counts"]["pass"] == 1
    assert [row["name"] for row in value["checks"]] == list(CRITERIA)
    assert value["vector"]["from"]["format"] == "tensor"
    assert Falsification.load(tmp_path / "out").headline() == value["headline"]


def test_a_run_folder_is_put_to_the_checks_that_need_answers(workbench, run):
    folder, sae, others = run
    answer = workbench("falsify", folder, "--sae", sae, "--placebos", others, "--json", "-q")
    assert answer.code == 0, answer.err
    verdicts = {row["name"]: row["verdict"] for row in answer.json["checks"]}
    assert all(verdicts[name] == "pass" for name in ("length", "format", "token", "reproducibility", "placebo", "neighbours"))
    assert verdicts["seed"] == verdicts["soft_frozen"] == "not tested"
    assert answer.json["vector"]["n_rows"] == 120


def test_strict_refuses_what_failed_after_it_was_printed(workbench, run, tmp_path):
    folder, sae, others = run
    arguments = ("falsify", folder, "--sae", sae, "--placebos", others, "--hook", "blocks.2.hook_resid_post", "-q")
    relaxed = workbench(*arguments)
    strict = workbench(*arguments, "--strict")
    assert relaxed.code == 0 and strict.code == 1
    assert "own_site" in strict.err and "none failed, as --strict asks" in strict.err and "Traceback" not in strict.err
    assert strict.out == relaxed.out


def test_activations_of_another_run_stand_in_for_a_bare_vector(workbench, run, tmp_path):
    folder, sae, others = run
    vectors = {HookPoint.parse(HOOK): torch.randn(64, generator=torch.Generator().manual_seed(1))}
    LayeredVectors(vectors, trait="bare", model={"name": "planted", "weights_hash": None}).save(tmp_path / "bare")
    arguments = ("falsify", tmp_path / "bare", "--sae", sae, "--placebos", others, "--json", "-q")
    alone, beside = workbench(*arguments), workbench(*arguments, "--reference", folder)
    assert beside.code == 0, beside.err
    tested = [{row["name"] for row in answer.json["checks"] if row["verdict"] in ("pass", "fail")} for answer in (alone, beside)]
    assert tested[1] - tested[0] == {"dictionary", "subspace", "generic"}


def test_several_hook_points_without_a_chosen_one_are_read_where_the_sae_reads(workbench, sae, tmp_path):
    vectors = {HookPoint(block): torch.ones(8) + block for block in range(3)}
    LayeredVectors(vectors, trait="layers", model={"name": HUB, "weights_hash": None}).save(tmp_path / "layers")
    answer = workbench("falsify", tmp_path / "layers", "--sae", sae, "--json")
    assert answer.code == 0, answer.err
    assert answer.json["vector"]["hook"] == HOOK and "the one of the SAE" in answer.err


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (("evli",), ("there is no file, folder or trait 'evli'", "traits like it: evil")),
        (("evil",), ("there is no vector of evil yet", "workbench extract evil")),
        (("FOREIGN", "--model", HUB), ("does not say where its vector lies", "--hook")),
        (("FOREIGN", "--hook", HOOK), ("does not say of which model", "--model")),
        (("FOREIGN", "--model", HUB, "--hook", HOOK, "--layer", "1"), ("both --hook and --layer", "one of the two")),
        (("FOREIGN", "--model", HUB, "--layer", "2"), ("the SAE", "blocks.2.hook_resid_post")),
        (("FOREIGN", "--model", "someone/else", "--layer", "1"), ("was trained on someone/tiny", "someone/else")),
        (("FOREIGN", "--model", HUB, "--layer", "1", "--other-seed", "nowhere"), ("nowhere",)),
        (("FOREIGN", "--model", HUB, "--layer", "1", "--placebos", "nowhere"), ("nowhere",)),
        (("FOREIGN", "--model", HUB, "--layer", "1", "--reference", "nowhere"), ("nowhere",)),
    ],
    ids=str,
)
def test_bad_input_is_told_in_three_parts(workbench, foreign, sae, arguments, fragments):
    given = [foreign if word == "FOREIGN" else word for word in arguments]
    answer = workbench("falsify", *given, "--sae", sae)
    assert answer.code == 2 and answer.out == "" and "Traceback" not in answer.err
    assert "error: " in answer.err and "what to do: " in answer.err
    for fragment in fragments:
        assert fragment in answer.err
