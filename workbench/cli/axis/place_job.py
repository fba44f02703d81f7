"""What `workbench axis place` does: read the map, place the prompt, write the page; and what that would take."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.runs import default_run_folder

from ..options import DEFAULT_MODEL, JobFlags

if TYPE_CHECKING:
    from workbench.axis.design.answers import PlaceDesign
    from workbench.saes.interface import SparseAutoencoder

    from ..config import JobConfig

N_SHOWN = 5
TURNS, TURN_TOKENS = 6, 40


@dataclass(frozen=True)
class Asked:
    """What the command was told."""

    run: Path | None
    prompt: str | None
    named: str | None
    expect: str | None
    questions: int
    conversations: int
    pieces: int
    traits: Path | None
    placebos: Path | None
    sae: str | None
    generate_with: str | None
    generate_model: str | None
    model: str | None
    max_new_tokens: int | None
    batch_size: int | None
    out: Path | None
    dtype: str | None
    device: str | None
    max_memory: str | None
    seed: int

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.run or default_run_folder("axis", self.model or DEFAULT_MODEL)

    @property
    def name(self) -> str:
        """What the prompt is called; names its folder."""
        return self.named or Path(self.prompt or "prompt").stem

    @property
    def place(self) -> Path:
        """Where everything goes."""
        return self.out or self.folder / "place" / self.name

    def text(self) -> str:
        """The system prompt: of the file, or of the level of the Gardener."""
        from workbench.axis.roles import gardener_levels
        from workbench.base.store import read_text

        levels = {one.name: one.prompts[0] for one in gardener_levels()}
        if self.prompt is None:
            raise WorkbenchError("no system prompt", "a file with --system-prompt", f"or one of {', '.join(levels)}")
        if Path(self.prompt).is_file():
            return read_text(self.prompt).strip()
        if self.prompt not in levels:
            raise unknown_name("file or shipped persona", self.prompt, levels)
        return levels[self.prompt]

    def expected(self) -> tuple[str, ...]:
        """The characters named with --expect."""
        return tuple(name.strip() for name in (self.expect or "").split(",") if name.strip())

    def design(self) -> PlaceDesign:
        """How much is sampled."""
        from workbench.axis.design.answers import PlaceDesign

        made = PlaceDesign(n_questions=self.questions, conversations=self.conversations, most_pieces=self.pieces)
        longest = self.max_new_tokens or made.sampling.max_new_tokens
        sampling = replace(made.sampling, max_new_tokens=longest)
        return replace(made, sampling=sampling, batch_size=self.batch_size or made.batch_size)

    def config(self, described: dict[str, Any]) -> JobConfig:
        """The settings that are shared with the other commands; the model is the run's own unless another is named."""
        model, dtype = self.model or str(described.get("name") or DEFAULT_MODEL), self.dtype or described.get("dtype")
        flags = JobFlags(
            model=model, seed=self.seed, dtype=dtype, batch_size=self.batch_size, device=self.device, max_memory=self.max_memory,
            generate_with=self.generate_with, generate_model=self.generate_model,
        )  # fmt: skip
        return flags.job("axis")


def made(asked: Asked) -> dict[str, Any]:
    """Place the prompt and write its page."""
    from workbench.axis.design.place import PLACES, place
    from workbench.axis.space.mapping import read_role_vectors
    from workbench.base.runs import RunFolder
    from workbench.labeling.files.store import load_labels
    from workbench.models.loading import load_model
    from workbench.reports.axis.design import save

    from . import map_job

    prompt, expected, design, vectors = asked.text(), asked.expected(), asked.design(), read_role_vectors(asked.folder)
    _check_expected(expected, vectors.names)
    beside = map_job.Asked(asked.folder, None, None, asked.traits, asked.placebos, None, 0, asked.seed)
    traits, placebos = map_job.traits_beside(beside, vectors), map_job.placebos_beside(beside, vectors)
    config = asked.config(vectors.model)
    placed: dict[str, Any] = {"device_map": "auto"} if config.device == "auto" else {"device": config.device}
    model = load_model(config.model, dtype=config.dtype, max_memory=config.memory_budget, **placed)
    sae = _sae(asked.sae, model.name, [str(hook) for hook in vectors.hooks])
    labels = load_labels(sae.id, sae_hash=sae.weights_hash) if sae else None
    with RunFolder.open(asked.out or asked.folder / PLACES):  # the answers of all prompts lie together
        found = place(
            model, prompt, asked.folder, name=asked.name, folder=asked.out, design=design, traits=traits, placebos=placebos,
            sae=sae, labels=labels, expected=expected, seed=config.seed, server=config.server,
        )  # fmt: skip
    page = save(found, asked.place / "place.html")
    value = found.to_json()
    return {**value, "nearest": found.nearest, "axis_position": found.position, "drift_risk": drift_risk(value),
            "folder": str(asked.place), "page": str(page)}  # fmt: skip


def drift_risk(value: dict[str, Any]) -> dict[str, list[float | None]]:
    """{domain: [drift per turn, low, high]} in norms."""
    told = {}
    for domain, effects in value["drift"].get("domains", {}).items():
        if (one := effects.get("drift_per_turn")) is not None:
            told[domain] = [one["value"], *(one["interval"] or (None, None))]
    return told


def _check_expected(expected: tuple[str, ...], names: tuple[str, ...]) -> None:
    from workbench.axis.roles import role_names

    known = dict.fromkeys([*names, *role_names()])
    for name in expected:
        if name not in known:
            raise unknown_name("character", name, known)


def _sae(reference: str | None, model: str, hooks: list[str]) -> SparseAutoencoder | None:
    """The SAE that was named, else the one of the shelf; None where there is none at a hook of the role vectors."""
    from workbench.saes.registry import load_sae

    from ..inputs import find_sae, has_sae

    if reference is None and not has_sae(model):
        return None
    site = find_sae(reference, model)
    sae = replace(load_sae(site.reference), id=site.id)
    if str(sae.hook) in hooks:
        return sae
    if reference is not None:
        raise WorkbenchError(f"{sae.id} reads {sae.hook}", "an SAE at a hook point of the run", "name another with --sae")
    return None


def planned(asked: Asked) -> dict[str, Any]:
    """The plan: how many answers and conversations, and about how long; no tensors are read."""
    from workbench.axis.design.sentences import pieces
    from workbench.axis.scripts import steadying_sentences
    from workbench.axis.space.mapping import ROLES
    from workbench.base.store import read_json

    from ..plan import (
        BASE_GIB,
        BATCH_GIB,
        FORWARD_TOKENS_PER_SECOND,
        SAMPLED_TOKENS_PER_SECOND,
        counted_sampling,
        size_scale,
    )
    from ..short_plans import CHECK_SECONDS, IMPORT_SECONDS, short_plan, step

    document = asked.folder / ROLES / "role_vectors.json"
    if not document.is_file():
        raise WorkbenchError(f"{asked.folder} holds no role vectors", "the run folder of `workbench axis roles`",
                             "make them first: workbench axis roles --model MODEL")  # fmt: skip
    told, design, text = read_json(document), asked.design(), asked.text()
    _check_expected(asked.expected(), tuple(told["names"]))
    n_default, parts, tried = 5, len(pieces(text, design.most_pieces)), len(steadying_sentences())
    counts = {
        "the prompt and the default assistant": (1 + n_default) * design.n_questions,
        f"without each of {parts} pieces": parts * design.n_questions if parts > 1 else 0,
        f"with each of {tried} sentences more": (1 + tried) * design.n_choosing + design.n_questions,
    }
    scale, longest = size_scale(asked.config(told["model"]).model), design.sampling.max_new_tokens
    costs = {what: counted_sampling([n * design.n_samples], design.batch_size, longest, scale) for what, n in counts.items()}
    steps = [step("start, load", 3 * IMPORT_SECONDS)]
    for what, one in costs.items():
        if counts[what]:
            steps.append(step(f"{counts[what] * design.n_samples:,} answers: {what}", one["seconds"]))
    if design.conversations:
        n = 2 * 2 * design.conversations * TURNS
        read = 4 * (TURN_TOKENS + longest + len(text) // 4) * TURNS / 2 / FORWARD_TOKENS_PER_SECOND
        each = longest / SAMPLED_TOKENS_PER_SECOND + read
        steps.append(step(f"{n:,} replies in conversations, each read in four contexts", scale and round(scale * n * each, 1)))
    steps.append(step("decompose, compare, the page", CHECK_SECONDS))
    n_rows = sum(counts.values()) * design.n_samples
    disk = 2 + n_rows * len(told["hooks"]) * 2e-3
    return short_plan(f"place {asked.name} among {len(told['names'])} characters", steps, asked.place,
                      memory_gib=BASE_GIB + BATCH_GIB, disk_mib=disk) | {"n_answers": n_rows}  # fmt: skip


def show(value: dict[str, Any]) -> None:
    """A plan, or the placement in words and tables."""
    from ..console import say
    from ..short_plans import show_short_plan

    if "steps" in value:
        show_short_plan(value)
        return
    _show_characters(value)
    _show_traits(value)
    _show_features(value)
    _show_sentences(value)
    say(value["headline"])
    say(f"page: {value['page']}")


def _show_characters(value: dict[str, Any]) -> None:
    from ..console import interval, percent, table

    shown = value["standing"]["nearest"][:N_SHOWN]
    rows = [(one["rank"], one["role"], one["cos"], interval([one["low"], one["high"]], 2), percent(one["nearest_share"]))
            for one in shown]  # fmt: skip
    columns = ("rank", "character", "cosine", "95% interval", "nearest in")
    table(f"Nearest of {value['n_roles']} characters to {value['name']}", columns, rows, right=(0, 2, 4))


def _show_traits(value: dict[str, Any]) -> None:
    from ..console import interval, signed, table

    rows = [(one["trait"], signed(one["shift"], 3), interval([one["low"], one["high"]], 3), one["p"]) for one in value["traits"]]
    if rows:
        columns = ("trait", "shift", "95% interval", "p")
        table("Shift from the default assistant along traits, in norms", columns, rows, right=(1, 3))


def _show_features(value: dict[str, Any]) -> None:
    from ..console import percent, signed, table

    rows = [(one["feature"], percent(one["share"]), signed(one["along_axis"], 3), one["label"] or "-")
            for one in value["features"].get("features", [])[:N_SHOWN]]  # fmt: skip
    if rows:
        table(f"Features on {value['features']['sae']}; the SAE's error is {percent(value['features']['error'])}",
              ("feature", "share", "along the axis", "label"), rows, right=(0, 1, 2))  # fmt: skip


def _show_sentences(value: dict[str, Any]) -> None:
    from ..console import interval, signed, table

    columns = ("what", "moves it by", "95% interval", "p of the family")
    added = value["additions"].get("measured", [])
    for title, rows in (("The prompt's own sentences", value["sentences"]), ("Sentences added", added)):
        told = [(one["name"][:60], signed(one["value"], 2), interval([one["low"], one["high"]], 2), one["p_family"])
                for one in rows]  # fmt: skip
        if told:
            table(f"{title}, along the axis", columns, told, right=(1, 3))
