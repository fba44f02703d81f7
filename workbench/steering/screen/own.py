"""The model's own reply to a prompt: the other half of the projection difference, sampled once per distinct prompt and kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.base.randomness import derive_seed
from workbench.base.store import content_hash
from workbench.decomposition.streaming import CodeReader
from workbench.models.generation import Generated, generate
from workbench.models.hookpoints import HookPoint
from workbench.models.prompts import ChatTokens, chat_template_hash
from workbench.models.sampling import Sampling
from workbench.personas.parts import PartHeader, PartStore

if TYPE_CHECKING:
    from workbench.models.loading import Model
    from workbench.saes.interface import SparseAutoencoder

ATTEMPTS = 3
"""So often is a prompt asked when the model answers with nothing."""
_CACHED_PARTS = 8


class OwnReplies:
    """Own replies in `folder`, one part per call that had to sample: mean activations at `hooks`, and mean SAE codes.

    A prompt's reply depends on the prompt, the model, the sampling and the seed; replies that differ in these lie apart. In
    memory: some 200 bytes per distinct prompt.
    """

    def __init__(
        self, folder: Path, model: Model, hooks: Sequence[HookPoint], *, sae: SparseAutoencoder | None = None,
        sampling: Sampling | None = None, batch_size: int = 32, seed: int = 0,
    ) -> None:  # fmt: skip
        self.model, self.hooks, self.sae, self.seed, self.batch_size = model, tuple(hooks), sae, seed, batch_size
        self.sampling = sampling or Sampling(max_new_tokens=48)
        fixed = [model.weights_hash, str(model.dtype), chat_template_hash(model), asdict(self.sampling), seed, batch_size,
                 [str(hook) for hook in hooks], None if sae is None else sae.weights_hash]  # fmt: skip
        self.store = PartStore(folder / f"own-{content_hash(fixed)[:12]}", rows="replies", tensors="means")
        self.store.remove_uncommitted()
        self._places: dict[str, tuple[int, int]] = {}
        self._headers: dict[int, PartHeader] = {}
        for header in self.store.headers():
            self._know(header)
        self._part = lru_cache(maxsize=_CACHED_PARTS)(self._read_part)

    def __contains__(self, prompt: ChatTokens) -> bool:
        return prompt_id(prompt) in self._places

    def of(self, prompts: Sequence[ChatTokens]) -> list[tuple[Tensor, Tensor | None]]:
        """(mean activation `[n_hooks, d_model]`, mean code `[d_sae]` or None) of the own reply to each prompt, NaN where the
        model has nothing to say; what is missing is sampled and committed first."""
        missing = {prompt_id(prompt): prompt for prompt in prompts if prompt not in self}
        if missing:
            self._sample(missing)
        return [self._known(prompt_id(prompt)) for prompt in prompts]

    def text(self, prompt: ChatTokens) -> str:
        """The own reply itself."""
        number, row = self._places[prompt_id(prompt)]
        return self._part(number)[1]["response"][row]

    def _sample(self, missing: dict[str, ChatTokens]) -> None:
        import pyarrow as pa

        found: dict[str, Generated] = {}
        for attempt in range(ATTEMPTS):
            asked = [row for row in missing if row not in found or not _said(found[row])]
            if asked:
                found |= self._generate(asked, missing, attempt)
        ids = list(missing)
        made = [found[row] for row in ids]
        codes = self._codes(made)
        table = pa.table({
            "id": ids, "response": [one.text for one in made], "n_tokens": [len(one.response_ids) for one in made],
            "code_index": pa.array([code.nonzero().flatten().tolist() for code in codes], pa.list_(pa.int32())),
            "code_value": pa.array([code[code != 0].tolist() for code in codes], pa.list_(pa.float32())),
        })  # fmt: skip
        means = torch.stack([torch.empty(0) if one.means is None else one.means for one in made])
        number = max(self._headers, default=-1) + 1
        self._know(self.store.write(number, table, means, {}, hooks=self.hooks))

    def _generate(self, asked: list[str], prompts: dict[str, ChatTokens], attempt: int) -> dict[str, Generated]:
        seeds = [derive_seed("own reply", self.seed, attempt, row) for row in asked]
        token_hooks = () if self.sae is None else (self.sae.hook,)
        found = {}
        for indices, rows in generate(self.model, [prompts[row] for row in asked], self.sampling, row_seeds=seeds,
                                      hooks=self.hooks, token_hooks=token_hooks, batch_size=self.batch_size):  # fmt: skip
            found |= {asked[index]: row for index, row in zip(indices, rows, strict=True)}
        return found

    def _codes(self, made: list[Generated]) -> list[Tensor]:
        if self.sae is None:
            return [torch.zeros(0)] * len(made)
        tokens = [one.tokens[self.sae.hook] for one in made]
        reader, empty = CodeReader(self.sae), torch.zeros(self.sae.d_sae)
        return [reader.means([held], checked=[False])[0][0] if len(held) else empty for held in tokens]

    def _know(self, header: PartHeader) -> None:
        self._headers[header.number] = header
        self._places |= {row_id: (header.number, row) for row, row_id in enumerate(header.ids)}

    def _read_part(self, number: int) -> tuple[Tensor, dict[str, list[Any]]]:
        return self.store.means(self._headers[number], self.hooks), self.store.table(number).to_pydict()

    def _known(self, row_id: str) -> tuple[Tensor, Tensor | None]:
        number, row = self._places[row_id]
        means, table = self._part(number)
        if self.sae is None:
            return means[row], None
        code = torch.zeros(self.sae.d_sae)
        code[torch.tensor(table["code_index"][row], dtype=torch.int64)] = torch.tensor(table["code_value"][row])
        return means[row], code


def prompt_id(prompt: ChatTokens) -> str:
    """The hash of a prompt's token ids."""
    return content_hash(list(prompt.ids))[:24]


def _said(one: Generated) -> bool:
    return one.means is not None and bool(torch.isfinite(one.means).all())
