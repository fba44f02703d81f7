"""Detection by a sentence embedder: how near a label is to the words up to the marked token, and to the marked word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from workbench.base.display import Shown
from workbench.labeling.evidence import Context
from workbench.labeling.explainers.offline import label_content
from workbench.labeling.scores.examples import Example
from workbench.labeling.scores.forms import form_words, forms_of
from workbench.labeling.scores.protocol import DETECTION, Label, refuse_same_embedder, wording

if TYPE_CHECKING:
    import numpy as np

_BREAKS = (" ", "\n", "\t")


@dataclass(eq=False, repr=False)
class SentenceScorer(Shown):
    """score = cos(label, the `reach` tokens up to the marked one) + cos(label, the marked word) + `form_weight` x the share of
    the label's form words that the context's form has (`forms.form_words`).

    Cosines between MiniLM sentence embeddings of the label (without its explanation) and of the two stretches of text. Only the
    order of the scores means something. For labels that MiniLM did not help to write: people's and language models'. The offline
    explainer reads with MiniLM, so its labels are refused, or with `allow_same_embedder` get an upper bound.

    Chosen on the labels that ship, after word vectors had failed on them, so their scores by it lean upward. Also tried there: a
    window around the mark instead of the words up to it, the whole context, other form weights, the explanation beside the label.
    """

    reach: int = 10
    form_weight: float = 0.5
    allow_same_embedder: bool = False
    embedder: str = "minilm"
    kind: str = "sentence_detection_auroc"
    task: str = DETECTION
    threshold: float | None = None
    _known: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def description(self) -> Mapping[str, Any]:
        """{kind, embedder, reach, form_weight}."""
        return {"kind": self.kind, "embedder": self.embedder, "reach": self.reach, "form_weight": self.form_weight}

    def scores(self, label: Label, examples: Sequence[Example]) -> list[float | None]:
        """One number per example, from -2 to 2.5. Raises WorkbenchError for a label that the same embedder explained."""
        if not self.allow_same_embedder:
            refuse_same_embedder(label, self.embedder)
        said = wording(label)[0]
        parts = [self._parts(example.context) for example in examples]
        self._embed([said, *(text for pair in parts for text in pair)])
        target, forms = self._known[said], form_words(label_content(said))
        return [self._score(target, forms, pair, example.context) for pair, example in zip(parts, examples, strict=True)]

    def _score(self, target: np.ndarray, forms: frozenset[str], parts: tuple[str, str], context: Context) -> float:
        share = len(forms & forms_of(context)) / len(forms) if forms else 0.0
        return float(sum(target @ self._known[text] for text in parts)) + self.form_weight * share

    def _parts(self, context: Context) -> tuple[str, str]:
        before = "".join(context.tokens[max(0, context.peak - self.reach) : context.peak + 1]).strip()
        return before or ".", marked_word(context)

    def _embed(self, texts: Sequence[str]) -> None:
        """Embed what is not known yet, texts of like length together."""
        from workbench.labeling.embedders import load_minilm

        new = sorted({text for text in texts if text not in self._known}, key=len)
        self._known.update(zip(new, load_minilm()(new, batch_size=128).numpy(), strict=True))


def marked_word(context: Context) -> str:
    """The whole word that the marked token is a piece of, as it is written; "." for a blank."""
    tokens, first, last = context.tokens, context.peak, context.peak
    while first > 0 and not tokens[first].startswith(_BREAKS):
        first -= 1
    while last + 1 < len(tokens) and not tokens[last + 1].startswith(_BREAKS):
        last += 1
    return "".join(tokens[first : last + 1]).strip() or "."
