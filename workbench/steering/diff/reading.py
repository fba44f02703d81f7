"""Both models' activations on the same tokens: means per place, mean codes of an SAE, streamed text by text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.decomposition.rows import RowCodes, read_row_codes
from workbench.models.capture import capture

from .texts import PLACES, DiffText

if TYPE_CHECKING:
    from workbench.models.hookpoints import HookPoint
    from workbench.models.model import Model

N_SAMPLED = 4096
"""Tokens per hook from which the covariance of the activations is taken."""


@dataclass(frozen=True, eq=False, repr=False)
class Reading(Shown):
    """One model's inside. Per place the texts that are looked at there: `ids`, `means [n, n_hooks, d_model]` (float32), how many
    tokens entered each (`counts [n]`, sinks left out), and with an SAE their mean `codes`. `sample` {hook: [m, d_model]}: single
    tokens from replies and unrelated text, evenly spread."""

    ids: Mapping[str, tuple[str, ...]]
    means: Mapping[str, Tensor]
    counts: Mapping[str, Tensor]
    codes: Mapping[str, RowCodes]
    sample: Mapping[HookPoint, Tensor]


def read(model: Model, texts: Sequence[DiffText], hooks: Sequence[HookPoint], sae: Any = None) -> Reading:
    """What `model` has at `hooks` over every place of `texts`, and its mean codes on `sae` (at its own hook).

    Memory is that of one batch and of one chunk of codes. Raises WorkbenchError for an SAE of another width.
    """
    if sae is not None and sae.d_model != model.d_model:
        raise WorkbenchError(
            f"the SAE {sae.id} reads d_model={sae.d_model} but {model.name} has {model.d_model}",
            "an SAE of this model", "choose one with `workbench sae list`",
        )  # fmt: skip
    found = _Places(model, hooks, sae)
    for place in PLACES:
        found.add(place, [text for text in texts if place in text.tokens.spans])
    sample = {hook: torch.cat(parts) for hook, parts in found.sampled.items() if parts}
    return Reading(found.ids, found.means, found.counts, found.codes, sample)


@dataclass
class _Places:
    """What was read so far."""

    model: Model
    hooks: Sequence[HookPoint]
    sae: Any
    ids: dict[str, tuple[str, ...]] = field(default_factory=dict)
    means: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, Tensor] = field(default_factory=dict)
    codes: dict[str, RowCodes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sampled: dict[HookPoint, list[Tensor]] = {hook: [] for hook in self.hooks}

    def add(self, place: str, texts: Sequence[DiffText]) -> None:
        """Read one place of these texts; nothing when there are none."""
        if not texts:
            return
        self.ids[place] = tuple(text.id for text in texts)
        self.means[place] = torch.zeros(len(texts), len(self.hooks), self.model.d_model)
        self.counts[place] = torch.zeros(len(texts), dtype=torch.long)
        stream = self._stream(place, texts)
        if self.sae is None:
            for _ in stream:
                pass
            return
        # A text all of whose tokens are sinks has no code; it stands in with a zero token and leaves with its count of 0.
        self.codes[place] = read_row_codes(stream, self.ids[place], self.sae)

    def _stream(self, place: str, texts: Sequence[DiffText]) -> Iterator[tuple[str, Tensor]]:
        """(id, tokens at the SAE's hook) text by text, keeping means, counts and a sample on the way."""
        wanted = [*self.hooks, *([self.sae.hook] if self.sae is not None else [])]
        sampled = self.hooks if place in ("reply", "unrelated") else ()
        token_hooks = list(dict.fromkeys([*sampled, *wanted[len(self.hooks) :]]))
        each = max(1, N_SAMPLED // (2 * len(texts)))
        rows = [text.tokens for text in texts]
        for indices, pooled in capture(self.model, rows, self.hooks, span=place, token_hooks=token_hooks):
            for index, one in zip(indices, pooled, strict=True):
                self.means[place][index] = one.means.nan_to_num()
                self.counts[place][index] = one.n_tokens - one.n_sinks
                for hook in sampled:
                    tokens = one.tokens[hook]
                    self.sampled[hook].append(tokens[:: max(1, len(tokens) // each)][:each].clone())
                if self.sae is not None:
                    tokens = one.tokens[self.sae.hook]
                    yield texts[index].id, tokens if len(tokens) else torch.zeros(1, self.model.d_model)


@dataclass(frozen=True, eq=False, repr=False)
class Paired(Shown):
    """Two readings of the same texts, place by place without the texts of which the two models left out different tokens."""

    before: Reading
    after: Reading
    kept: Mapping[str, Tensor]
    """Per place, the indices of the texts that count."""
    n_dropped: int

    def differences(self, place: str, hook: int) -> Tensor:
        """After minus before `[n_kept, d_model]` (float64) at the hook of that index."""
        rows = self.kept[place]
        return self.after.means[place][rows, hook].double() - self.before.means[place][rows, hook].double()


def paired(before: Reading, after: Reading) -> Paired:
    """The readings side by side; a text with another count of sinks on one side is left out, since its tokens are not the same.

    Raises WorkbenchError when a place keeps fewer than two texts.
    """
    kept, n_dropped = {}, 0
    for place, counts in before.counts.items():
        same = (counts == after.counts[place]) & (counts > 0)
        kept[place] = same.nonzero()[:, 0]
        n_dropped += int((~same).sum())
        if len(kept[place]) < 2:
            raise WorkbenchError(
                f"{len(kept[place])} texts are left at the {place}, of {len(counts)}",
                "at least two texts with tokens that are no attention sink in either model",
                "give more prompts, or check that the model after the fine-tune is not broken",
            )
    return Paired(before, after, kept, n_dropped)
