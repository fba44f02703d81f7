"""The whole card on a tiny real model: keys, controls, parts that are kept, and what is written where."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.saes.planted import lossless_sae, small_sae
from workbench.base.errors import WorkbenchError
from workbench.base.randomness import generator
from workbench.models.hookpoints import HookPoint
from workbench.models.loading import Model
from workbench.models.prompts import ChatTokens
from workbench.saes.evaluation import card as card_module
from workbench.saes.evaluation.card import CardSettings, evaluation_card
from workbench.saes.evaluation.controls import all_excesses, control_kind, excess, paired_interval
from workbench.saes.evaluation.markdown import card_markdown
from workbench.saes.evaluation.personas import PersonaRollouts
from workbench.saes.evaluation.pooling import text_chat
from workbench.saes.evaluation.sample import token_sample
from workbench.saes.evaluation.stability import NULLS
from workbench.saes.evaluation.writing import check_writable, merged, with_section, write_evaluation
from workbench.saes.interface import SparseAutoencoder


def _row(n: int, seed: int) -> ChatTokens:
    return text_chat(torch.randint(7, 300, (n,), generator=generator(seed)).tolist())


def _rollouts(d_model: int) -> PersonaRollouts:
    """Arms that differ in their tokens, so that a model tells them apart."""
    positive, question, chats = [], [], []
    for q in range(8):
        for arm in (True, False):
            ids = [20 + 5 * q, 30, *([101, 111, 121] if arm else [201, 211, 221]) * 2]
            chats.append(ChatTokens(tuple(ids), {"response": ((2, len(ids)),)}))
            positive.append(arm)
            question.append(q)
    codes = torch.tensor(question)
    return PersonaRollouts(
        "planted", tuple(chats), torch.tensor(positive), codes, torch.full((16,), 60.0).double(),
        ((codes < 5, codes >= 5),), torch.randn(d_model, generator=generator(7)), tuple(chats),
    )  # fmt: skip


def _random_sets(model: Model, **_: Any) -> dict[str, list[ChatTokens]]:
    """Random tokens instead of the assets' texts."""
    return {name: [_row(24, 10 * i + j) for j in range(6)] for i, name in enumerate(("corpus", "owt"))}


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.saes.evaluation.texts.text_sets", _random_sets)


def _settings(**changes: Any) -> CardSettings:
    return CardSettings(**({"sample_tokens": 200, "probe_sets": (), "n_atoms": (2, 8, 32)} | changes))


def _other_seed(sae: SparseAutoencoder) -> SparseAutoencoder:
    """Half of its directions are those of the lossless SAE, in another order; the others lie between them."""
    half = sae.d_model // 2
    turn = torch.eye(sae.d_model)
    turn[half:, half:] = torch.linalg.qr(torch.randn(half, half, generator=generator(3)))[0]
    decoder = (sae.decoder_directions @ turn).flip(0).contiguous()
    return replace(sae, id="other-seed", decoder_directions=decoder, encoder=decoder.T.contiguous(), weights_hash="another")


@pytest.fixture(scope="module")
def made(tiny_model: Model) -> dict[str, Any]:
    d_model = tiny_model.d_model
    sae = lossless_sae(d_model, 1)
    control = replace(small_sae(d_model=d_model, d_sae=2 * d_model), id="x/soft-frozen", decoder_bias=torch.zeros(d_model))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workbench.saes.evaluation.texts.text_sets", _random_sets)
        return evaluation_card(
            sae, tiny_model, personas=[_rollouts(d_model)], vectors={"other": torch.ones(d_model)},
            controls={control.id: control}, other_seeds={"other-seed": _other_seed(sae)}, settings=_settings(),
        )  # fmt: skip


def test_the_card_of_a_lossless_sae_says_so_beside_its_controls(made: dict[str, Any]) -> None:
    json.dumps(made)  # JSON types only
    assert set(made["held_out"]) == {"corpus", "owt", "rollouts-planted"}
    headline = made["headline"]
    assert headline["variance_explained"] == pytest.approx(1, abs=1e-6)
    assert headline["ce_recovered"] == pytest.approx(1, abs=1e-3)
    assert headline["persona_probe_auc_raw"] == headline["persona_probe_auc"] == 1
    assert headline["persona_probe_gap"] == 0
    assert 0.5 <= headline["seed_matched"] < 0.6  # of the turned half a few match by chance
    assert 0 < headline["seed_matched_top30"] < 1
    assert made["stability"]["random_covariance"]["seed_matched"] < 0.2
    assert headline["seed_matched_null"] == max(made["stability"][null]["seed_matched"] for null in NULLS) < 0.2
    assert headline["seed_matched_top30_null"] is not None
    assert made["expression"]["mean"]["planted/lossless"][-1] == pytest.approx(1, abs=1e-5)  # d_model atoms
    assert set(made["expression"]["per_vector"]) == {"other", "planted"}
    assert made["probing"] is None
    assert made["controls"]["x/soft-frozen"]["kind"] == "soft_frozen"
    over = made["excess"]["over"]
    assert set(over) == {"x/soft-frozen", "random_isotropic", "random_covariance"}
    assert over["x/soft-frozen"]["claims"]["variance_explained"]["excess"] > 0.1
    assert made["excess"]["over_soft_frozen"]["expression_32"] == pytest.approx(0, abs=1e-5)  # both span everything
    assert made["gate"]["passed"] is True
    assert made["gate"]["unmeasured"] == ["dead_share"]


def test_the_markdown_has_every_section_and_shows_the_gate(made: dict[str, Any]) -> None:
    text = card_markdown(made)
    for title in ("Fitness", "k-sparse probing", "Persona probing", "Expression", "Splitting", "Stability", "Excess"):
        assert f"### {title}" in text
    assert "**Fitness gate: passed.**" in text
    assert "not measured here: dead_share" in text


def test_finished_parts_are_kept_and_another_sae_makes_its_own(
    tiny_model: Model, texts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sae = lossless_sae(tiny_model.d_model, 1)
    settings = _settings()
    first = evaluation_card(sae, tiny_model, settings=settings, parts=tmp_path)
    n_parts = len(list(tmp_path.iterdir()))

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(card_module, "evaluate_all", never)
    again = evaluation_card(sae, tiny_model, settings=settings, parts=tmp_path)
    assert again["held_out"] == first["held_out"]
    assert len(list(tmp_path.iterdir())) == n_parts
    with pytest.raises(AssertionError, match="measured again"):
        evaluation_card(replace(sae, weights_hash="other"), tiny_model, settings=settings, parts=tmp_path)


def _changed(rollouts: PersonaRollouts, field: str) -> PersonaRollouts:
    one = rollouts.chats[0]
    return replace(rollouts, **{
        "positive": {"positive": ~rollouts.positive},
        "question": {"question": rollouts.question.flip(0)},
        "judged": {"judged": rollouts.judged.flip(0) + torch.arange(16)},
        "cells": {"cells": tuple((score, make) for make, score in rollouts.cells)},
        "in_context": {"in_context": rollouts.in_context[1:]},
        "spans": {"chats": (replace(one, spans={"response": ((3, len(one.ids)),)}), *rollouts.chats[1:])},
        "vector": {"vector": 2 * rollouts.vector},
    }[field])  # fmt: skip


@pytest.mark.parametrize("field", ["positive", "question", "judged", "cells", "in_context", "spans", "vector"])
def test_a_part_is_measured_again_when_anything_of_the_rollouts_changed(
    tiny_model: Model, tmp_path: Path, field: str
) -> None:
    sae, rollouts = lossless_sae(tiny_model.d_model, 1), _rollouts(tiny_model.d_model)
    for value, given in (("first", rollouts), ("first", replace(rollouts)), ("again", _changed(rollouts, field))):
        run = card_module._Run(sae, tiny_model, [given], {}, {}, _settings(), tmp_path)
        assert run.part("personas", lambda value=value: value) == value


def test_figures_of_a_strangers_card_are_not_taken_over(tiny_model: Model, texts: None) -> None:
    figures = {"dead_share": 0.0, "evaluation": {"headline": {"dead_share": 0.0, "persona_probe_gap": 0.0}}}
    sae = replace(lossless_sae(tiny_model.d_model, 1), card=figures, density=torch.ones(2 * tiny_model.d_model))
    made = evaluation_card(sae, tiny_model, settings=_settings())
    assert made["headline"]["dead_share"] is None
    assert made["gate"]["unmeasured"] == ["dead_share", "persona_probe_gap"]
    own = replace(sae, card={"dead_share": 0.03, "weights_hash": sae.weights_hash})
    assert evaluation_card(own, tiny_model, settings=_settings())["headline"]["dead_share"] == 0.03


def test_without_personas_and_controls_the_card_says_what_it_lacks(tiny_model: Model, texts: None) -> None:
    made = evaluation_card(lossless_sae(tiny_model.d_model, 1), tiny_model, settings=_settings())
    assert made["personas"]["summary"] == {"persona_probe_auc": None, "persona_probe_gap": None}
    assert (made["expression"], made["stability"], made["excess"]["over_soft_frozen"]) == (None, None, None)
    assert "persona_probe_gap" in made["gate"]["unmeasured"]
    text = card_markdown(made)
    assert "no finished run of a trait was given" in text
    assert "none was given with `--controls`" in text


def test_an_sae_that_is_silent_fails_the_gate(
    tiny_model: Model, texts: None, caplog: pytest.LogCaptureFixture
) -> None:
    sae = lossless_sae(tiny_model.d_model, 1)
    silent = replace(
        sae, encoder=torch.zeros_like(sae.encoder), encoder_bias=torch.full((sae.d_sae,), -1.0),
        card={"dead_share": 1.0, "weights_hash": sae.weights_hash},
    )
    gate = evaluation_card(silent, tiny_model, settings=_settings())["gate"]
    assert gate["passed"] is False
    assert len(gate["failures"]) == 4  # variance, loss, dead features, L0
    assert caplog.text.count("FAILS the fitness gate") == 4


@pytest.mark.parametrize(("recorded", "trained"), [("own", True), ("other", False), (None, None)])
def test_the_card_says_whether_the_sae_was_trained_on_this_model(
    tiny_model: Model, texts: None, caplog: pytest.LogCaptureFixture, recorded: str | None, trained: bool | None
) -> None:
    weights = tiny_model.weights_hash if recorded == "own" else recorded
    sae = replace(lossless_sae(tiny_model.d_model, 1), card={"model": {"weights_hash": weights}})
    made = evaluation_card(sae, tiny_model, settings=_settings())
    assert made["trained_on_this_model"] is trained
    assert caplog.text.count("trained on other weights") == (trained is False)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(WorkbenchError, match="no pooling 'max'"):
        CardSettings(pooling="max")
    with pytest.raises(WorkbenchError, match="probe_rows is 0"):
        CardSettings(probe_rows=0)


def test_an_sae_is_no_control_of_itself(tiny_model: Model) -> None:
    sae = lossless_sae(tiny_model.d_model, 1)
    with pytest.raises(WorkbenchError, match="control of itself"):
        evaluation_card(sae, tiny_model, controls={sae.id: sae}, settings=_settings())


def test_the_same_weights_are_no_other_seed(tiny_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card_module, "evaluate_all", lambda *_, **__: pytest.fail("measured first"))
    sae = lossless_sae(tiny_model.d_model, 1)
    with pytest.raises(WorkbenchError, match="same weights"):
        evaluation_card(sae, tiny_model, other_seeds={"twin": replace(sae, id="twin")}, settings=_settings())
    elsewhere = replace(sae, id="elsewhere", hook=HookPoint(0), weights_hash="another")
    with pytest.raises(WorkbenchError, match=r"lsewhere reads blocks\.0"):
        evaluation_card(sae, tiny_model, other_seeds={"elsewhere": elsewhere}, settings=_settings())


# Excess


def test_excess_is_paired_and_its_interval_excludes_zero_only_for_a_real_one() -> None:
    sets = {
        f"s{i}": {"sae": {"1": 0.7 + 0.01 * i, "16": 0.8}, "control": {"1": 0.6 + 0.008 * i, "16": 0.8 + (-1) ** i * 0.1}}
        for i in range(8)
    }
    found = excess({"sae": "sae", "probing": {"per_set": sets}}, "control")
    assert found["probe_auc_k1"]["excess"] == pytest.approx(0.107)
    assert 0.1 < found["probe_auc_k1"]["interval"][0] < 0.107
    low, high = found["probe_auc_k16"]["interval"]
    assert low < 0 < high
    assert set(found) == {"probe_auc_k1", "probe_auc_k16"}
    assert all_excesses({"sae": "sae", "probing": {"per_set": sets}}, {"control": "soft_frozen"})["over_soft_frozen"][
        "probe_auc_k1"
    ] == pytest.approx(0.107)


@pytest.mark.parametrize("n", [4, 5, 7])
def test_under_a_true_null_the_interval_excludes_zero_in_one_case_of_twenty(n: int) -> None:
    draws = torch.randn(4000, n, generator=generator(n), dtype=torch.float64).tolist()
    intervals = [paired_interval(row) for row in draws]
    excluded = sum(one[0] > 0 or one[1] < 0 for one in intervals if one is not None) / len(intervals)
    assert excluded == pytest.approx(0.05, abs=0.012)


def test_the_interval_is_students_and_there_is_none_without_a_spread() -> None:
    low, high = paired_interval([1.0, 2.0, 3.0, 4.0]) or (0.0, 0.0)
    assert (low, high) == pytest.approx((2.5 - 2.05427, 2.5 + 2.05427), abs=1e-4)  # t(3) = 3.18245, s = 1.29099
    assert paired_interval([0.1, 0.2, 0.4]) is None
    assert paired_interval([0.0] * 5) is None
    assert paired_interval([0.7 - 0.6, 0.8 - 0.7, 0.9 - 0.8, 1.0 - 0.9]) is None  # the same but for rounding


def test_the_training_corpus_is_left_out_of_the_excess_and_items_are_paired_by_name() -> None:
    def sets(**values: float) -> dict[str, dict[str, float]]:
        return {name: {"variance_explained": value, "ce_recovered": value} for name, value in values.items()}

    value = {
        "sae": "s",
        "held_out": sets(corpus=0.99, owt=0.5, chats=0.6),
        "control_fitness": {"c": sets(chats=0.4, corpus=0.0, owt=0.2)},
    }
    found = excess(value, "c")["variance_explained"]
    assert (found["n"], found["sae"], found["control"]) == (2, pytest.approx(0.55), pytest.approx(0.3))


def test_an_sae_of_shuffled_weights_is_compared_in_expression_only(made: dict[str, Any]) -> None:
    over = all_excesses(made, {"x/soft-frozen": "randomised_weights"})["over"]
    assert set(over["x/soft-frozen"]["claims"]) == {"expression_32"}
    assert "shuffled weights" in over["x/soft-frozen"]["note"]
    assert "note" not in made["excess"]["over"]["x/soft-frozen"]
    assert "x/soft-frozen: trained on a model with shuffled weights" in card_markdown(made | {"excess": {
        "over": over, "over_soft_frozen": None,
    }})  # fmt: skip
    assert set(all_excesses(made | {"expression": None}, {"x/soft-frozen": "randomised_weights"})["over"]["x/soft-frozen"]) == {
        "kind", "claims", "note",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("card", "id", "kind"),
    [
        ({"plan": {"weights": "own", "data": "all", "training": {"tether": 0.8}}}, "x", "soft_frozen"),
        ({"plan": {"weights": "own", "data": "corpus", "training": {"tether": 0.0}}}, "x", "corpus_only"),
        ({"plan": {"weights": "shuffled", "data": "all", "training": {"tether": 0.0}}}, "frozen", "randomised_weights"),
        ({"plan": {"weights": "own", "data": "all", "training": {"tether": 0.0}}}, "x", "other"),
        ({"plan": {"weights": "own", "data": "all", "training": {"tether": 0.01}}}, "x", "other"),
        ({"plan": {"training": {"tether": 0.8, "architecture": "topk"}}}, "x", "soft_frozen"),
        ({"plan": {"training": {"tether": 0.8, "architecture": "standard"}}}, "soft-frozen", "other"),
        ({}, "m/blocks.1.soft-frozen", "soft_frozen"),
        ({"plan": [1]}, "m/soft-frozen", "soft_frozen"),
        ({"plan": {"training": "x"}}, "m/blocks.1", "other"),
        ({}, "m/controls/4k-shuffled", "randomised_weights"),
        ({}, "m/blocks.1", "other"),
    ],
)
def test_the_kind_of_a_control_comes_from_its_card_or_its_name(card: dict, id: str, kind: str) -> None:
    assert control_kind(card, id) == kind


# On disk


def test_writing_merges_and_keeps_what_training_measured(made: dict[str, Any], tmp_path: Path) -> None:
    from workbench.saes.formats import saelens
    from workbench.saes.registry import load_sae

    trained = {"variance_explained": 0.5, "recipe": {"seed": 0}, "ce_recovered": None}
    folder = saelens.write(replace(lossless_sae(32, 1), card=trained), tmp_path / "sae", dtype="float32")
    (folder / "README.md").write_text("# My SAE\n", encoding="utf-8")
    sae = load_sae(folder)
    for _ in range(2):  # a second time replaces the section
        written = write_evaluation(sae, made, out=tmp_path / "out", write_card=True)
    assert len(written) == 4
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    assert (card["variance_explained"], card["recipe"]) == (0.5, {"seed": 0})
    assert card["ce_recovered"] == pytest.approx(1, abs=1e-3)  # it lacked this one
    assert card["evaluation"]["gate"]["passed"] is True
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert text.startswith("# My SAE\n")
    assert text.count("## Evaluation card") == 1
    assert (tmp_path / "out" / "card.json").is_file()
    fresh = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert fresh.startswith("# Sparse autoencoder: planted, blocks.1.hook_resid_post")
    assert fresh.count("## Evaluation card") == 1
    assert load_sae(folder).weights_hash == sae.weights_hash


def test_a_folder_that_cannot_be_written_to_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(WorkbenchError, match="has no folder"):
        check_writable(lossless_sae(32, 1))


def test_a_section_is_put_at_the_end_or_in_its_place() -> None:
    once = with_section("# A\n", "one")
    assert with_section(once + "more\n", "two").endswith("end -->\nmore\n")
    assert "one" not in with_section(once, "two")
    assert merged({}, {"headline": {"l0": 3.0, "kl": None}})["l0"] == 3.0


def test_the_newest_evaluation_wins_over_an_earlier_one_and_never_over_training() -> None:
    def found(**figures: float) -> dict[str, Any]:
        return {"headline": figures}

    once = merged({"l0": 1.0, "kl": None}, found(ce_recovered=0.5, l0=9.0, kl=0.3))
    assert (once["l0"], once["ce_recovered"], once["from_evaluation"]) == (1.0, 0.5, ["ce_recovered", "kl"])
    twice = merged(once, found(ce_recovered=0.9, l0=8.0))
    assert (twice["l0"], twice["ce_recovered"]) == (1.0, 0.9)
    assert "kl" not in twice  # the newest did not measure it
    unlisted = {name: figure for name, figure in once.items() if name != "from_evaluation"}
    assert merged(unlisted, found(ce_recovered=0.9))["ce_recovered"] == 0.9
    elsewhere = merged(once, found(ce_recovered=0.1) | {"trained_on_this_model": False})
    assert "ce_recovered" not in elsewhere and "from_evaluation" not in elsewhere


def test_the_corpus_of_a_card_is_the_one_it_was_trained_on_where_it_is_still_there(tmp_path: Path, caplog) -> None:
    from workbench.saes.evaluation.texts import CORPUS, corpus_of

    text = tmp_path / "mine.txt"
    text.write_text("a")

    def carded(corpus: str, hash: str | None = "lossless") -> SparseAutoencoder:
        return replace(lossless_sae(4, 1), card={"recipe": {"data": {"corpus": corpus}}, "weights_hash": hash})

    assert corpus_of(carded(str(text))) == str(text)
    assert corpus_of(carded(str(text), "others")) == corpus_of(carded(str(text), None)) == CORPUS  # a stranger's card
    assert corpus_of(lossless_sae(4, 1)) == corpus_of(carded(CORPUS)) == CORPUS
    assert not caplog.records
    assert corpus_of(carded(str(tmp_path / "gone.txt"))) == CORPUS
    assert "gone.txt" in caplog.text


def test_a_card_of_odd_shape_names_no_model(tiny_model: Model) -> None:
    for card in ({"model": "x"}, {"model": [1]}, {"plan": [1]}, {"recipe": "x", "weights_hash": "lossless"}):
        run = card_module._Run(replace(lossless_sae(tiny_model.d_model, 1), card=card), tiny_model, [], {}, {}, _settings(), None)
        assert run.trained_on is None


def test_a_sample_of_no_tokens_is_refused(tiny_model: Model) -> None:
    with pytest.raises(WorkbenchError, match="o token is left to sample of 0 rows"):
        token_sample(tiny_model, HookPoint(1), [])
