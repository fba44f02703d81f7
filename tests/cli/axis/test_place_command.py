"""`workbench axis place` on a tiny model: what it plans, prints and keeps, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.tiny import tiny_model
from workbench.axis.design.result import Placement
from workbench.axis.space.design import RoleDesign
from workbench.axis.space.mapping import map_roles
from workbench.models.loading import load_model
from workbench.models.sampling import Sampling


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `model`, its `axis` run of four characters, and `mine.txt`."""
    place = tmp_path_factory.mktemp("placing")
    made = tiny_model(seed=5)
    made.hf.save_pretrained(place / "model")
    made.tokenizer.save_pretrained(place / "model")
    short = Sampling(max_new_tokens=3, temperature=0.7, top_p=0.9)
    design = RoleDesign(n_roles=4, n_questions=8, n_calibration=2, n_prompts=1, n_default_samples=1, min_count=2, sampling=short)
    map_roles(load_model(str(place / "model")), place / "axis", design=design, judge="none", token_hooks=())
    (place / "mine.txt").write_text("You tend a garden. Go slowly.\n")
    return place


def given(world: Path, *more: Any) -> tuple[Any, ...]:
    return ("axis", "place", world / "axis", "--system-prompt", world / "mine.txt", "--model", world / "model",
            "--questions", "8", "--conversations", "0", "--max-new-tokens", "3", "-q", *more)  # fmt: skip


def test_a_prompt_is_planned_placed_and_shown(workbench: Any, world: Path) -> None:
    planned = workbench(*given(world, "--plan", "--json"))
    assert planned.code == 0, planned.err
    assert planned.json["n_answers"] == 6 * 8 + 2 * 8 + 11 * 20 + 8 and not (world / "axis" / "place").exists()
    answer = workbench(*given(world, "--expect", "bohemian, artisan", "--json"))
    assert answer.code == 0, answer.err
    value = answer.json
    assert value["name"] == "mine" and value["n_roles"] == 4 and len(value["axis_position"]) == 3 and value["drift_risk"] == {}
    assert value["nearest"][0] == value["standing"]["nearest"][0]["role"]
    assert value["expected"]["missing"] == ["artisan"] and value["features"] == {}
    assert Placement.load(world / "axis" / "place" / "mine").to_json()["headline"] == value["headline"]
    page = Path(value["page"]).read_text()
    assert "You tend a garden." in page and "<script" not in page
    printed = workbench(*given(world))
    assert printed.code == 0, printed.err
    assert "Nearest of 4 characters to mine" in printed.out and "The prompt's own sentences" in printed.out
    assert "mine stands at" in printed.out.replace("\n", " ")


def test_what_cannot_be_placed_is_refused_before_anything_is_loaded(workbench: Any, world: Path, tmp_path: Path) -> None:
    unknown = workbench("axis", "place", world / "axis", "--system-prompt", "gardener-sole")
    assert unknown.code == 2 and "gardener-soul" in unknown.err
    nothing = workbench("axis", "place", world / "axis")
    assert nothing.code == 2 and "--system-prompt" in nothing.err
    nowhere = workbench("axis", "place", tmp_path, "--system-prompt", world / "mine.txt")
    assert nowhere.code == 2 and "workbench axis roles" in nowhere.err
    misspelt = workbench(*given(world, "--expect", "artizan"))
    assert misspelt.code == 2 and "artisan" in misspelt.err
