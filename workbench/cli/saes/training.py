"""Training SAEs from the command line: what is run, and what it would cost."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.runs import RunFolder, default_run_folder
from workbench.base.store import parse_yaml, read_json

from ..plan import FORWARD_TOKENS_PER_SECOND, SAMPLED_TOKENS_PER_SECOND
from .memory import pass_gib, reading_gib, shape_at_hand

if TYPE_CHECKING:
    from workbench.saes.making import Pass
    from workbench.saes.mixture import Dialogue
    from workbench.saes.recipe import Recipe

ENGINES = ("local", "ray")
NOTE = "an estimate from speeds measured with the default model on two cores; downloads not counted"
VECTOR = Path("vector", "persona_vector.json")
CHARACTERS_PER_TOKEN = 4.3
# Measured on two cores with bfloat16 units, 8,192 features of 576 dimensions; several times slower without such units.
# A step's time grows with tokens x features x width.
TRAINED_TOKENS_PER_SECOND, TRAINED_FEATURES = 9000.0, 8192


def trait_prompts(trait: str, split: str) -> Sequence[tuple[str, str]]:
    """(system, question) of every question of a split under every instruction and arm: what rollouts are sampled from."""
    from workbench.personas.traits import load_trait

    loaded = load_trait(trait)
    questions = [question.text for question in loaded.questions if question.split == split]
    systems = [loaded.system_prompt(triple, arm) for triple in loaded.instructions for arm in loaded.arms]
    return [(system, question) for question in questions for system in systems]


def kept_rollouts(recipe: Recipe) -> Callable[[str], list[Dialogue]] | None:
    """trait -> (system, question, response) of its finished extraction's extraction questions, from `data.rollouts`.

    Nothing is read before a trait is asked for. Rollouts of other weights, or on what are no extraction questions of the
    trait (any more), are refused.
    """
    if not recipe.data.rollouts:
        return None

    @cache
    def of(trait: str) -> list[Dialogue]:
        import pyarrow.parquet as parquet

        folder = _run_of(trait, recipe)
        _check_weights(folder, recipe.model)
        columns = ["split", "system", "question", "response", "id"]
        files = sorted((folder / "rollouts").glob("part-*.parquet"))
        rows = [row for file in files for row in parquet.read_table(file, columns=columns).to_pylist()]
        found = sorted((row for row in rows if row["split"] == "extraction"), key=lambda row: row["id"])
        if not found:
            raise _no_rollouts(trait, recipe)
        _check_questions(folder, trait, {(row["system"], row["question"]) for row in found})
        return [(row["system"], row["question"], row["response"]) for row in found]

    return of


def _run_of(trait: str, recipe: Recipe) -> Path:
    root = Path(recipe.data.rollouts)
    for folder in (root / default_run_folder(trait, recipe.model).name, root / trait):
        if (folder / VECTOR).is_file():
            return folder
    raise _no_rollouts(trait, recipe)


def _no_rollouts(trait: str, recipe: Recipe) -> WorkbenchError:
    return WorkbenchError(
        f"{recipe.data.rollouts} holds no rollouts of {trait} by {recipe.model}",
        "a finished extraction, or an empty data.rollouts",
        f"workbench extract {trait} --model {recipe.model}, or let the training sample them",
    )


def _check_weights(folder: Path, model: str) -> None:
    """The run's weights must be those of the model; of a hub model that is not in the cache, the name decides."""
    from workbench.models.identity import identify

    of_run, weights = read_json(folder / VECTOR).get("model", {}), identify(model)["weights_hash"]
    same = of_run.get("name") == model if weights is None else of_run.get("weights_hash") == weights
    if not same:
        raise WorkbenchError(
            f"the rollouts in {folder} are of {of_run.get('name')} ({str(of_run.get('weights_hash'))[:12]})",
            f"rollouts of {model} ({(weights or '')[:12]})",
            "give another data.rollouts, or leave it empty: the training then samples them",
        )


def _check_questions(folder: Path, trait: str, found: set[tuple[str, str]]) -> None:
    strange = sorted(found - set(trait_prompts(trait, "extraction")))
    if strange:
        raise WorkbenchError(
            f"{len(strange)} of {len(found)} prompts in {folder} are none of {trait}'s: {strange[0][1]!r:.120}",
            "extraction questions under the instructions of the trait as it is now",
            "extract the trait again, or leave data.rollouts empty: the training then samples them",
        )


@dataclass(frozen=True)
class TrainingJob:
    """A training file, and the folder that it is carried out in."""

    recipe: Recipe
    folder: Path
    command: str

    device: str | None = None
    engine: str = "local"
    saes_per_pass: int | None = None
    address: str | None = None

    @property
    def _runner(self) -> Any:
        return map if self.engine == "local" else partial(_on_cluster, address=self.address)

    def _draw(self, saved: dict[str, Path]) -> None:
        """training.svg in every SAE's folder."""
        from workbench.reports.training import training_curves
        from workbench.saes.metrics import read_log

        for name, folder in saved.items():
            if (folder / "cfg.json").is_file() and (log := read_log(self.folder / "training" / name)):
                training_curves(log, name=name).save(folder / "training.svg")

    def plan(self) -> dict[str, Any]:
        """The steps with rough seconds on two cores; nothing is created or loaded."""
        data = self.recipe.data
        of_traits = sum(len(trait_prompts(trait, "extraction")) * data.trait_samples for trait in data.traits)
        sampled = (data.chats + (0 if data.rollouts else of_traits)) * data.max_new_tokens
        read = data.characters / CHARACTERS_PER_TOKEN + 2 * (data.chats + of_traits) * data.max_new_tokens
        seconds = sum(
            plan.training.total_steps * plan.training.batch_size * plan.training.d_sae
            / (TRAINED_TOKENS_PER_SECOND * TRAINED_FEATURES)
            for plan in self.recipe.plans
        )  # fmt: skip
        models = {plan.weights for plan in self.recipe.plans}
        steps = {
            "sample chats": sampled / SAMPLED_TOKENS_PER_SECOND,
            "capture activations": len(models) * read / FORWARD_TOKENS_PER_SECOND,
            "train": seconds,
        }
        sites = ", ".join(dict.fromkeys(plan.hook for plan in self.recipe.plans))
        found = _plan(f"{len(self.recipe.plans)} SAE(s) for {self.recipe.model} at {sites}", self.folder, steps)
        return {**found, **self._size(read)}

    def _size(self, n_tokens: float) -> dict[str, Any]:
        """Memory, and tokens and bytes of the activations, where the model's configuration is on this machine; blocks are
        checked there."""
        shape = shape_at_hand(self.recipe.model)
        if shape is None:
            return {"memory_gib": None}
        from workbench.saes.making import check_block, passes

        for plan in self.recipe.plans:
            check_block(plan, self.recipe.model, shape.n_blocks)
        places = {(plan.weights, plan.hook) for plan in self.recipe.plans}
        size = int(n_tokens * shape.d_model * 2 * len(places))
        held = self.recipe.activations == "memory"
        where = "in memory" if held else "on disk"
        memory = max(reading_gib(shape, self.recipe.capture_dtype),
                     *(pass_gib(one, shape.d_model) for one in passes(self.recipe.plans, self.saes_per_pass)))  # fmt: skip
        note = f"{NOTE}; activations: about {n_tokens:,.0f} tokens at {len(places)} site(s), {size / 2**30:.1f} GiB {where}"
        return {"n_tokens": int(n_tokens), "activation_bytes": size, "note": note,
                "memory_gib": round(memory + held * size / 2**30, 1)}  # fmt: skip

    def run(self) -> dict[str, Any]:
        """Carry the file out, in a locked folder; every part resumes."""
        from workbench.saes.making import make_saes

        rollouts = kept_rollouts(self.recipe)
        if rollouts is not None:  # refused now, not after chats were sampled
            _ = [rollouts(trait) for trait in self.recipe.data.traits]
        with RunFolder.open(self.folder):
            try:
                saved = make_saes(
                    self.recipe, self.folder, trait_prompts=trait_prompts, rollouts=rollouts, command=self.command,
                    device=None if self.device == "auto" else self.device, run=self._runner, saes_per_pass=self.saes_per_pass,
                )  # fmt: skip
            except WorkbenchError:  # some were saved before it
                self._draw({plan.name: self.folder / plan.name for plan in self.recipe.plans})
                raise
        self._draw(saved)
        saes = {name: {"folder": str(path.resolve()), "card": read_json(path / "card.json")} for name, path in saved.items()}
        return {"saes": saes, "folder": str(self.folder.resolve())}


def _on_cluster(function: Callable[[Pass], Any], passes: Sequence[Pass], *, address: str | None) -> Iterable[Any]:
    """The passes as Ray tasks; one that the model's GPU would do gets a GPU of its own, the only one that it sees."""
    from workbench.cluster import exchanged, on_ray

    on_gpu = any(one.device.startswith("cuda") for one in passes)
    sent = [replace(one, device="cuda") if on_gpu else one for one in passes]
    run = partial(on_ray, address=address, gpus_per_task=1 if on_gpu else 0)
    return exchanged(run, passes[0].out, reads=_read_by, writes=_written_by)(function, sent)


def _read_by(one: Pass) -> list[Path]:
    """The activations of a pass, and what an earlier call left of its SAEs."""
    from workbench.saes.activations import ActivationStore

    return [*(data.folder for data in (one.data, *one.held_out.values()) if isinstance(data, ActivationStore)), *_written_by(one)]


def _written_by(one: Pass) -> list[Path]:
    return [folder for plan in one.plans for folder in (one.out / plan.name, one.out / "training" / plan.name)]


def training_job(
    config: Path,
    out: Path | None,
    *,
    device: str | None = None,
    sweep: Sequence[str] = (),
    engine: str = "local",
    saes_per_pass: int | None = None,
    address: str | None = None,
) -> TrainingJob:
    """The job of a YAML training file; bad files, texts that do not exist and unknown traits are refused here."""
    from workbench.saes.corpus import source
    from workbench.saes.recipe import Recipe

    recipe = Recipe.load(config)
    recipe = recipe.swept(_grid(sweep)) if sweep else recipe
    _check_engine(engine, address, recipe)
    _ = source(recipe.data.corpus, "train")
    if recipe.data.rollouts and not recipe.data.traits:
        raise WorkbenchError(
            f"data.rollouts is {recipe.data.rollouts!r}, but data.traits is empty",
            "the traits whose rollouts are to be read",
            "name them in data.traits, or leave out data.rollouts",
        )
    for trait in recipe.data.traits:
        trait_prompts(trait, "extraction")
    # Absolute: the tasks of a cluster run in working folders of their own.
    folder = (out or Path("runs") / f"sae-{config.stem}").resolve()
    command = _command(config, device=device, sweep=sweep, engine=engine, saes_per_pass=saes_per_pass)
    return TrainingJob(recipe, folder, command, device, engine, saes_per_pass, address)


def _check_engine(engine: str, address: str | None, recipe: Recipe) -> None:
    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)
    if address is not None and engine != "ray":
        raise WorkbenchError(f"--address {address} with --engine {engine}", "the engine ray", "add --engine ray")
    if engine == "ray":
        from workbench.cluster import store_address

        store_address()  # refused before anything is captured
    if engine == "ray" and recipe.activations == "memory":
        raise WorkbenchError(
            "activations: memory with --engine ray", "activations that all tasks can read", "set activations: disk"
        )


def _command(
    config: Path, *, device: str | None, sweep: Sequence[str], engine: str, saes_per_pass: int | None
) -> str:
    """What makes the same SAEs again, as a shell reads it."""
    words = ["workbench", "sae", "train", str(config)]
    words += [word for one in sweep for word in ("--sweep", one)]
    words += ["--device", device] if device else []
    words += ["--engine", engine] if engine != "local" else []
    words += ["--saes-per-pass", str(saes_per_pass)] if saes_per_pass else []
    return shlex.join(words)


class _Levels(list):
    """A list of a sweep; as words it can stand in a folder's name: [256, 512] is 256-512."""

    def __str__(self) -> str:
        return "-".join(map(str, self))


def _grid(sweep: Sequence[str]) -> dict[str, list[Any]]:
    """{"k": [16, 32]} from ["k=16,32"] or ["k=16", "k=32"]; values are the entries of a YAML list."""
    grid: dict[str, list[Any]] = {}
    for one in sweep:
        key, _, values = one.partition("=")
        key, found = key.strip(), parse_yaml(f"[{values}]", name=f"--sweep {one}")
        if not key or not found:
            raise WorkbenchError(f"--sweep {one}", "KEY=VALUE,VALUE,...", "for example --sweep k=16,32,64")
        if key == "name":
            raise WorkbenchError(f"--sweep {one}", "a setting; the names say its values", "name SAEs in the file's saes")
        known = grid.setdefault(key, [])
        known += [value for value in map(_value, found) if value not in known]
    return grid


def _value(value: Any) -> Any:
    """The value as meant: YAML takes 1e-4 for text."""
    if isinstance(value, list):
        return _Levels(map(_value, value))
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+e[-+]?\d+", value, re.IGNORECASE):
        return float(value)
    return value


def _plan(what: str, folder: Path | None, steps: dict[str, float]) -> dict[str, Any]:
    return {
        "what": what,
        "folder": None if folder is None else str(folder.resolve()),
        "steps": [{"step": name, "seconds": round(seconds, 1)} for name, seconds in steps.items()],
        "seconds": round(sum(steps.values()), 1),
        "note": NOTE,
    }
