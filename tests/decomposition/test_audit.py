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
    found = screen(parts, model, sae, TRAIT, n_features=8, n_controls=19, dose=0.2)
    rows = {row["feature"]: row for row in found["features"]}
    strong = rows[STRONG]
    assert strong["p"] == pytest.approx(1 / 20) and strong["interval"][0] > 0
    assert strong["odd"] > max(row["odd"] for row in found["controls"])
    assert strong["predicted"] == pytest.approx(strong["specific"], rel=0.35)
    assert found["agreement"]["predicted"] > 0.9 and found["agreement"]["by_chance"] == pytest.approx(1 / 20)
    assert len(found["controls"]) == 19 and not set(rows) & {row["feature"] for row in found["controls"]}
    assert all(row["kl"] > 0 for row in found["features"] + found["controls"])
    assert set(found["totals"]) == {"everything", "features", "error"}
    assert all(row["control_odd"] is None for row in found["controls"])
    known = found["persona_effect"]["interval"][0] > 0
    assert all((row["mediated"] is not None) == known for row in found["features"])


def test_a_feature_pushed_away_is_ranked_among_controls_pushed_away(parts, model, sae):
    """Feature 1 points against the contrast: pushed by its sign -1 it moves the model toward the trait."""
    delta = parts.delta_code.clone()
    delta[AGAINST] = -3.0
    share = delta * (sae.decoder_directions @ parts.direction) / parts.direction.square().sum()
    found = screen(replace(parts, delta_code=delta, share=share), model, sae, TRAIT, n_features=6, n_controls=19, dose=0.2)
    row = next(row for row in found["features"] if row["feature"] == AGAINST)
    assert row["sign"] == -1 and row["odd"] > 0 and row["p"] == pytest.approx(1 / 20)


@pytest.mark.parametrize("drop", [("contrast", "select"), ("control", "select"), ("contrast", "sealed"), ("control", "sealed")])
def test_a_trait_without_the_pairs_that_are_needed_is_refused(parts, model, sae, activations, drop):
    kind, split = drop

    def kept(pairs):
        return tuple(pair for pair in pairs if pair.split != split)

    name = f"{kind}_pairs"
    trait = replace(TRAIT, **{name: kept(getattr(TRAIT, name))})
    for study in (lambda: screen(parts, model, sae, trait), lambda: audit(parts, model, sae, trait, activations)):
        with pytest.raises(WorkbenchError, match=f"{kind} pairs .{split}."):
            study()


def test_few_controls_are_refused(parts, model, sae):
    with pytest.raises(WorkbenchError, match="19 or more"):
        screen(parts, model, sae, TRAIT, n_controls=8)


def test_the_denoised_vector_keeps_the_effect_and_mixtures_only_their_cosine(parts, model, sae, activations):
    found = audit(parts, model, sae, TRAIT, activations)
    assert found["k"] == 2
    assert found["denoised"]["effect_kept"] == pytest.approx(1, abs=0.2)
    assert found["denoised"]["cosine"] > 0.9 and found["denoised"]["mixtures_kept"]["n"] == 19
    assert [row["k"] for row in found["curve"]] == [2, 4, 8, 16, 32]
    assert found["curve"][-1]["energy"] > found["curve"][0]["energy"]
    natural = found["parts"]["natural"]
    assert natural["features"] + natural["rest"] == pytest.approx(natural["vector"], rel=0.3)
    assert found["parts"]["norms"]["error"] < 1e-5 and natural["error"] == pytest.approx(0, abs=1e-4)


def test_features_that_do_not_steer_keep_nothing_though_the_vector_steers(parts, model, sae, activations):
    """v = large amounts of directions without effect + the contrast's gradient, which stands last in the list."""
    delta = torch.zeros(D_SAE)
    delta[3:43], delta[STRONG] = 0.5, 10.0
    unit = sae.decoder_directions[STRONG] / sae.decoder_directions[STRONG].norm()
    useless = sae.decoder_directions.clone()
    useless[3:43] -= (useless[3:43] @ unit)[:, None] * unit
    vector = delta @ useless
    share = delta * (useless @ vector) / vector.square().sum()
    share[STRONG] = 1e-9  # the ladder takes it last
    changed = replace(parts, delta_code=delta, share=share, direction=vector)
    found = audit(changed, model, replace(sae, decoder_directions=useless), TRAIT, activations)
    assert found["vector"]["interval"][0] > 0
    assert found["k"] is None and all(row["kept"] < 0.6 for row in found["curve"])


def test_mixtures_have_the_cosine_that_was_asked_for(activations, model):
    vector = torch.randn(model.d_model, generator=generator(3))
    drawn = mixtures(vector, 0.7, activations, 5, seed=0)
    cosines = torch.nn.functional.cosine_similarity(drawn, vector[None], dim=1)
    torch.testing.assert_close(cosines, torch.full((5,), 0.7), atol=1e-5, rtol=0)
    torch.testing.assert_close(drawn.norm(dim=1), torch.ones(5))
    assert mixtures(vector, 1.0000001, activations, 2, seed=0).dtype == torch.float32
    assert not torch.allclose(drawn[0], drawn[1])


class OnePair:
    contrast = torch.ones(1, dtype=torch.float64)


def pushed(v: float, r: float, kl: tuple[float, float]) -> Pushed:
    return Pushed(*(torch.tensor(x).double() for x in ([[v], [r]], [[0.0], [0.0]], kl)))


@pytest.mark.parametrize("slope", [0.8, 1.0, 1.3])
def test_kl_is_compared_at_equal_effect(slope):
    """Effects linear and KL quadratic in the dose: r needs 1 / slope of v's dose, and twice the KL at equal dose."""
    same = {d: pushed(8 * d, slope * 8 * d, (d**2, 2 * d**2)) for d in auditing.DOSES}
    found = auditing.at_equal_effect(OnePair, same)  # type: ignore[arg-type]
    assert found["compared_at"] == 1 and found["kl_ratio"] == pytest.approx(2 / slope**2)
    assert found["coherence_gain"] == pytest.approx(auditing.DOSE**2 * (1 - 2 / slope**2))


def test_a_sum_that_never_reaches_the_vector_is_compared_at_its_most():
    weak = {d: pushed(8 * d, min(2 * d, 0.5), (d**2, d**2)) for d in auditing.DOSES}  # v at the dose: 2; r stops at .5
    found = auditing.at_equal_effect(OnePair, weak)  # type: ignore[arg-type]
    assert found["compared_at"] == pytest.approx(0.25) and found["kl_ratio"] == pytest.approx(16)
    away = {d: pushed(8 * d, -d, (d**2, d**2)) for d in auditing.DOSES}
    assert set(auditing.at_equal_effect(OnePair, away).values()) == {None}  # type: ignore[arg-type]


def test_a_bare_vector_is_refused(parts, model, sae, activations):
    with pytest.raises(WorkbenchError, match="without shares"):
        audit(replace(parts, share_error=None), model, sae, TRAIT, activations)
