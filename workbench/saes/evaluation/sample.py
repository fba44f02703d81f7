"""Single tokens of a model at one hook point, kept in memory: a bounded sample that several measures share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.progress import track
from workbench.saes.evaluation.fitness import SINK_RATIO, Row

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.models.hookpoints import HookPoint
    from workbench.models.loading import Model


@dataclass(frozen=True, eq=False, repr=False)
class TokenSample(Shown):
    """`activations [n, d_model]` (float32, CPU) and the tokens `ids [n]` that they stand at; no position 0, no sinks.

    `documents [n]` numbers the rows that the tokens come from, from 0.
    """

    activations: Tensor
    ids: Tensor
    documents: Tensor

    @property
    def n_documents(self) -> int:
        return int(self.documents.max()) + 1 if len(self.documents) else 0

    def __len__(self) -> int:
        return len(self.ids)


def token_sample(
    model: Model,
    hook: HookPoint,
    rows: Sequence[Row],
    *,
    n_tokens: int = 8192,
    batch_tokens: int = 2048,
    n_skipped: int = 1,
    sink_ratio: float | None = SINK_RATIO,
    label: str = "Reading a sample of tokens",
) -> TokenSample:
    """At most `n_tokens` tokens of the rows, in the rows' order; rows after that are not read.

    Raises WorkbenchError when there is not one usable token.
    """
    import torch

    from workbench.models.capture import padded

    limit = float("inf") if sink_ratio is None else sink_ratio * float(model.norm_medians([hook])[0])
    found: list[Tensor] = []
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    n = first = 0
    with track(label, total=n_tokens, unit="tokens") as step, model.hooked({hook: lambda x: found.append(x.detach())}):
        for batch in _batches(rows, batch_tokens):
            if n >= n_tokens:
                break
            ids, mask = padded([row.ids for row in batch], pad=0)
            model.forward(ids, stop_after=hook.block)
            acts = found.pop().float().cpu()
            keep = mask.bool()
            keep[:, :n_skipped] = False
            keep &= acts.norm(dim=-1) <= limit
            places = torch.arange(first, first + len(batch))[:, None].expand_as(keep)
            parts.append((acts[keep][: n_tokens - n], ids[keep][: n_tokens - n], places[keep][: n_tokens - n]))
            first += len(batch)
            n += len(parts[-1][1])
            step(len(parts[-1][1]))
    if not n:
        raise WorkbenchError(
            f"no token is left to sample of {len(rows)} rows",
            "rows of several tokens that are not all sinks",
            "give longer texts",
        )
    return TokenSample(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _batches(rows: Sequence[Row], batch_tokens: int) -> list[list[Row]]:
    """Rows in their order, so that the first rows are the sample."""
    batches: list[list[Row]] = []
    widest = 0
    for row in rows:
        widest = max(widest, len(row.ids))
        if batches and widest * (len(batches[-1]) + 1) <= batch_tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
            widest = len(row.ids)
    return batches
