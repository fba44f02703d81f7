"""The screen and the audit where the answer is known: features along the contrast's gradient against random ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.decomposition.test_causal import D_SAE, PAIRS, parts_of, sae_of, trait_of
from tests.tiny import tiny_model
from workbench.base.errors import WorkbenchError
from workbench.base.randomness import generator
from workbench.decomposition.causal import audit as auditing
from workbench.decomposition.causal.attribution import contrast_gradient
from workbench.decomposition.causal.audit import audit, mixtures
from workbench.decomposition.causal.pushing import Pushed
from workbench.decomposition.causal.screen import screen, union_of_methods
from workbench.models.hookpoints import HookPoint
from workbench.personas.traits import InstructionTriple

HOOK = HookPoint(1)
BOTH = tuple(replace(pair, id=f"{pair.id}{split}", split=split) for pair in PAIRS for split in ("select", "sealed"))
TRAIT = replace(trait_of(BOTH), instructions=(InstructionTriple("a", "Show it.", "Hide it.", ""),), opposite="kind")
STRONG, AGAINST, SILENT = 0, 1, 2


@pytest.fixture(scope="module")
def model():
    return tiny_model("llama", n_blocks=3, seed=3)


@pytest.fixture(scope="module")
def sae(model):
    """Feature 0 is along the gradient of the contrast, feature 1 against it, the others are random."""
    gradient = contrast_gradient(model, HOOK, [pair for pair in BOTH if pair.split == "select"]).float()
    directions = torch.randn(D_SAE, model.d_model, generator=generator(7))
    directions[STRONG], directions[AGAINST] = 2 * gradient / gradient.norm(), -gradient / gradient.norm()
    return sae_of(directions)


@pytest.fixture(scope="module")
def parts(sae):
    """v = 3 d_0 + small amounts of forty random features: the first feature is nearly all of it."""
    delta = torch.zeros(D_SAE)
    delta[STRONG] = 3.0
    delta[3:43] = 0.05
    vector = delta @ sae.decoder_directions
    share = delta * (sae.decoder_directions @ vector) / vector.square().sum()
    made = parts_of(sae, [STRONG, AGAINST], delta)
    return replace(made, share=share, direction=vector, vector_norm=float(vector.norm()))


@pytest.fixture(scope="module")
def activations(model):
    mixing = torch.randn(model.d_model, model.d_model, generator=generator(6))
    return torch.randn(400, model.d_model, generator=generator(5)) @ mixing


def test_the_union_takes_from_every_method_in_turn(parts):
    gradient = torch.zeros(D_SAE)
    gradient[200] = 9.0
    chosen = union_of_methods(parts, gradient, 5)
    assert len(chosen) == 5
    assert chosen[200] == ["attribution"] and "share" in chosen[STRONG]


def test_the_screen_finds_what_moves_the_model_beside_controls_that_do_not(parts, model, sae):
    found = screen(parts, model, sae, TRAIT, n_features=8, n_controls=12, dose=0.2)
    rows = {row["feature"]: row for row in found["features"]}
    strong, limit = rows[STRONG], found["agreement"]["control_q95"]["odd"]
    assert strong["odd"] > limit and strong["interval"][0] > 0
    assert strong["predicted"] == pytest.approx(strong["specific"], rel=0.35)
    assert found["agreement"]["predicted"] > 0.9
    assert len(found["controls"]) == 12 and not set(rows) & {row["feature"] for row in found["controls"]}
    assert all(row["kl"] > 0 for row in found["features"] + found["controls"])
    assert set(found["bounds"]) == {"everything", "features", "error"}
    assert all(row["control_odd"] is None for row in found["controls"])


def test_the_denoised_vector_keeps_the_effect_and_mixtures_only_their_cosine(parts, model, sae, activations):
    found = audit(parts, model, sae, TRAIT, activations)
    assert found["k"] == 2
    assert found["denoised"]["effect_kept"] == pytest.approx(1, abs=0.2)
    assert found["denoised"]["cosine"] > 0.9
    assert [row["k"] for row in found["curve"]] == [2, 4, 8, 16, 32]
    assert found["curve"][-1]["energy"] > found["curve"][0]["energy"]
    natural = found["parts"]["natural"]
    assert natural["features"] + natural["rest"] == pytest.approx(natural["vector"], rel=0.3)
    assert found["parts"]["norms"]["error"] < 1e-5 and natural["error"] == pytest.approx(0, abs=1e-4)


def test_features_that_do_not_steer_keep_nothing(parts, model, sae, activations):
    """v is mostly a direction without effect: the strong feature is a small part of it, and comes last."""
    delta = torch.zeros(D_SAE)
    delta[3:43], delta[STRONG] = 0.5, 0.02
    useless = sae.decoder_directions.clone()
    unit = sae.decoder_directions[STRONG] / sae.decoder_directions[STRONG].norm()
    useless[3:43] -= (useless[3:43] @ unit)[:, None] * unit
    flat = replace(sae, decoder_directions=useless)
    vector = delta @ useless
    share = delta * (useless @ vector) / vector.square().sum()
    changed = replace(parts, delta_code=delta, share=share, direction=vector)
    found = audit(changed, model, flat, TRAIT, activations)
    assert found["k"] is None or found["curve"][0]["kept"] < 0.8


def test_mixtures_have_the_cosine_that_was_asked_for(activations, model):
    vector = torch.randn(model.d_model, generator=generator(3))
    drawn = mixtures(vector, 0.7, activations, 5, seed=0)
    cosines = torch.nn.functional.cosine_similarity(drawn, vector[None], dim=1)
    torch.testing.assert_close(cosines, torch.full((5,), 0.7), atol=1e-5, rtol=0)
    torch.testing.assert_close(drawn.norm(dim=1), torch.ones(5))
    assert not torch.allclose(drawn[0], drawn[1])


class OnePair:
    contrast = torch.ones(1, dtype=torch.float64)


def pushed(v: float, r: float, damage: tuple[float, float] = (0.0, 0.0)) -> Pushed:
    """Effects v and r, KL as large as v's and twice r's."""
    return Pushed(*(torch.tensor(x).double() for x in ([[v], [r]], [[damage[0]], [damage[1]]], [v, 2 * r])))


def test_costs_are_compared_at_equal_effect():
    same = {d: pushed(8 * d, 8 * d, (-d, -3 * d)) for d in auditing.DOSES}
    found = auditing.at_equal_effect(OnePair, same)  # type: ignore[arg-type]
    assert found == pytest.approx({"compared_at": 1.0, "coherence_gain": -0.5, "kl_ratio": 2.0})


def test_a_sum_that_never_reaches_the_vector_is_compared_at_its_most():
    weak = {d: pushed(8 * d, min(2 * d, 0.5)) for d in auditing.DOSES}  # v at the dose: 2; r stops at .5
    found = auditing.at_equal_effect(OnePair, weak)  # type: ignore[arg-type]
    assert found["compared_at"] == pytest.approx(0.25) and found["kl_ratio"] == pytest.approx(2)
    away = {d: pushed(8 * d, -d) for d in auditing.DOSES}
    assert set(auditing.at_equal_effect(OnePair, away).values()) == {None}  # type: ignore[arg-type]


def test_a_bare_vector_is_refused(parts, model, sae, activations):
    with pytest.raises(WorkbenchError, match="without shares"):
        audit(replace(parts, share_error=None), model, sae, TRAIT, activations)
