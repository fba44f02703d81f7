"""Which rollouts play their role: graded 0 to 3, and those that play it fully are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from workbench.axis.roles import Role
from workbench.axis.space.offline_adherence import OfflineAdherence, breaks_role, embed, fit_offline
from workbench.axis.space.weights import DEFAULT_ARM, ROLE_ARM
from workbench.base.randomness import derive_seed, generator
from workbench.maths.statistics import auc
from workbench.personas.judges import Judge, JudgeItem
from workbench.personas.judges.embedding import Embedder

if TYPE_CHECKING:
    import pandas

FULLY = 3
KEEP_OFFLINE = 1
"""The offline grades cannot tell a role that is near the assistant from the assistant: only what breaks a role is dropped."""
N_VALIDATION = 400


def judge_roles(
    rows: pandas.DataFrame,
    roles: Sequence[Role],
    judge: str | Judge = "offline",
    *,
    keep: int | None = None,
    embedder: Embedder | None = None,
    seed: int = 0,
) -> tuple[pandas.DataFrame, dict[str, Any]]:
    """(`rows` with the columns `adherence` (0 to 3) and `kept`, {judge, keep, counts, validation}).

    judge: "offline" (see `offline_adherence`), "none" (every reply counts as played), or a Judge that reads the role's rubric
    (an endpoint or a local model): its whole number is the grade. The default assistant is not graded: it gets a 0 and is kept.
    keep: the lowest grade that is kept (default: 3, as in the paper; offline 1). A judge's failure is counted and not kept.
    Validation: the rate of 3 that a role's own answers, those of other roles and the default's get, on questions that calibrate
    nothing. Source: Lu et al. 2026 (arXiv 2601.10387), section 3.
    """
    validation: dict[str, Any] | None = None
    if judge == "none":
        found, told = [0.0 if arm == DEFAULT_ARM else 3.0 for arm in rows["arm"]], {"name": "none"}
    elif isinstance(judge, str):
        found, validation, told = _offline(rows, roles, embedder or Embedder(), seed)
    else:
        found, told = _by_rubric(rows, roles, judge), judge.description()
        validation = _rubric_validation(rows, roles, judge, seed)
    least = keep if keep is not None else KEEP_OFFLINE if judge == "offline" else FULLY
    graded = keeping(rows.assign(adherence=found), least)
    return graded, {"judge": told, "keep": least, "counts": counts_by_role(graded), "validation": validation}


def keeping(graded: pandas.DataFrame, least: int) -> pandas.DataFrame:
    """The rows with the column `kept`: the default's, and those of roles with a grade of at least `least`."""
    return graded.assign(kept=(graded["arm"] == DEFAULT_ARM) | (graded["adherence"] >= least))


def counts_by_role(graded: pandas.DataFrame) -> dict[str, dict[str, int]]:
    """Role -> {rows, kept, grade_0 ... grade_3, failed} over its extraction rows."""
    rows: Any = graded[(graded["split"] == "extraction") & (graded["arm"] == ROLE_ARM)]
    return {
        str(role): {"rows": len(own), "kept": int(own["kept"].sum()),
                    **{f"grade_{grade}": int((own["adherence"] == grade).sum()) for grade in range(FULLY + 1)},
                    "failed": int(own["adherence"].isna().sum())}
        for role, own in rows.groupby("trait", sort=False)
    }  # fmt: skip


def _offline(
    rows: pandas.DataFrame, roles: Sequence[Role], embedder: Embedder, seed: int
) -> tuple[list[float], dict[str, Any], dict[str, Any]]:
    default, calibrates = (rows["arm"] == DEFAULT_ARM).to_numpy(), (rows["split"] == "verification").to_numpy()
    texts, questions = rows["response"].tolist(), rows["question_id"].tolist()
    features = embed(texts, embedder, label="adherence")

    def of(mask: Any) -> tuple[torch.Tensor, list[str]]:
        places = mask.nonzero()[0].tolist()
        return features[places], [questions[i] for i in places]

    fitted = fit_offline(roles, *of(default & calibrates), embedder)
    played, spoken = (~default).nonzero()[0].tolist(), (default & ~calibrates).nonzero()[0].tolist()
    times = Counter(questions[i] for i in spoken)
    spoken = [i for i in spoken if times[questions[i]] > 1]
    shifts = fitted.shifts(*of(~default), *of(default))
    names = rows["trait"].iloc[played].tolist()
    replies = [texts[i] for i in played]
    grades = fitted.grades(replies, shifts, names)
    found = [0.0] * len(texts)
    for place, grade in zip(played, grades, strict=True):
        found[place] = float(grade)
    told = {"name": "offline", "embedder": "MiniLM", "limits": fitted.limits, "n_calibration": fitted.n_calibration}
    own = fitted.default_shifts(features[spoken], [questions[i] for i in spoken])
    return found, _validation(fitted, replies, shifts, names, [texts[i] for i in spoken], own, seed), told


def _validation(
    fitted: OfflineAdherence, replies: list[str], shifts: torch.Tensor, names: list[str], spoken: list[str], own: torch.Tensor,
    seed: int,
) -> dict[str, Any]:  # fmt: skip
    """Rates of 3, on questions that the filter was not calibrated on: for their role, for another one, for the default's replies.

    auc_default, auc_swapped: how well z tells a role's own replies from the default's, and from replies of other roles.
    """
    random = generator(derive_seed("adherence validation", seed))
    others = _other_roles(names, fitted.names, random)
    graded = {
        "own": fitted.grades(replies, shifts, names), "swapped": fitted.grades(replies, shifts, others),
        "default": [g for name in fitted.names for g in fitted.grades(spoken, own, [name] * len(own))] if len(own) else [],
    }  # fmt: skip
    place = {name: i for i, name in enumerate(fitted.names)}
    z = shifts[torch.arange(len(names)), torch.tensor([place[name] for name in names])]
    z_other = shifts[torch.arange(len(names)), torch.tensor([place[name] for name in others])]
    return {
        **{f"rate_{name}": sum(g == FULLY for g in values) / max(1, len(values)) for name, values in graded.items()},
        "n_replies": len(replies), "n_default": len(spoken),
        "auc_default": _auc(z, own.flatten()), "auc_swapped": _auc(z, z_other),
    }  # fmt: skip


def _auc(above: torch.Tensor, below: torch.Tensor) -> float | None:
    if not len(above) or not len(below):
        return None
    return float(auc(torch.cat([above, below]), torch.arange(len(above) + len(below)) < len(above)))


def _other_roles(names: Sequence[str], known: Sequence[str], random: torch.Generator) -> list[str]:
    places = {name: i for i, name in enumerate(known)}
    steps = torch.randint(1, max(2, len(known)), (len(names),), generator=random).tolist()
    return [str(known[(places[name] + step) % len(known)]) for name, step in zip(names, steps, strict=True)]


def _by_rubric(rows: pandas.DataFrame, roles: Sequence[Role], judge: Judge) -> list[float]:
    found = [0.0] * len(rows)
    for role in roles:
        places = ((rows["trait"] == role.name) & (rows["arm"] == ROLE_ARM)).to_numpy().nonzero()[0].tolist()
        for place, grade in zip(places, _grades(rows, places, role, judge), strict=True):
            found[place] = grade
    return found


def _grades(rows: pandas.DataFrame, places: Sequence[int], role: Role, judge: Judge) -> list[float]:
    """The judge's grades of these rows for the role; NaN where it failed. A reply that breaks the role off is not sent."""
    items = [JudgeItem(rows["question"].iloc[i], rows["response"].iloc[i]) for i in places]
    asked = [i for i, item in enumerate(items) if not breaks_role(item.answer)]
    grades = [0.0] * len(items)
    judged: Any = judge.score([items[i] for i in asked], role) if asked else []  # pyright: ignore[reportArgumentType]
    for i, one in zip(asked, judged, strict=True):
        score = one.score if one.score is not None and 0 <= one.score <= FULLY + 0.5 else float("nan")
        grades[i] = 0.0 if one.outcome == "refused" else score if score != score else float(round(score))
    return grades


def _rubric_validation(rows: pandas.DataFrame, roles: Sequence[Role], judge: Judge, seed: int) -> dict[str, Any]:
    """Rates of 3 for some replies of the default assistant and of other roles, judged as a role drawn for each."""
    random, known = generator(derive_seed("adherence validation", seed)), {role.name: role for role in roles}
    rates: dict[str, Any] = {}
    for name, arm in (("default", DEFAULT_ARM), ("swapped", ROLE_ARM)):
        places = ((rows["arm"] == arm) & (rows["split"] == "extraction")).to_numpy().nonzero()[0]
        chosen = [int(places[i]) for i in torch.randperm(len(places), generator=random)[:N_VALIDATION].tolist()]
        owners = [str(rows["trait"].iloc[i]) if arm == ROLE_ARM else roles[0].name for i in chosen]
        asked: dict[str, list[int]] = {}
        for i, other in zip(chosen, _other_roles(owners, list(known), random), strict=True):
            asked.setdefault(other, []).append(i)
        grades = [grade for other, some in asked.items() for grade in _grades(rows, some, known[other], judge)]
        rates |= {f"rate_{name}": sum(g == FULLY for g in grades) / max(1, len(grades)), f"n_{name}": len(grades)}
    return rates
