"""A training run that is killed ends with the same files as one that nobody interrupted, and reading a store stays small."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import saes_evidence

    yield saes_evidence
    sys.modules.pop("saes_evidence", None)


@pytest.mark.stress
def test_training_runs_killed_at_ten_random_steps_end_identical(script) -> None:
    assert script.killed(10, seed=4)["identical"] == 10


@pytest.mark.stress
def test_memory_stays_flat_while_the_store_grows_tenfold(script) -> None:
    assert script.memory()["ratio"] < 1.1


def test_every_sae_of_the_shelf_has_a_row(script) -> None:
    rows, inputs = script.shelf()
    assert rows and len(rows) == len(inputs)
    assert all(row["variance_explained"] > 0 for row in rows)


def test_a_row_has_the_figures_of_these_weights_only(script) -> None:
    cfg = {"d_sae": 4, "metadata": {"hook_name": "blocks.1.hook_resid_post"}}
    evaluation = {
        "weights_hash": "own", "hook": "blocks.1.hook_resid_post", "headline": {"l0": 4.0},
        "excess": {"over": {}, "over_soft_frozen": {"ce_recovered": 0.1}},
    }  # fmt: skip
    card = {"weights_hash": "own", "n_train_tokens": 10, "l0": 3.0, "dead_share": 0.2, "evaluation": evaluation}
    own, others = script.row("x", cfg, card, "own"), script.row("x", cfg, card, "others")
    assert own["excess_over_soft_frozen"] == {"ce_recovered": 0.1}
    assert (own["l0"], own["dead_share"], own["n_train_tokens"]) == (4, 0.2, 10)
    assert not any(value for key, value in others.items() if key not in ("id", "d_sae"))


@pytest.mark.parametrize(("stated", "agrees"), [(1.0, True), (0.99, True), (0.9, False), (None, False)])
def test_what_the_default_sae_explains_is_compared_with_its_card(
    script, tiny_model, monkeypatch: pytest.MonkeyPatch, stated: float | None, agrees: bool
) -> None:
    from dataclasses import replace

    from tests.saes.planted import lossless_sae
    from workbench.saes.evaluation.pooling import text_chat

    held = {name: {"variance_explained": stated} for name in script.WEB}
    evaluation = {"weights_hash": "lossless", "hook": "blocks.1.hook_resid_post", "held_out": held}
    sae = replace(lossless_sae(tiny_model.d_model, 1), card={"evaluation": evaluation})
    rows = [text_chat([20 + i for i in range(12)]), text_chat([90 - 3 * i for i in range(12)])]
    monkeypatch.setattr("workbench.saes.registry.load_sae", lambda: sae)
    monkeypatch.setattr("workbench.models.loading.load_model", lambda *_, **__: tiny_model)
    monkeypatch.setattr("workbench.saes.evaluation.texts.text_sets", lambda *_, **__: dict.fromkeys(script.WEB, rows))
    assert script.explains_as_stated() is agrees
