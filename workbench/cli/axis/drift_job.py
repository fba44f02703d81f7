"""What `workbench axis drift` does: play or read conversations, measure, and write the page; and what it would take."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError

from ..options import DEFAULT_MODEL

if TYPE_CHECKING:
    from workbench.axis.drift.conversation import Conversation
    from workbench.axis.drift.playing import UserSide
    from workbench.axis.drift.result import DriftStudy
    from workbench.axis.scripts import Script
    from workbench.models.model import Model
    from workbench.personas.placebos import PlaceboVectors
    from workbench.personas.vectors import PersonaVector

EMOTIONAL = ("therapy", "philosophy")
TURN_TOKENS = 40  # of a user's message with the template around it


@dataclass(frozen=True)
class Said:
    """What the command was told."""

    axis: str
    scripts: tuple[str, ...]
    transcripts: Path | None
    system: tuple[Path, ...]
    levels: bool
    conversations: int
    turns: int
    context: int
    endpoint: str | None
    endpoint_model: str | None
    endpoint_url: str | None
    explain: bool
    predict: bool
    alarm: bool
    placebos: Path | None
    sae: str | None
    hook: str | None
    model: str | None
    max_new_tokens: int | None
    batch_size: int | None
    out: Path | None
    dtype: str | None
    device: str | None
    max_memory: str | None
    seed: int

    def check(self) -> None:
        """Refuse options that contradict each other, before anything is loaded."""
        played = {"--scripts": self.scripts, "--system": self.system, "--levels": self.levels, "--endpoint": self.endpoint,
                  "--alarm": self.alarm}  # fmt: skip
        if self.transcripts is not None and (also := [name for name, given in played.items() if given]):
            raise WorkbenchError(f"--transcripts with {', '.join(also)}", "conversations that are read, or conversations to play",
                                 "leave one of the two out")  # fmt: skip
        if self.alarm and self.turns < 3:
            raise WorkbenchError(f"--alarm with {self.turns} turns", "at least 3: eight conversations set its threshold",
                                 "play longer conversations")  # fmt: skip
        if self.levels and self.system:
            raise WorkbenchError("--levels with --system", "one of the two", "the four levels bring their own system prompts")
        if self.endpoint is None and (self.endpoint_model or self.endpoint_url):
            raise WorkbenchError("--endpoint-model or --endpoint-url without --endpoint", "openai or anthropic",
                                 "say which with --endpoint")  # fmt: skip

    def folder(self) -> Path:
        """Where everything goes: beside the axis' own vector, or in a folder of its own."""
        if self.out is not None:
            return self.out
        run = Path(self.axis)
        return run / "drift" if (run / "vector").is_dir() else Path("runs") / f"drift-{run.stem}"

    def vector(self) -> PersonaVector:
        """The axis."""
        from ..studies.falsify_job import read_vector

        return read_vector(self.axis, model=self.model, hook=self.hook, sae=self.sae)

    def load(self, described: dict[str, Any]) -> Model:
        """The model that the axis is of, or the one that was named."""
        from workbench.base.settings import setting
        from workbench.models.loading import load_model

        name = self.model_name(described)
        dtype = str(setting("dtype", self.dtype) or described.get("dtype") or "float32")
        device = setting("device", self.device)
        placed: dict[str, Any] = {"device_map": "auto"} if device == "auto" else {"device": device}
        return load_model(name, dtype=dtype, max_memory=setting("max_memory", self.max_memory), **placed)

    def model_name(self, described: dict[str, Any]) -> str:
        """The model's name."""
        from workbench.base.settings import setting

        return str(setting("model", self.model) or described.get("name") or DEFAULT_MODEL)

    def chosen(self, split: str = "evaluation") -> tuple[Script, ...]:
        """The scripts of a split: so many of every domain, in order."""
        from workbench.axis.drift.own_scripts import read_scripts
        from workbench.axis.scripts import DOMAINS, load_scripts

        found: list[Script] = []
        for name in self.scripts or (EMOTIONAL if self.levels else DOMAINS):
            own = read_scripts(name) if Path(name).is_file() else load_scripts(name, split=split)
            for domain in dict.fromkeys(one.domain for one in own):
                found += [one for one in own if (one.domain, one.split) == (domain, split)][: self.conversations]
        return tuple(found)

    def personas(self) -> list[tuple[str, str]]:
        """(name, system prompt) of the personas; one without a name for none."""
        if self.levels:
            from workbench.axis.roles import gardener_levels

            return [(one.name, one.prompts[0]) for one in gardener_levels()]
        from workbench.base.store import read_text

        return [(path.stem, read_text(path).strip()) for path in self.system] or [("", "")]

    def user(self, scripts: tuple[Script, ...]) -> UserSide:
        """Who speaks to the model."""
        from workbench.axis.drift.playing import scripted

        if self.endpoint is None:
            return scripted(scripts)
        from workbench.axis.drift.users import EndpointUser
        from workbench.models.endpoints import ChatEndpoint, EndpointConfig

        config = EndpointConfig.from_settings(model=self.endpoint_model, base_url=self.endpoint_url, dialect=self.endpoint)
        opening = {name: messages[:1] for name, messages in scripted(scripts).messages.items()}
        return EndpointUser(ChatEndpoint(config), first=type(scripted(scripts))(opening))


def made(said: Said) -> dict[str, Any]:
    """Play or read, measure, save study and page."""
    from workbench.axis.drift.study import drift_study
    from workbench.reports.axis.drift_page import Findings, headline, save

    said.check()
    axis, folder = said.vector(), said.folder()
    model = said.load(axis.model)
    talks, placebos = _conversations(said, model, folder), _placebos(said, model)
    grouping: dict[str, Any] = {"by": lambda one: f"{one.domain}, {one.persona}"} if len(said.personas()) > 1 else {}
    if grouping:
        first = said.personas()[0][0]  # within a domain every persona is compared with the first one
        grouping["reference"] = {f"{one.domain}, {one.persona}": f"{one.domain}, {first}" for one in talks}
    study = drift_study(model, axis, talks, folder / "readings", placebos=placebos, roles=_roles(said, axis), seed=said.seed,
                        **grouping)  # fmt: skip
    study.save(folder / "study")
    moved, alone = _moved(said, model, axis, study, placebos, grouping) if said.explain else ([], {})
    prediction = _prediction(study, said.seed, grouping) if said.predict else {}
    alarm = _alarm(said, model, axis, study, folder) if said.alarm else None
    page = save(study, folder / "drift.html", Findings(moved, prediction, alarm, alone))
    told = None if alarm is None else {**alarm.to_json(), "monitor": str(folder / "monitor")}
    apart = {name: one.to_json() for name, one in alone.items()}
    return {**study.to_json(), "headline": headline(study), "moved": [one.to_json() for one in moved], "of_conversation": apart,
            "prediction": prediction, "alarm": told, "folder": str(folder), "page": str(page)}  # fmt: skip


def _conversations(said: Said, model: Model, folder: Path, split: str = "evaluation") -> list[Conversation]:
    if said.transcripts is not None:
        return _read(said.transcripts, model, said.context)
    scripts = said.chosen(split)
    return _played(said, model, folder, scripts, said.personas())


def _played(
    said: Said, model: Model, folder: Path, scripts: tuple[Script, ...], personas: list[tuple[str, str]]
) -> list[Conversation]:
    from dataclasses import replace

    from workbench.axis.drift.playing import SAMPLING, play_scripts

    if not scripts:
        raise WorkbenchError("no script of that split", "scripts for evaluation (and, for an alarm, for calibration)",
                             "name other scripts")  # fmt: skip
    sampling = SAMPLING if said.max_new_tokens is None else replace(SAMPLING, max_new_tokens=said.max_new_tokens)
    return list(play_scripts(
        model, scripts, folder / "replies", personas=personas, user=said.user(scripts), n_turns=said.turns, sampling=sampling,
        max_context=said.context, batch_size=said.batch_size or 32, seed=said.seed,
    ))  # fmt: skip


def _read(path: Path, model: Model, context: int) -> list[Conversation]:
    """The transcripts of a file or folder, each under a name of its own."""
    from workbench.axis.drift.conversation import from_messages
    from workbench.steering.monitor.chats import read_chats

    found, names = [], Counter[str]()
    for number, chat in enumerate(read_chats(path), start=1):
        name = f"{chat.get('id', Path(chat['source']).stem)}" if "id" in chat or path.is_dir() else f"transcript {number}"
        names[name] += 1
        name += f" ({names[name]})" if names[name] > 1 else ""  # files of one name in several folders, entries of one file
        facts = {key: str(chat.get(key) or "") for key in ("domain", "topic", "persona")}
        try:
            found.append(from_messages(model, chat["messages"], name=name, max_context=context, **facts))
        except WorkbenchError as error:
            raise WorkbenchError(f"{chat['source']}: {error.found}", error.expected, error.remedy) from error
    return found


def _placebos(said: Said, model: Model) -> PlaceboVectors | None:
    from workbench.base.runs import default_run_folder
    from workbench.personas.placebos import PlaceboVectors

    place = said.placebos or default_run_folder("placebos", model.name)
    if said.placebos is None and not (place / "placebo_vectors.json").is_file():
        return None
    found = PlaceboVectors.load(place)
    if found.model.get("weights_hash") != model.weights_hash:
        raise WorkbenchError(f"the placebos in {place} are of {found.model.get('name')}", f"placebos of {model.name}",
                             "name their folder with --placebos")  # fmt: skip
    return found


def _roles(said: Said, axis: PersonaVector) -> Any:
    """The role vectors beside the axis, where there are some with its hook point."""
    place = Path(said.axis) / "roles"
    if not place.is_dir():
        return None
    from workbench.axis.space.role_vectors import RoleVectors

    found = RoleVectors.load(place)
    return found if axis.hook in found.hooks else None


def _moved(
    said: Said, model: Model, axis: PersonaVector, study: DriftStudy, placebos: PlaceboVectors | None, grouping: dict[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """What moved in every group, and in each of the conversations that the page shows."""
    from dataclasses import replace

    from workbench.axis.drift.attribution import WHAT, read_codes, what_moved
    from workbench.axis.drift.study import domain_of
    from workbench.labeling.files.store import load_labels
    from workbench.reports.axis.drift_page import furthest
    from workbench.saes.registry import load_sae

    from ..inputs import find_sae

    site, by = find_sae(said.sae, model.name), grouping.get("by", domain_of)
    sae = replace(load_sae(site.reference), id=site.id)
    labels = load_labels(sae.id, sae_hash=sae.weights_hash)
    codes = read_codes(model, axis, study.conversations, sae)
    groups: dict[str, list[int]] = {}
    for row, one in enumerate(study.conversations):
        if len(one.turns) > 1:
            groups.setdefault(by(one), []).append(row)
    options: dict[str, Any] = {"placebos": placebos, "labels": labels, "seed": said.seed}
    found = [what_moved(codes, what=what, group=name, members=rows, **options) for name, rows in groups.items() for what in WHAT]
    place = {one.id: row for row, one in enumerate(study.conversations) if len(one.turns) > 1}
    alone = {name: what_moved(codes, group=name, members=[place[name]], **options) for name in furthest(study) if name in place}
    return found, alone


def _prediction(study: DriftStudy, seed: int, grouping: dict[str, Any]) -> dict[str, Any]:
    from workbench.axis.drift.prediction import predict_positions
    from workbench.axis.drift.study import domain_of

    return predict_positions(study, by=grouping.get("by", domain_of), seed=seed)


def _alarm(said: Said, model: Model, axis: PersonaVector, study: DriftStudy, folder: Path) -> Any:
    from workbench.axis.drift.alarm import QUIET, drift_alarm
    from workbench.axis.drift.study import drift_study
    from workbench.axis.scripts import load_scripts

    scripts = load_scripts(*QUIET, split="calibration")
    ordinary = _played(said, model, folder, scripts, [("", "")])
    calibration = drift_study(model, axis, ordinary, folder / "readings", contexts=("history", "alone"), seed=said.seed)
    found = drift_alarm(calibration, study, seed=said.seed)
    found.save_monitor(model, axis, folder / "monitor")
    return found


def plan(said: Said) -> dict[str, Any]:
    """What it would take, roughly."""
    from ..plan import BASE_GIB, BATCH_GIB, FORWARD_TOKENS_PER_SECOND, SAMPLED_TOKENS_PER_SECOND, size_scale
    from ..short_plans import IMPORT_SECONDS, short_plan, step

    said.check()
    axis = said.vector()
    scale = size_scale(said.model_name(axis.model))
    longest, kept = said.max_new_tokens or 64, len(list((said.folder() / "replies" / "rollouts").glob("part-*.parquet")))
    steps = [step("start, load the model", 3 * IMPORT_SECONDS)]
    if said.transcripts is not None:
        from workbench.steering.monitor.chats import read_chats

        lengths = [len(chat["messages"]) // 2 for chat in read_chats(said.transcripts)]
    else:
        lengths = [min(said.turns, len(one.turns)) for one in said.chosen() for _ in said.personas()]
        n = sum(lengths)
        whole = sum((TURN_TOKENS + longest) * k * (k + 1) / 2 for k in lengths)
        seconds = n * longest / SAMPLED_TOKENS_PER_SECOND + whole / FORWARD_TOKENS_PER_SECOND
        there = f" ({kept} batches are there)" if kept else ""
        steps.append(step(f"{n:,} replies in {len(lengths):,} conversations{there}", scale and scale * seconds))
    read = sum((TURN_TOKENS + longest) * (2 * k + k * (k + 1)) for k in lengths)
    steps.append(step(f"read every reply in four contexts, {read:,} tokens", scale and scale * read / FORWARD_TOKENS_PER_SECOND))
    if said.explain:
        again = sum((TURN_TOKENS + longest) * 2 * k for k in lengths)
        steps.append(step("read again on the SAE", scale and scale * again / FORWARD_TOKENS_PER_SECOND))
    return short_plan(f"drift along {axis.trait}", steps, said.folder(), memory_gib=BASE_GIB + BATCH_GIB,
                      disk_mib=2 + sum(lengths) * axis.d_model * 16 / 2**20)  # fmt: skip
