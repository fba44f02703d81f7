from __future__ import annotations

import pytest
import torch

from workbench.base.randomness import generator
from workbench.models.hookpoints import HookPoint
from workbench.personas.placebos import PlaceboVectors
from workbench.steering.diff.shifts import Site, largest_z

D_MODEL, T, HOOK = 16, 5, HookPoint(2)


def drawn(n: int, seed: int) -> torch.Tensor:
    """Rows whose variance falls over dimensions, as activations' does."""
    return torch.randn(n, D_MODEL, generator=generator(seed)) * torch.linspace(4, 0.2, D_MODEL)


def site(seed: int = 0, *, placebos: bool = True, n_random: int = 400, vectors: torch.Tensor | None = None) -> Site:
    rows = drawn(T, 1000 + seed) if vectors is None else vectors
    names, related = tuple(f"p{i}" for i in range(20)), (("t0",), *((),) * 19)
    contrasts = PlaceboVectors(names, related, (HOOK,), drawn(20, 2000 + seed)[:, None], {})
    return Site(HOOK, {f"t{i}": row for i, row in enumerate(rows)}, contrasts if placebos else None, drawn(3000, 7), 2.0,
                n_random=n_random, family=T, seed=seed)  # fmt: skip


def test_a_shift_is_the_projection_in_norms_and_z_counts_standard_deviations_of_tokens():
    vectors = torch.eye(D_MODEL)[:T] * 3
    differences = torch.zeros(6, D_MODEL, dtype=torch.float64)
    differences[:, 0], differences[:, 1] = 1.0, torch.tensor([0.5, 1.5] * 3)
    rows = site(vectors=vectors).shifts("prompt", differences, n_bootstrap=300)
    assert [round(row.shift, 6) for row in rows] == [0.5, 0.5, 0, 0, 0]
    spread = drawn(3000, 7).std(dim=0)
    assert rows[0].z == pytest.approx(1 / float(spread[0]), rel=1e-5)
    assert rows[0].interval == pytest.approx((0.5, 0.5)) and rows[1].interval[0] < 0.5 < rows[1].interval[1]
    assert rows[1].z_interval == pytest.approx(tuple(edge * 2 / float(spread[1]) for edge in rows[1].interval), rel=1e-5)
    assert largest_z(rows) is rows[1]


def test_the_length_of_a_vector_does_not_matter_and_its_sign_does():
    differences = drawn(8, 3).double()
    rows = site().shifts("reply", differences, n_bootstrap=50)
    longer = site(vectors=7 * drawn(T, 1000)).shifts("reply", differences, n_bootstrap=50)
    turned = site(vectors=-drawn(T, 1000)).shifts("reply", differences, n_bootstrap=50)
    for one, same, other in zip(rows, longer, turned, strict=True):
        assert one.z == pytest.approx(same.z) and one.shift == pytest.approx(same.shift)
        assert one.z == pytest.approx(-other.z) and one.p == other.p


def test_limits_are_where_p_is_five_percent_and_related_placebos_do_not_count():
    rows = site().shifts("prompt", drawn(8, 4).double(), n_bootstrap=20)
    assert [row.n_placebos for row in rows] == [19, 20, 20, 20, 20]
    for row in rows:
        assert row.placebo_limit is not None and row.p_placebo is not None
        assert (row.p_placebo <= 0.05) == (abs(row.z) >= row.placebo_limit)
        assert row.limit == max(row.placebo_limit, row.random_limit)


def test_directions_that_are_no_different_from_placebos_raise_an_alarm_in_at_most_five_percent_of_families():
    """200 families: with a rate of .05 more than 20 alarms have a probability of .2%."""
    alarmed = 0
    for seed in range(200):
        shift = drawn(1, 5000 + seed).double().repeat(2, 1)
        rows = site(seed, n_random=99).shifts("prompt", shift, n_bootstrap=2)
        alarmed += any(row.p <= 0.05 for row in rows)
    assert alarmed <= 20


def test_without_placebos_the_random_directions_decide():
    toward = 50 * drawn(T, 1000)[2].double()
    rows = site(placebos=False).shifts("prompt", toward.repeat(3, 1), n_bootstrap=5)
    assert rows[2].p_placebo is None and rows[2].n_placebos == 0
    assert rows[2].installed and rows[2].p == rows[2].p_random == pytest.approx(1 / 401)


def test_the_span_holds_a_shift_made_of_the_vectors_and_little_of_any_other():
    vectors = drawn(T, 1000)
    inside = (vectors[0] - 2 * vectors[3]).double().repeat(2, 1)
    found = site().span(inside)
    assert found.share == pytest.approx(1.0) and found.n_vectors == T
    outside = torch.linalg.svd(vectors.double())[2][-1].repeat(2, 1)
    assert site().span(outside).share == pytest.approx(0.0, abs=1e-12)
    assert site().span(torch.zeros(2, D_MODEL, dtype=torch.float64)).share == 0
    assert 0 < found.random_share < found.random_share_95 <= 1
