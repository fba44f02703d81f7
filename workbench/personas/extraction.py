"""Extraction: from a trait and a model to a persona vector with its evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.base.errors import WorkbenchError
from workbench.base.provenance import DataLedger, provenance
from workbench.base.runs import default_run_folder
from workbench.base.store import content_hash
from workbench.maths.separation import balanced_contrast_weights
from workbench.maths.statistics import category_codes
from workbench.models.hookpoints import HookPoint
from workbench.models.loading import Model
from workbench.models.prompts import chat_template_hash
from workbench.models.servers import ChatServer
from workbench.personas.evidence import (
    NO_SEPARABILITY,
    Activations,
    layer_curve,
    separability,
    stability,
)
from workbench.personas.given import capture_responses
from workbench.personas.judges import Judge
from workbench.personas.judges.replies import is_validated
from workbench.personas.judging import (
    Mask,
    as_judge,
    check_judge,
    counts_by_arm,
    judge_rows,
    kept_mask,
    usable_mask,
)
from workbench.personas.layers import CHOICES, causal_points, check_choice, choose_hook
from workbench.personas.reencoding import reencode_without_system
from workbench.personas.rollouts import RolloutDesign, Rollouts, collect_rollouts
from workbench.personas.traits import Trait, load_trait
from workbench.personas.vectors import ROW_TYPES, PersonaVector

if TYPE_CHECKING:
    import pandas

MIN_QUESTIONS = 8
ROUNDING = 1e-6
"""A difference of means this small beside the activations themselves is rounding."""


def extract(
    trait: str | Path | Trait,
    model: Model,
    *,
    judge: str | Judge = "offline",
    design: RolloutDesign | None = None,
    server: ChatServer | None = None,
    rollouts: str | Path | pandas.DataFrame | None = None,
    out: str | Path | None = None,
    hook: HookPoint | str | None = None,
    choose: str = CHOICES[0],
    token_hooks: Sequence[HookPoint | str] | None = None,
    filter: bool = True,
    min_questions: int = MIN_QUESTIONS,
    n_bootstrap: int = 1000,
    n_random: int = 2000,
    seed: int = 0,
) -> PersonaVector:
    """The persona vector of `trait`: one direction per block output, toward the trait, with rows and
    evidence.

    trait: a name, a folder or a Trait. judge: a name or a Judge ("none" keeps every row). server: who samples the
    `design` (a `ChatServer` with the same weights: vLLM, llama.cpp, Ollama, ...) instead of `model`, which then only
    reads the answers. rollouts: your own responses (Parquet or DataFrame; see `given.read_responses`) instead of
    sampling. out: the run
    folder (default runs/<trait>-<model>), where an interrupted run goes on. hook: the block to report on
    (default: chosen inside the extraction questions by `choose`: "separability", cross-validated, or "causal", the
    effect on the select pairs at equal dose; see `layers`). token_hooks: where all response
    tokens are stored for the decomposition (default: `hook`, else the middle block). filter=False uses every
    row instead of those that the judge keeps; the kept counts are reported either way.

    Raises WorkbenchError when fewer than `min_questions` extraction questions have rows in both arms, and, before
    anything is sampled, for a judge with the weights of `model`.
    """
    trait = trait if isinstance(trait, Trait) else load_trait(trait)
    check_choice(choose, trait)
    if server and rollouts is not None:
        raise WorkbenchError("both a server and responses were given", "one of them", "leave the other one out")
    judge = as_judge(judge)
    check_judge(judge, model)
    filter = filter and judge.name != "none"
    chosen = None if hook is None else HookPoint.parse(hook)
    stored = token_points(model, chosen, token_hooks)
    hooks = hook_points(model, chosen, stored)
    folder = Path(out) if out is not None else default_run_folder(trait.name, model.name)
    if rollouts is not None:
        collected = capture_responses(rollouts, trait, model, folder, hooks=hooks, token_hooks=stored)
    else:
        collected = collect_rollouts(
            trait, model, folder, design=design, hooks=hooks, token_hooks=stored, seed=seed, server=server
        )
    judged = judge_rows(collected.frame(), trait, judge)
    config = {
        "design": None if rollouts is not None else asdict(design or RolloutDesign()),
        "judge": judge.description(), "filter": filter, "min_questions": min_questions,
        "n_bootstrap": n_bootstrap, "n_random": n_random, "hook": None if chosen is None else str(chosen), "choose": choose,
        **({"server": server.description()} if server else {}),
    }  # fmt: skip
    return vector_from_rollouts(
        collected, judged, trait, model, hook=chosen, choose=choose, filter=filter, min_questions=min_questions,
        n_bootstrap=n_bootstrap, n_random=n_random, seed=seed, config=config, judge=judge.name,
    )  # fmt: skip


def vector_from_rollouts(
    rollouts: Rollouts,
    judged: pandas.DataFrame,
    trait: Trait,
    model: Model,
    *,
    hook: HookPoint | None = None,
    choose: str = CHOICES[0],
    filter: bool = True,
    min_questions: int = MIN_QUESTIONS,
    n_bootstrap: int = 1000,
    n_random: int = 2000,
    seed: int = 0,
    config: Any = None,
    judge: str | None = None,
) -> PersonaVector:
    """The vector of rollouts that are collected and judged already (`judged` = `judge_rows(rollouts.frame(),
    ...)`, by the judge of the name `judge`)."""
    rows: Any = weigh(judged, filter=filter, min_questions=min_questions)
    means = rollouts.means()
    data = Activations(rows, means, _without_system(model, rollouts, rows))
    directions = {name: weighted_sum(rows[column], means) for name, column in _COLUMNS.items()}
    two_arms = usable_mask(rows) & (rows["arm"] != "neutral")
    extraction = rows["split"] == "extraction"
    make, score = data.of(two_arms & extraction), data.of(two_arms & ~extraction)
    curve = layer_curve(make, rollouts.hooks, seed=seed)
    main = directions["directions"]
    assert main is not None  # weigh refuses tables without both arms
    pushed = causal_points(trait, model, main, rollouts.hooks, seed=seed) if choose == "causal" else []
    chosen = hook or choose_hook(choose, curve, pushed, rollouts.hooks)
    _refuse_rounding(main, means, rollouts.hooks.index(chosen), chosen)
    evidence = _evidence(
        make, score, rollouts.hooks.index(chosen), n_bootstrap=n_bootstrap, n_random=n_random, seed=seed
    )
    evidence |= _filter_evidence(rows, directions, rollouts.hooks.index(chosen), filtered=filter)
    return PersonaVector(
        trait=trait.name,
        model=model.description(),
        hook=chosen,
        hooks=rollouts.hooks,
        directions=main,
        up=directions["up"],
        down=directions["down"],
        unfiltered=directions["unfiltered"],
        rows=rows[[*ROW_TYPES, *rows.columns.intersection(["lead_ids"])]],
        evidence={
            **evidence,
            "judge": judge,
            "judge_validated": None if judge in (None, "none") else is_validated(judge, trait),
            "layer_curve": curve,
            **({"causal_curve": pushed} if pushed else {}),
            "hook_chosen_by": "caller" if hook else _CHOSEN_BY[choose],
        },
        tokens=rollouts.token_source(),
        provenance=_provenance(rollouts, trait, model, seed, config),
    )


_CHOSEN_BY = {"separability": "cross-validation", "causal": "causal effect on the select pairs"}
_COLUMNS = {
    "directions": "weight",
    "up": "weight_up",
    "down": "weight_down",
    "unfiltered": "weight_unfiltered",
}


def hook_points(
    model: Model, hook: HookPoint | None, token_hooks: Sequence[HookPoint]
) -> tuple[HookPoint, ...]:
    """Every block output, and the hooks that are asked for besides; refuses blocks that the model does not
    have."""
    asked = set(token_hooks) | ({hook} if hook else set())
    beyond = sorted(point for point in asked if point.block >= model.n_blocks)
    if beyond:
        raise WorkbenchError(
            f"{beyond[0]} does not exist in {model.name}",
            f"a block from 0 to {model.n_blocks - 1}",
            "choose another hook point",
        )
    return tuple(sorted({HookPoint(block) for block in range(model.n_blocks)} | asked))


def token_points(
    model: Model, hook: HookPoint | None, token_hooks: Sequence[HookPoint | str] | None
) -> tuple[HookPoint, ...]:
    """Where tokens are stored: as asked, else the caller's hook, else the middle block."""
    if token_hooks is None:
        return (hook or HookPoint(model.n_blocks // 2),)
    return tuple(sorted({HookPoint.parse(point) for point in token_hooks}))


def weigh(
    judged: pandas.DataFrame, *, filter: bool = True, min_questions: int = MIN_QUESTIONS
) -> pandas.DataFrame:
    """`judged` with kept and the four weight columns of `PersonaVector.rows`; refuses too few questions."""
    usable = usable_mask(judged)
    rows: Any = judged.assign(kept=kept_mask(judged) if filter else usable)
    extraction = rows["split"] == "extraction"
    used = rows["kept"] & extraction
    n_questions = len(_shared_questions(rows[used], ("positive", "negative")))
    if n_questions < min_questions:
        raise _too_few(rows[extraction], n_questions, min_questions, filter)
    in_all = rows["question_id"].isin(_shared_questions(rows[used], ("positive", "neutral", "negative")))
    return rows.assign(
        weight=contrast_weights(rows, used, "positive", "negative"),
        weight_up=contrast_weights(rows, used & in_all, "positive", "neutral"),
        weight_down=contrast_weights(rows, used & in_all, "neutral", "negative"),
        weight_unfiltered=contrast_weights(rows, usable & extraction, "positive", "negative"),
    )


def contrast_weights(rows: pandas.DataFrame, used: Mask, above: str, below: str) -> Any:
    """Row weights of mean(`above`) - mean(`below`), each question weighing the same; 0 for all other rows
    (array [n])."""
    question = category_codes(rows["question_id"].tolist())
    member = used & rows["arm"].isin((above, below))
    base = torch.from_numpy(member.to_numpy(dtype=float).copy())
    positive = torch.from_numpy((rows["arm"] == above).to_numpy(dtype=bool).copy())
    return balanced_contrast_weights(question, positive, base[None])[0].numpy()


def weighted_sum(weights: Any, means: Tensor) -> Tensor | None:
    """sum_i weights_i means_i, [n_hooks, d_model] float32 (summed in float64); None when all weights are
    0."""
    values = torch.from_numpy(weights.to_numpy(dtype=float).copy())
    used = values.nonzero().flatten()
    if not len(used):
        return None
    return torch.einsum("n,nhd->hd", values[used], means[used].double()).float()


def _shared_questions(rows: pandas.DataFrame, arms: Sequence[str]) -> set[str]:
    return set.intersection(*(set(rows.loc[rows["arm"] == arm, "question_id"]) for arm in arms))


def _too_few(rows: pandas.DataFrame, found: int, needed: int, filtered: bool) -> WorkbenchError:
    counts = "; ".join(f"{arm} {_in_words(numbers)}" for arm, numbers in counts_by_arm(rows).items())
    remedy = "sample more answers per question (n_samples), or look at the answers"
    if filtered:
        remedy += "; filter=False makes the vector from all rows and says so"
    return WorkbenchError(
        f"{found} extraction questions have {'kept ' if filtered else ''}rows in both arms ({counts})",
        f"at least {needed}",
        remedy,
    )


def _in_words(numbers: dict[str, int]) -> str:
    reasons = [
        f"{count} {name.replace('_', ' ')}"
        for name, count in numbers.items()
        if count and name not in ("rows", "kept")
    ]
    return f"{numbers['kept']} of {numbers['rows']} kept" + (f", {', '.join(reasons)}" if reasons else "")


def _without_system(model: Model, rollouts: Rollouts, rows: pandas.DataFrame) -> Tensor:
    # The neutral arm makes no detector: only two arms are read again.
    needed = (rows["arm"] != "neutral").to_numpy()
    ids = rows.loc[needed, "id"].tolist()
    means = torch.zeros(len(rows), len(rollouts.hooks), model.d_model)
    read = reencode_without_system(model, rollouts.folder, rollouts.table, ids, rollouts.hooks)
    means[torch.from_numpy(needed.copy())] = read
    return means


def _evidence(
    make: Activations, score: Activations, index: int, *, n_bootstrap: int, n_random: int, seed: int
) -> dict[str, Any]:
    made, scored = (_at(data, index) for data in (make, score))
    steady = stability(made, n_bootstrap=n_bootstrap, seed=seed)
    if scored.frame.empty:
        return {**NO_SEPARABILITY, "stability": steady}
    return {
        **separability(made, scored, n_bootstrap=n_bootstrap, n_random=n_random, seed=seed),
        "stability": steady,
    }


def _at(data: Activations, index: int) -> Activations:
    window = slice(index, index + 1)
    return Activations(data.frame, data.with_system[:, window], data.without_system[:, window])


def _refuse_rounding(main: Tensor, means: Tensor, index: int, hook: HookPoint) -> None:
    """Refuse a difference that is nothing but the rounding of two equal means."""
    length, typical = float(main[index].norm()), float(means[:, index].norm(dim=-1).nanmedian())
    if length <= ROUNDING * typical:
        raise WorkbenchError(
            f"the two arms are the same at {hook}: their means differ by {length:.1g}, the activations are {typical:.3g} long",
            "replies that differ between the arms",
            "look at the rollouts: the same prompt or the same texts may stand in both arms",
        )


def _filter_evidence(
    rows: Any, directions: dict[str, Tensor | None], index: int, *, filtered: bool
) -> dict[str, Any]:
    kept, unfiltered = directions["directions"], directions["unfiltered"]
    assert kept is not None and unfiltered is not None
    extraction = rows["split"] == "extraction"
    return {
        "filtered": filtered,
        "kept_counts": counts_by_arm(rows[extraction]),
        "evaluation_counts": counts_by_arm(rows[~extraction]),
        "n_questions": len(set(rows.loc[rows["weight"] != 0, "question_id"])),
        "cosine_filtered_unfiltered": float(torch.cosine_similarity(kept[index], unfiltered[index], dim=0)),
    }


def _provenance(rollouts: Rollouts, trait: Trait, model: Model, seed: int, config: Any) -> dict[str, Any]:
    ledger = DataLedger()
    for row in rollouts.table.select(("split", "question")).to_pylist():
        ledger.add(row["split"], [content_hash(row["question"])])
    tokens = rollouts.token_source()
    inputs = {
        "trait": trait.hash,
        "model": model.weights_hash,
        "chat_template": chat_template_hash(model),
        "rollouts": rollouts.hash,
        **({"tokens": tokens.sha256} if tokens else {}),
    }
    return provenance(seed=seed, inputs=inputs, config=config, data_ledger=ledger.to_dict())
