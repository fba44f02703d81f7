from __future__ import annotations

import pytest
import torch

from tests.decomposition.test_causal import sae_of
from workbench.base.errors import WorkbenchError
from workbench.base.randomness import generator
from workbench.decomposition.difference import difference_shares
from workbench.decomposition.methods import encode

D_MODEL = 12


def texts(n: int, seed: int, shift: float = 0.0) -> list[torch.Tensor]:
    rng = generator(seed)
    return [shift + torch.randn(int(torch.randint(3, 9, (1,), generator=rng)), D_MODEL, generator=rng) for _ in range(n)]


def test_shares_of_any_two_sides_sum_to_one_and_rebuild_their_difference():
    sae = sae_of(torch.randn(40, D_MODEL, generator=generator(3)))
    positive, negative = texts(7, 0, 0.4), texts(5, 1)
    found = difference_shares(positive, negative, sae)
    mean = [torch.stack([text.double().mean(dim=0) for text in side]).mean(dim=0) for side in (positive, negative)]
    torch.testing.assert_close(found.vector, mean[0] - mean[1])
    codes = [torch.stack([encode(sae, text).double().mean(dim=0) for text in side]).mean(dim=0) for side in (positive, negative)]
    torch.testing.assert_close(found.delta_codes, codes[0] - codes[1], atol=1e-5, rtol=1e-4)
    assert float(found.shares.sum()) + found.error == pytest.approx(1, abs=1e-5)
    turned = difference_shares(negative, positive, sae)
    torch.testing.assert_close(turned.shares, found.shares)


@pytest.mark.parametrize(
    ("positive", "negative", "said"),
    [
        ([], texts(2, 0), "0 positive and 2 negative"),
        (texts(2, 0), [torch.zeros(3, 5)], r"\(3, 5\)"),
        (texts(2, 0), [torch.zeros(0, D_MODEL)], r"\(0, 12\)"),
        (texts(2, 0), texts(2, 0), "the same mean"),
    ],
)
def test_what_is_no_difference_is_refused(positive, negative, said):
    with pytest.raises(WorkbenchError, match=f"(?i){said}"):
        difference_shares(positive, negative, sae_of(torch.eye(D_MODEL)))
