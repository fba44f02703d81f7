"""Why a reply points along a vector: which features carry its projection, beyond what they carry in neutral replies.

An SAE's decoder is affine, so the mean projection of some tokens on a unit direction u, less that of neutral tokens, is a sum:

    <mean h, u> - <neutral mean h, u>  =  sum_j (mean z_j - neutral mean z_j) <d_j, u>  +  error

with the codes z_j, the decoder rows d_j and the SAE's own error; the decoder's bias cancels. Every feature's part is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.models.prompts import ChatTokens
from workbench.saes.token_rows import activations_at_hooks

if TYPE_CHECKING:
    from workbench.models.model import Model
    from workbench.personas.vectors import PersonaVector
    from workbench.saes.interface import SparseAutoencoder

N_NEUTRAL = 100
"""Neutral replies that the baseline is made of."""


@dataclass(frozen=True, eq=False, repr=False)
class Baseline(Shown):
    """Means over the tokens of neutral replies: activations `mean` [d_model] and codes `codes` [d_sae]."""

    mean: Tensor
    codes: Tensor
    n_tokens: int


@dataclass(frozen=True, eq=False, repr=False)
class Reasons(Shown):
    """A projection beyond neutral, `total` (in units of the residual stream, toward the trait), as the parts of features.

    `features` are (feature, part), the largest parts first (positive: toward the trait); `rest` is what all other features carry
    and `error` what the SAE does not explain. total = sum of the parts + rest + error.
    """

    total: float
    features: tuple[tuple[int, float], ...]
    rest: float
    error: float
    n_tokens: int


@torch.no_grad()
def neutral_baseline(vector: PersonaVector, sae: SparseAutoencoder, *, n_replies: int = N_NEUTRAL) -> Baseline:
    """The baseline of the first neutral replies of a vector whose token activations are stored at the SAE's hook point.

    Raises WorkbenchError where there are none.
    """
    neutral = set(vector.rows.loc[vector.rows["arm"] == "neutral", "id"].iloc[:n_replies])
    stored = vector.tokens.rows(sae.hook) if vector.tokens is not None and sae.hook in vector.tokens.hooks else ()
    rows = [tokens.float() for name, tokens in stored if name in neutral and len(tokens)]
    if not rows:
        raise WorkbenchError(f"the run of {vector.trait} kept no tokens of neutral replies at {sae.hook}",
                             "a finished extraction at the SAE's hook point",
                             "run `workbench extract`, or choose its SAE")  # fmt: skip
    codes = torch.stack([sae.encode(one).sum(dim=0) for one in rows]).sum(dim=0)
    tokens = torch.cat(rows)
    return Baseline(tokens.mean(dim=0), codes / len(tokens), len(tokens))


@torch.no_grad()
def reasons(activations: Tensor, direction: Tensor, sae: SparseAutoencoder, baseline: Baseline, *, n: int = 10) -> Reasons:
    """The reasons for tokens' activations [n_tokens, d_model] at the SAE's hook point to point along `direction` [d_model]."""
    unit = direction.float() / direction.float().norm()
    rows = activations.float()
    total = float((rows.mean(dim=0) - baseline.mean) @ unit)
    parts = (sae.encode(rows).mean(dim=0) - baseline.codes) * (sae.decoder_directions.float() @ unit)
    largest = parts.argsort(descending=True)[:n]
    listed = tuple((int(j), float(parts[j])) for j in largest if float(parts[j]) > 0)
    said = sum(part for _, part in listed)
    return Reasons(total, listed, float(parts.sum()) - said, total - float(parts.sum()), len(rows))


@torch.no_grad()
def reply_activations(model: Model, chat: ChatTokens, sae: SparseAutoencoder, last: int, window: int) -> Tensor:
    """Activations [n_tokens, d_model] of the `window` tokens of a chat's last response up to its 1-based token `last`."""
    start, end = chat.spans["response"][-1]
    stop = min(start + last, end)
    rows = activations_at_hooks(model, [sae.hook], torch.tensor([chat.ids[:stop]]))[sae.hook][0]
    return rows[max(start, stop - window) : stop]
