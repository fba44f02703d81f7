"""A pass carried out: who is saved when others fail, and that a card speaks of the SAE that is stored."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from workbench.base.errors import WorkbenchError
from workbench.base.store import read_json, write_json
from workbench.saes import making
from workbench.saes.activations import ActivationStore, HeldActivations
from workbench.saes.capturing import store_given
from workbench.saes.config import TrainingConfig
from workbench.saes.making import Outcome, Pass, carry_out, make_saes
from workbench.saes.recipe import Recipe
from workbench.saes.registry import load_sae
from workbench.saes.training_card import in_proportion

HOOK = "blocks.0.hook_resid_post"
TRAINING = TrainingConfig(
    d_sae=32, k=4, batch_size=256, n_steps=60, checkpoint_every=20, log_every=10, learning_rate=2e-3, precision="float32"
)
BAD = {"learning_rate": 1e30, "warm_up": 0.0}


def _store(folder: Path, seed: int) -> ActivationStore:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randn(32, 16, generator=torch.Generator().manual_seed(0))
    shards = (((torch.rand(2048, 32, generator=generator) < 0.1).float() @ truth).bfloat16() for _ in range(2))
    return store_given(folder, shards, hook=HOOK, model_name="planted")


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[ActivationStore, ActivationStore]:
    folder = tmp_path_factory.mktemp("stores")
    return _store(folder / "train", 1), _store(folder / "held_out", 2)


def _pass(stores: tuple[ActivationStore, ActivationStore], out: Path, *saes: dict) -> Pass:
    recipe = Recipe(hook=HOOK, training=TRAINING, saes=saes)
    return Pass(recipe, recipe.plans, stores[0], {"corpus": stores[1]}, out, "cpu", "a command")


def test_those_that_finished_are_saved_when_others_of_their_pass_fail(
    stores: tuple[ActivationStore, ActivationStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = making._save

    def refused(task: Pass, plan: making.SaePlan, *arguments: object) -> None:
        if plan.name == "lost":
            raise WorkbenchError("lost reconstructs held-out activations worse than their mean does")
        original(task, plan, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(making, "_save", refused)
    saes = [{"name": "bad", **BAD}, {"name": "lost", "seed": 1}, {"name": "good"}, {"name": "worse", "seed": 2, **BAD}]
    done = carry_out(_pass(stores, tmp_path, *saes))
    assert set(done.saved) == {"good"} and set(done.failed) == {"bad", "lost", "worse"}
    assert load_sae(tmp_path / "good").card["variance_explained"] > 0.3
    written = (tmp_path / "good" / "card.json").read_bytes()
    again = carry_out(_pass(stores, tmp_path, *saes))
    assert set(again.saved) == {"good"} and (tmp_path / "good" / "card.json").read_bytes() == written


def test_a_worse_reconstruction_than_the_mean_is_not_saved(
    stores: tuple[ActivationStore, ActivationStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.saes.training_card.reconstruction", lambda *_: {"variance_explained": -1.0})
    done = carry_out(_pass(stores, tmp_path, {"name": "a"}, {"name": "b", "seed": 1}))
    assert set(done.failed) == {"a", "b"} and not (tmp_path / "a").exists()
    assert "worse than their mean" in str(done.failed["b"])


def test_every_pass_is_carried_out_before_the_failures_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "_tasks", lambda *_: [])
    outcomes = [Outcome({}, {"a": WorkbenchError("a diverged")}), Outcome({"b": tmp_path}, {"c": WorkbenchError("c diverged")})]
    seen: list[Outcome] = []

    def run(*_: object) -> object:
        for outcome in outcomes:
            seen.append(outcome)
            yield outcome

    with pytest.raises(WorkbenchError, match=r"a diverged.*c diverged"):
        make_saes(Recipe(), tmp_path, trait_prompts=lambda *_: [], run=run)  # type: ignore[arg-type]
    assert seen == outcomes


def test_the_cards_figures_are_those_of_the_stored_sae(stores: tuple[ActivationStore, ActivationStore], tmp_path: Path) -> None:
    carry_out(_pass(stores, tmp_path, {"name": "x", "stored_dtype": "bfloat16"}))
    sae = load_sae(tmp_path / "x")
    fired = (sae.encode(stores[1].sample(65_536).float()) > 0).sum()
    assert sae.card["l0"] == float(fired) / sae.card["n_tokens"]


def test_held_out_tokens_are_counted_as_they_were_sampled() -> None:
    def held(sources: dict[str, int], *sizes: int) -> HeldActivations:
        shards = [(torch.zeros(size, 4), torch.ones(size, dtype=torch.bool)) for size in sizes]
        return HeldActivations(shards, {"sources": sources, "d_model": 4, "key": "x"})

    data = held({"web": 500, "chats": 100}, 600)
    found = in_proportion(data, {"corpus": held({"web": 1}, 655, 655, 655, 9), "chats": held({"chats": 1}, 655)}, 655)
    assert sum(found.kinds.values()) == len(found.tokens)
    assert found.kinds["corpus"] < 655 * 500 // 600  # the last shard is short


def test_a_card_that_is_none_is_said_when_the_command_runs_again(
    stores: tuple[ActivationStore, ActivationStore], tmp_path: Path
) -> None:
    task = _pass(stores, tmp_path, {"name": "x"})
    carry_out(task)
    write_json(tmp_path / "x" / "card.json", [])
    with pytest.raises(WorkbenchError, match=r"card.json holds \[\].*a mapping.*Delete"):
        carry_out(task)
    assert read_json(tmp_path / "x" / "card.json") == []
