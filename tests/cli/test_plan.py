from __future__ import annotations

import pytest

from workbench.base.runs import RunFolder
from workbench.cli import stages
from workbench.cli.plan import SAMPLED_TOKENS_PER_SECOND, plan_job
from workbench.cli.sae_jobs import TRAINED_TOKENS_PER_SECOND
from workbench.cli.stages import JobConfig


def test_a_plan_says_what_how_long_and_how_much_and_creates_nothing(workbench, shelf, tmp_path):
    answer = workbench("demo", "--plan", "--out", tmp_path / "run")
    assert answer.code == 0 and not (tmp_path / "run").exists()
    for word in ("vector", "decomposition", "labels", "report", "to run", "memory", "GiB", "estimate", "Nothing was run"):
        assert word in answer.out


def test_a_plan_as_json_names_every_stage_and_its_seconds(workbench, shelf, tmp_path):
    plan = workbench("report", "evil", "--plan", "--json", "--out", tmp_path / "run").json
    assert [stage["stage"] for stage in plan["stages"]] == list(stages.STAGES)
    assert plan["seconds"] == pytest.approx(sum(stage["seconds"] for stage in plan["stages"]), abs=0.2)
    assert 1 < plan["memory_gib"] < 8


def test_the_plan_of_the_default_job_stays_under_a_quarter_of_an_hour(shelf, tmp_path):
    # 500 rollouts of 64 tokens at 100 tokens/s are 320 s; the issue of such a plan is an order of magnitude.
    assert 300 < plan_job(JobConfig(), tmp_path / "run", upto="report")["seconds"] < 900


def test_what_is_done_costs_nothing_and_all_that_follows_a_stage_to_run_runs(shelf, tmp_path):
    job = stages.Job(JobConfig(), tmp_path)
    with RunFolder.open(tmp_path) as run:
        run.mark_done("vector", job.key("vector"), files=[], summary={})
        run.mark_done("labels", job.key("labels"), files=[], summary={})
    plan = plan_job(JobConfig(), tmp_path, upto="report")
    assert [stage["state"] for stage in plan["stages"]] == ["done", "to run", "to run", "to run"]
    assert plan["stages"][0]["seconds"] == 0


def test_a_model_of_unknown_size_gets_no_invented_time(shelf, tmp_path):
    sae = next(shelf.rglob("cfg.json")).parent
    plan = plan_job(JobConfig(model="org/model", sae=str(sae)), tmp_path, upto="report")
    assert plan["seconds"] is None and plan["memory_gib"] is None


def test_a_larger_model_takes_proportionally_longer(shelf, tmp_path):
    sae = next(shelf.rglob("cfg.json")).parent
    (tmp_path / "m").mkdir()
    with open(tmp_path / "m" / "model.safetensors", "wb") as file:
        file.truncate(2 * 1_350_000_000)  # ten times the default model at two bytes a weight
    large = plan_job(JobConfig(model=str(tmp_path / "m"), sae=str(sae)), tmp_path / "run", upto="report")
    small = plan_job(JobConfig(), tmp_path / "run", upto="report")
    assert 8 < large["seconds"] / small["seconds"] < 10


def test_the_plan_of_a_training_counts_its_steps(workbench, tmp_path):
    (tmp_path / "t.yaml").write_text("training: {n_steps: 100, batch_size: 871}\ndata: {chats: 10}\n")
    plan = workbench("sae", "train", tmp_path / "t.yaml", "--plan", "--json").json
    steps = {step["step"]: step["seconds"] for step in plan["steps"]}
    assert steps["train"] == pytest.approx(100 * 871 / TRAINED_TOKENS_PER_SECOND, rel=0.01)
    assert steps["sample chats"] == pytest.approx((10 + 20 * 5 * 3) * 64 / SAMPLED_TOKENS_PER_SECOND, abs=0.1)
