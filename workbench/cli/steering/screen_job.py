"""What `workbench screen` does: find vectors, model and SAE, score, decide, write; and what that would take."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError, unknown_name

from ..options import DEFAULT_MODEL

if TYPE_CHECKING:
    from workbench.models.loading import Model
    from workbench.personas.placebos import PlaceboVectors
    from workbench.personas.vectors import PersonaVector
    from workbench.steering.screen.files import DataFile
    from workbench.steering.screen.scores import DataScores
    from workbench.steering.screen.scoring import ScreenOptions

OUT = Path("runs/screen")
READ_SHARE = 0.6  # of a pass: the blocks up to the hook, no logits; the SAE's codes


@dataclass(frozen=True)
class Asked:
    """What the command was told."""

    data: Path
    vectors: tuple[str, ...]
    traits: tuple[str, ...]
    against: Any
    percentile: float | None
    clean: Path | None
    rate: float | None
    combine: Any
    out: Path | None
    keep_unscored: bool
    report: Path | None
    ranking: Path | None
    label_field: str | None
    placebos: Path | None
    own_tokens: int
    max_tokens: int
    folder: Path | None
    resume: bool
    sae: str | None
    model: str | None
    dtype: str | None
    batch_size: int | None
    device: str | None
    max_memory: str | None
    seed: int

    def options(self) -> ScreenOptions:
        """How samples are scored."""
        from workbench.models.sampling import Sampling
        from workbench.steering.screen.scoring import ScreenOptions

        return ScreenOptions(against=self.against, max_tokens=self.max_tokens, sampling=Sampling(max_new_tokens=self.own_tokens),
                             label_field=self.label_field, batch_size=self.batch_size or 32, seed=self.seed)  # fmt: skip

    def vector_places(self) -> list[str]:
        """Run folders and files of the vectors that are asked for, each once. Raises WorkbenchError for a trait without one."""
        found = [place for root in self.vectors for place in self._places(Path(root).expanduser())]
        missing = [trait for trait in self.traits if not any(self._is_of(trait, place) for place in found)]
        if missing:
            raise unknown_name("vector of the trait", missing[0], [Path(place).name for place in found] or ["none"],
                               remedy=f"extract it first: workbench extract {missing[0]}")  # fmt: skip
        chosen = [place for place in found if not self.traits or any(self._is_of(trait, place) for trait in self.traits)]
        if not chosen:
            raise WorkbenchError(f"no persona vector in {', '.join(self.vectors)}", "run folders with a vector, or vector files",
                                 "extract one first (workbench extract evil), or name it with --vectors")  # fmt: skip
        return list(dict.fromkeys(chosen))

    def _places(self, root: Path) -> list[str]:
        if root.is_file() or any((place / "persona_vector.json").is_file() for place in (root, root / "vector")):
            return [str(root)]
        runs = sorted(place.parents[1] for place in root.glob(f"*-{self._model_name()}/vector/persona_vector.json"))
        return [str(run) for run in runs]

    def _is_of(self, trait: str, place: str) -> bool:
        from workbench.base.store import read_json

        known = [Path(place) / name / "persona_vector.json" for name in ("", "vector")]
        document = next((read_json(path) for path in known if path.is_file()), None)
        return Path(place).stem == trait if document is None else document.get("trait") == trait

    def _model_name(self) -> str:
        from workbench.base.settings import setting

        return Path(str(setting("model", self.model, DEFAULT_MODEL))).name


def made(asked: Asked) -> dict[str, Any]:
    """The screening as a JSON value, after what was asked for is written."""
    from workbench.labeling.files.store import load_labels
    from workbench.reports.steering.screen import save
    from workbench.steering.screen.files import DataFile
    from workbench.steering.screen.screening import screen

    from ..studies.falsify_job import read_vector

    _refuse(asked)
    data = DataFile.open(asked.data)
    clean = None if asked.clean is None else DataFile.open(asked.clean)
    vectors = [read_vector(place, model=asked.model, sae=asked.sae) for place in asked.vector_places()]
    model = _model(asked, vectors)
    sae, site = _sae(asked, model, vectors)
    placebos = _placebos(asked, model, vectors)
    found = _scored(asked, data, model, vectors, sae, placebos, asked.folder)
    reference = None
    if clean is not None:
        reference = _scored(asked, clean, model, vectors, sae, placebos, None if asked.folder is None else asked.folder / "clean")
    labels = None if sae is None else load_labels(site.id, sae_hash=sae.weights_hash)
    result = screen(found, percentile=asked.percentile, false_positive_rate=asked.rate, clean=reference, combine=asked.combine,
                    sae=sae, labels=labels, placebos=placebos, seed=asked.seed)  # fmt: skip
    written = {"folder": str(found.folder)}
    if asked.out is not None:
        written["out"] = str(result.write_kept(asked.out, keep_unscored=asked.keep_unscored))
    if asked.ranking is not None:
        written["ranking"] = str(result.write_ranking(asked.ranking))
    if asked.report is not None:
        written["report"] = str(save(result, asked.report))
    return {**result.to_json(), **written}


def _refuse(asked: Asked) -> None:
    """What cannot be meant, before anything is read or loaded."""
    if (asked.clean is None) != (asked.rate is None):
        alone = "--clean" if asked.rate is None else "--false-positive-rate"
        raise WorkbenchError(f"{alone} alone", "--clean and --false-positive-rate",
                             "give clean data and the rate that they may be flagged at")  # fmt: skip
    if asked.rate is not None and asked.percentile is not None:
        raise WorkbenchError("--percentile and --false-positive-rate", "one of them", "leave one out")
    if asked.percentile is not None and not 0 <= asked.percentile <= 100:
        raise WorkbenchError(f"--percentile {asked.percentile:g}", "a number from 0 to 100", "95 flags the highest twentieth")
    if asked.rate is not None and not 0 < asked.rate < 1:
        raise WorkbenchError(f"--false-positive-rate {asked.rate:g}", "a number between 0 and 1", "0.05 is one in twenty")
    written = [path.resolve() for path in (asked.out, asked.report, asked.ranking) if path is not None]
    read = {path.resolve() for path in (asked.data, asked.clean) if path is not None}
    if len(set(written)) < len(written) or read & set(written):
        raise WorkbenchError("one file for two things", "the data, --clean, --out, --report and --ranking apart",
                             "choose other names")  # fmt: skip


def _model(asked: Asked, vectors: list[PersonaVector]) -> Model:
    from workbench.base.settings import setting
    from workbench.models.loading import load_model

    described = vectors[0].model
    name = str(setting("model", asked.model) or described.get("name") or DEFAULT_MODEL)
    dtype, device = str(setting("dtype", asked.dtype) or "float32"), setting("device", asked.device)
    placed: dict[str, Any] = {"device_map": "auto"} if device == "auto" else {"device": device}
    return load_model(name, dtype=dtype, max_memory=setting("max_memory", asked.max_memory), **placed)


def _sae(asked: Asked, model: Model, vectors: list[PersonaVector]) -> tuple[Any, Any]:
    """(the SAE, its site), or (None, None) where none reads the model, or not where the vectors are."""
    from workbench.saes.registry import load_sae

    from ..console import note
    from ..inputs import find_sae, has_sae

    if asked.sae is None and not has_sae(model.name):
        return None, None
    site = find_sae(asked.sae, model.name)
    sae = load_sae(site.reference)
    if asked.sae is None and not all(sae.hook in vector.hooks for vector in vectors):
        note(f"no features: the SAE {site.id} does not stand where the vectors do")
        return None, None
    return sae, site


def _placebos(asked: Asked, model: Model, vectors: list[PersonaVector]) -> PlaceboVectors | None:
    from workbench.base.runs import default_run_folder
    from workbench.personas.placebos import PlaceboVectors

    from ..inputs import placebos_hash

    place = asked.placebos or default_run_folder("placebos", model.name)
    if placebos_hash(place) is None:
        if asked.placebos is not None:
            raise WorkbenchError(f"{place} holds no placebo vectors", "a folder that `workbench extract --all` made",
                                 "leave --placebos out, or make them")  # fmt: skip
        return None
    found = PlaceboVectors.load(place)
    fits = found.model.get("weights_hash") == model.weights_hash and all(vector.hook in found.hooks for vector in vectors)
    if asked.placebos is not None and not fits:
        raise WorkbenchError(f"the placebos in {place} are of {found.model.get('name')}, or not where the vectors are",
                             "placebos of the vectors' model and hook points", "name their folder with --placebos")  # fmt: skip
    return found if fits else None


def _scored(
    asked: Asked, data: DataFile, model: Model, vectors: list[PersonaVector], sae: Any, placebos: PlaceboVectors | None,
    folder: Path | None,
) -> DataScores:  # fmt: skip
    from workbench.base.runs import MANIFEST, read_manifest
    from workbench.steering.screen.scoring import score_samples, screening_key

    options = asked.options()
    key = screening_key(data, model, vectors, sae=sae, placebos=placebos, options=options)
    place = folder or OUT / f"{_plain(data.path.stem)}-{key[:12]}"
    if not asked.resume and read_manifest(place / MANIFEST).get("screen", {}).get("key") == key:  # nobody else's scores
        for part in place.iterdir():
            if part.is_dir() and (part.name == "scores" or part.name.startswith("own-")):
                shutil.rmtree(part)
    return score_samples(data, model, vectors, folder=place, sae=sae, placebos=placebos, options=options)


def _plain(name: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name).lstrip("._-")[:60] or "data"


def planned(asked: Asked) -> dict[str, Any]:
    """The plan: the file is counted, nothing is loaded."""
    from workbench.steering.screen.files import DataFile

    from ..plan import BASE_GIB, BATCH_GIB, counted_sampling, size_scale
    from ..short_plans import IMPORT_SECONDS, short_plan, step

    _refuse(asked)
    places = asked.vector_places()
    name = str(asked.model or DEFAULT_MODEL)
    scale, steps = size_scale(name), [step("start, load the model, the SAE and the vectors", 3 * IMPORT_SECONDS)]
    files = [DataFile.open(path) for path in (asked.data, asked.clean) if path is not None]
    for file in files:
        n_tokens = min(file.path.stat().st_size / 4, file.n_lines * asked.max_tokens)
        reading = None if scale is None else scale * READ_SHARE * n_tokens / 1000
        steps.append(step(f"read {file.n_lines:,} lines of {file.path.name} (some {n_tokens:,.0f} tokens)", reading))
        if asked.against == "own":
            sampled = counted_sampling([file.n_lines], asked.batch_size or 32, asked.own_tokens, scale)
            steps.append(step(f"at most {file.n_lines:,} own replies, one per distinct prompt", sampled["seconds"]))
    named = " and ".join(file.path.name for file in files)
    what = f"{named} along {len(places)} vector{'s' if len(places) > 1 else ''}"
    size = sum(file.n_lines for file in files) * 8 / 1024
    return short_plan(what, steps, asked.folder or OUT, memory_gib=BASE_GIB + BATCH_GIB, disk_mib=size)
