"""The concept bank: plain concepts with a few words each, and which of them a feature's contexts are nearest to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.labeling.evidence import Context

if TYPE_CHECKING:
    from torch import Tensor

Embedder = Callable[[Sequence[str]], "Tensor"]

BANK = Path(__file__).parent / "data" / "concepts.yaml"
N_CONTEXTS, WINDOW = 10, 8
WORDS_WEIGHT = 0.5


@dataclass(frozen=True)
class Match:
    """The nearest concept: its name, its cosine with the feature's centroid, and how far it is ahead of the next one."""

    name: str
    cosine: float
    margin: float


@lru_cache(maxsize=4)
def load_concepts(path: Path = BANK) -> Mapping[str, tuple[str, ...]]:
    """Concept name -> its words, from the data file of the package."""
    import yaml

    stored = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {str(name): tuple(map(str, words)) for name, words in stored.items()}


class ConceptBank:
    """The bank in an embedder's space.

    A concept is the mean of the embeddings of its name and of its words; the mean over the whole bank is taken out of every
    vector, because all short texts have a direction in common.
    """

    def __init__(self, concepts: Mapping[str, Sequence[str]], embed: Embedder) -> None:
        self.concepts, self.embed = concepts, embed

    @cached_property
    def _centred(self) -> tuple[Tensor, Tensor]:
        """(unit vectors [n_concepts, d], the mean [d] that was taken out)."""
        import torch

        named = self.embed(list(self.concepts))
        worded = self.embed([", ".join(words) for words in self.concepts.values()])
        vectors = torch.nn.functional.normalize(named + worded, dim=-1)
        mean = vectors.mean(0)
        return torch.nn.functional.normalize(vectors - mean, dim=-1), mean

    def match(self, words: Sequence[str], contexts: Sequence[Context]) -> Match | None:
        """The concept nearest to a feature's centroid: half its characteristic words, half the text around its peaks.

        None when the embedder knows nothing of either.
        """
        centroid = self._centroid(words, contexts)
        if centroid is None:
            return None
        vectors, _ = self._centred
        best, second = (vectors @ centroid).topk(2)
        names = list(self.concepts)
        first = int(second[0])
        return Match(names[first], round(float(best[0]), 3), round(float(best[0] - best[1]), 3))

    def _centroid(self, words: Sequence[str], contexts: Sequence[Context]) -> Any:
        import torch

        texts = [text for text in map(around_peak, contexts[:N_CONTEXTS]) if text]
        if not words and not texts:
            return None
        _, mean = self._centred
        rows = self.embed([", ".join(words), *texts]) - mean
        parts = [(WORDS_WEIGHT, rows[0])] if words else []
        parts += [(1 - WORDS_WEIGHT, rows[1:].mean(0))] if texts else []
        total = torch.stack([weight * torch.nn.functional.normalize(row, dim=-1) for weight, row in parts]).sum(0)
        return torch.nn.functional.normalize(total, dim=-1) if float(total.norm()) > 1e-6 else None


def around_peak(context: Context, *, window: int = WINDOW) -> str:
    """The text within `window` tokens of the marked token."""
    return "".join(context.tokens[max(context.peak - window, 0) : context.peak + window + 1]).strip()
