"""How far an edit of any kind moves the model on neutral text, and the dose at which one moves it a stated distance.

Norms compare vectors; KL compares what they do: KL(p_unedited || p_edited), nats per token, on the package's neutral sentences.
Directions at equal KL are the fair null of a steering effect, as a direction that nothing reads can be long and do nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.base.store import content_hash, read_json, write_json
from workbench.models.capture import padded
from workbench.personas.causal import MAX_DOSE_NORMS, doses_for_kl, neutral_snippets

from ..apply import steered
from .treatments import edits_key

if TYPE_CHECKING:
    from workbench.models.model import Model

    from ..edits import Edit

_TOGETHER = 256  # positions whose logits exist at once


class NeutralShift:
    """`shift(edits)` is the mean KL in nats per token over all tokens but each sentence's first; edits act on all tokens.

    As `personas.causal.NeutralText`, which is faster, but for edits of any kind at any number of blocks.
    """

    def __init__(self, model: Model, snippets: Sequence[str] | None = None, *, folder: str | Path | None = None) -> None:
        self._folder = None if folder is None else Path(folder) / "doses"
        rows = [model.tokenizer(text)["input_ids"] for text in snippets or neutral_snippets()]
        self.model = model
        self.ids, self.mask = (side.to(model.device) for side in padded([row for row in rows if len(row) > 1], pad=0))
        self._counted = self.mask.bool().clone()
        self._counted[:, 0] = False
        with model.without_hooks():
            self._reference = torch.cat(list(self._logprobs()))

    def __call__(self, edits: Sequence[Edit]) -> float:
        with steered(self.model, [replace(edit, scope="all") for edit in edits]):
            parts = zip(self._reference.split(_TOGETHER), self._logprobs(), strict=True)
            return sum(float((before.exp() * (before - after)).sum()) for before, after in parts) / len(self._reference)

    def dose(self, edits_at: Callable[[float], Sequence[Edit]], kl: float, *, start: float = 0.25) -> float:
        """The dose above 0 at which the mean KL of both signs is `kl` within 2%, or the largest that is allowed.

        With a folder, what was found is kept there.
        """
        if self._folder is None:
            return self._searched(edits_at, kl, start)
        key = [self.model.weights_hash, str(self.model.dtype), self.ids.tolist(), edits_key(edits_at(1.0)), round(kl, 6)]
        path = self._folder / f"{content_hash(key)[:24]}.json"
        if not path.is_file():
            write_json(path, {"kl": kl, "dose": self._searched(edits_at, kl, start)})
        return read_json(path)["dose"]

    def _searched(self, edits_at: Callable[[float], Sequence[Edit]], kl: float, start: float) -> float:
        def of_both(signed: Tensor) -> Tensor:
            return torch.tensor([self(edits_at(float(dose))) for dose in signed.flatten()], dtype=torch.float64)

        return float(doses_for_kl(of_both, torch.ones(1, 1), kl, start=start, cap=MAX_DOSE_NORMS).norms)

    @torch.no_grad()
    def _logprobs(self):
        hidden = self.model.decoder(input_ids=self.ids, attention_mask=self.mask, use_cache=False).last_hidden_state
        for rows in hidden[self._counted].split(_TOGETHER):
            yield self.model.logits_of(rows).float().log_softmax(dim=1)
