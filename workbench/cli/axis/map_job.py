"""What `workbench axis map` does: read role vectors, make the space and the page, compare; and what it says of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError
from workbench.base.runs import default_run_folder

from ..options import DEFAULT_MODEL

if TYPE_CHECKING:
    from workbench.axis.space.role_vectors import RoleVectors
    from workbench.axis.space.space import PersonaSpace
    from workbench.personas.placebos import PlaceboVectors
    from workbench.personas.vectors import PersonaVector

NAME, PAGE, COMPARISON = "axis", "map.html", "comparison.json"
N_SHOWN = 10
SECONDS_PER_PAIR = 3e-7  # of two characters' part in an eigenproblem; there is one per replicate and block


@dataclass(frozen=True)
class Asked:
    """What the command was told."""

    run: Path | None
    model: str | None
    compare: str | None
    traits: Path | None
    placebos: Path | None
    out: Path | None
    n_bootstrap: int
    seed: int
    tensors: Path | None = None

    @property
    def folder(self) -> Path:
        """The run folder."""
        from workbench.base.settings import setting

        if self.run is not None and self.model is not None:
            raise WorkbenchError("a run folder and --model", "one of them", "leave the other out")
        return self.run or default_run_folder(NAME, str(setting("model", self.model, DEFAULT_MODEL)))

    @property
    def page(self) -> Path:
        """Where the page goes."""
        return self.out or self.folder / "space" / PAGE


def made(asked: Asked) -> dict[str, Any]:
    """The figures of the space, after it and its page are written."""
    from workbench.axis.space.comparison import compare_spaces
    from workbench.axis.space.mapping import map_space, read_role_vectors
    from workbench.axis.space.tensors import write_tensors
    from workbench.base.store import write_json
    from workbench.reports.axis.space import answer, cautions, save

    vectors = read_role_vectors(asked.folder)
    other = None if asked.compare is None else read_role_vectors(_other(asked.compare))
    traits, placebos = traits_beside(asked, vectors), placebos_beside(asked, vectors)
    space = map_space(asked.folder, traits=traits, placebos=placebos, n_bootstrap=asked.n_bootstrap, seed=asked.seed)
    compared = None if other is None else compare_spaces(vectors, other, seed=asked.seed)
    if compared is not None:
        write_json(asked.folder / "space" / COMPARISON, compared.to_json())
    page = save(space, asked.page, compared)
    files = [] if asked.tensors is None else write_tensors(vectors, asked.tensors)
    return {**figures(space, vectors), "answer": answer(space), "cautions": cautions(space), "page": str(page),
            "tensors": [str(file) for file in files],
            "comparison": None if compared is None else compared.to_json(), "folder": str(asked.folder)}  # fmt: skip


def figures(space: PersonaSpace, vectors: RoleVectors) -> dict[str, Any]:
    """The JSON values of a space, with the keys of the evidence at the top."""
    at, adherence = space.at_hook, space.adherence.get("adherence") or {}
    return {
        "model": space.model.get("name"), "hook": str(space.hook), "n_roles": len(space.names),
        "n_rollouts": sum(vectors.n_kept) + vectors.n_default, "pcs_for_70": space.variance["centred"]["n_for_70"],
        "cos_axis_pc1": at["cos"], "cos_axis_pc1_interval": at["interval"], "cos_axis_pc1_null": at,
        "sensitivity": space.sensitivity,
        "ends_rank_correlation": space.ends["rank_correlation"], "ends": space.ends, "ranking": space.ranking,
        "variance": space.variance, "blocks": space.blocks, "clusters": space.clusters, "traits": space.traits,
        "adherence": {name: adherence.get(name) for name in ("judge", "validation")}, "left_out": dict(vectors.left_out),
    }  # fmt: skip


def _other(name: str) -> Path:
    path = Path(name).expanduser()
    return path if (path / "roles").is_dir() else default_run_folder(NAME, name)


def traits_beside(asked: Asked, vectors: RoleVectors) -> list[PersonaVector]:
    """The trait vectors of the same weights that have the role vectors' hook, from the runs beside this one."""
    from workbench.base.store import read_json
    from workbench.personas.fields import fields
    from workbench.personas.vectors import PersonaVector

    root = asked.traits or asked.folder.resolve().parent
    found = []
    for document in sorted(root.glob("*/vector/persona_vector.json")):
        told = fields(read_json(document), str(document)).values
        same = fields(told.get("model") or {}, str(document)).values.get("weights_hash") == vectors.model.get("weights_hash")
        fits = same and str(vectors.hook) in (told.get("hooks") or ())
        if fits and document.parents[1].resolve() != asked.folder.resolve():
            found.append(PersonaVector.load(document.parent))
    if asked.traits is not None and not found:
        raise WorkbenchError(f"no trait vector of {vectors.model.get('name')} at {vectors.hook} in {root}",
                             "a folder with run folders of traits", "extract some first: workbench extract --all")  # fmt: skip
    return found


def placebos_beside(asked: Asked, vectors: RoleVectors) -> PlaceboVectors | None:
    """The placebo contrasts of the same weights that have the role vectors' hook, where there are some."""
    from workbench.personas.placebos import PlaceboVectors

    from ..inputs import placebos_hash

    root = asked.traits or asked.folder.resolve().parent
    place = asked.placebos or root / default_run_folder("placebos", str(vectors.model.get("name"))).name
    if placebos_hash(place) is None:
        if asked.placebos is not None:
            raise WorkbenchError(f"{place} holds no placebo vectors", "a folder that `workbench extract --all` made",
                                 "leave --placebos out, or make them")  # fmt: skip
        return None
    found = PlaceboVectors.load(place)
    fits = found.model.get("weights_hash") == vectors.model.get("weights_hash") and vectors.hook in found.hooks
    if asked.placebos is not None and not fits:
        raise WorkbenchError(f"the placebos in {place} are not of {vectors.model.get('name')} at {vectors.hook}",
                             "placebos of the run's model and hook point", "leave --placebos out, or make them")  # fmt: skip
    return found if fits else None


def planned(asked: Asked) -> dict[str, Any]:
    """The plan: the role vectors' description is read, no tensors."""
    from workbench.axis.space.mapping import ROLES
    from workbench.base.store import read_json

    from ..short_plans import IMPORT_SECONDS, short_plan, step

    document = asked.folder / ROLES / "role_vectors.json"
    told = read_json(document) if document.is_file() else None
    if told is None:
        raise WorkbenchError(f"{asked.folder} holds no role vectors", "the run folder of `workbench axis roles`",
                             "make them first: workbench axis roles --model MODEL")  # fmt: skip
    n_roles, n_hooks = len(told["names"]), len(told["hooks"])
    solved = n_hooks * (asked.n_bootstrap + n_roles)
    size = sum(file.stat().st_size for file in document.parent.iterdir()) / 2**20
    steps = [
        step("start, read the role vectors", IMPORT_SECONDS),
        step(f"axis and components at {n_hooks} hook points", round(solved * n_roles**2 * SECONDS_PER_PAIR, 1)),
        step("positions, clusters, traits, the page", round(10 + asked.n_bootstrap * n_roles * 1e-3, 1)),
        *([step("the other model", 10.0)] if asked.compare else []),
    ]
    return short_plan(f"the space of {n_roles} characters", steps, asked.folder, memory_gib=0.7 + 4 * size / 1024, disk_mib=1)


def show(value: dict[str, Any]) -> None:
    """Both ends, the answer in words, and where the page is."""
    from ..console import say, table
    from ..short_plans import show_short_plan

    if "steps" in value:
        return show_short_plan(value)
    rows = value["ranking"]
    shown = rows if len(rows) <= 2 * N_SHOWN else rows[:N_SHOWN] + rows[-N_SHOWN:]
    title = f"{value['model']} at {value['hook']}: nearest to the assistant, then farthest"
    table(title, ("character", "position", "95%", "answers"),
          [(one["role"], f"{one['position']:+.2f}", f"[{one['low']:+.2f}, {one['high']:+.2f}]", one["n_kept"]) for one in shown],
          right=(1, 2, 3))  # fmt: skip
    say(value["answer"])
    for caution in value["cautions"]:
        say(f"caution: {caution}")
    for one in value["traits"]["vectors"]:
        p = "" if one["p"] is None else f", p {one['p']:.2g} among placebos"
        near = ", ".join(character["role"] for character in one["nearest"][:3])
        say(f"{one['trait']}: cos {one['cos_axis']:+.2f} with the axis{p}; nearest: {near}")
    if found := value["comparison"]:
        _show_comparison(found)
    if value["tensors"]:
        say(f"{value['tensors'][0]} and {len(value['tensors']) - 1} role vectors")
    say(value["page"])


def _show_comparison(found: dict[str, Any]) -> None:
    from ..console import say

    place, axes, pattern = found["positions"], found["axes"], found["rsa"]["value"]
    ends = f"[{place['interval'][0]:+.2f}, {place['interval'][1]:+.2f}]"
    said = f"beside {found['models'][1]}, {found['n_roles']} characters: positions correlate {place['value']:+.2f} {ends} by rank"
    said += f", p {place['p']:.2g}; distances (RSA) {pattern:+.2f}"
    if axes:
        said += f"; cosine of the axes {axes['cos']:+.2f} (95% of single characters are below {axes['null_q95']:+.2f})"
    say(said)
