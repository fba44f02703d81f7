"""Extraction methods side by side, on one footing: every direction scores the same held-out rows and pushes equally far.

A candidate is a method, a position, a hook point and whether rows are scaled to one length first. All directions are
made from extraction questions under three instructions and score the *response means, without the system prompt,* of
verification questions under the other two (all ten ways), whatever they were read from. Pushes are added to the residual
stream after the hook's block, on the reply pairs to select by, in median token norms of that place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.progress import track
from workbench.base.randomness import derive_seed, generator
from workbench.maths.separation import covariance_matched_directions, replicated_auc
from workbench.maths.statistics import bootstrap_counts, percentile_interval
from workbench.models.hookpoints import HookPoint
from workbench.models.loading import Model
from workbench.personas.controls import cohens_d
from workbench.personas.effects import DOSES, DoseInstrument
from workbench.personas.evidence import code_rows
from workbench.personas.methods import DETECTORS, METHODS, Direction, contrast, direction_by
from workbench.personas.positions import POSITIONS, check_position, position_means
from workbench.personas.reencoding import reencode_without_system
from workbench.personas.runs import PersonaRun
from workbench.personas.separability import Cell, Draws, division_cells, draw, kept_rows
from workbench.personas.traits import Trait

N_BOOTSTRAP = 50
N_RANDOM = 20
N_HALVES = 10


@dataclass(frozen=True, order=True)
class Candidate:
    """One way to make a direction."""

    hook: HookPoint
    position: str = POSITIONS[0]
    method: str = next(iter(METHODS))
    normalised: bool = False
    """Whether each row is scaled to length 1 before it counts."""

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"{self.method} {self.position} {self.hook}{' normalised' if self.normalised else ''}"


def default_candidates(hook: HookPoint) -> list[Candidate]:
    """A star around the default: every method, every position, scaled rows, and the parts of the same block."""
    methods = [Candidate(hook, method=method) for method in METHODS]
    positions = [Candidate(hook, position) for position in POSITIONS[1:]]
    parts = [
        Candidate(HookPoint(hook.block, site))
        for site in ("hook_attn_out", "hook_mlp_out")
        if site != hook.site
    ]
    return [*methods, *positions, Candidate(hook, normalised=True), *parts]


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Shown):
    """What `compare` found: one row per candidate and the cosines between their directions (None across widths)."""

    trait: str
    rows: tuple[dict[str, Any], ...]
    cosines: list[list[float]]
    causal_random: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """{trait, rows, names, cosines, causal_random: {hook: {dose: [low, high]}}}."""
        names = [row["name"] for row in self.rows]
        return {"trait": self.trait, "rows": list(self.rows), "names": names, "cosines": self.cosines,
                "causal_random": self.causal_random}  # fmt: skip


def compare(
    run: PersonaRun,
    trait: Trait,
    model: Model,
    candidates: Sequence[Candidate] | None = None,
    *,
    n_bootstrap: int = N_BOOTSTRAP,
    n_random: int = N_RANDOM,
    seed: int = 0,
) -> Comparison:
    """Make every candidate from the rows of `run` and measure it.

    Per row: auc and effect_size (Cohen's d) with intervals (estimate -+ 1.96 crossed-bootstrap standard errors, every
    direction made again in each of `n_bootstrap` replicates), split_half_cosine over halves of the questions,
    seed_cosine and seed_auc_sd over the samples of each cell (None with one sample), and causal: {dose: odd, interval,
    damage} of the direction, with causal_pattern for detectors. Whoever picks a way by these figures has the sealed
    questions and pairs left to judge it by: the rows are those of the verification questions (all evaluation rows where
    there are none), the pairs those to select by.
    """
    chosen = list(candidates or default_candidates(run.hook))
    data = _Data(_unsealed(run), model, n_bootstrap, seed)
    rows, directions = [], []
    with track(f"methods for {trait.name}", len(chosen), "directions") as step:
        for candidate in chosen:
            measured, whole = _measure(data, candidate)
            rows.append(measured)
            directions.append(whole)
            step()
    random = _add_causal(rows, directions, chosen, data, trait, n_random, seed)
    stacked = torch.nn.functional.normalize(torch.stack([d.direction for d in directions]), dim=1)
    return Comparison(trait.name, tuple(rows), (stacked @ stacked.T).tolist(), random)


def _unsealed(run: PersonaRun) -> PersonaRun:
    verification = run.score.frame["split"] == "verification"
    return replace(run, score=run.score.of(verification)) if bool(verification.any()) else run


class _Data:
    """The rows of a run, with activations read when a candidate asks for them."""

    def __init__(self, run: PersonaRun, model: Model, n_bootstrap: int, seed: int) -> None:
        self.run, self.model = run, model
        names = sorted(set(run.make.frame["instruction_id"]) | set(run.score.frame["instruction_id"]))
        self.made, self.scored = code_rows(run.make.frame, names), code_rows(run.score.frame, names)
        self.cells: list[Cell] = division_cells(self.made, self.scored, len(names))
        sizes = (int(self.made.question.max()) + 1, int(self.scored.question.max()) + 1, len(names))
        self.draws: Draws = draw(*sizes, n_bootstrap, generator(derive_seed("methods", seed)))
        self.halves = generator(derive_seed("split halves", seed))
        self._read: dict[tuple[HookPoint, str], Tensor] = {}

    @cached_property
    def samples(self) -> Tensor:
        return torch.from_numpy(self.run.make.frame["sample"].to_numpy(dtype=int).copy())

    def x(self, candidate: Candidate) -> Tensor:
        """Rows that make the direction `[n_make, d_model]`."""
        key = (candidate.hook, check_position(candidate.position))
        if key not in self._read:
            self._read[key] = self._rows(*key)
        return _scaled(self._read[key], candidate)

    def _rows(self, hook: HookPoint, position: str) -> Tensor:
        if (hook, position) == (self.run.hook, POSITIONS[0]):
            return self.run.make.with_system[:, 0]
        return position_means(self.model, self.run.folder, self.run.make.frame, (hook,), position)[:, 0]

    def y(self, candidate: Candidate) -> Tensor:
        """Rows that are scored `[n_score, d_model]`: response means without the system prompt."""
        key = (candidate.hook, "stripped")
        if key not in self._read:
            self._read[key] = self._stripped(candidate.hook)
        return _scaled(self._read[key], candidate)

    def _stripped(self, hook: HookPoint) -> Tensor:
        import pyarrow as pa

        if hook == self.run.hook:
            return self.run.score.without_system[:, 0]
        frame: Any = self.run.score.frame
        table = pa.Table.from_pandas(frame[["id", "question", "response_ids"]], preserve_index=False)  # pyright: ignore
        return reencode_without_system(self.model, self.run.folder, table, frame["id"].tolist(), (hook,))[
            :, 0
        ]

    def direction(self, candidate: Candidate, counts: Tensor) -> Direction:
        """The candidate's direction from rows that count `counts [n_make]` times."""
        made = self.made
        rows = contrast(self.x(candidate), made.positive, made.question, made.instruction, counts)
        if not len(rows.weight):  # no question has counting rows in both arms
            nowhere = torch.full((self.model.d_model,), torch.nan, dtype=torch.float64)
            return Direction(nowhere, nowhere)
        return direction_by(candidate.method, rows)


def _scaled(rows: Tensor, candidate: Candidate) -> Tensor:
    return torch.nn.functional.normalize(rows.double(), dim=1) if candidate.normalised else rows.double()


def _measure(data: _Data, candidate: Candidate) -> tuple[dict[str, Any], Direction]:
    areas, effects = _held_out(data, candidate)
    whole = data.direction(candidate, data.made.keep)
    found = {
        "name": candidate.name, "method": candidate.method, "position": candidate.position, "hook": str(candidate.hook),
        "normalised": candidate.normalised, **_estimate("auc", areas), **_estimate("effect_size", effects),
        "split_half_cosine": _split_half(data, candidate), **_seed_spread(data, candidate),
    }  # fmt: skip
    return found, whole


def _held_out(data: _Data, candidate: Candidate) -> tuple[Tensor, Tensor]:
    """(AUC, Cohen's d) `[1 + n_bootstrap]`, means over the divisions of the instructions."""
    y, scored, draws = data.y(candidate), data.scored, data.draws
    areas, effects = [], []
    for cell in data.cells:
        here = cell.score.nonzero().flatten()
        counts = draws.score_questions[:, scored.question] * draws.instructions[:, scored.instruction]
        made = draws.make_questions[:, data.made.question] * draws.instructions[:, data.made.instruction]
        made = made * (cell.make * kept_rows(data.made, cell))
        # A replicate that drew no question with both arms has no direction: its scores are NaN, its cell is left out.
        scores = torch.stack([y[here] @ data.direction(candidate, one).direction for one in made])
        areas.append(replicated_auc(scores, scored.positive[here], counts[:, here]))
        effects.append(cohens_d(scores, scored.positive[here], counts[:, here]))
    return torch.stack(areas).nanmean(dim=0), torch.stack(effects).nanmean(dim=0)


def _estimate(name: str, values: Tensor) -> dict[str, Any]:
    error = float(values[1:][values[1:].isfinite()].std()) if len(values) > 2 else None
    value = float(values[0])
    return {
        name: value,
        f"{name}_interval": None if error is None else [value - 1.96 * error, value + 1.96 * error],
    }


def _split_half(data: _Data, candidate: Candidate) -> float:
    made, cosines = data.made, []
    n = int(made.question.max()) + 1
    for _ in range(N_HALVES):
        first = torch.isin(made.question, torch.randperm(n, generator=data.halves)[: n // 2])
        pair = [data.direction(candidate, made.keep * side).direction for side in (first, ~first)]
        cosines.append(torch.cosine_similarity(*pair, dim=0))
    return float(torch.stack(cosines).nanmean())


def _seed_spread(data: _Data, candidate: Candidate) -> dict[str, Any]:
    numbers = data.samples.unique().tolist()
    if len(numbers) < 2:
        return {"seed_cosine": None, "seed_auc_sd": None}
    alone = [
        data.direction(candidate, data.made.keep * (data.samples == number)).direction for number in numbers
    ]
    unit = torch.nn.functional.normalize(torch.stack(alone), dim=1)
    pairs = (unit @ unit.T)[tuple(torch.triu_indices(len(unit), len(unit), 1))]
    y = data.y(candidate)
    ones = torch.ones(len(alone), len(y), dtype=torch.float64)
    areas = replicated_auc(torch.stack(alone) @ y.T, data.scored.positive, ones)
    known = areas[areas.isfinite()]
    spread = float(known.std()) if len(known) > 1 else None
    alike = pairs[pairs.isfinite()]
    return {"seed_cosine": float(alike.mean()) if len(alike) else None, "seed_auc_sd": spread}


def _add_causal(
    rows: list[dict[str, Any]], directions: Sequence[Direction], candidates: Sequence[Candidate], data: _Data,
    trait: Trait, n_random: int, seed: int,
) -> dict[str, dict[str, list[float]]]:  # fmt: skip
    """Fill in `causal`; returns the middle 95% of random directions' odd effect per hook and dose."""
    pairs = [pair for pair in trait.contrast_pairs if pair.split == "select"]
    for row, candidate in zip(rows, candidates, strict=True):
        row["causal"] = None
        if candidate.method in DETECTORS:
            row["causal_pattern"] = None
    if not pairs:
        return {}
    found: dict[str, dict[str, list[float]]] = {}
    for hook in dict.fromkeys(_pushed_at(candidate.hook) for candidate in candidates):
        here = [i for i, candidate in enumerate(candidates) if _pushed_at(candidate.hook) == hook]
        instrument = DoseInstrument(data.model, hook, pairs)
        jobs = [(i, "causal", directions[i].direction) for i in here]
        jobs += [
            (i, "causal_pattern", directions[i].pattern) for i in here if candidates[i].method in DETECTORS
        ]
        dice = generator(derive_seed("methods, random directions", seed))
        random = covariance_matched_directions(data.x(candidates[here[0]]), n_random, dice)
        found[str(hook)] = _push(instrument, rows, jobs, random, dice)
    return found


def _push(
    instrument: DoseInstrument, rows: list[dict[str, Any]], jobs: Sequence[tuple[int, str, Tensor]], random: Tensor,
    dice: torch.Generator,
) -> dict[str, list[float]]:  # fmt: skip
    everything = torch.cat([torch.stack([vector for _, _, vector in jobs]).float(), random.float()])
    spread = {}
    for dose in DOSES:
        odd, even = instrument.odd_even(everything, dose)
        drawn = bootstrap_counts(odd.shape[1], 1000, dice) / odd.shape[1]
        for (i, key, _), effect, damage in zip(jobs, odd, even, strict=False):
            low, high = percentile_interval(drawn @ effect)
            one = {
                "odd": float(effect.mean()),
                "interval": [float(low), float(high)],
                "damage": float(damage.mean()),
            }
            rows[i][key] = {**(rows[i][key] or {}), str(dose): one}
        null = odd[len(jobs) :].mean(dim=1)
        ends = percentile_interval(torch.cat([null, -null]))
        spread[str(dose)] = [float(end) for end in ends]
    return spread


def _pushed_at(hook: HookPoint) -> HookPoint:
    """The residual stream after the block that `hook` belongs to (for a block's input, after the block before)."""
    return (
        HookPoint(hook.block - 1)
        if hook.site == "hook_resid_pre" and hook.block > 0
        else HookPoint(hook.block)
    )
