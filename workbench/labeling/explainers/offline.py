"""An explainer that needs no language model and says so: characteristic words, the nearest plain concept, the type of context."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property

from workbench.base.text import visible
from workbench.labeling.evidence import Context, FeatureEvidence
from workbench.labeling.explainers.concepts import ConceptBank, Embedder, Match, load_concepts
from workbench.labeling.explainers.context_types import ContextType, context_type, with_topic
from workbench.labeling.explainers.protocol import NO_CONTEXTS, Explanation, one_by_one
from workbench.labeling.labels import MAX_CHARACTERS, MAX_WORDS
from workbench.labeling.words import nearby_words, peak_word, without_stop_words

FIRES_ON = "fires on:"
MIN_COSINE, MIN_MARGIN = 0.45, 0.10
MAX_CONFIDENCE = 0.5
_PRIOR = 50.0


class OfflineExplainer:
    """Names a feature by statistics of its contexts. A program's label: nobody has read anything.

    Words: `background` counts the words of everything that was read; a word stands out by the z-score of its log-odds against
    that background, with a Dirichlet prior (Monroe, Colaresi and Quinn 2008, "Fightin' Words").

    Concept: the nearest of the 250 of the concept bank by MiniLM, named only from a cosine of .45 and a lead of .10 on. Measured
    on words of a concept that its vector had not seen: 68% are named, 98% of these rightly; of three words drawn from anywhere
    in the bank 16% get a name, so a name is a hint. MiniLM explains and never scores.

    Type of context: see `context_types`. Confidence: the share of contexts that the words cover, halved, so never above .5; an
    order, not a probability.
    """

    name = "offline"

    def __init__(
        self,
        background: Counter[str],
        *,
        embedder: Embedder | None = None,
        concepts: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.background, self._embedder = background, embedder
        self._concepts = load_concepts() if concepts is None else concepts

    @property
    def author(self) -> Mapping[str, str]:
        """{"kind": "offline", "name": ...}: no person and no language model read anything."""
        return {"kind": "offline", "name": "offline-statistics"}

    def explain(self, evidence: FeatureEvidence) -> Explanation:
        """One feature: its concept where one is near, the words under the peaks, then words around them."""
        contexts = [context for context in evidence.contexts if not context.is_withheld]
        if not contexts:
            return NO_CONTEXTS
        peaks = Counter(word for word in map(peak_word, contexts) if word)
        on = [word for word, _ in standing_out(peaks, self.background)][:4]
        near = self._near(contexts, on)
        found = context_type(evidence, contexts)
        match = None if found.kind in ("punctuation", "position") else self._match(on, contexts)
        covered = sum(peak_word(context) in on for context in contexts) / len(contexts)
        shared = _share_near([*on, *near] if match else near, contexts)
        found = with_topic(found, match.name if match else ", ".join(near), shared, known=match is not None)
        title = match.name if match else _title(found)
        said = _sentence(peaks, near, evidence, contexts, found, match)
        return Explanation(
            _label(title, on, near), said, round(MAX_CONFIDENCE * covered, 2), context_type=found.kind
        )

    def explain_all(self, evidence: Sequence[FeatureEvidence]) -> list[Explanation]:
        """One explanation per feature, in order."""
        return one_by_one(self.explain, evidence)

    @cached_property
    def _bank(self) -> ConceptBank:
        from workbench.labeling.embedders import load_minilm

        return ConceptBank(self._concepts, self._embedder or load_minilm())

    def _match(self, on: Sequence[str], contexts: Sequence[Context]) -> Match | None:
        found = self._bank.match(on, contexts)
        near = found is not None and found.cosine >= MIN_COSINE and found.margin >= MIN_MARGIN
        return found if near else None

    def _near(self, contexts: Sequence[Context], on: Sequence[str]) -> list[str]:
        around = Counter(word for c in contexts for word in set(without_stop_words(nearby_words(c))))
        ordered = standing_out(around, self.background)
        return [w for w, z in ordered if z > 1.0 and around[w] > 1 and w not in on][:3]


def standing_out(counts: Counter[str], background: Counter[str]) -> list[tuple[str, float]]:
    """Words by the z-score of their log-odds against the background, most telling first; ties in alphabetical order."""
    n, total = sum(counts.values()), max(sum(background.values()), 1)
    scored = []
    for word, count in counts.items():
        prior = _PRIOR * (background[word] + 1) / total
        inside = _logit(count + prior, n + _PRIOR)
        outside = _logit(background[word] + prior, total + _PRIOR)
        variance = 1 / (count + prior) + 1 / (background[word] + prior)
        scored.append((word, (inside - outside) / math.sqrt(variance)))
    return sorted(scored, key=lambda item: (-item[1], item[0]))


def label_content(label: str) -> str:
    """The words of a label that say something about the feature: without the offline explainer's own phrases."""
    if FIRES_ON not in label:
        return label
    text = label.replace(f"; {FIRES_ON}", " ").replace(FIRES_ON, " ").replace("; near:", " ").replace('"', "")
    return " ".join(text.split())


def _logit(count: float, total: float) -> float:
    return math.log(count / max(total - count, 1e-9))


def _share_near(words: Sequence[str], contexts: Sequence[Context]) -> float:
    """The share of contexts with one of the words near the peak."""
    return sum(not set(words).isdisjoint(nearby_words(context)) for context in contexts) / len(contexts)


def _title(found: ContextType) -> str:
    titles = {"punctuation": "punctuation", "code": "code", "position": found.what, "role": f"words of the {found.what}"}
    return titles.get(found.kind, "")


def _label(title: str, on: list[str], near: list[str]) -> str:
    """TITLE; fires on: "a", "b"; near: c, d - as much of it as twelve words hold."""
    room = MAX_WORDS - len(title.split()) - len(FIRES_ON.split())
    words: list[str] = []
    for word in on:
        if room >= len(word.split()):
            words.append(f'"{word}"')
            room -= len(word.split())
    text = f"{title}; {FIRES_ON} " if title else f"{FIRES_ON} "
    text += ", ".join(words)
    if near and len(text.split()) + 1 + len(near) <= MAX_WORDS:
        text += "; near: " + ", ".join(near)
    return " ".join(visible(text)[:MAX_CHARACTERS].split()[:MAX_WORDS])  # a control character is a token as good as any


def _sentence(
    peaks: Counter[str], near: list[str], evidence: FeatureEvidence, contexts: Sequence[Context], found: ContextType,
    match: Match | None,
) -> str:  # fmt: skip
    often = ", ".join(f'"{word}" {count} of {len(contexts)}' for word, count in peaks.most_common(4))
    around = f" Words around it: {', '.join(near)}." if near else ""
    promotes = ", ".join(f'"{token.strip()}"' for token in evidence.promoted[:4] if token.strip())
    concept = f" Nearest concept: {match.name} (cosine {match.cosine:.2f})." if match else ""
    return (
        f"Token statistics by a program, nobody read it. Peak word: {often or 'white space'}.{around} Promotes: "
        f"{promotes or 'nothing'}. {found.sentence()}{concept}"
    )
