"""The study of drift: conversations read in their contexts, and per group what moved, how fast, and beside which nulls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.axis.drift.conversation import Conversation
from workbench.axis.drift.effects import KINDS, N_BOOTSTRAP, against, differences, effect_vectors, told
from workbench.axis.drift.passes import CONTEXTS
from workbench.axis.drift.reading import Readings, read_replies
from workbench.axis.drift.result import DriftStudy
from workbench.base.errors import WorkbenchError
from workbench.base.provenance import provenance
from workbench.base.randomness import derive_seed
from workbench.base.store import content_hash
from workbench.base.tensors import tensor_hash
from workbench.labeling.tokens import token_strings
from workbench.steering.diff.shifts import Site

if TYPE_CHECKING:
    from workbench.axis.space.role_vectors import RoleVectors
    from workbench.models.hookpoints import HookPoint
    from workbench.models.model import Model
    from workbench.personas.placebos import PlaceboVectors
    from workbench.personas.vectors import PersonaVector

REFERENCE = "coding"
N_RANDOM = 200
_COMPARED = ("drift_per_turn", "raw_per_turn", "per_1000_tokens", "drift")
MIN_SAMPLE = 8
"""Replies from which the covariance of the random directions is taken, at the least."""

Group = Callable[[Conversation], str]


def domain_of(one: Conversation) -> str:
    """The group of a conversation by default."""
    return one.domain or "all"


def drift_study(
    model: Model, axis: PersonaVector, conversations: Sequence[Conversation], folder: str | Path, *,
    placebos: PlaceboVectors | None = None, roles: RoleVectors | None = None, by: Group = domain_of,
    reference: str | Mapping[str, str] | None = None, contexts: Sequence[str] = CONTEXTS, n_random: int = N_RANDOM,
    n_bootstrap: int = N_BOOTSTRAP, seed: int = 0,
) -> DriftStudy:  # fmt: skip
    """How far each conversation carries the model along `axis` (any persona vector, at its own hook), beyond its last message.

        drift_k = <h_k(history) - h_k(alone), u> / m

    with h_k the mean activation over the tokens of reply k, u the axis' unit direction and m the median token norm: the same
    tokens with and without what came before. The axis points toward the assistant, so drift away from it is negative. `by` groups
    the conversations (default: by domain), `reference` is the group that the others are compared with (default: "coding" where
    there is one), or {group: its own reference}. `contexts` beside "history" and "alone" are controls; an unknown one is refused.
    Finished readings lie in `folder`. Raises WorkbenchError for no reply and for an axis of another model.
    """
    played = [one for one in conversations if one.turns]
    if not played:
        raise WorkbenchError("no conversation with a reply", "conversations that were played or imported", "play them first")
    _check(model, axis)
    hook, unit = axis.hook, axis.direction / axis.direction.norm()
    wanted = tuple(dict.fromkeys(("history", "alone", *contexts)))
    read = read_replies(model, played, hook, unit, folder, contexts=wanted, seed=seed)
    norm = float(model.norm_medians([hook])[0])
    spread = None if roles is None else role_spread(roles, hook, unit) / norm
    groups, compared, reference = analyse(
        played, read, axis.trait, hook, unit, norm, placebos=placebos, by=by, reference=reference, n_random=n_random,
        n_bootstrap=n_bootstrap, seed=seed,
    )  # fmt: skip
    tokens = tuple(tuple(token_strings(model.tokenizer, turn.ids)) for one in played for turn in one.turns)
    said = content_hash([one.to_json() for one in played])
    inputs = {f"vector of {axis.trait}": tensor_hash(axis.directions), "conversations": said}
    return DriftStudy(axis.trait, model.description(), hook, unit, norm, spread, tuple(played), read, tokens, groups, compared,
                      reference, provenance(seed=seed, inputs=inputs))  # fmt: skip


def _check(model: Model, axis: PersonaVector) -> None:
    of, length = axis.model.get("weights_hash"), float(axis.direction.norm())
    if axis.d_model != model.d_model or of not in (None, model.weights_hash) or not length > 0:
        raise WorkbenchError(
            f"the axis {axis.trait!r} is of {axis.model.get('name')} (d_model={axis.d_model}, length {length:.3g})",
            f"a direction of {model.name} (d_model={model.d_model})", "choose an axis that was made on this model",
        )  # fmt: skip


def role_spread(roles: RoleVectors, hook: HookPoint, unit: Tensor) -> float:
    """The standard deviation over roles of their positions along `unit` [d_model] at `hook`, in units of the residual stream."""
    means = roles.means[:, list(roles.hooks).index(hook)].double()
    return float((means @ unit.double()).std())


def analyse(
    conversations: Sequence[Conversation], read: Readings, axis: str, hook: HookPoint, unit: Tensor, norm: float, *,
    placebos: PlaceboVectors | None, by: Group, reference: str | Mapping[str, str] | None, n_random: int, n_bootstrap: int,
    seed: int,
) -> tuple[dict[str, Any], dict[str, Any], str | None]:  # fmt: skip
    """({group: figures}, {group: {quantity: against its reference}}, the reference if all have the same).

    Figures of a group: `n` conversations; `effects` {kind: {value, interval, n, z, p, p_random, p_placebo, random_limit,
    placebo_limit}} (see `effects.KINDS`; in norms, z in standard deviations of a reply's mean along the direction; `p` is the
    larger of the two, times the number of groups); `turns` [{turn, n, position, alone, drift, n_before}] with intervals.
    """
    names = [by(one) for one in conversations]
    groups = list(dict.fromkeys(names))
    reference = REFERENCE if reference is None and REFERENCE in groups else reference
    beside = dict.fromkeys(groups, reference) if reference is None or isinstance(reference, str) else dict(reference)
    site = _site(read, axis, hook, unit, norm, placebos, n_random, seed)
    vectors = {kind: effect_vectors(read, kind, len(conversations)) for kind in KINDS}
    along = {kind: found @ unit.double() / norm for kind, found in vectors.items()}
    members = {group: torch.tensor([name == group for name in names]) for group in groups}
    figures = {
        group: {
            "n": int(own.sum()),
            "effects": {
                kind: {**told(along[kind][own], derive_seed("effect", kind, group, seed), n_bootstrap=n_bootstrap),
                       **_nulls(site, vectors[kind][own], len(groups))}
                for kind in KINDS if along[kind][own].isfinite().any()
            },
            "turns": _turns(read, own, unit, norm, seed, n_bootstrap),
        }
        for group, own in members.items()
    }  # fmt: skip
    scripts = {group: [one.script for one, name in zip(conversations, names, strict=True) if name == group] for group in groups}
    compared = {group: _compared(along, members, group, other, scripts, seed)
                for group, other in beside.items() if other in groups and other != group}  # fmt: skip
    return figures, compared, reference if isinstance(reference, str) and reference in groups else None


def _site(
    read: Readings, axis: str, hook: HookPoint, unit: Tensor, norm: float, placebos: PlaceboVectors | None, n_random: int,
    seed: int,
) -> Site | None:
    """Null directions, matched to the covariance of the replies' means without history; None for too few replies."""
    sample = read.means["alone"]
    sample = sample[sample.isfinite().all(dim=1)]
    if len(sample) < MIN_SAMPLE:
        return None
    return Site(hook, {axis: unit}, placebos, sample, norm, n_random=n_random, family=1, seed=seed)


def _nulls(site: Site | None, vectors: Tensor, n_groups: int) -> dict[str, Any]:
    """{z, p, p_random, p_placebo, random_limit, placebo_limit} of the mean vector; {} without null directions or with one
    conversation."""
    known = vectors[vectors.isfinite().all(dim=1)]
    if site is None or len(known) < 2:
        return {}
    row = site.shifts("conversations", known, n_bootstrap=2)[0]  # its own interval is not used
    nulls = {name: getattr(row, name) for name in ("z", "p_random", "p_placebo", "random_limit", "placebo_limit", "n_placebos")}
    return {**nulls, "p": min(1.0, n_groups * row.p)}


def _turns(read: Readings, own: Tensor, unit: Tensor, norm: float, seed: int, n_bootstrap: int) -> list[dict[str, Any]]:
    """Means over the conversations turn by turn."""
    along = {name: differences(read, *which) @ unit.double() / norm
             for name, which in {"position": ("history", None), "alone": ("alone", None), "drift": ("history", "alone")}.items()}
    mine = own[read.row]
    found = []
    for turn in sorted(set(read.turn[mine].tolist())):
        here = mine & (read.turn == turn)
        figures = {name: told(values[here], derive_seed("turn", turn, name, seed), n_bootstrap=n_bootstrap)
                   for name, values in along.items()}  # fmt: skip
        found.append({"turn": turn + 1, "n": int(here.sum()), "n_before": float(read.n_before[here].double().mean()), **figures})
    return found


def _compared(
    along: Mapping[str, Tensor], members: Mapping[str, Tensor], group: str, reference: str,
    scripts: Mapping[str, Sequence[str]], seed: int,
) -> dict[str, Any]:  # fmt: skip
    """{kind: {against, difference, ratio, why}} of a group."""
    values = {kind: {name: along[kind][own] for name, own in members.items()} for kind in _COMPARED}
    return {kind: against(found, group, reference, scripts, seed) for kind, found in values.items()}
