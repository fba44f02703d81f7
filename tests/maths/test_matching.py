"""Matching of dictionaries: what is the same is found, once, and nothing else is."""

from __future__ import annotations

import pytest
import torch

from workbench.maths.matching import nearest


def rows(n: int, seed: int, width: int = 40) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def test_the_rows_of_a_shuffled_and_scaled_copy_are_all_found() -> None:
    a = rows(30, 0)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    scales = torch.rand(30, generator=torch.Generator().manual_seed(2)) + 0.1
    pairs = nearest(a, a[order] * scales[:, None]).mutual(0.99)
    assert pairs[:, 0].tolist() == list(range(30)) and torch.equal(order[pairs[:, 1]], torch.arange(30))


def test_an_opposite_row_and_a_zero_row_are_no_match() -> None:
    a = rows(10, 0)
    b = a.clone()
    b[3], b[4] = -a[3], 0
    assert nearest(a, b).mutual(0.7)[:, 0].tolist() == [j for j in range(10) if j not in (3, 4)]


def test_a_split_row_is_paired_once_with_its_nearest_part() -> None:
    a, noise = rows(5, 0, 400), rows(2, 9, 400)
    b = torch.cat([a[:4], a[4:] + 0.2 * noise[:1], a[4:] + 0.5 * noise[1:]])
    found = nearest(a, b)
    assert found.mutual(0.7).tolist() == [[j, j] for j in range(5)]
    assert found.of_b[5] == 4 and found.cosine_b[5] > 0.8  # near, but not one to one


@pytest.mark.parametrize("block", [1, 7, 2048])
def test_blocks_change_nothing_and_exchanging_the_sides_exchanges_the_halves(block: int) -> None:
    a, b = rows(23, 3), rows(31, 4)
    whole = torch.nn.functional.normalize(a, dim=1) @ torch.nn.functional.normalize(b, dim=1).T
    found, back = nearest(a, b, block=block), nearest(b, a, block=block)
    assert torch.equal(found.of_a, whole.argmax(dim=1)) and torch.equal(found.of_b, whole.argmax(dim=0))
    torch.testing.assert_close(found.cosine_a, whole.max(dim=1).values)
    assert torch.equal(found.of_a, back.of_b) and torch.equal(found.mutual(0.1), back.mutual(0.1).flip(1)[
        back.mutual(0.1)[:, 1].argsort()])  # fmt: skip


def test_unrelated_rows_do_not_match_and_widths_must_agree() -> None:
    assert len(nearest(rows(200, 5, 100), rows(200, 6, 100)).mutual(0.7)) == 0
    with pytest.raises(ValueError, match="d_model"):
        nearest(rows(3, 0), rows(3, 0, 41))
