"""scripts/attacks.py: what it builds catches a careless reader, and a careful one passes; all readers are in the evidence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify and /proc are Linux's")
CARELESS = '''
import json, os, pickle, sys
sys.path[:0] = [{root!r}, {scripts!r}]
import attacks
from tests.hostile.readers import Reader

def make(folder):
    (folder / "place.json").write_text(json.dumps({{"file": "words.txt"}}))
    (folder / "words.txt").write_text("words")
    return [folder / "place.json"]

def follows(folder):
    return (folder / json.loads((folder / "place.json").read_text())["file"]).read_text()

def writes(folder):
    (folder / json.loads((folder / "place.json").read_text())["file"]).write_text("mine")

def unpickles(folder):
    data = (folder / "place.json").read_bytes()
    return pickle.loads(data) if data[:1] in (b"\\x80", b"c") else json.loads(data)

def tells(folder):
    from workbench.base.errors import WorkbenchError
    try:
        text = follows(folder)
    except Exception as error:
        raise WorkbenchError("no", "a file", "correct it") from error
    if text != "words":
        raise WorkbenchError(text, "words", "correct it")

def make_below(folder):
    (folder / "sae").mkdir()
    (folder / "sae" / "cfg.json").write_text(json.dumps({{"weights": "w"}}))
    (folder / "sae" / "w").write_text("words")
    return [folder / "sae" / "cfg.json"]

def enters(folder):
    place = folder / "sae" / json.loads((folder / "sae" / "cfg.json").read_text())["weights"]
    return (place / "cfg.json" if place.is_dir() else place).read_text()

attacks.SECONDS = 3
attacks.readers = lambda: {{one.__name__: Reader(make, one) for one in (follows, writes, unpickles, tells)}}
attacks.readers = lambda known=attacks.readers(): {{**known, "enters": Reader(make_below, enters)}}
print(json.dumps({{name: attacks.attack(name, dict.fromkeys(attacks.KINDS, 0), 40) for name in attacks.readers()}}))
'''


def run(*command: str) -> Any:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=env, timeout=280)
    assert done.stdout, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_careless_readers_are_caught() -> None:
    found = run("-c", CARELESS.format(root=str(ROOT), scripts=str(ROOT / "scripts")))
    assert found["follows"]["reached"] and found["writes"]["reached"] and found["tells"]["reached"]
    assert found["unpickles"]["executed"] and not found["follows"]["executed"]
    for one in found.values():
        assert one["slow"], "the pipe is waited for"
        endings = ("refused", "read", "crashes", "slow", "executed", "reached")
        assert sum(one["attacks"].values()) == sum(one[name] for name in endings)
    told = {name: {one["attack"] for one in found[name]["examples"] if one["reached"]} for name in ("follows", "enters")}
    for way in ("../canary", "x/../../canary"):
        assert all(f"a text is {way}" in ways for ways in told.values()), "from a folder below, too"
    assert any(one.endswith("/canaries") for one in told["enters"]), "a name of a folder"


@pytest.mark.parametrize("name", ["configuration", "safetensors", "vector .npy"])
def test_a_reader_of_the_package_refuses_or_reads(name: str) -> None:
    found = run(str(ROOT / "scripts" / "attacks.py"), "--only", name, "--most", "8")[name]
    assert found["refused"] > 5 and found["peak_mib"] < 2000
    assert [found[bad] for bad in ("crashes", "slow", "executed", "reached")] == [0] * 4, found["examples"]
