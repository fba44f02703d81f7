"""Take a persona vector apart on an SAE."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.progress import track
from workbench.base.provenance import provenance
from workbench.base.randomness import derive_seed, generator
from workbench.base.tensors import tensor_hash
from workbench.maths.identity import n_for_half
from workbench.maths.statistics import basic_interval
from workbench.saes.evaluation.gate import check_fitness, doubts

from .checks import check_model, check_reproduces, check_same_site
from .crossed import crossed_tests
from .energy import energy_table
from .grouping.groups import with_groups
from .methods import METHODS, decoder_of, zero_vector_overlap
from .nulls import feature_tests, same_against_same
from .placebos import PlaceboCodes, specificity, standard_errors
from .result import FEATURE_ARRAYS, Decomposition
from .rows import RowCodes, read_row_codes
from .shares import Accounting, Design, account, bootstrap_shares, largest_shares, question_contributions

MIN_QUESTIONS = 8
Q_LEVEL = 0.05
N_ENERGY_REPLICATES = 64
_WEIGHTS = ("weight", "weight_up", "weight_down")


def decompose(
    vector: Any,
    sae: Any,
    *,
    model: Any = None,
    trait: Any = None,
    n_candidates: int = 10,
    n_atoms: int = 32,
    n_bootstrap: int = 500,
    causal: bool = True,
    placebos: PlaceboCodes | None = None,
    controls: Mapping[str, Any] | None = None,
    keep: Iterable[int] = (),
    seed: int = 0,
) -> Decomposition:
    """What `vector` is made of: shares of |v|^2 per SAE feature, with intervals, tests, secondary views and controls.

    The vector's response tokens at the SAE's hook are encoded once; v = sum_j dz_j d_j + d_error holds exactly for
    the mean codes, with the weights that made the vector (each question weighs the same), and gives the shares.
    Intervals: crossed bootstrap over questions and instructions, everything recomputed inside. p-values: exact sign
    flips over questions, max-T and Benjamini-Hochberg over active features; they take the instructions as given. `q_crossed`
    takes them as draws: would the change be there under another wording? v_up and v_down are accounted for in the
    same way, so `in_v_up` tells traits from the absence of their opposite. Beside it the signed cosine, the signed
    pursuit of v (`n_atoms` atoms) and, as a labelled control, encode(v).

    What would other contrasts have got? `placebos` (default: those beside the SAE's card) give `placebo_score`,
    `placebo_q` and the counts of what each placebo gets by the same rule; an arm is tested against itself (A/A); and the
    energy that few atoms explain stands in a table of vectors against dictionaries, `controls` {name: SAE} (a soft-frozen
    one, say) among them.

    Tokens come from `vector.tokens`, else from reading the rollouts through `model` again. A bare vector (no rows)
    gets the secondary views only: its shares are NaN and `warnings` says why. With `model` and `causal` the causal
    effects of the `n_candidates` features of the largest share are measured as well (`decomposition.causal.verdict`), on the
    written pairs of `trait` (default: the one that the vector names).
    The same seed gives the same result on the same machine. Bootstrap replicates of the features `keep` are kept in any case.

    Raises WorkbenchError when vector, SAE and model do not belong together, when tokens are missing, or when the
    tokens do not give the vector back within 1e-4 of its norm. Source: design of the accounting identity in
    `maths.identity`; the naive code's failure in Mayne et al. 2024 (arXiv 2411.08790).
    """
    from .causal.verdict import add_causal

    check_same_site(vector, sae)
    if model is not None:
        check_model(vector, model)
    placebos = placebos or PlaceboCodes.beside(sae)
    if placebos is not None:
        placebos.check(sae)
    against = {name: decoder_of(other) for name, other in (controls or {}).items()}
    config = {"n_candidates": n_candidates, "n_atoms": n_atoms, "n_bootstrap": n_bootstrap}
    parts = _secondary(vector, sae, n_atoms=n_atoms)
    parts = replace(parts, provenance=provenance(seed=seed, inputs=_inputs(vector, sae), config=config))
    if len(vector.rows):
        nulls = Nulls(placebos, against, n_bootstrap, n_atoms, seed, tuple(keep))
        parts = _with_shares(parts, vector, sae, model, nulls)
    else:
        parts = _bare(parts, vector, sae, n_atoms=n_atoms, seed=seed)
    parts = replace(parts, candidates=parts.top(n_candidates))
    return add_causal(parts, vector, sae, model, trait=trait, seed=seed) if causal and model is not None else parts


def _secondary(vector: Any, sae: Any, *, n_atoms: int) -> Decomposition:
    """The views that need the direction only; everything else is unknown (NaN) so far."""
    direction = vector.at(sae.hook).float().cpu()
    unknown = torch.full((sae.d_sae,), torch.nan)
    arrays: dict[str, Any] = dict.fromkeys(FEATURE_ARRAYS, unknown) | {"in_v_up": torch.zeros(sae.d_sae, dtype=torch.bool)}
    arrays |= {name: method(direction, sae, n_atoms) for name, method in METHODS.items()}
    elsewhere = (
        f"the vector's chosen hook is {vector.hook}; this is its direction at the SAE's hook {sae.hook}"
    )
    return Decomposition(
        trait=vector.trait,
        sae=_describe_sae(sae),
        vector={
            "trait": vector.trait,
            "model": vector.model,
            "hook": str(sae.hook),
            "sha256": tensor_hash(direction),
        },
        **arrays,
        share_error=None,
        share_error_interval=None,
        share_sum_error=None,
        n_questions=0,
        vector_norm=direction.norm().item(),
        candidates=(),
        replicate_features=torch.zeros(0, dtype=torch.int64),
        replicate_shares=torch.zeros(0, 0),
        replicate_error=torch.zeros(0),
        direction=direction,
        controls={"expected_by_chance": None, "zero_vector_overlap": zero_vector_overlap(direction, sae)},
        warnings=(*((elsewhere,) if sae.hook != vector.hook else ()), *doubts(sae.id, check_fitness(sae))),
    )


def _describe_sae(sae: Any) -> dict[str, Any]:
    figures = ("variance_explained", "l0", "ce_recovered", "dead_share")
    known = {"id": sae.id, "hook": str(sae.hook), "model": sae.model_name, "weights_hash": sae.weights_hash}
    return (
        known | {"d_model": sae.d_model, "d_sae": sae.d_sae} | {name: sae.card.get(name) for name in figures}
    )


def _inputs(vector: Any, sae: Any) -> dict[str, str]:
    found = {
        "model": vector.model.get("weights_hash"),
        "sae": sae.weights_hash,
        "vector": tensor_hash(vector.directions),
        "tokens": None if vector.tokens is None else vector.tokens.sha256,
    }
    return {name: value for name, value in found.items() if value}


def _bare(parts: Decomposition, vector: Any, sae: Any, *, n_atoms: int, seed: int) -> Decomposition:
    direction, decoder = vector.at(sae.hook).float().cpu(), decoder_of(sae)
    energy = energy_table(direction, decoder, None, n_atoms=n_atoms, seed=seed)
    told = "the vector came without the rollouts behind it, so shares, intervals, tests and groups are unknown"
    return replace(
        parts,
        controls=parts.controls | {"random_directions": energy},
        audit={"energy": energy},
        warnings=(*parts.warnings, told),
    )


@dataclass(frozen=True, eq=False, repr=False)
class Nulls(Shown):
    """What the shares are compared with, and how finely."""

    placebos: PlaceboCodes | None
    controls: dict[str, Tensor]
    n_bootstrap: int
    n_atoms: int
    seed: int
    keep: tuple[int, ...]


def _with_shares(parts: Decomposition, vector: Any, sae: Any, model: Any, nulls: Nulls) -> Decomposition:
    decoder, used, seed = decoder_of(sae), used_rows(vector.rows), nulls.seed
    rows = read_row_codes(tokens_of(vector, sae.hook, model, used), used["id"].astype(str).tolist(), sae)
    design = _design(used, "weight")
    whole = account(rows, design, decoder)
    check_reproduces(whole.vector, vector.at(sae.hook).cpu(), sae.hook)
    with track("decompose: intervals, tests and controls", 4, "steps") as step:
        parts = _fill_shares(parts, rows, design, whole, decoder, nulls)
        step()
        parts = _fill_tests(parts, question_contributions(rows, design), nulls.placebos, seed=seed)
        parts = _fill_crossed(parts, rows, design)
        step()
        parts = _fill_arms(parts, rows, used, decoder, vector, sae.hook, seed=seed)
        step()
        energy = _energy(parts, rows, design, whole, decoder, nulls)
        step()
    parts = replace(
        parts,
        vector={**parts.vector, "n_rows": int((design.weights != 0).sum())},
        controls={**parts.controls, "random_directions": energy, "same_against_same": same_against_same(rows, design)},
        audit={**parts.audit, "energy": energy, "n_features_half": n_for_half(whole.shares), "error_gap": rows.gap},
    )
    return with_groups(parts, rows, used, decoder, seed=seed)


def _energy(
    parts: Decomposition, rows: RowCodes, design: Design, whole: Accounting, decoder: Tensor, nulls: Nulls
) -> dict[str, Any]:
    drawn = design.resampled(N_ENERGY_REPLICATES, generator(derive_seed("energy replicates", nulls.seed)))
    others = nulls.placebos
    placebos = None if others is None else others.vectors[others.unrelated(parts.trait)]
    return energy_table(whole.vector, decoder, rows.sample, n_atoms=nulls.n_atoms, seed=nulls.seed, placebos=placebos,
                        controls=nulls.controls, replicates=drawn @ rows.means)  # fmt: skip


def used_rows(rows: Any) -> Any:
    """The rows that carry weight in v, v_up or v_down (a vector without the last two has no such columns)."""
    weighted = [name for name in _WEIGHTS if name in rows.columns]
    return rows[(rows[weighted].fillna(0) != 0).any(axis=1)].reset_index(drop=True)


def _design(used: Any, column: str) -> Design:
    names = (used[name].fillna("").astype(str).tolist() for name in ("question_id", "instruction_id"))
    return Design.of(used[column].fillna(0).tolist(), *names)


def tokens_of(vector: Any, hook: Any, model: Any, used: Any) -> Iterable[tuple[str, Tensor]]:
    """(row id, token activations [n_tokens, d_model]) of the rows `used` at `hook`: those stored, else read through `model`.

    Raises WorkbenchError when they are neither stored nor a model is given.
    """
    if vector.tokens is not None and hook in vector.tokens.hooks and vector.tokens.intact():
        return vector.tokens.rows(hook)
    if model is None:
        raise WorkbenchError(
            f"the token activations of the vector at {hook} are not on disk",
            "stored tokens, or the model to read the rollouts through again",
            f"give the model to decompose, or run extract again with token_hooks=[{hook}]",
        )
    from workbench.personas.reencoding import recapture_tokens

    return recapture_tokens(model, used, hook)


def _fill_shares(
    parts: Decomposition,
    rows: RowCodes,
    design: Design,
    whole: Accounting,
    decoder: Tensor,
    nulls: Nulls,
) -> Decomposition:
    found = bootstrap_shares(
        rows, design, decoder, whole=whole, keep=largest_shares(whole.shares, besides=nulls.keep), n_bootstrap=nulls.n_bootstrap,
        generator=generator(derive_seed("shares", nulls.seed)),
    )  # fmt: skip
    low, high = (end.item() for end in basic_interval(found.error, whole.error))
    return replace(
        parts,
        share=whole.shares,
        share_low=found.low,
        share_high=found.high,
        delta_code=whole.delta_codes,
        top_rate=found.top_rate,
        share_error=whole.error,
        share_error_interval=(low, high),
        share_sum_error=whole.sum_error,
        replicate_features=found.features,
        replicate_shares=found.shares,
        replicate_error=found.error,
    )


def _fill_tests(
    parts: Decomposition, contributions: Tensor, placebos: PlaceboCodes | None, *, seed: int
) -> Decomposition:
    tests, n_questions = feature_tests(contributions, seed=seed), len(contributions)
    parts, told = _fill_placebos(parts, contributions, placebos)
    if n_questions < MIN_QUESTIONS:
        told.append(f"only {n_questions} questions: the smallest possible p is {2 / 2**n_questions:.2g}")
    if not tests.exact:
        told.append(
            f"more than 20 questions: p-values come from {tests.n_patterns:,} random sign flips, not from all"
        )
    if tests.exact and not tests.family_exact:
        told.append("many active features: the family-wise p comes from random sign flips, not from all")
    audit = {"n_active": tests.n_active, "n_patterns": tests.n_patterns, "exact": tests.exact}
    return replace(
        parts,
        p_value=tests.p_value,
        p_family=tests.p_family,
        q_value=tests.q_value,
        n_questions=n_questions,
        audit={**parts.audit, **audit},
        warnings=(*parts.warnings, *told),
    )


def _fill_crossed(parts: Decomposition, rows: RowCodes, design: Design) -> Decomposition:
    found = crossed_tests(rows, design)
    if found is None:
        told = "too few questions and instructions: whether a change would be there under another wording is unknown"
        return replace(parts, warnings=(*parts.warnings, told))
    return replace(parts, q_crossed=found.q_value)


def _fill_placebos(
    parts: Decomposition, contributions: Tensor, placebos: PlaceboCodes | None
) -> tuple[Decomposition, list[str]]:
    if placebos is None:
        return parts, ["no placebo contrasts of this SAE: whether a feature is the trait's own, or any prompt's, is unknown"]
    found = specificity(parts.delta_code, standard_errors(contributions), placebos, trait=parts.trait)
    counts = sorted(found.placebo_counts)
    beaten = sum(found.count > count for count in counts)
    known = {"n": len(counts), "n_specific": found.count, "counts": counts, "median": float(median(counts)),
             "rank_p": (1 + len(counts) - beaten) / (1 + len(counts))}  # fmt: skip
    parts = replace(parts, placebo_score=found.score, placebo_p=found.p_value, placebo_q=found.q_value,
                    controls={**parts.controls, "placebos": known})  # fmt: skip
    return parts, []


def _fill_arms(
    parts: Decomposition, rows: RowCodes, used: Any, decoder: Tensor, vector: Any, hook: Any, *, seed: int
) -> Decomposition:
    up, down = (_arm_design(used, column) for column in ("weight_up", "weight_down"))
    if up is None or down is None:
        told = "no neutral arm: whether a feature is present in v_up is unknown"
        return replace(parts, warnings=(*parts.warnings, told))
    of_up, of_down = account(rows, up, decoder), account(rows, down, decoder)
    if vector.up is not None:
        check_reproduces(of_up.vector, vector.up[vector.index(hook)].cpu(), f"{hook} (v_up)")
    tests = feature_tests(question_contributions(rows, up), seed=seed, family=False)
    present = (of_up.shares > 0) & (tests.q_value <= Q_LEVEL)
    arms = {
        name: {"norm": arm.vector.norm().item(), "share_error": arm.error, "share_sum_error": arm.sum_error}
        for name, arm in (("v_up", of_up), ("v_down", of_down))
    }
    return replace(
        parts,
        share_up=of_up.shares,
        share_down=of_down.shares,
        in_v_up=present,
        audit={**parts.audit, **arms},
    )


def _arm_design(used: Any, column: str) -> Design | None:
    """The design of v_up or v_down, None when nothing was kept in the neutral arm."""
    if column not in used.columns or not used[column].fillna(0).any():
        return None
    return _design(used, column)
