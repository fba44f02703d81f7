"""All traits side by side: one row of evidence per trait, at the block that suits it, and the geometry of their vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.progress import track
from workbench.models.hookpoints import HookPoint
from workbench.models.model import Model
from workbench.personas.controls import aa_evidence, effect_size, placebo_evidence
from workbench.personas.effects import DOSES, vector_effects
from workbench.personas.evidence import (
    NO_SEPARABILITY,
    best_hook,
    interval_of_fixed_questions,
    separability,
    stability,
)
from workbench.personas.geometry import Geometry, geometry
from workbench.personas.judges import Judge
from workbench.personas.judging import check_judge, judge_rows
from workbench.personas.monitoring import monitoring
from workbench.personas.outcomes import trait_outcome
from workbench.personas.placebos import PlaceboVectors
from workbench.personas.runs import PersonaRun, held_out, read_run
from workbench.personas.sensitivity import sensitivity
from workbench.personas.separability import features_auc

if TYPE_CHECKING:
    from workbench.personas.traits import Trait

RANK_P = 0.01
_FROM_SEPARABILITY = ("auc_stripped", "auc_rank_p", "auc_random_q95", "auc_text_only", "auc_length_only", "auc_with_prompt",
                      "judge_correlation_within_positive", "n_evaluation_rows", "n_evaluation_questions")  # fmt: skip
_FROM_EVIDENCE = ("filtered", "kept_counts", "judge", "judge_validated")


@dataclass(frozen=True, eq=False, repr=False)
class Panel(Shown):
    """`rows` = {trait: its evidence}, JSON values; `geometry` of the vectors (None for a single trait)."""

    hook: str
    rows: dict[str, dict[str, Any]]
    geometry: Geometry | None
    notes: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        drawn = None if self.geometry is None else self.geometry.to_json()
        return {"hook": self.hook, "traits": self.rows, "geometry": drawn, "notes": list(self.notes)}


def panel(
    runs: Sequence[PersonaRun],
    traits: Mapping[str, Trait],
    model: Model,
    *,
    placebos: PlaceboVectors | None = None,
    judges: Mapping[str, Judge | None] | None = None,
    own: Mapping[str, HookPoint] | None = None,
    keep: Callable[[str, str, Callable[[], dict[str, Any]]], dict[str, Any]] = lambda _, __, make: make(),
    quick: bool = False,
    seed: int = 0,
) -> Panel:
    """The evidence of every run's vector at the trait's own hook point, and at the one that the runs were read at.

    own: per trait where its row is measured (default: where its run was read); the separability and the causal effect at
    the runs' common hook point then stand under "common", where the geometry is taken too. judges: per trait the judge
    that scores outcomes, None where there is none; the one that filtered the rows is not used (a note says so).
    keep(study, trait, make): gives the trait's part of a study ("rows", "all_rows"), made now or kept from before.
    quick=True leaves out what needs further passes of the model (causal effect, monitoring, sensitivity).
    """
    scores: dict[str, Tensor] = {}
    rows: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    bench = _Bench(model, placebos, quick, seed)
    with track("panel", len(runs), "traits") as step:
        for run in runs:
            judge, trait = (judges or {}).get(run.trait), traits[run.trait]
            if judge is not None and judge.name == run.vector.evidence.get("judge"):
                notes.append(f"{run.trait}: {judge.name} filtered the rollouts, so it scores no outcome")
                judge = None
            if judge is not None:
                check_judge(judge, model)
                judged = judge_rows(run.score.frame, trait, judge)
                scores[run.trait] = torch.from_numpy(judged["score"].to_numpy(dtype=float).copy())
            there = (own or {}).get(run.trait, run.hook)
            row = keep("rows", run.trait, partial(bench.row, run, there, trait, scores.get(run.trait)))
            row = with_all_rows(row, keep("all_rows", run.trait, partial(bench.all_rows, run, there)))
            rows[run.trait] = {**row, "outcome_judge": judge.name if judge else None}
            step()
    null = None if placebos is None else placebos.at(runs[0].hook)
    drawn = geometry(runs, scores, placebo_directions=null) if len(runs) > 1 else None
    return Panel(str(runs[0].hook), rows, drawn, tuple(notes))


@dataclass(frozen=True, eq=False)
class _Bench:
    """What all rows are measured with."""

    model: Model
    placebos: PlaceboVectors | None
    quick: bool
    seed: int

    def row(self, run: PersonaRun, there: HookPoint, trait: Trait, scores: Tensor | None) -> dict[str, Any]:
        """The whole row of one trait: at its own hook point, and under "common" at the run's."""
        here = self._at(run, there)
        row = trait_row(here, self.placebos, seed=self.seed)
        row["common"] = None if here is run else separability_row(run, self.placebos, seed=self.seed)
        if self.quick:
            return row
        if row["common"] is not None:
            row["common"]["causal"] = self.causal(run, trait, DOSES[-1:])
        return row | self.measured(here, trait, scores)

    def all_rows(self, run: PersonaRun, there: HookPoint) -> dict[str, Any]:
        """What takes no notice of the judge, in the shape that `with_all_rows` reads."""
        here = self._at(run, there)
        return {
            "auc_embedding": embedding_auc(run),
            "own": all_rows_evidence(here, self.placebos, seed=self.seed),
            "common": None if here is run else all_rows_evidence(run, self.placebos, seed=self.seed),
        }

    def _at(self, run: PersonaRun, there: HookPoint) -> PersonaRun:
        return run if there == run.hook else read_run(run.folder, self.model, there)

    def measured(self, run: PersonaRun, trait: Trait, scores: Tensor | None) -> dict[str, Any]:
        """What needs further passes: causal effect on the sealed pairs, monitoring, sensitivity columns."""
        causal = self.causal(run, trait)
        found: dict[str, Any] = {"causal": causal, "monitor_r_across": None, "monitor_r_within": None}
        if causal is not None:
            found["causal_random_interval"] = {dose: one["random_interval"] for dose, one in causal.items()}
        if scores is not None and bool(torch.isfinite(scores).any()):
            watched = monitoring(run, self.model, scores, placebos=self.placebos, seed=self.seed)
            found |= {f"monitor_{name}": value for name, value in watched.items()}
        found["sensitivity"] = sensitivity(run, self.model)
        found["judge_free"] = trait_outcome(trait, self.model, seed=self.seed)
        return found

    def causal(self, run: PersonaRun, trait: Trait, doses: Sequence[float] = DOSES) -> dict[str, Any] | None:
        """What pushing along the vector does to the sealed pairs; None for a trait without any."""
        sealed = [pair for pair in (*trait.contrast_pairs, *trait.control_pairs) if pair.split == "sealed"]
        if not any(pair.kind == "contrast" for pair in sealed):
            return None
        rows = run.make.with_system[:, 0]
        return vector_effects(self.model, run.hook, sealed, run.direction, rows, doses=doses, seed=self.seed)


def own_block(run: PersonaRun) -> HookPoint:
    """The block that the run's extraction questions choose (`layer_curve`); where it was read when there is no curve."""
    curve = run.vector.evidence.get("layer_curve")
    return best_hook(curve, run.vector.hooks) if curve else run.hook


def all_rows_evidence(
    run: PersonaRun, placebos: PlaceboVectors | None = None, *, n_bootstrap: int = 1000, n_random: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """{auc_text_only, auc_length_only, auc_interval_fixed_questions, unfiltered} at the run's hook point.

    unfiltered: {auc, auc_interval, auc_with_prompt, rank_p, random_q95, placebo_q95, placebo_p, passes} of the vector
    from all usable rows, under the draws, random directions and placebos of the filtered one. None where nothing could
    be measured.
    """
    rows: Any = run.make.frame
    everything = replace(run, make=replace(run.make, frame=rows.assign(kept=True)))
    row = _separability(everything, placebos, n_bootstrap=n_bootstrap, n_random=n_random, seed=seed)
    names = {"auc": "auc_stripped", "auc_interval": "auc_interval", "auc_with_prompt": "auc_with_prompt",
             "rank_p": "auc_rank_p", "random_q95": "auc_random_q95", "placebo_q95": "auc_placebo_q95",
             "placebo_p": "auc_placebo_p", "passes": "passes"}  # fmt: skip
    row |= verdicts(row)
    known = row["auc_stripped"] is not None
    return {
        "auc_text_only": row["auc_text_only"],
        "auc_length_only": row["auc_length_only"],
        "auc_interval_fixed_questions": (
            interval_of_fixed_questions(run.make, run.score, n_bootstrap=n_bootstrap, seed=seed) if known else None
        ),
        "unfiltered": {name: row.get(source) for name, source in names.items()} if known else None,
    }


def with_all_rows(row: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """The row, and its "common", with what `_Bench.all_rows` found, and the verdicts that follow."""
    whole = {**row, **found["own"], "auc_embedding": found["auc_embedding"]}
    if whole.get("common") is not None:
        whole["common"] = with_all_rows(whole["common"], {**found, "own": found["common"]})
    return whole | verdicts(whole)


def trait_row(run: PersonaRun, placebos: PlaceboVectors | None = None, *, seed: int = 0) -> dict[str, Any]:
    """What needs no further pass of the model: separability, placebos and verdicts, stability, A/A, what was filtered."""
    vector, place = run.vector, run.vector.index(run.hook)
    row = separability_row(run, placebos, seed=seed)
    row |= {name: vector.evidence.get(name) for name in _FROM_EVIDENCE}
    row["cosine_filtered_unfiltered"] = (
        None if vector.unfiltered is None else float(torch.cosine_similarity(run.direction, vector.unfiltered[place], dim=0))
    )
    row["split_half_cosine"] = stability(run.make, n_bootstrap=50, seed=seed)["split_half_cosine"]
    return row | aa_evidence(run) | {"code_commit": vector.provenance.get("code_commit")}


def separability_row(
    run: PersonaRun, placebos: PlaceboVectors | None = None, *, n_bootstrap: int = 1000, n_random: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """The separability at the run's hook point (`evidence.separability`), its effect size, the placebos, the verdicts.

    A block that the extraction questions choose sees no evaluation row, so its figures are as held out as any other's.
    """
    row = _separability(run, placebos, n_bootstrap=n_bootstrap, n_random=n_random, seed=seed)
    row |= {} if row["auc_stripped"] is None else effect_size(run, seed=seed)
    return row | verdicts(row)


def _separability(
    run: PersonaRun, placebos: PlaceboVectors | None, *, n_bootstrap: int, n_random: int, seed: int
) -> dict[str, Any]:
    found = NO_SEPARABILITY
    if not run.score.frame.empty:
        found = separability(run.make, run.score, n_bootstrap=n_bootstrap, n_random=n_random, seed=seed)
    row: dict[str, Any] = {"hook": str(run.hook), "auc_interval": found.get("auc_stripped_interval")}
    row |= {name: found[name] for name in _FROM_SEPARABILITY}
    if row["auc_stripped"] is not None and placebos is not None:
        row |= placebo_evidence(run, placebos, row["auc_stripped"])
    return row


def verdicts(row: Mapping[str, Any]) -> dict[str, Any]:
    """{passes, above_random_q95, above_placebos, beats_text}: what the figures of a row amount to.

    passes: rank p <= .01 against covariance-matched directions, the interval above .5, and the AUC above the 95th
    percentile of all placebos, those that come close to the trait included. above_random_q95 is the stricter aim: the
    whole interval above the random directions' 95th percentile. beats_text: the row passes, and its AUC is higher than
    those of TF-IDF, length and sentence embeddings on the same texts; to be above a baseline that is itself at chance
    is no win.
    """
    area, interval = row.get("auc_stripped"), row.get("auc_interval")
    if area is None or interval is None:
        return dict.fromkeys(("passes", "above_random_q95", "above_placebos", "beats_text"))
    placebo = row.get("auc_placebo_q95")
    above = None if placebo is None else area > placebo
    texts = [row.get(name) for name in ("auc_text_only", "auc_length_only", "auc_embedding")]
    passes = row["auc_rank_p"] <= RANK_P and interval[0] > 0.5 and above is not False
    return {
        "passes": passes,
        "above_random_q95": interval[0] > row["auc_random_q95"],
        "above_placebos": above,
        "beats_text": passes and all(area > value for value in texts if value is not None),
    }


def embedding_auc(run: PersonaRun) -> float | None:
    """AUC of sentence embeddings with logistic regression on the rows and divisions of the vector.

    None without evaluation rows, or where the embedder cannot be had.
    """
    from workbench.base.errors import WorkbenchError
    from workbench.personas.judges.embedding import Embedder

    if run.score.frame.empty:
        return None
    parts = held_out(run, n_bootstrap=0, generator=torch.Generator())
    try:
        features = [Embedder().features(frame["response"].tolist()) for frame in (run.make.frame, run.score.frame)]
    except WorkbenchError:  # the asset is not on this machine and cannot be fetched
        return None
    return features_auc(features[0], features[1], parts.made, parts.scored, parts.cells)
