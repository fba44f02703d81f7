"""What else is known of a placed prompt: shifts along traits, the features of the shift, and the drift to be expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from workbench.axis.design.standing import axis_covector
from workbench.axis.drift.conversation import Conversation
from workbench.axis.drift.playing import play_scripts
from workbench.axis.drift.study import drift_study
from workbench.axis.scripts import Script, load_scripts
from workbench.base.store import plain
from workbench.decomposition.decompose import decompose
from workbench.decomposition.methods import decoder_of
from workbench.steering.diff.shifts import Site

if TYPE_CHECKING:
    from workbench.axis.design.answers import PlaceDesign
    from workbench.axis.space.role_vectors import RoleVectors
    from workbench.labeling.labels import LabelSet
    from workbench.models.hookpoints import HookPoint
    from workbench.models.model import Model
    from workbench.personas.placebos import PlaceboVectors
    from workbench.personas.vectors import PersonaVector
    from workbench.saes.interface import SparseAutoencoder

N_RANDOM, N_BOOTSTRAP = 1000, 1000
N_FEATURES = 12
DOMAINS = ("therapy", "philosophy")
"""The two kinds of talk that carry personas away in the notes; drift risk is measured over these."""
EFFECTS = ("drift", "drift_per_turn")


def trait_loads(
    model: Model, shifts: Tensor, spoken: Tensor, hook: HookPoint, traits: Sequence[PersonaVector],
    placebos: PlaceboVectors | None, seed: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """[{trait, shift, low, high, z, p_placebo, p_random, p}]: shifts from the default `[n_questions, d_model]` along the traits.

    shift: in median token norms, positive toward the trait; z: in standard deviations over the default's replies `spoken [n,
    d_model]`. The p-values are family-wise over the traits, see `steering.diff.shifts`.
    """
    lines = {one.trait: one.at(hook) for one in traits}
    if not lines:
        return []
    norm = float(model.norm_medians([hook])[0])
    site = Site(hook, lines, placebos, spoken, norm, n_random=N_RANDOM, family=len(lines), seed=seed)
    rows = site.shifts("questions", shifts, n_bootstrap=N_BOOTSTRAP)
    return [
        {"trait": row.trait, "shift": row.shift, "low": row.interval[0], "high": row.interval[1], "z": row.z,
         "p_placebo": row.p_placebo, "p_random": row.p_random, "p": row.p} for row in rows
    ]  # fmt: skip


def prompt_features(
    vector: PersonaVector, sae: SparseAutoencoder, vectors: RoleVectors, labels: LabelSet | None, model: Model, folder: Path,
    seed: int,
) -> dict[str, Any]:  # fmt: skip
    """The features of prompt - default: {sae, error, along_axis, error_along_axis, features}; the decomposition goes to `folder`.

    share: of the squared length of the shift. along_axis: what the feature moves along the axis, in units of the way from the
    mean role to the default; all features' and the error's add up to the shift's own (the accounting identity).
    """
    found = decompose(vector, sae, model=model, causal=False, n_bootstrap=N_BOOTSTRAP // 2, seed=seed)
    found.save(folder)
    axis = vectors.axis(sae.hook)
    covector = axis_covector(vectors) if sae.hook == vectors.hook else axis / axis.square().sum()
    along = found.delta_code.double() * (decoder_of(sae).double() @ covector)
    whole = float(vector.at(sae.hook).double() @ covector)
    rows = [
        {"feature": j, "label": _label(labels, j), "share": float(found.share[j]), "low": float(found.share_low[j]),
         "high": float(found.share_high[j]), "q": float(found.q_value[j]), "placebo_q": float(found.placebo_q[j]),
         "along_axis": float(along[j])} for j in found.top(N_FEATURES)
    ]  # fmt: skip
    told = {"sae": sae.id, "error": found.share_error, "along_axis": whole, "error_along_axis": whole - float(along.sum())}
    return plain({**told, "features": rows})


def _label(labels: LabelSet | None, feature: int) -> str:
    known = labels.get(feature) if labels is not None else None
    return known.label if known else ""


def drift_risk(
    model: Model, axis: PersonaVector, vectors: RoleVectors, personas: Mapping[str, str], folder: Path,
    placebos: PlaceboVectors | None, design: PlaceDesign, seed: int,
) -> dict[str, Any]:  # fmt: skip
    """{domains: {domain: {drift, drift_per_turn}}, steadied: {persona, drift_per_turn, difference}} over scripted talk.

    personas {name: system prompt}: the one that is placed, then the one with an addition, if any. In median token norms, negative
    away from the assistant; the unit is the conversation. difference: steadied - own drift per turn, paired by script.
    """
    played = play_scripts(model, _scripts(design.conversations), folder / "replies", personas=list(personas.items()),
                          sampling=design.sampling, batch_size=design.batch_size, seed=seed)  # fmt: skip
    name, *others = personas
    own = [one for one in played if one.persona == name]
    options: dict[str, Any] = {"placebos": placebos, "roles": vectors, "seed": seed}
    study = drift_study(model, axis, own, folder / "readings", **options)
    study.save(folder / "study")
    domains = {domain: {kind: one["effects"][kind] for kind in EFFECTS if kind in one["effects"]}
               for domain, one in study.groups.items()}  # fmt: skip
    told: dict[str, Any] = {"domains": domains, "n_conversations": len(own), "axis": axis.trait}
    if others:
        both = drift_study(model, axis, played, folder / "readings", by=_persona, reference=name, **options)
        compared = both.compared[others[0]]
        effects = both.groups[others[0]]["effects"]
        told["steadied"] = {kind: {**effects[kind], "difference": compared[kind]["difference"]}
                            for kind in EFFECTS if kind in effects and kind in compared}  # fmt: skip
    return plain(told)


def _persona(one: Conversation) -> str:
    return one.persona


def _scripts(n: int) -> tuple[Script, ...]:
    return tuple(script for domain in DOMAINS for script in load_scripts(domain, split="evaluation")[:n])
