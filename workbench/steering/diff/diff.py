"""`diff`: what did this fine-tune install? Along every persona vector and every feature, on the same tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError
from workbench.base.provenance import provenance
from workbench.base.store import content_hash
from workbench.base.tensors import tensor_hash
from workbench.models.norms import neutral_text

from .features import installed
from .lens import DifferenceLens, difference_lens
from .reading import Paired, Reading, paired, read
from .result import ModelDiff
from .shifts import Site
from .sides import check_names, check_pair, opened, pair_key
from .texts import MAX_TOKENS, DiffText, Prompt, prompt_texts, unrelated_texts

_SENTENCE = re.compile(r"(?<=[.!?])\s+")

if TYPE_CHECKING:
    from workbench.labeling.labels import LabelSet
    from workbench.models.hookpoints import HookPoint
    from workbench.models.model import Model
    from workbench.personas.placebos import PlaceboVectors
    from workbench.personas.vectors import PersonaVector
    from workbench.saes.interface import SparseAutoencoder

    from .sides import Side


@dataclass(frozen=True)
class DiffOptions:
    """How two models are compared."""

    n_bootstrap: int = 1000
    """Resamplings of the texts."""
    n_random: int = 1000
    """Sets of random directions."""
    n_features: int = 30
    """Features shown per place."""
    max_tokens: int = MAX_TOKENS
    """Longest reply and longest unrelated text."""
    seed: int = 0
    """Of replies that are sampled, resamplings and random directions."""

    def __post_init__(self) -> None:
        counts = {name: getattr(self, name) for name in ("n_bootstrap", "n_random", "n_features", "max_tokens")}
        if wrong := [f"{name} = {count}" for name, count in counts.items() if count < 1]:
            raise WorkbenchError(", ".join(wrong), "counts of at least 1", "correct the options")


def diff(
    before: Side,
    after: Side,
    vectors: Sequence[PersonaVector],
    sae: SparseAutoencoder | None = None,
    prompts: Iterable[Prompt | str] = (),
    *,
    unrelated: Iterable[str] | None = None,
    placebos: PlaceboVectors | None = None,
    labels: LabelSet | None = None,
    options: DiffOptions | None = None,
    **loading: Any,
) -> ModelDiff:
    """What the model `after` has that the model `before` has not, on the same tokens.

    `before`, `after`: a Model, a name or folder that `load_model` takes (`loading` goes there), or a function that makes a Model
    (`partial(finetuned, model, folder)`); names are loaded one after the other, so that one model is in memory at a time.
    `vectors`: each is compared at its own hook point. `prompts`: user messages, best not those that the fine-tune was trained on;
    a reply that is not given is written by the model before. `unrelated`: texts for the lens (default: the sentences of the
    package's neutral text). `placebos`: vectors of contrasts that are no trait, the harder null. Memory is that of one model, one
    batch, and n_texts x d_model.

    Raises WorkbenchError for models of different architectures, vectors or an SAE of another width, or fewer than two texts.
    """
    options = options or DiffOptions()
    check_names(before, after)
    hooks = list(dict.fromkeys(vector.hook for vector in vectors)) or ([] if sae is None else [sae.hook])
    if not hooks:
        raise WorkbenchError("neither vectors nor an SAE", "something to measure along", "give persona vectors, or an SAE")
    first = _read_before(before, vectors, hooks, sae, prompts, unrelated, options, loading)
    readings, lens, described = _read_after(after, first, hooks, sae, loading)
    sites = _sites(hooks, vectors, placebos, first, options)
    return _assembled((first.model, described), readings, sites, sae, labels, lens, options, vectors, first.texts)


@dataclass(frozen=True)
class _Before:
    """What is kept of the model before, which may be gone: only tensors and words."""

    model: dict[str, Any]
    key: dict[str, Any]
    medians: dict[HookPoint, float]
    texts: list[DiffText]
    reading: Reading


def _read_before(
    before: Side, vectors: Sequence[PersonaVector], hooks: Sequence[HookPoint], sae: Any, prompts: Iterable[Prompt | str],
    unrelated: Iterable[str] | None, options: DiffOptions, loading: dict[str, Any],
) -> _Before:  # fmt: skip
    with opened(before, **loading) as model:
        _check_vectors(vectors, model)
        medians = {hook: float(norm) for hook, norm in zip(hooks, model.norm_medians(hooks), strict=True)}
        texts = prompt_texts(model, prompts, max_tokens=options.max_tokens, seed=options.seed)
        documents = _SENTENCE.split(neutral_text()) if unrelated is None else unrelated
        texts += unrelated_texts(model, documents, max_tokens=options.max_tokens)
        if not texts:
            raise WorkbenchError("no text that both models could read", "prompts, or unrelated texts of six tokens and more",
                                 "give questions (--prompts), longer texts, or a larger --max-tokens")  # fmt: skip
        return _Before(model.description(), pair_key(model), medians, texts, read(model, texts, hooks, sae))


def _read_after(
    after: Side, first: _Before, hooks: Sequence[HookPoint], sae: Any, loading: dict[str, Any]
) -> tuple[Paired, DifferenceLens | None, dict[str, Any]]:  # fmt: skip
    with opened(after, **loading) as model:
        check_pair(str(first.model["name"]), first.key, model)
        readings = paired(first.reading, read(model, first.texts, hooks, sae))
        return readings, _lens(model, readings, hooks[0], first.medians[hooks[0]]), model.description()


def _check_vectors(vectors: Sequence[PersonaVector], model: Model) -> None:
    names = [vector.trait for vector in vectors]
    if len(set(names)) != len(names):
        raise WorkbenchError(f"two vectors of one trait ({', '.join(sorted(names))})", "one vector per trait", "leave one out")
    for vector in vectors:
        if vector.d_model != model.d_model or vector.hook.block >= model.n_blocks:
            raise WorkbenchError(
                f"the {vector.trait} vector is of {vector.model.get('name')} ({vector.hook}, d_model={vector.d_model})",
                f"vectors of {model.name} ({model.n_blocks} blocks, d_model={model.d_model})",
                "extract the traits from the model before the fine-tune",
            )


def _sites(
    hooks: Sequence[HookPoint], vectors: Sequence[PersonaVector], placebos: PlaceboVectors | None, first: _Before,
    options: DiffOptions,
) -> list[Site]:  # fmt: skip
    found = []
    for hook in hooks:
        here = {vector.trait: vector.direction for vector in vectors if vector.hook == hook}
        if here:
            found.append(Site(hook, here, placebos, first.reading.sample[hook], first.medians[hook],
                              n_random=options.n_random, family=len(vectors), seed=options.seed))  # fmt: skip
    return found


def _lens(model: Model, readings: Paired, hook: HookPoint, median: float) -> DifferenceLens | None:
    if "opening" not in readings.kept:
        return None
    return difference_lens(model, str(hook), readings.differences("opening", 0), median)


def _assembled(
    sides: tuple[dict[str, Any], dict[str, Any]], readings: Paired, sites: Sequence[Site], sae: Any, labels: LabelSet | None,
    lens: DifferenceLens | None, options: DiffOptions, vectors: Sequence[PersonaVector], texts: Sequence[DiffText],
) -> ModelDiff:  # fmt: skip
    shifts, spans, parts, sizes = [], {}, {}, {}
    for place, kept in readings.kept.items():
        spans[place] = {}
        for index, site in enumerate(sites):
            differences = readings.differences(place, index)
            shifts += site.shifts(place, differences, n_bootstrap=options.n_bootstrap)
            spans[place][str(site.hook)] = site.span(differences)
        sizes[place] = _size(readings, place, sites)
        if sae is not None:
            parts[place] = installed(
                place, readings.before.codes[place], readings.after.codes[place], kept, sae, labels=labels,
                n_shown=options.n_features, n_bootstrap=min(options.n_bootstrap, 500), seed=options.seed,
            )  # fmt: skip
    inputs = {f"vector {vector.trait}": tensor_hash(vector.direction) for vector in vectors}
    inputs |= {} if sae is None else {"sae": sae.weights_hash}
    inputs["texts"] = content_hash(sorted(text.id for text in texts))
    made = provenance(seed=options.seed, inputs=inputs, config=options)
    counts = {place: len(kept) for place, kept in readings.kept.items()}
    return ModelDiff(*sides, tuple(shifts), parts, spans, sizes, lens, counts, readings.n_dropped,
                     _warnings(sides, vectors, sae, readings), made)  # fmt: skip


def _size(readings: Paired, place: str, sites: Sequence[Site]) -> float:
    """|D| at the first hook point, in norms (in residual units without vectors)."""
    mean = readings.differences(place, 0).mean(dim=0)
    return float(mean.norm()) / (sites[0].median_norm if sites else 1.0)


def _warnings(
    sides: tuple[dict[str, Any], dict[str, Any]], vectors: Sequence[PersonaVector], sae: Any, readings: Paired
) -> tuple[str, ...]:  # fmt: skip
    told, own = [], sides[0]["weights_hash"]
    foreign = [vector.trait for vector in vectors if vector.model.get("weights_hash") not in (None, own)]
    if foreign:
        told.append(f"the vectors of {', '.join(foreign)} come from other weights than the model before")
    if sae is not None and sae.model_name not in ("", sides[0]["name"]):
        told.append(f"the SAE reads {sae.model_name}, not {sides[0]['name']}")
    if readings.n_dropped:
        told.append(f"{readings.n_dropped} texts were left out: the models leave out different tokens of them as sinks")
    return tuple(told)
