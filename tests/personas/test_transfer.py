"""Carrying vectors to another model: a planted map is found, permuted segments and unrelated models look unrelated."""

from __future__ import annotations

import pytest
import torch

from tests.tiny import tiny_model as make_tiny
from workbench.base.errors import WorkbenchError
from workbench.models.hookpoints import HookPoint
from workbench.personas.transfer import segment_means, similarity_map, split_segments, transfer

NAMES = tuple("abcdefg")


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
    assert all(row["p_permuted"] == pytest.approx(1 / 21) and row["rank"] == 1 for row in report["traits"].values())
    assert report["map"]["r2_held_out"] > 0.9 > 0.1 > report["map"]["r2_permuted"]


def test_vectors_that_do_not_correspond_look_like_the_null(planted):
    x, y, source, _ = planted
    report = transfer(x, y, named(source), named(draws(7, 12, seed=8)), min_segments=1000).to_json()
    assert abs(report["mean_matched"]) < 0.25 and report["retrieval"] < 0.6


def test_placebos_are_carried_beside_the_traits(planted):
    x, y, source, target = planted
    report = transfer(x, y, named(source), named(target), source_placebos=named(source[:3], "p"),
                      target_placebos=named(target[:3], "p"), min_segments=1000).to_json()  # fmt: skip
    assert report["n_placebos"] == 3 and report["placebo_retrieval"] == 1


def test_too_few_segments_are_refused(planted):
    x, y, source, target = planted
    with pytest.raises(WorkbenchError, match="at least 5000 neutral segments"):
        transfer(x, y, named(source), named(target))
    with pytest.raises(WorkbenchError, match="0 shared traits"):
        transfer(x, y, named(source), {"other": target[0]}, min_segments=10)


def test_segments_are_whole_and_stand_once():
    assert split_segments(["a b c d e", "a b x"], n_words=2) == ["a b", "c d"]
    assert split_segments(["a b c d e"], n_words=2, limit=1) == ["a b"]


def test_a_model_is_like_itself_and_permuted_texts_are_not(tiny_model):
    texts = [f"the {a} river {b} stone {c}" for a in ("red", "old", "big", "wet") for b in ("my", "is", "of", "or")
             for c in ("house", "tree", "and so", "with a dog")]  # fmt: skip
    hooks = [HookPoint(0), HookPoint(1)]
    means = segment_means(tiny_model, texts, hooks)
    other = segment_means(make_tiny("gemma2", seed=3), texts, hooks)
    same, across = similarity_map(means, means), similarity_map(means, other)
    assert all(same["cka"][i][i] == pytest.approx(1) and same["rsa"][i][i] == pytest.approx(1) for i in (0, 1))
    assert same["rsa_permuted"] < 0.3 and max(map(max, across["rsa"])) < 1
