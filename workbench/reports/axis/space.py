"""The map of characters as one page: where each stands, what the axis is beside the components, and what of it is noise."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.axis.roles import ASSISTANT_END, FAR_END
from workbench.base.store import atomic_write
from workbench.reports.figures import _frame, _path
from workbench.reports.svg import Figure, Scale, drawing, percent, signed, tag, words
from workbench.reports.tables import flat_rows
from workbench.reports.text import clean

if TYPE_CHECKING:
    from workbench.axis.space.comparison import SpaceComparison
    from workbench.axis.space.space import PersonaSpace

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 860, 560, 56, 840, 36, 510
_MARKS = {
    "near": ("M0-6.5 6.2 5H-6.2Z", "wbf-other"),
    "far": ("M0-6.5 6.5 0 0 6.5-6.5 0Z", "wbf-trait"),
    "other": ("M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0Z", "wbf-unclear"),
}
"""Which published end -> (outline, colour): every colour has a shape of its own."""
N_NEAREST = 4
_REACHED = 0.05


def render(space: PersonaSpace, comparison: SpaceComparison | None = None) -> str:
    """The whole page as one HTML file without network; every name is escaped."""
    from markupsafe import Markup

    from workbench.reports.html import assets, environment

    return environment().get_template("axis_map.html.jinja").render(
        **assets(script="axis_map"), model=str(space.model.get("name")), space=space, at=space.at_hook,
        answer=answer(space), cautions=cautions(space), picture=Markup(map_figure(space).inline),
        curve=Markup(axis_curve(space).inline), rows=_rows(space), signed=signed, percent=percent, traits=space.traits,
        compared=None if comparison is None else _compared(comparison),
        compared_picture=None if comparison is None else Markup(positions_figure(comparison).inline),
        provenance=flat_rows(space.provenance),
    )  # fmt: skip


def save(space: PersonaSpace, path: str | Path, comparison: SpaceComparison | None = None) -> Path:
    """Write the page to `path`; returns it."""
    return atomic_write(path, render(space, comparison))


def answer(space: PersonaSpace) -> str:
    """What was found, in a few sentences, with what it is to be compared with."""
    at, ends = space.at_hook, space.ends
    stands = _beside_single(at, space.sensitivity.get("equal_answers") or at)
    said = (f"The axis from {len(space.names)} characters to the assistant has |cos| {at['cos']:.2f} "
            f"[{at['interval'][0]:.2f}, {at['interval'][1]:.2f}] with their first component, {stands}; "
            f"{space.variance['centred']['n_for_70']} components hold 70% of the variance.")  # fmt: skip
    if ends["rank_correlation"] is None:
        return said + " Too few of the published ends have a vector to compare with."
    told = "agree with" if ends["p"] <= _REACHED and ends["rank_correlation"] > 0 else "are not told apart by"
    return said + (f" The published ends {told} the positions here: rank correlation {signed(ends['rank_correlation'], 2)} "
                   f"(at most {signed(ends.get('highest', 1.0), 2)}), p {ends['p']:.2g}, over {ends['n_near']} and "
                   f"{ends['n_far']} characters.")  # fmt: skip


def _beside_single(at: dict[str, Any], equal: dict[str, Any]) -> str:
    """How |cos| compares with the axes of single characters, which the default must beat from as many answers as they have."""
    if at["p"] > _REACHED:
        return f"which {percent(1 - at['percentile'], 0)} of single characters reach"
    if equal["p"] > _REACHED:
        return (f"more than single characters have, but from as few answers as theirs ({equal['n_answers']}, not "
                f"{equal['n_default']}) it has {equal['cos']:.2f}, which {percent(1 - equal['percentile'], 0)} of them reach")
    return "more than single characters have"


def _chosen_ends(space: PersonaSpace) -> list[str]:
    found = space.sensitivity.get("without_ends")
    if not found or found["n_roles"] > 0.9 * len(space.names):
        return []
    return [f"{len(space.names) - found['n_roles']} of the {len(space.names)} characters were taken because they stand at the "
            f"published ends, which lengthens the first component along the axis. Without them |cos| is {found['cos']:.2f} "
            f"[{found['interval'][0]:.2f}, {found['interval'][1]:.2f}], p {found['p']:.2g} among single characters."]  # fmt: skip


def cautions(space: PersonaSpace) -> list[str]:
    """What weakens the figures of this space."""
    told, noise, filtered = _chosen_ends(space), space.variance["noise"], space.adherence.get("adherence") or {}
    if noise and noise["reliability"] < 0.7:
        told.append(f"Halves of the questions place the characters differently (reliability {noise['reliability']:.2f}): much of "
                    "their spread is sampling noise.")  # fmt: skip
    found, strict = filtered.get("validation"), filtered.get("strict")
    if found and found.get("rate_own") is not None and found["rate_own"] < 2 * found["rate_default"]:
        told.append("The grades tell the characters’ own answers hardly from the default assistant’s.")
    if (filtered.get("judge") or {}).get("name") == "none":
        told.append("Nobody graded the answers: all of them count, whether their character was played or not.")
    elif filtered.get("keep") == 3:
        told.append("Only answers graded 3 count; a filter by distance from the default assistant would lengthen the axis.")
    elif filtered.get("keep") is not None:
        alone = f" The axis of those graded 3 has cosine {strict['cos_axis']:.2f} with this one." if strict else ""
        told.append(f"All answers graded {filtered['keep']} or more count, those that do not break their character: whether they "
                    f"play it fully is not known.{alone}")  # fmt: skip
    if space.clusters["k"] == 1:
        told.append("The gap statistic finds no clusters: five groups are a cut through one cloud.")
    return told


def kind_of(name: str) -> str:
    """near, far or other: which published end a character belongs to."""
    return "near" if name in ASSISTANT_END else "far" if name in FAR_END else "other"


def beside_axis(space: PersonaSpace) -> int:
    """The component (0 or 1) that says most beside the axis: the one of the first two that goes less along with the position."""
    import torch

    position = torch.tensor(_positions(space))
    first = [abs(float(torch.corrcoef(torch.stack([position, space.scores[:, i]]))[0, 1])) for i in (0, 1)]
    return 0 if first[0] < first[1] else 1


def map_figure(space: PersonaSpace) -> Figure:
    """The characters on the axis (right: toward the assistant) and the component beside it; a second view rides along as data."""
    up, scores = beside_axis(space), space.scores.tolist()
    views = {"axis": list(zip(_positions(space), [row[up] for row in scores], strict=True)),
             "pc": [(row[0], row[1]) for row in scores]}  # fmt: skip
    scales = {name: _scales(places, *((1.0,) if name == "axis" else ())) for name, places in views.items()}
    at = scales["axis"][0](1.0)
    across = "position on the axis: 0 the mean character, 1 the default assistant"
    body = [
        tag("g", *_frame(*scales["axis"], across, f"component {up + 1}"), class_="frame-axis"),
        tag("g", *_frame(*scales["pc"], "component 1, toward the assistant", "component 2"), class_="frame-pc", display="none"),
        tag("g", tag("line", x1=at, x2=at, y1=_TOP, y2=_BOTTOM, class_="wbf-ref"),
            words("default", at, _TOP - 6, anchor="middle", class_="wbf-soft", font_size=11), class_="frame-axis"),
    ]  # fmt: skip
    nearest = _nearest(space)
    for i, name in enumerate(space.names):
        places = {view: f"{x(views[view][i][0]):.1f},{y(views[view][i][1]):.1f}" for view, (x, y) in scales.items()}
        body.append(_point(space, name, places, nearest[i], crowded=_crowded(i, space.names, views["axis"], scales["axis"])))
    ends = [f"{row['role'].replace('_', ' ')} {signed(row['position'], 2)}" for row in space.ranking[:3] + space.ranking[-3:]]
    told = f"Nearest to the assistant and farthest: {'; '.join(ends)}"
    return drawing(_WIDTH, _HEIGHT, body, title=f"{len(space.names)} characters", description=told)


def _scales(places: Sequence[tuple[float, float]], *besides: float) -> tuple[Scale, Scale]:
    return _scale([x for x, _ in places], _LEFT, _RIGHT, *besides), _scale([y for _, y in places], _BOTTOM, _TOP)


def _crowded(i: int, names: Sequence[str], places: Sequence[tuple[float, float]], scales: tuple[Scale, Scale]) -> bool:
    """Whether another name that is always shown would be written over this one's."""
    shown = [(scales[0](x), scales[1](y)) for name, (x, y) in zip(names, places, strict=True) if kind_of(name) != "other"]
    left, top = scales[0](places[i][0]), scales[1](places[i][1])
    return any(0 < x - left < 70 and abs(y - top) < 11 for x, y in shown)


def _point(space: PersonaSpace, name: str, places: dict[str, str], near: list[str], *, crowded: bool) -> str:
    outline, colour = _MARKS[kind_of(name)]
    row = next(row for row in space.ranking if row["role"] == name)
    title = name.replace("_", " ")
    told = (f"{title}: {signed(row['position'], 2)} [{signed(row['low'], 2)}, {signed(row['high'], 2)}] on the axis, "
            f"{row['n_kept']} answers; nearest: {', '.join(near)}")  # fmt: skip
    named = " always" if kind_of(name) != "other" else ""
    side = {"x": -8, "anchor": "end"} if crowded else {"x": 8}
    label = words(title, y=4, font_size=11, class_=f"wbf-ink label{named}", **side)  # pyright: ignore[reportArgumentType]
    mark = tag("path", d=outline, class_=colour)
    return tag("g", tag("title", escape(clean(told))), mark, label, class_="pt", tabindex=-1, role="img", aria_label=clean(told),
               transform=f"translate({places['axis'].replace(',', ' ')})", data_name=name,
               **{f"data_{view}": at for view, at in places.items()})  # fmt: skip


def _positions(space: PersonaSpace) -> list[float]:
    place = {row["role"]: row["position"] for row in space.ranking}
    return [place[name] for name in space.names]


def _nearest(space: PersonaSpace) -> list[list[str]]:
    """Of each character the nearest others by their scores on the first components."""
    import torch

    apart = torch.cdist(space.scores, space.scores).fill_diagonal_(float("inf"))
    order = apart.argsort(dim=1)[:, :N_NEAREST].tolist()
    return [[space.names[j].replace("_", " ") for j in row] for row in order]


def _scale(values: Sequence[float], left: float, right: float, *besides: float) -> Scale:
    low, high = min([*values, *besides]), max([*values, *besides])
    room = 0.06 * ((high - low) or 1.0)
    return Scale(low - room, high + room, left, right)


def axis_curve(space: PersonaSpace) -> Figure:
    """|cos| of axis and first component at every block with its interval; dotted: 95% of single characters' axes are below."""
    rows = [(float(str(row["hook"]).split(".")[1]), row) for row in space.blocks]
    x, y = Scale(min(b for b, _ in rows), max(b for b, _ in rows), 44, 440), Scale(0.0, 1.0, 206, 28)
    body = _frame(x, y, "block", "|cos| of axis and first component")
    low, high = ([(x(b), y(row["interval"][i])) for b, row in rows] for i in (0, 1))
    body.append(tag("path", d=_path(high + low[::-1]) + "Z", class_="wbf-band"))
    for key, line in (("cos", "wbf-line-a"), ("null_q95", "wbf-line-c")):
        body.append(tag("path", d=_path([(x(b), y(row[key])) for b, row in rows]), class_=line))
    spoken = "; ".join(f"block {b:g}: {row['cos']:.2f}, single characters {row['null_q95']:.2f}" for b, row in rows)
    return drawing(450, 250, body, title="Axis and first component by block", description=spoken)


def positions_figure(found: SpaceComparison) -> Figure:
    """Every character's position in two models, one against the other."""
    x, y = _scale([row["a"] for row in found.roles], 56, 500), _scale([row["b"] for row in found.roles], 430, 30)
    body = _frame(x, y, f"position in {found.models[0]}", f"position in {found.models[1]}")
    for row in found.roles:
        outline, colour = _MARKS[kind_of(row["role"])]
        at = f"translate({x(row['a']):.1f} {y(row['b']):.1f})"
        title = tag("title", escape(clean(row["role"].replace("_", " "))))
        body.append(tag("g", title, tag("path", d=outline, class_=colour), transform=at))
    told = f"Rank correlation {found.measures['positions']['value']:.2f} over {len(found.names)} characters"
    return drawing(520, 480, body, title="Positions in two models", description=told)


def _rows(space: PersonaSpace) -> list[dict[str, Any]]:
    names = {"near": "assistant’s end", "far": "far end", "other": ""}
    return [{**row, "title": row["role"].replace("_", " "), "end": names[kind_of(row["role"])]} for row in space.ranking]


def _compared(found: SpaceComparison) -> dict[str, Any]:
    said = {"positions": "rank correlation of positions on the axes", "first_component": "|correlation| on the first components",
            "rsa": "pattern of distances (RSA)", "cka": "linear CKA"}  # fmt: skip
    return {"models": found.models, "n": len(found.names), "axes": found.axes, "carried": found.carried,
            "measures": [{"said": said[name], **one} for name, one in found.measures.items()]}  # fmt: skip
