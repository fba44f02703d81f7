"""What `workbench axis cap` and `workbench axis jailbreak` do: the axis, its limits and controls, the arms; or their plan."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError

from ..options import DEFAULT_MODEL

if TYPE_CHECKING:
    from workbench.axis.capping.experiment import Design, Materials
    from workbench.axis.capping.features import FeatureLimits
    from workbench.axis.jailbreak.harness import AttackBench
    from workbench.models.model import Model
    from workbench.personas.placebos import PlaceboVectors
    from workbench.personas.vectors import PersonaVector
    from workbench.saes.interface import SparseAutoencoder

RESULT, FIGURE = "result.json", "figure.svg"
TABLE_ARMS = 13


@dataclass(frozen=True)
class Said:
    """What the commands were told."""

    axis: str
    percentile: float = 25.0
    band: str = "published"
    unit: str = "token"
    sets: tuple[str, ...] = ()
    requests: int = 60
    calibration: int = 40
    per_prompt: int = 2
    wild: int = 0
    benign: int = 40
    sweep_bands: tuple[str, ...] = ()
    sweep_percentiles: tuple[float, ...] = ()
    feature_percentile: float | None = None
    judge: str = "objective"
    judge_model: str | None = None
    judge_url: str | None = None
    documents: int = 24
    items: int = 24
    placebos: Path | None = None
    sae: str | None = None
    hook: str | None = None
    model: str | None = None
    max_new_tokens: int | None = None
    batch_size: int | None = None
    out: Path | None = None
    dtype: str | None = None
    device: str | None = None
    max_memory: str | None = None
    seed: int = 0
    folder_name: str = field(default="capping", kw_only=True)

    @cached_property
    def vector(self) -> PersonaVector:
        """The axis: with rows to calibrate on, and a direction at every block of the band."""
        from ..studies.falsify_job import read_vector

        found = read_vector(self.axis, model=self.model, hook=self.hook, sae=self.sae)
        if not len(found.rows):
            raise WorkbenchError(f"{self.axis} holds no rollouts", "an axis with the replies that it was made from",
                                 "make it with `workbench axis map`, or name a run folder")  # fmt: skip
        return found

    @property
    def model_name(self) -> str:
        """The model that the axis is of, or the one that was named."""
        from workbench.base.settings import setting

        return str(setting("model", self.model) or self.vector.model.get("name") or DEFAULT_MODEL)

    @property
    def folder(self) -> Path:
        """Where the result goes: into the axis' run folder, or a folder of its own."""
        from workbench.base.runs import default_run_folder

        run = Path(self.axis).expanduser()
        inside = run if run.is_dir() else default_run_folder(self.axis, self.model_name)
        if self.out is not None:
            return self.out
        if inside.is_dir():
            return inside / self.folder_name
        return default_run_folder(f"{self.folder_name}-{run.stem}", self.model_name)

    @property
    def design(self) -> Design:
        """Sizes and choices of the experiment."""
        from workbench.axis.capping.experiment import Design

        known = Design()
        bands = self.sweep_bands or (self.band,)
        return Design(sets=self.sets or known.sets, n_calibration=self.calibration, n_evaluation=self.requests,
                      per_prompt=self.per_prompt, percentiles=self.sweep_percentiles or known.percentiles, band_names=bands,
                      n_wild=self.wild, unit=self.unit, seed=self.seed)  # fmt: skip

    @cached_property
    def loaded(self) -> Model:
        """The model."""
        from workbench.base.settings import setting
        from workbench.models.loading import load_model

        dtype = str(setting("dtype", self.dtype) or self.vector.model.get("dtype") or "float32")
        device = setting("device", self.device)
        placed: dict[str, Any] = {"device_map": "auto"} if device == "auto" else {"device": device}
        return load_model(self.model_name, dtype=dtype, max_memory=setting("max_memory", self.max_memory), **placed)

    def bench(self) -> AttackBench:
        """Where replies, verdicts and costs are kept."""
        from workbench.axis.jailbreak.harness import AttackBench, Trying
        from workbench.axis.jailbreak.judging import success_judge
        from workbench.base.settings import setting
        from workbench.models.sampling import Sampling
        from workbench.steering.cost.capability import make_exam

        options = {"model": self.judge_model, "base_url": self.judge_url} if self.judge in ("openai", "anthropic") else {}
        options |= {"model": self.judge_model} if self.judge == "local" else {}
        judge = success_judge(self.judge, **options)
        exam = make_exam(self.loaded, n_documents=self.documents, n_items=self.items, folder=self.folder)
        sampling = Sampling(int(setting("max_new_tokens", self.max_new_tokens, 64)), temperature=0.7, top_p=0.9)
        trying = Trying(sampling, int(setting("batch_size", self.batch_size, 32)), self.seed)
        return AttackBench(self.loaded, judge, exam, self.folder, trying)

    def materials(self) -> Materials:
        """Requests, personas, limits and controls."""
        from workbench.axis.capping.experiment import make_materials

        found = self.features()
        sae, features = found if found is not None else (None, None)
        return make_materials(self.loaded, self.vector, self.design, placebos=self.placebo_vectors(), sae=sae, features=features)

    def features(self) -> tuple[SparseAutoencoder, FeatureLimits] | None:
        """The SAE of the run's decomposition and the limits of the features that carry the axis; None without one."""
        from workbench.axis.capping.features import feature_limits
        from workbench.decomposition.result import Decomposition
        from workbench.saes.registry import load_sae

        from ..inputs import find_sae

        place = Path(self.axis).expanduser() / "decomposition"
        if not (place / "decomposition.json").is_file():
            return None
        parts = Decomposition.load(place)
        sae = load_sae(find_sae(self.sae, self.model_name).reference)
        return sae, feature_limits(self.vector, parts, sae, self.loaded)

    def placebo_vectors(self) -> PlaceboVectors | None:
        """The placebo contrasts at hand for this model."""
        from workbench.base.runs import default_run_folder
        from workbench.personas.placebos import PlaceboVectors

        place = self.placebos or default_run_folder("placebos", self.model_name)
        return PlaceboVectors.load(place) if (place / "placebo_vectors.json").is_file() else None


def capped(said: Said, *, export: Path | None, sweep: bool) -> dict[str, Any]:
    """Calibrate, write the capping (and the published layout), and with `sweep` measure every cap."""
    from workbench.axis.capping.arms import make_limits
    from workbench.axis.capping.bands import band
    from workbench.axis.capping.caps import axis_capping
    from workbench.axis.capping.published import write_cappings
    from workbench.base.store import write_json

    model, axis = said.loaded, said.vector
    hooks = band(axis, model.n_blocks, said.band)
    limits = make_limits(model, axis, hooks, n_random=0, unit=said.unit, seed=said.seed)
    tau = limits.calibration.tau(said.percentile, hooks)
    told = {"percentile": said.percentile, "band": said.band, "unit": said.unit, "n_replies": limits.calibration.n_replies}
    capping = axis_capping(axis, tau, hooks, source=told)
    written = capping.save(said.folder / "capping").parent
    published = None if export is None else str(write_cappings([capping], export))
    medians = dict(zip(hooks, model.norm_medians(hooks).tolist(), strict=True))
    rows = [{"hook": str(hook), "tau": tau[hook], "norms": tau[hook] / medians[hook]} for hook in hooks]
    value: dict[str, Any] = {
        "axis": said.axis, "vector": axis.trait, "model": model.name, "capping_folder": str(written), "published": published,
        "keeps": _keeps(axis.trait), "limits": rows, **told, "sweep": _swept(said) if sweep else None,
    }  # fmt: skip
    write_json(said.folder / RESULT, value)
    return value


def _keeps(trait: str) -> str:
    """What a cap from below does along this vector, in words: along a trait it is no brake on the trait."""
    from workbench.axis.space.axis import AXIS

    if trait == AXIS:
        return "Keeps replies at or above these limits, so toward the assistant."
    return f"Keeps replies at or above these limits, so toward {trait}, not away from it (for that: Edit.cap, or gateway --cap)."


def _swept(said: Said) -> dict[str, Any]:
    from workbench.axis.capping.experiment import sweep_arms
    from workbench.axis.capping.sweep import capping_sweep
    from workbench.reports.axis.capping import capping_figure, capping_sentences

    one, bench = said.materials(), said.bench()
    found = capping_sweep(bench, sweep_arms(one), one.behind(calibration=True), seed=said.seed, told=one.told())
    figure = capping_figure(found).save(said.folder / FIGURE)
    chosen = found.chosen(said.vector.trait)
    return {**found.to_dict(), "chosen": chosen, "sentences": capping_sentences(found), "figure": str(figure)}


def jailbroken(said: Said, *, show_text: bool) -> dict[str, Any]:
    """The table of all arms; what was asked and said stays on the disk, or comes along with `show_text`."""
    from workbench.axis.capping.blocking import over_blocking
    from workbench.axis.capping.experiment import table_arms
    from workbench.axis.jailbreak.attempts import Arm
    from workbench.axis.jailbreak.harness import shown_rows
    from workbench.axis.jailbreak.study import jailbreak_table
    from workbench.base.store import write_json
    from workbench.reports.axis.jailbreak import jailbreak_figure, jailbreak_sentences

    one, bench = said.materials(), said.bench()
    at: dict[str, Any] = {"percentile": said.percentile, "feature_percentile": said.feature_percentile}
    arms = table_arms(one, bench.kl, label=said.band, **at)
    used: dict[str, Any] = {"calibrated_on": one.calibrated_on, "seed": said.seed, "told": one.told()}
    found = jailbreak_table(bench, arms, one.direct(), one.behind(), **used)
    blocked = over_blocking(bench, arms, one.benign(said.benign), seed=said.seed)
    figure = jailbreak_figure(found).save(said.folder / FIGURE)
    value = {**found.to_dict(), "over_blocking": blocked, "sentences": jailbreak_sentences(found), "figure": str(figure)}
    write_json(said.folder / RESULT, value)
    every = [Arm("direct", persona=False), Arm("persona"), *arms]
    texts = {arm.name: shown_rows(bench.outcomes(arm, one.behind() if arm.persona else one.direct()).rows, text=True)
             for arm in every} if show_text else None  # fmt: skip
    return {**value, "texts": texts, "replies": str(said.folder / "replies")}


def plan(said: Said, what: str, *, measured: bool) -> dict[str, Any]:
    """The steps by counts alone; nothing is loaded but the axis. A band that there is none of is refused here already."""
    from workbench.axis.capping.bands import band
    from workbench.base.settings import setting

    from ..plan import BASE_GIB, BATCH_GIB, counted_reading, counted_sampling, size_scale
    from ..short_plans import IMPORT_SECONDS, short_plan, step

    n_blocks = int(said.vector.model.get("n_blocks") or 1 + max(hook.block for hook in said.vector.hooks))
    for name in said.sweep_bands if measured and what != "jailbreak" else (said.band,):
        band(said.vector, n_blocks, name)
    scale, tokens = size_scale(said.model_name), int(setting("max_new_tokens", said.max_new_tokens, 64))
    batch, table = int(setting("batch_size", said.batch_size, 32)), what == "jailbreak"
    steps = [step("start, load the model", 2 * IMPORT_SECONDS),
             step("limits from 200 replies, and controls", counted_reading(264, tokens, scale)["seconds"])]  # fmt: skip
    if measured:
        n_arms = TABLE_ARMS if table else 12 + len(said.design.percentiles) * len(said.design.band_names)
        attempts = (said.requests if table else said.calibration) * said.per_prompt
        groups = [attempts] * n_arms + ([said.benign] * n_arms if table else [])
        sampled, read = counted_sampling(groups, batch, tokens, scale), counted_reading(6 * said.documents * n_arms, 64, scale)
        steps.append(step(f"{sum(groups):,} replies under {n_arms} arms", sampled["seconds"]))
        steps.append(step("perplexity, right answers and KL of each", read["seconds"]))
    return short_plan(f"{what} of {said.vector.trait} in {said.model_name}", steps, said.folder, memory_gib=BASE_GIB + BATCH_GIB,
                      disk_mib=5)  # fmt: skip
