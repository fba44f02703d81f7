"""`workbench monitor` on a tiny model in a folder: watch an answer, read a transcript, calibrate, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas
import pyarrow
import pytest
import torch

from tests.cli.shelf import write_sae
from tests.tiny import tiny_model
from workbench.models.hookpoints import HookPoint
from workbench.models.loading import load_model
from workbench.personas.parts import PartStore, parts_hash
from workbench.personas.vectors import ROW_TYPES, PersonaVector, TokenSource, empty_rows
from workbench.steering.monitor.monitor import Monitor

HOOK = HookPoint(1)
N_QUESTIONS, N_REPLIES = 30, 4


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `model` and `run`: a vector of that model whose neutral replies kept their tokens."""
    place = tmp_path_factory.mktemp("monitored")
    made = tiny_model(seed=5)
    made.hf.save_pretrained(place / "model")
    made.tokenizer.save_pretrained(place / "model")
    model = load_model(str(place / "model"))
    random = torch.Generator().manual_seed(0)
    n = N_QUESTIONS * N_REPLIES
    ids, tokens = [f"row-{i}" for i in range(n)], [torch.randn(12, model.d_model, generator=random) for _ in range(n)]
    store = PartStore(place / "run")
    means = torch.stack([one.mean(0) for one in tokens])[:, None]
    store.write(0, pyarrow.table({"id": ids}), means, {HOOK: tokens}, hooks=[HOOK])
    rows = pandas.DataFrame({"id": ids, "arm": "neutral", "split": "extraction", "response_ids": [[1]] * n,
                             "question": [f"question {i // N_REPLIES}" for i in range(n)]})  # fmt: skip
    for name, kind in ROW_TYPES.items():
        if name not in rows:
            rows[name] = pandas.Series([0 if kind in ("int64", "float64", "bool") else ""] * n).astype(kind)
    rows = rows[list(empty_rows().columns)]
    source = TokenSource(place / "run", (HOOK,), parts_hash(store.headers()), (0,))
    direction = torch.randn(1, model.d_model, generator=random)
    vector = PersonaVector("evil", model.description(), HOOK, (HOOK,), direction, None, None, None, rows, {}, source)
    vector.save(place / "run" / "vector")
    return place


def chats(folder: Path) -> Path:
    lines = [
        {"id": "a", "messages": [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "They should suffer."}]},
        [{"role": "user", "content": "ls"},
         {"role": "assistant", "content": "",
          "tool_calls": [{"id": "1", "function": {"name": "shell", "arguments": '{"c": "ls"}'}}]},
         {"role": "tool", "tool_call_id": "1", "content": "a b"}],
    ]  # fmt: skip
    path = folder / "chats.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    return path


def test_an_answer_is_watched_drawn_and_logged(workbench: Any, world: Path, tmp_path: Path) -> None:
    given = ("--prompt", "Who are you?", "--max-new-tokens", "12", "--model", world / "model", "-q")
    files = ("--log", tmp_path / "log.jsonl", "--figure", tmp_path / "f.svg")
    answer = workbench("monitor", world / "run", *given, *files, "--json")
    assert answer.code == 0, answer.err
    value = answer.json
    assert value["signals"] == [{"name": "evil", "kind": "vector", "hook": str(HOOK)}] and value["reply"]["alarms"] == []
    assert [token["position"] for token in value["tokens"]] == list(range(len(value["tokens"])))
    assert "".join(token["text"] for token in value["tokens"][1:]).strip() in value["text"].strip() + " "
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["token"] * len(value["tokens"]) + ["reply"] and "text" not in lines[0]
    assert lines[-1]["values"] == value["reply"]["values"]
    assert (tmp_path / "f.svg").read_text().startswith("<svg")
    printed = workbench("monitor", world / "run", *given)
    assert "Projections, in median token norms" in printed.out and "no thresholds: calibrate them with --calibrate" in printed.out


def test_an_answer_is_explained_by_features_that_add_up(workbench: Any, world: Path, tmp_path: Path) -> None:
    sae = write_sae(tmp_path / "sae", model="model", d_model=32)
    given = ("--prompt", "Who are you?", "--max-new-tokens", "8", "--model", world / "model", "--sae", sae, "-q", "--explain")
    answer = workbench("monitor", world / "run", *given, "--json")
    assert answer.code == 0, answer.err
    (why,) = answer.json["reasons"]
    assert why["signal"] == "evil" and (why["first"], why["last"]) == (1, answer.json["reply"]["n_tokens"])
    assert sum(f["part"] for f in why["features"]) + why["rest"] + why["error"] == pytest.approx(why["total"], abs=1e-5)
    assert "norms beyond neutral replies" in workbench("monitor", world / "run", *given).out


def test_alarms_are_calibrated_saved_and_used(workbench: Any, world: Path, tmp_path: Path) -> None:
    answer = workbench("monitor", world / "run", "--calibrate", "--rate", "0.1", "--window", "4", "--out", tmp_path / "armed",
                       "--model", world / "model", "-q")  # fmt: skip
    assert answer.code == 0, answer.err
    alarm = Monitor.load(tmp_path / "armed").alarms[0]
    assert alarm.rate == 0.1 and alarm.rule.window == 4 and 0 <= alarm.check["rate"] < 0.4
    assert "false alarms per neutral reply" in answer.out and f"saved: {tmp_path / 'armed'}" in answer.out
    read = workbench("monitor", tmp_path / "armed", "--transcript", chats(tmp_path), "--model", world / "model", "--json", "-q")
    assert read.code == 0, read.err
    first, second = read.json["transcripts"]
    assert first["id"] == "a" and [p["role"] for p in first["pieces"]] == ["user", "assistant"]
    assert [(p["kind"], p["tool"], p["written"]) for p in second["pieces"]] == [
        ("text", None, False), ("arguments", "shell", True), ("result", "shell", False)
    ]  # fmt: skip
    assert all(p["alarms"] == [] for p in second["pieces"] if not p["written"]) and second["rendering"] == "written"
    again = workbench("monitor", tmp_path / "armed", "--calibrate", "--rate", "0.2", "--neutral", world / "run",
                      "--model", world / "model", "--json", "-q")  # fmt: skip
    assert again.code == 0 and again.json["folder"] == "runs/monitor-evil" and again.json["alarms"][0]["rate"] == 0.2
    shown = workbench("monitor", tmp_path / "armed", "--transcript", chats(tmp_path), "--model", world / "model", "-q")
    assert "has no template for tools: calls and results stand as text" in shown.out


def test_a_plan_loads_nothing_and_says_what_would_be_done(workbench: Any, world: Path) -> None:
    answer = workbench("monitor", world / "run", "--calibrate", "--plan", "--json")
    assert answer.code == 0 and [step["state"] for step in answer.json["steps"]] == ["to run", "to run"]


@pytest.mark.parametrize(("arguments", "told"), [
    ((), "one of --prompt, --transcript and --calibrate"),
    (("--prompt", "a", "--calibrate"), "one of --prompt, --transcript and --calibrate"),
    (("--transcript", "missing.jsonl"), "missing.jsonl"),
    (("--calibrate", "--rate", "0.0001"), "calibration replies"),
    (("--calibrate", "--rate", "2"), "a rate between 0 and 1"),
    (("--calibrate", "--statistic", "median"), "median"),
    (("--calibrate", "--statistic", "prompt"), "running or mean"),
    (("--prompt", "a", "--feature", "99999"), "feature 99999"),
], ids=["nothing", "two", "no file", "too few", "rate", "statistic", "prompt statistic", "feature"])  # fmt: skip
def test_what_cannot_be_done_is_told_in_words(workbench: Any, world: Path, tmp_path: Path, arguments: Any, told: str) -> None:
    sae = ("--sae", write_sae(tmp_path / "sae", model="model", d_model=32)) if "--feature" in arguments else ()
    answer = workbench("monitor", world / "run", *arguments, *sae, "--model", world / "model", "-q")
    assert answer.code == 2 and told in answer.err and "Traceback" not in answer.err, answer.err
    assert not (tmp_path / "working-folder" / "runs").exists()


@pytest.mark.parametrize(
    "line", ["not json", "{}", '{"messages": []}', '{"messages": ["x"]}', '{"messages": [{"role": "robot"}]}']
)
def test_a_line_that_is_no_transcript_is_named(workbench: Any, world: Path, tmp_path: Path, line: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(line + "\n")
    answer = workbench("monitor", world / "run", "--transcript", path, "--model", world / "model", "-q")
    assert answer.code == 2 and ("line 1" in answer.err or "transcript 0 of" in answer.err) and "Traceback" not in answer.err


def test_a_monitor_of_another_model_is_refused(workbench: Any, world: Path, tmp_path: Path) -> None:
    other = tiny_model(seed=6)
    other.hf.save_pretrained(tmp_path / "other")
    other.tokenizer.save_pretrained(tmp_path / "other")
    answer = workbench("monitor", world / "run", "--prompt", "a", "--model", tmp_path / "other", "-q")
    assert answer.code == 2 and "the vector of evil is of" in answer.err
