"""What `workbench monitor` does: watch an answer, read transcripts, or calibrate alarms; and what each would take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError

from ..options import DEFAULT_MODEL

if TYPE_CHECKING:
    from workbench.models.model import Model
    from workbench.models.prompts import ChatTokens
    from workbench.personas.vectors import PersonaVector
    from workbench.steering.monitor.monitor import Monitor
    from workbench.steering.monitor.watching import AlarmRaised, WatchedReply

MONITOR = "monitor.json"


@dataclass(frozen=True)
class Said:
    """What the command was told."""

    vectors: list[str]
    prompt: str | None
    system: str | None
    transcript: Path | None
    neutral: tuple[Path, ...]
    rate: float
    statistic: str
    window: int
    features: tuple[int, ...]
    sae: str | None
    hook: str | None
    model: str | None
    max_new_tokens: int | None
    log: Path | None
    log_text: bool
    figure: Path | None
    out: Path | None
    dtype: str | None
    device: str | None
    max_memory: str | None
    seed: int
    explain: bool = False

    def saved(self) -> Path | None:
        """The folder of the saved monitor that was named, if one was."""
        found = [name for name in self.vectors if (Path(name) / MONITOR).is_file()]
        if found and (len(self.vectors) > 1 or self.features):
            raise WorkbenchError("a saved monitor beside other things to watch", "the monitor alone",
                                 "make a new one with --calibrate")  # fmt: skip
        return Path(found[0]) if found else None

    def read_vectors(self) -> list[PersonaVector]:
        """The vectors that were named."""
        from ..studies.falsify_job import read_vector

        return [read_vector(name, model=self.model, hook=self.hook, sae=self.sae) for name in self.vectors]

    def load(self, described: dict[str, Any]) -> Model:
        """The model that the vectors are of, or the one that was named."""
        from workbench.base.settings import setting
        from workbench.models.loading import load_model

        name = str(setting("model", self.model) or described.get("name") or DEFAULT_MODEL)
        dtype = str(setting("dtype", self.dtype) or described.get("dtype") or "float32")
        device = setting("device", self.device)
        placed: dict[str, Any] = {"device_map": "auto"} if device == "auto" else {"device": device}
        return load_model(name, dtype=dtype, max_memory=setting("max_memory", self.max_memory), **placed)

    def monitor(self) -> tuple[Monitor, Model, list[PersonaVector]]:
        """The monitor, its model, and the vectors that it is made of (none of a saved one)."""
        from workbench.steering.monitor.monitor import Monitor

        if (folder := self.saved()) is not None:
            monitor = Monitor.load(folder)
            model = self.load(monitor.model)
            monitor.check(model)
            return monitor, model, []
        vectors = self.read_vectors()
        model = self.load(vectors[0].model)
        sae = self.load_sae(model) if self.features else None
        return Monitor.of(model, vectors, sae=sae, features=self.features), model, vectors

    def load_sae(self, model: Model) -> Any:
        """The SAE of the features."""
        from dataclasses import replace

        from workbench.saes.registry import load_sae

        from ..inputs import find_sae

        site = find_sae(self.sae, model.name)
        return replace(load_sae(site.reference), id=site.id)


def watched(said: Said) -> dict[str, Any]:
    """Generate an answer under the monitor."""
    import contextlib

    from workbench.base.settings import setting
    from workbench.models.prompts import tokenize_chat
    from workbench.models.sampling import Sampling
    from workbench.steering.monitor.logs import JsonLines
    from workbench.steering.monitor.streaming import watched_stream

    monitor, model, vectors = said.monitor()
    messages = [{"role": "system", "content": said.system}] if said.system else []
    chat = tokenize_chat(model, [*messages, {"role": "user", "content": str(said.prompt)}], add_generation_prompt=True)
    sampling = Sampling(max_new_tokens=int(setting("max_new_tokens", said.max_new_tokens, 64)))
    replies: list[WatchedReply] = []
    seen, alarms, text = [], [], ""
    with contextlib.ExitStack() as stack:
        lines = None if said.log is None else stack.enter_context(
            JsonLines(said.log, monitor, text=said.log_text, tokenizer=model.tokenizer)
        )  # fmt: skip
        for step in watched_stream(model, monitor, [chat], sampling, row_seeds=[said.seed], on_reply=replies.append):
            text = step.replies[0].text
            seen += step.seen
            alarms += step.alarms
            for token in step.seen:
                if lines is not None:
                    lines.token(token)
        for reply in replies:
            if lines is not None:
                lines.reply(reply)
    return {**_about(monitor), "text": text, **_told(model, monitor, seen, alarms, replies), **_drawn(said, model, replies),
            "reasons": _reasons(said, monitor, model, vectors, chat, replies[0]) if said.explain and replies else [],
            "log": None if said.log is None else str(said.log)}  # fmt: skip


def _told(
    model: Model, monitor: Monitor, seen: list[Any], alarms: list[AlarmRaised], replies: list[WatchedReply]
) -> dict[str, Any]:
    from workbench.labeling.tokens import token_strings
    from workbench.steering.monitor.logs import reply_values, signal_values

    raised: dict[int, list[str]] = {}
    for one in alarms:
        raised.setdefault(one.position, []).append(one.alarm.signal)
    strings = ["(prompt)", *token_strings(model.tokenizer, [token.id for token in seen if token.position])]
    tokens = [
        {"position": token.position, "text": text, **signal_values(monitor, token.values),
         "alarms": raised.get(token.position, [])}
        for token, text in zip(seen, strings, strict=True)
    ]  # fmt: skip
    return {"tokens": tokens, "reply": reply_values(replies[0]) if replies else None}


def _reasons(
    said: Said, monitor: Monitor, model: Model, vectors: list[PersonaVector], chat: ChatTokens, reply: WatchedReply
) -> list[dict[str, Any]]:
    """Of each vector at the SAE's hook point: the features that carry the projection, up to its alarm or of the whole reply."""
    from workbench.labeling.files.store import load_labels
    from workbench.models.prompts import with_response
    from workbench.personas.vectors import PersonaVector
    from workbench.steering.monitor.reasons import neutral_baseline, reasons, reply_activations

    sources = [PersonaVector.load(_vector_folder(folder)) for folder in said.neutral] or vectors
    if not sources:
        raise WorkbenchError("--explain with a saved monitor alone", "a run whose neutral replies are the baseline",
                             "name one with --neutral")  # fmt: skip
    sae = said.load_sae(model)
    baseline, said_chat = neutral_baseline(sources[0], sae), with_response(chat, reply.ids)
    first = {one.alarm.signal: (one.position, one.alarm.rule.window if one.alarm.rule.statistic == "running" else one.position)
             for one in reply.alarms() if one.position}  # fmt: skip
    found = []
    for i, signal in enumerate(monitor.signals):
        if signal.kind == "vector" and signal.hook == sae.hook and reply.ids:
            last, window = first.get(signal.name, (len(reply.ids), len(reply.ids)))
            rows = reply_activations(model, said_chat, sae, last, window)
            why, norm = reasons(rows, monitor.readout[i], sae, baseline), monitor.norms[signal.hook]
            labels = load_labels(sae.id, sae_hash=sae.weights_hash, features=[feature for feature, _ in why.features]).labels
            features = [
                {"feature": feature, "part": part / norm, "share": part / why.total if why.total > 0 else None,
                 "label": labels[feature].label if feature in labels else None}
                for feature, part in why.features
            ]  # fmt: skip
            found.append({"signal": signal.name, "first": last - len(rows) + 1, "last": last, "total": why.total / norm,
                          "features": features, "rest": why.rest / norm, "error": why.error / norm})  # fmt: skip
    return found


def _drawn(said: Said, model: Model, replies: list[WatchedReply]) -> dict[str, Any]:
    if said.figure is None or not replies:
        return {"figure": None}
    from workbench.labeling.tokens import token_strings
    from workbench.reports.steering.monitor import reply_figure

    reply = replies[0]
    return {"figure": str(reply_figure(reply, tokens=token_strings(model.tokenizer, reply.ids)).save(said.figure))}


def read(said: Said) -> dict[str, Any]:
    """Read transcripts, piece by piece."""
    from workbench.base.progress import track
    from workbench.steering.monitor.chats import read_chats
    from workbench.steering.monitor.logs import reply_values
    from workbench.steering.monitor.transcripts import read_transcript

    assert said.transcript is not None
    lines = list(read_chats(said.transcript))
    monitor, model, _ = said.monitor()
    found = []
    with track("transcripts", len(lines), "transcripts") as step:
        for number, line in enumerate(lines):
            try:
                read = read_transcript(model, monitor, line["messages"], tools=line.get("tools"), number=number)
            except WorkbenchError as error:
                found_at = f"transcript {line.get('id', number)} of {said.transcript}: {error.found}"
                raise WorkbenchError(found_at, error.expected, error.remedy) from error
            pieces = []
            for one in read.spans:
                values = reply_values(one.reply) | ({} if one.written else {"alarms": []})  # what was only read raises none
                pieces.append({"message": one.span.message, "role": one.span.role, "kind": one.span.kind, "tool": one.span.tool,
                               "written": one.written, **values})  # fmt: skip
            found.append({"id": line.get("id", number), "rendering": read.rendering, "n_tokens": read.n_tokens, "pieces": pieces})
            step()
    return {**_about(monitor), "reader": model.name, "transcripts": found}


def calibrated(said: Said) -> dict[str, Any]:
    """Calibrate alarms on neutral replies and save the monitor."""
    from dataclasses import asdict

    from workbench.personas.vectors import PersonaVector
    from workbench.steering.monitor.alarms import Rule, calibrate
    from workbench.steering.monitor.neutral import neutral_replies

    if said.saved() and not said.neutral:
        raise WorkbenchError("a saved monitor and no neutral replies", "runs with neutral replies", "name some with --neutral")
    rule = Rule(said.statistic, said.window)  # type: ignore[arg-type]  # checked by Rule
    if rule.statistic == "prompt":
        raise WorkbenchError("an alarm at the prompt", "running or mean: runs keep no activations of their prompts",
                             "calibrate it in Python, on prompts of yours (steering.monitor.alarms.calibrate)")  # fmt: skip
    monitor, _, vectors = said.monitor()
    sources = [PersonaVector.load(_vector_folder(folder)) for folder in said.neutral] or vectors
    replies = neutral_replies(monitor, sources)
    armed = monitor.with_alarms(calibrate(monitor.names, replies, rule=rule, rate=said.rate, seed=said.seed))
    folder = said.out or Path("runs") / ("monitor-" + "-".join(monitor.names)[:80].replace("/", "-").replace(" ", "-"))
    armed.save(folder)
    alarms = [{**asdict(alarm), "threshold_norms": alarm.threshold / armed.norms[armed.signals[i].hook]
               if armed.signals[i].kind == "vector" else None} for i, alarm in enumerate(armed.alarms)]  # fmt: skip
    return {**_about(armed), "alarms": alarms, "n_replies": len(replies), "folder": str(folder)}


def _vector_folder(folder: Path) -> Path:
    return folder if (folder / "persona_vector.json").is_file() else folder / "vector"


def _about(monitor: Monitor) -> dict[str, Any]:
    signals = [{"name": s.name, "kind": s.kind, "hook": str(s.hook)} for s in monitor.signals]
    return {"model": monitor.model.get("name"), "signals": signals, "n_alarms": len(monitor.alarms)}


def plan(said: Said, mode: str) -> dict[str, Any]:
    """What it would take, roughly."""
    from workbench.steering.monitor.chats import read_chats

    from ..plan import BASE_GIB, FORWARD_TOKENS_PER_SECOND, SAMPLED_TOKENS_PER_SECOND, size_scale
    from ..short_plans import IMPORT_SECONDS, short_plan, step

    described: dict[str, Any] = {}
    if said.saved() is None:
        described = said.read_vectors()[0].model
    name = str(said.model or described.get("name") or DEFAULT_MODEL)
    scale = size_scale(name)
    steps = [step("start, load the model", 3 * IMPORT_SECONDS)]
    if mode == "--prompt":
        longest = said.max_new_tokens or 64
        steps.append(step(f"an answer of at most {longest} tokens", scale and 3 * scale * longest / SAMPLED_TOKENS_PER_SECOND))
    elif mode == "--transcript":
        assert said.transcript is not None
        size = sum(len(str(chat["messages"])) for chat in read_chats(said.transcript))
        steps.append(step(f"read {size:,} characters of transcripts", scale and scale * size / 4 / FORWARD_TOKENS_PER_SECOND))
    else:
        steps.append(step("read stored neutral replies, set thresholds", 10.0 * max(1, len(said.neutral or said.vectors))))
    return short_plan(f"monitor of {', '.join(said.vectors)}", steps, said.out, memory_gib=BASE_GIB + 1, disk_mib=1)
