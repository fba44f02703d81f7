"""The assistant axis, and the vector of one role, as persona vectors: whatever reads those reads these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.axis.space.role_vectors import MIN_COUNT, counted_roles
from workbench.axis.space.sums import group_sums
from workbench.axis.space.weights import DEFAULT_ARM, axis_weights, vector_rows
from workbench.base.errors import unknown_name
from workbench.base.provenance import DataLedger, provenance
from workbench.base.store import content_hash
from workbench.models.hookpoints import HookPoint
from workbench.models.model import Model
from workbench.models.prompts import chat_template_hash
from workbench.personas.rollouts import Rollouts
from workbench.personas.vectors import ROW_TYPES, PersonaVector

if TYPE_CHECKING:
    import pandas

AXIS = "assistant-axis"
MAX_ROWS = 5000
"""Rows that a vector is made of: a decomposition reads the tokens of each, and more would not make the direction steadier."""


def assistant_axis(
    rollouts: Rollouts,
    judged: pandas.DataFrame,
    model: Model,
    *,
    hook: HookPoint | str | None = None,
    min_count: int = MIN_COUNT,
    max_rows: int = MAX_ROWS,
    evidence: dict[str, Any] | None = None,
    seed: int = 0,
) -> PersonaVector:
    """mean(default assistant) - mean over roles of each role's mean, at every hook: points toward the assistant.

    The rows and weights of `weights.axis_weights`: each role weighs the same, the default is averaged over the same questions.
    judged: the rows of `rollouts` in their order with a bool column `kept`; `min_count` kept rollouts make a role count.
    `unfiltered` is the axis of all roles and rollouts. Beyond `max_rows` rows every k-th of each role is taken and the
    evidence says how near the axis of all is. hook: where it is used (default: the middle block).
    Source: Lu et al. 2026 (arXiv 2601.10387), section 3.
    """
    roles, _ = counted_roles(judged, vector_rows(judged), min_count)
    return _vector(AXIS, 1.0, roles, rollouts, judged, model, hook, max_rows, evidence or {}, seed)


def role_vector(
    rollouts: Rollouts,
    judged: pandas.DataFrame,
    model: Model,
    role: str,
    *,
    hook: HookPoint | str | None = None,
    max_rows: int = MAX_ROWS,
    evidence: dict[str, Any] | None = None,
    seed: int = 0,
) -> PersonaVector:
    """mean(role) - mean(default assistant) on the role's own questions, at every hook: points toward the role."""
    known = list(dict.fromkeys(judged.loc[judged["arm"] != DEFAULT_ARM, "trait"]))
    if role not in known:
        raise unknown_name("role with rollouts", role, known)
    return _vector(role, -1.0, [role], rollouts, judged, model, hook, max_rows, evidence or {}, seed)


def _vector(
    name: str, side: float, roles: Sequence[str], rollouts: Rollouts, judged: pandas.DataFrame, model: Model,
    hook: HookPoint | str | None, max_rows: int, evidence: dict[str, Any], seed: int,
) -> PersonaVector:  # fmt: skip
    where = HookPoint.parse(hook) if hook is not None else rollouts.hooks[len(rollouts.hooks) // 2]
    every = list(dict.fromkeys(judged.loc[judged["arm"] != DEFAULT_ARM, "trait"])) if len(roles) > 1 else list(roles)
    rows, step = thinned(judged, roles, max_rows)
    weights = side * axis_weights(rows, vector_rows(rows), roles)
    loose = side * axis_weights(rows, vector_rows(rows, filter=False), every)
    direction, unfiltered = (_sum(rollouts, judged, rows, one) for one in (weights, loose))
    place = rollouts.hooks.index(where)
    found = {
        **evidence, "filtered": True, "n_roles": len(roles), "n_rows": int((weights != 0).sum()),
        "n_questions": int(rows.loc[weights != 0, "question_id"].nunique()),
        "cosine_filtered_unfiltered": _cosine(direction[place], unfiltered[place]),
        "hook_chosen_by": "middle block" if hook is None else "caller",
    }  # fmt: skip
    if step > 1:
        whole = _sum(rollouts, judged, judged, side * axis_weights(judged, vector_rows(judged), roles))
        found |= {"every_nth_row": step, "cosine_with_all_rows": _cosine(direction[place], whole[place])}
    return PersonaVector(
        trait=name, model=model.description(), hook=where, hooks=rollouts.hooks, directions=direction, up=None, down=None,
        unfiltered=unfiltered, rows=_table(rows, weights, loose), evidence=found,
        tokens=rollouts.token_source(), provenance=_provenance(rollouts, rows, model, seed, {"roles": list(roles)}),
    )  # fmt: skip


def thinned(judged: pandas.DataFrame, roles: Sequence[str], max_rows: int) -> tuple[pandas.DataFrame, int]:
    """(the extraction rows of `roles` and the default, at most about `max_rows`; one row in how many was taken).

    Rows are taken evenly within each role, the kept and the dropped apart, in the order of their ids: ids are hashes, so that is
    a draw. Every group keeps at least one row.
    """
    rows: Any = judged[judged["split"] == "extraction"]
    counted = int(vector_rows(rows)[rows["trait"].isin(list(roles)) | (rows["arm"] == DEFAULT_ARM)].sum())
    step = max(1, -(-counted // max_rows))
    if step > 1:
        order = rows.sort_values("id").groupby(["trait", "kept"], sort=False).cumcount()
        rows = rows[(order.reindex(rows.index) % step == 0)]
    return rows, step


def _sum(rollouts: Rollouts, judged: pandas.DataFrame, rows: pandas.DataFrame, weights: Any) -> Tensor:
    """sum_i weight_i mean_i, `[n_hooks, d_model]` float32."""
    places = torch.from_numpy(judged.index.get_indexer(rows.index).copy())  # pyright: ignore[reportAttributeAccessIssue]
    group, weight = torch.full((len(judged),), -1), torch.zeros(len(judged), dtype=torch.float64)
    weight[places] = torch.from_numpy(weights)
    group[weight != 0] = 0
    return group_sums(rollouts, group, weight, 1)[0].float()


def _table(rows: Any, weights: Any, unfiltered: Any) -> pandas.DataFrame:
    told = rows.assign(weight=weights, weight_up=0.0, weight_down=0.0, weight_unfiltered=unfiltered)
    # As for a trait: high on the side that the vector points to.
    told = told.assign(score=100 * (1 - told["adherence"] / 3), outcome="scored", coherence=float("nan"))
    return told[[*ROW_TYPES, *told.columns.intersection(["lead_ids"])]].reset_index(drop=True)


def _cosine(one: Tensor, other: Tensor) -> float:
    return float(torch.cosine_similarity(one.double(), other.double(), dim=0))


def _provenance(rollouts: Rollouts, rows: Any, model: Model, seed: int, config: Any) -> dict[str, Any]:
    ledger, tokens = DataLedger(), rollouts.token_source()
    ledger.add("extraction", [content_hash(text) for text in dict.fromkeys(rows["question"])])
    inputs = {"model": model.weights_hash, "chat_template": chat_template_hash(model), "rollouts": rollouts.hash}
    inputs |= {"tokens": tokens.sha256} if tokens else {}
    return provenance(seed=seed, inputs=inputs, config=config, data_ledger=ledger.to_dict())
