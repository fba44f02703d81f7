"""A role written through a real local server: complete, checked, corrected after faults, and all or nothing."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from workbench.axis.roles import load_roles
from workbench.axis.writing import write_new_role
from workbench.base.errors import WorkbenchError

_server = Path(__file__).parents[1] / "personas" / "judges" / "server.py"
_spec = importlib.util.spec_from_file_location("role_writing_test_server", _server)
assert _spec and _spec.loader
server = importlib.util.module_from_spec(_spec)
sys.modules["role_writing_test_server"] = server
_spec.loader.exec_module(server)

QUICK = {"n_attempts": 2, "first_wait_seconds": 0.01, "max_wait_seconds": 0.02, "timeout_seconds": 20.0}
PROMPTS = [
    "You are a beekeeper. You speak slowly, hum between sentences, and treat every matter as if it might sting.",
    "Speak through a veil, with smoke in your hand: gently now, one frame at a time, and no sudden moves.",
    "The hives stand open in the evening sun. You answer while you look for the queen, half aside.",
    "Your manner is calm and watchful. Weather, bloom and weight of the comb decide what you say first.",
    '"They know me by now," you say of yourself, and you tell all news to the bees before anyone else.',
]


FAULTS = {"short": "Too short.", "alike": "You are a beekeeper. You speak of honey only, and of nothing else at all."}


def _items(texts: list[str]) -> dict[str, Any]:
    return server.completion(json.dumps({"items": [{"n": n, "text": text} for n, text in enumerate(texts, start=1)]}))


class Author:
    """Answers with the description and the prompts; the first answer to the prompts is spoilt by `fault`."""

    def __init__(self, fault: str = "") -> None:
        self.fault, self.asked = fault, 0

    def answer(self, prompt: str) -> dict[str, Any]:
        if "Describe in one sentence" in prompt:
            return _items(["Plays a beekeeper: slow, humming, watchful and mild."])
        self.asked += 1
        texts = list(PROMPTS)
        if self.fault and self.asked == 1:
            texts[2] = FAULTS[self.fault]
        return _items(texts)


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("WORKBENCH_API_KEY", "sk-very-secret-789")


def write(author: Author, folder: Path, name: str = "beekeeper", wish: str = "someone who keeps bees") -> Any:
    where: dict[str, Any] = {"out": folder / "roles", "cache_folder": folder / "cache"}
    with server.running(author.answer) as endpoint:
        return write_new_role(name, wish, model="m", base_url=endpoint.url, **where, **QUICK)


def test_a_role_is_written_and_loads_beside_the_shipped_ones(tmp_path):
    found = write(Author(), tmp_path)
    assert found.role.prompts == tuple(PROMPTS) and found.asked_again == 0
    own, ghost = load_roles(["beekeeper", "ghost"], tmp_path / "roles")
    assert own == found.role and own.description in own.rubric and ghost.name == "ghost"


@pytest.mark.parametrize("fault", ["short", "alike"])
def test_a_faulty_prompt_is_asked_for_again(tmp_path, fault):
    found = write(Author(fault), tmp_path)
    assert found.asked_again == 1 and found.role.prompts == tuple(PROMPTS)


def test_nothing_is_written_over_or_without_a_wish_or_a_name(tmp_path):
    write(Author(), tmp_path)
    with pytest.raises(WorkbenchError, match="exists already"):
        write(Author(), tmp_path)
    with pytest.raises(WorkbenchError, match="description is empty"):
        write(Author(), tmp_path, name="other", wish="  ")
    with pytest.raises(WorkbenchError, match="cannot name a folder"):
        write(Author(), tmp_path, name="../up")
    assert [path.name for path in (tmp_path / "roles").iterdir()] == ["beekeeper.json"]
