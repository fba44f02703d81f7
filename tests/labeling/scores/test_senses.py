from __future__ import annotations

import random
from collections import Counter

import numpy as np
import torch

from tests.labeling.planted import FILLER, THEMES, toy_embedder
from workbench.labeling.evidence import Context, FeatureEvidence
from workbench.labeling.scores.polysemanticity import _p_value, best_split, senses_of

BACKGROUND = Counter(FILLER * 50)


def context(words: list[str], number: int) -> Context:
    tokens = tuple(f" {word}" for word in words)
    peak = len(words) // 2
    values = tuple(2.0 if i == peak else 0.0 for i in range(len(words)))
    return Context(tokens, values, peak, "written", f"d{number}", peak)


def contexts_about(theme: int, n: int, seed: int) -> list[Context]:
    rng = random.Random(seed)
    made = []
    for number in range(n):
        words = [*rng.choices(THEMES[theme], k=3), *rng.choices(FILLER, k=4)]
        rng.shuffle(words)
        made.append(context(words, 100 * seed + number))
    return made


def evidence(*contexts: Context) -> FeatureEvidence:
    return FeatureEvidence(7, 0.01, 2.0, top=tuple(contexts))


def noisy(texts: list[str]) -> torch.Tensor:
    """Counts of the themes' words, with a little noise that is the same for a text every time."""
    base = toy_embedder([*THEMES.values()])(texts)
    noise = [np.random.default_rng(sum(map(ord, text))).normal(size=base.shape[1]) for text in texts]
    return base + 0.15 * torch.tensor(np.array(noise), dtype=base.dtype)


def test_two_planted_senses_are_found_and_named() -> None:
    mixed = [*contexts_about(1, 8, 1), *contexts_about(3, 6, 2)]
    found = senses_of(evidence(*mixed), BACKGROUND, embed=noisy)  # type: ignore[arg-type]
    assert found.is_polysemantic and len(found.senses) == 2 and found.p is not None and found.p <= 0.05
    assert [len(sense.contexts) for sense in found.senses] == [8, 6]
    assert set(found.senses[0].words) <= {*THEMES[1]} and set(found.senses[1].words) <= {*THEMES[3]}
    assert all(sense.words for sense in found.senses)


def test_one_planted_sense_stays_one() -> None:
    found = senses_of(evidence(*contexts_about(2, 14, 3)), BACKGROUND, embed=noisy)  # type: ignore[arg-type]
    assert not found.is_polysemantic and len(found.senses) == 1 and len(found.senses[0].contexts) == 14
    assert set(found.senses[0].words) & {*THEMES[2]}


def test_single_clouds_are_seldom_split_and_separate_ones_mostly() -> None:
    single, double = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        points = rng.standard_normal((16, 5)) * np.array([2, 1.5, 1, 1, 0.8])
        single.append(_p_value(points, best_split(points, 0)[0], 39, seed) <= 0.05)
        if seed < 5:
            points = rng.standard_normal((16, 3))
            points[:8, 0] += 12
            double.append(_p_value(points - points.mean(0), best_split(points, 0)[0], 39, seed) <= 0.05)
    assert sum(single) <= 3  # binomial(12, .05) exceeds 3 with probability .002
    assert sum(double) >= 4


def test_lengths_of_the_embeddings_are_no_senses() -> None:
    """One cloud of directions with log-normal lengths: a few long vectors alone would be taken for clusters."""
    contexts, flagged = contexts_about(2, 16, 3), []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        cloud = torch.tensor(rng.standard_normal((16, 64)) * np.exp(rng.normal(0, 0.8, (16, 1))))
        found = senses_of(evidence(*contexts), BACKGROUND, embed=lambda _, cloud=cloud: cloud, n_null=39, seed=seed)
        flagged.append(found.is_polysemantic)
    assert sum(flagged) <= 1  # 4 with their lengths, none without


def test_clusters_have_at_least_three_contexts() -> None:
    rng = np.random.default_rng(0)
    points = rng.standard_normal((14, 3))
    points[0] += 50
    _, groups = best_split(points, 0)
    assert min(Counter(groups).values()) >= 3


def test_few_or_withheld_contexts_are_one_sense_without_a_test() -> None:
    few = contexts_about(0, 5, 4)
    found = senses_of(evidence(*few, *(c.withheld() for c in contexts_about(1, 9, 5))), BACKGROUND, embed=noisy)  # type: ignore[arg-type]
    assert not found.is_polysemantic and found.p is None and len(found.senses[0].contexts) == 5


def test_the_senses_are_the_same_every_time() -> None:
    mixed = evidence(*contexts_about(1, 6, 1), *contexts_about(0, 6, 2))
    twice = [senses_of(mixed, BACKGROUND, embed=noisy, n_null=39) for _ in range(2)]  # type: ignore[arg-type]
    assert twice[0] == twice[1]
    assert set(twice[0].record()) == {"polysemantic", "p", "silhouette", "senses"}
