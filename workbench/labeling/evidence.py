"""The values that the labeling layer passes around: contexts and what is known of one feature. Nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from workbench.base.display import Shown
from workbench.base.store import content_hash

#: Sources (the part before the first colon) whose text may be passed on: the model's own rollouts, its answers to prompts that
#: were written for this project, CC0 OpenWebText, and text that was written for this project. Contexts from anywhere else are
#: stored by document and position only.
REDISTRIBUTABLE = ("rollouts", "chats-written", "owt", "written")

PEAK_OPEN, PEAK_CLOSE = "«", "»"


@dataclass(frozen=True, repr=False)
class Context(Shown):
    """A stretch of text around the token on which a feature fires hardest.

    `tokens` are readable strings, `values` the feature's activation on each of them (same length), `peak` the index of the
    marked token, `position` the index of that token in the tokenised document. A context whose text may not be passed on has
    no tokens and one value, the peak's (`withheld`): document and position are enough to read it again.
    """

    tokens: tuple[str, ...]
    values: tuple[float, ...]
    peak: int
    source: str
    document: str
    position: int = -1

    @property
    def text(self) -> str:
        """The plain text of the context."""
        return "".join(self.tokens)

    @property
    def peak_value(self) -> float:
        """The activation on the marked token."""
        return self.values[self.peak] if self.values else 0.0

    @property
    def is_withheld(self) -> bool:
        return not self.tokens

    @property
    def is_redistributable(self) -> bool:
        """Whether the text of this context's source may be passed on."""
        return self.source.split(":", 1)[0] in REDISTRIBUTABLE

    def marked(self) -> str:
        """The text with the peak token between « and »; empty when the text is withheld."""
        if self.is_withheld:
            return ""
        before, after = self.tokens[: self.peak], self.tokens[self.peak + 1 :]
        return "".join((*before, PEAK_OPEN, self.tokens[self.peak], PEAK_CLOSE, *after))

    def withheld(self) -> Context:
        """The same place without its text."""
        return replace(self, tokens=(), values=(self.peak_value,), peak=0)


@dataclass(frozen=True, repr=False)
class FeatureEvidence(Shown):
    """What is known of one SAE feature, from the explaining half of the documents.

    `density` is the share of tokens on which it fires and `max_activation` its largest activation, both over everything that was
    read (special tokens and attention sinks apart); `top` are its strongest contexts, strongest first; `quantiles` contexts from
    across its activation quantiles, weakest first; `promoted` and `suppressed` the tokens that its decoder direction makes more
    and less likely, strongest first.
    """

    feature: int
    density: float | None
    max_activation: float | None
    top: tuple[Context, ...] = ()
    quantiles: tuple[Context, ...] = ()
    promoted: tuple[str, ...] = ()
    suppressed: tuple[str, ...] = ()
    n_tokens: int = 0
    sources: Mapping[str, int] = field(default_factory=dict)

    @property
    def contexts(self) -> tuple[Context, ...]:
        """The top contexts, then the quantile-sampled ones."""
        return (*self.top, *self.quantiles)

    @property
    def hash(self) -> str:
        """SHA-256 of what this evidence says, so that a label can name the evidence it was written from."""
        return content_hash(self._document())

    def without_foreign_text(self) -> FeatureEvidence:
        """The same evidence with the text of every source that may not be passed on taken out."""
        return replace(self, top=_withhold(self.top), quantiles=_withhold(self.quantiles))

    def _document(self) -> dict[str, Any]:
        contexts = [
            [c.source, c.document, c.position, list(c.tokens), list(c.values), c.peak] for c in self.contexts
        ]
        return {
            "feature": self.feature,
            "density": self.density,
            "max_activation": self.max_activation,
            "contexts": contexts,
            "n_top": len(self.top),
            "promoted": list(self.promoted),
            "suppressed": list(self.suppressed),
            "n_tokens": self.n_tokens,
        }


def _withhold(contexts: tuple[Context, ...]) -> tuple[Context, ...]:
    return tuple(c if c.is_redistributable else c.withheld() for c in contexts)
