from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.labeling.contexts.sightings import N_BINS, Sighting, Sightings, activation_bin, priority


def seen(value: float, document: str, text: int = 0) -> Sighting:
    return Sighting((text or hash(document) % 10_000, 1), (0.0, value), 1, 5, "owt", document, frozenset({3}))


def offer_all(kept: Sightings, offers: list[Sighting]) -> list[int]:
    counts = [0] * N_BINS
    for sighting in offers:
        order, index = priority(sighting.document), activation_bin(sighting.peak_value)
        counts[index] += 1
        if kept.wants_top(sighting.peak_value, order):
            kept.add_top(order, sighting)
        if kept.wants_bin(index, order):
            kept.add_bin(index, order, sighting)
    return counts


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 1000.0), min_size=1, max_size=60))
def test_the_top_windows_are_those_of_the_largest_values(values: list[float]) -> None:
    kept = Sightings(10)
    offer_all(kept, [seen(value, f"d{i}", i + 1) for i, value in enumerate(values)])
    assert [s.peak_value for s in kept.top(10)] == sorted(values, reverse=True)[:10]


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_the_order_of_the_documents_does_not_matter(seed: int) -> None:
    offers = [seen(1.0 + (i * 37 % 50), f"d{i}", i + 1) for i in range(50)]
    one, other = Sightings(8), Sightings(8)
    counts = offer_all(one, offers)
    random.Random(seed).shuffle(offers)
    assert offer_all(other, offers) == counts
    assert one.top(8) == other.top(8)
    assert one.across_quantiles(counts, 5) == other.across_quantiles(counts, 5)


def test_memory_does_not_grow_with_the_number_of_windows() -> None:
    kept = Sightings(10)
    offer_all(kept, [seen(random.Random(i).lognormvariate(0, 2), f"d{i}", i + 1) for i in range(5000)])
    assert len(kept.strongest) == 10
    assert len(kept.bins) <= N_BINS and all(len(windows) <= 3 for windows in kept.bins.values())


def test_no_document_and_no_text_stands_twice() -> None:
    kept = Sightings(20)
    offer_all(
        kept, [seen(9.0, "same", 1), seen(8.0, "same", 2), seen(7.0, "other", 1), seen(6.0, "third", 3)]
    )
    assert [s.peak_value for s in kept.top(10)] == [9.0, 6.0]


def test_quantile_windows_run_from_weak_to_strong_across_the_range() -> None:
    kept = Sightings(5)
    counts = offer_all(kept, [seen(float(i + 1), f"d{i}", i + 1) for i in range(200)])
    values = [s.peak_value for s in kept.across_quantiles(counts, 6)]
    assert values == sorted(values) and len(values) == 6
    # The middles of six quantiles of 1..200 are 17, 50, ..., 183; a bin is at most 19% wide.
    for value, middle in zip(values, (17, 50, 83, 117, 150, 183), strict=True):
        assert 0.8 * middle <= value <= 1.25 * middle


def test_windows_that_are_shown_as_top_are_not_shown_again() -> None:
    kept = Sightings(5)
    counts = offer_all(kept, [seen(float(i + 1), f"d{i}", i + 1) for i in range(12)])
    top = kept.top(5)
    spread = kept.across_quantiles(counts, 6, besides=top)
    assert not {s.document for s in top} & {s.document for s in spread}
