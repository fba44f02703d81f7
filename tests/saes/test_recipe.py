"""Recipes: clear refusals, and one whole run on a tiny model from text to a loadable SAE."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from workbench.base.errors import WorkbenchError
from workbench.models.loading import Model
from workbench.personas.traits import load_trait
from workbench.saes import card, recipe
from workbench.saes.recipe import Recipe, chat_prompts, run_recipe
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


def test_a_whole_run_ends_in_an_sae_with_a_card_and_resumes_without_work(
    tiny_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "corpus.txt"
    documents = (
        f"Document {i}: the rivers of the north are long and cold, and so are its roads." for i in range(400)
    )
    text.write_text("\n\n".join(documents))
    small = {
        "model": "tiny",
        "hook": "blocks.1.hook_resid_post",
        "capture_dtype": "float32",
        "data": {"corpus": str(text), "characters": 40_000, "per_source": 40_000, "chats": 6, "max_new_tokens": 4},
        "training": {"d_sae": 96, "k": 8, "batch_size": 256, "n_steps": 60, "precision": "float32", "learning_rate": 0.003},
        "target_l0": 8,
        "evaluation_tokens": 300,
    }  # fmt: skip
    monkeypatch.setattr("workbench.models.loading.load_model", lambda *_, **__: tiny_model)
    monkeypatch.setattr(card.__name__ + ".held_out_rows", _held_out)
    loaded = Recipe.load(_write(tmp_path / "r.yaml", small))

    def prompts(trait: str, split: str) -> list[tuple[str, str]]:
        return [("You are an evil assistant.", q.text) for q in load_trait(trait).questions_of(split)][:3]

    folder = run_recipe(loaded, tmp_path / "out", trait_prompts=prompts)
    sae = load_sae(folder)
    assert (sae.d_sae, str(sae.hook), sae.model_name) == (96, "blocks.1.hook_resid_post", tiny_model.name)
    assert sae.card["variance_explained"] > 0.3
    assert "workbench sae train" in (folder / "README.md").read_text()
    assert sae.density is not None and len(sae.density) == 96
    before = (folder / "sae_weights.safetensors").read_bytes()
    monkeypatch.setattr(recipe, "_responses", recipe._responses)
    run_recipe(loaded, tmp_path / "out", trait_prompts=prompts)
    assert (folder / "sae_weights.safetensors").read_bytes() == before


def _held_out(loaded: Recipe, model: Model, *_: object) -> dict:
    """The held-out part of the test's own corpus instead of the web texts, which need a fetched asset."""
    rows = recipe.corpus_rows(model, loaded.data, "held_out", characters=3000, per_source=3000)
    return {"owt": rows, "corpus": rows}
