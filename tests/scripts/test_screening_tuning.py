"""What a fine-tune on screened data tells: intervals count seeds too, and kept cells are those of the stated options."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def tuning(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "scripts"))
    yield importlib.import_module("screening_tuning")

    for name in ("screening", "screening_tuning"):
        sys.modules.pop(name, None)


def cell(points: float) -> dict[str, Any]:
    """Ten questions, each a little different."""
    spread = [points + 0.1 * n for n in range(10)]
    losses = {kind: {"question": ["a", "b", "c"], "loss": [1.0, 2.0, 3.0]} for kind in ("bearing", "ordinary")}
    return {"points": spread, "coherence": [90.0] * 10, "losses_of": losses, "n": 4, "n_bearing": 2}


def test_seeds_that_disagree_widen_the_interval(tuning) -> None:
    def contrast(*mixed: float) -> dict[str, Any]:
        cells = {"base": cell(20)} | {f"{name}-{seed}": cell(20) for name in tuning.SETS for seed in tuning.SEEDS}
        cells |= {f"mixed-{seed}": cell(points) for seed, points in zip(tuning.SEEDS, mixed, strict=True)}
        found = tuning.summary(cells)
        return {**found["contrasts"]["mixed - clean"]["points"], "power": found["power"]["points"]}

    agreed, apart = contrast(30.0, 30.1), contrast(22.0, 38.1)
    assert agreed["value"] == pytest.approx(10.05) == apart["value"]
    assert agreed["interval"][0] > 8 and agreed["power"] == "yes"
    assert apart["interval"][0] < 0 < apart["interval"][1] and apart["power"] == "no power"


def test_cells_of_other_options_are_refused(tuning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "WORK", tmp_path)
    card = tmp_path / "adapters" / "mixed-0" / "finetune.json"
    card.parent.mkdir(parents=True)
    card.write_text(json.dumps({"options": asdict(tuning._options("mixed-0"))}))
    tuning._refuse_other_options(("mixed-0", "clean-0"))
    card.write_text(json.dumps({"options": asdict(replace(tuning._options("mixed-0"), steps=7))}))
    with pytest.raises(SystemExit, match="trained with other options"):
        tuning._refuse_other_options(("mixed-0",))
