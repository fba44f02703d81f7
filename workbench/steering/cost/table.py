"""One trait's row: steered up, steered down and ablated, with the price of each and a random direction at the same KL.

Doses are chosen on the verification questions, the largest of a ladder that keeps the replies coherent by all three measures;
everything that is reported comes from the sealed questions. Up starts where nobody is told anything; down and ablation also
start from the trait's own system prompts, as a trait that is hardly there cannot be taken away: `base` says how much there is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.base.randomness import derive_seed, generator
from workbench.maths.statistics import bootstrap_counts, percentile_interval

from .capability import losses
from .replies import Replies
from .treatments import UNSTEERED, EditsAt, Treatment, ablating, adding

if TYPE_CHECKING:
    from ..directions import NamedDirection
    from ..edits import Edit
    from .replies import Asking
    from .sweep import Bench

DOSES = (0.1, 0.2, 0.3)
KEEPS, MORE_REPEATED, MORE_SURPRISE = 0.9, 0.1, 1.0
"""A chosen dose keeps this share of the unsteered replies' readability, and adds at most so much to the share of repeated
trigrams and to the surprise of a reply to the unedited model (nats per token): readable nonsense passes the first alone."""
NO_ROOM = 5.0
"""Points of 0-100 under which a start has too little of the trait to lose."""
N_BOOTSTRAP = 2000


@dataclass(frozen=True)
class Chosen:
    """A dose in norms (signed), whether any dose of the ladder kept coherence, and the measures of coherence at each."""

    dose: float
    coherent: bool
    ladder: Mapping[float, Mapping[str, float]]


def coherent_dose(bench: Bench, edits_at: EditsAt, asking: Asking, *, sign: int, doses: Sequence[float] = DOSES) -> Chosen:
    """The largest dose whose replies to `asking` are as coherent as unsteered ones, within KEEPS, MORE_REPEATED and
    MORE_SURPRISE; the smallest if none is."""
    base = _coherence(bench.replies(Treatment(UNSTEERED), asking))
    found: dict[float, dict[str, float]] = {}
    for dose in sorted(doses):
        found[sign * dose] = _coherence(bench.replies(_at("add", edits_at, sign * dose), asking))
        if not _keeps(found[sign * dose], base):
            break  # text does not come back together at a larger dose
    kept = [dose for dose, values in found.items() if _keeps(values, base)]
    return Chosen(max(kept, key=abs) if kept else sign * min(doses), bool(kept), found)


def trait_row(
    bench: Bench,
    vector: NamedDirection,
    randoms: Sequence[NamedDirection],
    *,
    select: Asking,
    sealed: Asking,
    doses: Sequence[float] = DOSES,
    seed: int = 0,
) -> dict[str, Any]:
    """{up, down, ablate, capability_cost, judge}; `select` and `sealed` say how to ask, their start is set here.

    up: {start: "neutral", dose, coherent, kl, base, points, change, interval, coherence, base_coherence, random: {dose, change,
    interval}, beyond_random, beyond_interval}. down, ablate: {neutral: the same without random, trait: the same}. Each sample
    of a question gets another of the `randoms`, added at the KL that the vector has, or ablated in its place. Intervals
    bootstrap the questions, those of `random` and beyond it crossed with the random directions. capability_cost: {up, down,
    ablate}: what `losses` says.
    """
    neutral, told = replace(sealed, start="neutral"), replace(sealed, start="trait")
    up = coherent_dose(bench, adding(vector), replace(select, start="neutral"), sign=1, doses=doses)
    down = coherent_dose(bench, adding(vector), replace(select, start="trait"), sign=-1, doses=doses)
    do = {"up": _at("add", adding(vector), up.dose), "down": _at("add", adding(vector), down.dose), "ablate": ablating(vector)}
    null = {"up": _random_at_kl(bench, randoms, do["up"], 1, neutral),
            "down": _random_at_kl(bench, randoms, do["down"], -1, told),
            "ablate": in_turn(bench, told, "ablate random", None, [ablating(one).edits for one in randoms])}  # fmt: skip
    found = {
        "up": {"start": "neutral", **_told(up), **_change(bench, do["up"], null["up"], neutral, seed)},
        "down": {"neutral": _told(down) | _change(bench, do["down"], None, neutral, seed),
                 "trait": _told(down) | _change(bench, do["down"], null["down"], told, seed)},
        "ablate": {"neutral": _change(bench, do["ablate"], None, neutral, seed),
                   "trait": _change(bench, do["ablate"], null["ablate"], told, seed)},
    }  # fmt: skip
    return {**found, "capability_cost": _costs(bench, do, seed), "judge": bench.judge.name}


def _coherence(replies: Replies) -> dict[str, float]:
    return {measure: replies.mean(measure) for measure in ("coherence", "repeated", "surprise")}


def _keeps(now: Mapping[str, float], base: Mapping[str, float]) -> bool:
    return (
        now["coherence"] >= KEEPS * base["coherence"]
        and now["repeated"] <= base["repeated"] + MORE_REPEATED
        and now["surprise"] <= base["surprise"] + MORE_SURPRISE
    )


def _costs(bench: Bench, treatments: Mapping[str, Treatment], seed: int) -> dict[str, Any] | None:
    base = bench.effect(Treatment(UNSTEERED))[0]
    measured = {name: bench.effect(treatment)[0] for name, treatment in treatments.items()}
    return None if base is None else {name: losses(one, base, seed=seed) for name, one in measured.items() if one is not None}


def _random_at_kl(
    bench: Bench, randoms: Sequence[NamedDirection], treatment: Treatment, sign: int, asking: Asking
) -> Treatment | None:
    """Random directions at the KL that a treatment has; None for one that hardly moves neutral text."""
    if not (kl := bench.effect(treatment)[1]) > 1e-5:
        return None
    doses = [sign * round(bench.neutral.dose(adding(one), kl), 6) for one in randoms]
    edits = [adding(one)(dose) for one, dose in zip(randoms, doses, strict=True)]
    return in_turn(bench, asking, "random", sum(doses) / len(doses), edits)


def in_turn(
    bench: Bench, asking: Asking, method: str, level: float | None, edits: Sequence[tuple[Edit, ...]]
) -> Treatment:
    """One treatment of all: sample s of every question gets the edits numbered s modulo their number."""
    n_questions = len(bench.trait.questions_of(*asking.splits))
    mine = [[sample % len(edits) == number for sample in range(asking.n_samples)] * n_questions for number in range(len(edits))]
    acting = (edit.on_rows(rows) for rows, some in zip(mine, edits, strict=True) if any(rows) for edit in some)
    return Treatment(method, level, tuple(acting))


def _at(method: str, edits_at: EditsAt, dose: float) -> Treatment:
    return Treatment(method, dose, tuple(edits_at(dose)))


def _told(chosen: Chosen) -> dict[str, Any]:
    ladder = {f"{dose:+.3g}": dict(values) for dose, values in chosen.ladder.items()}
    return {"dose": chosen.dose, "coherent": chosen.coherent, "on_select": ladder}


def _change(bench: Bench, treatment: Treatment, null: Treatment | None, asking: Asking, seed: int) -> dict[str, Any]:
    """The change of the trait on these questions, the random direction's, and how far the first goes beyond the second."""
    base, now = bench.replies(Treatment(UNSTEERED), asking), bench.replies(treatment, asking)
    gain, points = _gain(now, base), base.mean("points")
    found = {
        "kl": bench.effect(treatment)[1], "base": points, "room": points >= NO_ROOM, "points": now.mean("points"),
        **_mean(gain, "change", "interval", seed),
        **{key: now.mean(key) for key in ("coherence", "repeated", "surprise", "refused")},
        "base_coherence": base.mean("coherence"), "base_surprise": base.mean("surprise"),
    }  # fmt: skip
    if null is None:
        return {**found, "random": None, "beyond_random": None, "beyond_interval": None}
    drawn = _by_direction(bench.replies(null, asking), len({edit.rows for edit in null.edits}))
    change, beyond = (drawn - base.by_question("points")[:, None], now.by_question("points")[:, None] - drawn)
    return {**found, "random": {"dose": null.level, **_mean(change, "change", "interval", seed)},
            **_mean(beyond, "beyond_random", "beyond_interval", seed)}  # fmt: skip


def _by_direction(replies: Replies, n: int) -> Tensor:
    """Points [n_questions, n] of replies whose sample s had direction s modulo n."""
    parts = [Replies(tuple(row for row in replies.rows if row["sample"] % n == number)) for number in range(n)]
    return torch.stack([part.by_question("points") for part in parts], dim=1)


def _gain(now: Replies, base: Replies) -> Tensor:
    return now.by_question("points") - base.by_question("points")


def _mean(values: Tensor, name: str, interval: str, seed: int) -> dict[str, Any]:
    """{name: mean, interval: 95%} of values [n_questions], or [n_questions, n_directions] with both redrawn; unknown ones are
    left out."""
    cells = values.reshape(len(values), -1)
    known = cells.isfinite()
    if not bool(known.any()):
        return {name: None, interval: None}
    random = generator(derive_seed("steering row", seed))
    questions, directions = (bootstrap_counts(n, N_BOOTSTRAP, random) for n in cells.shape)
    total, n_known = (((questions @ part) * directions).sum(dim=1) for part in (cells.nan_to_num(), known.double()))
    low, high = percentile_interval((total / n_known)[n_known > 0])
    return {name: float(cells[known].mean()), interval: [float(low), float(high)]}
