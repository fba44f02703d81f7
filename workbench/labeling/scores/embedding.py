"""Detection without a language model: how near a label's words are to the words around the marked token.

What was tried is told in `EmbeddingScorer`; it was chosen on labels of a smaller, earlier reading, against negatives of one kind
of source.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from workbench.base.display import Shown
from workbench.labeling.evidence import Context
from workbench.labeling.explainers.offline import label_content
from workbench.labeling.scores.examples import Example
from workbench.labeling.scores.forms import form_words, forms_of
from workbench.labeling.scores.protocol import DETECTION, Label, refuse_same_embedder, wording
from workbench.labeling.words import STOP_WORDS, words_of

if TYPE_CHECKING:
    import numpy as np

    from workbench.labeling.embedders import WordVectors

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")


@dataclass(eq=False, repr=False)
class EmbeddingScorer(Shown):
    """score = cos(label, context) + the share of the label's form words that the context's form has.

    label: the IDF-weighted mean GloVe vector of the words of label and explanation that are no stop words (a program's
    statistics are no explanation and are left out). context: the same of its words, weighted by exp(-distance / `reach`) in
    tokens from the marked one, the marked word counting `peak_weight` times.
    Form words ("comma", "capitalised", "second token") are those of `forms.form_words`; a label without any gets no such term.
    Only the order of the scores means something.

    Mean AUROC over 67 labels of an earlier reading on random / neighbour / same-token negatives. These negatives came from one
    kind of source, the contexts in which the feature fires from all, so that whatever tells the kinds of source apart counts
    too: the numbers set the variants side by side and say nothing of negatives drawn from all sources. Label alone, 5 words on
    either side .64 / .57 / .61; with its explanation .69 / .62 / .64; by distance .70 / .63 / .65 (reach 1 to 12 all within
    .01); the marked word three times .71 / .64 / .65; best matching word instead of the mean .69 / .64 / .64; first principal
    components taken out .69 / .62 / .64; form as word vectors .71 / .65 / .66; form as words .76 / .66 / .68 (kept). On those
    same negatives swapped labels got .53 / .52 / .54 with every variant.
    """

    reach: float = 6.0
    peak_weight: float = 3.0
    form_weight: float = 1.0
    vectors: WordVectors | None = None
    embedder: str = "glove"
    kind: str = "embedding_detection_auroc"
    task: str = DETECTION
    threshold: float | None = None
    _contexts: dict[Context, np.ndarray] = field(default_factory=dict, repr=False)

    def description(self) -> Mapping[str, Any]:
        """{kind, embedder, reach, peak_weight, form_weight}."""
        settings = {"reach": self.reach, "peak_weight": self.peak_weight, "form_weight": self.form_weight}
        return {"kind": self.kind, "embedder": self.embedder, **settings}

    def scores(self, label: Label, examples: Sequence[Example]) -> list[float | None]:
        """One number per example, from -1 to 2. Raises WorkbenchError for a label that the same embedder explained."""
        refuse_same_embedder(label, self.embedder)
        said, explanation = wording(label)
        if not isinstance(label, str) and label.author.get("kind") == "offline":
            explanation = ""  # counts and numbers, in the same phrases for every feature
        content = label_content(said)
        target = self._embed_text(f"{content} {explanation}")
        forms = form_words(content)
        return [self._score(target, forms, example.context) for example in examples]

    def _score(self, target: np.ndarray, forms: frozenset[str], context: Context) -> float:
        share = len(forms & forms_of(context)) / len(forms) if forms else 0.0
        return float(target @ self._embed_context(context)) + self.form_weight * share

    def _embed_text(self, text: str) -> np.ndarray:
        words = words_of(text)
        telling = [word for word in words if word not in STOP_WORDS] or words
        return self._embed(telling, [1.0] * len(telling))

    def _embed_context(self, context: Context) -> np.ndarray:
        if context not in self._contexts:
            import numpy as np

            found = words_by_distance(context)
            distances = np.abs(np.array([distance for _, distance in found], dtype=float))
            weights = np.exp(-distances / self.reach) * np.where(distances == 0, self.peak_weight, 1.0)
            self._contexts[context] = self._embed([word for word, _ in found], weights.tolist())
        return self._contexts[context]

    def _embed(self, words: Sequence[str], weights: Sequence[float]) -> np.ndarray:
        """The mean of unit word vectors [d], weighted by IDF (log of the frequency rank) and `weights`, of unit norm."""
        import numpy as np

        ranks = [self._glove.rank.get(word) for word in words]
        known = [(rank, weight) for rank, weight in zip(ranks, weights, strict=True) if rank is not None]
        total = np.zeros(self._glove.vectors.shape[1])
        for rank, weight in known:
            vector = self._glove.vectors[rank] - self._glove.mean
            total += weight * np.log1p(rank) * vector / max(float(np.linalg.norm(vector)), 1e-9)
        norm = float(np.linalg.norm(total))
        return total / norm if norm > 1e-9 else total

    @cached_property
    def _glove(self) -> WordVectors:
        if self.vectors is not None:
            return self.vectors
        from workbench.labeling.embedders import load_glove

        return load_glove()


def words_by_distance(context: Context) -> list[tuple[str, int]]:
    """(word, tokens between it and the marked token: 0 for the marked word itself) for each word of the context."""
    starts, length = [], 0
    for token in context.tokens:
        starts.append(length)
        length += len(token)
    place, found = 0, []
    for match in _WORD.finditer(context.text):
        while place + 1 < len(starts) and starts[place + 1] <= match.start():
            place += 1
        last = place
        while last + 1 < len(starts) and starts[last + 1] < match.end():
            last += 1
        distance = max(place - context.peak, context.peak - last, 0)
        found.append((match.group().lower().replace("’", "'"), distance))
    return found
