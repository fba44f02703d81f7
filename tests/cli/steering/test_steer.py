"""`workbench steer` on a tiny model in a folder: replies side by side, parts of a vector, an export, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.shelf import write_sae
from tests.tiny import tiny_model
from workbench.models.hookpoints import HookPoint
from workbench.models.loading import load_model
from workbench.personas.formats import read_vectors
from workbench.personas.vectors import PersonaVector, empty_rows

HOOKS = tuple(HookPoint(block) for block in range(3))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `model`, `sae` and `vector`: a bare vector of that model at every block."""
    place = tmp_path_factory.mktemp("steered")
    made = tiny_model(seed=5)
    made.hf.save_pretrained(place / "model")
    made.tokenizer.save_pretrained(place / "model")
    model = load_model(str(place / "model"))
    directions = torch.randn(3, model.d_model, generator=torch.Generator().manual_seed(0))
    described = {**model.description(), "name": str(place / "model")}
    PersonaVector("evil", described, HOOKS[1], HOOKS, directions, None, None, None, empty_rows()).save(place / "vector")
    write_sae(place / "sae", model=str(place / "model"), hook="blocks.1.hook_resid_post", d_model=32)
    return place


@pytest.fixture
def steer(workbench: Any, world: Path) -> Any:
    return lambda *given: workbench("steer", world / "vector", *given, "--max-new-tokens", "8", "-q")


def test_replies_stand_side_by_side_with_their_figures(steer: Any) -> None:
    answer = steer("Who are you?", "And why?", "--dose", "0.6", "--dose", "0", "--ablate", "--cap", "inf", "--json")
    assert answer.code == 0, answer.err
    found = answer.json
    assert [one["prompt"] for one in found["prompts"]] == ["Who are you?", "And why?"]
    for one in found["prompts"]:
        replies = {reply["arm"]: reply for reply in one["replies"]}
        assert list(replies) == ["unsteered", "dose +0.6", "dose +0", "ablated", "at most inf"]
        assert replies["dose +0"]["text"] == replies["unsteered"]["text"] == replies["at most inf"]["text"]
        assert replies["dose +0.6"]["dose_in_norms"] == pytest.approx(0.6) and replies["ablated"]["dose_in_norms"] == 0
        assert replies["unsteered"]["quality"]["kl"] == 0 < replies["dose +0.6"]["quality"]["kl"]
    assert found["edits"]["ablated"][0]["kind"] == "ablate" and found["edits"]["ablated"][0]["scope"] == "predicting"


def test_the_words_say_which_reply_is_which(steer: Any) -> None:
    answer = steer("Who are you?")
    assert answer.code == 0, answer.err
    for words in ("== Who are you?", "-- unsteered", "-- dose +0.25", "KL, nats per token"):
        assert words in answer.out


def test_a_feature_is_added_removed_and_set(steer: Any, world: Path) -> None:
    chosen = ("--sae", world / "sae", "--feature", "3")
    answer = steer("Who are you?", *chosen, "--dose", "0.5", "--ablate", "--clamp", "2", "--json")
    assert answer.code == 0, answer.err
    edits, (found,) = answer.json["edits"], answer.json["prompts"]
    assert [edit["kind"] for arm in edits.values() for edit in arm] == ["add", "set", "set"]
    assert edits["clamped at 2"][0]["feature"]["index"] == 3 and edits["ablated"][0]["amount"] == 0
    moved = {reply["arm"]: reply["features"] for reply in found["replies"]}
    assert not moved["unsteered"] and moved["dose +0.5"]


def test_an_sae_of_another_model_is_refused(steer: Any, tmp_path: Path) -> None:
    write_sae(tmp_path / "sae", model="another", d_model=32)
    answer = steer("Who are you?", "--sae", tmp_path / "sae", "--feature", "3")
    assert answer.code == 2 and "was trained on another" in answer.err


def test_a_vector_is_cut_down_to_features(steer: Any, world: Path) -> None:
    whole = steer("Who are you?", "--json").json
    part = steer("Who are you?", "--sae", world / "sae", "--features", "1, 4,7", "--json")
    assert part.code == 0, part.err
    assert part.json["edits"]["dose +0.25"][0]["direction"] != whole["edits"]["dose +0.25"][0]["direction"]
    assert part.json["edits"]["dose +0.25"][0]["hook"] == "blocks.1.hook_resid_post"
    refused = steer("Who are you?", "--sae", world / "sae", "--denoise", "4")
    assert refused.code == 2 and "without shares" in refused.err


def test_an_incremental_dose_is_exported_without_a_prompt(steer: Any, world: Path, tmp_path: Path) -> None:
    file = tmp_path / "evil.gguf"
    answer = steer("--incremental", "--dose", "0.4", "--export", file, "--json")
    assert answer.code == 0, answer.err
    assert answer.json["prompts"] == [] and answer.json["exported"]["file"] == str(file)
    assert read_vectors(file, model=str(world / "model")).hooks == HOOKS[1:]


def test_the_plan_loads_nothing_and_writes_nothing(steer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.models.loading.load_model", lambda *_, **__: pytest.fail("loaded"))
    answer = steer("Who are you?", "--dose", "1", "--export", tmp_path / "evil.gguf", "--plan", "--json")
    assert answer.code == 0, answer.err
    assert "2 replies" in answer.json["steps"][1]["step"] and not list(tmp_path.glob("*.gguf"))


@pytest.mark.parametrize(("given", "words"), [
    ((), "no prompt"),
    (("Hi", "--scope", "reply"), "predicting"),
    (("Hi", "--features", "a,b"), "numbers with commas"),
    (("Hi", "--feature", "1", "--denoise", "3"), "at most one"),
    (("Hi", "--feature", "1", "--incremental"), "leave --incremental out"),
    (("--export", "evil.gguf", "--ablate"), "one dose"),
    (("--export", "evil.gguf", "--dose", "1", "--dose", "2"), "one dose"),
    (("--export", "evil.pt"), "ends in .gguf"),
    (("Hi", "--dose", "nan"), "finite"),
    (("Hi", "--hook", "blocks.9.hook_resid_post"), "hook point in this vector"),
    (("Hi", "--temperature", "-1"), "temperature"),
])  # fmt: skip
def test_what_cannot_be_done_is_refused_in_words(steer: Any, given: tuple[str, ...], words: str) -> None:
    answer = steer(*given)
    assert answer.code == 2 and words in answer.err and "Traceback" not in answer.err
    assert not list(Path.cwd().iterdir())
