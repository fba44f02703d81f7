"""What `workbench axis roles` does: list, exchange and write characters; play them on a model; and what that would take."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError
from workbench.base.runs import default_run_folder

from ..options import JobFlags

if TYPE_CHECKING:
    from workbench.axis.roles import Role
    from workbench.axis.space.design import RoleDesign
    from workbench.personas.judges import Judge

    from ..config import JobConfig

NAME = "axis"
ADDED_ROWS_PER_SECOND = 500  # read from disk and added up at every block


@dataclass(frozen=True)
class Asked:
    """What the command was told."""

    names: tuple[str, ...]
    model: str | None
    full: bool
    n_roles: int | None
    n_questions: int | None
    n_prompts: int | None
    samples: int | None
    min_count: int | None
    max_new_tokens: int | None
    judge: str
    keep: int | None
    judge_model: str | None
    judge_url: str | None
    generate_with: str | None
    generate_model: str | None
    hook: str | None
    folder: Path | None
    export: Path | None
    out: Path | None
    dtype: str | None
    batch_size: int | None
    device: str | None
    max_memory: str | None
    seed: int
    engine: str = "local"
    shares: int = 8
    address: str | None = None

    def config(self) -> JobConfig:
        """The settings of a job that are shared with the other commands."""
        flags = JobFlags(
            model=self.model, judge_model=self.judge_model, judge_url=self.judge_url, generate_with=self.generate_with,
            generate_model=self.generate_model, seed=self.seed, dtype=self.dtype, batch_size=self.batch_size, device=self.device,
            max_memory=self.max_memory, hook=self.hook,
        )  # fmt: skip
        return flags.job(NAME)

    def design(self) -> RoleDesign:
        """The design of the rollouts."""
        from workbench.axis.space.design import FULL, RoleDesign

        base = FULL if self.full else RoleDesign()
        named = {"n_roles": self.n_roles, "n_questions": self.n_questions, "n_prompts": self.n_prompts, "n_samples": self.samples,
                 "min_count": self.min_count, "batch_size": self.batch_size}  # fmt: skip
        longest = self.max_new_tokens or base.sampling.max_new_tokens
        given = {name: value for name, value in named.items() if value is not None}
        return replace(base, sampling=replace(base.sampling, max_new_tokens=longest), **given)

    def roles(self) -> tuple[Role, ...]:
        """The characters: those named, else the design's."""
        from workbench.axis.roles import load_roles
        from workbench.axis.space.design import chosen_roles

        if self.names or self.folder:
            return load_roles(self.names or None, self.folder)
        return chosen_roles(load_roles(), self.design().n_roles)

    @property
    def run_folder(self) -> Path:
        """Where the run lies."""
        return self.out or default_run_folder(NAME, self.config().model)

    def where(self) -> Any:
        """The hook point: as asked, else where the model's SAE reads; None leaves it to the middle block."""
        from workbench.models.hookpoints import HookPoint

        from ..inputs import check_block, find_sae, has_sae

        config = self.config()
        named = config.hook or (find_sae(None, config.model).hook if has_sae(config.model) else None)
        hook = HookPoint.parse(named) if named else None
        check_block(config.model, hook)
        return hook

    def make_judge(self) -> str | Judge:
        """The judge: the offline filter by name, or one that reads rubrics."""
        from workbench.personas.judges import make_judge

        if self.judge in ("offline", "none"):
            return self.judge
        if self.judge not in ("openai", "anthropic", "local"):
            raise WorkbenchError(f"the judge {self.judge!r}", "offline, openai, anthropic, local or none", "correct --judge")
        config = self.config()
        where = {} if self.judge == "local" else {"base_url": config.judge_url}
        return make_judge(self.judge, model=config.judge_model, **where)


def made(asked: Asked) -> dict[str, Any]:
    """The list of characters, or what was written, or the run's figures."""
    return _listed(asked) if asked.model is None else _run(asked)


def _listed(asked: Asked) -> dict[str, Any]:
    from workbench.axis.roles import load_roles

    roles = load_roles(asked.names or None, asked.folder)
    value: dict[str, Any] = {"roles": [{"name": one.name, "description": one.description, "prompts": list(one.prompts)}
                                       for one in roles]}  # fmt: skip
    if asked.export is not None:
        from workbench.axis.exchange import write_questions, write_roles
        from workbench.axis.questions import question_bank

        write_roles(roles, asked.export, question_bank("extraction")[:40])
        bank = write_questions(question_bank(), asked.export / "questions.jsonl")
        value |= {"written": str(asked.export), "questions": str(bank)}
    return value


def written(
    name: str, describe: str | None, folder: Path | None, endpoint_model: str | None, base_url: str | None
) -> dict[str, Any]:
    """A new character by a chat model, as a role file."""
    from workbench.axis.writing import write_new_role

    if not (describe or "").strip():
        raise WorkbenchError("--write without --describe", "a sentence to write from", 'add --describe "..."')
    found = write_new_role(name, str(describe), out=folder or "roles", model=endpoint_model, base_url=base_url)
    role = {"name": found.role.name, "description": found.role.description, "prompts": list(found.role.prompts)}
    return {"roles": [role], "written": str(found.file), "asked_again": found.asked_again}


def _run(asked: Asked) -> dict[str, Any]:
    from workbench.axis.space.mapping import check_counts, map_roles
    from workbench.base.runs import RunFolder
    from workbench.models.loading import load_model

    config, design, roles, hook, judge = asked.config(), asked.design(), asked.roles(), asked.where(), asked.make_judge()
    placed: dict[str, Any] = {"device_map": "auto"} if config.device == "auto" else {"device": config.device}
    if asked.engine == "ray" and config.server:
        raise WorkbenchError("--engine ray and --generate-with", "one of them", "a server needs no shares: leave --engine out")
    check_counts(design, roles)
    with RunFolder.open(asked.run_folder):
        if asked.engine == "ray":
            _sample_on_ray(asked, roles, None if hook is None else str(hook), placed)
        model = load_model(config.model, dtype=config.dtype, max_memory=config.memory_budget, **placed)
        run = map_roles(model, asked.run_folder, design=design, judge=judge, keep=asked.keep, hook=hook, roles=roles,
                        seed=config.seed, server=config.server)  # fmt: skip
    vectors, counts = run.vectors, run.told["counts"]
    kept = dict(zip(vectors.names, vectors.n_kept, strict=True))
    return {
        "model": config.model, "hook": str(vectors.hook), "n_roles": len(vectors), "n_rollouts": len(run.rollouts),
        "n_default": vectors.n_default, "judge": run.told["judge"], "validation": run.told["validation"],
        "roles": [{"name": name, **count, "has_vector": name in kept} for name, count in counts.items()],
        "left_out": dict(vectors.left_out), "cosine_filtered_unfiltered": run.axis.evidence["cosine_filtered_unfiltered"],
        "keep": run.told["keep"], "strict": run.told.get("strict"),
        "axis_norm": float(run.axis.direction.norm()), "folder": str(run.folder),
    }  # fmt: skip


def _sample_on_ray(asked: Asked, roles: tuple[Role, ...], hook: str | None, placed: dict[str, Any]) -> None:
    """The rollouts in shares, as Ray tasks; each gets a GPU of its own where the model's device is one."""
    from functools import partial

    from workbench.axis.space.shards import SHARDS, Shard, sample_in_shards
    from workbench.cluster import exchanged, on_ray

    config, n = asked.config(), asked.shares
    on_gpu = "device_map" in placed or str(placed.get("device") or "").startswith("cuda")
    loading = {"dtype": config.dtype, "max_memory": config.memory_budget, **({"device": "cuda"} if on_gpu else placed)}
    run = str(asked.run_folder.resolve())
    shards = [Shard(config.model, run, i, n, asked.design(), roles, hook, config.seed, loading) for i in range(n)]
    cluster = partial(on_ray, address=asked.address, gpus_per_task=1 if on_gpu else 0)
    there = [one for one in Path(run).iterdir() if one.name != SHARDS] + list((Path(run) / SHARDS).glob("*"))
    sample_in_shards(shards, exchanged(cluster, Path(run), reads=lambda _: there, writes=lambda one: [one.folder]))


def planned(asked: Asked) -> dict[str, Any]:
    """The plan of the rollouts: nothing is loaded or created."""
    from workbench.axis.space.mapping import check_counts

    from ..inputs import model_identity
    from ..short_plans import EMBEDDED_TEXTS_PER_SECOND, IMPORT_SECONDS, short_plan, step

    config, design, roles = asked.config(), asked.design(), asked.roles()
    _ = model_identity(config.model), asked.where(), asked.make_judge()
    check_counts(design, roles)
    n_rows, seconds, memory, disk = _cost(config, design, roles)
    who = "a server samples, the model reads" if config.server else "sample"
    steps = [step("start, load", 3 * IMPORT_SECONDS), step(f"{who} {n_rows:,} answers", seconds)]
    if asked.judge == "offline":
        steps.append(step("grade them by sentence embeddings", round(n_rows / EMBEDDED_TEXTS_PER_SECOND, 1)))
    steps.append(step("role vectors and axis", round(n_rows / ADDED_ROWS_PER_SECOND, 1)))
    what = f"{len(roles)} characters and the default assistant on {config.model}"
    value = short_plan(what, steps, asked.run_folder, memory_gib=memory, disk_mib=disk)
    return value | {"n_roles": len(roles), "n_rollouts": n_rows, "n_answer_tokens": n_rows * design.sampling.max_new_tokens,
                    "roles": [role.name for role in roles]}  # fmt: skip


def _cost(config: JobConfig, design: RoleDesign, roles: tuple[Role, ...]) -> tuple[int, float | None, float, float]:
    """(answers, seconds to sample or read them, GiB of memory, MiB of disk), measured where the model's configuration is here."""
    from workbench.axis.space.planning import plan_roles
    from workbench.models.planning import probe_of, resident_bytes

    from ..plan import BASE_GIB, BATCH_GIB, counted_sampling, size_scale

    probe = probe_of(config.model, dtype=config.dtype, device=config.device, budget=config.memory_budget)
    if probe is None:
        n_rows = _counted(design, len(roles))
        sampled = counted_sampling([n_rows], design.batch_size, design.sampling.max_new_tokens, size_scale(config.model))
        return n_rows, sampled["seconds"], BASE_GIB + BATCH_GIB, 0.0
    served = config.server is not None
    found = plan_roles(probe, design, roles=roles, served=served, budget=config.memory_budget, libraries=resident_bytes())
    return found.n_rows, round(found.sample.seconds, 1), found.sample.memory.peak / 2**30, found.n_bytes / 2**20


def _counted(design: RoleDesign, n_roles: int) -> int:
    from workbench.axis.roles import default_role

    role = design.n_prompts * design.n_samples * len(design.questions(default=False))
    return n_roles * role + len(default_role().prompts) * design.n_default_samples * len(design.questions(default=True))


def show(value: dict[str, Any]) -> None:
    """A list, a plan, or what a run gave, in words."""
    from ..console import say, table
    from ..short_plans import show_short_plan

    if "steps" in value:
        show_short_plan(value)
        say(f"Which characters: {', '.join(value['roles'])}")
    elif "hook" in value:
        _show_run(value)
    else:
        table(f"{len(value['roles'])} characters", ("name", "prompts", "who speaks"),
              [(one["name"], len(one["prompts"]), one["description"]) for one in value["roles"]], right=(1,))  # fmt: skip
        if value.get("written"):
            say(f"written to {value['written']}")


def _show_run(value: dict[str, Any]) -> None:
    from ..console import say, table

    def row(one: dict[str, Any]) -> tuple[Any, ...]:
        return one["name"], one["rows"], one["kept"], *(one[f"grade_{grade}"] for grade in range(4)), one["has_vector"]

    columns = ("character", "answers", "kept", "0", "1", "2", "3", "vector")
    title = f"{value['model']}, graded by {value['judge']['name']}"
    table(title, columns, [row(one) for one in value["roles"]], right=(1, 2, 3, 4, 5, 6))
    n, out, spoken = value["n_roles"], value["left_out"], value["n_default"]
    say(f"{n} role vectors and the axis at {value['hook']}, from {value['n_rollouts']:,} answers ({spoken} of the default)")
    if out:
        say(f"left out, too few kept: {', '.join(f'{name} ({count})' for name, count in out.items())}")
    if found := value["validation"]:
        rates = [f"{found[f'rate_{name}']:.0%} {said}" for name, said in _RATES.items() if f"rate_{name}" in found]
        say(f"counted as fully played (grade 3): {', '.join(rates)}")
    say(f"kept: grade {value['keep']} and more")
    if found := value["strict"]:
        say(f"of grade 3 alone: {found['n_roles']} roles, cosine of the axes {found['cos_axis']:.3f}, positions correlate "
            f"{found['positions']:+.2f} by rank")  # fmt: skip
    say(f"axis with the filter and without it: cosine {value['cosine_filtered_unfiltered']:.3f}")
    say(f"next: workbench axis map {value['folder']}")


_RATES = {"own": "of the characters' own answers", "swapped": "of answers of another character", "default": "of the default's"}
