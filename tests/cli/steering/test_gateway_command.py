"""`workbench gateway` in its own process: it says where it listens, answers, and ends with Ctrl-C; mistakes are told first."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from tests.tiny import tiny_model
from workbench.models.hookpoints import HookPoint
from workbench.models.loading import load_model
from workbench.personas.vectors import PersonaVector
from workbench.steering.monitor.monitor import Monitor


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny `model` and a `monitor` of it."""
    folder = tmp_path_factory.mktemp("gateway")
    made = tiny_model(seed=5)
    made.hf.save_pretrained(folder / "model")
    made.tokenizer.save_pretrained(folder / "model")
    model = load_model(str(folder / "model"))
    vector = PersonaVector.from_direction(torch.ones(32), trait="evil", model=model.description(), hook=HookPoint(1))
    Monitor.of(model, [vector]).save(folder / "monitor")
    return folder


def test_it_says_where_it_listens_answers_and_ends_with_an_interrupt(place: Path) -> None:
    given = ["--model", place / "model", "--port", "0", "--json", "--cap", "evil=0.1"]
    command = [sys.executable, "-m", "workbench", "gateway", place / "monitor", *given]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        ask = {"messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 4}
        key = {"authorization": f"Bearer {told['api_key']}"}
        answer = httpx.post(f"{told['base_url']}/chat/completions", json=ask, headers=key, timeout=60)
        assert answer.status_code == 200 and "evil" in answer.json()["workbench"]["reply"]["values"]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0 and "Traceback" not in errors


@pytest.mark.parametrize(("arguments", "told"), [
    (("--cap", "evil"), "a vector's name and a number"), (("--cap", "kind=1"), "kind"), (("--host", "0.0.0.0"), "other machines"),
], ids=["cap", "name", "host"])  # fmt: skip
def test_mistakes_are_told_before_it_listens(workbench: Any, place: Path, arguments: tuple[str, ...], told: str) -> None:
    answer = workbench("gateway", place / "monitor", "--model", place / "model", "--port", "0", *arguments, "-q")
    assert answer.code == 2 and told in answer.err and "Traceback" not in answer.err


def test_a_plan_starts_nothing(workbench: Any, place: Path) -> None:
    answer = workbench("gateway", place / "monitor", "--plan", "--json")
    assert answer.code == 0 and answer.json["steps"]
