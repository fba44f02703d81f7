from __future__ import annotations

import json

import pytest


def test_the_list_of_traits_has_evil(workbench):
    assert "evil" in [trait["name"] for trait in workbench("traits", "list", "--json").json["traits"]]


def test_a_trait_is_shown_with_its_counts(workbench):
    value = workbench("traits", "show", "evil", "--json").json
    assert value["questions"] == {"extraction": 20, "verification": 10, "sealed": 10}
    assert value["instructions"] == 5 and value["contrast_pairs"] >= 40
    assert "nothing to complain about" in workbench("traits", "show", "evil").out


def test_the_list_of_models_says_size_licence_and_whether_cached(workbench):
    rows = workbench("models", "list", "--json").json["assets"]
    default = next(row for row in rows if row["model"] == "smollm2-135m-instruct")
    assert default["licence"] == "Apache-2.0" and default["size"] > 50e6 and isinstance(default["cached"], bool)
    assert {row["kind"] for row in rows} == {"model"}
    assert {row["kind"] for row in workbench("models", "list", "--all", "--json").json["assets"]} > {"model", "text"}


def test_saes_are_listed_by_model_and_shown_with_their_card(workbench, shelf):
    rows = workbench("sae", "list", "--model", "smollm2-135m-instruct", "--json").json["saes"]
    ours = next(row for row in rows if row["id"] == "smollm2-135m-instruct/blocks.1.hook_resid_post")
    assert ours["d_sae"] == 16 and ours["hook"] == "blocks.1.hook_resid_post"
    assert workbench("sae", "list", "--model", "another", "--json").json == {"saes": []}
    assert "variance_explained" in workbench("sae", "show", ours["id"]).out


@pytest.mark.parametrize(
    "changes",
    [{"metadata": ["x"]}, {"metadata": {"hook_name": 15}}, {"metadata": {"hook_name": "blocks.1.hook_in", "model_name": 5}}],
)
def test_a_damaged_sae_hides_no_other_and_is_refused_by_its_name(workbench, tmp_path, monkeypatch, caplog, changes):
    from tests.cli.shelf import write_sae

    monkeypatch.setenv("WORKBENCH_SHELF", str(tmp_path))
    damaged = write_sae(tmp_path / "saes" / "tiny" / "damaged", model="me/tiny") / "cfg.json"
    write_sae(tmp_path / "saes" / "tiny" / "whole", model="me/tiny")
    damaged.write_text(json.dumps(json.loads(damaged.read_text()) | changes))
    answers = [workbench("sae", *command, "--json") for command in (("list",), ("search", "tiny/"), ("show", "tiny/whole"))]
    assert [answer.code for answer in answers] == [0, 0, 0]
    assert [row["id"] for row in answers[0].json["saes"] if row["id"].startswith("tiny/")] == ["tiny/whole"]
    assert str(damaged) in caplog.text
    refused = workbench("sae", "show", "tiny/damaged")
    assert refused.code == 2 and f"{damaged} does not describe an SAE" in refused.err.replace("\n", " ")


def test_the_registry_is_searched_listed_and_shown_offline(workbench, shelf):
    found = workbench("sae", "search", "andyrdt", "--model", "qwen2.5", "--site", "15", "--json").json
    assert found["total"] == 1 and found["hits"][0]["source"] == "registry"
    hit = found["hits"][0]
    assert hit["repo"] == "andyrdt/saes-qwen2.5-7b-instruct" and len(hit["files"]) == 2
    assert set(hit["download"]) == {file["file"] for file in hit["files"] if not file["cached"]}
    assert "andyrdt" in workbench("sae", "search", "andyrdt").out
    shown = workbench("sae", "show", hit["id"], "--json").json
    assert shown["id"] == hit["id"] and shown["hook"] == "blocks.15.hook_resid_post" and shown["files"] == hit["files"]
    assert "not on the shelf" in workbench("sae", "show", hit["id"]).out
    releases = workbench("sae", "list", "--registry", "--model", "qwen2.5", "--json").json["releases"]
    assert [row["release"] for row in releases] == ["qwen2.5-7b-instruct-andyrdt"] and releases[0]["n_saes"] == 7
    assert workbench("sae", "search", "--limit", "3", "--json").json["total"] > 10_000


def test_without_saelens_the_search_keeps_to_the_shelf_and_says_so(workbench, shelf, monkeypatch):
    import importlib.util

    from workbench.saes.published import published

    published.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    answer = workbench("sae", "search", "resid_post", "--json")
    published.cache_clear()
    assert [hit["source"] for hit in answer.json["hits"]] == ["shelf"] and answer.code == 0
    assert "SAELens is not installed" in answer.err


def test_an_import_prints_the_same_keys_as_json_and_can_be_found_afterwards(workbench, tmp_path, monkeypatch):
    from tests.cli.shelf import write_sae

    monkeypatch.setenv("WORKBENCH_SHELF", str(tmp_path / "mine"))
    theirs = write_sae(tmp_path / "theirs", model="me/tiny")
    value = workbench("sae", "import", theirs, "--name", "tiny/one", "--json").json
    assert set(value) == {"id", "folder", "model", "hook", "d_sae", "notes", "card"}
    assert value["card"]["imported"]["format"] == "saelens"
    assert "tiny/one" in workbench("sae", "search", "tiny").out
    again = workbench("sae", "import", theirs, "--name", "tiny/one")
    assert again.code == 2 and "--replace" in again.err
