"""`workbench axis drift` on a tiny model in a folder: conversations that are played, that were had, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.shelf import write_sae
from tests.tiny import tiny_model
from workbench.axis.drift.result import DriftStudy
from workbench.cli.axis import drift_job
from workbench.models.hookpoints import HookPoint
from workbench.models.loading import load_model
from workbench.personas.vectors import PersonaVector
from workbench.steering.monitor.monitor import Monitor

HOOK = HookPoint(1)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `model`, `axis` (a vector of it in a run folder), `scripts.json` and `chats/`."""
    place = tmp_path_factory.mktemp("drifting")
    made = tiny_model(seed=5)
    made.hf.save_pretrained(place / "model")
    made.tokenizer.save_pretrained(place / "model")
    model = load_model(str(place / "model"))
    direction = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    axis = PersonaVector.from_direction(direction, trait="assistant-axis", model=model.description(), hook=HOOK)
    axis.save(place / "axis" / "vector")
    scripts = [{"id": f"{domain}-{n}", "domain": domain, "turns": [f"{domain} {n} {k}" for k in range(3)]}
               for domain in ("coding", "therapy") for n in range(3)]  # fmt: skip
    (place / "scripts.json").write_text(json.dumps(scripts))
    (place / "chats").mkdir()
    for n in range(2):
        said = [{"role": role, "content": f"{role} says {k}"} for k in range(2) for role in ("user", "assistant")]
        chat = {"model": "m", "domain": "therapy", "topic": "t", "turns": 2, "conversation": said}
        (place / "chats" / f"chat-{n}.json").write_text(json.dumps(chat))
    return place


def given(world: Path) -> tuple[Any, ...]:
    return ("--model", world / "model", "--max-new-tokens", "3", "-q")


def test_conversations_are_played_measured_explained_and_kept(workbench: Any, world: Path, tmp_path: Path) -> None:
    sae = write_sae(tmp_path / "sae", model="model", d_model=32)
    options = (world / "axis", "--scripts", world / "scripts.json", "--conversations", "2", "--turns", "3", "--explain",
               "--out", tmp_path / "out", "--sae", sae, *given(world))  # fmt: skip
    planned = workbench("axis", "drift", *options, "--plan", "--json")
    assert planned.code == 0, planned.err
    assert "12 replies in 4 conversations" in planned.json["steps"][1]["step"] and not (tmp_path / "out").exists()
    answer = workbench("axis", "drift", *options, "--json")
    assert answer.code == 0, answer.err
    value = answer.json
    assert value["n_conversations"] == 4 and value["n_replies"] == 12 and value["reference"] == "coding"
    assert set(value["drift_speed"]) == {"coding", "therapy"} and value["groups"]["therapy"]["n"] == 2
    assert "coding has too few" in value["compared"]["therapy"]["drift_per_turn"]["why"]
    assert [(one["group"], one["what"]) for one in value["moved"]] == [
        ("coding", "history"), ("coding", "late"), ("therapy", "history"), ("therapy", "late")]  # fmt: skip
    for one in value["moved"]:
        assert sum(f["part"] for f in one["features"]) + one["rest"] + one["error"] == pytest.approx(one["total"], abs=1e-5)
    assert len(value["of_conversation"]) == 4 and all(one["n"] == 1 for one in value["of_conversation"].values())
    study = DriftStudy.load(tmp_path / "out" / "study")
    assert study.to_json()["drift_speed"] == value["drift_speed"]
    assert "therapy 1 2" in Path(value["page"]).read_text() and "therapy 2 0" not in Path(value["page"]).read_text()
    printed = workbench("axis", "drift", *options)
    assert "What moved in therapy, with history against alone" in printed.out and value["headline"] in printed.out


def test_transcripts_are_read_and_an_alarm_needs_conversations_to_play(workbench: Any, world: Path, tmp_path: Path) -> None:
    options = ("axis", "drift", world / "axis", "--transcripts", world / "chats", *given(world), "--json")
    answer = workbench(*options, "--out", tmp_path)
    assert answer.code == 0, answer.err
    assert answer.json["n_conversations"] == 2 and list(answer.json["groups"]) == ["therapy"] and answer.json["reference"] is None
    study = DriftStudy.load(tmp_path / "study")
    assert [one.id for one in study.conversations] == ["chat-0", "chat-1"]
    assert study.conversations[0].turns[1].user == "user says 1"
    assert len(workbench(*options, "--plan").json["steps"]) == 2
    for folder in ("a", "b"):  # chats of one name, and two in one file
        (tmp_path / "deep" / folder).mkdir(parents=True)
        (tmp_path / "deep" / folder / "0.json").write_text((world / "chats" / "chat-0.json").read_text())
    (tmp_path / "deep" / "b" / "1.json").write_text(json.dumps([study.conversations[0].messages()] * 2))
    names = [one.id for one in drift_job._read(tmp_path / "deep", load_model(str(world / "model")), 512)]
    assert names == ["0", "0 (2)", "1", "1 (2)"]


def test_personas_are_compared_over_the_same_scripts_and_an_alarm_is_saved(workbench: Any, world: Path, tmp_path: Path) -> None:
    for name in ("plain", "pirate"):
        (tmp_path / f"{name}.txt").write_text(f"You are a {name} one.")
    answer = workbench(
        "axis", "drift", world / "axis", "--scripts", "coding", "--conversations", "3", "--turns", "3", "--alarm", "--system",
        tmp_path / "plain.txt", "--system", tmp_path / "pirate.txt", "--out", tmp_path / "out", *given(world), "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert list(answer.json["groups"]) == ["coding, plain", "coding, pirate"] and answer.json["reference"] is None
    row = answer.json["compared"]["coding, pirate"]["drift"]
    assert row["against"] == "coding, plain" and row["difference"]["paired"] and "coding, plain" not in answer.json["compared"]
    monitor = Monitor.load(answer.json["alarm"]["monitor"])
    assert monitor.names == ["away from assistant-axis"]
    assert monitor.alarms[0].threshold == answer.json["alarm"]["alarm"]["threshold"]


@pytest.mark.parametrize(("options", "told"), [
    (("--transcripts", "x.json", "--alarm"), "--transcripts with --alarm"),
    (("--levels", "--system", "x"), "--levels with --system"),
    (("--alarm", "--turns", "2"), "--alarm with 2 turns"),
    (("--endpoint-model", "m"), "without --endpoint"),
    (("--scripts", "cooking"), "cooking"),
    (("--transcripts", "missing.json"), "missing.json"),
    (("--endpoint", "smoke-signals", "--endpoint-model", "m", "--scripts", "coding", "--conversations", "1"), "smoke-signals"),
])  # fmt: skip
def test_what_cannot_be_done_is_refused(workbench: Any, world: Path, tmp_path: Path, options: tuple, told: str) -> None:
    answer = workbench("axis", "drift", world / "axis", "--out", tmp_path / "out", *options, *given(world))
    assert answer.code == 2 and told in answer.err and "Traceback" not in answer.err
    assert not (tmp_path / "out" / "study").exists()


@pytest.mark.parametrize("text", ["", "{}", "[3]", '[{"id": "a"}]', '[{"id": "a", "turns": ["x"]}, {"id": "a", "turns": ["y"]}]'])
def test_scripts_of_another_shape_are_refused(workbench: Any, world: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "own.json").write_text(text)
    answer = workbench("axis", "drift", world / "axis", "--scripts", tmp_path / "own.json", "--plan", *given(world))
    assert answer.code == 2 and "own.json" in answer.err
