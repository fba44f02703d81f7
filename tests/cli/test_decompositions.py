"""`workbench decompositions compare`: which comparison, what it prints, what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.cli.test_bad_input import assert_refused
from tests.decomposition.compared import placebos
from tests.decomposition.planted_world import make_sae, make_world
from workbench.base.tensors import load_artifact, save_artifact
from workbench.decomposition.decompose import decompose
from workbench.saes.formats import saelens
from workbench.saes.registry import load_sae

UP = {3: 2.0, 7: 1.0, 11: -1.5}


@pytest.fixture
def made(tmp_path: Path) -> dict[str, Path]:
    """Two SAEs on disk; trait a on both, trait b and a second vector of a on the first; a's folder is a run folder."""
    first = make_sae()
    turned = replace(first, encoder=first.encoder.flip(1), decoder_directions=first.decoder_directions.flip(0))
    saelens.write(first, tmp_path / "sae1")
    saelens.write(turned, tmp_path / "sae2")
    sae1, sae2 = load_sae(tmp_path / "sae1"), load_sae(tmp_path / "sae2")
    worlds = {"a": make_world(tmp_path / "wa", up=UP, down={}), "b": make_world(tmp_path / "wb", up={3: 1.0, 5: 2.0}, down={}),
              "later": make_world(tmp_path / "wl", up={**UP, 7: 3.0}, down={})}  # fmt: skip
    folders = {"a": "run/decomposition", "a2": "a2", "b": "b", "later": "later"}
    for name, folder in folders.items():
        world, trait = worlds[name.removesuffix("2")], "b" if name == "b" else "a"
        vector = replace(world.vector, trait=trait)
        decompose(vector, sae2 if name == "a2" else sae1, n_bootstrap=20).save(tmp_path / folder)
        if name == "a":
            vector.save(tmp_path / "run" / "vector")
    return {**{name: tmp_path / folder for name, folder in folders.items()}, "run": tmp_path / "run", "sae1": tmp_path / "sae1"}


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
    document, tensors = load_artifact(made["a"], "decomposition", 3)
    del tensors["direction"]
    save_artifact(made["a"], "decomposition", 2, document, tensors)
    assert compare(workbench, made["run"], made["b"], "--json").json["kind"] == "traits"
    (made["run"] / "vector" / "persona_vector.json").rename(made["run"] / "aside.json")
    assert_refused(compare(workbench, made["run"], made["b"]), "without its vector", "decompose again")


def test_an_sae_off_the_shelf_is_given_as_a_folder(workbench, made) -> None:
    for name in ("a", "b"):
        document, tensors = load_artifact(made[name], "decomposition", 3)
        save_artifact(made[name], "decomposition", 3, {**document, "sae": {**document["sae"], "id": "local/x-0"}}, tensors)
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
