"""`workbench decompositions compare`: which comparison, what it prints, what it refuses."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.cli.test_bad_input import assert_refused
from tests.decomposition.compared import placebos
from tests.decomposition.planted_world import make_sae, make_world
from workbench.base.tensors import load_artifact, save_artifact
from workbench.cli import stages
from workbench.cli.stages import JobConfig
from workbench.decomposition.decompose import decompose
from workbench.decomposition.result import SCHEMA
from workbench.saes.formats import saelens
from workbench.saes.registry import load_sae

UP = {3: 2.0, 7: 1.0, 11: -1.5}


FOLDERS = {"a": "run/decomposition", "a2": "a2", "b": "b", "later": "later"}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two SAEs on disk; trait a on both, trait b and a second vector of a on the first; a's folder is a run folder."""
    folder = tmp_path_factory.mktemp("decompositions")
    first = make_sae()
    turned = replace(first, encoder=first.encoder.flip(1), decoder_directions=first.decoder_directions.flip(0))
    saelens.write(first, folder / "sae1")
    saelens.write(turned, folder / "sae2")
    sae1, sae2 = load_sae(folder / "sae1"), load_sae(folder / "sae2")
    worlds = {"a": make_world(folder / "wa", up=UP, down={}), "b": make_world(folder / "wb", up={3: 1.0, 5: 2.0}, down={}),
              "later": make_world(folder / "wl", up={**UP, 7: 3.0}, down={})}  # fmt: skip
    for name, place in FOLDERS.items():
        vector = replace(worlds[name.removesuffix("2")].vector, trait="b" if name == "b" else "a")
        decompose(vector, sae2 if name == "a2" else sae1, n_bootstrap=20).save(folder / place)
        if name == "a":
            vector.save(folder / "run" / "vector")
    return folder


@pytest.fixture
def made(kept: Path, tmp_path: Path) -> dict[str, Path]:
    """A copy of them, by name."""
    copy = Path(shutil.copytree(kept, tmp_path / "made"))
    return {name: copy / place for name, place in {**FOLDERS, "run": "run", "sae1": "sae1"}.items()}


def compare(workbench, *folders, **options):
    return workbench("decompositions", "compare", *folders, *(word for pair in options.items() for word in pair))


def test_the_comparison_follows_from_what_is_given(workbench, made) -> None:
    kinds = {("run", "b"): "traits", ("run", "a2"): "dictionaries", ("run", "later"): "change"}
    for names, kind in kinds.items():
        value = compare(workbench, *(made[name] for name in names), "--json").json
        assert value["kind"] == kind and value["folders"] == [str(made[name]) for name in names]
        text = compare(workbench, *(made[name] for name in names)).out
        assert text.strip() and "nan" not in text


def test_the_tables_say_the_same_as_the_json(workbench, made) -> None:
    value = compare(workbench, made["a"], made["b"], "--json").json
    pair = value["pairs"][0]
    text = compare(workbench, made["a"], made["b"]).out
    assert f"{pair['cosine']:+.2f}" in text and f"{pair['contributors'][0]['part']:+.4f}" in text
    assert "note: no placebo contrasts" in text and pair["contributors"][0]["feature"] == 3
    found = compare(workbench, made["a"], made["a2"], "--json").json
    assert found["n_matched"] == 20 and f"{found['rank_correlation']:+.2f}" in compare(workbench, made["a"], made["a2"]).out
    change = compare(workbench, made["a"], made["later"], "--json").json
    assert change["features"][0]["feature"] == 7
    assert f"cosine of the two vectors {change['cosine']:+.3f}" in compare(workbench, made["a"], made["later"]).out


def test_placebos_give_the_background_and_a_file_gets_the_comparison(workbench, made, tmp_path) -> None:
    placebos(sae=load_sae(made["sae1"])).save(tmp_path / "codes")
    answer = compare(workbench, made["a"], made["b"], "--placebos", tmp_path / "codes", "--out", tmp_path / "o.json", "--json")
    assert answer.json["pairs"][0]["background"]["n"] == 24 and answer.json["warnings"] == []
    assert (tmp_path / "o.json").is_file() and answer.json["file"].endswith("o.json")


def test_an_older_file_takes_its_direction_from_the_run(workbench, made) -> None:
    document, tensors = load_artifact(made["a"], "decomposition", SCHEMA)
    del tensors["direction"]
    save_artifact(made["a"], "decomposition", 2, document, tensors)
    assert compare(workbench, made["run"], made["b"], "--json").json["kind"] == "traits"
    (made["run"] / "vector" / "persona_vector.json").rename(made["run"] / "aside.json")
    assert_refused(compare(workbench, made["run"], made["b"]), "without its vector", "decompose again")


def test_an_sae_off_the_shelf_is_given_as_a_folder(workbench, made) -> None:
    for name in ("a", "b"):
        document, tensors = load_artifact(made[name], "decomposition", SCHEMA)
        save_artifact(made[name], "decomposition", SCHEMA, {**document, "sae": {**document["sae"], "id": "local/x-0"}}, tensors)
    assert_refused(compare(workbench, made["a"], made["b"]), "the SAE local/x-0 of a is not to be found", "--sae")
    assert compare(workbench, made["a"], made["b"], "--sae", made["sae1"]).code == 0


def test_what_cannot_be_compared_is_refused(workbench, made, tmp_path) -> None:
    assert_refused(compare(workbench, made["a"]), "1 decomposition", "two or more")
    assert_refused(compare(workbench, made["a"], made["a"]), "in one respect only")
    (tmp_path / "empty").mkdir()
    assert_refused(compare(workbench, made["a"], tmp_path / "empty"), "holds no decomposition", "workbench decompose")
    assert_refused(compare(workbench, made["a"], tmp_path / "nowhere"), "holds no decomposition")


def test_placebos_of_another_sae_are_refused(workbench, made, tmp_path) -> None:
    other = placebos()
    assert not torch.isnan(other.vectors).any()
    other.save(tmp_path / "codes")
    assert_refused(compare(workbench, made["a"], made["b"], "--placebos", tmp_path / "codes"), "placebo codes are of")


def test_decompose_prints_the_groups(kept, tmp_path) -> None:
    job = stages.Job(JobConfig(), tmp_path)
    vector = make_world(tmp_path / "world", up=UP, down={}, spread=0.3).vector
    job.__dict__.update(vector=vector, sae=load_sae(kept / "sae1"), model=None, placebos=None)
    summary = job.work["decomposition"]()["summary"]
    assert summary["groups"] == job.parts.audit["groups"] and set(summary["groups"]) >= {"groups", "single", "threshold", "null"}
    json.dumps(summary["groups"], allow_nan=False)
