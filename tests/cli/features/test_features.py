from __future__ import annotations

import random

import pytest

from tests.cli.shelf import write_sae
from tests.labeling.planted import FILLER, THEMES
from tests.tiny import tiny_model


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model and an SAE in folders, a file of texts, and an index of them made on the command line."""
    root = tmp_path_factory.mktemp("features")
    model = tiny_model()
    model.hf.save_pretrained(root / "model")
    model.tokenizer.save_pretrained(root / "model")
    write_sae(root / "sae", model="model", d_model=32)
    rng = random.Random(0)
    texts = [" ".join(rng.choices([*FILLER, *THEMES[0]], k=30)) for _ in range(30)]
    (root / "texts.txt").write_text("\n\n".join(texts))
    return root


def options(world, *more):
    return ["--model", world / "model", "--sae", world / "sae", *more]


@pytest.fixture
def made(workbench, world):
    answer = workbench("features", "index", *options(world, "--texts", world / "texts.txt", "--chats", "0", "--tokens", "600"),
                       "--out", world / "index", "--json", "-q")  # fmt: skip
    assert answer.code == 0, answer.err
    return answer.json


def test_an_index_is_made_and_asked_on_the_command_line(workbench, world, made):
    assert made["n_features"] == 16 and made["sources"] == {"file:texts.txt": made["n_tokens"]} and made["n_tokens"] >= 550
    asked = ["--index", world / "index"]
    stats = workbench("features", "stats", "3", *asked, "--json").json
    assert stats["n_tokens"] == made["n_tokens"] and stats["roles"]["plain"]["n_fired"] == stats["n_fired"]
    shown = workbench("features", "stats", "3", *asked)
    assert shown.code == 0 and "feature 3: fires on" in shown.out and "fires together with (exact)" in shown.out
    found = workbench("features", "search", "you idiot, we said", *options(world), *asked, "--json", "-q")
    assert found.code == 0, found.err
    tokens = found.json["tokens"]
    assert "".join(one["token"] for one in tokens) == "you idiot, we said"
    assert not tokens[0]["counts"] and any(one["features"] for one in tokens)
    assert workbench("features", "search", "you idiot", *options(world), *asked, "-q").code == 0


def test_what_is_missing_is_said_with_exit_code_two(workbench, world, made):
    asked = ["--index", world / "index"]
    for arguments, found in (
        (["features", "stats", "16", *asked], "no feature 16"),
        (["features", "trait", "evil", *asked], "no trait with rollouts"),
        (["features", "stats", "0", "--index", world / "nowhere"], "holds no index"),
        (["features", "index", *options(world), "--rollouts", world, "--out", world / "other"], "holds no vector"),
        (["features", "index", *options(world), "--tokens", "700", "--chats", "0", "--out", world / "index"], "another n_tokens"),
    ):
        answer = workbench(*arguments)
        assert answer.code == 2 and found in answer.err and "what to do:" in answer.err and not answer.out
    assert not (world / "other").exists()


def test_a_plan_reads_nothing(workbench, world):
    plan = workbench("features", "index", *options(world), "--tokens", "1000000", "--out", world / "planned", "--plan", "--json")
    assert plan.code == 0, plan.err
    assert plan.json["disk_bytes"] > 1_000_000 * 4 * 8 and plan.json["seconds"] > 100
    assert not (world / "planned").exists()
    assert workbench("features", "index", *options(world), "--plan").code == 0


def test_an_index_that_another_process_builds_is_left_alone(workbench, world, tmp_path):
    import os

    from workbench.base.runs import RunFolder

    with RunFolder.open(tmp_path / "index"):  # the same lock
        texts = options(world, "--texts", world / "texts.txt")
        answer = workbench("features", "index", *texts, "--out", tmp_path / "index", "-q")
    assert answer.code == 2 and f"is being built by process {os.getpid()} on " in answer.err
    assert not (tmp_path / "index" / "settings.json").exists()
