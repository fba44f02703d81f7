from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.tiny import tiny_model
from workbench.base.errors import WorkbenchError
from workbench.base.randomness import generator
from workbench.decomposition.causal import controls as causal_controls
from workbench.decomposition.causal.controls import (
    ControlDistribution,
    control_distribution,
    control_key,
    match_controls,
    pair_weights,
    sealed_pairs,
    shipped_path,
)
from workbench.decomposition.causal.verdict import (
    add_causal,
    causal_rows,
    causal_view,
    direction_sign,
    expected_by_chance,
    features_to_match,
    known_controls,
)
from workbench.decomposition.result import _OTHER_ARRAYS, FEATURE_ARRAYS, Decomposition
from workbench.models.hookpoints import HookPoint
from workbench.personas.causal import CausalInstrument, neutral_snippets
from workbench.personas.traits import ReplyPair, Trait
from workbench.saes.interface import SparseAutoencoder

HOOK, D_SAE, KL = HookPoint(1), 260, 0.02
KINDS = ("contrast",) * 4 + ("sad_happy", "rude_polite", "gory_neutral") * 2
WORDS = ("now", "in the north", "again", "for ever", "at last", "and more", "so", "then", "too", "alone")
PAIRS = tuple(
    ReplyPair(
        f"p{k}",
        kind,
        f"Question {k}?",
        f"they should suffer {word}" if kind == "contrast" else f"the cold rivers {kind} {word}",
        f"happy to help you {word}" if kind == "contrast" else f"the long weather {kind} {word}",
        "sealed",
    )
    for k, (kind, word) in enumerate(zip(KINDS, WORDS, strict=True))
)


def trait_of(pairs=PAIRS, name: str = "made up") -> Trait:
    contrast = tuple(pair for pair in pairs if pair.kind == "contrast")
    control = tuple(pair for pair in pairs if pair.kind != "contrast")
    return Trait(name, name, name, "", (), (), "", (), contrast, control)


def sae_of(directions: torch.Tensor, **options) -> SparseAutoencoder:
    rng = generator(9)
    options = {"density": torch.rand(len(directions), generator=rng) * 0.1 + 1e-3, "folder": None, **options}
    return SparseAutoencoder(
        id="tiny/blocks.1.hook_resid_post",
        hook=HOOK,
        model_name="tiny",
        architecture="standard",
        encoder=directions.T.clone(),
        encoder_bias=torch.zeros(len(directions)),
        decoder_directions=directions,
        decoder_bias=torch.zeros(directions.shape[1]),
        weights_hash="ab" * 32,
        **options,
    )


def parts_of(sae: SparseAutoencoder, candidates, delta_code) -> Decomposition:
    arrays = {name: torch.zeros(sae.d_sae) for name in FEATURE_ARRAYS}
    arrays["in_v_up"] = torch.zeros(sae.d_sae, dtype=torch.bool)
    arrays["delta_code"] = delta_code
    arrays["share"] = torch.zeros(sae.d_sae).index_fill(0, torch.tensor(candidates), 0.1)
    return Decomposition(
        trait="made up",
        sae={"id": sae.id, "weights_hash": sae.weights_hash},
        vector={},
        **arrays,
        **{name: torch.zeros(1) for name in _OTHER_ARRAYS},
        share_error=0.0,
        share_error_interval=(0.0, 0.0),
        share_sum_error=0.0,
        n_questions=20,
        vector_norm=1.0,
        candidates=tuple(candidates),
    )


@pytest.fixture(scope="module")
def model():
    return tiny_model("llama", n_blocks=3, seed=3)


@pytest.fixture(scope="module")
def instrument(model):
    return CausalInstrument(model, HOOK, PAIRS, kl=KL, snippets=neutral_snippets()[:1])


@pytest.fixture(scope="module")
def planted(model, instrument):
    """Feature 0 = where the effect grows fastest (finite differences), feature 1 = its opposite, the others random."""
    contrast, control = pair_weights(PAIRS)
    steps = 0.05 * torch.eye(model.d_model)
    up, down = instrument.contrast(steps), instrument.contrast(-steps)
    gradient = ((up - down) @ (contrast - control)).float()
    directions = torch.randn(D_SAE, model.d_model, generator=generator(7))
    directions[0], directions[1] = 2 * gradient / gradient.norm(), -gradient / gradient.norm()
    return sae_of(directions)


@pytest.fixture(scope="module")
def parts(planted):
    delta_code = torch.ones(D_SAE)
    delta_code[1], delta_code[5] = -1.0, -1.0
    return parts_of(planted, list(range(10)), delta_code)


@pytest.fixture(scope="module")
def controls(model, planted, instrument, parts, tmp_path_factory):
    return control_distribution(
        model,
        planted,
        trait_of(),
        features=features_to_match(parts, 10),
        kl=KL,
        cache=tmp_path_factory.mktemp("controls"),
        instrument=instrument,
    )


def test_a_planted_direction_is_verified_with_either_sign_and_random_ones_are_not(instrument, planted, parts, controls):
    candidates = list(parts.candidates)
    signs = [direction_sign(parts, feature) for feature in candidates]
    assert signs == [1, -1, 1, 1, 1, -1, 1, 1, 1, 1]
    rows = causal_rows(candidates, signs, instrument.measure(planted.decoder_directions[candidates]), PAIRS, controls)
    verified = {row.feature for row in rows if row.verified}
    assert {0, 1} <= verified and len(verified) <= 3
    for row in rows[:2]:
        assert row.p == pytest.approx(1 / 210) and row.q <= 0.05
        assert row.interval[0] <= row.odd <= row.interval[1] and row.odd > float(controls.effects.max())
        assert row.kl == pytest.approx(KL, rel=0.02) and row.dose_norms > 0


def test_a_wrong_sign_fixed_beforehand_is_not_verified(instrument, planted, parts, controls):
    rows = causal_rows([0], [-1], instrument.measure(planted.decoder_directions[:1]), PAIRS, controls)
    assert not rows[0].verified and rows[0].odd < 0 and rows[0].p > 0.9


def test_the_effect_is_odd_on_contrast_pairs_minus_odd_on_control_pairs_with_equal_kinds():
    contrast, control = pair_weights(PAIRS)
    values = torch.tensor([4.0, 4, 4, 4, 1, 2, 6, 1, 2, 6], dtype=torch.float64)
    assert float(values @ contrast) == 4.0 and float(values @ control) == pytest.approx(3.0)
    uneven = (*PAIRS, replace(PAIRS[4], id="extra"))
    _, control = pair_weights(uneven)
    assert float(control[4] + control[7] + control[10]) == pytest.approx(1 / 3)


def test_controls_taken_as_candidates_are_verified_no_more_often_than_nominal(controls):
    found = expected_by_chance(controls.effects, [1] * 10, seed=1)
    # BH at .05 under a global null: P(any) <= .05, and a verified null rarely comes with a second one.
    assert found <= 0.12
    normal = torch.randn(209, generator=generator(3), dtype=torch.float64)
    assert expected_by_chance(normal, [1, -1] * 5, seed=1) <= 0.12


def test_a_common_push_of_all_activated_features_verifies_nobody():
    # Every feature moves the contrast by about +1 when activated: no candidate is special, whatever its sign.
    null = 1 + 0.01 * torch.randn(209, generator=generator(4), dtype=torch.float64)
    assert expected_by_chance(null, [1] * 10) <= 0.12


def test_controls_match_the_targets_and_contain_none_of_them(model):
    rng = generator(11)
    scale = torch.rand(2000, generator=rng) * 3 + 0.2
    directions = torch.randn(2000, model.d_model, generator=rng) * scale[:, None]
    sae = sae_of(directions, density=torch.rand(2000, generator=rng) ** 3)
    targets = torch.topk(scale, 60).indices.tolist()  # long directions: a random draw would not match them
    drawn, balance = match_controls(model, sae, targets, n_controls=100)
    assert len(set(drawn)) == 100 and not set(drawn) & set(targets)
    plain = scale.log().mean() - scale[targets].log().mean()
    ours = scale[list(drawn)].log().mean() - scale[targets].log().mean()
    assert abs(ours) < 0.25 * abs(plain) and set(balance) == {"log_density", "log_decoder_norm", "log_unembedded_norm"}
    assert drawn == match_controls(model, sae, targets, n_controls=100)[0]
    assert drawn != match_controls(model, sae, targets, n_controls=100, seed=1)[0]


def test_dead_features_are_no_controls_and_too_few_live_ones_are_refused(model):
    density = torch.zeros(50)
    density[:12] = 0.1
    sae = sae_of(torch.randn(50, model.d_model, generator=generator(1)), density=density)
    drawn, _ = match_controls(model, sae, [0, 1], n_controls=10)
    assert set(drawn) == set(range(2, 12))
    with pytest.raises(WorkbenchError, match="10 live features"):
        match_controls(model, sae, [0, 1], n_controls=11)


def test_an_interrupted_computation_resumes_to_identical_results(model, planted, instrument, parts, tmp_path, monkeypatch):
    def compute(folder):
        features, options = features_to_match(parts, 10), {"n_controls": 35, "kl": KL, "instrument": instrument}
        return control_distribution(model, planted, trait_of(), features=features, cache=folder, **options)

    whole, measure, calls = compute(tmp_path / "whole"), CausalInstrument.measure, []

    def interrupted(self, directions, doses):
        calls.append(len(directions))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measure(self, directions, doses)

    monkeypatch.setattr(CausalInstrument, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compute(tmp_path / "broken")
    resumed = compute(tmp_path / "broken")
    assert calls == [10, 10, 10, 10, 5]
    for column in ("key", "features", "odd_contrast", "odd_control", "damage", "dose_norms", "reached_kl", "settings"):
        assert getattr(resumed, column) == getattr(whole, column)


def test_another_traits_controls_take_the_same_doses_and_search_none(model, planted, instrument, parts, tmp_path, monkeypatch):
    features, options = features_to_match(parts, 10), {"n_controls": 12, "kl": KL, "cache": tmp_path}
    first = control_distribution(model, planted, trait_of(), features=features, instrument=instrument, **options)

    def searched(self, directions):
        raise AssertionError("the doses are known")

    other = trait_of(PAIRS[:9])
    monkeypatch.setattr(CausalInstrument, "doses", searched)
    second = control_distribution(model, planted, other, features=features, **options)
    assert second.features == first.features and second.dose_norms == first.dose_norms
    assert second.reached_kl == first.reached_kl and second.effects.tolist() != first.effects.tolist()


def test_a_saved_distribution_loads_the_same_and_refuses_another_sae(model, planted, controls, tmp_path):
    loaded = ControlDistribution.load(controls.save(tmp_path / "controls.json"))
    assert loaded == controls
    loaded.check(control_key(model, planted, trait_of(), kl=KL))
    loaded.check(control_key(model, replace(planted, id="/another/folder/it/was/moved/to"), trait_of(), kl=KL))
    for other in (
        control_key(model, replace(planted, weights_hash="cd" * 32), trait_of(), kl=KL),
        control_key(model, planted, trait_of(PAIRS[:9]), kl=KL),
        control_key(model, planted, trait_of(), kl=0.1),
    ):
        with pytest.raises(WorkbenchError, match=r"control distribution was measured for (sae|pairs|kl)"):
            loaded.check(other)


def test_a_file_that_is_no_distribution_or_incomplete_is_refused(controls, tmp_path):
    from workbench.base.store import write_json

    with pytest.raises(WorkbenchError, match="no control distribution"):
        ControlDistribution.load(write_json(tmp_path / "a.json", {"kind": "else"}))
    with pytest.raises(WorkbenchError, match="incomplete"):
        ControlDistribution.load(replace(controls, damage=controls.damage[:-1]).save(tmp_path / "b.json"))


def test_shipped_controls_are_found_and_those_of_other_weights_are_not_used(model, planted, controls, tmp_path, caplog):
    trait = trait_of()
    shelved = replace(planted, folder=tmp_path)
    controls.save(shipped_path(tmp_path, trait.pairs_hash, KL))
    assert known_controls(model, shelved, trait, kl=KL, cache=tmp_path / "none") == controls
    assert known_controls(model, replace(shelved, weights_hash="cd" * 32), trait, kl=KL, cache=tmp_path / "none") is None
    assert "is not used" in caplog.text


def test_the_causal_view_fills_rows_and_controls(model, planted, parts, controls):
    done = causal_view(parts, model, planted, trait_of(), controls=controls, kl=KL, n_candidates=3)
    assert [row.feature for row in done.causal] == [0, 1, 2]
    assert done.causal[0].odd > 0 and done.causal[1].odd > 0
    assert len(done.controls["causal_control_odd"]) == 209
    assert 0 <= done.controls["expected_by_chance"] < 0.2
    assert done.controls["causal_controls_used"]["signs"] == {"0": 1, "1": -1, "2": 1}
    assert not done.warnings


def test_the_causal_view_computes_missing_controls_once_and_says_when_they_are_too_few(
    model, planted, parts, tmp_path, monkeypatch
):
    monkeypatch.setattr(causal_controls, "GROUP", 3)
    options = {"kl": KL, "n_candidates": 2, "n_controls": 6, "cache": tmp_path}
    done = causal_view(parts, model, planted, trait_of(), **options)
    assert any("6 control features for 2 candidates" in warning for warning in done.warnings)
    assert not any(row.verified for row in done.causal) and done.controls["expected_by_chance"] is None
    monkeypatch.setattr("workbench.decomposition.causal.verdict.control_distribution", None)  # must not be called again
    again = causal_view(parts, model, planted, trait_of(), **options)
    assert again.causal == done.causal


def test_a_trait_without_pairs_gets_a_warning_instead_of_a_view(model, planted, parts):
    done = causal_view(parts, model, planted, trait_of(()), kl=KL)
    assert done.causal == () and "no sealed contrast pairs" in done.warnings[-1]
    only_contrast = tuple(pair for pair in PAIRS if pair.kind == "contrast")
    assert causal_view(parts, model, planted, trait_of(only_contrast), kl=KL).causal == ()


def test_a_trait_that_is_nowhere_gets_a_warning(model, planted, parts):
    from types import SimpleNamespace

    done = add_causal(parts, SimpleNamespace(trait="no such trait at all"), planted, model)
    assert done.causal == () and "pairs cannot be read" in done.warnings[-1]


def test_the_pairs_are_those_of_the_given_trait_and_not_of_a_shipped_one_of_its_name(model, planted, parts):
    from types import SimpleNamespace

    own = add_causal(parts, SimpleNamespace(trait="evil"), planted, model, trait=replace(trait_of(()), name="evil"))
    assert own.causal == () and "no sealed contrast pairs" in own.warnings[-1]


def test_an_sae_of_another_decomposition_is_refused(model, planted, parts):
    with pytest.raises(WorkbenchError, match="decomposition was made with SAE"):
        causal_view(parts, model, replace(planted, weights_hash="cd" * 32), trait_of(), kl=KL)


def test_only_sealed_pairs_decide():
    opened = tuple(replace(pair, split="select") if k % 2 else pair for k, pair in enumerate(PAIRS))
    assert {pair.split for pair in sealed_pairs(trait_of(opened))} == {"sealed"}
    assert len(sealed_pairs(trait_of(opened))) == 5
