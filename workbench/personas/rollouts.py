"""Rollouts: what the model answers under each instruction, with its activations, appended to disk as it goes.

Every row has an identity (its content hash), so that a run can stop anywhere and go on: finished rows are
skipped, and the batches are planned over the whole design, so that the resumed run equals an uninterrupted
one byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.store import content_hash
from workbench.models.generation import Generated, Sampling, generate
from workbench.models.hookpoints import HookPoint
from workbench.models.loading import Model
from workbench.models.prompts import ChatTokens
from workbench.models.servers import ChatServer
from workbench.personas.parts import PartHeader, PartStore, Produced, complete_parts, parts_hash
from workbench.personas.reencoding import gather_means, prompt_tokens
from workbench.personas.rows import PlannedRow, RowIdentity, plan_batches, prompt_lengths
from workbench.personas.served import ServedReplies
from workbench.personas.traits import ARMS, Question, Trait
from workbench.personas.vectors import TokenSource

if TYPE_CHECKING:
    import pandas
    import pyarrow

EVALUATION_SPLITS = ("verification", "sealed")
EVALUATION_ARMS = ("positive", "negative")
MOST = 1_000_000
"""The largest count of a design: every row of a plan is listed, and a slip of the hand must not fill the memory."""


@dataclass(frozen=True, repr=False)
class RolloutDesign(Shown):
    """Which rollouts to sample: questions x instructions x arms x samples, for extraction and for
    evaluation."""

    n_samples: int = 1
    """Answers per question, instruction and arm."""
    sampling: Sampling = field(default_factory=Sampling)
    """Length, temperature and top-p."""
    arms: tuple[str, ...] = ARMS
    """Arms of the extraction questions, as far as the trait has them; evaluation questions have the positive and the
    negative arm only."""
    splits: tuple[str, ...] = ("extraction", "evaluation")
    """What to sample; evaluation = the verification and the sealed questions."""
    n_extraction: int | None = None
    """How many extraction questions, spread evenly over the list; None = all."""
    n_evaluation: int | None = None
    """How many evaluation questions, half of them sealed; None = all."""
    n_instructions: int | None = None
    """How many instruction triples, the first ones; None = all."""
    batch_size: int = 32
    """Rows generated together; part of the identity of a run, because it fixes the batches."""

    def __post_init__(self) -> None:
        names = ("n_samples", "batch_size", "n_extraction", "n_evaluation", "n_instructions")
        counts = {name: count for name in names if (count := getattr(self, name)) is not None}
        for name, count in counts.items():
            if not 1 <= count <= MOST:
                raise WorkbenchError(f"{name} = {count:,}", f"a count from 1 to {MOST:,}", "correct the design")
        if not {"positive", "negative"} <= set(self.arms) <= set(ARMS):
            raise WorkbenchError(
                f"arms {self.arms}", "positive and negative, and neutral if wanted", "add the missing arm"
            )


@dataclass(frozen=True, eq=False, repr=False)
class Rollouts(Shown):
    """Rows in the order of their design, and the activations that lie beside them.

    `table` columns: id, trait, split, question_id, instruction_id, arm, sample, system, question, response,
    response_ids, n_tokens, finished, n_sinks, seed; and lead_ids (what was sampled before the response) where a model
    thought.
    """

    folder: Path
    table: pyarrow.Table
    hooks: tuple[HookPoint, ...]
    token_hooks: tuple[HookPoint, ...]
    headers: tuple[PartHeader, ...]

    def __len__(self) -> int:
        return self.table.num_rows

    @property
    def ids(self) -> list[str]:
        """The row ids, in table order."""
        return self.table.column("id").to_pylist()

    @property
    def hash(self) -> str:
        """sha256 over the row ids and their texts."""
        return content_hash([self.ids, self.table.column("response").to_pylist()])

    def frame(self) -> pandas.DataFrame:
        """The table as pandas."""
        return self.table.to_pandas()

    def means(self, hooks: Sequence[HookPoint] | None = None) -> Tensor:
        """Mean activation over the response tokens, [n, n_hooks, d_model] float32, aligned with `table`."""
        return gather_means(PartStore(self.folder), self.headers, self.ids, hooks or self.hooks)

    def tokens(self, hook: HookPoint) -> Iterator[tuple[str, Tensor]]:
        """(row id, token activations [n_tokens, d_model]) of the rows that have tokens at `hook`."""
        source = self.token_source()
        return iter(()) if source is None else source.rows(hook)

    def token_source(self) -> TokenSource | None:
        """The reference to the token activations, None when there are none."""
        held = [header for header in self.headers if self.token_hooks and header.offers((), self.token_hooks)]
        if not held:
            return None
        return TokenSource(self.folder, self.token_hooks, parts_hash(held), tuple(h.number for h in held))


def collect_rollouts(
    trait: Trait,
    model: Model,
    folder: str | Path,
    *,
    design: RolloutDesign | None = None,
    hooks: Sequence[HookPoint],
    token_hooks: Sequence[HookPoint] = (),
    seed: int = 0,
    server: ChatServer | None = None,
) -> Rollouts:
    """Sample every rollout of the design that `folder` does not hold yet, and return them all.

    Activations are captured while sampling: means at `hooks` for all rows, every response token at
    `token_hooks` for the extraction rows (those that the vector is made from). Interrupt it and call it
    again: it goes on where it stopped.

    server: who samples, instead of `model`: a chat server with the same weights; `model` then reads the answers. Raises
    WorkbenchError when answers are missing after all attempts; those that came are not asked for again.
    """
    design = design or RolloutDesign()
    rows = plan_rows(trait, model, design=design, seed=seed, server=server)
    return collect_rows(
        rows, model, folder, sampling=design.sampling, batch_size=design.batch_size, hooks=hooks, token_hooks=token_hooks,
        server=server, label=f"rollouts of {trait.name}",
    )  # fmt: skip


def collect_rows(
    rows: Sequence[PlannedRow],
    model: Model,
    folder: str | Path,
    *,
    sampling: Sampling,
    batch_size: int,
    hooks: Sequence[HookPoint],
    token_hooks: Sequence[HookPoint] = (),
    server: ChatServer | None = None,
    label: str = "rollouts",
) -> Rollouts:
    """The rollouts of planned rows, whoever planned them: those that `folder` does not hold yet are sampled now.

    Raises and resumes like `collect_rollouts`.
    """
    planned = {row.id: row for row in rows}

    def wanted(row_id: str) -> Sequence[HookPoint]:
        return token_hooks if row_id in planned and planned[row_id].split == "extraction" else ()

    def produce(ids: list[str]) -> Produced:
        chosen = [planned[row_id] for row_id in ids]
        opened = [prompt_tokens(model, row.system, row.question) for row in chosen]
        if served:
            made = served.generate(ids, opened, hooks, wanted(ids[0]))
        else:
            made = _generate(model, chosen, opened, sampling, hooks, wanted(ids[0]))
        tokens = {hook: [one.tokens[hook] for one in made] for hook in wanted(ids[0])}
        return _table(chosen, made), _stack_means(made, len(hooks), model.d_model), tokens

    store = PartStore(Path(folder))
    batches = plan_batches(rows, prompt_lengths(rows, model), batch_size)
    with ServedReplies(server, model, rows, sampling) if server else nullcontext() as served:
        complete_parts(
            store, batches, produce, hooks=hooks, token_hooks=wanted, announce=served.ask if served else None, label=label
        )  # fmt: skip
    return assemble(store, [asdict(row) for row in rows], hooks, token_hooks)


def plan_rows(
    trait: Trait, model: Model, *, design: RolloutDesign, seed: int, server: ChatServer | None = None
) -> tuple[PlannedRow, ...]:
    """Every rollout of the design, each content once: a question written twice does not count twice."""
    instructions = trait.instructions[: design.n_instructions]
    identity = RowIdentity(model, design.sampling, seed, server)
    rows: dict[str, PlannedRow] = {}
    for question, arms in _cells(trait, design):
        for instruction, arm, sample in product(instructions, arms, range(design.n_samples)):
            place = (trait.name, question.split, question.id, instruction.id, arm, sample)
            row = identity.row(place, trait.system_prompt(instruction, arm), question.text)
            rows.setdefault(row.id, row)
    return tuple(rows.values())


def assemble(
    store: PartStore,
    rows: Sequence[Mapping[str, Any]],
    hooks: Sequence[HookPoint],
    token_hooks: Sequence[HookPoint],
) -> Rollouts:
    """The committed rows with the ids of `rows`, in this order, as Rollouts.

    Where a row stands (trait, split, ids of question and instruction, arm) is taken from `rows`, not from disk: a
    question that was moved to another split since then, or a character that was renamed, keeps its texts.
    """
    import pyarrow as pa

    ids = [row["id"] for row in rows]
    headers = [h for h in store.headers() if h.offers(hooks, ()) and not set(ids).isdisjoint(h.ids)]
    parts = [store.table(header.number).replace_schema_metadata() for header in headers]
    merged = pa.concat_tables(parts, promote_options="default")  # not every part has lead_ids
    position = {row_id: i for i, row_id in enumerate(merged.column("id").to_pylist())}
    table = merged.take(pa.array([position[row_id] for row_id in ids], pa.int64()))
    for name in ("trait", "split", "question_id", "instruction_id", "arm"):
        places = pa.array([row[name] for row in rows], pa.string())
        table = table.set_column(table.column_names.index(name), name, places)
    return Rollouts(store.folder, table, tuple(hooks), tuple(token_hooks), tuple(headers))


def _cells(trait: Trait, design: RolloutDesign) -> Iterator[tuple[Question, tuple[str, ...]]]:
    if "extraction" in design.splits:
        for question in _spread(trait.questions_of("extraction"), design.n_extraction):
            yield question, tuple(arm for arm in design.arms if arm in trait.arms)
    if "evaluation" in design.splits:
        n = design.n_evaluation
        for split, count in zip(
            EVALUATION_SPLITS, (None, None) if n is None else (n - n // 2, n // 2), strict=True
        ):
            for question in _spread(trait.questions_of(split), count):
                yield question, EVALUATION_ARMS


def _spread(questions: Sequence[Question], count: int | None) -> list[Question]:
    # Evenly spaced, because trait files list one kind of question after the other.
    if count is None or count >= len(questions):
        return list(questions)
    return [questions[(2 * i + 1) * len(questions) // (2 * count)] for i in range(count)]


def _generate(
    model: Model,
    rows: Sequence[PlannedRow],
    prompts: Sequence[ChatTokens],
    sampling: Sampling,
    hooks: Sequence[HookPoint],
    token_hooks: Sequence[HookPoint],
) -> list[Generated]:
    made: dict[int, Generated] = {}
    for indices, results in generate(
        model, prompts, sampling, row_seeds=[row.seed for row in rows], hooks=tuple(hooks),
        token_hooks=tuple(token_hooks), batch_size=len(rows),
    ):  # fmt: skip
        made.update(zip(indices, results, strict=True))
    return [made[i] for i in range(len(rows))]


def _stack_means(made: Sequence[Generated], n_hooks: int, d_model: int) -> Tensor:
    # A response without tokens has no mean: zeros on disk, and `usable_mask` leaves the row out.
    empty = torch.zeros(n_hooks, d_model)
    return torch.stack([empty if one.means is None else one.means.float().nan_to_num() for one in made])


def _table(rows: Sequence[PlannedRow], made: Sequence[Generated]) -> pyarrow.Table:
    results = [
        {
            "response": one.text,
            "response_ids": list(one.response_ids),
            "finished": one.finished,
            "n_sinks": one.n_sinks,
            **({"lead_ids": list(one.lead_ids)} if one.lead_ids else {}),
        }
        for one in made
    ]
    return rollout_table([{**asdict(row), **result} for row, result in zip(rows, results, strict=True)])


def rollout_table(rows: Sequence[dict[str, Any]]) -> pyarrow.Table:
    """The Arrow table of rollout rows; n_tokens is counted here. `lead_ids` is a column where a row has some."""
    import pyarrow as pa

    types = dict.fromkeys(("id", "trait", "split", "question_id", "instruction_id", "arm"), pa.string())
    types |= {"sample": pa.int64(), **dict.fromkeys(("system", "question", "response"), pa.string())}
    types |= {"response_ids": pa.list_(pa.int32()), "n_tokens": pa.int64(), "finished": pa.bool_()}
    types |= {"n_sinks": pa.int64(), "seed": pa.int64()}
    types |= {"lead_ids": pa.list_(pa.int32())} if any("lead_ids" in row for row in rows) else {}
    counted = [{**row, "n_tokens": len(row["response_ids"])} for row in rows]
    return pa.Table.from_pylist(counted, schema=pa.schema(types))
