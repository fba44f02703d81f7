"""What kind of thing a feature fires on, told from the shape of its contexts: rules that anyone can check by hand."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from workbench.labeling.evidence import Context, FeatureEvidence
from workbench.labeling.words import peak_word

MOST, HALF = 0.7, 0.5
"""The share of contexts from which on they count as being of one type, and as sharing a topic."""
_SPEAKERS = ("system", "user", "assistant")
_CODE = re.compile(
    r"\b(?:def|return|import|elif|const|var|void|printf?|null|NULL|self|struct|#include)\b(?=\s*[\w({:;.=])"
    r"|[{};]\s*(?:\n|$)|\w+\([^()]*\)\s*[;{:]|[A-Za-z0-9]+_[A-Za-z0-9_]+|\b[a-z]+[A-Z]\w*\b|[=!<>]=|->|=>|\w\[\w*\]|</?\w+>|//"
)


@dataclass(frozen=True)
class ContextType:
    """The type ("single token", "word family", "topic", "position", "role", "punctuation", "code" or "mixed"), what in
    particular, and the share of contexts that it covers."""

    kind: str
    what: str
    share: float

    def sentence(self) -> str:
        """One sentence."""
        of = f" ({self.what})" if self.what else ""
        return f"Context type: {self.kind}{of}, {100 * self.share:.0f}% of the contexts."


def context_type(evidence: FeatureEvidence, contexts: Sequence[Context]) -> ContextType:
    """The first rule that at least 70% of the readable contexts obey, "mixed" otherwise.

    In this order: punctuation (the marked token has no letter or digit), code (the text around it reads like code), position
    (one of the first two tokens of a document, and not always the same word), single token (one word), word family (words with
    a common beginning of four letters or more), role (one speaker of a chat, who has at most half of all tokens read). Whether
    the contexts share a topic is for the words to say (`with_topic`).
    """
    rules: tuple[Callable[[FeatureEvidence, Sequence[Context]], tuple[str, str, float]], ...] = (
        _punctuation, _code, _position, _single_token, _word_family, _role,
    )  # fmt: skip
    for rule in rules:
        kind, what, share = rule(evidence, contexts)
        if contexts and share >= MOST:
            return ContextType(kind, what, share)
    return ContextType("mixed", "", 1.0)


def with_topic(found: ContextType, topic: str, share: float, *, known: bool = False) -> ContextType:
    """The same, or "topic" where no rule applied and at least half of the contexts share it, or it is a known concept."""
    return ContextType("topic", topic, share) if found.kind == "mixed" and topic and (known or share >= HALF) else found


def _punctuation(evidence: FeatureEvidence, contexts: Sequence[Context]) -> tuple[str, str, float]:
    marks = [c.tokens[c.peak].strip() for c in contexts if not any(letter.isalnum() for letter in c.tokens[c.peak])]
    common = " ".join(mark for mark, _ in Counter(filter(None, marks)).most_common(3))
    return "punctuation", common or "white space", _share(len(marks), contexts)


def _code(evidence: FeatureEvidence, contexts: Sequence[Context]) -> tuple[str, str, float]:
    return "code", "", _share(sum(len(_CODE.findall(context.text)) >= 2 for context in contexts), contexts)


def _position(evidence: FeatureEvidence, contexts: Sequence[Context]) -> tuple[str, str, float]:
    first = [context for context in contexts if 0 <= context.position <= 1]
    same = max(Counter(map(peak_word, first)).values(), default=0) >= MOST * len(contexts)
    return "position", "the first tokens of a text", 0.0 if same else _share(len(first), contexts)


def _single_token(evidence: FeatureEvidence, contexts: Sequence[Context]) -> tuple[str, str, float]:
    word, count = _most_common(peak_word(context) for context in contexts)
    return "single token", word, _share(count, contexts)


def _word_family(evidence: FeatureEvidence, contexts: Sequence[Context]) -> tuple[str, str, float]:
    words = [word for word in map(peak_word, contexts) if len(word) >= 4 and word[0].isalpha()]
    beginning, _ = _most_common(word[:4] for word in words)
    family = [word for word in words if word.startswith(beginning)] if beginning else []
    stem = _common_beginning(sorted(set(family)))
    short = bool(family) and len(stem) >= 0.5 * max(map(len, family))
    return "word family", f"{stem}-", _share(len(family), contexts) if short else 0.0


def _role(evidence: FeatureEvidence, contexts: Sequence[Context]) -> tuple[str, str, float]:
    speaker, count = _most_common(speaker_of(context.source) for context in contexts)
    read = sum(n for source, n in evidence.sources.items() if speaker_of(source) == speaker)
    rare = 2 * read <= sum(evidence.sources.values())
    return "role", speaker, _share(count, contexts) if speaker and rare else 0.0


def speaker_of(source: str) -> str:
    """Whose words a source holds: the last part of its name ("chat:user"), "assistant" for sampled answers, "" for plain text."""
    parts = source.split(":")
    if parts[-1] in _SPEAKERS:
        return parts[-1]
    return "assistant" if parts[0] in ("rollouts", "given") else ""


def _share(count: int, contexts: Sequence[Context]) -> float:
    return count / len(contexts) if contexts else 0.0


def _most_common(items: Iterable[str]) -> tuple[str, int]:
    counts = Counter(item for item in items if item)
    return min(counts.items(), key=lambda pair: (-pair[1], pair[0]), default=("", 0))


def _common_beginning(words: Sequence[str]) -> str:
    if not words:
        return ""
    first, last = words[0], words[-1]
    n = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[:n]
