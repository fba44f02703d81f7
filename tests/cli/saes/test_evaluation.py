"""`workbench sae eval` on a tiny model: from a finished run to a card, the gate's exit code, bad names."""

from __future__ import annotations

import json

import pytest

from tests.cli.shelf import write_sae
from tests.short import short_trait
from tests.tiny import tiny_model

HOOK = "blocks.1.hook_resid_post"
SMALL = ("--tokens", "120", "--probe-rows", "24", "--persona-rows", "60", "-q")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("model"), tiny_model()
    made.hf.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def sae(model, tmp_path):
    return write_sae(tmp_path / "an-sae", model=model, hook=HOOK, d_model=32, d_sae=64)


@pytest.fixture
def run(workbench, model, tmp_path):
    """A finished run of evil with two instructions and 14 questions; returns the folder of runs."""
    trait = short_trait("evil", tmp_path / "traits", n_questions=(10, 2, 2), n_instructions=2)
    done = workbench("extract", trait, "--model", model, "--judge", "none", "--max-new-tokens", "4", "--batch-size", "64",
                     "--hook", HOOK, "-q", "--out", tmp_path / "runs" / "evil")  # fmt: skip
    assert done.code == 0, done.err
    return tmp_path / "runs"


@pytest.mark.assets
def test_an_sae_gets_its_card_with_personas_and_a_failing_gate_refuses_only_when_asked(workbench, run, sae, tmp_path):
    frozen = write_sae(tmp_path / "soft-frozen", model=model, hook=HOOK, d_model=32, d_sae=64)
    command = ("sae", "eval", sae, "--personas", "evil", "--runs", run, *SMALL, "--controls", frozen, "--json")
    answer = workbench(*command, "--out", tmp_path / "card", "--write-card")
    assert answer.code == 0, answer.err
    value = answer.json
    assert set(value) >= {
        "sae", "weights_hash", "model", "hook", "settings", "held_out", "control_fitness", "probing", "personas", "expression",
        "splitting", "stability", "excess", "headline", "gate", "seconds", "versions", "written",
    }  # fmt: skip
    assert set(value["held_out"]) == {"corpus", "owt", "wikipedia", "chats", "rollouts-evil"}
    assert len(value["probing"]["per_set"]) == 12
    assert set(value["probing"]["mean"]) == {"raw", str(sae), str(frozen), "random_isotropic", "random_covariance"}
    assert set(value["excess"]["over_soft_frozen"].values()) == {0.0}  # the same weights under another name
    assert value["personas"]["traits"][0]["measured"] is True
    assert set(value["expression"]["per_vector"]) == {"evil"}
    assert value["gate"]["passed"] is False  # a random SAE
    for folder in (tmp_path / "card", sae):
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        assert card["l0"] == 4.0  # what its maker measured stays
        assert card["evaluation"]["headline"] == value["headline"]
        assert "## Evaluation card" in (folder / "README.md").read_text(encoding="utf-8")
    strict = workbench(*command, "--out", tmp_path / "card", "--strict")
    assert strict.code == 1
    assert strict.json["headline"] == value["headline"]  # finished parts are read back
    assert "fails the fitness gate: variance explained is" in strict.err
    assert strict.err.splitlines()[-1].startswith("what to do: choose another SAE")
    shown = workbench("sae", "show", sae)
    assert "evaluation.headline.variance_explained" in shown.out
    assert "held_out" not in shown.out


def test_a_trait_without_a_run_is_refused_before_anything_is_loaded(workbench, sae, tmp_path):
    answer = workbench("sae", "eval", sae, "--personas", "evil", "--runs", tmp_path)
    assert answer.code == 2
    assert "there is no finished run of 'evil'" in answer.err
    assert "--personas none" in answer.err


def test_an_unknown_control_names_the_known_saes(workbench, shelf):
    answer = workbench("sae", "eval", "smollm2-135m-instruct/blocks.1.hook_resid_post", "--controls", "soft-frozen", "--plan")
    assert answer.code == 2
    assert "there is no SAE 'soft-frozen'" in answer.err


def test_the_plan_counts_the_controls_and_runs_nothing(workbench, shelf):
    sae = "smollm2-135m-instruct/blocks.1.hook_resid_post"
    alone, beside = (workbench("sae", "eval", sae, *more, "--plan", "--json").json for more in ((), ("--controls", sae)))
    assert beside["seconds"] > alone["seconds"] > 0


def test_settings_out_of_range_are_told_in_three_parts(workbench, shelf):
    answer = workbench("sae", "eval", "smollm2-135m-instruct/blocks.1.hook_resid_post", "--tokens", "0", "--plan")
    assert answer.code == 2
    assert "tokens is 0" in answer.err


def test_a_pooling_that_does_not_exist_is_told_before_any_work(workbench, shelf):
    answer = workbench("sae", "eval", "smollm2-135m-instruct/blocks.1.hook_resid_post", "--pooling", "max", "--plan")
    assert answer.code == 2
    assert "there is no pooling 'max'" in answer.err.lower()


def test_list_and_show_give_the_newest_figures_of_these_weights_only(workbench, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_SHELF", str(tmp_path))
    folder = write_sae(tmp_path / "saes" / "tiny" / "one", model="me/tiny")
    card = json.loads((folder / "card.json").read_text())

    def told(**changes):
        (folder / "card.json").write_text(json.dumps(card | changes))
        row = next(one for one in workbench("sae", "list", "--json").json["saes"] if one["id"] == "tiny/one")
        return row["figures"], workbench("sae", "show", "tiny/one", "--json").json["figures"]

    own = card["weights_hash"]
    new = {"weights_hash": own, "hook": HOOK, "headline": {"l0": 7.0, "ce_recovered": 0.9}}
    assert [one["l0"] for one in told()] == [4, 4]  # training's
    for one in told(evaluation=new, ce_recovered=0.2, from_evaluation=["ce_recovered"]):
        assert (one["l0"], one["ce_recovered"], one["variance_explained"]) == (7, 0.9, 0.5)
    for one in told(evaluation=new | {"hook": "blocks.0.hook_resid_post"}):
        assert (one["l0"], one["ce_recovered"]) == (4, None)
    assert [one["l0"] for one in told(evaluation=new | {"weights_hash": "others"})] == [4, 4]
    assert [one["l0"] for one in told(weights_hash="others", evaluation=new)] == [4, 7]  # the list takes the card's word
    listed, shown = told(weights_hash="others")
    assert (listed["l0"], shown["l0"]) == (4, None)  # of other weights, which only `show` compares
    assert "l0: 4.0 in the card is not known to be of these weights" in workbench("sae", "show", "tiny/one").out
    assert "Figures as each card states them" in workbench("sae", "list").out


def test_the_saes_go_where_the_model_is(sae, monkeypatch):
    from types import SimpleNamespace

    import torch

    from workbench.cli.saes.evaluation import EvaluationJob

    given = {}

    def stop(own, model, *, controls, other_seeds, **_):
        given.update(sae=own, **controls, **other_seeds)
        raise InterruptedError

    monkeypatch.setattr("workbench.models.loading.load_model", lambda *_, **__: SimpleNamespace(device=torch.device("meta")))
    monkeypatch.setattr("workbench.saes.evaluation.card.evaluation_card", stop)
    twins = [replace_name(sae, name) for name in ("control", "twin")]
    job = EvaluationJob(str(sae), "a-model", controls=(str(twins[0]),), other_seeds=(str(twins[1]),))
    with pytest.raises(InterruptedError):
        job.run(None, write_card=False)
    assert [str(one.device) for one in given.values()] == ["meta"] * 3


def replace_name(folder, name):
    import shutil

    return shutil.copytree(folder, folder.with_name(name))
