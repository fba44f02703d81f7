"""Adherence without a judge model: has the reply left the default assistant's, and is it this role that it went toward?

What it can tell: whether a reply's words come nearer to a role's description than the default's replies to the same question do.
What it cannot: whether manner and content are right. A reply that talks about a role, or repeats words of its prompt, counts as
one that plays it; a role that plays itself in other words than its description's does not. It has no scale of its own: its
thresholds are those that the default's replies rarely reach (`FALSE_RATES`), which the validation measures on other questions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from workbench.axis.roles import Role
from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.progress import track
from workbench.maths.statistics import category_codes
from workbench.personas.judges.embedding import Embedder
from workbench.personas.judges.rules import MIN_WORDS, is_refusal

FALSE_RATES = {2: 0.20, 3: 0.05}
"""Grade -> share of the default assistant's replies to calibration questions that reach its threshold."""
NEAREST_SHARE = 0.25
"""For a 3 the own role is among this share of the roles that a reply comes nearest to."""
MIN_CALIBRATION = 40
_WIDTH = 384  # MiniLM's last layer: what the sentence is about
_BLOCK = 512
_BREAKS = re.compile(
    r"\b(?:as|i am|i'm|i’m|being) (?:just |only )?an? (?:ai\b|artificial intelligence|(?:large )?language model|chatbot)",
    re.IGNORECASE,
)


@dataclass(frozen=True, eq=False, repr=False)
class OfflineAdherence(Shown):
    """Grades 0 to 3 from sentence embeddings.

    For a reply x to question q and role r, with the role's anchor a_r (mean embedding of its prompts and its description):

        s(x, r) = <e(x), a_r> - mean over the default's replies y to q of <e(y), a_r>        z = s / sd of s over default replies

    0: a refusal, "as an AI", or fewer than three words. 3: z at or above `limits[3]`, and r among the quarter of the roles
    nearest to the reply by z. 2: z at or above `limits[2]`. 1: else. `anchors [n_roles, d]`, `scales [n_roles]`.
    """

    names: tuple[str, ...]
    anchors: Tensor
    scales: Tensor
    limits: dict[int, float]
    n_calibration: int

    def shifts(self, features: Tensor, questions: Sequence[str], default: Tensor, default_questions: Sequence[str]) -> Tensor:
        """z `[n, n_roles]` of replies (`features [n, d]`) to `questions`, beside the default's replies to the same questions."""
        codes = category_codes([*default_questions, *questions])
        at_default, at_replies = codes[: len(default_questions)], codes[len(default_questions) :]
        own = _by_question(default @ self.anchors.T, at_default, int(codes.max()) + 1)
        return (features @ self.anchors.T - own[0][at_replies] / own[1][at_replies][:, None]) / self.scales

    def default_shifts(self, default: Tensor, questions: Sequence[str]) -> Tensor:
        """z `[m, n_roles]` of the default's own replies, each beside its others to the question (those without are left out)."""
        return _among_themselves(default @ self.anchors.T, questions) / self.scales

    def grades(self, texts: Sequence[str], shifts: Tensor, roles: Sequence[str]) -> list[int]:
        """The grade of each text for its role, by its z `[n, n_roles]`."""
        place = {name: i for i, name in enumerate(self.names)}
        own = shifts[torch.arange(len(texts)), torch.tensor([place[role] for role in roles])]
        near = (shifts >= own[:, None]).sum(dim=1) <= max(1, round(NEAREST_SHARE * len(self.names)))
        graded = 1 + (own >= self.limits[2]).int() + ((own >= self.limits[3]) & near).int()
        return [0 if breaks_role(text) else int(grade) for text, grade in zip(texts, graded, strict=True)]


def breaks_role(text: str) -> bool:
    """Whether a reply refuses, says that an AI speaks, or says nothing."""
    return is_refusal(text) or bool(_BREAKS.search(text)) or len(text.split()) < MIN_WORDS


def embed(texts: Sequence[str], embedder: Embedder, *, label: str | None = None) -> Tensor:
    """Unit sentence embeddings `[n, 384]`; `label` names the progress."""
    found = []
    with track(label, len(texts), "replies") if label else nullcontext(None) as step:
        for start in range(0, len(texts), _BLOCK):
            block = list(texts[start : start + _BLOCK])
            found.append(torch.nn.functional.normalize(embedder.features(block)[:, -_WIDTH:], dim=1))
            if step:
                step(len(block))
    return torch.cat(found)


def fit_offline(roles: Sequence[Role], default: Tensor, questions: Sequence[str], embedder: Embedder) -> OfflineAdherence:
    """The filter for `roles`, calibrated on the default's replies (`default [n, d]`, embedded) to calibration `questions`.

    Each reply is compared with the default's other replies to its question. Raises WorkbenchError for fewer than 40 replies
    to questions with two or more.
    """
    anchors = torch.stack([embed([*role.prompts, role.description], embedder).mean(dim=0) for role in roles])
    anchors = torch.nn.functional.normalize(anchors, dim=1)
    shift = _among_themselves(default @ anchors.T, questions)
    if len(shift) < MIN_CALIBRATION:
        raise WorkbenchError(
            f"{len(shift)} replies of the default assistant to calibrate the offline filter on",
            f"at least {MIN_CALIBRATION}, to questions with two or more",
            "sample more calibration questions, or name a judge that reads the rubric (--judge openai, anthropic, local)",
        )
    scales = shift.std(dim=0)
    z = (shift / scales).flatten().double()
    limits = {grade: float(np.quantile(z.numpy(), 1 - rate)) for grade, rate in FALSE_RATES.items()}
    return OfflineAdherence(tuple(role.name for role in roles), anchors, scales, limits, len(shift))


def _among_themselves(scores: Tensor, questions: Sequence[str]) -> Tensor:
    """`scores [n, k]` minus the mean of the other rows of their question; a row that is alone there is left out."""
    if not len(questions):
        return scores
    codes = category_codes(questions)
    sums, counts = _by_question(scores, codes, int(codes.max()) + 1)
    several = counts[codes] > 1
    others = (sums[codes] - scores)[several] / (counts[codes][several] - 1)[:, None]
    return scores[several] - others


def _by_question(scores: Tensor, codes: Tensor, n_codes: int) -> tuple[Tensor, Tensor]:
    """(sums `[n_codes, k]`, counts `[n_codes]`) of the rows of `scores`."""
    sums = torch.zeros(n_codes, scores.shape[1]).index_add_(0, codes, scores)
    return sums, torch.bincount(codes, minlength=n_codes)
