"""What moved? The features that carry a conversation along the axis, with parts that sum with the SAE's error to the drift.

Two differences of mean codes over the tokens of replies, each a difference of means per conversation:

    "history"   with all history - with the last message alone: the same tokens, turns 2 and later
    "late"      the last third of the turns - the first third, both with their history

An SAE's decoder is affine, so along a unit direction u (its bias cancels)

    <D, u> = sum_j dz_j <d_j, u> + <d_error, u>

and every feature's part is exact. `Moved.installed` has the same D in shares of its own squared length.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from workbench.axis.drift.conversation import Conversation
from workbench.axis.drift.effects import MIN_CONVERSATIONS, replicates
from workbench.axis.drift.passes import Place, passes_of
from workbench.axis.drift.reading import activations_of
from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.randomness import derive_seed, generator
from workbench.decomposition.methods import decoder_of
from workbench.decomposition.rows import RowCodes, read_row_codes
from workbench.maths.geometry import covariance_matched_directions, projections
from workbench.maths.statistics import percentile_interval, rank_p
from workbench.models.capture import sink_limits
from workbench.steering.diff.features import Installed, installed

if TYPE_CHECKING:
    from workbench.labeling.labels import LabelSet
    from workbench.models.model import Model
    from workbench.personas.placebos import PlaceboVectors
    from workbench.personas.vectors import PersonaVector
    from workbench.saes.interface import SparseAutoencoder

WHAT = ("history", "late")
N_SHOWN, N_RANDOM = 20, 200


@dataclass(frozen=True)
class MovedFeature:
    """A feature's `part` of the drift (norms, with a 95% interval over conversations, None for too few), its `share` of the whole
    (None where the whole is 0), the `change` of its mean activation, and how rarely its part along a null direction is as large:
    `p_placebo` (None without placebos) and `p_random`, ranks of |part|."""

    feature: int
    part: float
    interval: tuple[float, float] | None
    share: float | None
    change: float
    p_placebo: float | None
    p_random: float
    label: str = ""


@dataclass(frozen=True, repr=False)
class Moved(Shown):
    """The drift of some conversations along an axis (`total`, in median token norms, positive toward the assistant) as parts:
    total = sum of all features' parts + `error`; `features` are those of the largest |part|, `rest` the sum of the others.

    `what` is "history" or "late". `intervals` {"total", "error", "rest"}: 95% over conversations. `installed` has the same
    difference in shares of |D|^2 (None for fewer than five conversations).
    """

    what: str
    group: str
    axis: str
    sae: str
    n: int
    total: float
    features: tuple[MovedFeature, ...]
    rest: float
    error: float
    intervals: Mapping[str, tuple[float, float] | None]
    installed: Installed | None

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON types."""
        rows = [{**vars(one), "interval": one.interval and list(one.interval)} for one in self.features]
        shared = None if self.installed is None else {
            "error": self.installed.error, "n_changed": self.installed.n_changed, "n_active": self.installed.n_active,
            "features": [{"feature": f.feature, "share": f.share, "interval": f.interval, "q": f.q, "label": f.label}
                         for f in self.installed.features[:N_SHOWN]],
        }  # fmt: skip
        plain = {name: getattr(self, name) for name in ("what", "group", "axis", "sae", "n", "total", "rest", "error")}
        return {**plain, "intervals": dict(self.intervals), "features": rows, "of_its_length": shared}


@dataclass(frozen=True, eq=False, repr=False)
class ReplyCodes(Shown):
    """Mean codes of replies on an SAE, by place (conversation, turn, context); `unit` [d_model] and `norm` are the axis'
    direction and the median token norm at the SAE's hook point."""

    conversations: tuple[Conversation, ...]
    places: Mapping[Place, int]
    rows: RowCodes
    sae: SparseAutoencoder
    axis: str
    unit: Tensor
    norm: float


def read_codes(
    model: Model, axis: PersonaVector, conversations: Sequence[Conversation], sae: SparseAutoencoder
) -> ReplyCodes:
    """The mean codes of every reply with its history, and of the replies from turn 2 on without. Codes are never held densely.

    Raises WorkbenchError for an SAE of another model, an axis without a direction at its hook point, and no reply with a token.
    """
    if sae.d_model != model.d_model:
        raise WorkbenchError(f"{sae.id} reads d_model={sae.d_model}", f"an SAE of {model.name}", "choose another SAE")
    direction = axis.at(sae.hook).float()
    limit = float(sink_limits(model, [sae.hook])[0])
    passes = [one for context in ("history", "alone") for one in passes_of(model, conversations, [context])
              if context == "history" or any(place.turn for place in one.replies)]  # fmt: skip
    seen: dict[Place, int] = {}

    def stream() -> Iterable[tuple[str, Tensor]]:
        for place, _, tokens in activations_of(model, passes, sae.hook):
            kept = tokens[tokens.norm(dim=-1) <= limit]
            if len(kept):
                seen[place] = place_of[str(place)]
            yield str(place), kept if len(kept) else torch.zeros(1, model.d_model)

    names = [str(place) for one in passes for place in one.replies]
    place_of = {name: i for i, name in enumerate(names)}
    if not names:
        raise WorkbenchError("no reply", "conversations that were played or imported", "play them first")
    rows = read_row_codes(stream(), names, sae)
    norm = float(model.norm_medians([sae.hook])[0])
    return ReplyCodes(tuple(conversations), seen, rows, sae, axis.trait, direction / direction.norm(), norm)


def what_moved(
    codes: ReplyCodes, *, what: str = "history", group: str = "all", members: Sequence[int] | None = None,
    placebos: PlaceboVectors | None = None, labels: LabelSet | None = None, n_shown: int = N_SHOWN, n_random: int = N_RANDOM,
    n_bootstrap: int = 1000, seed: int = 0,
) -> Moved:  # fmt: skip
    """The parts of the features, over the conversations `members` (indices; default: all), each weighing the same.

    Raises WorkbenchError where none of them has replies on both sides.
    """
    if what not in WHAT:
        raise unknown_name("difference", what, WHAT)
    before, after, n = _sides(codes, what, range(len(codes.conversations)) if members is None else members)
    unit, norm = codes.unit.double(), codes.norm
    error, total = ((getattr(after, name) - getattr(before, name)) @ unit / norm for name in ("errors", "means"))
    loads = projections(unit[None], decoder_of(codes.sae))[0] / norm
    change = sparse.csc_matrix(after.codes - before.codes)
    mean = torch.from_numpy(np.asarray(change.mean(axis=0), dtype=np.float64)).flatten()
    parts = mean * loads
    shown = [int(j) for j in parts.abs().topk(min(n_shown, len(parts))).indices if parts[j] != 0]
    own = torch.from_numpy(change[:, shown].toarray()).double() * loads[shown]
    ends = _interval(torch.column_stack([total, error, total - error - own.sum(dim=1), own]), seed, n_bootstrap)
    nulls = _nulls(codes, mean[shown], shown, placebos, n_random, seed)
    features = [_feature(j, i, parts, mean, float(total.mean()), ends[3 + i], nulls, labels) for i, j in enumerate(shown)]
    shares = None
    if n >= MIN_CONVERSATIONS:
        shares = installed(what, before, after, torch.arange(n), codes.sae, labels=labels, n_bootstrap=n_bootstrap, seed=seed)
    rest = float(parts.sum() - parts[shown].sum())
    intervals: dict[str, Any] = dict(zip(("total", "error", "rest"), ends, strict=False))
    return Moved(what, group, codes.axis, codes.sae.id, n, float(total.mean()), tuple(features), rest, float(error.mean()),
                 intervals, shares)  # fmt: skip


def _feature(
    feature: int, column: int, parts: Tensor, change: Tensor, total: float, ends: tuple[float, float] | None,
    nulls: Mapping[str, Tensor], labels: LabelSet | None,
) -> MovedFeature:  # fmt: skip
    part, known = parts[feature], labels.get(feature) if labels is not None else None
    p = {name: float(rank_p(part.abs(), found[:, column].abs())) for name, found in nulls.items()}
    return MovedFeature(feature, float(part), ends, float(part) / total if total else None, float(change[feature]),
                        p.get("placebo"), p["random"], known.label if known else "")  # fmt: skip


def _interval(values: Tensor, seed: int, n_bootstrap: int) -> list[tuple[float, float] | None]:
    """95% of the mean of every column [n, k], conversations redrawn; None for too few."""
    if len(values) < MIN_CONVERSATIONS:
        return [None] * values.shape[1]
    drawn = replicates(values, derive_seed("moved", seed), n_bootstrap=n_bootstrap)
    low, high = percentile_interval(drawn)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _nulls(
    codes: ReplyCodes, mean: Tensor, shown: Sequence[int], placebos: PlaceboVectors | None, n_random: int, seed: int
) -> dict[str, Tensor]:
    """{name: the shown features' parts along every null direction [n, n_shown]}, directions of unit length."""
    drawn = generator(derive_seed("moved", "random", seed))
    lines = {"random": covariance_matched_directions(codes.rows.sample, n_random, drawn)}
    if placebos is not None and codes.sae.hook in placebos.hooks:
        lines["placebo"] = placebos.at(codes.sae.hook, trait=codes.axis)
    rows = decoder_of(codes.sae)[list(shown)]
    return {name: projections(torch.nn.functional.normalize(found.double(), dim=1), rows) * mean / codes.norm
            for name, found in lines.items()}  # fmt: skip


def _sides(codes: ReplyCodes, what: str, members: Iterable[int]) -> tuple[RowCodes, RowCodes, int]:
    """(before, after, how many) with a row per conversation that has replies on both sides."""
    before, after = [], []
    for row in members:
        n = len(codes.conversations[row].turns)
        third = max(1, n // 3)
        if what == "history":
            pairs = [[Place(row, k, context) for context in ("alone", "history")] for k in range(1, n)]
            sides = list(zip(*(pair for pair in pairs if all(place in codes.places for place in pair)), strict=True)) or [()]
        else:
            sides = [[Place(row, k, "history") for k in turns] for turns in (range(third), range(n - third, n))]
        sides = [[codes.places[place] for place in side if place in codes.places] for side in sides]
        if n > 1 and all(sides):
            before.append(sides[0])
            after.append(sides[1])
    if not before:
        raise WorkbenchError("no conversation of two turns with replies", "at least two turns", "play longer conversations")
    return _pooled(codes.rows, before), _pooled(codes.rows, after), len(before)


def _pooled(rows: RowCodes, members: Sequence[Sequence[int]]) -> RowCodes:
    """A row for every list of rows: their mean."""
    at = [(i, j, 1 / len(own)) for i, own in enumerate(members) for j in own]
    owners, columns, weights = zip(*at, strict=True)
    pool = sparse.csr_matrix((weights, (owners, columns)), shape=(len(members), len(rows.ids)))
    dense = torch.from_numpy(pool.toarray())
    ids = tuple(f"conversation {i}" for i in range(len(members)))
    codes = sparse.csc_matrix(pool @ rows.codes, dtype=np.float32)
    return replace(rows, ids=ids, means=dense @ rows.means, errors=dense @ rows.errors, codes=codes)
