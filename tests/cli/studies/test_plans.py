"""Plans without the model's weights: counts where nothing is known of a model, passes of the studies where something is."""

from __future__ import annotations

import pytest

from tests.tiny import tiny_model
from workbench.cli.plan import FORWARD_TOKENS_PER_SECOND, PROMPT_TOKENS
from workbench.cli.stages import JobConfig
from workbench.cli.studies.plans import Pace

SMALL = ("--judge", "none", "--max-new-tokens", "4", "--batch-size", "64", "--hook", "blocks.1.hook_resid_post", "-q")
UNKNOWN = ("extract", "evil", "--model", "org/model-7b", "--dtype", "bfloat16", "--max-memory", "15GiB", "--plan")


def save(folder, family="llama"):
    model = tiny_model(family)
    model.hf.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


def test_a_model_that_is_not_here_is_planned_in_counts_and_told_what_is_missing(workbench, shelf):
    answer = workbench(*UNKNOWN)
    assert answer.code == 0
    for said in ("500 rollouts of 500 prompts, at most 64 new tokens", "1,105", "32,000 tokens are sampled", "config.json",
                 "hf download org/model-7b", "memory: not known"):  # fmt: skip
        assert said in answer.out, said
    assert "default model" not in answer.out
    rollouts = workbench(*UNKNOWN, "--samples", 2, "--max-new-tokens", 10, "--json").json["rollouts"]
    assert (rollouts["n_rows"], rollouts["n_prompts"], rollouts["n_sampled_tokens"]) == (1000, 500, 10_000)
    sampled, read = (rollouts["steps"][name] for name in ("sample", "read without the system prompt"))
    assert sampled["n_passes"] == 2 * (-(-300 // 32) + -(-200 // 32)) * (1 + 10)
    assert sampled["n_tokens"] == 1000 * (PROMPT_TOKENS + 10) and read["n_tokens"] == 800 * (PROMPT_TOKENS + 10)
    assert sampled["seconds"] is None and rollouts["n_tokens"] == sampled["n_tokens"] + read["n_tokens"]


def test_what_the_plan_asks_for_is_enough_to_measure(workbench, shelf, tmp_path, monkeypatch):
    cache = tmp_path / "hub"
    snapshot = save(cache / "models--org--model-7b" / "snapshots" / "abc")
    (snapshot / "model.safetensors").unlink()
    (cache / "models--org--model-7b" / "refs").mkdir()
    (cache / "models--org--model-7b" / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    plan = workbench(*UNKNOWN, "--max-new-tokens", 4, "--json").json
    assert "miniature" in plan["note"] and plan["seconds"] > 0 and plan["memory_gib"] > 0


def test_all_traits_of_a_model_that_is_not_here_count_the_placebos_too(workbench, shelf):
    shown = workbench("extract", "--all", *UNKNOWN[2:])
    assert shown.code == 0 and "None" not in shown.out
    assert workbench("extract", "--all", *UNKNOWN[2:], "--json").json["placebos"]["n_rows"] == 24 * 3 * 2 * 20


def test_studies_are_planned_in_passes_tokens_and_time(workbench, shelf, tmp_path):
    model = save(tmp_path / "tiny")
    assert workbench("extract", "evil", "--model", model, *SMALL).code == 0
    for command, n_steps in ((("vectors", "layers", "evil"), 3), (("vectors", "compare", "evil"), 8)):
        plan = workbench(*command, "--model", model, "--plan", "--json", "-q").json
        assert len(plan["steps"]) == n_steps and all(step["n_tokens"] > 0 and step["n_passes"] > 0 for step in plan["steps"])
        assert plan["seconds"] == pytest.approx(sum(step["seconds"] for step in plan["steps"])) and plan["seconds"] > 0
        assert plan["n_tokens"] == sum(step["n_tokens"] for step in plan["steps"]) and "miniature" in plan["note"]
        assert "not known" not in workbench(*command, "--model", model, "--plan", "-q").out
    plan = workbench("transfer", "--model", model, "--to", model, "--segments", 60, "--plan", "--json", "-q").json
    assert plan["seconds"] > 0 and {"push evil, carried and own, beside 16 others"} <= {step["step"] for step in plan["steps"]}
    (model / "config.json").unlink()  # neither shape nor, without weights, size: counts alone
    (model / "model.safetensors").unlink()
    plan = workbench("vectors", "layers", "evil", "--model", model, "--plan", "--json", "-q").json
    assert plan["seconds"] is None and plan["n_tokens"] > 0 and "config.json" in plan["note"]


def test_a_push_late_in_the_model_costs_less_and_one_without_speed_costs_no_invented_time():
    pairs = [type("Pair", (), {"prompt": "a", "trait": "b", "opposite": "c"})()] * 4
    pace = Pace(1 / FORWARD_TOKENS_PER_SECOND, 0.0, 30, "", None)
    early, late = (pace.pushing("", pairs, 2, block)["seconds"] for block in (0, 28))
    assert early > late > 4 * 2 * PROMPT_TOKENS / FORWARD_TOKENS_PER_SECOND
    assert Pace(None, 0.0, None, "", None).pushing("", pairs, 2, 0)["seconds"] is None


def test_the_default_model_has_a_pace_wherever_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "empty-cache"))
    assert Pace.of(JobConfig()).read == 1 / FORWARD_TOKENS_PER_SECOND
