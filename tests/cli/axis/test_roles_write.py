"""`workbench axis roles --write`: a chat model writes a new character; what is missing is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.axis.test_writing import PROMPTS, Author, server


def test_a_character_is_written_listed_and_used(workbench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_API_KEY", "sk-very-secret-789")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with server.running(Author().answer) as endpoint:
        answer = workbench("axis", "roles", "--write", "beekeeper", "--describe", "keeps bees", "--folder", tmp_path / "mine",
                           "--endpoint-model", "m", "--base-url", endpoint.url, "--json")  # fmt: skip
    assert answer.code == 0, answer.err
    assert answer.json["roles"][0]["prompts"] == PROMPTS and answer.json["written"].endswith("beekeeper.json")
    listed = workbench("axis", "roles", "--folder", tmp_path / "mine", "--json")
    assert [one["name"] for one in listed.json["roles"]] == ["beekeeper"]


def test_a_name_without_a_description_is_refused(workbench: Any) -> None:
    answer = workbench("axis", "roles", "--write", "beekeeper")
    assert answer.code == 2 and "--describe" in answer.err
