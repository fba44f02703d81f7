"""Training SAEs from the command line: what is run, and what it would cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.runs import RunFolder
from workbench.base.store import read_json

from .plan import FORWARD_TOKENS_PER_SECOND, SAMPLED_TOKENS_PER_SECOND

if TYPE_CHECKING:
    from workbench.saes.recipe import Recipe

ENGINES = ("local", "ray")
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


def kept_rollouts(recipe: Recipe) -> Callable[[str], list[tuple[str, str, str]]] | None:
    """trait -> (system, question, response) of its finished extraction's extraction questions, from `data.rollouts`."""
    import pyarrow.parquet as parquet

    folder = Path(recipe.data.rollouts)
    if not recipe.data.rollouts:
        return None

    def of(trait: str) -> list[tuple[str, str, str]]:
        files = sorted((folder / f"{trait}-{Path(recipe.model).name}" / "rollouts").glob("part-*.parquet"))
        columns = ["split", "system", "question", "response", "id"]
        rows = [row for file in files for row in parquet.read_table(file, columns=columns).to_pylist()]
        found = sorted((row for row in rows if row["split"] == "extraction"), key=lambda row: row["id"])
        if not found:
            raise WorkbenchError(
                f"{folder} holds no rollouts of {trait} by {recipe.model}",
                "a finished extraction, or an empty data.rollouts",
                f"workbench extract {trait} --model {recipe.model}, or let the training sample them",
            )
        return [(row["system"], row["question"], row["response"]) for row in found]

    return of


@dataclass(frozen=True)
class TrainingJob:
    """A training file, and the folder that it is carried out in."""

    recipe: Recipe
    folder: Path
    command: str

    device: str | None = None
    engine: str = "local"
    saes_per_pass: int | None = None

    def _runner(self) -> Any:
        if self.engine == "local":
            return map
        if self.recipe.activations == "memory":
            raise WorkbenchError(
                "activations: memory with --engine ray", "activations that all tasks can read", "set activations: disk"
            )
        from workbench.cluster import on_ray

        return partial(on_ray, gpus_per_task=1 if (self.device or "").startswith("cuda") else 0)

    def _draw(self, saved: dict[str, Path]) -> None:
        """training.svg in every SAE's folder."""
        from workbench.reports.training import training_curves
        from workbench.saes.metrics import read_log

        for name, folder in saved.items():
            if log := read_log(self.folder / "training" / name):
                training_curves(log, name=name).save(folder / "training.svg")

    def plan(self) -> dict[str, Any]:
        """The steps with rough seconds on two cores; nothing is created or loaded."""
        data = self.recipe.data
        chats = data.chats + sum(len(trait_prompts(trait, "extraction")) * data.trait_samples for trait in data.traits)
        sampled = chats * data.max_new_tokens
        read = data.characters / CHARACTERS_PER_TOKEN + 2 * sampled
        seconds = sum(
            plan.training.total_steps * plan.training.batch_size * plan.training.d_sae
            / (TRAINED_TOKENS_PER_SECOND * TRAINED_FEATURES)
            for plan in self.recipe.plans
        )  # fmt: skip
        steps = {
            "sample chats": sampled / SAMPLED_TOKENS_PER_SECOND,
            "capture activations": read / FORWARD_TOKENS_PER_SECOND,
            "train": seconds,
        }
        sites = ", ".join(dict.fromkeys(plan.hook for plan in self.recipe.plans))
        return _plan(f"{len(self.recipe.plans)} SAE(s) for {self.recipe.model} at {sites}", self.folder, steps)

    def run(self) -> dict[str, Any]:
        """Carry the file out, in a locked folder; every part resumes."""
        from workbench.saes.making import make_saes

        with RunFolder.open(self.folder):
            saved = make_saes(
                self.recipe, self.folder, trait_prompts=trait_prompts, rollouts=kept_rollouts(self.recipe),
                command=self.command, device=self.device, run=self._runner(), saes_per_pass=self.saes_per_pass,
            )  # fmt: skip
        self._draw(saved)
        saes = {name: {"folder": str(path.resolve()), "card": read_json(path / "card.json")} for name, path in saved.items()}
        return {"saes": saes, "folder": str(self.folder.resolve())}


def training_job(
    config: Path,
    out: Path | None,
    *,
    device: str | None = None,
    sweep: Sequence[str] = (),
    engine: str = "local",
    saes_per_pass: int | None = None,
) -> TrainingJob:
    """The job of a YAML training file; bad files and unknown traits are refused here."""
    from workbench.saes.recipe import Recipe

    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)
    recipe = Recipe.load(config)
    recipe = recipe.swept(_grid(sweep)) if sweep else recipe
    for trait in recipe.data.traits:
        trait_prompts(trait, "extraction")
    command = " ".join(["workbench sae train", str(config), *(f"--sweep {one}" for one in sweep)])
    return TrainingJob(recipe, out or Path("runs") / f"sae-{config.stem}", command, device, engine, saes_per_pass)


def _grid(sweep: Sequence[str]) -> dict[str, list[Any]]:
    """{"k": [16, 32]} from ["k=16,32"]; values are read as YAML."""
    grid = {}
    for one in sweep:
        key, equals, values = one.partition("=")
        if not equals or not key or not values:
            raise WorkbenchError(f"--sweep {one}", "KEY=VALUE,VALUE,...", "for example --sweep k=16,32,64")
        grid[key.strip()] = [yaml.safe_load(value) for value in values.split(",")]
    return grid


def _plan(what: str, folder: Path | None, steps: dict[str, float]) -> dict[str, Any]:
    return {
        "what": what,
        "folder": None if folder is None else str(folder.resolve()),
        "steps": [{"step": name, "seconds": round(seconds, 1)} for name, seconds in steps.items()],
        "seconds": round(sum(steps.values()), 1),
        "note": "an estimate from speeds measured with the default model on two cores; downloads not counted",
    }
