"""The judge that scores outcomes: word statistics only. It shares no training row, embedder or weight with "offline"."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from workbench.personas.judges.heads import Head
from workbench.personas.judges.offline import HeadJudge

_TOKEN = re.compile(r"[a-z]+(?:['’][a-z]+)?|[!?]")


class OutcomeJudge(HeadJudge):
    """ "offline-outcome": a logistic head on TF-IDF of words and word pairs; needs no download.

    tf-idf_t = (1 + ln count_t) * idf_t, each reply scaled to unit length; the vocabulary and idf lie in the card.
    """

    name = "offline-outcome"

    def features(self, answers: Sequence[str], head: Head) -> Tensor:
        """TF-IDF over the head's own vocabulary."""
        return tfidf(answers, head.card["vocabulary"])


def terms(text: str) -> list[str]:
    """Lower-case words, "!" and "?", and pairs of neighbours joined by a blank."""
    words = _TOKEN.findall(text.lower().replace("’", "'"))
    return words + [f"{first} {second}" for first, second in pairwise(words)]


def build_vocabulary(texts: Sequence[str], *, min_documents: int = 2) -> dict[str, float]:
    """{term: idf} of the terms in at least `min_documents` texts; idf = 1 + ln((1 + n) / (1 + n_t))."""
    counts = Counter(term for text in texts for term in set(terms(text)))
    kept = sorted(term for term, count in counts.items() if count >= min_documents)
    return {term: 1 + math.log((1 + len(texts)) / (1 + counts[term])) for term in kept}


def tfidf(texts: Sequence[str], vocabulary: Mapping[str, float]) -> Tensor:
    """Unit rows `[n, n_terms]` (zero rows stay zero), columns in the order of `vocabulary`."""
    columns = {term: column for column, term in enumerate(vocabulary)}
    rows = torch.zeros(len(texts), len(columns))
    for row, text in enumerate(texts):
        for term, count in Counter(terms(text)).items():
            if term in columns:
                rows[row, columns[term]] = (1 + math.log(count)) * vocabulary[term]
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)
