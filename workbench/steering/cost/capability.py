"""What an edit costs the model: held-out perplexity, and right answers on question sets that it could answer before.

Edits act on every token here (scope "all") but sinks, of which the first token mostly is one; replies are steered under
"predicting", so that a prompt is read as it is. Both are said in every table. All figures are *losses*: positive is worse.

    surprise = nats per token of a document, steered - unsteered          accuracy = unsteered - steered, of 1
    margin = nats per character by which the right option leads, unsteered - steered
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.maths.statistics import bootstrap_counts, percentile_interval
from workbench.models.likelihood import token_logprobs

from .questions import QuestionSet, answers, counted_sets, question_sets

if TYPE_CHECKING:
    from workbench.models.model import Model

SCOPE = "all"
"""Where edits act while capability is measured."""
N_DOCUMENTS, DOCUMENT_TOKENS, N_ITEMS = 24, 96, 24
"""Documents of each source, tokens of each, and items of each set."""
SOURCES = ("owt", "wikipedia")


@dataclass(frozen=True, eq=False, repr=False)
class Exam(Shown):
    """What capability is measured on: documents as token ids, and question sets that count."""

    documents: tuple[tuple[int, ...], ...]
    sets: tuple[QuestionSet, ...]
    considered: tuple[dict[str, Any], ...] = ()
    """A row per set that was considered: name, n, chance, accuracy, counts."""


@dataclass(frozen=True, eq=False, repr=False)
class Capability(Shown):
    """`surprise` [n_documents] in nats per token; per set `correct` (1 or 0) and `margin` [n_items]; float64."""

    surprise: Tensor
    correct: Mapping[str, Tensor]
    margin: Mapping[str, Tensor]

    def to_dict(self) -> dict[str, Any]:
        """JSON types only; `from_dict` reads them back."""
        listed = {name: {key: one.tolist() for key, one in getattr(self, name).items()} for name in ("correct", "margin")}
        return {"surprise": self.surprise.tolist(), **listed}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Capability:
        """What `to_dict` wrote."""
        sets = ({key: _column(values) for key, values in stored[name].items()} for name in ("correct", "margin"))
        return cls(_column(stored["surprise"]), *sets)


def make_exam(
    model: Model,
    *,
    n_documents: int = N_DOCUMENTS,
    tokens: int = DOCUMENT_TOKENS,
    n_items: int = N_ITEMS,
    sets: Sequence[QuestionSet] | None = None,
    folder: str | Path | None = None,
) -> Exam:
    """Documents of the evaluation role of OpenWebText and Wikipedia, and the measuring half of the sets that count.

    Every document has `tokens` tokens, shorter ones are left out; no SAE of this package was trained on any of it. `folder`
    keeps which sets count.
    """
    kept, rows = counted_sets(model, question_sets() if sets is None else sets, folder=folder)
    documents = [ids for source in SOURCES for ids in _documents(model, source, n_documents, tokens)]
    return Exam(tuple(documents), tuple(one.half(choosing=False, n=n_items) for one in kept), tuple(rows))


def capability(model: Model, exam: Exam, *, before: str = "") -> Capability:
    """The model as it is now (edits in force act) on the exam; `before` is text that stands before every document and question,
    which is what a prompt costs."""
    prefix = tuple(model.tokenizer(before, add_special_tokens=False)["input_ids"]) if before else ()
    rows = [_behind(model, prefix, ids) for ids in exam.documents]
    starts = [max(1, len(row) - len(ids) + 1) for row, ids in zip(rows, exam.documents, strict=True)]
    logp = token_logprobs(model, rows, [range(start, len(row)) for row, start in zip(rows, starts, strict=True)])
    surprise = torch.tensor([-float(one.double().mean()) for one in logp], dtype=torch.float64)
    found = {one.name: answers(model, one, before=before) for one in exam.sets}
    return Capability(surprise, {k: one.correct for k, one in found.items()}, {k: one.margin for k, one in found.items()})


def losses(now: Capability, base: Capability, *, n_bootstrap: int = 2000, seed: int = 0) -> dict[str, Any]:
    """{surprise, perplexity_ratio, accuracy, margin}: each {loss, interval}, paired bootstrap over documents or items.

    perplexity_ratio = exp(surprise loss). accuracy and margin are means over the sets (each weighs the same); None without sets.
    """
    random = torch.Generator().manual_seed(seed)
    draws = bootstrap_counts(len(now.surprise), n_bootstrap, random)
    surprise = _loss(now.surprise - base.surprise, draws)
    found = {"surprise": surprise, "perplexity_ratio": _exponential(surprise), "accuracy": None, "margin": None}
    for name in ("correct", "margin"):
        gaps = [getattr(base, name)[key] - values for key, values in getattr(now, name).items()]
        if gaps:
            found["accuracy" if name == "correct" else name] = _mean_of_sets(gaps, n_bootstrap, random)
    return found


def surprise_draws(now: Capability, base: Capability, draws: Tensor) -> Tensor:
    """Replicates `[B]` of the surprise loss under document counts `draws [B, n_documents]`."""
    return draws @ (now.surprise - base.surprise) / draws.sum(dim=1)


def _loss(values: Tensor, draws: Tensor) -> dict[str, Any]:
    low, high = percentile_interval(draws @ values / draws.sum(dim=1))
    return {"loss": float(values.mean()), "interval": [float(low), float(high)]}


def _exponential(loss: dict[str, Any]) -> dict[str, Any]:
    from math import exp

    return {"loss": exp(loss["loss"]), "interval": [exp(end) for end in loss["interval"]]}


def _mean_of_sets(gaps: Sequence[Tensor], n_bootstrap: int, random: torch.Generator) -> dict[str, Any]:
    replicates = [bootstrap_counts(len(gap), n_bootstrap, random) @ gap / len(gap) for gap in gaps]
    low, high = percentile_interval(torch.stack(replicates).mean(dim=0))
    return {"loss": float(torch.stack([gap.mean() for gap in gaps]).mean()), "interval": [float(low), float(high)]}


def _documents(model: Model, source: str, n: int, tokens: int) -> list[tuple[int, ...]]:
    from workbench.saes.corpus import documents
    from workbench.saes.evaluation.texts import text_ids

    found = []
    for document in documents(source, "evaluation"):
        if len(ids := text_ids(model, document.text[: 12 * tokens], tokens)) == tokens:
            found.append(ids)
        if len(found) == n:
            return found
    raise WorkbenchError(f"{len(found)} documents of {source} have {tokens} tokens", f"{n} of them",
                         "ask for fewer or shorter documents")  # fmt: skip


def _behind(model: Model, prefix: tuple[int, ...], ids: tuple[int, ...]) -> tuple[int, ...]:
    """The document behind the prefix; a start token stays first."""
    start = ids[:1] if ids[:1] == (model.tokenizer.bos_token_id,) else ()
    return (*start, *prefix, *ids[len(start) :])


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float64)
