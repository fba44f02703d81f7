"""Reading the open dictionaries of vectors and decompositions: curves, counts, control distributions.

These are free-form records; what is absent or unreadable is left out of the page, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.models.hookpoints import HookPoint
from workbench.reports.shares import finite, interval
from workbench.reports.svg import percent, signed

Point = tuple[float, float, float | None, float | None]


def layer_points(evidence: Mapping[str, Any]) -> list[Point]:
    """(block, auc, low, high) of the layer curve, in order of the block."""
    points = []
    for entry in evidence.get("layer_curve") or ():
        auc = finite(entry.get("auc"))
        if auc is not None:
            block = float(HookPoint.parse(str(entry["hook"])).block)
            points.append((block, auc, finite(entry.get("low")), finite(entry.get("high"))))
    return sorted(points)


def kept_table(evidence: Mapping[str, Any]) -> tuple[list[str], list[list[str]]] | None:
    """Kept rows per arm: column names and rows of text, without reasons that never occurred; None when nothing was counted."""
    counts = evidence.get("kept_counts")
    if not isinstance(counts, Mapping) or not counts:
        return None
    cells = {
        str(arm): value if isinstance(value, Mapping) else {"kept": value} for arm, value in counts.items()
    }
    seen = dict.fromkeys(str(name) for cell in cells.values() for name in cell)
    names = [
        name for name in seen if name in ("rows", "kept") or any(cell.get(name) for cell in cells.values())
    ]
    rows = [[arm, *(_count(cell.get(name)) for name in names)] for arm, cell in cells.items()]
    return [name.replace("_", " ") for name in names], rows


def _count(value: Any) -> str:
    known = finite(value) if isinstance(value, (int, float)) else None
    return "–" if known is None else f"{known:,.0f}" if known == int(known) else f"{known:.2f}"


_DICTIONARIES = {
    "sae": "the SAE", "covariance_matched": "random, matched", "activations": "real activations",
    "pca": "principal components", "isotropic": "random, isotropic",
}  # fmt: skip


def null_sentences(controls: Mapping[str, Any], audit: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, sentence): what placebo contrasts get, what an arm against itself gives, the SAE's excess; what is known of it."""
    found = [
        ("What a placebo gets", _placebos(controls.get("placebos") or {})),
        ("An arm against itself", _same(controls.get("same_against_same") or {})),
        ("The SAE’s excess", _excess((audit.get("energy") or {}).get("excess") or {}, audit)),
    ]
    return [(name, sentence) for name, sentence in found if sentence]


def _placebos(known: Mapping[str, Any]) -> str:
    n, middle, counts = finite(known.get("n_specific")), finite(known.get("median")), known.get("counts") or ()
    if n is None or middle is None or not counts:
        return ""
    rank = finite(known.get("rank_p"))
    place = "" if rank is None else f" (rank p {rank:.2g})"
    lesson = "any contrast has features of its own" if middle >= 1 else "with these replies the test finds few of any contrast"
    return (
        f"{n:,.0f} features move further than placebo contrasts move them (q .05). Treated the same way, a placebo contrast gets "
        f"{middle:,.0f} in the middle of {len(counts)} and {max(counts):,} at most{place}: {lesson}."
    )


def _same(known: Mapping[str, Any]) -> str:
    shares = [share for share in map(finite, known.get("shares") or ()) if share is not None]
    if not shares:
        return ""
    return (
        "Between halves of one arm’s instructions there is nothing of the trait to find. The test over questions finds something "
        f"in {sum(share > 0 for share in shares)} of {len(shares)} splits (one in twenty would be nominal), "
        f"{percent(max(shares))} of the active features at most."
    )


def _excess(known: Mapping[str, Any], audit: Mapping[str, Any]) -> str:
    value, ends = finite(known.get("value")), interval(known.get("interval"))
    if value is None or ends is None:
        return ""
    atoms = (audit.get("energy") or {}).get("atoms") or ["?"]
    others = {"placebos": "placebo contrasts", "random": "random vectors"}.get(str(known.get("others")), "other vectors")
    verdict = "it explains this vector better than others" if ends[0] > 0 else "not shown to suit this vector better than others"
    return (
        f"With {atoms[-1]} atoms the SAE explains {signed(finite(known.get('own')), 3)} of the energy beyond a matched random "
        f"dictionary, {signed(value, 3)} [{ends[0]:.3f}, {ends[1]:.3f}] more than for {others}: {verdict}."
    )


def energy_curves(audit: Mapping[str, Any]) -> list[tuple[str, list[tuple[float, float]]]]:
    """(dictionary, [(atoms, energy explained)]), the SAE's first; none unless the SAE's is there."""
    energy = audit.get("energy") or {}
    atoms = energy.get("atoms") or ()
    curves = []
    for key, name in _DICTIONARIES.items():
        values = zip(atoms, map(finite, energy.get(key) or ()), strict=False)
        points = [(float(n), value) for n, value in values if value is not None]
        if points:
            curves.append((name, points))
    return curves if curves and curves[0][0] == _DICTIONARIES["sae"] else []


def control_effects(controls: Mapping[str, Any], feature: int) -> list[float]:
    """Odd effects of the matched control features, in the direction in which `feature` itself was pushed.

    The decomposition keeps them in the direction of most candidates; they change sign for a candidate that was
    pushed the other way. Empty where the causal stage kept none.
    """
    value = controls.get("causal_control_odd") or ()
    signs = (controls.get("causal_controls_used") or {}).get("signs") or {}
    majority = 1 if sum(signs.values()) >= 0 else -1
    turn = majority * signs.get(str(feature), majority)
    return [turn * number for item in value if (number := finite(item)) is not None]
