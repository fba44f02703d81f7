"""The result type: a table of features first, with every control, its intervals and its provenance."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.tensors import load_artifact, register_migration, save_artifact
from workbench.base.untrusted import check_types, refuses_damage

if TYPE_CHECKING:
    import pandas as pd

KIND, SCHEMA = "decomposition", 4

# One value per feature of the SAE; the order is the order in which tables print them.
FEATURE_ARRAYS = (
    "share", "share_low", "share_high", "p_value", "p_family", "q_value", "cosine", "delta_code",
    "pursuit", "share_up", "share_down", "in_v_up", "naive", "top_rate", "q_crossed", "placebo_score", "placebo_p", "placebo_q",
)  # fmt: skip
_OTHER_ARRAYS = ("replicate_features", "replicate_shares", "replicate_error", "direction")


@dataclass(frozen=True)
class CausalRow:
    """The causal effect of one feature on the written pairs (filled by the causal stage).

    `odd` = (C(+delta) - C(-delta)) / 2 minus the same on the control pairs, nats per token, positive toward the
    trait; `damage` the even part; `dose_norms` = |delta| / median token norm; `kl` nats per token on neutral text.
    """

    feature: int
    odd: float
    interval: tuple[float, float]
    damage: float
    dose_norms: float
    kl: float
    p: float
    q: float
    verified: bool
    control_odd: float

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> CausalRow:
        """The row that was written to JSON (a null figure comes back as NaN)."""
        values: dict[str, Any] = {
            f.name: math.nan if stored[f.name] is None else stored[f.name] for f in fields(cls)
        }
        low, high = (math.nan if end is None else float(end) for end in values["interval"])
        return cls(**{**values, "interval": (low, high)})


@dataclass(frozen=True, eq=False, repr=False)
class Decomposition(Shown):
    """A persona vector v taken apart on an SAE: v = sum_j delta_code_j d_j + d_error, exactly.

    `share[j]` = delta_code_j <d_j, v> / |v|^2 and `share_error` = <d_error, v> / |v|^2 sum to 1 (off by
    `share_sum_error`). A share may be negative: that feature pulls away from the vector. All arrays are `[d_sae]`.
    For a vector without its tokens everything that needs mean codes is NaN (null in JSON) and `warnings` says so.
    """

    trait: str
    sae: dict[str, Any]
    """id, hook, model_name, weights_hash, d_model, d_sae and the figures of the SAE's card."""
    vector: dict[str, Any]
    """trait, model, hook, norm and hash of the vector, and how many questions and rows stand behind it."""
    share: Tensor
    share_low: Tensor
    share_high: Tensor
    """95% percentile interval of `share` from the bootstrap over questions crossed with instructions."""
    p_value: Tensor
    """Two-sided exact sign-flip p of the feature's mean code difference over questions; 1 where it never fires."""
    p_family: Tensor
    """The same, family-wise over all active features (max-T)."""
    q_value: Tensor
    """Benjamini-Hochberg q over the active features; NaN where the feature never fires."""
    cosine: Tensor
    """Signed cosine between the decoder direction and v."""
    delta_code: Tensor
    """Mean code with the trait minus mean code without it, in the SAE's units."""
    pursuit: Tensor
    """Signed coefficient in the sparse pursuit of v on the decoder; 0 where the feature was not chosen."""
    share_up: Tensor
    share_down: Tensor
    """The feature's share of v_up (trait minus neutral) and of v_down (neutral minus opposite)."""
    in_v_up: Tensor
    """True where `share_up` > 0 and the feature's own sign flips on trait minus neutral reach q <= .05."""
    naive: Tensor
    """encode(v): a control, not a method (its companion is `controls["zero_vector_overlap"]`)."""
    top_rate: Tensor
    """Share of bootstrap replicates in which the feature is among the top ten by share."""
    q_crossed: Tensor
    """BH q of a test that takes instructions as draws too (`decomposition.crossed`); NaN where the feature never fires."""
    placebo_score: Tensor
    """The feature's `delta_code` in spreads of what placebo contrasts do to it, signed; NaN without placebos."""
    placebo_p: Tensor
    """Two-sided p of that score among placebo contrasts."""
    placebo_q: Tensor
    """Benjamini-Hochberg q of it: at most .05 makes the feature the trait's own rather than any prompt's."""
    share_error: float | None
    share_error_interval: tuple[float, float] | None
    share_sum_error: float | None
    n_questions: int
    vector_norm: float
    candidates: tuple[int, ...]
    replicate_features: Tensor
    """Feature ids `[m]` of the largest |share| whose bootstrap shares are kept, so that groups have intervals."""
    replicate_shares: Tensor
    """Bootstrap shares `[n_bootstrap, m]`."""
    replicate_error: Tensor
    """Bootstrap shares of the SAE's error `[n_bootstrap]`."""
    direction: Tensor
    """The vector itself at the SAE's hook `[d_model]`, float32; NaN where an older file did not keep it."""
    causal: tuple[CausalRow, ...] = ()
    controls: dict[str, Any] = field(default_factory=dict)
    audit: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def d_sae(self) -> int:
        """The number of features."""
        return self.share.shape[0]

    @property
    def has_shares(self) -> bool:
        """False for a bare vector, whose mean codes are unknown."""
        return self.share_error is not None

    def top(self, n: int = 10) -> tuple[int, ...]:
        """The `n` features of the largest share, largest first (of the largest cosine for a bare vector)."""
        ranking = self.share if self.has_shares else self.cosine
        return tuple(torch.topk(ranking, min(n, self.d_sae)).indices.tolist())

    def row(self, feature: int) -> dict[str, Any]:
        """Everything known about one feature, by the names of the report's contract; what is unknown is None."""
        if not 0 <= feature < self.d_sae:
            raise WorkbenchError(
                f"there is no feature {feature} in {self.sae.get('id')}",
                f"a feature from 0 to {self.d_sae - 1}",
                "take one from Decomposition.top()",
            )
        values = {name: _value(getattr(self, name)[feature]) for name in FEATURE_ARRAYS}
        if values["share_up"] is None:  # no neutral arm: unknown, not absent
            values["in_v_up"] = None
        interval = [values["share_low"], values["share_high"]]
        known = {"feature": feature, **values, "share_interval": None if None in interval else interval}
        return {**known, **self._causal_columns(feature)}

    def _causal_columns(self, feature: int) -> dict[str, Any]:
        found = next((row for row in self.causal if row.feature == feature), None)
        return {
            "causal_odd": None if found is None else _number(found.odd),
            "causal_interval": None if found is None else [_number(end) for end in found.interval],
            "damage": None if found is None else _number(found.damage),
            "dose_norms": None if found is None else _number(found.dose_norms),
            "kl": None if found is None else _number(found.kl),
            "causal_p": None if found is None else _number(found.p),
            "causal_q": None if found is None else _number(found.q),
            "verified": None if found is None else bool(found.verified),
        }

    def table(self, n: int = 30) -> list[dict[str, Any]]:
        """The top `n` features as a list of `row`s, the largest share first."""
        return [self.row(feature) for feature in self.top(n)]

    def to_pandas(self, n: int | None = None) -> pd.DataFrame:
        """The table (all features without `n`) as a DataFrame with one column per name of `row`."""
        import pandas as pd

        order = list(self.top(self.d_sae if n is None else n))
        frame = pd.DataFrame({name: getattr(self, name)[order].numpy() for name in FEATURE_ARRAYS})
        frame["in_v_up"] = frame["in_v_up"].astype("boolean").mask(frame["share_up"].isna())
        frame.insert(0, "feature", order)
        frame.insert(4, "share_interval", list(zip(frame["share_low"], frame["share_high"], strict=True)))
        causal = pd.DataFrame([self._causal_columns(feature) for feature in order])
        return pd.concat([frame, causal], axis=1)

    def with_causal(self, rows: Iterable[CausalRow], controls: Mapping[str, Any]) -> Decomposition:
        """A copy that carries the causal rows; `controls` (expected_by_chance and more) are added to the controls."""
        return replace(self, causal=tuple(rows), controls={**self.controls, **controls})

    def save(self, folder: str | Path) -> Path:
        """Write `decomposition.safetensors` and then `decomposition.json` into `folder`."""
        tensors = {name: getattr(self, name) for name in FEATURE_ARRAYS + _OTHER_ARRAYS}
        skipped = {*tensors, "causal"}
        document = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in skipped}
        document["causal"] = [asdict(row) for row in self.causal]
        return save_artifact(folder, KIND, SCHEMA, document, tensors)

    @classmethod
    @refuses_damage
    def load(cls, folder: str | Path) -> Decomposition:
        """The decomposition that `save` wrote; its hash is verified and older schemas are migrated."""
        document, tensors = load_artifact(folder, KIND, SCHEMA)
        check_types(document, trait=str, sae=dict, vector=dict, share_error=(int, float, type(None)))
        stored: dict[str, Any] = {f.name: document[f.name] for f in fields(cls) if f.name not in tensors}
        stored["causal"] = tuple(CausalRow.from_dict(row) for row in stored["causal"])
        interval = stored["share_error_interval"]
        stored["share_error_interval"] = None if interval is None else tuple(interval)
        for name in ("candidates", "warnings"):
            stored[name] = tuple(stored[name])
        stored.update({name: tensors[name] for name in FEATURE_ARRAYS + _OTHER_ARRAYS})
        return cls(**stored)

    def __repr__(self) -> str:
        error = "unknown" if self.share_error is None else f"{self.share_error:.2f}"
        return (
            f"Decomposition({self.trait!r} on {self.sae.get('id')!r}: {self.d_sae} features, "
            f"{self.n_questions} questions, share of the SAE's error {error}, {len(self.causal)} causal rows)"
        )


def _without_placebos(document: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Schema 1 knew neither placebos nor the crossed test: their columns are unknown."""
    unknown = torch.full_like(tensors["share"], torch.nan)
    return document, {**tensors, **dict.fromkeys(("q_crossed", "placebo_score", "placebo_p", "placebo_q"), unknown)}


def _without_direction(document: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Schema 2 kept the vector's hash only: its direction is unknown."""
    return document, {**tensors, "direction": torch.full((document["sae"]["d_model"],), torch.nan)}


def _basic_intervals(document: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Schema 3 had percentile intervals of shares: mirrored at the share they are the basic ones of the same replicates."""
    share, low, high = (tensors[name] for name in ("share", "share_low", "share_high"))
    document = copy.deepcopy(document)
    groups = (document.get("audit") or {}).get("groups") or {"groups": ()}
    for group in groups["groups"]:
        group["interval"] = [2 * group["share"] - end for end in reversed(group["interval"])]
    if (error := document.get("share_error_interval")) is not None:
        document["share_error_interval"] = [2 * document["share_error"] - end for end in reversed(error)]
    return document, {**tensors, "share_low": (2 * share - high).to(low), "share_high": (2 * share - low).to(low)}


register_migration(KIND, 1, _without_placebos)
register_migration(KIND, 2, _without_direction)
register_migration(KIND, 3, _basic_intervals)


def _value(entry: Tensor) -> float | bool | None:
    return bool(entry) if entry.dtype == torch.bool else _number(entry.item())


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
