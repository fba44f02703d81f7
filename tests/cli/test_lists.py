from __future__ import annotations


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
