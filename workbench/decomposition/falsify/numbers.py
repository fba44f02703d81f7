"""Checks that read numbers of the decomposition and of the vector's own evidence."""

from __future__ import annotations

from scipy import stats

from .criteria import CRITERIA, Check
from .direction import MIN_PLACEBOS
from .material import Material


def separation(given: Material) -> Check:
    """Does v tell the arms apart where it never looked?"""
    criterion, evidence = CRITERIA["separation"], given.vector.evidence
    p, area, interval = (evidence.get(name) for name in ("auc_rank_p", "auc_stripped", "auc_stripped_interval"))
    if p is None or area is None or interval is None:
        return criterion.untested("nobody measured it for this vector")
    told = f"AUC {area:.2f} [{interval[0]:.2f}, {interval[1]:.2f}], rank p {p:.4f}"
    beside = {name: evidence.get(name) for name in ("auc_text_only", "auc_length_only", "auc_random_q95")}
    # An interval that reaches .5 fails whatever the p.
    return criterion.judged(p if interval[0] > 0.5 else 1.0, told, auc=area, interval=interval, rank_p=p, **beside)


def placebo(given: Material) -> Check:
    """Does v move features further than contrasts that are no trait?"""
    criterion, known = CRITERIA["placebo"], given.parts.controls.get("placebos")
    if known is None:
        return criterion.untested("the answers behind the vector are not there" if given.answers is None
                                  else "there are no placebo codes of this SAE")  # fmt: skip
    if known["n"] < MIN_PLACEBOS:
        return criterion.untested(f"{known['n']} placebos cannot reach p = .05; it takes {MIN_PLACEBOS}")
    others = given.placebo_directions
    longer = None if others is None else int((others.norm(dim=1) >= given.direction.norm()).sum())
    p = known["rank_p"] if known["n_specific"] else 1.0
    beside = "" if longer is None else f"; {longer} placebo vectors are as long or longer"
    return criterion.judged(p, f"{known['n_specific']} features of its own; placebos have {known['median']:.0f} (median) to "
                            f"{max(known['counts'])}{beside}", n_specific=known["n_specific"], counts=known["counts"],
                            n_longer=longer)  # fmt: skip


def same_against_same(given: Material) -> Check:
    """Does the test over questions find anything where there is nothing to find?"""
    criterion, known = CRITERIA["same_against_same"], given.parts.controls.get("same_against_same") or {}
    rate, n = known.get("rate"), known.get("n_splits") or 0
    if rate is None:
        return criterion.untested("the answers behind the vector are not there" if given.answers is None
                                  else "no arm has two instructions to part")  # fmt: skip
    nominal = criterion.threshold or 0.0
    limit = float(stats.binom.ppf(0.95, n, nominal)) / n
    more = "; the test takes the wording of an instruction for an effect: believe only what beats the placebos"
    told = f"in {round(rate * n)} of {n} splits a feature is called different{more if rate > limit else ''}"
    return criterion.judged(rate, told,
                            threshold=limit, n_splits=n, largest_share=max(known["shares"], default=None))  # fmt: skip


def zero_vector(given: Material) -> Check:
    """How much of encode(v) is encode(0)?"""
    overlap = given.parts.controls.get("zero_vector_overlap")
    told = "encode(v) is empty" if overlap is None else f"{100 * overlap:.0f}% of its top ten are those of the zero vector"
    return CRITERIA["zero_vector"].shown(overlap, f"{told}; the checks above do not use it")
