"""Does the persona's own system prompt work through these features?

The written replies are read twice, without a system prompt and under the trait's positive instructions: the persona's effect
is C(told) - C(plain). In the told run a set S of features is then put back to what it is without the system prompt, token by
token of the same reply, and nothing else is touched:

    h_t  ->  h_t - sum_{j in S} (z_tj(told) - z_tj(plain)) d_j
    mediated share = (C(told) - C(restored)) / (C(told) - C(plain))

Steering asks whether a feature *can* move the model toward the trait; this asks whether the persona *does* move it through the
feature (necessity). What the system prompt does to later blocks by their own attention to it stays as it is, so that putting
back the whole residual ("everything") need not undo the persona. Parts have signs: a set of features can take away more than all
of them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.models.rerun import Batch, Rerun
from workbench.personas.causal import ReplyContrast

from ..methods import decoder_of, encode

if TYPE_CHECKING:
    from workbench.models.model import Model
    from workbench.personas.traits import ReplyPair, Trait
    from workbench.saes.interface import SparseAutoencoder

_CELLS = 1 << 25  # numbers of a dense block of codes: 128 MiB


def positive_prompts(trait: Trait) -> tuple[str, ...]:
    """The trait's positive system prompts, in file order."""
    return tuple(trait.system_prompt(triple, "positive") for triple in trait.instructions)


@dataclass(frozen=True, eq=False, repr=False)
class RowChange(Shown):
    """One reply's changes by the system prompt: `residual [T, d_model]`, and of the codes the entries that are not 0:
    `code` values at (`token`, `feature`) [nnz]."""

    residual: Tensor
    token: Tensor
    feature: Tensor
    code: Tensor

    def reconstructed(self, decoder: Tensor, members: Tensor | None = None) -> Tensor:
        """sum_j (z_tj(told) - z_tj(plain)) d_j `[T, d_model]`, over all features or those where `members [d_sae]` is True."""
        keep = slice(None) if members is None else members[self.feature]
        token, feature, code = self.token[keep], self.feature[keep], self.code[keep]
        found = torch.zeros(len(self.residual), decoder.shape[1])
        return found.index_add_(0, token, code[:, None] * decoder[feature])


class SystemPromptRun:
    """The pairs' replies under `systems` (in turn) and without, at the SAE's hook.

    `effect [n_pairs]` = C(told) - C(plain), nats per token, float64: what the persona's prompt does to the replies.
    Memory: both runs' residuals of the replies, and the codes that changed.
    """

    def __init__(
        self,
        model: Model,
        sae: SparseAutoencoder,
        pairs: Sequence[ReplyPair],
        systems: Sequence[str],
        *,
        batch_tokens: int = 2048,
    ) -> None:
        self.decoder = decoder_of(sae)
        plain = ReplyContrast(model, sae.hook, pairs, batch_tokens=batch_tokens)
        self.told = ReplyContrast(model, sae.hook, pairs, systems=systems, batch_tokens=batch_tokens)
        self.effect = self.told.baseline - plain.baseline
        self.changes = _changes(sae, plain.rerun, self.told.rerun)

    def restored(self, sets: Sequence[Sequence[int]]) -> Tensor:
        """C(restored) - C(told) [n_sets, n_pairs] for each set of features: negative where the set carried the persona."""
        members = torch.zeros(len(sets), len(self.decoder), dtype=torch.bool)
        for row, features in enumerate(sets):
            members[row, list(features)] = True
        return self._edited(len(sets), lambda change, k: change.reconstructed(self.decoder, members[k]))

    @cached_property
    def totals(self) -> dict[str, Tensor]:
        """C(restored) - C(told) [n_pairs] of "everything" (the whole residual), "features" (all of them), "error" (the rest)."""

        def edit(change: RowChange, k: int) -> Tensor:
            features = change.reconstructed(self.decoder)
            return (change.residual, features, change.residual - features)[k]

        return dict(zip(("everything", "features", "error"), self._edited(3, edit), strict=True))

    def predicted(self, weights: Tensor) -> Tensor:
        """First-order C(restored) - C(told) [d_sae] of each feature alone, the pairs weighed by `weights [n_pairs]`.

        -sum_t <dC/dh_t, d_j> (z_tj(told) - z_tj(plain)): one backward pass per reply scores all features.
        """
        total = torch.zeros(len(self.decoder), dtype=torch.float64)
        for batch, gradient in self.told.gradients():
            for n, row in enumerate(batch.rows):
                change = self.changes[row]
                along = (gradient[n].float().cpu()[change.token] * self.decoder[change.feature]).sum(dim=1)
                total.index_add_(0, change.feature, (-weights[row // 2] * change.code.double() * along.double()))
        return total

    def _edited(self, n_edits: int, change_of) -> Tensor:
        def deltas(batch: Batch, chosen: slice) -> Tensor:
            found = torch.zeros(chosen.stop - chosen.start, *batch.valid.shape, self.decoder.shape[1])
            for n, row in enumerate(batch.rows):
                change = self.changes[row]
                for k in range(chosen.start, min(chosen.stop, n_edits)):
                    found[k - chosen.start, n, : len(change.residual)] = -change_of(change, k)
            return found

        # The last edit changes nothing: in 16 bits the edited passes differ a little from the unedited ones.
        edited = self.told.edited_at(n_edits + 1, deltas)
        return edited[:-1] - edited[-1]


def _changes(sae: SparseAutoencoder, plain: Rerun, told: Rerun) -> dict[int, RowChange]:
    """Per row, what the system prompt changed; a reply has the same tokens in both runs, from the last prompt token on."""
    before = {row: batch.residual[n, batch.valid[n]].float() for batch in plain.batches for n, row in enumerate(batch.rows)}
    found = {}
    for batch in told.batches:
        for n, row in enumerate(batch.rows):
            after = batch.residual[n, batch.valid[n]].float()
            codes = torch.cat([_difference(sae, new, old) for new, old in _pieces(after, before[row], sae.d_sae)])
            token, feature = codes.nonzero().unbind(1)
            found[row] = RowChange((after - before[row]).cpu(), token, feature, codes[token, feature])
    return found


def _pieces(after: Tensor, before: Tensor, d_sae: int) -> zip[tuple[Tensor, Tensor]]:
    size = max(1, _CELLS // d_sae)
    return zip(after.split(size), before.split(size), strict=True)


def _difference(sae: SparseAutoencoder, after: Tensor, before: Tensor) -> Tensor:
    return (encode(sae, after) - encode(sae, before)).cpu()
