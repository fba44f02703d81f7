"""The pieces of the evidence on drift are kept as long as what they were made from stands."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import axis_drift

    monkeypatch.setattr(axis_drift, "RUN", tmp_path)
    monkeypatch.setattr(axis_drift, "PLACE", tmp_path / "drift")
    yield axis_drift
    sys.modules.pop("axis_drift", None)


def test_a_piece_is_made_once_and_again_for_another_axis(script, monkeypatch, tmp_path):
    made: list[int] = []
    monkeypatch.setitem(script.PIECES, "alarm", lambda: made.append(1) or {"n": len(made)})
    assert script.piece("alarm") == script.piece("alarm") == {"n": 1}
    (tmp_path / "vector").mkdir()
    (tmp_path / "vector" / "persona_vector.safetensors").write_bytes(b"another")
    assert script.piece("alarm") == {"n": 2}
    (tmp_path / "vector" / "persona_vector.json").write_text('{"created": "today"}')
    assert script.piece("alarm") == {"n": 2}, "the same axis, saved again"
    monkeypatch.setattr(script, "N_TURNS", 7)
    assert script.piece("alarm") == {"n": 3}


def test_without_an_axis_it_says_what_to_run(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["axis_drift.py"])
    assert script.main() == 2 and "axis_map.py" in capsys.readouterr().err
