"""Explanations of features: one protocol, and an explainer that needs no language model and says so."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from workbench.base.errors import unknown_name
from workbench.labeling.evidence import Context, FeatureEvidence
from workbench.labeling.labels import MAX_CHARACTERS, MAX_WORDS
from workbench.labeling.words import nearby_words, peak_word, without_stop_words

FIRES_ON = "fires on:"
_PRIOR = 50.0


@dataclass(frozen=True)
class Explanation:
    """A label of at most 12 words, one or two sentences, and how sure the explainer is (0 to 1)."""

    label: str
    explanation: str
    confidence: float


class Explainer(Protocol):
    """Whoever puts evidence into words. `author` is what the label is signed with."""

    @property
    def name(self) -> str: ...
    @property
    def author(self) -> Mapping[str, str]: ...
    def explain(self, evidence: FeatureEvidence) -> Explanation: ...


@dataclass(frozen=True)
class TokenStatistics:
    """Names a feature by the words that stand out where it fires. A statistic, not a reading.

    `background` counts the words of everything that was read: a word stands out by the z-score of its log-odds against that
    background, with a Dirichlet prior (Monroe, Colaresi and Quinn 2008, "Fightin' Words").
    """

    background: Counter[str]
    name: str = "offline-token-statistics"

    @property
    def author(self) -> Mapping[str, str]:
        """{"kind": "offline", "name": ...}: no person and no language model read anything."""
        return {"kind": "offline", "name": self.name}

    def explain(self, evidence: FeatureEvidence) -> Explanation:
        """The words under the peak first, then words around it; confidence = share of contexts that they cover, halved."""
        contexts = [context for context in evidence.contexts if not context.is_withheld]
        if not contexts:
            return Explanation("unclear: no contexts", "The feature fired on nothing that was read.", 0.0)
        peaks = Counter(word for word in map(peak_word, contexts) if word)
        on = [word for word, _ in standing_out(peaks, self.background)][:4] or [
            w for w, _ in peaks.most_common(2)
        ]
        around = Counter(word for c in contexts for word in set(without_stop_words(nearby_words(c))))
        near = [
            w for w, z in standing_out(around, self.background) if z > 1.0 and around[w] > 1 and w not in on
        ][:3]
        covered = sum(peak_word(context) in on for context in contexts) / len(contexts)
        return Explanation(
            _label(on, near), _sentence(peaks, near, evidence, contexts), round(covered / 2, 2)
        )


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


def make_explainer(name: str | Explainer, background: Counter[str]) -> Explainer:
    """The explainer of that name ("offline"), or the explainer itself."""
    if not isinstance(name, str):
        return name
    if name != "offline":
        raise unknown_name("explainer", name, ["offline"])
    return TokenStatistics(background)


def label_content(label: str) -> str:
    """The words of a label that say something about the feature: without the offline explainer's own phrases."""
    text = label.removeprefix(FIRES_ON) if label.startswith(FIRES_ON) else label
    return text.replace("; near:", " ").replace('"', " ").strip()


def _logit(count: float, total: float) -> float:
    return math.log(count / max(total - count, 1e-9))


def _label(on: list[str], near: list[str]) -> str:
    text = f"{FIRES_ON} " + ", ".join(f'"{word}"' for word in on)
    if near and len(text.split()) + 1 + len(near) <= MAX_WORDS:
        text += "; near: " + ", ".join(near)
    return " ".join(text[:MAX_CHARACTERS].split()[:MAX_WORDS])


def _sentence(
    peaks: Counter[str], near: list[str], evidence: FeatureEvidence, contexts: Iterable[Context]
) -> str:
    n = sum(1 for _ in contexts)
    often = ", ".join(f'"{word}" {count} of {n}' for word, count in peaks.most_common(4))
    around = f" Words around it: {', '.join(near)}." if near else ""
    promotes = ", ".join(f'"{token.strip()}"' for token in evidence.promoted[:4] if token.strip())
    return f"Token statistics by a program, nobody read it. Peak word: {often}.{around} Promotes: {promotes or 'nothing'}."
