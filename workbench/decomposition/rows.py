"""Mean activation, mean code and mean SAE error of every response, streamed from the stored tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.progress import track

from .streaming import CodeReader

MAX_CODE_CELLS = 2**25  # 128 MiB of float32 codes at a time
N_SAMPLED_TOKENS = 8192
CHECK_EVERY = 64
"""One row in so many has some tokens decoded one by one as well."""


@dataclass(frozen=True, eq=False, repr=False)
class RowCodes(Shown):
    """Per response: `means [n, d_model]` and `errors [n, d_model]` (float64), `codes` sparse `[n, d_sae]` float32.

    Each is the mean over the response's stored (non-sink) tokens; `errors` is the mean of h - decode(encode(h)). A decoder is
    affine, so that mean is mean h - decode(mean code): nothing is decoded token by token, but for some tokens of one row in 64
    (16 up to 16,384 features, then fewer), on which the two may differ by at most 1e-4 of |mean h|; `gap` is the largest
    difference found (None: every token was decoded, because the SAE has a decoder of its own). `sample [m, d_model]` are some
    8,192 of the tokens, evenly spread over the rows. Memory: the pre-activations of one chunk of tokens (128 MiB, or those of
    one response) plus 8 bytes per non-zero mean code, at most 8 x n_rows x min(d_sae, L0 x tokens per response).
    """

    ids: tuple[str, ...]
    means: Tensor
    errors: Tensor
    codes: sparse.csc_matrix
    sample: Tensor
    gap: float | None = None

    @property
    def d_sae(self) -> int:
        """The number of features."""
        return int(self.codes.shape[1])  # pyright: ignore[reportOptionalSubscript]

    def weighted_codes(self, weights: Tensor) -> Tensor:
        """sum_i weights_ki code_i for `weights [k, n]`: `[k, d_sae]` float64."""
        return torch.from_numpy(np.ascontiguousarray((self.codes.T @ weights.double().numpy().T).T))

    def code_blocks(self, block: int = 8192) -> Iterator[tuple[slice, Tensor]]:
        """The mean codes as dense float32 `[n, block]`, one block of features at a time."""
        for start in range(0, self.d_sae, block):
            columns = slice(start, min(start + block, self.d_sae))
            yield columns, torch.from_numpy(self.codes[:, columns].toarray())


def read_row_codes(tokens: Iterable[tuple[str, Tensor]], wanted: Sequence[str], sae: Any) -> RowCodes:
    """Encode the tokens of the `wanted` rows once and keep their means, in the order of `wanted`.

    `tokens` yields (row id, activations [n_tokens, d_model]) in any order, rows that are not wanted among them.
    Raises WorkbenchError when a wanted row is missing or has no tokens, or when the SAE's decoder turns out not to be affine.
    """
    position = {row: index for index, row in enumerate(wanted)}
    keep_per_row = -(-N_SAMPLED_TOKENS // max(1, len(wanted)))
    parts = _Parts(len(wanted), sae)
    with track("decompose: mean codes", len(wanted), "responses") as step:
        for chunk in _chunks(tokens, position, max(1, MAX_CODE_CELLS // sae.d_sae)):
            parts.add(chunk, keep_per_row)
            step(len(chunk))
    _refuse_missing([row for row in wanted if position[row] not in parts.seen])
    return parts.finish(tuple(wanted))


def _chunks(
    tokens: Iterable[tuple[str, Tensor]], position: dict[str, int], max_tokens: int
) -> Iterator[list[tuple[int, Tensor]]]:
    chunk: list[tuple[int, Tensor]] = []
    held = 0
    for row, activations in tokens:
        if row not in position or not len(activations):
            continue
        if chunk and held + len(activations) > max_tokens:
            yield chunk
            chunk, held = [], 0
        chunk.append((position[row], activations.float()))
        held += len(activations)
    if chunk:
        yield chunk


def _refuse_missing(missing: list[str]) -> None:
    if missing:
        raise WorkbenchError(
            f"the stored tokens lack {len(missing)} of the vector's rows (the first is {missing[0]})",
            "the tokens of every row that stands behind the vector",
            "run extract again so that rollouts, tokens and vector belong together",
        )


class _Parts:
    """The rows read so far."""

    def __init__(self, n_rows: int, sae: Any) -> None:
        self.sae, self.n_rows, self.codes = sae, n_rows, CodeReader(sae)
        self.seen: dict[int, tuple[Tensor, Tensor]] = {}
        self.indices: list[np.ndarray] = []
        self.values: list[np.ndarray] = []
        self.owners: list[np.ndarray] = []
        self.sampled: list[Tensor] = []

    def add(self, chunk: list[tuple[int, Tensor]], keep_per_row: int) -> None:
        """Encode the chunk's tokens together and keep the means of each row."""
        rows = [row for row, _ in chunk]
        codes, rebuilt = self.codes.means([tokens for _, tokens in chunk], checked=[row % CHECK_EVERY == 0 for row in rows])
        for index, (row, tokens) in enumerate(chunk):
            mean = tokens.double().mean(dim=0)
            self.seen[row] = mean, mean - rebuilt[index]
            stride = max(1, len(tokens) // keep_per_row)
            self.sampled.append(tokens[::stride][:keep_per_row].clone())
        self._add_codes(torch.tensor(rows, dtype=torch.int32), codes)

    def _add_codes(self, rows: Tensor, codes: Tensor) -> None:
        place, feature = codes.nonzero(as_tuple=True)
        self.owners.append(rows[place].numpy())
        self.indices.append(feature.numpy().astype(np.int32))
        self.values.append(codes[place, feature].numpy())

    def finish(self, ids: tuple[str, ...]) -> RowCodes:
        """Everything in the order of the row ids."""
        owners, indices, values = (np.concatenate(part) for part in (self.owners, self.indices, self.values))
        codes = sparse.csc_matrix(
            (values, (owners, indices)), shape=(self.n_rows, self.sae.d_sae), dtype=np.float32
        )
        order = range(self.n_rows)
        means = torch.stack([self.seen[row][0] for row in order])
        errors = torch.stack([self.seen[row][1] for row in order])
        return RowCodes(ids, means, errors, codes, torch.cat(self.sampled), self.codes.largest_gap)
