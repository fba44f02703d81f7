"""`workbench diff`: what did a fine-tune install, along persona vectors and features?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.base.errors import WorkbenchError

from ..options import (
    DeviceOption,
    DtypeOption,
    JsonOption,
    MaxMemoryOption,
    PlanOption,
    QuietOption,
    SaeOption,
    SeedOption,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.personas.placebos import PlaceboVectors
    from workbench.personas.vectors import PersonaVector
    from workbench.steering.diff.texts import Prompt

RESULT, FIGURE = "diff.json", "diff.svg"
N_FEATURES = 10


def command(
    before: Annotated[str, typer.Argument(metavar="BEFORE", help="The model before: name, folder, GGUF file or hub id.")],
    after: Annotated[str, typer.Argument(metavar="AFTER", help="The model after, or the folder of a PEFT adapter of BEFORE.")],
    vectors: Annotated[
        list[Path] | None,
        typer.Option("--vectors", help="A run folder, or a folder of runs; again for more. [default: runs/*-BEFORE]"),
    ] = None,
    placebos: Annotated[
        Path | None,
        typer.Option("--placebos", help="Folder of placebo contrasts. [default: runs/placebos-BEFORE, if it is there]"),
    ] = None,
    sae: SaeOption = None,
    prompts: Annotated[
        Path | None,
        typer.Option("--prompts", help="A question a line, or chats as JSONL. [default: the traits' verification questions]"),
    ] = None,
    unrelated: Annotated[
        Path | None,
        typer.Option("--unrelated", help="Text (blank lines between documents) or JSONL. [default: the package's own]"),
    ] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Longest reply and longest text that is read.")] = 64,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the result. [default: runs/diff-<AFTER>-<BEFORE>]")] = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    max_memory: MaxMemoryOption = None,
    seed: SeedOption = None,
    plan: PlanOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """What did a fine-tune install?

    Both models read the same tokens. Their difference is measured along every persona vector and every feature.

    Shifts stand beside those along placebo contrasts and random directions; without prompts of yours, the replies are those of
    the model before. The last prompt token is the main place; reply, first tokens of unrelated text, and unrelated text stand
    beside it.
    """
    from ..console import emit, reserved_output

    job = _Job(before, after, tuple(vectors or ()), placebos, sae, prompts, unrelated, max_tokens, out, dtype, device, max_memory,
               seed or 0)  # fmt: skip
    with reserved_output(as_json, quiet):
        value = job.plan() if plan else job.made()
    emit(value, as_json=as_json, show=lambda: _show(value))


@dataclass(frozen=True)
class _Job:
    """What the flags describe."""

    before: str
    after: str
    vectors: tuple[Path, ...]
    placebos: Path | None
    sae: str | None
    prompts: Path | None
    unrelated: Path | None
    max_tokens: int
    out: Path | None
    dtype: str | None
    device: str | None
    max_memory: str | None
    seed: int

    @property
    def folder(self) -> Path:
        """Where the result goes."""
        from workbench.base.runs import default_run_folder

        return self.out or default_run_folder(f"diff-{Path(self.after).name}", self.before)

    @property
    def adapter(self) -> Path | None:
        """AFTER where it is an adapter's folder."""
        place = Path(self.after).expanduser()
        return place if (place / "adapter_config.json").is_file() else None

    def vector_folders(self) -> list[Path]:
        """The folders that hold a vector, each once; WorkbenchError where there is none."""
        roots = self.vectors or (Path("runs"),)
        pattern = "*/vector" if self.vectors else f"*-{Path(self.before).name}/vector"
        found = [place for root in roots for place in (root, root / "vector", *sorted(root.glob(pattern)))]
        held = list(dict.fromkeys(place for place in found if (place / "persona_vector.json").is_file()))
        if not held:
            raise WorkbenchError(
                f"no persona vector in {', '.join(map(str, roots))}",
                "run folders with a vector",
                f"extract some first (workbench extract --all --model {self.before}), or name them with --vectors",
            )
        return held

    def questions(self, traits: Sequence[str]) -> list[Prompt | str]:
        """The prompts of the user, or the verification questions of the traits."""
        from workbench.personas.traits import list_traits, load_trait
        from workbench.steering.diff.texts import read_prompts

        if self.prompts is not None:
            return [*read_prompts(self.prompts)]
        known = set(list_traits())
        return [one.text for trait in traits if trait in known for one in load_trait(trait).questions_of("verification")]

    def plan(self) -> dict[str, Any]:
        """The steps, with times from the default model's speeds; nothing is loaded."""
        from ..plan import BASE_GIB, BATCH_GIB, counted_reading, counted_sampling, size_scale
        from ..short_plans import IMPORT_SECONDS, short_plan, step

        n = len(self.questions([place.parent.name.split("-")[0] for place in self.vector_folders()]))
        scale = size_scale(self.before)
        sampled, read = counted_sampling([n], 32, self.max_tokens, scale), counted_reading(2 * n, self.max_tokens, scale)
        steps = [
            step("start, load the models", 3 * IMPORT_SECONDS),
            step(f"at most {n} replies of the model before", sampled["seconds"]),
            step("read by the model before", read["seconds"]),
            step("read by the model after", read["seconds"]),
            step("features, nulls, intervals", 4 * IMPORT_SECONDS),
        ]
        weights = BASE_GIB + BATCH_GIB
        return short_plan(f"{self.before} against {self.after}", steps, self.folder, memory_gib=weights, disk_mib=1)

    def made(self) -> dict[str, Any]:
        """The result, kept in the folder as long as what it was made from stays."""
        from workbench.base.store import sha256_file

        from ..inputs import folder_hash, labels_hash, model_identity, placebos_hash
        from ..remembered import remembered

        folders, site, place = self.vector_folders(), self._site(), self._placebos()
        after = {"adapter": folder_hash(self.adapter)} if self.adapter else model_identity(self.after)
        texts = [one and sha256_file(one) for one in (self.prompts, self.unrelated)]
        sources = {"before": model_identity(self.before), "after": after, "vectors": [folder_hash(one) for one in folders],
                   "placebos": place and placebos_hash(place), "sae": site and site.sha256,
                   "labels": site and labels_hash(site.id), "texts": texts, "seed": self.seed, "max_tokens": self.max_tokens,
                   "dtype": self.dtype}  # fmt: skip
        value = remembered(self.folder / RESULT, sources, lambda: self._diff(folders, place, site))
        return {**value, "folder": str(self.folder), "figure": str(self.folder / FIGURE)}

    def _diff(self, folders: Sequence[Path], place: Path | None, site: Any) -> dict[str, Any]:
        from functools import partial

        from workbench.labeling.files.store import load_labels
        from workbench.models.loading import load_model
        from workbench.personas.vectors import PersonaVector
        from workbench.reports.steering.diff import diff_figure
        from workbench.saes.registry import load_sae
        from workbench.steering.diff.diff import DiffOptions, diff

        vectors = [PersonaVector.load(folder) for folder in folders]
        loading: dict[str, Any] = {"dtype": self.dtype or "float32", "device": self.device, "max_memory": self.max_memory}
        after = partial(load_model, self.before, adapter=self.adapter, **loading) if self.adapter else self.after
        sae = load_sae(site.reference) if site else None
        labels = load_labels(site.id, sae_hash=sae.weights_hash) if sae else None
        found = diff(
            self.before, after, vectors, sae, self.questions([vector.trait for vector in vectors]), unrelated=self._documents(),
            placebos=_placebos_of(place, vectors), labels=labels,
            options=DiffOptions(max_tokens=self.max_tokens, seed=self.seed), **loading,
        )  # fmt: skip
        diff_figure(found).save(self.folder / FIGURE)
        return found.to_json()

    def _documents(self) -> list[str] | None:
        from workbench.saes.corpus import text_file

        return None if self.unrelated is None else [document.text for document in text_file(self.unrelated)]

    def _placebos(self) -> Path | None:
        from workbench.base.runs import default_run_folder

        from ..inputs import placebos_hash

        place = self.placebos or default_run_folder("placebos", self.before)
        if placebos_hash(place) is not None:
            return place
        if self.placebos is not None:
            raise WorkbenchError(f"{place} holds no placebo vectors", "a folder that `workbench extract --all` made",
                                 "leave --placebos out, or make them")  # fmt: skip
        return None

    def _site(self) -> Any:
        from ..inputs import find_sae, has_sae

        return find_sae(self.sae, self.before) if self.sae or has_sae(self.before) else None


def _placebos_of(place: Path | None, vectors: Sequence[PersonaVector]) -> PlaceboVectors | None:
    """The placebos of the vectors' own model; those of another one are no null for them."""
    from workbench.personas.placebos import PlaceboVectors

    if place is None:
        return None
    found = PlaceboVectors.load(place)
    own = {vector.model.get("weights_hash") for vector in vectors}
    if found.model.get("weights_hash") not in own:
        raise WorkbenchError(f"the placebos in {place} are of {found.model.get('name')}, the vectors of another model",
                             "placebos of the vectors' model", "name their folder with --placebos")  # fmt: skip
    return found


def _show(value: dict[str, Any]) -> None:
    from ..console import interval, say, signed, table
    from ..short_plans import show_short_plan

    if "steps" in value:
        return show_short_plan(value)
    say(value["sentence"])
    main = next(iter(value["n_texts"]))
    for place in value["n_texts"]:
        rows = sorted((row for row in value["shifts"] if row["place"] == place), key=lambda row: -row["z"])
        limits = [row for row in rows if place == main or row["installed"]] or rows[:1]
        cells = [(row["trait"], signed(row["shift"]), interval(row["interval"]), signed(row["z"], 2), f"{_limit(row):.2f}",
                  f"{row['p']:.3g}", row["installed"]) for row in limits]  # fmt: skip
        columns = ("trait", "shift, norms", "95% interval", "z", "limit of the nulls", "p", "installed")
        table(f"{_TITLES[place]} ({value['n_texts'][place]} texts, moved by {value['sizes'][place]:.2f} norms)", columns, cells,
              right=(1, 3, 4, 5))  # fmt: skip
    _show_features(value, main)
    if value["lens"] and value["lens"]["promoted"]:
        say(f"the difference on unrelated text makes likelier: {' '.join(map(repr, value['lens']['promoted'][:10]))}")
    for warning in value["warnings"]:
        say(f"note: {warning}")
    say(f"figure: {value['figure']}")


_TITLES = {
    "prompt": "Last prompt token", "reply": "Over the reply", "opening": "First tokens of unrelated text (the lens)",
    "unrelated": "Over unrelated text",
}  # fmt: skip


def _limit(row: dict[str, Any]) -> float:
    return max(row["random_limit"], row["placebo_limit"] or 0.0)


def _show_features(value: dict[str, Any], main: str) -> None:
    from ..console import interval, percent, say, signed, table

    found = value["installed"].get("reply") or value["installed"].get(main)
    if not found or not found["features"]:
        return
    rows = [(row["feature"], row["label"], signed(row["change"], 2), percent(row["share"]),
             interval(row["interval"]), "-" if row["q"] is None else f"{row['q']:.2g}")
            for row in found["features"][:N_FEATURES]]  # fmt: skip
    columns = ("feature", "label", "change of its mean activation", "share of the shift", "95% interval", "q")
    table(f"{_TITLES[found['place']]}: what was installed", columns, rows, right=(0, 2, 3, 5))
    say(f"{found['n_changed']} of {found['n_active']} features change at q .05; they all make {percent(found['shares_total'])} "
        f"of the shift, the SAE's error {percent(found['error'])} {interval(found['error_interval'])}")  # fmt: skip
