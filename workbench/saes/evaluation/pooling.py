"""Texts as vectors: one pass through the model gives raw activations and the codes of any number of SAEs at one hook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.base.display import Shown
from workbench.base.errors import unknown_name
from workbench.base.progress import track
from workbench.saes.evaluation.fitness import check_site, pieces

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.models.loading import Model
    from workbench.models.prompts import ChatTokens
    from workbench.saes.interface import SparseAutoencoder

POOLINGS = ("last", "mean")
TEXT_SPAN = "text"


@dataclass(frozen=True, eq=False, repr=False)
class PooledRows(Shown):
    """`raw [n, d_model]` (float32), per SAE name its `codes` (scipy CSR, [n, d_sae], float32), `n_tokens [n]` that were pooled.

    A row without usable tokens (position 0 and sinks do not count) is zero everywhere.
    """

    raw: Tensor
    codes: Mapping[str, Any]
    n_tokens: Tensor

    def select(self, rows: Tensor) -> PooledRows:
        """The rows of an index or mask `[n]`."""
        chosen = rows.cpu().numpy()
        return PooledRows(self.raw[rows], {k: v[chosen] for k, v in self.codes.items()}, self.n_tokens[rows])


def text_chat(ids: Sequence[int]) -> ChatTokens:
    """Plain text as a row of one span."""
    from workbench.models.prompts import ChatTokens

    return ChatTokens(tuple(ids), {TEXT_SPAN: ((0, len(ids)),)})


def pool(
    model: Model,
    saes: Mapping[str, SparseAutoencoder],
    rows: Sequence[ChatTokens],
    *,
    span: str = TEXT_SPAN,
    pooling: str = "mean",
    batch_tokens: int = 2048,
    label: str = "Encoding texts",
) -> PooledRows:
    """Every row's mean over the tokens of `span`, or its last token there ("last"), raw and as each SAE's codes.

    Codes are pooled after encoding: mean of encode(h_t), never encode(mean h_t). Dense codes exist for a part of one
    batch at a time.
    """
    import torch
    from scipy.sparse import csr_matrix, vstack

    from workbench.models.capture import capture

    if pooling not in POOLINGS:
        raise unknown_name("pooling", pooling, POOLINGS)
    hook = check_site(list(saes.values()), model)
    raw, counts = torch.zeros(len(rows), model.d_model), torch.zeros(len(rows), dtype=torch.int64)
    order: list[int] = []
    parts: dict[str, list[Any]] = {name: [] for name in saes}
    with track(label, total=len(rows), unit="texts") as step:
        for indices, pooled in capture(model, rows, (hook,), span=span, token_hooks=(hook,), batch_tokens=batch_tokens):
            tokens = [one.tokens[hook][-1:] if pooling == "last" else one.tokens[hook] for one in pooled]
            for index, own in zip(indices, tokens, strict=True):
                counts[index] = len(own)
                raw[index] = own.mean(0) if len(own) else 0.0
            for name, sae in saes.items():
                parts[name].append(csr_matrix(_means(sae, tokens).numpy()))
            order += indices
            step(len(indices))
    back = torch.tensor(order).argsort().numpy()
    stacked: dict[str, Any] = {name: vstack(part, format="csr") for name, part in parts.items()}
    return PooledRows(raw, {name: codes[back] for name, codes in stacked.items()}, counts)


def _means(sae: SparseAutoencoder, tokens: Sequence[Tensor]) -> Tensor:
    """Mean codes [n_rows, d_sae] of each row's tokens."""
    import torch

    lengths = torch.tensor([len(own) for own in tokens])
    member = torch.repeat_interleave(torch.arange(len(tokens)), lengths)
    sums = torch.zeros(len(tokens), sae.d_sae)
    flat = torch.cat(list(tokens))
    for part, rows in zip(pieces(flat, sae.d_sae), pieces(member, sae.d_sae), strict=True):
        # A matrix product instead of index_add: deterministic, and as fast for so few rows.
        weights = (rows[None] == torch.arange(len(tokens))[:, None]).float()
        sums += weights @ sae.encode(part).float().cpu()
    return sums / lengths.clamp_min(1)[:, None]
