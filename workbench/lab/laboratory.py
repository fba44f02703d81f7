"""Run the laboratory: plant, experiment, decompose, compare with the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workbench.base.errors import WorkbenchError
from workbench.base.progress import Step, track
from workbench.base.provenance import provenance
from workbench.decomposition.methods import Method, zero_vector_overlap

from .dictionaries import Builder, builder_of, fit_for, truth_of
from .difficulties import Difficulty, difficulties_of, settings
from .experiment import HOOK, run_experiment
from .methods import ORACLE, Test, Trial, tests_of
from .oracle import oracle
from .result import LabResult, LabRow
from .scores import Score, score
from .world import make_world

N_SEEDS = 5


def run(
    difficulties: Sequence[str | Difficulty] | str | Difficulty = (),
    *,
    sae: str | Builder = "perfect",
    seeds: int | Sequence[int] = N_SEEDS,
    methods: Mapping[str, Method] | None = None,
    tests: Mapping[str, Test] | None = None,
) -> LabResult:
    """Realised FDR, power, signs and energy of every method in planted worlds, per difficulty.

    Each seed is a new world (features, persona), a new SAE and a new experiment in it. `difficulties` are names of
    `DIFFICULTIES` or configurations of your own (none = all); `sae` is a name of `SAES`, or your function (world, seed) ->
    SAE at `HOOK`. Beside the methods of `decomposition.methods` it scores `methods`, your functions (vector [d_model],
    sae, n_atoms) -> scores [d_sae] that rank latents, and `tests`, your functions (trial) -> Findings, which may have
    q-values. The same arguments give the same result on the same machine.

    Raises WorkbenchError for unknown names, no seeds, or findings of the wrong length.

    >>> import workbench.lab as lab
    >>> found = lab.run("easy", seeds=3)                                   # doctest: +SKIP
    >>> found.row("easy", "shares").fdr_at_05                              # doctest: +SKIP
    """
    chosen = difficulties_of([difficulties] if isinstance(difficulties, (str, Difficulty)) else difficulties)
    builder, numbers = builder_of(sae), _seeds(seeds)
    scored = tests_of(methods, tests)
    chosen = [fit_for(builder, difficulty) for difficulty in chosen]
    rows: list[LabRow] = []
    overlaps: dict[str, float | None] = {}
    with track("laboratory", len(chosen) * len(numbers), "worlds") as step:
        for difficulty in chosen:
            found, overlaps[difficulty.name] = _rows(difficulty, builder, numbers, scored, step)
            rows += found
    name = sae if isinstance(sae, str) else getattr(sae, "__name__", "yours")
    told = tuple(settings(difficulty) for difficulty in chosen)
    made = provenance(seed=numbers[0], inputs={}, config={"sae": name, "seeds": numbers})
    return LabResult(tuple(rows), name, tuple(numbers), told, overlaps, made)


def _rows(
    difficulty: Difficulty, builder: Builder, seeds: Sequence[int], tests: Mapping[str, Test], step: Step
) -> tuple[list[LabRow], float | None]:
    """(a row per test and one of the oracle, the mean overlap of encode(v) with encode(0)) of one difficulty."""
    scores: dict[str, list[Score]] = {name: [] for name in (*tests, ORACLE)}
    controlled, overlaps, truth = dict.fromkeys(scores, True), [], ""
    for seed in seeds:
        trial = make_trial(difficulty, builder, seed)
        for name, test in tests.items():
            findings = _checked(name, test(trial), trial)
            scores[name].append(score(trial, findings))
            controlled[name] = findings.q is not None
        scores[ORACLE].append(oracle(trial))
        overlaps.append(zero_vector_overlap(trial.experiment.vector.at(HOOK), trial.sae))
        truth = trial.truth.by
        step(note=difficulty.name)
    rows = [
        LabRow.of(difficulty.name, name, truth, found, scores[ORACLE], controlled=controlled[name])
        for name, found in scores.items()
    ]
    known = [value for value in overlaps if value is not None]
    return rows, sum(known) / len(known) if known else None


def make_trial(difficulty: Difficulty, builder: Builder, seed: int) -> Trial:
    """The world, the experiment and the SAE of one seed."""
    world = make_world(difficulty, seed)
    sae = builder(world, seed)
    if tuple(sae.decoder_directions.shape)[1:] != (difficulty.d_model,):
        raise WorkbenchError(
            f"the SAE has decoder directions of shape {tuple(sae.decoder_directions.shape)}",
            f"[d_sae, {difficulty.d_model}], the width of {difficulty.name}",
            "make the SAE from world.directions, or train it on lab.sample_tokens(world, n)",
        )
    return Trial(run_experiment(world, seed), sae, truth_of(world, sae))


def _checked(name: str, findings: Any, trial: Trial) -> Any:
    expected = (len(trial.truth.change),)
    for part in ("coefficients", "ranking", "q"):
        values = getattr(findings, part, None)
        if values is None and part == "q":
            continue
        shape = None if values is None else tuple(values.shape)
        if shape != expected:
            found = f"the findings of {name!r} have {part} of shape {shape}"
            raise WorkbenchError(found, f"shape {expected}", "give one value per latent")
    return findings


def _seeds(seeds: int | Sequence[int]) -> list[int]:
    numbers = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if not numbers:
        raise WorkbenchError(f"{seeds!r} seeds", "at least one", "give a number of seeds, or a list of them")
    return numbers
