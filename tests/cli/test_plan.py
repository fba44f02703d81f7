from __future__ import annotations

import pytest

from tests.tiny import tiny_model
from workbench.base.runs import RunFolder
from workbench.cli import stages
from workbench.cli.plan import SAMPLED_TOKENS_PER_SECOND, plan_job
from workbench.cli.saes.training import TRAINED_TOKENS_PER_SECOND
from workbench.cli.stages import JobConfig


@pytest.fixture
def nothing_cached(monkeypatch, tmp_path):
    """The default model is not on this machine: its plan is arithmetic."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "empty-cache"))


def test_a_plan_says_what_how_long_and_how_much_and_creates_nothing(workbench, shelf, tmp_path, nothing_cached):
    answer = workbench("demo", "--plan", "--out", tmp_path / "run")
    assert answer.code == 0 and not (tmp_path / "run").exists()
    for word in ("vector", "decomposition", "labels", "report", "to run", "memory", "GiB", "estimate", "Nothing was run"):
        assert word in answer.out


def test_a_plan_as_json_names_every_stage_and_its_seconds(workbench, shelf, tmp_path, nothing_cached):
    plan = workbench("report", "evil", "--plan", "--json", "--out", tmp_path / "run").json
    assert [stage["stage"] for stage in plan["stages"]] == list(stages.STAGES)
    assert plan["seconds"] == pytest.approx(sum(stage["seconds"] for stage in plan["stages"]), abs=0.2)
    assert 1 < plan["memory_gib"] < 8


def test_the_plan_of_the_default_job_stays_under_a_quarter_of_an_hour(shelf, tmp_path, nothing_cached):
    # 500 rollouts of 64 tokens at 100 tokens/s are 320 s; the issue of such a plan is an order of magnitude.
    assert 300 < plan_job(JobConfig(), tmp_path / "run", upto="report")["seconds"] < 900


def test_what_is_done_costs_nothing_and_all_that_follows_a_stage_to_run_runs(shelf, tmp_path, nothing_cached):
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


def test_a_larger_model_takes_proportionally_longer(shelf, tmp_path, nothing_cached):
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


@pytest.fixture(scope="module")
def small_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planned") / "tiny"
    model = tiny_model("qwen3")
    model.hf.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").unlink()  # a plan reads no weights
    return folder


def test_a_model_on_this_machine_is_planned_from_its_own_shape_and_prompts(workbench, shelf, small_model, tmp_path):
    flags = ("extract", "evil", "--model", small_model, "--plan", "--json", "--out", tmp_path / "run", "--max-new-tokens", 8)
    plan = workbench(*flags).json
    assert not (tmp_path / "run").exists() and "miniature" in plan["note"]
    rollouts = plan["rollouts"]
    # 20 questions x 5 instructions x 3 arms, and 20 x 5 x 2 held out; read again: two arms of each.
    assert rollouts["n_rows"] == 500 and set(rollouts["steps"]) == {"norms", "sample", "read without the system prompt"}
    assert rollouts["n_tokens"] == sum(step["n_tokens"] for step in rollouts["steps"].values())
    assert rollouts["steps"]["sample"]["n_passes"] == (-(-300 // 32) + -(-200 // 32)) * (1 + 8)
    assert plan["seconds"] > 0 and plan["memory_gib"] > 0
    twice = workbench(*flags, "--samples", 2).json["rollouts"]
    assert twice["n_rows"] == 1000 and twice["n_tokens"] > 1.9 * rollouts["n_tokens"]


def test_a_budget_splits_the_planned_batches_or_is_refused_in_figures(workbench, shelf, small_model, tmp_path):
    flags = ("extract", "evil", "--model", small_model, "--plan", "--json", "--max-new-tokens", 8)
    free = workbench(*flags).json["rollouts"]
    bounded = workbench(*flags, "--max-memory", "4MiB").json
    assert bounded["rollouts"]["n_passes"] > free["n_passes"] and bounded["max_memory"] == 4 * 2**20
    assert all(
        sum(size for name, size in step["memory"].items() if name != "libraries") <= 4 * 2**20
        for step in bounded["rollouts"]["steps"].values()
    )
    for size, said in (("20KiB", "weights of"), ("lots", "memory size")):
        answer = workbench(*flags, "--max-memory", size)
        assert answer.code == 2 and said in answer.err and "Traceback" not in answer.err


def test_a_server_that_samples_leaves_the_reading_to_the_model(workbench, shelf, small_model):
    plan = workbench("extract", "evil", "--model", small_model, "--plan", "--json", "--generate-with", "http://127.0.0.1:9/v1",
                     "--generate-model", "m").json  # fmt: skip
    steps = set(plan["rollouts"]["steps"])
    assert steps == {"norms", "read with the system prompt", "read without the system prompt"}


def test_the_plan_of_a_training_says_how_large_its_activations_are_and_checks_its_blocks(workbench, small_model, tmp_path):
    text = tmp_path / "mine.txt"
    text.write_text("\n\n".join(f"Document {i}" for i in range(9)))
    config = f"model: {small_model}\nhook: blocks.0.hook_resid_post\ndata: {{corpus: {text}, chats: 0, traits: []}}\n"
    (tmp_path / "t.yaml").write_text(config + "saes: [{name: a}, {name: b, weights: shuffled}]\n")
    plan = workbench("sae", "train", tmp_path / "t.yaml", "--plan", "--json").json
    assert plan["activation_bytes"] == pytest.approx(plan["n_tokens"] * 2 * 2 * tiny_model("qwen3").d_model, rel=0.01)
    assert plan["memory_gib"] > 1 and "memory: about" in workbench("sae", "train", tmp_path / "t.yaml", "--plan").out
    wide = config + "saes: [{name: a, d_sae: 4000000}, {name: b, d_sae: 4000000}]\n"
    (tmp_path / "t.yaml").write_text(wide)
    flags = ("sae", "train", tmp_path / "t.yaml", "--plan", "--json")
    together, apart = workbench(*flags).json["memory_gib"], workbench(*flags, "--saes-per-pass", "1").json["memory_gib"]
    assert apart < together  # two wide SAEs in one pass hold twice the weights and moments
    (tmp_path / "t.yaml").write_text(config.replace("blocks.0", "blocks.99"))
    refused = workbench("sae", "train", tmp_path / "t.yaml", "--plan")
    assert refused.code == 2 and "blocks.99" in refused.err
