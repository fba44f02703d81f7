"""Training SAEs from the command line: what is run, and what it would cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError
from workbench.base.runs import RunFolder
from workbench.base.store import read_json

from .plan import FORWARD_TOKENS_PER_SECOND, SAMPLED_TOKENS_PER_SECOND

if TYPE_CHECKING:
    from workbench.saes.recipe import Recipe

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
            f"train {len(self.recipe.plans)} SAE(s)": seconds,
        }
        sites = ", ".join(dict.fromkeys(plan.hook for plan in self.recipe.plans))
        return _plan(f"SAEs for {self.recipe.model} at {sites}", self.folder, steps)

    def run(self) -> dict[str, Any]:
        """Carry the file out, in a locked folder; every part resumes."""
        from workbench.saes.making import make_saes

        with RunFolder.open(self.folder):
            saved = make_saes(
                self.recipe, self.folder, trait_prompts=trait_prompts, rollouts=kept_rollouts(self.recipe),
                command=self.command, device=self.device,
            )  # fmt: skip
        saes = {name: {"folder": str(path.resolve()), "card": read_json(path / "card.json")} for name, path in saved.items()}
        return {"saes": saes, "folder": str(self.folder.resolve())}


def training_job(config: Path, out: Path | None, device: str | None = None) -> TrainingJob:
    """The job of a YAML training file; bad files and unknown traits are refused here."""
    from workbench.saes.recipe import Recipe

    recipe = Recipe.load(config)
    for trait in recipe.data.traits:
        trait_prompts(trait, "extraction")
    return TrainingJob(recipe, out or Path("runs") / f"sae-{config.stem}", f"workbench sae train {config}", device)


def _plan(what: str, folder: Path | None, steps: dict[str, float]) -> dict[str, Any]:
    return {
        "what": what,
        "folder": None if folder is None else str(folder.resolve()),
        "steps": [{"step": name, "seconds": round(seconds, 1)} for name, seconds in steps.items()],
        "seconds": round(sum(steps.values()), 1),
        "note": "an estimate from speeds measured with the default model on two cores; downloads not counted",
    }
