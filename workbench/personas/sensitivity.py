"""Is the vector about the trait, or about length, position and layout? The same contrast made in other ways, side by side.

Each column is v made again from the same rows: from their first 32 tokens, from answers cut to one length per question
(that which nine in ten of its kept answers reach), or with a
nuisance held constant (log length, list and code markup, mean log-probability of the answer). The cosine with v says how
much of v it was. Below `WARN_BELOW` the vector's claims need that said beside them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.maths.separation import balanced_contrast_weights
from workbench.models.likelihood import token_logprobs
from workbench.models.loading import Model
from workbench.personas.evidence import code_rows
from workbench.personas.reencoding import recapture_tokens, row_chat
from workbench.personas.runs import PersonaRun

if TYPE_CHECKING:
    import pandas

FIRST_TOKENS = 32
WARN_BELOW = 0.9
MOST_ROWS = 256
_MARKUP = re.compile(r"^\s*(?:[-*•]|\d+[.)]|#+)\s|```|\|", re.MULTILINE)


def sensitivity(run: PersonaRun, model: Model, *, logprobs: bool = True, max_rows: int = MOST_ROWS) -> dict[str, Any]:
    """{column: cosine with v} at the run's hook, and under "warnings" the columns below .9.

    All, v included, are made from the kept rows of as many samples per cell as stay within `max_rows` (one at least), as
    every row is read twice; "n_rows" says how many. Columns: first_32_tokens, equal_length, fixed_length, fixed_markup,
    fixed_logprob (left out with logprobs=False: it costs a pass with logits), fixed_all.
    """
    kept = run.make.of(run.make.frame["kept"])
    kept = kept.of(kept.frame["sample"] < _samples_within(kept.frame["sample"], max_rows))
    rows = code_rows(kept.frame)
    weights = balanced_contrast_weights(rows.question, rows.positive, rows.keep[None])[0]
    means = kept.with_system[:, 0].double()
    v = weights @ means
    columns = _cut(run, model, kept.frame, weights)
    nuisances = _nuisances(kept.frame, model, logprobs)
    for name, values in {**{k: x[:, None] for k, x in nuisances.items()}, "all": torch.stack([*nuisances.values()], 1)}.items():
        columns[f"fixed_{name}"] = held_constant(means, values, weights, rows.positive)
    cosines = {name: float(torch.cosine_similarity(made, v, dim=0)) for name, made in columns.items()}
    low = [name for name, value in cosines.items() if value < WARN_BELOW]
    return {**cosines, "warnings": low, "n_rows": len(kept.frame)}


def _samples_within(samples: Any, max_rows: int) -> int:
    """How many samples per cell make at most `max_rows` rows; at least 1."""
    counts = samples.value_counts().sort_index().cumsum()
    return max(1, int((counts <= max_rows).sum()))


def held_constant(means: Tensor, nuisance: Tensor, weights: Tensor, positive: Tensor) -> Tensor:
    """v `[d_model]` with nuisances `[n, k]` held constant: v - slope' (their difference between the arms).

    The slope is fitted inside the arms (both arms centred on their own means), so that nothing of the contrast itself
    is taken for the nuisance's doing.
    """
    x, z = (values - _arm_means(values, positive) for values in (means, nuisance.double()))
    slope = torch.linalg.lstsq(z, x).solution
    return weights @ means - (weights @ nuisance.double()) @ slope


def _arm_means(values: Tensor, positive: Tensor) -> Tensor:
    found = torch.zeros_like(values)
    for arm in (positive, ~positive):
        found[arm] = values[arm].mean(dim=0)
    return found


def _cut(run: PersonaRun, model: Model, frame: pandas.DataFrame, weights: Tensor) -> dict[str, Tensor]:
    """v from answers cut short: to their first tokens, and to the length that nine in ten under the same question reach."""
    reached: Any = frame.groupby("question_id")["n_tokens"].quantile(0.1)
    limits = {row_id: int(reached[q]) for row_id, q in zip(frame["id"], frame["question_id"], strict=True)}
    weight = dict(zip(frame["id"], weights.tolist(), strict=True))
    sums = {name: torch.zeros(model.d_model, dtype=torch.float64) for name in ("first_32_tokens", "equal_length")}
    for row_id, tokens in _tokens(run, model, frame):
        if row_id in weight and len(tokens):
            sums["first_32_tokens"] += weight[row_id] * tokens[:FIRST_TOKENS].double().mean(dim=0)
            sums["equal_length"] += weight[row_id] * tokens[: max(limits[row_id], 1)].double().mean(dim=0)
    return sums


def _tokens(run: PersonaRun, model: Model, frame: pandas.DataFrame) -> Any:
    source = run.vector.tokens
    if source is not None and run.hook in source.hooks:
        return source.rows(run.hook)
    return recapture_tokens(model, frame, run.hook)


def _nuisances(frame: pandas.DataFrame, model: Model, logprobs: bool) -> dict[str, Tensor]:
    lengths = torch.from_numpy(frame["n_tokens"].to_numpy(dtype=float).copy())
    marks = [markup_counts(text) for text in frame["response"]]
    found = {"length": lengths.clamp_min(1).log(), "markup": torch.tensor(marks, dtype=torch.float64)}
    if logprobs:
        found["logprob"] = response_logprobs(model, frame)
    # A nuisance that never varies explains nothing and would make the fit singular.
    return {name: (values - values.mean()) / values.std() for name, values in found.items() if float(values.std()) > 0}


def markup_counts(text: str) -> float:
    """How many list and heading marks, fences and table bars a text has."""
    return float(len(_MARKUP.findall(text)))


def response_logprobs(model: Model, frame: pandas.DataFrame) -> Tensor:
    """Mean log-probability per token `[n]` of every answer under its own system prompt, nats."""
    columns = [name for name in ("system", "question", "response_ids", "lead_ids") if name in frame.columns]
    chosen: Any = frame[columns]
    chats = [row_chat(model, row) for row in chosen.to_dict("records")]
    found = token_logprobs(model, [chat.ids for chat in chats], [chat.positions("response") for chat in chats])
    return torch.stack([logp.double().sum() / max(len(logp), 1) for logp in found])
