"""The commands that set vectors side by side, whole, on tiny models: --all, compare, layers, transfer, judge."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from tests.short import short_trait
from tests.tiny import tiny_model
from workbench.base.tensors import load_tensors
from workbench.cli.personas import panel as panel_job
from workbench.cli.personas import vector_studies
from workbench.cli.studies import transfer as transfer_job
from workbench.personas import transfer_study

SMALL = ("--judge", "none", "--max-new-tokens", "4", "--batch-size", "64", "--hook", "blocks.1.hook_resid_post", "-q")
TRAITS = ("evil", "humorous")


def save(folder: Path, family: str) -> Path:
    model = tiny_model(family)
    model.hf.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {name: save(folder / name, family) for name, family in (("first", "llama"), ("second", "qwen3"))}


@pytest.fixture
def few(workbench, monkeypatch):
    """Two traits, cut short, and three placebos instead of all, so that the path is walked in seconds."""
    from workbench.personas import placebos, traits

    for name in TRAITS:
        short_trait(name, Path("traits"))
    every = placebos.list_placebos()
    monkeypatch.setattr(traits, "list_traits", lambda: list(TRAITS))
    monkeypatch.setattr(placebos, "list_placebos", lambda: every[:3])


def ask(workbench, *arguments):
    answer = workbench(*arguments, "--json")
    assert answer.code == 0, answer.err
    return json.loads(answer.out)


def test_all_vectors_then_methods_layers_and_transfer(workbench, few, models, monkeypatch):
    first, second = (str(models[name]) for name in ("first", "second"))
    panel = ask(workbench, "extract", "--all", "--model", first, *SMALL)
    assert set(panel["traits"]) == set(TRAITS)
    for row in panel["traits"].values():
        assert row["n_placebos"] > 0 and row["judge"] == "none" and row["judge_validated"] is None
        assert set(row["causal"]) == {"0.5", "1.0"} and row["sensitivity"] and row["kept_counts"]
    assert panel["geometry"]["traits"] == list(TRAITS)
    assert Path(panel["folder"], "personas.json").is_file()
    directions = load_tensors(Path(panel["folder"], "geometry.safetensors"))
    assert directions["minus_shared"].shape == (len(TRAITS), 32) and directions["shared"].norm() == pytest.approx(1, abs=1e-4)
    again = ask(workbench, "extract", "--all", "--model", first, *SMALL)
    assert again == panel  # read back

    compared = ask(workbench, "vectors", "compare", "evil", "--model", first, "--bootstrap", "4", "-q")
    assert len(compared["rows"]) == 10 and Path(compared["folder"], "methods.json").is_file()
    assert compared["judge"] == "none" and compared["judge_validated"] is None
    named = ask(workbench, "vectors", "compare", "evil", "--model", first, "--bootstrap", "2", "--method", "whitened",
                "--method", "mean_difference", "--position", "prompt_last", "--normalise", "-q")  # fmt: skip
    assert [(r["method"], r["normalised"]) for r in named["rows"]] == [
        ("whitened", False), ("whitened", True), ("mean_difference", False), ("mean_difference", True)]  # fmt: skip

    layers = ask(workbench, "vectors", "layers", "evil", "--model", first, "-q")
    assert len(layers["separability"]) == len(layers["causal"]) == 3 and "<svg" in Path(layers["figure"]).read_text()
    assert layers["judge"] == "none" and layers["judge_validated"] is None

    for trait in TRAITS:
        ask(workbench, "extract", trait, "--model", second, *SMALL)
    monkeypatch.setattr(transfer_study, "study", partial(transfer_study.study, min_segments=40))
    monkeypatch.setattr("workbench.cli.studies.transfer.neutral_documents", lambda n: [
        f"The {a} {b} stands in the {c}, and people walk past it every day on their way to the {b} market by the river."
        for a in ("old", "red", "small", "tall", "wet", "long") for b in ("house", "tree", "cart", "bell", "boat")
        for c in ("street", "field", "valley", "harbour")])  # fmt: skip
    carried = ask(workbench, "transfer", "--model", first, "--to", second, "--segments", "60", "-q",
                  "--hook", "blocks.1.hook_resid_post", "--max-new-tokens", "4", "--batch-size", "64")  # fmt: skip
    assert set(carried["carried"]["traits"]) == set(TRAITS)
    assert all(row["n_placebos"] > 0 for row in carried["carried"]["traits"].values())  # sampled for the second model
    assert Path(carried["folder"], "similarity.svg").is_file()
    assert carried["judges"][second] == {trait: {"judge": "none", "judge_validated": None} for trait in TRAITS}


def test_a_study_without_a_vector_says_what_to_run(workbench, models):
    for command in (("vectors", "compare", "evil"), ("vectors", "layers", "evil"), ("transfer", "--to", str(models["second"]))):
        answer = workbench(*command, "--model", str(models["first"]))
        assert answer.code == 2 and "workbench extract" in answer.err and "Traceback" not in answer.err


def test_unknown_methods_positions_and_ways_to_choose_are_refused(workbench, few, models):
    model = ("--model", str(models["first"]))
    assert workbench("extract", "evil", *model, *SMALL).code == 0
    refused = {("--method", "pca"): "paired_pca", ("--position", "last"): "prompt_last", ("--at", "b"): "blocks.15"}
    for flags, known in refused.items():
        answer = workbench("vectors", "compare", "evil", *model, *flags)
        assert answer.code == 2 and known in answer.err
    answer = workbench("extract", "evil", *model, "--choose-layer", "best")
    assert answer.code == 2 and "separability" in answer.err
    answer = workbench("extract", "evil", *model, *SMALL, "--choose-layer", "causal")
    assert answer.code == 2 and "--choose-layer" in answer.err  # beside --hook


def test_the_causal_choice_reports_its_curve(workbench, few, models):
    flags = ("--judge", "none", "--max-new-tokens", "4", "--batch-size", "64", "-q")
    found = ask(workbench, "extract", "humorous", "--model", str(models["first"]), *flags, "--choose-layer", "causal")
    best = max(found["causal_curve"], key=lambda point: point["odd"])
    assert found["hook"] == best["hook"] and found["hook_chosen_by"].startswith("causal")


def test_judges_are_listed_and_measured(workbench):
    listed = {row["name"]: row for row in ask(workbench, "judge", "list")["judges"]}
    assert len(listed["offline-outcome"]["traits"]) == 7 and "anthropic" in listed
    found = ask(workbench, "judge", "validate", "offline-outcome", "--trait", "apathetic", "--trait", "optimistic", "-q")
    for row in found["traits"].values():
        assert row["validated"] is False and row["traps"]["n"] >= 30 and 0.5 < row["traps"]["pair_accuracy"] <= 1
        assert row["held_out_replies"]["auroc"] > 0.7 and row["human_scored"] == {}
    shown = workbench("judge", "validate", "offline-outcome", "--trait", "apathetic", "-q")
    assert "unvalidated" in shown.out
    answer = workbench("judge", "validate", "ofline")
    assert answer.code == 2 and "offline" in answer.err


UNVALIDATED = {"judge": "offline", "judge_validated": False}
EVIDENCE = Path(__file__).resolve().parents[3] / "docs" / "evidence"


def test_studies_say_where_the_judge_behind_the_rows_is_unvalidated(capsys):
    study = json.loads((EVIDENCE / "methods.json").read_text())
    folders = {"folder": "runs/x", "figure": "runs/x/layers.svg"}
    vector_studies.show_compare({**study["methods"]["evil"], **folders, **UNVALIDATED})
    vector_studies.show_layers({**study["layers"]["humorous"], **folders, **UNVALIDATED})
    assert capsys.readouterr().out.count("offline (unvalidated)") == 2
    vector_studies.show_compare({**study["methods"]["evil"], **folders, "judge": "offline", "judge_validated": True})
    assert "(unvalidated)" not in capsys.readouterr().out


def test_a_transfer_shows_its_bounds_with_their_draws_its_judges_and_shares_as_percentages(capsys):
    found = json.loads((EVIDENCE / "transfer.json").read_text())["transfer"]
    judges = {model: dict.fromkeys(found["carried"]["traits"], UNVALIDATED) for model in (found["source"], found["target"])}
    transfer_job.show_transfer({**found, "judges": judges, "folder": "runs/x"})
    shown = capsys.readouterr().out
    assert f"{found['carried']['placebo_retrieval']:.0%} of 24 placebos (chance 4%)" in shown
    assert "unvalidated" in shown and shown.count("bound from") + shown.count("(bound") >= 2
    assert f"±{found['behaviour']['evil']['carried']['placebo_interval'][1]:.2f}" in shown


def test_the_panel_shows_effects_beside_random_directions_and_monitoring_beside_placebos(capsys):
    found = json.loads((EVIDENCE / "personas.json").read_text())
    rows = {trait: {"unfiltered": None, **row} for trait, row in found["traits"].items()}
    panel_job.show_all({"model": found["model"], "hook": found["hook"], "traits": rows, "folder": "runs/x"})
    effects = next(line for line in capsys.readouterr().out.split("pushed on")[1].splitlines() if "evil" in line)
    row = rows["evil"]
    cells = [cell.strip() for cell in effects.strip("│").split("│")]
    assert cells[3:5] == [f"{row['causal']['1.0']['odd']:.2f}", f"±{row['causal']['1.0']['random_interval'][1]:.2f}"]
    (low, high), bound = row["monitor_r_across_interval"], row["monitor_r_across_placebo_q95"]
    assert cells[5:8] == [f"{row['monitor_r_across']:.2f}", f"[{low:+.2f}, {high:+.2f}]", f"{bound:.2f}"]
