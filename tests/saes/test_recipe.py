"""Recipes: clear refusals, and one whole run on a tiny model from text to a loadable SAE."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from workbench.base.errors import WorkbenchError
from workbench.base.store import write_json
from workbench.models.loading import Model
from workbench.personas.traits import load_trait
from workbench.saes import mixture, trainer
from workbench.saes.config import TrainingConfig
from workbench.saes.interface import SparseAutoencoder
from workbench.saes.making import make_saes
from workbench.saes.mixture import chat_prompts
from workbench.saes.recipe import DataMix, Recipe
from workbench.saes.registry import load_sae

SHIPPED = Path(__file__).parents[2] / "saes/smollm2-135m-instruct/blocks.15.hook_resid_post/recipe.yaml"


def _write(path: Path, document: object) -> Path:
    path.write_text(yaml.safe_dump(document))
    return path


def test_the_shipped_recipe_is_valid() -> None:
    assert Recipe.load(SHIPPED).hook_point.block == 15


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"modle": "x"}, "one of model"),
        ({"training": {"k": "many"}}, "k is 'many'"),
        ({"activations": "ram"}, "activations"),
        ({"data": "foo"}, "a mapping"),
        ({"training": [1]}, "a mapping"),
        ({"training": []}, r"training is \[\]"),
        ({"data": False}, "data is False"),
        ({"training": {"decay": 2.0}}, "a share"),
        ({"data": {"characters": -5}}, "1 or more"),
        ({"data": {"system_dropout": 3}}, "a probability"),
        ({"training": {"d_sae": -4}}, "positive number"),
        ([1, 2], "not a mapping"),
    ],
)
def test_a_bad_recipe_is_refused_by_name(tmp_path: Path, document: object, message: str) -> None:
    with pytest.raises(WorkbenchError, match=message):
        Recipe.load(_write(tmp_path / "r.yaml", document))


def test_no_chat_prompt_is_a_question_of_a_trait() -> None:
    questions = {q.text for q in load_trait("evil").questions}
    assert not questions & {user for _, user in chat_prompts(5000, 0)}


def test_an_sae_of_a_recipe_differs_by_its_own_keys_and_bad_ones_are_named() -> None:
    loaded = Recipe(
        saes=({"name": "small", "d_sae": 64, "k": 4}, {"name": "other", "hook": "blocks.2.hook_resid_post", "data": "corpus"})
    )
    small, other = loaded.plans
    assert (small.training.d_sae, small.target_l0, small.hook) == (64, 4.0, loaded.hook)
    assert (other.training, other.data) == (replace(loaded.training), "corpus")
    for bad, message in (
        ({"d_sae": 64}, "named None"),
        ({"name": "x", "d_sea": 64}, "d_sae"),
        ({"name": "x", "data": "chats"}, "data of SAE x"),
        ({"name": "x", "weights": "none"}, "weights of SAE x"),
        ({"name": "x", "stored_dtype": "int4"}, "stored_dtype of SAE x"),
        ({"name": "../x"}, "folder name"),
        ({"name": "training/x"}, "folder name"),
        ({"name": "x", "hook": 15}, "ook of SAE x"),
        ({"name": "x", "target_l0": "many"}, "target_l0 of SAE x"),
        ("x", "a mapping with a name"),
    ):
        with pytest.raises(WorkbenchError, match=message):
            Recipe(saes=(bad,))  # type: ignore[arg-type]
    with pytest.raises(WorkbenchError, match="every name once"):
        Recipe(saes=({"name": "x"}, {"name": "x"}))


def test_a_sweep_is_the_grid_of_its_values() -> None:
    swept = Recipe(saes=({"name": "a"}, {"name": "b", "data": "corpus"})).swept({"k": [4, 8], "seed": [0, 1]})
    assert [plan.name for plan in swept.plans[:4]] == ["a-k4-seed0", "a-k4-seed1", "a-k8-seed0", "a-k8-seed1"]
    assert {(plan.training.k, plan.training.seed, plan.target_l0) for plan in swept.plans} == {
        (4, 0, 4.0), (4, 1, 4.0), (8, 0, 8.0), (8, 1, 8.0)
    }  # fmt: skip
    assert [plan.data for plan in swept.plans[4:]] == ["corpus"] * 4


def test_answers_can_be_read_as_text(tiny_model: Model, tmp_path: Path) -> None:
    data = DataMix(max_new_tokens=3, trait_text=1.0)
    wanted = [("rollouts-x", pair) for pair in chat_prompts(4, 0)]
    found = mixture.answers(tiny_model, wanted, data, tmp_path, 0)
    dialogues = [(*pair, answer) for (_, pair), answer in zip(wanted, found, strict=True)]
    rows = mixture.dialogue_rows(tiny_model, dialogues, data, source="rollouts-x", seed=0, as_text=True)
    assert {row.source for row in rows} == {"rollouts-x", "text-of-rollouts-x"}


def test_no_held_out_row_shares_a_document_or_a_user_prompt_with_training(
    tiny_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "corpus.txt"
    text.write_text("\n\n".join(f"Line {i}: some words about the sea, its ships and its weather." for i in range(300)))
    data = DataMix(corpus=str(text), characters=20_000, chats=600, traits=("evil",), max_new_tokens=1, system_dropout=0.5)
    monkeypatch.setattr(mixture, "answers", lambda _, wanted, *__: ["yes"] * len(wanted))
    evil = load_trait("evil")

    def prompts(trait: str, split: str) -> list[tuple[str, str]]:
        return [(f"You are {i}.", question.text) for question in evil.questions_of(split) for i in range(4)]

    made = mixture.mixture(Recipe(data=data), tiny_model, tmp_path, prompts)
    users = {user: mixture._held_out(user) for _, user in chat_prompts(5000, 0)}
    assert 0.01 < sum(users.values()) / len(users) < 0.15
    seen = {tuple(row.ids) for row in made.train}
    for kind in ("corpus", "chats"):
        assert made.held_out[kind] and not seen & {tuple(row.ids) for row in made.held_out[kind]}
    decoded = [tiny_model.tokenizer.decode(row.ids) for row in made.train if not row.of_corpus]
    assert not any(user in text for text in decoded for user, held in users.items() if held and len(user) > 12)


def test_too_little_text_is_said_before_anything_is_read(tiny_model: Model, tmp_path: Path) -> None:
    text = tmp_path / "corpus.txt"
    text.write_text("One short line.")
    data = DataMix(corpus=str(text), chats=0, traits=())
    with pytest.raises(WorkbenchError, match="one document in twenty is held out"):
        mixture.mixture(Recipe(data=data), tiny_model, tmp_path, lambda *_: [])


@pytest.mark.parametrize(("asked", "n"), [(40_000, 1), (15_000, 0)])
def test_far_less_text_than_was_asked_for_is_said(
    tiny_model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture, asked: int, n: int
) -> None:
    text = tmp_path / "corpus.txt"
    text.write_text("\n\n".join(f"Line {i}: some words about the sea, its ships and its weather." for i in range(200)))
    data = DataMix(corpus=str(text), characters=asked, cut=50)
    _ = [mixture.corpus_rows(tiny_model, data, role, characters=asked) for role in ("train", "held_out")]
    told = [record.getMessage() for record in caplog.records if "data.characters" in record.getMessage()]
    assert len(told) == n and all(f"asks for {asked:,}" in text and "data.cut" in text for text in told)


def test_a_whole_run_trains_two_sites_and_controls_and_resumes_without_work(
    tiny_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "corpus.txt"
    documents = (
        f"Document {i}: the rivers of the north are long and cold, and so are its roads." for i in range(400)
    )
    text.write_text("\n\n".join(documents))
    site = {"hook": "blocks.1.hook_resid_post"}
    small = {
        "model": "tiny",
        "hook": "blocks.0.hook_resid_post",
        "capture_dtype": "float32",
        "data": {"corpus": str(text), "characters": 40_000, "per_source": 40_000, "chats": 30, "max_new_tokens": 4, "traits": []},
        "training": {"d_sae": 96, "k": 8, "batch_size": 256, "n_steps": 60, "precision": "float32", "learning_rate": 0.003},
        "saes": [
            {"name": "a", **site},
            {"name": "b/seed1", **site, "seed": 1, "d_sae": 64},
            {"name": "corpus", **site, "data": "corpus"},
            {"name": "soft", **site, "start": "random", "tether": 0.8},
            {"name": "shuffled", **site, "weights": "shuffled"},
            {"name": "first"},
        ],
    }  # fmt: skip
    monkeypatch.setattr("workbench.models.loading.load_model", lambda *_, **__: _copy(tiny_model))
    loaded = Recipe.load(_write(tmp_path / "r.yaml", small))
    folders = make_saes(loaded, tmp_path / "out", trait_prompts=lambda *_: [])
    saes = {name: load_sae(folder) for name, folder in folders.items()}
    assert {name: (sae.d_sae, str(sae.hook)) for name, sae in saes.items()}["b/seed1"] == (64, "blocks.1.hook_resid_post")
    assert str(saes["first"].hook) == "blocks.0.hook_resid_post"
    assert saes["a"].card["variance_explained"] > 0.3
    assert saes["a"].card["training_data"]["shares"]["chats"] > 0
    assert "chats" not in saes["corpus"].card["training_data"]["shares"]
    assert saes["shuffled"].model_name.endswith("-shuffled")
    assert saes["a"].density is not None and len(saes["a"].density) == 96
    assert set(saes["a"].card["held_out_tokens"]) == {"corpus", "chats"}
    assert set(saes["corpus"].card["held_out_tokens"]) == {"corpus"}
    before = {name: (folder / "sae_weights.safetensors").read_bytes() for name, folder in folders.items()}
    evaluated = {**saes["a"].card, "evaluation": {"by": "somebody"}}
    write_json(folders["a"] / "card.json", evaluated)
    monkeypatch.setattr(trainer.Trainer, "train_on", None)  # nothing is left to train
    again = make_saes(loaded, tmp_path / "out", trait_prompts=lambda *_: [])
    assert {name: (folder / "sae_weights.safetensors").read_bytes() for name, folder in again.items()} == before
    assert load_sae(folders["a"]).card["evaluation"] == {"by": "somebody"}
    more = Recipe.load(_write(tmp_path / "more.yaml", {**small, "saes": [*small["saes"], {"name": "moved", **site, "seed": 2}]}))
    monkeypatch.undo()
    monkeypatch.setattr("workbench.models.loading.load_model", lambda *_, **__: _copy(tiny_model))
    assert set(make_saes(more, tmp_path / "out", trait_prompts=lambda *_: [])) == {*folders, "moved"}


def test_an_sae_that_moves_to_another_site_is_not_taken_for_the_old_one(
    tiny_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "corpus.txt"
    text.write_text("\n\n".join(f"Line {i}: some words about the sea, its ships and its weather." for i in range(300)))
    data = DataMix(corpus=str(text), characters=20_000, chats=0, traits=())
    training = TrainingConfig(d_sae=32, k=4, batch_size=128, n_steps=10, precision="float32")
    monkeypatch.setattr("workbench.models.loading.load_model", lambda *_, **__: tiny_model)
    sites = [{"name": "b", "hook": f"blocks.{block}.hook_resid_post"} for block in (0, 1)]
    others = ({"name": "c", "hook": "blocks.1.hook_resid_post"}, {"name": "d", "hook": "blocks.0.hook_resid_post"})

    def made(site: dict, folder: str) -> SparseAutoencoder:
        recipe = Recipe(model="tiny", data=data, training=training, saes=(site, *others))
        return load_sae(make_saes(recipe, tmp_path / folder, trait_prompts=lambda *_: [])["b"])

    assert [str(made(site, folder).hook) for site, folder in zip(sites, "ab", strict=True)] == [site["hook"] for site in sites]
    with pytest.raises(WorkbenchError, match="another config"):
        made(sites[1], "a")


@pytest.mark.stress
def test_passes_as_cluster_tasks_make_the_same_saes(tiny_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    from workbench.cluster import on_ray

    text = tmp_path / "corpus.txt"
    text.write_text("\n\n".join(f"Line {i}: some words about the sea, its ships and its weather." for i in range(300)))
    data = DataMix(corpus=str(text), characters=20_000, per_source=20_000, chats=0, traits=())
    training = TrainingConfig(d_sae=32, k=4, batch_size=128, n_steps=10, precision="float32")
    monkeypatch.setattr("workbench.models.loading.load_model", lambda *_, **__: tiny_model)
    recipe = Recipe(model="tiny", hook="blocks.1.hook_resid_post", data=data, training=training).swept({"seed": [0, 1]})
    options = {"trait_prompts": lambda *_: [], "saes_per_pass": 1}
    here = make_saes(recipe, tmp_path / "here", **options)
    there = make_saes(recipe, tmp_path / "there", run=on_ray, **options)
    for name, folder in here.items():
        found, expected = load_sae(there[name]), load_sae(folder)
        # Another number of threads sums in another order.
        torch.testing.assert_close(found.decoder_directions, expected.decoder_directions, rtol=1e-3, atol=1e-3)


def test_activations_in_memory_give_the_same_sae(tiny_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "corpus.txt"
    text.write_text("\n\n".join(f"Line {i}: some words about the sea, its ships and its weather." for i in range(300)))
    data = DataMix(corpus=str(text), characters=20_000, per_source=20_000, chats=0, traits=())
    training = TrainingConfig(d_sae=32, k=4, batch_size=128, n_steps=10, precision="float32")
    monkeypatch.setattr("workbench.models.loading.load_model", lambda *_, **__: tiny_model)
    weights = []
    for place in ("disk", "memory"):
        made = Recipe(model="tiny", hook="blocks.1.hook_resid_post", activations=place, data=data, training=training)
        folder = make_saes(made, tmp_path / place, trait_prompts=lambda *_: [])["sae"]
        weights.append((folder / "sae_weights.safetensors").read_bytes())
    assert weights[0] == weights[1]


def _copy(model: Model) -> Model:
    """A model whose weights can be shuffled without harm to other tests."""
    return Model(copy.deepcopy(model.hf), model.tokenizer, name=model.name, weights_hash=model.weights_hash)
