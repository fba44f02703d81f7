"""The tables of `workbench decompositions compare`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..console import interval, percent, say, signed, table

N_ROWS = 8
_FIGURES = (
    ("features", "d_sae"),
    ("  that fire here", "n_active"),
    ("share of the SAE's error", "share_error"),
    ("matched: of all", "matched"),
    ("  of those that fire", "matched_active"),
    ("  of the top", "matched_top"),
    ("  part of sum |share|", "matched_weight"),
    ("near, one to one or not: of the top", "near_top"),
    ("nearest cosine of the top, median", "nearest_top"),
)


def show_compare(value: dict[str, Any]) -> None:
    """The tables of the comparison."""
    {"traits": _show_traits, "dictionaries": _show_dictionaries, "change": _show_change}[value["kind"]](value)
    for told in value["warnings"]:
        say(f"note: {told}")
    if "file" in value:
        say(f"comparison: {value['file']}")


def _words(value: dict[str, Any], sae: str, feature: int) -> str:
    labels = value["labels"].get(sae, {})
    return labels.get(feature) or labels.get(str(feature)) or "-"


def _listed(features: Iterable[int]) -> str:
    return " ".join(map(str, list(features)[:N_ROWS])) or "none"


def _show_traits(value: dict[str, Any]) -> None:
    traits = value["traits"]
    rows = [(name, *(signed(cosine, 2) for cosine in row)) for name, row in zip(traits, value["cosines"], strict=True)]
    table(f"cosines on {value['sae']}", ("", *traits), rows, right=range(1, len(traits) + 1))
    columns = ("traits", "cosine", "above 0", "below 0", "SAE's error", "half in", "placebos 95%", "rank p")
    table("overlaps taken apart", columns, list(map(_pair_row, value["pairs"])), right=range(1, 8))
    for pair in value["pairs"]:
        _show_contributors(value, pair)
    if value["own"] is not None:
        _show_own(value)
    _show_remainders(value["remainders"])


def _pair_row(pair: dict[str, Any]) -> tuple[Any, ...]:
    background = pair["background"] or {"q95": None, "p": None}
    parts = (signed(pair[name], 2) for name in ("cosine", "positive", "negative", "error"))
    return (" and ".join(pair["traits"]), *parts, pair["n_half"], background["q95"], background["p"])


def _show_contributors(value: dict[str, Any], pair: dict[str, Any]) -> None:
    rows = [
        (c["feature"], _words(value, value["sae"], c["feature"]), signed(c["part"], 4),
         None if c["placebos_q95"] is None else f"{c['placebos_q95']:.4f}", *map(percent, c["shares"]))
        for c in pair["contributors"][:N_ROWS]
    ]  # fmt: skip
    one, other = pair["traits"]
    columns = ("feature", "label", "part", "placebos 95%", one, other)
    table(f"what carries the overlap of {one} and {other}", columns, rows, right=(0, 2, 3, 4, 5))


def _show_own(value: dict[str, Any]) -> None:
    rows = [
        (own["trait"], own["n_specific"], own["n_own"], f"{own['n_if_unrelated']:.1f}", _listed(f for f, _ in own["features"]))
        for own in value["own"]
    ]
    columns = ("trait", "specific", "its own", "if unrelated", "the largest of its own")
    table("features that placebo contrasts do not move so far", columns, rows, right=(1, 2, 3))
    say(f"specific to two traits or more: {_listed(feature for feature, _ in value['common'])}")


def _show_remainders(remainders: Sequence[dict[str, Any]]) -> None:
    rows = [
        (left["trait"], percent(left["share_left"]), _range(left["of_placebos"]), percent(left["in_shared"]),
         f"{left['pursuit_kept']} of {len(left['pursuit_before'])}", _listed(f for f, _, _ in left["features"]))
        for left in remainders
    ]  # fmt: skip
    columns = ("trait", "left of |v|^2", "with placebos instead", "in the shared", "pursuit kept", "largest shares of the rest")
    table("each trait without the others", columns, rows, right=(1, 2, 3, 4))


def _range(ends: Sequence[float] | None) -> str:
    return "-" if ends is None else f"{percent(ends[1])} [{percent(ends[0])}, {percent(ends[2])}]"


def _show_dictionaries(value: dict[str, Any]) -> None:
    sides = value["sides"]
    names = [side["sae"] for side in sides]
    rows: list[tuple[Any, ...]] = [(name, *(side[key] for side in sides)) for name, key in _FIGURES]
    for kind in sides[0]["chance"]:
        found = [side["chance"][kind] for side in sides]
        name = f"{kind.replace('_', ' ')} directions instead"
        rows.append((f"{name}: matched of the top", *(one["matched_top"] for one in found)))
        rows.append((f"{name}: nearest, median", *(one["nearest"] for one in found)))
    table(f"{value['trait']} on two SAEs (a match: cosine {value['threshold']})", ("", *names), rows, right=(1, 2))
    _show_pairs(value, names)
    for side in sides:
        _show_unmatched(value, side)
    say(
        f"rank correlation over {value['n_ranked']} matched features that fire: of shares "
        f"{signed(value['rank_correlation'], 2)}, of changes of the mean code {signed(value['rank_of_changes'], 2)}"
    )


def _show_pairs(value: dict[str, Any], names: Sequence[str]) -> None:
    rows = [
        (*pair["features"], f"{pair['cosine']:.2f}", *map(percent, pair["shares"]),
         *(_words(value, name, feature) for name, feature in zip(names, pair["features"], strict=True)))
        for pair in value["pairs"][:N_ROWS]
    ]  # fmt: skip
    columns = ("first", "second", "cosine", "share", "share", "label", "label")
    table("the largest matched features", columns, rows, right=(0, 1, 2, 3, 4))


def _show_unmatched(value: dict[str, Any], side: dict[str, Any]) -> None:
    rows = [
        (feature, percent(share), f"{near:.2f}", _words(value, side["sae"], feature))
        for feature, share, near in side["unmatched"][:N_ROWS]
    ]
    table(f"the largest without a match in {side['sae']}", ("feature", "share", "nearest", "label"), rows, right=(0, 1, 2))


def _show_change(value: dict[str, Any]) -> None:
    columns = ("feature", "label", "before", "after", "difference", "interval", "of the change")
    for title, key in (("largest differences of shares", "features"), ("what the change is made of", "of_change")):
        rows = [_change_row(value, row) for row in value[key][:N_ROWS]]
        table(f"{value['trait']}: {title}", columns, rows, right=(0, 2, 3, 4, 6))
    say(
        f"cosine of the two vectors {signed(value['cosine'])}, length {value['norm_ratio']:.3f} times that before, "
        f"the change {value['change_size']:.3f} times it"
    )
    before, after = map(percent, value["error"])
    say(
        f"the SAE's error: {before} before, {after} after (difference {interval(value['error_interval'])}), "
        f"{percent(value['error_of_change'])} of the change"
    )
    say(
        f"{value['n_apart']} of {value['n_compared']} features have an interval of the difference that excludes 0; "
        f"{value['n_by_chance']:.0f} would by chance"
    )


def _change_row(value: dict[str, Any], row: dict[str, Any]) -> tuple[Any, ...]:
    return (row["feature"], _words(value, value["sae"], row["feature"]), percent(row["before"]), percent(row["after"]),
            signed(row["difference"], 4), interval(row["interval"], 4), percent(row["share_of_change"]))  # fmt: skip
