"""The control distribution: what matched features that nobody chose do to the same pairs at the same KL.

It is computed once per (SAE, model, pair set, dose) and shipped beside the SAE, so that a candidate costs seconds. The
controls are drawn to match the density, decoder norm and |W_U d| of the features that candidates come from.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.base.errors import WorkbenchError
from workbench.base.progress import track
from workbench.base.provenance import provenance
from workbench.base.randomness import derive_seed, generator
from workbench.base.settings import cache_dir
from workbench.base.store import content_hash, read_json, sha256_bytes, write_json
from workbench.base.untrusted import refuses_damage
from workbench.models.model import Model
from workbench.models.prompts import chat_template_hash
from workbench.personas.causal import (
    KL_TOLERANCE,
    MAX_DOSE_NORMS,
    CausalInstrument,
    Doses,
    Effects,
    neutral_snippets,
)
from workbench.personas.traits import ReplyPair, Trait
from workbench.saes.interface import SparseAutoencoder

SCHEMA = 1
SPLIT = "sealed"
N_CONTROLS = 209
"""20 m - 1 = 199 controls let Benjamini-Hochberg resolve m = 10 candidates; ten spare ones, as candidates among them leave."""
GROUP = 10
"""Features per checkpoint."""
_COLUMNS = ("odd_contrast", "odd_control", "damage", "dose_norms", "reached_kl")


def sealed_pairs(trait: Trait, split: str = SPLIT) -> tuple[ReplyPair, ...]:
    """The pairs a verdict is read from: contrast pairs first, then control pairs, in file order."""
    return tuple(pair for pair in trait.contrast_pairs + trait.control_pairs if pair.split == split)


def require_pairs(trait: Trait) -> None:
    """Raise WorkbenchError unless the trait has contrast and control pairs, both to select by and sealed."""
    found = {split: {pair.kind == "contrast" for pair in sealed_pairs(trait, split)} for split in ("select", SPLIT)}
    missing = [f"{kind} pairs ({split})" for split, kinds in found.items()
               for kind, wanted in (("contrast", True), ("control", False)) if wanted not in kinds]  # fmt: skip
    if missing:
        raise WorkbenchError(
            f"the trait {trait.name!r} lacks {', '.join(missing)}",
            "contrast and control pairs in both splits, 'select' and 'sealed'",
            "write them into the trait's pairs.yaml (`workbench traits show` says what is there)",
        )


def pair_weights(pairs: Sequence[ReplyPair]) -> tuple[Tensor, Tensor]:
    """Weights [n_pairs] (float64) of the contrast mean and of the control mean, in which each kind weighs the same."""
    kinds = [pair.kind for pair in pairs]
    others = sorted(set(kinds) - {"contrast"})
    contrast = torch.tensor([float(kind == "contrast") for kind in kinds], dtype=torch.float64)
    control = [0.0 if kind == "contrast" else 1 / (kinds.count(kind) * len(others)) for kind in kinds]
    return contrast / contrast.sum().clamp_min(1), torch.tensor(control, dtype=torch.float64)


@dataclass(frozen=True)
class ControlDistribution:
    """Effects of control features for +d (activating the feature); `effects` are what a candidate is compared with."""

    key: dict[str, Any]
    """What it is valid for: sae_id, sae, model, chat_template (hashes), pairs (hash), split, kl, neutral (hash)."""
    features: tuple[int, ...]
    odd_contrast: tuple[float, ...]
    odd_control: tuple[float, ...]
    damage: tuple[float, ...]
    dose_norms: tuple[float, ...]
    reached_kl: tuple[float, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def effects(self) -> Tensor:
        """Odd part on the contrast pairs minus that on the control pairs [n_controls], nats per token; float64."""
        pair = (torch.tensor(self.odd_contrast, dtype=torch.float64), torch.tensor(self.odd_control, dtype=torch.float64))
        return pair[0] - pair[1]

    def without(self, features: Sequence[int]) -> Tensor:
        """`effects` of the controls that are not among `features`."""
        keep = torch.tensor([feature not in set(features) for feature in self.features], dtype=torch.bool)
        return self.effects[keep]

    def save(self, path: str | Path) -> Path:
        """Write it as JSON."""
        return write_json(path, {"kind": "causal_controls", "schema": SCHEMA, **asdict(self)})

    @classmethod
    @refuses_damage
    def load(cls, path: str | Path) -> ControlDistribution:
        """What `save` wrote; refuses other files and newer schemas."""
        stored = read_json(path)
        if not isinstance(stored, dict) or stored.get("kind") != "causal_controls" or stored.get("schema") != SCHEMA:
            raise WorkbenchError(
                f"{path} is no control distribution of schema {SCHEMA}", "a file of causal_controls/", "compute it again"
            )
        missing = [f.name for f in fields(cls) if f.name not in stored]
        lengths = {len(stored[name]) for name in ("features", *_COLUMNS) if name in stored}
        if missing or len(lengths) != 1:
            raise WorkbenchError(f"{path} is incomplete", "one value per control feature in every column", "compute it again")
        values: dict[str, Any] = {f.name: stored[f.name] for f in fields(cls)}
        values["features"] = tuple(map(operator.index, values["features"]))
        values.update({name: tuple(map(float, values[name])) for name in _COLUMNS})
        return cls(**values)

    def check(self, key: dict[str, Any]) -> None:
        """Raise WorkbenchError unless this distribution was measured for exactly `key`."""
        wrong = [name for name in identity(key) if self.key.get(name) != key[name]]
        if wrong:
            found = ", ".join(f"{name} {_short(self.key.get(name))}" for name in wrong)
            expected = ", ".join(f"{name} {_short(key[name])}" for name in wrong)
            raise WorkbenchError(
                f"the control distribution was measured for {found}",
                expected,
                "compute it again for this SAE, model and pair set",
            )


def identity(key: dict[str, Any]) -> dict[str, Any]:
    """What of a key decides: the SAE's weights, not the name or folder that it was loaded by."""
    return {name: value for name, value in key.items() if name != "sae_id"}


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) else str(value)


def control_key(model: Model, sae: SparseAutoencoder, trait: Trait, *, kl: float, split: str = SPLIT) -> dict[str, Any]:
    """What a control distribution depends on, beside the choice of features."""
    return {
        "sae_id": sae.id,
        "sae": sae.weights_hash,
        "model": model.weights_hash,
        "chat_template": chat_template_hash(model),
        "pairs": trait.pairs_hash,
        "split": split,
        "kl": kl,
        "neutral": sha256_bytes("\n".join(neutral_snippets()).encode()),
    }


def shipped_path(sae_folder: str | Path, pairs_hash: str, kl: float) -> Path:
    """Where a distribution lies beside its SAE: causal_controls/<pairs hash>-kl<dose>.json."""
    return Path(sae_folder) / "causal_controls" / f"{pairs_hash[:16]}-kl{kl:g}.json"


def match_controls(
    model: Model, sae: SparseAutoencoder, targets: Sequence[int], *, n_controls: int = N_CONTROLS, seed: int = 0
) -> tuple[tuple[int, ...], dict[str, float]]:
    """`n_controls` features like the `targets`, none of them a target, and how unlike they are.

    Targets take turns in a seeded order; each takes one of its three nearest unused features by distance in
    standardised (log density, log |d|, log |W_U d/|d||) space. The second result is the standardised mean difference
    per covariate. Dead features and features without a direction are never controls. Without a known density the
    other two are matched.
    """
    covariates, usable = _covariates(model, sae)
    usable[list(targets)] = False
    if int(usable.sum()) < n_controls:
        raise WorkbenchError(
            f"{int(usable.sum())} live features of {sae.id} are left as controls",
            f"at least {n_controls}",
            "ask for fewer controls (n_controls)",
        )
    names, space = list(covariates), torch.stack(list(covariates.values()), dim=1)
    wanted = space[list(targets)]
    scaled = (space - wanted.mean(dim=0)) / wanted.std(dim=0, correction=0).clamp_min(1e-6)
    drawn = _nearest_unused(scaled, list(targets), usable, n_controls, generator(derive_seed("causal controls", seed)))
    balance = scaled[list(drawn)].mean(dim=0)
    return drawn, {name: round(float(value), 4) for name, value in zip(names, balance, strict=True)}


def _covariates(model: Model, sae: SparseAutoencoder) -> tuple[dict[str, Tensor], Tensor]:
    w = model.unembedding.detach().float().cpu()
    gram = torch.stack([(part.T @ part).double() for part in w.split(16384)]).sum(dim=0)
    norms, reach = _lengths(sae.decoder_directions.detach(), gram)
    usable = norms > 1e-8
    covariates = {"log_decoder_norm": norms.clamp_min(1e-8).log(), "log_unembedded_norm": reach.log()}
    if sae.density is not None:
        density = sae.density.detach().cpu().double()
        usable &= density > 0
        covariates = {"log_density": density.clamp_min(1e-8).log(), **covariates}
    return covariates, usable


def _lengths(directions: Tensor, gram: Tensor) -> tuple[Tensor, Tensor]:
    """|d| and |W_U d| / |d| [d_sae] (float64), a block of rows at a time: a wide dictionary is never held twice."""
    parts = []
    for rows in directions.split(8192):
        d = rows.cpu().double()
        norms = d.norm(dim=1)
        unit = d / norms.clamp_min(1e-8)[:, None]
        parts.append((norms, ((unit @ gram) * unit).sum(dim=1).clamp_min(1e-24).sqrt()))
    norms, reach = (torch.cat(column) for column in zip(*parts, strict=True))
    return norms, reach


def _nearest_unused(
    scaled: Tensor, targets: list[int], usable: Tensor, n: int, rng: torch.Generator, n_near: int = 3
) -> tuple[int, ...]:
    free, drawn, order = usable.clone(), [], []
    while len(drawn) < n:
        order = order or torch.randperm(len(targets), generator=rng).tolist()
        distance = (scaled - scaled[targets[order.pop()]]).square().sum(dim=1)
        near = torch.where(free, distance, math.inf).topk(min(n_near, int(free.sum())), largest=False).indices
        chosen = int(near[torch.randint(len(near), (1,), generator=rng)])
        drawn.append(chosen)
        free[chosen] = False
    return tuple(drawn)


def control_distribution(
    model: Model,
    sae: SparseAutoencoder,
    trait: Trait,
    *,
    features: Sequence[int],
    n_controls: int = N_CONTROLS,
    kl: float = 0.1,
    seed: int = 0,
    cache: str | Path | None = None,
    instrument: CausalInstrument | None = None,
) -> ControlDistribution:
    """Effects of `n_controls` features matched to `features` (the 100 of largest |share|, say), none of them among these.

    Ten features at a time are written under `cache` (default: the user's cache folder), so that an interrupted
    computation goes on where it stopped and ends with the same numbers. Their doses are kept as well: the same features
    cost a third less for the next trait. Some 7 s of one core per feature for the default model, half in bfloat16.
    """
    key = control_key(model, sae, trait, kl=kl)
    drawn, balance = match_controls(model, sae, features, n_controls=n_controls, seed=seed)
    parts = _parts_folder(cache, key, drawn, str(model.dtype))
    pairs = sealed_pairs(trait)
    columns = _measured(model, sae, pairs, drawn, parts, instrument, kl)
    settings = {
        "n_controls": n_controls,
        "seed": seed,
        "matched_to": sorted(int(feature) for feature in features),
        "balance": balance,
        "dtype": str(model.dtype).removeprefix("torch."),
        "kl_tolerance": KL_TOLERANCE,
        "max_dose_norms": MAX_DOSE_NORMS,
        "n_pairs": len(pairs),
    }
    inputs = {name: str(key[name]) for name in ("sae", "model", "pairs")}
    return ControlDistribution(key, drawn, **columns, settings=settings, provenance=provenance(seed=seed, inputs=inputs))


def controls_cache(cache: str | Path | None = None) -> Path:
    """The folder of computed distributions and of parts of unfinished ones."""
    return Path(cache) if cache is not None else cache_dir() / "causal_controls"


def _parts_folder(cache: str | Path | None, key: dict[str, Any], drawn: Sequence[int], dtype: str) -> Path:
    return controls_cache(cache) / "parts" / content_hash({**identity(key), "features": list(drawn), "dtype": dtype})[:24]


def _dose_key(model: Model, sae: SparseAutoencoder, kl: float) -> str:
    neutral = sha256_bytes("\n".join(neutral_snippets()).encode())
    return content_hash([sae.weights_hash, str(sae.hook), model.weights_hash, str(model.dtype), kl, neutral])[:24]


def _measured(
    model: Model,
    sae: SparseAutoencoder,
    pairs: Sequence[ReplyPair],
    drawn: Sequence[int],
    parts: Path,
    instrument: CausalInstrument | None,
    kl: float,
) -> dict[str, tuple[float, ...]]:
    columns: dict[str, list[float]] = {name: [] for name in _COLUMNS}
    with track("causal controls", len(drawn), "features") as step:
        for low in range(0, len(drawn), GROUP):
            group, path = list(drawn[low : low + GROUP]), parts / f"part-{low // GROUP:05d}.json"
            if path.is_file():
                part = read_json(path)
            else:
                instrument = instrument or CausalInstrument(model, sae.hook, pairs, kl=kl)
                doses = _doses(instrument, sae, group, parts.parent.parent / "doses" / _dose_key(model, sae, kl))
                part = summary(instrument.measure(sae.decoder_directions[group], doses), pairs)
                write_json(path, part)
            for name in _COLUMNS:
                columns[name] += part[name]
            step(len(group))
    return {name: tuple(values) for name, values in columns.items()}


def _doses(instrument: CausalInstrument, sae: SparseAutoencoder, group: Sequence[int], folder: Path) -> Doses:
    """The doses of these features, one file each: they depend on neutral text alone, so one trait's serve every other."""
    paths = {feature: folder / f"{feature}.json" for feature in group}
    unknown = [feature for feature, path in paths.items() if not path.is_file()]
    if unknown:
        found = instrument.doses(sae.decoder_directions[unknown])
        for feature, norm, kl in zip(unknown, found.norms.tolist(), found.kl.tolist(), strict=True):
            write_json(paths[feature], {"norm": norm, "kl": kl})
    read = [read_json(path) for path in paths.values()]
    return Doses(*(torch.tensor([row[name] for row in read], dtype=torch.float64) for name in ("norm", "kl")))


def summary(effects: Effects, pairs: Sequence[ReplyPair]) -> dict[str, list[float]]:
    """Per feature, over the pairs: odd on contrast and control pairs, damage on contrast pairs, dose and KL reached."""
    contrast, control = pair_weights(pairs)
    return {
        "odd_contrast": (effects.odd @ contrast).tolist(),
        "odd_control": (effects.odd @ control).tolist(),
        "damage": (effects.even @ contrast).tolist(),
        "dose_norms": effects.dose_norms.tolist(),
        "reached_kl": effects.kl.tolist(),
    }
