"""What `workbench steer` does: the vector or a part of it, the edits that were asked for, the replies; or their plan."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError

from ..options import DEFAULT_MODEL

if TYPE_CHECKING:
    from workbench.models.model import Model
    from workbench.personas.vectors import PersonaVector
    from workbench.saes.interface import SparseAutoencoder
    from workbench.steering.edits import Edit

DOSE = 0.25
N_TOKENS = 64


@dataclass(frozen=True)
class Asked:
    """What the command was told."""

    vector: str
    prompts: tuple[str, ...]
    system: str | None
    doses: tuple[float, ...]
    ablate: bool
    clamps: tuple[float, ...]
    caps: tuple[float, ...]
    floors: tuple[float, ...]
    incremental: bool
    features: str | None
    denoise: int | None
    feature: int | None
    scope: str
    hook: str | None
    sae: str | None
    model: str | None
    max_new_tokens: int | None
    temperature: float
    export: Path | None
    dtype: str | None
    device: str | None
    max_memory: str | None
    seed: int

    def check(self) -> None:
        """Refuse what does not go together, before anything is loaded."""
        from workbench.models.scopes import checked_scope

        checked_scope(self.scope)
        parts = {"--features": self.features, "--denoise": self.denoise, "--feature": self.feature}
        named = [name for name, given in parts.items() if given is not None]
        if len(named) > 1:
            raise WorkbenchError(" and ".join(named), "at most one of them", "choose which part of the vector to use")
        if named and (self.incremental or self.hook):
            other = "--incremental" if self.incremental else "--hook"
            raise WorkbenchError(f"{named[0]} and {other}", "one of them: features lie at their SAE's site", f"leave {other} out")
        if not self.prompts and self.export is None:
            raise WorkbenchError("no prompt", "what the user says", f'for instance: workbench steer {self.vector} "Who are you?"')
        if self.export is not None and (len(self.adds) != 1 or self.n_arms > 1):
            raise WorkbenchError(f"--export with {self.n_arms} edits", "one dose: a file holds one sum", "give --dose once")
        if self.export is not None and self.export.suffix != ".gguf":
            raise WorkbenchError(f"--export {self.export}", "a file that ends in .gguf", "name it so")
        self.chosen_features  # noqa: B018  # refused before anything is loaded

    @property
    def adds(self) -> tuple[float, ...]:
        """The doses; a quarter of a norm when nothing else was asked for."""
        others = self.ablate or self.clamps or self.caps or self.floors
        return self.doses or (() if others else (DOSE,))

    @property
    def n_arms(self) -> int:
        """How many edited replies a prompt gets."""
        return len(self.adds) + self.ablate + len(self.clamps) + len(self.caps) + len(self.floors)

    @cached_property
    def chosen_features(self) -> tuple[int, ...]:
        """The numbers in --features."""
        try:
            return tuple(int(part) for part in (self.features or "").split(",") if part.strip())
        except ValueError:
            found = f"--features {self.features}"
            raise WorkbenchError(found, "numbers with commas between", "for instance --features 12,34") from None

    def load_model(self, described: dict[str, Any]) -> Model:
        """The model that the vector is of, or the one that was named."""
        from workbench.base.settings import setting
        from workbench.models.loading import load_model

        dtype = str(setting("dtype", self.dtype) or described.get("dtype") or "float32")
        device = setting("device", self.device)
        placed: dict[str, Any] = {"device_map": "auto"} if device == "auto" else {"device": device}
        return load_model(self.model_name(described), dtype=dtype, max_memory=setting("max_memory", self.max_memory), **placed)

    def model_name(self, described: dict[str, Any]) -> str:
        """Its name."""
        from workbench.base.settings import setting

        return str(setting("model", self.model) or described.get("name") or DEFAULT_MODEL)


def steer(asked: Asked) -> dict[str, Any]:
    """{vector, trait, model, hook, scope, prompts: [{prompt, replies}], exported}."""
    from workbench.base.settings import setting
    from workbench.labeling.files.store import load_labels
    from workbench.models.sampling import Sampling
    from workbench.steering.export import export_gguf
    from workbench.steering.side_by_side import side_by_side

    from ..studies.falsify_job import read_vector

    vector = read_vector(asked.vector, model=asked.model, hook=asked.hook, sae=asked.sae)
    sae = _sae(asked, str(vector.model.get("name")))
    arms = _arms(asked, vector, sae)
    model = asked.load_model(vector.model)
    _check_model(vector, model, sae)
    exported = None if asked.export is None else export_gguf(next(iter(arms.values())), model, asked.export).summary()
    sampling = Sampling(int(setting("max_new_tokens", asked.max_new_tokens, N_TOKENS)), asked.temperature)
    labels = None if sae is None else load_labels(sae.id, sae_hash=sae.weights_hash)
    opening = [{"role": "system", "content": asked.system}] if asked.system else []
    chats = [[*opening, {"role": "user", "content": prompt}] for prompt in asked.prompts]
    found = [side_by_side(model, chat, arms, sampling, sae=sae, labels=labels, seed=asked.seed) for chat in chats]
    edits = {name: [edit.description() for edit in arm] for name, arm in arms.items()}
    return {
        "vector": asked.vector, "trait": vector.trait, "model": model.name, "scope": asked.scope, "sae": sae and sae.id,
        "seed": asked.seed, "edits": edits, "prompts": [one.to_json() for one in found], "exported": exported,
    }  # fmt: skip


def _arms(asked: Asked, vector: PersonaVector, sae: SparseAutoencoder | None) -> dict[str, tuple[Edit, ...]]:
    """The edits of every reply, by what they are called."""
    from workbench.steering.edits import Edit, incremental

    scope: dict[str, Any] = {"scope": asked.scope}
    target = _target(asked, vector, sae)
    arms: dict[str, tuple[Edit, ...]] = {}
    for dose in asked.adds:
        edits = incremental(vector, dose, **scope) if asked.incremental else (Edit.add(target, dose, **scope),)
        arms[f"dose {dose:+g}"] = edits
    if asked.feature is not None and sae is not None:
        def fixed(value: float) -> Edit:
            return Edit.set_feature(sae, asked.feature or 0, value, **scope)
    else:
        def fixed(value: float) -> Edit:
            return Edit.clamp(target, value, **scope)
    if asked.ablate:
        arms["ablated"] = (fixed(0.0) if asked.feature is not None else Edit.ablate(target, **scope),)
    arms |= {f"clamped at {value:g}": (fixed(value),) for value in asked.clamps}
    arms |= {f"at most {limit:g}": (Edit.cap(target, limit, **scope),) for limit in asked.caps}
    arms |= {f"at least {limit:g}": (Edit.cap(target, limit, side="below", **scope),) for limit in asked.floors}
    return arms


def _target(asked: Asked, vector: PersonaVector, sae: SparseAutoencoder | None) -> Any:
    """The vector, or the part of it that was asked for."""
    from workbench.steering import directions

    if asked.feature is not None:
        assert sae is not None
        return directions.decoder_direction(sae, asked.feature)
    if asked.features is None and asked.denoise is None:
        return vector
    assert sae is not None
    parts = _parts(asked, vector, sae)
    if asked.denoise is not None:
        return directions.denoised(parts, sae, asked.denoise)
    return directions.of_features(parts, sae, asked.chosen_features)


def _parts(asked: Asked, vector: PersonaVector, sae: SparseAutoencoder) -> Any:
    """The vector's decomposition on this SAE: the finished one of its run, or that of a bare vector, made here."""
    from workbench.base.runs import default_run_folder
    from workbench.decomposition.decompose import decompose
    from workbench.decomposition.result import Decomposition

    path = Path(asked.vector).expanduser()
    for place in (path, default_run_folder(asked.vector, asked.model or DEFAULT_MODEL)):
        if (place / "decomposition" / "decomposition.json").is_file():
            parts = Decomposition.load(place / "decomposition")
            if parts.sae.get("weights_hash") == sae.weights_hash:
                return parts
    if not len(vector.rows):
        return decompose(vector, sae)
    raise WorkbenchError(
        f"no decomposition of {asked.vector} on {sae.id}",
        "a run that was decomposed with this SAE",
        f"run first: workbench decompose {vector.trait}",
    )


def _sae(asked: Asked, model: str) -> SparseAutoencoder | None:
    """The SAE that was named, or the shelf's for this model; None when there is none and none is needed."""
    from dataclasses import replace

    from workbench.saes.registry import load_sae

    from ..inputs import find_sae, has_sae

    needed = asked.sae or asked.features is not None or asked.denoise is not None or asked.feature is not None
    if not needed and not has_sae(model):
        return None
    site = find_sae(asked.sae, model)
    return replace(load_sae(site.reference), id=site.id)


def _check_model(vector: PersonaVector, model: Model, sae: SparseAutoencoder | None) -> None:
    from workbench.decomposition.checks import check_trained_on

    if sae is not None:
        check_trained_on({**model.description(), "name": vector.model.get("name") or model.name}, sae)
    known = vector.model.get("weights_hash")
    if known and known != model.weights_hash:
        raise WorkbenchError(
            f"a vector of {vector.model.get('name')} ({str(known)[:12]}) for {model.name} ({model.weights_hash[:12]})",
            "the model that the vector was made from",
            "leave --model out, or carry the vector across (workbench transfer)",
        )


def plan(asked: Asked) -> dict[str, Any]:
    """The steps, with times from the default model's speeds; nothing is loaded but the vector."""
    from workbench.base.settings import setting

    from ..plan import BASE_GIB, BATCH_GIB, counted_reading, counted_sampling, size_scale
    from ..short_plans import IMPORT_SECONDS, short_plan, step
    from ..studies.falsify_job import read_vector

    vector = read_vector(asked.vector, model=asked.model, hook=asked.hook, sae=asked.sae)
    name = asked.model_name(vector.model)
    tokens, scale = int(setting("max_new_tokens", asked.max_new_tokens, N_TOKENS)), size_scale(name)
    n = (1 + asked.n_arms) * len(asked.prompts)
    steps = [step("start, load the model", 3 * IMPORT_SECONDS)]
    if n:
        sampled, read = counted_sampling([n], n, tokens, scale), counted_reading(4 * n, tokens, scale)
        steps += [step(f"{n} replies", sampled["seconds"]), step("read them with and without the edits", read["seconds"])]
    if asked.export:
        steps.append(step(f"write {asked.export}", 1.0))
    return short_plan(f"{vector.trait} in {name}", steps, asked.export, memory_gib=BASE_GIB + BATCH_GIB, disk_mib=0)
