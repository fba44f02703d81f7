"""From a model to its role vectors, its axis and its persona space, in one run folder that can be taken up again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from workbench.axis.roles import Role, default_role
from workbench.axis.space.adherence import FULLY, judge_roles, keeping
from workbench.axis.space.axis import assistant_axis
from workbench.axis.space.design import RoleDesign
from workbench.axis.space.ends import axis_positions
from workbench.axis.space.role_vectors import MIN_ROLES, RoleVectors, role_vectors
from workbench.axis.space.rollouts import collect_role_rollouts
from workbench.axis.space.space import PersonaSpace, persona_space
from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.store import content_hash, read_json, read_parquet, write_json, write_parquet
from workbench.models.hookpoints import HookPoint
from workbench.models.model import Model
from workbench.models.servers import ChatServer
from workbench.personas.judges import Judge
from workbench.personas.judging import check_judge
from workbench.personas.placebos import PlaceboVectors
from workbench.personas.rollouts import Rollouts
from workbench.personas.vectors import PersonaVector

if TYPE_CHECKING:
    import pandas

ROLES, VECTOR, SPACE, JUDGED = "roles", "vector", "space", "judged"
GRADING_RULE = 2
"""Raised when the offline grades or what they keep change: kept grades are then made again."""
MIN_STRICT = 2


@dataclass(frozen=True, eq=False, repr=False)
class RoleRun(Shown):
    """A finished run: rollouts and the rows as judged (their order), role vectors, the axis. `told`: the filter's figures."""

    folder: Path
    rollouts: Rollouts
    judged: pandas.DataFrame
    told: dict[str, Any]
    vectors: RoleVectors
    axis: PersonaVector


def map_roles(
    model: Model,
    folder: str | Path,
    *,
    design: RoleDesign | None = None,
    judge: str | Judge = "offline",
    keep: int | None = None,
    hook: HookPoint | str | None = None,
    token_hooks: Sequence[HookPoint] | None = None,
    hooks: Sequence[HookPoint] | None = None,
    roles: Sequence[Role] | None = None,
    seed: int = 0,
    server: ChatServer | None = None,
) -> RoleRun:
    """Rollouts, adherence, role vectors and axis of `model`, written to `folder` (`roles/`, `vector/`).

    hook: where vectors are used (default: the middle block); tokens are kept there for a decomposition, unless `token_hooks` says
    otherwise. roles: instead of the design's. The rest as in `collect_role_rollouts` and `judge_roles`. What is there is kept:
    rollouts row by row, grades as long as rollouts, roles and judge stay the same. Where less than fully played answers are
    kept, `told["strict"]` says what those alone would give.
    Raises WorkbenchError before anything is sampled for a judge with the weights of `model` and for a design without vectors.
    """
    design, folder = design or RoleDesign(), Path(folder)
    if not isinstance(judge, str):
        check_judge(judge, model)
    elif judge not in ("offline", "none"):
        raise WorkbenchError(f"the judge {judge!r} by name", "offline, none, or a Judge", "make it with make_judge")
    where = HookPoint.parse(hook) if hook is not None else HookPoint(model.n_blocks // 2)
    chosen = tuple(roles if roles is not None else design.roles)
    check_counts(design, chosen)
    rollouts = collect_role_rollouts(
        model, folder, design=design, roles=chosen, hooks=hooks, seed=seed, server=server,
        token_hooks=(where,) if token_hooks is None else token_hooks,
    )  # fmt: skip
    judged, told = _judged(rollouts, chosen, judge, keep, folder, seed)
    evidence = {"adherence": told, "design": asdict(design), "judge": told["judge"]["name"]}
    options: dict[str, Any] = {"hook": where, "min_count": design.min_count, "seed": seed, "evidence": evidence}
    vectors = role_vectors(rollouts, judged, model, **options)
    if told["keep"] < FULLY:
        told["strict"] = _strict(rollouts, judged, model, vectors)
    axis = assistant_axis(rollouts, judged, model, **options)
    vectors.save(folder / ROLES)
    axis.save(folder / VECTOR)
    return RoleRun(folder, rollouts, judged, told, vectors, axis)


def check_counts(design: RoleDesign, roles: Sequence[Role]) -> None:
    """Refuse a design from which fewer than three roles could get a vector, however well they are played."""
    asked = sum(question.split == "extraction" for question in design.questions(default=False)) * design.n_samples
    counts = [asked * min(design.n_prompts, len(role.prompts)) for role in roles]
    if (n := sum(count >= design.min_count for count in counts)) < MIN_ROLES:
        raise WorkbenchError(
            f"{n} of {len(counts)} roles have {design.min_count} or more answers in this design (the most any has is "
            f"{max(counts, default=0)})", f"at least {MIN_ROLES} roles that can get a vector",
            "name more roles, ask more questions or with more prompts, or ask for fewer answers per role (--min-count)",
        )  # fmt: skip


def _strict(rollouts: Rollouts, judged: pandas.DataFrame, model: Model, vectors: RoleVectors) -> dict[str, Any] | None:
    """What only fully played answers (grade 3) would give: {n_roles, cos_axis, positions}; None where too few roles have any.

    cos_axis: with the axis of the kept answers, over the same roles. positions: Spearman correlation of the roles' positions.
    """
    from scipy.stats import spearmanr

    try:
        strict = role_vectors(rollouts, keeping(judged, FULLY), model, hook=vectors.hook, min_count=MIN_STRICT)
    except WorkbenchError:
        return None
    shared = [name for name in strict.names if name in vectors.names]
    if len(shared) < MIN_ROLES:
        return None
    one, other = strict.only(shared), vectors.only(shared)
    placed = [axis_positions(side.at(), side.at().mean(dim=0), side.axis()).numpy() for side in (one, other)]
    cosine, agreed = float(torch.cosine_similarity(one.axis(), other.axis(), dim=0)), spearmanr(placed[0], placed[1])
    return {"n_roles": len(shared), "cos_axis": cosine, "positions": float(agreed[0])}  # pyright: ignore[reportArgumentType]


def map_space(
    folder: str | Path,
    *,
    traits: Sequence[PersonaVector] = (),
    placebos: PlaceboVectors | None = None,
    n_bootstrap: int = 200,
    seed: int = 0,
) -> PersonaSpace:
    """The persona space of the run in `folder`, written to `space/`. Raises WorkbenchError where it has no role vectors.

    Trait vectors and placebos of other weights are refused.
    """
    vectors = read_role_vectors(folder)
    for one in (*traits, *([placebos] if placebos else [])):
        if one.model.get("weights_hash") != vectors.model.get("weights_hash"):
            raise WorkbenchError(
                f"vectors of {one.model.get('name')} in the space of {vectors.model.get('name')}", "vectors of the same weights",
                "extract them with this model, or leave them out",
            )  # fmt: skip
    space = persona_space(vectors, traits=traits, placebos=placebos, n_bootstrap=n_bootstrap, seed=seed)
    space.save(Path(folder) / SPACE)
    return space


def read_role_vectors(folder: str | Path) -> RoleVectors:
    """The role vectors of a run folder. Raises WorkbenchError, with the way to make them, where there are none."""
    place = Path(folder) / ROLES
    if not (place / "role_vectors.json").is_file():
        raise WorkbenchError(f"{folder} holds no role vectors", "the run folder of `workbench axis roles`",
                             "make them first: workbench axis roles --model MODEL")  # fmt: skip
    return RoleVectors.load(place)


def _judged(
    rollouts: Rollouts, roles: Sequence[Role], judge: str | Judge, keep: int | None, folder: Path, seed: int
) -> tuple[pandas.DataFrame, dict[str, Any]]:
    """`judge_roles`, kept beside the rollouts under the hash of all that it depends on."""
    frame, table, document = rollouts.frame(), folder / f"{JUDGED}.parquet", folder / f"{JUDGED}.json"
    described = judge if isinstance(judge, str) else judge.description()
    key = content_hash({"rollouts": rollouts.hash, "roles": [role.hash for role in roles], "judge": described, "seed": seed,
                        "default": default_role().hash, "keep": keep, "rule": GRADING_RULE})  # fmt: skip
    known = read_json(document) if document.is_file() else {}
    if known.get("key") == key and table.is_file():
        grades = read_parquet(table).to_pandas().set_index("id").loc[frame["id"]]
        return frame.assign(**{name: grades[name].to_numpy() for name in ("adherence", "kept")}), known["told"]
    judged, told = judge_roles(frame, roles, judge, keep=keep, seed=seed)
    document.unlink(missing_ok=True)  # its key must never stand beside the grades of another
    write_parquet(table, judged[["id", "adherence", "kept"]])
    write_json(document, {"key": key, "told": told})
    return judged, told
