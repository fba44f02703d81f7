"""Mean codes of responses and what they rebuild, at about the speed of the encoder's matrix product.

One product gives the pre-activations of a chunk of responses, in memory that is used again for the next chunk. The activation
function and the sum over tokens then run on a piece at a time, while its numbers are in the cache. A decoder is affine:

    mean_t decode(z_t) = decode(mean_t z_t)

so decoding costs one product per response, not per token. That is measured on some tokens, not taken for granted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from workbench.base.errors import WorkbenchError
from workbench.saes.interface import SparseAutoencoder

from .methods import encode

PIECE_CELLS = 2**18  # 1 MiB of float32 codes at a time pass the activation function
N_CHECKED_TOKENS = 16
"""Tokens of a checked response that are decoded one by one."""
MAX_GAP = 1e-4


class CodeReader:
    """Mean codes of responses on `sae`, chunk after chunk. `largest_gap`: see `means`; None while nothing was checked."""

    def __init__(self, sae: Any) -> None:
        self.sae = sae
        self.affine = _is_ours(sae, "decode")
        self.fused = _is_ours(sae, "encode")
        self.largest_gap: float | None = None
        self._buffer = torch.empty(0)

    @torch.no_grad()
    def means(self, responses: Sequence[Tensor], *, checked: Sequence[bool]) -> tuple[Tensor, Tensor]:
        """(mean codes `[n, d_sae]`, means of what the codes rebuild `[n, d_model]`) of `responses` [n_tokens, d_model] each.

        Both float32 on the CPU. Of the responses that are `checked` the first 16 tokens are decoded one by one as well:
        |mean_t decode(z_t) - decode(mean_t z_t)| / |mean_t h_t| is the gap, and `largest_gap` keeps the largest. An SAE whose
        `decode` is not that of `SparseAutoencoder` has every token decoded. Raises WorkbenchError when a gap exceeds 1e-4.
        """
        means, rebuilt = [], []
        for tokens, held, check in zip(responses, self._products(responses), checked, strict=True):
            total = torch.zeros(self.sae.d_sae, device=held.device)
            decoded = []
            for start, codes in self._pieces(held):
                total += codes.sum(dim=0)
                decoded += [] if self.affine else [self.sae.decode(codes).float().sum(dim=0)]
                if check and self.affine and start == 0:
                    self._check(tokens, codes[:N_CHECKED_TOKENS])
            means.append(total / len(tokens))
            rebuilt += [torch.stack(decoded).sum(dim=0) / len(tokens)] if decoded else []
        mean_codes = torch.stack(means)
        return mean_codes.cpu(), (self.sae.decode(mean_codes) if self.affine else torch.stack(rebuilt)).float().cpu()

    def _products(self, responses: Sequence[Tensor]) -> Sequence[Tensor]:
        """Per response what `_pieces` makes codes from: x @ encoder, or the codes of an SAE with an encoder of its own."""
        sae, lengths = self.sae, [len(tokens) for tokens in responses]
        if not self.fused:
            return encode(sae, torch.cat(list(responses))).split(lengths)
        if len(self._buffer) < sum(lengths):
            self._buffer = torch.empty(sum(lengths), sae.encoder.shape[1], device=sae.device)
        inputs = torch.empty(sum(lengths), sae.d_model, device=sae.device)
        for tokens, place in zip(responses, inputs.split(lengths), strict=True):
            place.copy_(tokens).sub_(sae.decoder_bias) if sae.subtract_bias else place.copy_(tokens)
        return torch.mm(inputs, sae.encoder, out=self._buffer[: len(inputs)]).split(lengths)

    def _pieces(self, held: Tensor) -> Iterator[tuple[int, Tensor]]:
        """(first token, codes) of a response, some tokens at a time."""
        size = max(1, PIECE_CELLS // self.sae.d_sae)
        for start in range(0, len(held), size):
            piece = held[start : start + size]
            yield start, self.sae.activate(piece.add_(self.sae.encoder_bias)) if self.fused else piece

    def _check(self, tokens: Tensor, codes: Tensor) -> None:
        each, together = self.sae.decode(codes).float().mean(dim=0), self.sae.decode(codes.mean(dim=0)).float()
        gap = float((each - together).norm() / tokens[: len(codes)].mean(dim=0).norm().to(each.device).clamp_min(1e-30))
        self.largest_gap = max(gap, self.largest_gap or 0.0)
        if not gap <= MAX_GAP:
            raise WorkbenchError(
                f"the mean of decoded codes and the decoded mean code differ by {gap:.1e} of the mean activation",
                f"at most {MAX_GAP:.0e}: a decoder is affine",
                f"check the weights of {self.sae.id} for values that are not finite (`workbench sae eval` measures its fit)",
            )


def _is_ours(sae: Any, method: str) -> bool:
    """Whether the SAE computes this in the way of `SparseAutoencoder`."""
    return getattr(type(sae), method, None) is getattr(SparseAutoencoder, method)
