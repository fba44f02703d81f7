"""Rollouts of roles in independent shares, for processes or machines of their own; their parts then become one run's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.axis.roles import Role
from workbench.axis.space.design import RoleDesign, plan_role_rows
from workbench.axis.space.rollouts import every_block, keeps_tokens
from workbench.base.display import Shown
from workbench.models.hookpoints import HookPoint
from workbench.personas.parts import PartStore
from workbench.personas.rollouts import collect_rows
from workbench.personas.rows import plan_batches, prompt_lengths

SHARDS = "shards"
Run = Callable[[Callable[["Shard"], str], Sequence["Shard"]], Iterable[str]]


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


def sample_shard(shard: Shard) -> str:
    """Sample what neither the run nor the shard holds yet; returns the shard's folder. Resumed like any rollouts."""
    from workbench.models.loading import load_model

    model = load_model(shard.model, **shard.loading)
    rows = plan_role_rows(model, shard.design, roles=shard.roles, seed=shard.seed)
    where = HookPoint.parse(shard.hook) if shard.hook else HookPoint(model.n_blocks // 2)  # as `map_roles` has it
    hooks, tokens = every_block(model), (where,) if keeps_tokens(rows) else ()
    there = {row_id for header in PartStore(Path(shard.run)).headers() if header.offers(hooks, ()) for row_id in header.ids}
    batches = plan_batches(rows, prompt_lengths(rows, model), shard.design.batch_size)[shard.number :: shard.n]
    mine = {row_id for batch in batches for row_id in batch} - there
    if mine:
        collect_rows(
            [row for row in rows if row.id in mine], model, shard.folder, sampling=shard.design.sampling,
            batch_size=shard.design.batch_size, hooks=hooks, token_hooks=tokens, label=f"share {shard.number + 1} of {shard.n}",
        )  # fmt: skip
    return str(shard.folder)


def sample_in_shards(shards: Sequence[Shard], run: Run = map) -> None:
    """Carry out all `shards` of one run and put their parts among the run's own.

    run: who carries them out: `map` here one after the other, `workbench.cluster.on_ray` as tasks of a cluster whose machines
    share the folder. An interrupted call goes on.
    """
    for shard, _ in zip(shards, run(sample_shard, list(shards)), strict=True):
        adopt_parts(PartStore(Path(shard.run)), PartStore(shard.folder))


def adopt_parts(target: PartStore, source: PartStore) -> int:
    """Move the committed parts of `source` behind those of `target`; returns how many. What is there already is dropped."""
    source.remove_uncommitted()
    held, moved = target.headers(), 0
    number = max((header.number for header in held), default=-1) + 1
    known: dict[tuple[tuple[HookPoint, ...], tuple[HookPoint, ...]], set[str]] = {}
    for header in source.headers():
        place = header.hooks, header.token_hooks
        if place not in known:
            known[place] = {row_id for one in held if one.offers(*place) for row_id in one.ids}
        if not set(header.ids) <= known[place]:
            tokens = {hook: [rows for _, rows in source.tokens(header, hook)] for hook in header.token_hooks}
            table = source.table(header.number).replace_schema_metadata()
            target.write(number + moved, table, source.means(header, header.hooks), tokens, hooks=header.hooks)
            moved += 1
        source.remove(header.number)
    return moved
