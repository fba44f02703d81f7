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
    known = {"kills", "kills_default_model", "fuzz", "canary", "wheel", "endpoint", "faults", "ray", "ray_growth", "gpu",
             "attacks", "versions", "ray_store"}
    assert known == set(script.PARTS)
    assert all((ROOT / "scripts" / file).is_file() for file, _ in script.PARTS.values())


def test_faults_of_the_stages_are_put_together(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def printed(_: str, name: str, *sizes: str, whole: bool) -> dict[str, Any]:
        assert sizes and whole
        if name == "report":
            return {}  # not finished yet
        lost = ["torn, screen: differs"] if name == "screen" else []
        return {"torn": {name: [5 - len(lost), 5]}, "two": {}, "_refused_in_words": {"torn": 2, "two": 0},
                "_seed": 0, "_tmpfs": True, "_not_survived": lost}  # fmt: skip

    monkeypatch.setattr(script, "_each", printed)
    found = script._faults()
    assert found["torn"]["screen"] == [4, 5] and found["torn"]["extract"] == [5, 5] and "report" not in found["torn"]
    assert found["two"] == {} and found["_refused_in_words"] == {"torn": 14, "two": 0}
    assert found["_not_survived"] == ["torn, screen: differs"]


def test_stages_of_the_default_model_are_those_of_the_tiny_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    script, tiny = importlib.import_module("kills_default_model"), importlib.import_module("kills").stages()
    found = script.stages()
    assert list(found) == list(tiny) and [one[0] for one in found.values()] == [one[0] for one in tiny.values()]
    assert all("model" not in one and "--sae" not in one and "blocks.1.hook_resid_post" not in one for one in found.values())
    for name in ("kills_default_model", "kills"):
        sys.modules.pop(name, None)
