"""The main job in stages: vector (rollouts and judge included), decomposition, labels, report.

Each stage has a key, the content hash of all that it depends on: its settings, the hashes of what it reads and the
package version. A stage whose key stands in the run folder's manifest, and whose files are there, is skipped. Keys are
made without loading a model, so a finished job answers without importing torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from workbench import __version__
from workbench.base.progress import duration
from workbench.base.runs import RunFolder, default_run_folder
from workbench.base.store import content_hash, read_json, write_json

from . import inputs
from .config import STAGES, JobConfig
from .console import note
from .explainer_choice import ExplainerChoice
from .judge_choice import JudgeChoice, choose_judge, what_was_judged
from .recorded import record_job
from .run_views import index_sources, keep_views, opened_index

REPORT_HTML, REPORT_JSON = "report.html", "report.json"
AUTO = "auto"


@dataclass(frozen=True)
class JobResult:
    """A finished job: the folder, each stage's summary (JSON values), and which stages ran now."""

    folder: Path
    summaries: dict[str, dict[str, Any]]
    ran: tuple[str, ...]
    seconds: float

    def summary(self, stage: str) -> dict[str, Any]:
        """What `--json` prints for a stage."""
        return self.summaries[stage]


def check_trait(name: str) -> str:
    """`name` itself when there is such a trait, or a run folder; the error that lists the nearest names otherwise."""
    from workbench.personas.traits import trait_path

    from .given_run import given_folder

    if given_folder(name) is None:
        trait_path(name)
    return name


def run_folder_of(config: JobConfig, out: Path | None) -> Path:
    """The job's run folder: `out`, or runs/<trait>-<model>; a run folder in the trait's place is its own."""
    from .given_run import given_folder

    return out if out is not None else given_folder(config.trait) or default_run_folder(config.trait, config.model)


def main_job(config: JobConfig, folder: Path, *, upto: str = "report") -> JobResult:
    """Run the stages up to `upto` in `folder`, skipping what is done, and return their summaries.

    Raises WorkbenchError for unknown names before anything is created or loaded.
    """
    from .given_run import job_of

    started = time.perf_counter()
    job = job_of(config, folder, sae_needed=upto != "vector")
    job.check_names()
    ran: list[str] = []
    summaries: dict[str, dict[str, Any]] = {}
    with RunFolder.open(folder) as run:
        record_job(run, job.config, upto, meant=job.meant())
        for stage in STAGES[: STAGES.index(upto) + 1]:
            key = job.key(stage)
            if not is_current(run, stage, key):
                _run_stage(job, run, stage, key)
                ran.append(stage)
            summaries[stage] = _summary(run, stage)
    return JobResult(folder, summaries, tuple(ran), time.perf_counter() - started)


def is_current(run: RunFolder, stage: str, key: str) -> bool:
    """Whether `stage` is done with this key and its files are still there, whole."""
    return run.is_done(stage, key) and run.is_whole(stage, editable=stage == "labels")


def _summary(run: RunFolder, stage: str) -> dict[str, Any]:
    """What a finished stage has to say; of the report, report.json itself; with the path where it lies now."""
    if stage != "report":
        told = run.info(stage)["summary"]
        return {**told, "folder": str(run.path / stage)} if "folder" in told else told
    return {**read_json(run.path / REPORT_JSON), "report": str((run.path / REPORT_HTML).resolve())}


def _run_stage(job: Job, run: RunFolder, stage: str, key: str) -> None:
    started = time.perf_counter()
    note(f"{stage} ...")
    recorded = job.work[stage]()
    seconds = time.perf_counter() - started
    run.mark_done(stage, key, seconds=round(seconds, 2), **recorded)
    note(f"{stage}: {duration(seconds)}")


class Job:
    """The work of one configuration in one folder; models, SAE and artefacts are loaded when first needed."""

    labels: Any
    """The LabelSet that the label stage made."""

    def __init__(self, config: JobConfig, folder: Path, *, sae_needed: bool = True) -> None:
        self.config, self.folder, self.sae_needed = config, folder, sae_needed
        self.work: dict[str, Callable[[], dict[str, Any]]] = {
            "vector": self._make_vector,
            "decomposition": self._make_decomposition,
            "labels": self._make_labels,
            "report": self._make_report,
        }

    def check_names(self) -> None:
        """Fail on an unknown trait, model, SAE or hook before any work."""
        _ = self.trait, self.model_identity, self.site, self.config.server, self.config.memory_budget
        inputs.check_block(self.config.model, self.hook)
        inputs.check_choice(self.config.choose, self.config.hook, self.trait)
        if self.config.strict and self.sae_needed:
            inputs.require_fit_sae(self.sae_site)
        self.judge.identity(self.trait.name)
        self.explainer.identity()

    def meant(self) -> dict[str, Any]:
        """{sae, judge, judge_dtype}: what the settings that name nothing stood for, so that `resume` means the same."""
        return {"sae": self.site.id if self.site else None, "judge": self.judge.name, "judge_dtype": self.judge.dtype}

    @cached_property
    def trait(self) -> Any:
        from workbench.personas.traits import load_trait

        return load_trait(self.config.trait)

    @cached_property
    def judge(self) -> JudgeChoice:
        return choose_judge(self.config, self.trait.name)

    @cached_property
    def explainer(self) -> ExplainerChoice:
        name, offline = self.config.explainer, self.config.explainer == "offline"
        # A model or an address from the settings is there for the explainers that have one.
        return ExplainerChoice(name) if offline else ExplainerChoice(name, self.config.explainer_model, self.config.explainer_url)

    @cached_property
    def model_identity(self) -> dict[str, Any]:
        return inputs.model_identity(self.config.model)

    @cached_property
    def site(self) -> inputs.SaeSite | None:
        """Where the SAE reads; None for a vector alone on a model that nobody has an SAE for."""
        if self.config.sae is None and not self.sae_needed and not inputs.has_sae(self.config.model):
            return None
        return inputs.find_sae(self.config.sae, self.config.model)

    @property
    def sae_site(self) -> inputs.SaeSite:
        assert self.site is not None, "only the vector can do without an SAE"
        return self.site

    @cached_property
    def hook(self) -> Any:
        """The HookPoint of the vector, None to let the extraction questions choose."""
        from workbench.models.hookpoints import HookPoint

        named = AUTO if self.config.choose else self.config.hook or (self.site.hook if self.site else AUTO)
        return None if named == AUTO else HookPoint.parse(named)

    @property
    def token_hooks(self) -> tuple[str, ...] | None:
        """Where token activations are kept for the decomposition; None leaves it to `extract`."""
        return (self.site.hook,) if self.site else None

    @cached_property
    def model(self) -> Any:
        from workbench.models.loading import load_model

        placed: dict[str, Any] = {"device": self.config.device}
        if self.config.device == "auto":
            placed = {"device_map": "auto"}
        budget = self.config.memory_budget
        return load_model(self.config.model, dtype=self.config.dtype, max_memory=budget, **placed)

    @cached_property
    def sae(self) -> Any:
        from workbench.saes.registry import load_sae

        return replace(load_sae(self.sae_site.reference), id=self.sae_site.id)

    @cached_property
    def placebos(self) -> Any:
        """What placebo contrasts do to the SAE's features: beside the SAE, else from the placebos of this model's runs."""
        from workbench.decomposition.placebos import PlaceboCodes, codes_of_runs

        beside = PlaceboCodes.beside(self.sae)
        if beside is not None or inputs.placebos_hash(self.placebo_runs) is None:
            return beside
        return codes_of_runs(self.placebo_runs, lambda: self.model, self.sae)

    @property
    def placebo_runs(self) -> Path:
        """Where `workbench extract --all` keeps the placebo contrasts of this job's model."""
        return self.folder.parent / default_run_folder("placebos", self.config.model).name

    def _placebos_hash(self) -> str | None:
        from workbench.decomposition.placebos import FOLDER

        beside = Path(self.sae_site.reference) / FOLDER
        return inputs.folder_hash(beside) if beside.is_dir() else inputs.placebos_hash(self.placebo_runs)

    @cached_property
    def vector(self) -> Any:
        from workbench.personas.vectors import PersonaVector

        return PersonaVector.load(self.folder / "vector")

    @cached_property
    def parts(self) -> Any:
        from workbench.decomposition.result import Decomposition

        return Decomposition.load(self.folder / "decomposition")

    def key(self, stage: str) -> str:
        """The content hash of all that `stage` depends on, the files of the stages before it included."""
        sources: dict[str, Callable[[], dict[str, Any]]] = {
            "vector": self._vector_sources,
            "decomposition": lambda: self._sae_sources("vector") | {"seed": self.config.seed, "placebos": self._placebos_hash()},
            "labels": self._label_sources,
            "report": self._report_sources,
        }
        return content_hash({"stage": stage, "version": __version__, **sources[stage]()})

    def _vector_sources(self) -> dict[str, Any]:
        server = self.config.server
        return {
            **({"server": server.description()} if server else {}),
            "trait": self.trait.hash,
            "model": self.model_identity,
            "judge": self.judge.identity(self.trait.name),
            "seed": self.config.seed,
            "hook": self.config.choose or (None if self.hook is None else str(self.hook)),
            "token_hooks": self.token_hooks,
            "rollouts": [self.config.n_samples, self.config.max_new_tokens, self.config.batch_size, self.config.dtype],
        }

    def _sae_sources(self, before: str) -> dict[str, Any]:
        return {before: self.made_from(before), "sae": self.sae_site.sha256, "n_features": self.config.n_features}

    def _label_sources(self) -> dict[str, Any]:
        found = self._sae_sources("decomposition") | {"shelf": inputs.labels_hash(self.sae_site.id), **index_sources(self)}
        return found if self.explainer.name == "offline" else found | {"explainer": self.explainer.identity()}

    def _report_sources(self) -> dict[str, Any]:
        """The files of all stages, what studies left in the folder, and the store with the history of the labels."""
        studies = {name: inputs.folder_hash(self.folder / name, "*.json") for name in ("views", "audit", "falsify")}
        beside = inputs.folder_hash(self.folder.parent / "falsify" / self.trait.name, "falsification.json")
        made = {name: self.made_from(name) for name in STAGES[:3]}
        shelf = inputs.labels_hash(self.sae_site.id)
        shown = {"trait": self.trait.hash, "n_features": self.config.n_features}
        return {**made, **studies, **shown, "falsify beside": beside, "shelf": shelf}

    def made_from(self, stage: str) -> str:
        """The hash of a stage's files as they are now: editing one (a label, say) renews what is made from it."""
        return inputs.folder_hash(self.folder / stage)

    def _make_vector(self) -> dict[str, Any]:
        from workbench.decomposition.checks import check_trained_on
        from workbench.personas.extraction import extract

        if self.site:  # before minutes of rollouts that this SAE could not decompose
            check_trained_on(self.model.description(), self.sae)
        self.vector = extract(
            self.trait, self.model, judge=self.judge.make(), out=self.folder, hook=self.hook,
            choose=self.config.choose or "separability", token_hooks=self.token_hooks, design=self.config.design,
            server=self.config.server, seed=self.config.seed,
        )  # fmt: skip
        self.vector.save(self.folder / "vector")
        note(what_was_judged(self.vector.evidence, self.folder))
        where = {"trait": self.trait.name, "hook": str(self.vector.hook), "folder": "vector"}
        answers, activations = (self._saved(kind, "part-*") for kind in ("rollouts", "activations"))
        return {"files": self._saved("vector") + answers, "parts": activations, "summary": {**where, **self.vector.evidence}}

    def _make_decomposition(self) -> dict[str, Any]:
        from workbench.decomposition.decompose import decompose

        settings = {"model": self.model, "trait": self.trait, "placebos": self.placebos, "seed": self.config.seed}
        self.parts = decompose(self.vector, self.sae, **settings)
        self.parts.save(self.folder / "decomposition")
        summary = {
            "trait": self.trait.name,
            "sae": self.parts.sae,
            "share_error": self.parts.share_error,
            "share_error_interval": self.parts.share_error_interval,
            "share_sum_error": self.parts.share_sum_error,
            "n_questions": self.parts.n_questions,
            "features": self.parts.table(self.config.n_features),
            "groups": self.parts.audit.get("groups"),
            "controls": self.parts.controls,
            "warnings": list(self.parts.warnings),
            "folder": "decomposition"}  # fmt: skip
        return {"files": self._saved("decomposition"), "summary": summary}

    def _saved(self, place: str, names: str = "*") -> list[str]:
        return sorted(f"{place}/{path.name}" for path in (self.folder / place).glob(names) if path.is_file())

    def _make_labels(self) -> dict[str, Any]:
        from workbench.labeling.files.store import replace_labels
        from workbench.labeling.label import label

        index = opened_index(self)
        self.labels = label(
            self.parts,
            self.sae,
            self.model,
            trait=self.trait,
            n_features=self.config.n_features,
            explainer=self.explainer.make,
            vector=self.vector,
            index=index,
        )
        replace_labels(self.labels, self.folder / "labels")
        views = keep_views(self, index)
        places = {"folder": "labels", "views": str(views)}
        summary = {"trait": self.trait.name, "sae": self.labels.sae_id, "labels": self.labels.table(), **places}
        return {"files": ["labels", views.relative_to(self.folder).as_posix()], "summary": summary}

    def _make_report(self) -> dict[str, Any]:
        from workbench.reports.folders import report_of_folder

        path = (self.folder / REPORT_HTML).resolve()
        made = report_of_folder(self.folder, trait=self.trait, n_features=self.config.n_features).save(path)
        value = {**made.to_json(), "report": str(path)}
        write_json(self.folder / REPORT_JSON, value)
        return {"files": [REPORT_HTML, REPORT_JSON]}
