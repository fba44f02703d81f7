"""What the first screen of several traits shows, and what the traits have in common beside chance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from workbench.reports.chapter import categories_of, overview_row
from workbench.reports.matrices import pair_matrix
from workbench.reports.measures import drawn
from workbench.reports.svg import percent, signed

if TYPE_CHECKING:
    from workbench.reports.several import SharedPair, TraitReports
    from workbench.reports.shares import CategoryName

N_SHARED = 12


def overview(several: TraitReports, slugs: dict[str, str]) -> dict[str, Any]:
    """Everything that `overview.html.jinja` shows."""
    pairs = {frozenset(pair.traits): pair for pair in several.pairs}
    return {
        "rows": [overview_row(one, slugs[one.trait]) for one in several.traits],
        "names": several.names,
        "traits": [(slugs[name], name) for name in several.names],
        "categories": sorted({pair[0]: pair for one in several.traits for pair in categories_of(one)}.values(), key=_by_name),
        "shared_sentence": shared_sentence(several),
        "cosines": _cosines(several, pairs),
        "overlap": _overlap(several, pairs),
        "has_background": any(pair.background_median is not None for pair in several.pairs),
        "shared": [_shared(one, several, slugs) for one in several.shared[:N_SHARED]],
        "n_shared": several.n_shared or 0,
        "pairs": [_pair(pair, slugs) for pair in several.pairs],
        "comparison_warnings": several.comparison.warnings if several.comparison else (),
    }


def _by_name(pair: tuple[str, CategoryName]) -> str:
    return pair[1].name


def shared_sentence(several: TraitReports) -> str:
    """What the traits share, in a sentence or two that say what chance would give."""
    known = [pair for pair in several.pairs if pair.cosine is not None]
    told = ""
    if known:
        most = max(known, key=lambda pair: pair.cosine or 0.0)
        chance = most.background_median
        beside = "" if chance is None else f"; the middle |cosine| of the two with placebo contrasts: {signed(chance, 2)}"
        told = f"The vectors of {' and '.join(most.traits)} are the most alike (cosine {signed(most.cosine, 2)}{beside}). "
    if several.n_shared is None:
        return told + "Whether the traits share features beyond chance is unknown: that takes placebo contrasts of this SAE."
    n = several.n_shared
    features = f"{n} feature{'' if n == 1 else 's'}" if n else "No feature"
    return told + (
        f"{features} move{'s' if n < 2 else ''} the same way in two traits or more and further than placebo contrasts move "
        f"{'it' if n < 2 else 'them'} (q .05)."
    )


def _cosines(several: TraitReports, pairs: dict[frozenset[str], SharedPair]) -> Markup | None:
    if not any(pair.cosine is not None for pair in several.pairs):
        return None
    names = several.names

    def cell(i: int, j: int) -> tuple[float | None, str, str]:
        if i == j:
            return None, "", ""
        pair = pairs.get(frozenset((names[i], names[j])))
        chance = pair.background_median if pair else None
        value = several.cosines[i][j]
        return value, signed(value, 2) or "–", "" if chance is None else f"({signed(chance, 2)})"

    cells = [[cell(i, j) for j in range(len(names))] for i in range(len(names))]
    spoken = "; ".join(f"{pair.traits[0]} and {pair.traits[1]} {signed(pair.cosine, 2)}" for pair in several.pairs)
    return drawn(pair_matrix(names, cells, title="Cosines of the traits’ vectors", description=spoken))


def _overlap(several: TraitReports, pairs: dict[frozenset[str], SharedPair]) -> Markup | None:
    counted = [pair for pair in several.pairs if pair.n_shared is not None]
    if not counted:
        return None
    names, most = several.names, max(pair.n_shared or 0 for pair in counted)
    own = {trait: n for pair in counted if pair.n_specific for trait, n in zip(pair.traits, pair.n_specific, strict=True)}

    def cell(i: int, j: int) -> tuple[float | None, str, str]:
        if i == j:
            return None, str(own.get(names[i], "–")), "own"
        pair = pairs.get(frozenset((names[i], names[j])))
        if pair is None or pair.n_shared is None:
            return None, "–", ""
        chance = "" if pair.n_expected is None else f"({pair.n_expected:.2g})"
        return pair.n_shared / max(most, 1), str(pair.n_shared), chance

    cells = [[cell(i, j) for j in range(len(names))] for i in range(len(names))]
    spoken = "; ".join(f"{pair.traits[0]} and {pair.traits[1]} {pair.n_shared}" for pair in counted)
    return drawn(pair_matrix(names, cells, title="Features that two traits share", description=spoken))


def _shared(one: Any, several: TraitReports, slugs: dict[str, str]) -> dict[str, Any]:
    first = one.traits[0]
    return {
        "feature": one.feature,
        "label": one.label.label if one.label else "",
        "traits": one.traits,
        "shares": [percent(share, 2) for share in one.shares],
        "inside": [name in one.traits for name in several.names],
        "slug": slugs[first],
        "linked": any(row["feature"] == one.feature for row in several[first].features),
    }


def _pair(pair: SharedPair, slugs: dict[str, str]) -> dict[str, str]:
    def known(value: float | None, digits: int) -> str:
        return "–" if value is None else signed(value, digits)

    return {
        "names": f"{pair.traits[0]} and {pair.traits[1]}",
        "cosine": known(pair.cosine, 2),
        "background": "–" if pair.background_median is None else
        f"{known(pair.background_median, 2)}, {known(pair.background_q95, 2)}",
        "p": "–" if pair.p is None else f"{pair.p:.2g}",
        "shared": "–" if pair.n_shared is None else str(pair.n_shared),
        "expected": "–" if pair.n_expected is None else f"{pair.n_expected:.2g}",
    }  # fmt: skip
