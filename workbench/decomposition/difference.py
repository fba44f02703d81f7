"""The accounting identity for any difference of means: a model before and after, a role and its opposite, two data sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.base.errors import WorkbenchError

from .methods import decoder_of
from .rows import read_row_codes
from .shares import Accounting, Design, account

if TYPE_CHECKING:
    from workbench.saes.interface import SparseAutoencoder


def difference_shares(positive: Sequence[Tensor], negative: Sequence[Tensor], sae: SparseAutoencoder) -> Accounting:
    """Exact shares per feature of mean(positive) - mean(negative), every text weighing the same.

    `positive`, `negative`: the activations [n_tokens, d_model] of each text at the SAE's site, norm sinks left out. Codes are
    never held densely. Returns `Accounting`: vector [d_model], delta_codes [d_sae], shares [d_sae] of |v|^2 (they and `error`
    sum to 1 up to `sum_error`). There are no intervals: those need a design (questions, instructions), which `decompose` has.
    Source: `maths.identity`. Raises WorkbenchError for an empty side or another width, and when both means are equal.
    """
    texts = [*positive, *negative]
    wrong = [tuple(text.shape) for text in texts if text.dim() != 2 or text.shape[1] != sae.d_model or not len(text)]
    if wrong or not (positive and negative):
        found = f"activations of shape {wrong[0]}" if wrong else f"{len(positive)} positive and {len(negative)} negative texts"
        raise WorkbenchError(found, f"texts on both sides, each [n_tokens, {sae.d_model}]", "capture them at the SAE's site")
    names = [str(index) for index in range(len(texts))]
    rows = read_row_codes(((name, text.cpu()) for name, text in zip(names, texts, strict=True)), names, sae)
    weights = [1 / len(positive)] * len(positive) + [-1 / len(negative)] * len(negative)
    difference = torch.tensor(weights, dtype=torch.float64) @ rows.means
    if difference.norm() <= 1e-12 * rows.means.norm(dim=1).max():
        raise WorkbenchError("both sides have the same mean", "two different sides", "check which texts were given")
    return account(rows, Design.of(weights, names, names), decoder_of(sae))
