"""Rollouts of roles in independent shares, for processes or machines of their own; their parts then become one run's."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.axis.roles import Role
from workbench.axis.space.design import RoleDesign, plan_role_rows
from workbench.axis.space.rollouts import every_block, keeps_tokens
from workbench.base.display import Shown
from workbench.base.progress import track
from workbench.models.hookpoints import HookPoint
from workbench.personas.parts import PartStore
from workbench.personas.rollouts import collect_rows
from workbench.personas.rows import plan_batches, prompt_lengths

SHARDS = "shards"
Run = Callable[[Callable[["Shard"], dict[str, int]], Sequence["Shard"]], Iterable[dict[str, int]]]


@dataclass(frozen=True, repr=False)
class Shard(Shown):
    """Share `number` of `n`: every n-th batch of the design. `loading` goes to `load_model(model)`; `run` is the run's folder."""

    model: str
    run: str
    number: int
    n: int
    design: RoleDesign
    roles: tuple[Role, ...]
    hook: str | None = None
    seed: int = 0
    loading: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where its parts lie until they are adopted."""
        return Path(self.run) / SHARDS / f"{self.number:03d}-of-{self.n:03d}"


def sample_shard(shard: Shard) -> dict[str, int]:
    """Sample what neither the run nor a share holds yet. Resumed like any rollouts.

    Returns the place of each row's batch among those of the whole design.
    """
    from workbench.models.loading import load_model

    model = load_model(shard.model, **shard.loading)
    rows = plan_role_rows(model, shard.design, roles=shard.roles, seed=shard.seed)
    where = HookPoint.parse(shard.hook) if shard.hook else HookPoint(model.n_blocks // 2)  # as `map_roles` has it
    hooks, tokens = every_block(model), (where,) if keeps_tokens(rows) else ()
    stores = [PartStore(Path(shard.run)), *(store for store in _shares(Path(shard.run)) if store.folder != shard.folder)]
    there = {row_id for store in stores for header in store.headers() if header.offers(hooks, ()) for row_id in header.ids}
    batches = list(enumerate(plan_batches(rows, prompt_lengths(rows, model), shard.design.batch_size)))[shard.number :: shard.n]
    mine = {row_id for _, batch in batches for row_id in batch} - there
    if mine:
        collect_rows(
            [row for row in rows if row.id in mine], model, shard.folder, sampling=shard.design.sampling,
            batch_size=shard.design.batch_size, hooks=hooks, token_hooks=tokens, label=f"share {shard.number + 1} of {shard.n}",
        )  # fmt: skip
    return {row_id: place for place, batch in batches for row_id in batch}


def sample_in_shards(shards: Sequence[Shard], run: Run = map) -> None:
    """Carry out all `shards` of one run and put their parts among the run's own, in the order of a run without shares.

    run: who carries them out: `map` here one after the other, `workbench.cluster.on_ray` as tasks of a cluster whose machines
    share the folder. An interrupted call goes on, with as many shares or with others.
    """
    places: dict[str, int] = {}
    with track("rollouts of roles", len(shards), "shares") as step:
        for found in run(sample_shard, list(shards)):
            places |= found
            step(1)
    for folder in {Path(shard.run) for shard in shards}:
        adopt_parts(PartStore(folder), _shares(folder), places)
        shutil.rmtree(folder / SHARDS, ignore_errors=True)


def _shares(run: Path) -> list[PartStore]:
    """What the shares of a run hold, those of an earlier call with another number of shares too."""
    return [PartStore(folder) for folder in sorted((run / SHARDS).glob("*-of-*"))]


def adopt_parts(target: PartStore, sources: Sequence[PartStore], places: Mapping[str, int]) -> int:
    """Move the committed parts of all `sources` behind those of `target`, by the places of their rows; returns how many.

    What is there already is dropped. An interrupted call has moved the first ones, and the next one goes on behind them.
    """
    for source in sources:
        source.remove_uncommitted()
    parts = [(source, header) for source in sources for header in source.headers()]
    parts.sort(key=lambda part: places.get(part[1].ids[0], len(places)))
    held, moved = target.headers(), 0
    number = max((header.number for header in held), default=-1) + 1
    known: dict[tuple[tuple[HookPoint, ...], tuple[HookPoint, ...]], set[str]] = {}
    for source, header in parts:
        place = header.hooks, header.token_hooks
        if place not in known:
            known[place] = {row_id for one in held if one.offers(*place) for row_id in one.ids}
        if not set(header.ids) <= known[place]:
            held.append(target.adopt(number + moved, source, header))
            known = {have: ids | set(header.ids) if header.offers(*have) else ids for have, ids in known.items()}
            moved += 1
        source.remove(header.number)
    return moved
