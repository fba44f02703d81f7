"""The evidence that goes with a vector: where it separates, against which nulls, how stable it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.progress import track
from workbench.base.randomness import derive_seed, generator
from workbench.maths.separation import balanced_contrast_weights
from workbench.maths.statistics import bootstrap_counts, category_codes, percentile_interval
from workbench.models.hookpoints import HookPoint
from workbench.personas import separability as sep
from workbench.personas.judging import Mask

if TYPE_CHECKING:
    import pandas

N_CURVE_BOOTSTRAP = 200
N_HALVES = 20


@dataclass(frozen=True, repr=False)
class Activations(Shown):
    """Means of the rows of `frame` at one or several hooks: [n, n_hooks, d_model], with and without the
    system prompt.

    `without_system` is filled for the positive and the negative arm.
    """

    frame: pandas.DataFrame
    with_system: Tensor
    without_system: Tensor

    def of(self, mask: Mask) -> Activations:
        """The rows where `mask` is true."""
        chosen = torch.from_numpy(mask.to_numpy(dtype=bool).copy())
        frame: Any = self.frame
        rows = frame[mask.to_numpy()].reset_index(drop=True)
        return Activations(rows, self.with_system[chosen], self.without_system[chosen])


def layer_curve(data: Activations, hooks: Sequence[HookPoint], *, seed: int) -> list[dict[str, Any]]:
    """[{hook, auc, low, high}] by cross-validation inside the extraction questions.

    `data`: extraction rows of two arms. Five folds of questions x all divisions of the instructions: made
    with the system prompt in context, scored without it, on held-out questions under held-out instructions;
    mean AUC over the cells and a crossed bootstrap interval (200 replicates).
    """
    rows = code_rows(data.frame)
    n_instructions = int(rows.instruction.max()) + 1
    cells = sep.fold_cells(rows, n_instructions)
    random = generator(derive_seed("layer curve", seed))
    draws = sep.draw(int(rows.question.max()) + 1, None, n_instructions, N_CURVE_BOOTSTRAP, random)
    weights = sep.contrasts(rows, cells, draws)
    curve = []
    with track("block curve", len(hooks), "blocks") as step:
        for i, hook in enumerate(hooks):
            gram = inner_products(data.with_system[:, i], data.without_system[:, i])
            area, interval = sep.auc_with_interval(sep.held_out_aucs(weights, gram, rows, cells, draws))
            low, high = interval or (None, None)
            curve.append({"hook": str(hook), "auc": area, "low": low, "high": high})
            step()
    return curve


def best_hook(curve: Sequence[dict[str, Any]], hooks: Sequence[HookPoint]) -> HookPoint:
    """The hook with the highest cross-validated AUC; the middle one when no AUC could be computed."""
    areas = [-1.0 if point["auc"] is None else point["auc"] for point in curve]
    return hooks[areas.index(max(areas))] if max(areas) >= 0 else hooks[len(hooks) // 2]


def separability(
    make: Activations, score: Activations, *, n_bootstrap: int, n_random: int, seed: int
) -> dict[str, Any]:
    """All AUCs at one hook (activations `[n, 1, d_model]`): see the module `separability` for how each is
    made.

    `make`: extraction rows of two arms; `score`: evaluation rows of two arms, filtered by nobody.
    """
    instructions, made, scored, cells, draws = _design(make, score, n_bootstrap, seed)
    weights = sep.contrasts(made, cells, draws)
    source = make.with_system[:, 0]
    stripped = inner_products(source, score.without_system[:, 0])
    area, interval = sep.auc_with_interval(sep.held_out_aucs(weights, stripped, scored, cells, draws))
    if area is None:
        return {**NO_SEPARABILITY, "notes": ["the evaluation rows do not hold both arms under any division"]}
    in_context = sep.held_out_aucs(
        weights, inner_products(source, score.with_system[:, 0]), scored, cells, draws
    )
    with_prompt, with_prompt_interval = sep.auc_with_interval(in_context)
    random = generator(derive_seed("random directions", seed))
    null = sep.random_aucs(source, score.without_system[:, 0], scored, cells, n_random, random)
    judged = torch.from_numpy(score.frame["score"].to_numpy(dtype=float).copy())
    return {
        "auc_stripped": area,
        "auc_stripped_interval": interval,
        **sep.null_evidence(area, null),
        "auc_with_prompt": with_prompt,
        "auc_with_prompt_interval": with_prompt_interval,
        **text_evidence(make.frame, score.frame, made, scored, cells),
        "judge_correlation_within_positive": sep.judge_correlation(weights, stripped, scored, cells, judged),
        "n_bootstrap": n_bootstrap,
        "n_divisions": len(cells),
        "n_divisions_unfiltered": sep.n_unfiltered(made, cells),
        "n_evaluation_questions": int(scored.question.max()) + 1,
        "n_evaluation_rows": len(scored.question),
        "instructions_unseen": len(instructions) > 1,
        "notes": [],
    }


def _design(
    make: Activations, score: Activations, n_bootstrap: int, seed: int
) -> tuple[list[str], sep.Rows, sep.Rows, list[sep.Cell], sep.Draws]:
    """Instructions, coded rows, divisions of the instructions, and bootstrap draws."""
    instructions = sorted(set(make.frame["instruction_id"]) | set(score.frame["instruction_id"]))
    made, scored = code_rows(make.frame, instructions), code_rows(score.frame, instructions)
    sizes = (int(made.question.max()) + 1, int(scored.question.max()) + 1, len(instructions))
    draws = sep.draw(*sizes, n_bootstrap, generator(derive_seed("separability", seed)))
    return instructions, made, scored, sep.division_cells(made, scored, len(instructions)), draws


def interval_of_fixed_questions(
    make: Activations, score: Activations, *, n_bootstrap: int, seed: int
) -> list[float] | None:
    """The interval of `auc_stripped` with the evaluation questions held fixed.

    Only instructions and extraction questions are drawn: about what would be left of the interval if there were
    evaluation questions without end.
    """
    _, made, scored, cells, draws = _design(make, score, n_bootstrap, seed)
    draws = replace(draws, score_questions=torch.ones_like(draws.score_questions))
    gram = inner_products(make.with_system[:, 0], score.without_system[:, 0])
    weights = sep.contrasts(made, cells, draws)
    return sep.auc_with_interval(sep.held_out_aucs(weights, gram, scored, cells, draws))[1]


NO_SEPARABILITY: dict[str, Any] = {
    **dict.fromkeys(("auc_stripped", "auc_stripped_interval", "auc_rank_p", "auc_random_q95"), None),
    **dict.fromkeys(
        ("auc_with_prompt", "auc_with_prompt_interval", "auc_text_only", "auc_length_only"), None
    ),
    "judge_correlation_within_positive": None,
    **dict.fromkeys(("n_random", "n_bootstrap", "n_divisions", "n_divisions_unfiltered"), 0),
    **dict.fromkeys(("n_evaluation_questions", "n_evaluation_rows"), 0),
    "instructions_unseen": False,
    "notes": ["there are no evaluation rows, so separability is unknown"],
}


def stability(make: Activations, *, n_bootstrap: int, seed: int) -> dict[str, Any]:
    """How far v depends on the questions at hand: split-half cosine, and |v| with its crossed bootstrap
    interval.

    split_half_cosine: mean over 20 seeded divisions of the questions into halves of cos(v from one, v from
    the other). The bootstrap draws questions and instructions; |v| of a replicate is biased upward by its
    noise, so the interval is about spread, not about location.
    """
    rows = code_rows(make.frame)
    means = make.with_system[:, 0].double()
    random = generator(derive_seed("stability", seed))

    def directions(question_weight: Tensor, base: Tensor) -> Tensor:
        return balanced_contrast_weights(rows.question, rows.positive, base, question_weight) @ means

    questions = torch.unique(rows.question[rows.keep > 0])
    n_questions = int(rows.question.max()) + 1
    first = torch.zeros(N_HALVES, n_questions)
    for half in first:
        half[questions[torch.randperm(len(questions), generator=random)[: len(questions) // 2]]] = 1
    kept = rows.keep[None]
    cosines = torch.cosine_similarity(directions(first, kept), directions(1 - first, kept), dim=1)
    by_instruction = bootstrap_counts(int(rows.instruction.max()) + 1, n_bootstrap, random)[
        :, rows.instruction
    ]
    drawn = directions(bootstrap_counts(n_questions, n_bootstrap, random), by_instruction * rows.keep).norm(
        dim=1
    )
    low, high = percentile_interval(torch.where(drawn > 0, drawn, torch.nan))
    norm = directions(torch.ones(1, n_questions), kept).norm()
    return {
        "split_half_cosine": float(cosines.mean()),
        "norm": float(norm),
        "norm_interval": [float(low), float(high)],
    }


def code_rows(frame: pandas.DataFrame, instructions: Sequence[str] | None = None) -> sep.Rows:
    """The rows as codes; `instructions` fixes the order of the instruction ids when two tables share them."""
    order = instructions or sorted(set(frame["instruction_id"]))
    return sep.Rows(
        question=category_codes(frame["question_id"].tolist()),
        instruction=torch.tensor([order.index(name) for name in frame["instruction_id"]], dtype=torch.int64),
        positive=torch.from_numpy((frame["arm"] == "positive").to_numpy(dtype=bool).copy()),
        keep=torch.from_numpy(frame["kept"].to_numpy(dtype=float).copy()),
    )


def inner_products(make: Tensor, score: Tensor) -> Tensor:
    """Inner products `[n_make, n_score]` in float64: any direction made from the one scores the other through
    them."""
    return make.double() @ score.double().T


def text_evidence(
    make: pandas.DataFrame,
    score: pandas.DataFrame,
    made: sep.Rows,
    scored: sep.Rows,
    cells: Sequence[sep.Cell],
) -> dict[str, float | None]:
    """{auc_text_only, auc_length_only}: what the texts alone say, learnt from all rows of the making side."""
    lengths = [torch.from_numpy(frame["n_tokens"].to_numpy(dtype=float).copy()) for frame in (make, score)]
    texts = [frame["response"].tolist() for frame in (make, score)]
    return {
        "auc_text_only": sep.text_auc(texts[0], texts[1], made, scored, cells),
        "auc_length_only": sep.length_auc(lengths[0], lengths[1], made, scored, cells),
    }
