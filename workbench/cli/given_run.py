"""Run folders whose vector is there already, and of no trait: an assistant axis, or a role beside the assistant."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError
from workbench.base.store import content_hash, read_json

from . import stages
from .judge_choice import JudgeChoice
from .options import DEFAULT_MODEL

if TYPE_CHECKING:
    from .config import JobConfig

VECTOR = Path("vector") / "persona_vector.json"


def given_folder(name: str) -> Path | None:
    """The run folder that stands in a trait's place: it has a vector, and no text of a trait. None for anything else."""
    folder = Path(name).expanduser()
    return folder if (folder / VECTOR).is_file() and not (folder / "trait.yaml").is_file() else None


def job_of(config: JobConfig, folder: Path, *, sae_needed: bool = True) -> stages.Job:
    """The work on a trait, or on the vector that lies in a run folder already."""
    given = given_folder(config.trait)
    if given is None:
        return stages.Job(config, folder, sae_needed=sae_needed)
    return GivenJob(config, folder, given, sae_needed=sae_needed)


class GivenJob(stages.Job):
    """The later stages of the job on the vector that lies in `given`, which is taken as it is; the model is the vector's own, by
    its name or by the one that is given for it.

    There are no contrast pairs and no sub-traits to sort labels by: both are left out, as for any trait without them.
    Raises WorkbenchError for another folder.
    """

    def __init__(self, config: JobConfig, folder: Path, given: Path, *, sae_needed: bool = True) -> None:
        if folder.resolve() != given.resolve():
            raise WorkbenchError(f"--out {folder} for the run in {given}", "its own folder", "leave --out away, or copy the run")
        self.told = read_json(given / VECTOR)
        own = str(self.told["model"].get("name") or config.model)
        model = own if config.model == DEFAULT_MODEL else config.model
        super().__init__(replace(config, model=model), folder, sae_needed=sae_needed)

    @cached_property
    def trait(self) -> Any:
        from workbench.personas.traits import Trait, load_trait

        name = str(self.told["trait"])
        try:
            return load_trait(name)
        except WorkbenchError:
            return Trait(name, name, "", name, (), (), rubric="", taxonomy=())

    @cached_property
    def judge(self) -> JudgeChoice:
        """Nothing is judged again."""
        return JudgeChoice("none")

    def key(self, stage: str) -> str:
        """The content hash of all that `stage` depends on; the vector is its own files."""
        return content_hash({"given": self.made_from("vector")}) if stage == "vector" else super().key(stage)

    def _make_vector(self) -> dict[str, Any]:
        where = {"trait": self.told["trait"], "hook": self.told["hook"], "folder": "vector"}
        return {"files": [str(VECTOR.as_posix())], "summary": {**self.told["evidence"], **where}}
