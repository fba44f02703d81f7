"""Which rows of one dictionary are rows of another: nearest directions, and pairs that choose each other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .geometry import check_widths, reciprocal, row_norms

BLOCK = 2048


@dataclass(frozen=True, eq=False)
class Nearest:
    """For every row of each of two dictionaries the row of the other with the largest cosine, and that cosine.

    `of_a [n_a]` (int64) are rows of b, `cosine_a [n_a]` their cosines (float32); `of_b [n_b]`, `cosine_b [n_b]` the reverse.
    """

    of_a: Tensor
    cosine_a: Tensor
    of_b: Tensor
    cosine_b: Tensor

    def mutual(self, threshold: float) -> Tensor:
        """The pairs `[m, 2]` (row of a, row of b) that are each other's nearest with a cosine of `threshold` or more.

        One to one by construction, and without the choices that an assignment of all rows has to make: a row that splits
        into several in the other dictionary is paired with the nearest of them alone. Ascending in the row of a.
        """
        rows = torch.arange(len(self.of_a))
        keep = (self.of_b[self.of_a] == rows) & (self.cosine_a >= threshold)
        return torch.stack([rows, self.of_a], dim=1)[keep]


def nearest(a: Tensor, b: Tensor, *, block: int = BLOCK) -> Nearest:
    """The nearest rows, by signed cosine, between `a [n_a, d_model]` and `b [n_b, d_model]`; a zero row has cosine 0.

    A direction and its opposite are not the same feature, so the sign counts. `block x n_b` cosines are in memory at a time.
    Laws: exchanging a and b exchanges the two halves; unchanged by positive scaling of rows and by rotating both. Ties go to
    the first row. Raises ValueError when the widths differ.
    """
    check_widths(a, b)
    unit_a, unit_b = (rows.float() * reciprocal(row_norms(rows))[:, None] for rows in (a, b))
    of_a, cosine_a = torch.empty(len(a), dtype=torch.int64), torch.empty(len(a))
    of_b, cosine_b = torch.zeros(len(b), dtype=torch.int64), torch.full((len(b),), -torch.inf)
    for start in range(0, len(a), block):
        cosines = (unit_a[start : start + block] @ unit_b.T).clamp(-1, 1)
        cosine_a[start : start + block], of_a[start : start + block] = cosines.max(dim=1)
        best, place = cosines.max(dim=0)
        better = best > cosine_b
        cosine_b[better], of_b[better] = best[better], place[better] + start
    return Nearest(of_a, cosine_a, of_b, cosine_b)
