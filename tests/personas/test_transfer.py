"""Carrying vectors to another model: a planted map is found, permuted segments and unrelated models look unrelated."""

from __future__ import annotations

import json
from random import Random

import pytest
import torch

from tests.personas.toy import LexicalJudge, responses
from tests.tiny import tiny_model as make_tiny
from workbench.base.errors import WorkbenchError
from workbench.models.hookpoints import HookPoint
from workbench.models.sampling import Sampling
from workbench.personas.effects import effects_side_by_side, vector_effects
from workbench.personas.extraction import extract
from workbench.personas.placebos import list_placebos, placebo_vectors
from workbench.personas.rollouts import RolloutDesign
from workbench.personas.traits import ReplyPair, load_trait
from workbench.personas.transfer import (
    CarriedPlacebos,
    pair_similarity,
    segment_means,
    similarity_map,
    split_segments,
    transfer,
)
from workbench.personas.transfer_study import Side, placebos_to_push, study

_KNOWN = "the red old big river stone house tree market boat walks stands under over by with and every day cold long town"


def draws(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def named(vectors: torch.Tensor, prefix: str = "") -> dict[str, torch.Tensor]:
    return {f"{prefix}{i}": vector for i, vector in enumerate(vectors)}


@pytest.fixture(scope="module")
def planted():
    x, w = draws(1500, 16, seed=1), draws(16, 12, seed=2)
    y = x @ w + 0.3 * draws(1500, 12, seed=3)
    vectors = draws(7, 16, seed=4)
    return x, y, vectors, vectors @ w + 0.5 * draws(7, 12, seed=5)


def test_vectors_that_correspond_are_found_again(planted):
    x, y, source, target = planted
    found = transfer(x, y, named(source), named(target), min_segments=1000)
    report = found.to_json()
    assert report["retrieval"] == 1 and report["mean_matched"] > 0.95
    assert all(row["p_permuted"] == pytest.approx(1 / 1001) and row["rank"] == 1 for row in report["traits"].values())
    assert report["map"]["r2_held_out"] > 0.9 > 0.1 > report["map"]["r2_permuted"]
    assert (report["map"]["n_segments"], report["map"]["n_permuted"]) == (1200, 1000)


def test_vectors_that_do_not_correspond_look_like_the_null(planted):
    x, y, source, _ = planted
    report = transfer(x, y, named(source), named(draws(7, 12, seed=8)), min_segments=1000).to_json()
    assert abs(report["mean_matched"]) < 0.25 and report["retrieval"] < 0.6
    # Seven p-values of |cosine| or less under the null: all below .1 would be a null that is too weak.
    assert sum(row["p_permuted"] < 0.1 for row in report["traits"].values()) <= 3


def test_texts_that_do_not_correspond_carry_nothing(planted):
    x, _, source, target = planted
    report = transfer(x, draws(1500, 12, seed=9), named(source), named(target), min_segments=1000).to_json()
    assert report["map"]["r2_held_out"] < 0.05 and report["retrieval"] < 0.6
    assert sum(row["p_permuted"] < 0.1 for row in report["traits"].values()) <= 3


def test_placebos_are_carried_beside_the_traits(planted):
    x, y, source, target = planted
    report = transfer(x, y, named(source), named(target), source_placebos=named(source[:3], "p"),
                      target_placebos=named(target[:3], "p"), min_segments=1000).to_json()  # fmt: skip
    assert report["n_placebos"] == 3 and report["placebo_retrieval"] == 1


def test_a_trait_beats_carried_placebos_at_its_own_vector_and_a_placebo_close_to_it_is_left_out(planted):
    x, y, source, target = planted
    close = target[:1] @ torch.linalg.pinv(draws(16, 12, seed=2))  # what the planted map brings right onto the trait
    theirs = torch.cat([close, draws(20, 16, seed=11)]), torch.cat([target[:1], draws(20, 12, seed=12)])
    names = {"source_placebos": named(theirs[0], "p"), "target_placebos": named(theirs[1], "p"), "min_segments": 1000}
    taken = transfer(x, y, named(source), named(target), **names).to_json()["traits"]
    left = transfer(x, y, named(source), named(target), **names, related={"p0": ("0",)}).to_json()["traits"]
    assert taken["0"]["p_placebo"] == pytest.approx(2 / 22) and taken["0"]["n_placebos"] == 21
    assert left["0"]["p_placebo"] == pytest.approx(1 / 21) and left["0"]["n_placebos"] == 20
    for row in left.values():
        assert row["placebo_q95"] < row["cosine"] and row["placebo_own_share_below"] > 0.9
    without = transfer(x, y, named(source), named(target), min_segments=1000).to_json()["traits"]["0"]
    assert without["p_placebo"] is None and without["n_placebos"] == 0


def test_too_few_segments_are_refused(planted):
    x, y, source, target = planted
    with pytest.raises(WorkbenchError, match="at least 5000 neutral segments"):
        transfer(x, y, named(source), named(target))
    with pytest.raises(WorkbenchError, match="fitted on 1200 of 1500"):  # those that are fitted count, not those that are read
        transfer(x, y, named(source), named(target), min_segments=1300)
    with pytest.raises(WorkbenchError, match="0 shared traits"):
        transfer(x, y, named(source), {"other": target[0]}, min_segments=10)


def test_segments_are_whole_and_stand_once():
    assert split_segments(["a b c d e", "a b x"], n_words=2) == ["a b", "c d"]
    assert split_segments(["a b c d e"], n_words=2, limit=1) == ["a b"]


def words(n_documents: int) -> list[str]:
    """Documents of 120 words drawn from a short list: five segments each."""
    random = Random(0)
    known = _KNOWN.split()
    return [" ".join(random.choices(known, k=120)) for _ in range(n_documents)]


def test_a_model_is_like_itself_and_permuted_texts_are_not(tiny_model):
    texts, hooks = split_segments(words(40)), [HookPoint(0), HookPoint(1)]
    means = segment_means(tiny_model, texts, hooks)
    other = segment_means(make_tiny("gemma2", seed=3), texts, hooks)
    same, across = similarity_map(means, means), similarity_map(means, other)
    assert all(same["cka"][i][i] == pytest.approx(1) and same["rsa"][i][i] == pytest.approx(1) for i in (0, 1))
    for name in ("cka", "rsa"):
        assert same[f"{name}_permuted_mean"] <= same[f"{name}_permuted_q95"] <= same[f"{name}_permuted"]
    # Another random model reads the same words: less alike than the model to itself, more than to permuted texts.
    assert across["rsa_permuted"] < 0.1 < min(map(min, across["rsa"])) < max(map(max, across["rsa"])) < 0.9
    pair = pair_similarity(means[:, 0], other[:, 0])
    assert pair["rsa"] == pytest.approx(across["rsa"][0][0]) and pair["n_permuted"] == 200
    assert pair["rsa_permuted_q95"] < 0.1 < pair["rsa"] and pair["cka_permuted_q95"] < pair["cka"]


def side_of(model, folder) -> Side:
    """A side with two planted traits and four placebos, their vectors at the middle block."""
    texts = {"evil": None, "humorous": ("A joke walks into a bar, ha ha!", "The report lists the facts in order.")}
    for name, replies in texts.items():
        trait = load_trait(name)
        frame = responses(trait)
        for arm, text in zip(("positive", "negative"), replies or (), strict=False):
            here = frame["arm"] == arm
            frame.loc[here, "response"] = [f"{text} {question[:10]}" for question in frame.loc[here, "question"]]
        extract(trait, model, judge=LexicalJudge(), rollouts=frame, out=folder / name, hook=HookPoint(1), filter=False,
                n_bootstrap=5, n_random=5).save(folder / name / "vector")  # fmt: skip
    design = RolloutDesign(sampling=Sampling(max_new_tokens=4), batch_size=64)
    placebo_vectors(model, folder / "placebos", design=design, placebos=list_placebos()[:4]).save(folder / "placebos")
    return Side.read(model, {name: folder / name for name in texts}, folder / "placebos")


@pytest.mark.slow
def test_a_model_carried_to_itself_finds_its_block_its_vectors_and_what_they_do(tiny_model, tmp_path):
    side = side_of(tiny_model, tmp_path)
    found = study(side, side, words(150), min_segments=500, n_pushed=3)
    json.dumps(found, allow_nan=False)
    assert found["source_hook"] == found["target_hook"] == str(HookPoint(1)) and found["n_segments"] == 750
    assert found["similarity_used"]["rsa"] == pytest.approx(1) and found["similarity_used"]["rsa_permuted_q95"] < 0.1
    assert found["shared_questions"]["cka"] == pytest.approx(1)
    carried = found["carried"]
    assert carried["map"]["r2_held_out"] > 0.95 and carried["map"]["n_segments"] == 600
    assert carried["retrieval"] == carried["placebo_retrieval"] == 1
    for name, row in carried["traits"].items():
        assert row["cosine"] > 0.95 and row["rank"] == 1 and row["null_q95"] < 0.9 and row["p_permuted"] < 0.05
        assert row["n_placebos"] == len(side.placebos.unrelated(name))
        did = found["behaviour"][name]
        # The identity carries a vector to itself, so that it does what the vector does, beside the same placebos.
        assert did["carried"]["odd"] == pytest.approx(did["own"]["odd"], abs=0.1 * abs(did["own"]["odd"]) + 0.02)
        assert did["carried"]["n_placebos"] == len(did["carried"]["placebos"]) == min(3, row["n_placebos"])
        assert did["carried"]["placebo_interval"][1] > 0 and did["own"]["n_placebos"] == 0
        assert did["carried"]["n_random"] == did["own"]["n_random"] == found["pushed"]["n_random"] == 3


def test_vectors_side_by_side_do_what_each_does_alone_and_a_placebo_like_the_vector_stands_beside_it(tiny_model):
    pairs = [ReplyPair(f"p{i}", kind, f"Q{i}?", f"hate {i}", f"glad {i}", "sealed")
             for i, kind in enumerate(["contrast", "contrast", "contrast", "sad_happy", "sad_happy"])]  # fmt: skip
    ids = [tiny_model.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in ("hate", "glad")]
    toward = tiny_model.unembedding[ids[0]].float() - tiny_model.unembedding[ids[1]].float()
    other, activations = draws(tiny_model.d_model, seed=1), draws(100, tiny_model.d_model, seed=2)
    alone = vector_effects(tiny_model, HookPoint(2), pairs, toward, activations, doses=(1.0,), n_random=30)["1.0"]
    found = effects_side_by_side(tiny_model, HookPoint(2), pairs, {"a": toward, "b": other}, activations, n_random=30,
                                 placebos={"a": torch.stack([-2 * toward, other])})  # fmt: skip
    for name in ("odd", "damage", "specific", "random_interval", "p"):
        assert found["a"][name] == pytest.approx(alone[name], abs=1e-5), name
    # The opposite direction is as far out as the vector itself, whatever its length and sign; the other one is not.
    assert found["a"]["placebo_interval"][1] > 0.9 * found["a"]["odd"] > abs(found["b"]["odd"]) and found["a"]["n_placebos"] == 2
    assert found["b"]["placebo_interval"] is None and found["b"]["p_placebo"] is None


def test_the_placebos_that_are_pushed_are_the_same_for_all_traits_but_for_those_close_to_one():
    vectors = draws(12, 4, seed=1)
    names = tuple(f"p{i}" for i in range(12))
    for seed in range(5):
        free, chosen = placebos_to_push(CarriedPlacebos(names, vectors, vectors), "evil", 4, seed)
        assert len(set(free)) == 4 and torch.equal(chosen, vectors[[names.index(name) for name in free]])
        related = {free[1]: ("evil",)}
        beside = CarriedPlacebos(names, vectors, vectors, related)
        evil, other = (placebos_to_push(beside, trait, 4, seed)[0] for trait in ("evil", "humorous"))
        assert other == free and free[1] not in evil and evil[:3] == [free[0], *free[2:]] and len(evil) == 4
    assert len({tuple(placebos_to_push(beside, "evil", 4, seed)[0]) for seed in range(5)}) > 1
    assert len(placebos_to_push(beside, "evil", 40, 0)[0]) == 11 and placebos_to_push(None, "evil", 4, 0)[0] == []
