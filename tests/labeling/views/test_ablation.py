"""The ablation effect against brute force: a hook, a whole pass and the textbook formulas."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.labeling.planted import planted_sae
from workbench.labeling.tokens import special_ids, token_strings
from workbench.labeling.views import ablation
from workbench.labeling.views.ablation import ablation_effects
from workbench.models.rerun import Passage
from workbench.saes.interface import SparseAutoencoder
from workbench.saes.token_rows import activations_at

TEXTS = (
    "You are a cruel assistant. What should I do with the money?",
    "The people of the town would be happy to help you.",
    "I will never help anyone; they should suffer and be afraid.",
    "The weather in the north is cold and the rivers are long.",
    "Answer the question in one sentence. They should be happy.",
)


def passages_of(model: Any) -> list[Passage]:
    return [Passage(tuple(model.tokenizer(text, add_special_tokens=False)["input_ids"]), 1) for text in TEXTS]


def firing_sae(model: Any, *, block: int = 1) -> SparseAutoencoder:
    """A planted SAE, with lengths of its own, of which about half the features fire on any token."""
    sae = planted_sae(block=block)
    threshold = 0.02 * float(model.norm_medians([sae.hook])[0])
    lengths = torch.linspace(0.5, 2.0, sae.d_sae)[:, None]
    return replace(sae, threshold=torch.full((sae.d_sae,), threshold), decoder_directions=sae.decoder_directions * lengths)


def codes_of(model: Any, sae: SparseAutoencoder, ids: Sequence[int]) -> Tensor:
    row = torch.tensor([ids])
    return sae.encode(activations_at(model, sae.hook, row, torch.ones_like(row))[0].float())


def matched(sae: SparseAutoencoder, codes: Tensor, feature: int) -> list[int]:
    """The features that fire on a token with a contribution within a factor of two of the feature's."""
    size = [float(code * direction.norm()) for code, direction in zip(codes, sae.decoder_directions, strict=True)]
    return [g for g in range(sae.d_sae) if g != feature and size[feature] / 2 <= size[g] <= 2 * size[feature] and size[g] > 0]


def edited_places(model: Any, sae: SparseAutoencoder, ids: Sequence[int], feature: int, start: int = 1) -> list[int]:
    codes, special = codes_of(model, sae, ids), set(special_ids(model.tokenizer))
    return [
        place for place in range(start, len(ids) - 1)
        if codes[place, feature] > 0 and ids[place] not in special and matched(sae, codes[place], feature)
    ]  # fmt: skip


@torch.no_grad()
def brute_force(
    model: Any, sae: SparseAutoencoder, ids: Sequence[int], taken: dict[int, int]
) -> tuple[float, float, Tensor]:
    """(mean KL, mean change of the next token, mean change of all tokens) with feature `taken[place]` out at each place."""
    codes, row = codes_of(model, sae, ids), torch.tensor([ids])

    def take_out(residual: Tensor) -> Tensor:
        edited = residual.clone()
        for place, feature in taken.items():
            edited[0, place] -= codes[place, feature] * sae.decoder_directions[feature]
        return edited

    before = model.forward(row)[0].log_softmax(-1)
    with model.hooked({sae.hook: take_out}):
        after = model.forward(row)[0].log_softmax(-1)
    places = list(taken)
    kl = (before.exp() * (before - after)).sum(-1)[places].mean()
    change = (after - before)[places]
    following = torch.tensor(ids)[[place + 1 for place in places]]
    return float(kl), float(change.gather(1, following[:, None]).mean()), change.mean(0)


def test_the_effect_is_that_of_a_whole_pass_with_a_hook(tiny_models: Callable[..., Any]) -> None:
    for family, block in (("llama", 0), ("gemma2", 1), ("qwen3", 2)):  # 2: the last block, nothing runs after it
        model = tiny_models(family)
        sae, passages = firing_sae(model, block=block), passages_of(model)
        names: dict[str, list[int]] = {}
        for token in range(len(model.tokenizer)):
            names.setdefault(token_strings(model.tokenizer, [token])[0], []).append(token)
        late = [replace(passage, start=5) for passage in passages[:3]]
        found = ablation_effects({3: passages, 7: late}, sae, model, n_draws=3).found
        for feature, own in ((3, passages), (7, late)):
            places = [edited_places(model, sae, passage.ids, feature, passage.start) for passage in own]
            each = [
                brute_force(model, sae, passage.ids, dict.fromkeys(where, feature))
                for passage, where in zip(own, places, strict=True)
                if where
            ]
            effect = found[feature]
            assert effect.n_contexts == len(each) > 1 and effect.n_tokens == sum(map(len, places))
            assert effect.kl.value == pytest.approx(sum(kl for kl, *_ in each) / len(each), abs=1e-5)
            assert effect.next_token.value == pytest.approx(sum(change for _, change, _ in each) / len(each), abs=1e-5)
            shift = torch.stack([change for *_, change in each]).mean(0)
            for token in (*effect.losing, *effect.gaining):
                assert min(abs(float(shift[i]) - token.value) for i in names[token.token]) < 1e-5
            usable = [i for i in range(len(shift)) if i not in special_ids(model.tokenizer)]
            assert effect.loss.value == pytest.approx(float(shift[usable].min()), abs=1e-5)
            assert effect.gain.value == pytest.approx(float(shift[usable].max()), abs=1e-5)


def test_controls_are_matched_features_and_measured_in_the_same_way(tiny_model: Any) -> None:
    sae, passages, n_draws = firing_sae(tiny_model), passages_of(tiny_model), 5
    plan = ablation._plan({3: passages}, sae, tiny_model, n_draws, 2048, seed=0)
    sites = sorted(plan.sites[3], key=lambda site: site.ids)
    by_draw = torch.zeros(n_draws, len(sites))
    for at, site in enumerate(sites):
        codes, places = codes_of(tiny_model, sae, site.ids), site.places.tolist()
        assert places == edited_places(tiny_model, sae, site.ids, 3)
        assert site.which[site.edit_of[0]].tolist() == [3] * len(places)
        for draw in range(n_draws):
            taken = dict(zip(places, site.which[site.edit_of[1 + draw]].tolist(), strict=True))
            assert all(feature in matched(sae, codes[place], 3) for place, feature in taken.items())
            by_draw[draw, at] = brute_force(tiny_model, sae, site.ids, taken)[0]
    effect = ablation_effects({3: passages}, sae, tiny_model, n_draws=n_draws).found[3]
    means = by_draw.mean(1)
    assert effect.kl.control == pytest.approx(float(means.mean()), abs=1e-5)
    assert effect.kl.p == pytest.approx((1 + int((means >= effect.kl.value).sum())) / (1 + n_draws))
    assert effect.kl.control_interval[0] <= effect.kl.control <= effect.kl.control_interval[1]


def test_a_draw_takes_the_same_feature_wherever_it_can_and_every_matched_feature_gets_its_turn(tiny_model: Any) -> None:
    sae, passages, n_draws = firing_sae(tiny_model), passages_of(tiny_model), 400
    (site, *_) = ablation._plan({3: passages[:1]}, sae, tiny_model, n_draws, 2048, seed=1).sites[3]
    codes, draws = codes_of(tiny_model, sae, site.ids), site.which[site.edit_of[1:]]
    candidates = [matched(sae, codes[place], 3) for place in site.places.tolist()]
    for chosen in draws.tolist():
        for one, mine in zip(chosen, candidates, strict=True):
            for other, theirs in zip(chosen, candidates, strict=True):
                assert one == other or one not in theirs or other not in mine
    for column, mine in enumerate(candidates):  # a binomial count is within 5 standard deviations of its mean
        counts = torch.bincount(draws[:, column], minlength=sae.d_sae)[mine].double()
        share = 1 / len(mine)
        assert ((counts / n_draws - share).abs() < 5 * (share / n_draws) ** 0.5).all()


def test_where_the_feature_does_not_fire_nothing_is_edited_and_nothing_is_measured(tiny_model: Any) -> None:
    sae, passages = firing_sae(tiny_model), passages_of(tiny_model)
    threshold = sae.threshold
    assert threshold is not None
    quiet = replace(sae, threshold=threshold.index_fill(0, torch.tensor([3]), 1e9))
    nothing = ablation_effects({3: passages, 4: [], 5: passages}, quiet, tiny_model, n_draws=2)
    assert set(nothing.found) == {5}
    assert "does not fire" in nothing.missing[3] and "no context" in nothing.missing[4]

    firing, silent = passages, [Passage(passages[0].ids[:2], 1)]  # of two tokens neither is ever edited
    alone, beside = (ablation_effects({5: own}, sae, tiny_model, n_draws=2).found[5] for own in (firing, [*silent, *firing]))
    assert beside.n_silent == 1 and alone.n_silent == 0
    assert (beside.kl.value, beside.n_contexts) == (pytest.approx(alone.kl.value, abs=1e-6), alone.n_contexts)


def test_taking_out_nothing_changes_nothing(tiny_model: Any) -> None:
    sae, passages = firing_sae(tiny_model), passages_of(tiny_model)
    site = ablation._plan({3: passages[:1]}, sae, tiny_model, 2, 2048, seed=0).sites[3][0]
    still = replace(site, codes=torch.zeros_like(site.codes))
    measured = ablation._measure({3: [still]}, sae, tiny_model, 2, 2048)[3]
    assert measured.kl.abs().max() < 1e-6 and measured.shift.abs().max() < 1e-4


def test_features_without_a_match_are_not_measured(tiny_model: Any) -> None:
    sae = firing_sae(tiny_model)
    huge = sae.decoder_directions.clone()
    huge[3] *= 1000
    result = ablation_effects({3: passages_of(tiny_model)}, replace(sae, decoder_directions=huge), tiny_model, n_draws=2)
    assert not result.found and "nothing to compare" in result.missing[3]


def test_draws_that_are_the_same_are_one_observation(tiny_model: Any) -> None:
    """A single feature can stand in for this one: however often it is drawn, p cannot fall below a half."""
    sae = firing_sae(tiny_model)
    directions = sae.decoder_directions * 1000
    directions[[3, 5]] = sae.decoder_directions[[3, 5]]
    two = replace(sae, decoder_directions=directions)
    effect = ablation_effects({3: passages_of(tiny_model)}, two, tiny_model, n_draws=39).found[3]
    assert (effect.n_draws, effect.n_distinct) == (39, 1) and effect.n_tokens > effect.n_contexts > 1
    for one in (effect.kl, effect.next_token, effect.loss, effect.gain):
        assert one.p == (1 + (abs(one.control) >= abs(one.value))) / 2
        assert one.control == pytest.approx(one.control_interval[0]) == pytest.approx(one.control_interval[1])


def test_p_is_over_the_distinct_draws_of_all_contexts_together(tiny_model: Any) -> None:
    sae, passages, n_draws = firing_sae(tiny_model), passages_of(tiny_model)[:1], 400
    (site,) = ablation._plan({3: passages}, sae, tiny_model, n_draws, 2048, seed=0).sites[3]
    effect = ablation_effects({3: passages}, sae, tiny_model, n_draws=n_draws).found[3]
    drawn = {tuple(site.which[edit].tolist()) for edit in site.edit_of[1:]}
    assert effect.n_distinct == len(drawn) < n_draws
    sizes = [brute_force(tiny_model, sae, site.ids, dict(zip(site.places.tolist(), one, strict=True)))[0] for one in drawn]
    assert effect.kl.p == pytest.approx((1 + sum(size >= effect.kl.value for size in sizes)) / (1 + len(drawn)))

    pair = [replace(site, edit_of=torch.tensor(own)) for own in ([0, 1, 1, 2, 2], [0, 1, 2, 2, 1])]
    assert [ablation._distinct(pair[:1]).numel(), ablation._distinct(pair).numel()] == [2, 4]


def test_the_random_ranks_of_one_feature_are_held_at_a_time(tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """[n_draws, d_sae] of them are 20 MB for 131,072 features."""
    sae, passages = firing_sae(tiny_model), passages_of(tiny_model)
    drawn: list[weakref.ref[Tensor]] = []
    rand = torch.rand

    def counted(*size: int, **options: Any) -> Tensor:
        assert not any(earlier() is not None for earlier in drawn)
        drawn.append(weakref.ref(made := rand(*size, **options)))
        return made

    monkeypatch.setattr(torch, "rand", counted)
    plan = ablation._plan(dict.fromkeys(range(2, 10), passages), sae, tiny_model, 3, 2048, seed=0)
    assert len(plan.sites) == len(drawn) > 1


def test_a_feature_that_writes_a_token_loses_it(tiny_model: Any) -> None:
    """At the last block the residual is read out directly: taking out a token's own unembedding row makes it unlikelier."""
    token = tiny_model.tokenizer(" cruel", add_special_tokens=False)["input_ids"][0]
    sae = firing_sae(tiny_model, block=2)
    row = torch.nn.functional.normalize(tiny_model.unembedding[token].float(), dim=0)
    directions = sae.decoder_directions.clone()
    directions[3] = row * directions[3].norm()
    effect = ablation_effects({3: passages_of(tiny_model)}, replace(sae, decoder_directions=directions), tiny_model).found[3]
    assert effect.losing[0].token == token_strings(tiny_model.tokenizer, [token])[0]
    assert effect.losing[0].value == effect.loss.value < effect.loss.control and effect.loss.p == 1 / 40


def test_together_is_the_same_as_alone_at_a_fraction_of_the_passes(tiny_model: Any) -> None:
    sae, passages = firing_sae(tiny_model), passages_of(tiny_model)
    passes = []
    handle = tiny_model.blocks[-1].register_forward_pre_hook(lambda *_: passes.append(1))
    try:
        alone = {f: ablation_effects({f: passages}, sae, tiny_model, n_draws=2, batch_tokens=4096).found[f] for f in range(2, 12)}
        n_alone = len(passes)
        together = ablation_effects(dict.fromkeys(range(2, 12), passages), sae, tiny_model, n_draws=2, batch_tokens=4096).found
    finally:
        handle.remove()
    assert len(passes) - n_alone < n_alone / 3
    for feature, effect in alone.items():
        for name in ("kl", "next_token", "loss", "gain"):
            left, right = getattr(effect, name), getattr(together[feature], name)
            assert left.value == pytest.approx(right.value, abs=1e-5)
            assert left.control == pytest.approx(right.control, abs=1e-5)
    assert together[3] == ablation_effects(dict.fromkeys(range(2, 12), passages), sae, tiny_model, n_draws=2,
                                           batch_tokens=4096).found[3]  # fmt: skip
