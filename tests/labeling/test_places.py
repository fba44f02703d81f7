from __future__ import annotations

from collections import Counter

import numpy as np

from workbench.labeling.contexts.places import BestPlaces, Places, scrambled, value_scores, window_texts
from workbench.labeling.contexts.tallies import TokenCounts


def offered(rng: np.random.Generator, n: int) -> Places:
    score = rng.permutation(n)  # all different: the order is not a matter of taste
    small = lambda high: rng.integers(0, high, n)  # noqa: E731
    return Places(small(5), score, np.arange(n), np.arange(n), small(3), small(12))


def best_by_hand(places: Places, capacity: int, per_source: int) -> set[int]:
    kept = set()
    for group in range(5):
        seen, used, n = set(), Counter(), 0
        for row in np.argsort(-places.score):
            if places.group[row] != group:
                continue
            key = int(places.source[row]), int(places.text[row])
            if key not in seen and used[key[0]] < per_source and n < capacity:
                kept.add(int(places.token[row]))
                used[key[0]] += 1
                n += 1
            seen.add(key)
    return kept


def test_the_best_places_are_those_of_a_sort_whatever_the_order():
    rng = np.random.default_rng(0)
    for capacity, per_source in ((4, 2), (7, 7), (3, 1)):
        places = offered(rng, 400)
        best = BestPlaces(capacity, per_source)
        for part in np.array_split(rng.permutation(400), 9):
            some = places[part]
            best.offer(some[best.wanted(some.group, some.score)])
        assert set(best.kept.token.tolist()) == best_by_hand(places, capacity, per_source)
        assert np.array_equal(best.kept.group, np.sort(best.kept.group))


def test_scores_order_by_value_and_break_ties_by_chance():
    values = np.float32([0.1, 3.0, 3.0, 2.5e4, 1e-9])
    scores = value_scores(values, scrambled(np.arange(5)))
    assert np.argsort(scores).tolist()[:2] == [4, 0] and np.argmax(scores) == 3
    assert scores[1] != scores[2] and (scores > 0).all()


def test_equal_windows_have_equal_hashes_and_others_do_not():
    ids = np.int32([5, 6, 7, 5, 6, 7, 5, 6, 0])
    begin, end = np.array([0, 3, 1, 6, 6]), np.array([3, 6, 4, 8, 9])
    first, same, turned, short, zero = window_texts(ids, begin, end, 3).tolist()
    assert first == same and len({first, turned, short, zero}) == 4


def test_token_counts_miss_no_more_than_they_say():
    rng = np.random.default_rng(1)
    counts = TokenCounts(3, 1000, capacity=8)
    true = Counter()
    for _ in range(12):
        features = rng.integers(0, 3, 500)
        tokens = np.minimum(rng.zipf(1.5, 500), 999) * (features > 0)  # the first feature knows one token only
        counts.add(features.astype(np.int32), tokens)
        true.update(zip(features.tolist(), tokens.tolist(), strict=True))
    found = {divmod(int(key), 1000): int(n) for key, n in zip(counts.keys, counts.counts, strict=True)}
    assert counts.missed[0] == 0 and found[0, 0] == true[0, 0]
    assert counts.missed[1] > 0
    for pair, n in true.items():
        assert n - counts.missed[pair[0]] <= found.get(pair, 0) <= n
    assert max(Counter(feature for feature, _ in found).values()) <= 8


def test_an_offer_copies_what_is_kept_once_at_most():
    import tracemalloc

    from workbench.labeling.contexts.places import BLOCK, BestPlaces

    rng, best, n = np.random.default_rng(0), BestPlaces(8, 8), 6 * BLOCK
    groups = np.repeat(np.arange(n // 8), 8)

    def some(group):
        score, text = rng.integers(0, 1 << 60, (2, len(group)))
        return Places(group, score, np.arange(len(group)), np.arange(len(group)), np.zeros(len(group), np.int64), text)

    best.offer(some(groups))
    kept, few = best.kept, some(groups[::64])
    size = sum(getattr(kept, name).nbytes for name in ("group", "score", "token", "document", "source", "text"))
    assert len(kept) == n and size == 40 * n
    tracemalloc.start()
    best.offer(few)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * size
    assert len(best.kept) == n and (np.diff(best.kept.group) >= 0).all()


def test_the_estimate_covers_a_measured_index():
    from workbench.labeling.contexts.tallies import Sizes

    on_disk, in_memory = Sizes().bytes_per_feature()
    assert 10_300 < on_disk < 13_000 and on_disk < in_memory  # 8,192 features over 731,000 tokens took 10,300 bytes each
    assert Sizes(n_top=40).bytes_per_feature()[1] > 1.4 * in_memory
