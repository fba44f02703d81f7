"""The evidence of reliability: what a machine cannot do stays as the file has it, and other scripts make a part again."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    script = importlib.import_module("reliability")
    monkeypatch.setattr(script, "PLACE", tmp_path / "kept")
    monkeypatch.setattr(script, "EVIDENCE", tmp_path / "reliability.json")
    yield script
    sys.modules.pop("reliability", None)


def stated(script: Any, name: str, **fields: Any) -> dict[str, Any]:
    sources = script.content_hash(script._sources(script.PARTS[name][0]))
    one = {"sources": sources, "commit": "abc", "found": {"device": "some GPU"}, "seconds": 1, **fields}
    script.EVIDENCE.write_text(json.dumps({"parts": {name: one}}))
    return one


def test_a_part_that_cannot_be_made_here_stays_as_stated(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "_possible", lambda name: name != "gpu")
    one = stated(script, "gpu", whole=False)
    assert script.part("gpu") == one
    stated(script, "gpu", sources="of another benchmark")
    assert script.part("gpu") is None


def test_a_part_is_made_where_it_can_be_and_then_kept(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[str] = []
    monkeypatch.setattr(script, "_possible", lambda name: True)
    monkeypatch.setitem(script.PARTS, "gpu", (script.PARTS["gpu"][0], lambda: runs.append("made") or {"device": "this one"}))
    stated(script, "gpu", whole=False)
    assert script.part("gpu")["found"] == {"device": "this one"} == script.part("gpu")["found"]
    assert runs == ["made"]


def test_with_only_finished_nothing_is_made(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(script.ONLY_FINISHED, "1")
    monkeypatch.setattr(script, "_run", lambda *_: pytest.fail("it was made"))
    assert {name: script.part(name) for name in script.PARTS} == dict.fromkeys(script.PARTS)


def test_every_part_has_its_script(script: Any) -> None:
    assert {"kills", "fuzz", "canary", "wheel", "endpoint", "faults", "ray", "gpu"} == set(script.PARTS)
    assert all((ROOT / "scripts" / file).is_file() for file, _ in script.PARTS.values())
