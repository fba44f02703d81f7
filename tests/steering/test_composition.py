"""Several edits at once: one stated order, whatever the order in which they were listed."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny import tiny_model
from workbench.base.errors import WorkbenchError
from workbench.models.hookpoints import HookPoint
from workbench.saes.interface import SparseAutoencoder
from workbench.steering.apply import steered
from workbench.steering.composition import compose
from workbench.steering.edits import Edit

HOOK, LATER = HookPoint(1), HookPoint(2, "hook_resid_pre")
IDS = torch.arange(9, 29).reshape(2, 10)
U, V, W = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
MODEL = tiny_model("llama", seed=1)


def make_sae(k: int | None = None) -> SparseAutoencoder:
    random = torch.Generator().manual_seed(5)
    encoder, decoder = torch.randn(32, 24, generator=random), torch.randn(24, 32, generator=random)
    return SparseAutoencoder("tiny", HOOK, "tiny", "standard" if k is None else "topk", encoder, torch.zeros(24), decoder,
                             torch.zeros(32), "c" * 64, k=k)  # fmt: skip


def seen(edits, hook=HOOK) -> torch.Tensor:
    kept = []
    with steered(MODEL, edits, prompt_width=4), MODEL.hooked({hook: kept.append}):
        MODEL.forward(IDS)
    return kept[0]


def drawn_edits(seed: int) -> list[Edit]:
    random = torch.Generator().manual_seed(seed)
    row = lambda: torch.randn(32, generator=random)  # noqa: E731
    number = lambda: float(torch.randn(1, generator=random))  # noqa: E731
    scopes = ["prompt", "response", "predicting", "all"]
    scope = lambda: scopes[int(torch.randint(4, (1,), generator=random))]  # noqa: E731
    return [
        Edit.add(row(), 0.4 * number(), hook=HOOK, scope=scope()),
        Edit.add(row(), [0.2 * number(), 0.0], hook=HOOK, scope=scope()),
        Edit.ablate(row(), hook=HOOK, scope=scope()), Edit.ablate(row(), hook=HOOK, scope=scope()),
        Edit.clamp(row(), number(), hook=HOOK, scope=scope()), Edit.cap(row(), number(), hook=HOOK, scope=scope()),
        Edit.cap(row(), number(), hook=HOOK, side="below", scope=scope()), Edit.add(row(), 0.3, hook=LATER),
        Edit.set_feature(make_sae(), 3, 2.0, scope=scope()), Edit.set_feature(make_sae(), 7, scope=scope()),
    ]  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31 - 1), st.randoms(use_true_random=False))
def test_the_order_of_the_list_changes_no_bit(seed: int, shuffler) -> None:
    edits = drawn_edits(seed)
    shuffled = list(edits)
    shuffler.shuffle(shuffled)
    assert torch.equal(seen(edits, LATER), seen(shuffled, LATER))
    assert compose(edits).description() == compose(shuffled).description()


def test_the_stated_order_at_one_token() -> None:
    sae, median = make_sae(), float(MODEL.norm_medians([HOOK])[0])
    unit = {name: row / row.norm() for name, row in (("u", U), ("v", V), ("w", W))}
    edits = [Edit.cap(W, 0.5, hook=HOOK), Edit.add(V, 0.4, hook=HOOK), Edit.set_feature(sae, 2, 1.5), Edit.ablate(U, hook=HOOK)]
    plain = seen([])
    h = plain - (plain @ unit["u"])[..., None] * unit["u"]
    h = h + (1.5 - sae.encode(h)[..., 2])[..., None] * sae.decoder_directions[2]
    h = h + 0.4 * median * unit["v"]
    h = h - (h @ unit["w"] - 0.5).clamp_min(0)[..., None] * unit["w"]
    torch.testing.assert_close(seen(edits), h, rtol=1e-4, atol=1e-4)


def test_ablated_directions_are_all_gone_at_once() -> None:
    near = U / U.norm() + 0.4 * V / V.norm()
    edited = seen([Edit.ablate(U, hook=HOOK), Edit.ablate(near, hook=HOOK), Edit.ablate(U, hook=HOOK)])
    for row in (U, near):
        assert float((edited @ (row / row.norm())).abs().max()) < 1e-4


def test_each_token_has_the_edits_of_its_scopes() -> None:
    median = float(MODEL.norm_medians([HOOK])[0])
    steps = {"prompt": (U, 0.1), "response": (V, 0.2), "predicting": (W, 0.3)}
    moved = seen([Edit.add(row, dose, hook=HOOK, scope=scope) for scope, (row, dose) in steps.items()]) - seen([])
    u, v, w = (dose * median * row / row.norm() for row, dose in steps.values())
    for column, expected in {0: u, 2: u, 3: u + w, 4: v + w, 9: v + w}.items():
        torch.testing.assert_close(moved[:, column], expected.expand(2, 32), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("k", [None, 6])
def test_setting_a_feature_moves_its_own_direction_by_what_it_lacks(k) -> None:
    sae, plain = make_sae(k), seen([])
    codes = sae.encode(plain)
    for value in (0.0, 3.0):
        edited = seen([Edit.set_feature(sae, 4, value)])
        lacking = (value - codes[..., 4])[..., None]
        torch.testing.assert_close(edited, plain + lacking * sae.decoder_directions[4], rtol=1e-4, atol=1e-4)
    silent = codes[..., 4] == 0
    assert bool(silent.any())
    assert torch.equal(seen([Edit.set_feature(sae, 4)])[silent], plain[silent])


def test_removing_features_reads_them_all_before_any_changes() -> None:
    sae, plain = make_sae(), seen([])
    codes = sae.encode(plain)
    expected = plain - codes[..., [4, 5, 6]] @ sae.decoder_directions[[4, 5, 6]]
    torch.testing.assert_close(seen([Edit.set_feature(sae, j) for j in (6, 4, 5)]), expected, rtol=1e-4, atol=1e-4)


def test_adding_a_feature_is_adding_its_decoder_direction() -> None:
    sae = make_sae()
    added = seen([Edit.feature(sae, 4, 0.3)])
    assert torch.equal(added, seen([Edit.add(sae.decoder_directions[4], 0.3, hook=HOOK)]))


def test_nearly_parallel_coordinates_at_different_values_are_refused() -> None:
    near = U + 0.01 * V
    for values in itertools.permutations((1.0, -1.0)):
        pair = [Edit.clamp(row, value, hook=HOOK, label=name) for row, value, name in zip((U, near), values, "ab", strict=True)]
        with pytest.raises(WorkbenchError, match="nearly parallel"):
            compose(pair)
    with pytest.raises(WorkbenchError, match="nearly parallel"):
        compose([Edit.ablate(U, hook=HOOK), Edit.clamp(near, 2.0, hook=HOOK, scope="prompt")])
    compose([Edit.ablate(U, hook=HOOK), Edit.ablate(near, hook=HOOK)])
    compose([Edit.clamp(U, 1.0, hook=HOOK, scope="prompt"), Edit.clamp(near, -1.0, hook=HOOK, scope="response")])
    compose([Edit.clamp(U, 1.0, hook=HOOK), Edit.clamp(near, -1.0, hook=LATER)])
    compose([Edit.clamp(U, 1.0, hook=HOOK).on_rows([True, False]), Edit.clamp(near, -1.0, hook=HOOK).on_rows([False, True])])


def test_doses_add_up_along_the_pass_and_where_scopes_meet() -> None:
    medians = {HOOK: 2.0, LATER: 4.0}
    adds = [Edit.add(U, 0.5, hook=HOOK, scope="prompt"), Edit.add(U, 0.4, hook=HOOK, scope="response")]
    assert compose(adds).dose_in_norms(medians) == pytest.approx(0.5)
    assert compose([*adds, Edit.add(U, 0.25, hook=HOOK)]).dose_in_norms(medians) == pytest.approx(0.75)
    along = [Edit.add(U, 0.5, hook=HOOK), Edit.add(U, 1.0, hook=LATER)]
    assert compose(along).dose_in_norms(medians) == pytest.approx((0.5 * 2 + 1.0 * 4) / 4)
    rows = [Edit.add(U, [0.5, -2.0], hook=HOOK).on_rows([True, False])]
    assert compose(rows).dose_in_norms(medians) == pytest.approx(0.5)
    assert compose([]).dose_in_norms({}) == 0.0
    part = HookPoint(LATER.block, "hook_mlp_out")  # ten times as small as the stream that it is added to
    beside = compose([Edit.add(U, 0.5, hook=HOOK), Edit.add(U, 0.1, hook=part)])
    assert beside.dose_in_norms({HOOK: 2.0, part: 0.2}) == pytest.approx(0.5)


def test_values_for_different_numbers_of_rows_are_refused() -> None:
    with pytest.raises(WorkbenchError, match="2 and 3 rows"):
        compose([Edit.add(U, [0.1, 0.2], hook=HOOK), Edit.clamp(V, [1.0, 2.0, 3.0], hook=HOOK)])
    with pytest.raises(WorkbenchError, match="2 amounts and 3 rows"):
        Edit.add(U, [0.1, 0.2], hook=HOOK).on_rows([True, False, True])


@pytest.mark.parametrize(("make", "words"), [
    (lambda: Edit.add(U, 0.1), "bare tensor"),
    (lambda: Edit.add(torch.zeros(32), 0.1, hook=HOOK), "length 0"),
    (lambda: Edit.add(torch.full((32,), math.nan), 0.1, hook=HOOK), "length nan"),
    (lambda: Edit.add(U, math.nan, hook=HOOK), "dose is nan"),
    (lambda: Edit.clamp(U, math.inf, hook=HOOK), "value is inf"),
    (lambda: Edit.cap(U, math.nan, hook=HOOK), "limit is nan"),
    (lambda: Edit.cap(U, 1.0, hook=HOOK, side="left"), "side 'left'"),
    (lambda: Edit.cap(U, -math.inf, hook=HOOK), "limit is -inf"),
    (lambda: Edit.cap(U, [1.0, math.inf], hook=HOOK, side="below"), "limit is"),
    (lambda: Edit.add(U, "12", hook=HOOK), "dose is '12'"),
    (lambda: Edit.add(U, torch.zeros(2, 2), hook=HOOK), "dose is"),
    (lambda: Edit.add([1.0, 2.0], 0.1, hook=HOOK), "vector of type list"),
    (lambda: Edit.set_feature(make_sae(), 24), "no feature 24"),
    (lambda: Edit.ablate(U, hook=HOOK).scaled(2.0), "no dose"),
    (lambda: Edit.add(U, [], hook=HOOK), "one per row"),
])  # fmt: skip
def test_edits_that_cannot_be_are_refused(make, words: str) -> None:
    with pytest.raises(WorkbenchError, match=words):
        make()


def test_a_hundred_edits_on_a_row_each() -> None:
    ids = torch.arange(9, 13).repeat(100, 1)
    doses = torch.linspace(-0.5, 0.5, 100)
    edits = [Edit.add(U, dose, hook=HOOK).on_rows([row == at for row in range(100)]) for at, dose in enumerate(doses.tolist())]
    kept = []
    for way in (edits, Edit.add(U, doses, hook=HOOK)):
        with steered(MODEL, way), MODEL.hooked({HOOK: kept.append}):
            MODEL.forward(ids)
    torch.testing.assert_close(kept[0], kept[1], rtol=1e-5, atol=1e-5)
