"""Mean codes read in one product per chunk equal encoding and decoding token by token."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.decomposition.planted_world import make_sae
from workbench.base.errors import WorkbenchError
from workbench.decomposition.rows import read_row_codes
from workbench.decomposition.streaming import CodeReader
from workbench.saes.interface import SparseAutoencoder


def responses(n: int = 9) -> list[torch.Tensor]:
    source = torch.Generator().manual_seed(0)
    return [3 * torch.randn(2 + 7 * i, 24, generator=source) for i in range(n)]


class Bent(SparseAutoencoder):
    """A decoder that is not affine."""

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return super().decode(codes).square()


KINDS = {
    "jumprelu": {"architecture": "jumprelu", "threshold": torch.linspace(-0.5, 1.5, 20)},
    "topk": {"architecture": "topk", "k": 4},
    "standard": {"encoder_bias": torch.linspace(-1, 1, 20)},
    "raw": {"subtract_bias": False},
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_equals_encoding_and_decoding_every_token(kind: str) -> None:
    sae, held = make_sae(**KINDS[kind]), responses()
    rows = read_row_codes(((str(i), h) for i, h in enumerate(held)), [str(i) for i in range(len(held))], sae)
    for i, h in enumerate(held):
        codes = sae.encode(h)
        torch.testing.assert_close(torch.from_numpy(rows.codes[i].toarray()[0]), codes.mean(0), atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(rows.errors[i].float(), (h - sae.decode(codes)).mean(0), atol=1e-5, rtol=0)
    assert rows.gap is not None and 0 < rows.gap < 1e-5


def test_a_threshold_below_zero_lets_nothing_negative_through() -> None:
    sae = make_sae(architecture="jumprelu", threshold=torch.full((20,), -1.0))
    codes = sae.activate(torch.linspace(-2, 2, 20))
    torch.testing.assert_close(codes, torch.linspace(-2, 2, 20).relu())


def test_a_decoder_of_its_own_decodes_every_token() -> None:
    plain = make_sae()
    bent, held = Bent(**vars(plain)), responses(3)
    rows = read_row_codes(((str(i), h) for i, h in enumerate(held)), ["0", "1", "2"], bent)
    expected = torch.stack([(h - bent.decode(bent.encode(h))).mean(0) for h in held])
    torch.testing.assert_close(rows.errors.float(), expected, atol=1e-4, rtol=1e-4)
    assert rows.gap is None


def test_a_gap_between_tokens_and_means_is_refused() -> None:
    broken = make_sae()
    reader = CodeReader(replace(broken, decoder_bias=torch.full((24,), torch.nan), subtract_bias=False))
    with pytest.raises(WorkbenchError, match="a decoder is affine"):
        reader.means(responses(1), checked=[True])
