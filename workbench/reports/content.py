"""What a report says, as values: the contract object for programs, and the pieces that the page shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError
from workbench.reports.intervals import GroupIntervals
from workbench.reports.shares import CategoryName, Slice, finite, interval, slices, taxonomy_of

if TYPE_CHECKING:
    from workbench.decomposition.result import Decomposition
    from workbench.labeling.files.store import FeatureLabel, LabelSet
    from workbench.personas.vectors import PersonaVector
    from workbench.reports.svg import Figure

_VECTOR_NUMBERS = ("auc_stripped", "auc_rank_p", "auc_with_prompt", "auc_text_only", "auc_random_q95")
_SAE_NUMBERS = ("variance_explained", "l0", "ce_recovered", "dead_share")


@dataclass(frozen=True)
class Report:
    """A vector, what it is made of, and the words for its parts, ready to be shown.

    `features` are the rows of the table (most of |v|^2 first), `slices` the rows of the picture, which sum to 1.
    """

    vector: PersonaVector
    parts: Decomposition
    labels: LabelSet
    taxonomy: Mapping[str, CategoryName]
    features: tuple[dict[str, Any], ...]
    slices: tuple[Slice, ...]
    path: Path | None = None

    @property
    def trait(self) -> str:
        return self.vector.trait

    def to_json(self) -> dict[str, Any]:
        """The contract object: plain JSON types only; what is unknown is None, never absent and never NaN."""
        return {
            "vector": _vector_json(self.vector),
            "sae": _sae_json(self.parts.sae),
            "share_error": finite(self.parts.share_error),
            "features": [dict(row) for row in self.features],
            "controls": _controls_json(self.parts.controls),
            "report": str(self.path) if self.path else None,
            "share_error_interval": interval(self.parts.share_error_interval),
            "share_sum_error": finite(self.parts.share_sum_error),
            "n_verified": self.n_verified,
            "made_of": [_slice_json(row) for row in self.slices],
            "groups": plain(self.parts.audit.get("groups")),
            "warnings": [str(warning) for warning in self.parts.warnings],
        }

    @property
    def n_verified(self) -> int | None:
        """Features that passed the causal rule; None when none was tested."""
        tested = [row["verified"] for row in self.features if row["verified"] is not None]
        return sum(tested) if tested else None

    def label(self, feature: int) -> FeatureLabel | None:
        return self.labels.get(feature)

    def picture(self) -> Figure:
        """The waterfall of shares, as an SVG that stands alone."""
        from workbench.reports.figures import waterfall

        if not self.slices:
            raise WorkbenchError(
                "this decomposition has no shares",
                "token activations of the vector's own rollouts",
                "decompose a vector which was extracted here, or pass `model=` to decompose",
            )
        return waterfall(self.slices, trait=self.trait)

    def sentence(self) -> str:
        """The answer in one sentence, made from the numbers alone."""
        from workbench.reports.verdict import answer

        return answer(self)

    def html(self) -> str:
        """The page: one file, no network."""
        from workbench.reports.html import render

        return render(self)

    def save(self, path: str | Path) -> Report:
        """Writes the page (all or nothing) and gives back this report with `path` set."""
        from workbench.base.store import atomic_write

        saved = replace(self, path=Path(path))
        atomic_write(Path(path), saved.html())
        return saved

    def _repr_html_(self) -> str | None:
        from workbench.reports import displays

        return displays.report_html(self)


def report(
    vector: PersonaVector,
    parts: Decomposition,
    labels: LabelSet,
    *,
    trait: object | None = None,
    n_features: int = 30,
) -> Report:
    """The report on one vector, its decomposition and the labels of its features.

    `trait` gives the taxonomy of sub-traits; by default it is looked up by the vector's trait name. Raises
    WorkbenchError when the three values do not belong together.
    """
    _belong_together(vector, parts, labels)
    labels = labels.for_trait(vector.trait)
    taxonomy = taxonomy_of(trait if trait is not None else _find_trait(vector.trait))
    rows = tuple(
        _feature_json(feature, parts, labels) for feature in _shown_features(parts, labels, n_features)
    )
    return Report(vector, parts, labels, taxonomy, rows, _all_slices(parts, labels, taxonomy))


def _belong_together(vector, parts, labels) -> None:
    if parts.trait != vector.trait:
        raise WorkbenchError(
            f"the decomposition is of {parts.trait!r} and the vector is {vector.trait!r}",
            "a vector and its own decomposition",
            f"decompose the {vector.trait!r} vector and report that",
        )
    if len(labels) and not labels.matches(parts.sae):
        raise WorkbenchError(
            f"the labels are of SAE {labels.sae_id!r} with weights {labels.sae_hash[:12]!r}, the decomposition used "
            f"{parts.sae['id']!r} with weights {str(parts.sae.get('weights_hash'))[:12]!r}",
            "labels of the features of the same SAE",
            "label this decomposition with `workbench label`",
        )


def _find_trait(name: str) -> object | None:
    """The trait of this name when there is one; an imported vector may carry a name that nobody described."""
    from workbench.personas.traits import load_trait

    try:
        return load_trait(name)
    except WorkbenchError:
        return None


def _shown_features(parts, labels, n_features: int) -> list[int]:
    """The largest shares, every tested candidate and every labelled feature, largest share first."""
    tested = [*parts.candidates, *(row.feature for row in parts.causal)]
    chosen = {*parts.top(n_features), *tested, *counted_categories(labels)}
    return sorted((int(f) for f in chosen), key=lambda f: (-(_at(parts.share, f) or 0.0), f))


def counted_categories(labels: LabelSet) -> dict[int, str]:
    """The category of each feature whose label stands; a rejected label counts as none."""
    return {label.feature: label.category for label in labels if label.label and label.status != "rejected"}


def _at(values: Any, feature: int) -> float | None:
    return finite(values[feature])


def _feature_json(feature: int, parts, labels) -> dict[str, Any]:
    label = labels.get(feature)
    effect = next((row for row in parts.causal if row.feature == feature), None)
    return {
        "feature": feature,
        "label": label.label if label else None,
        "category": label.category if label else None,
        "label_author": dict(label.author) if label else None,
        "label_score": _score_json(label.score if label else None),
        "share": _at(parts.share, feature),
        "share_interval": interval((_at(parts.share_low, feature), _at(parts.share_high, feature))),
        "q_value": _at(parts.q_value, feature),
        "q_crossed": _at(parts.q_crossed, feature),
        "placebo_score": _at(parts.placebo_score, feature),
        "placebo_q": _at(parts.placebo_q, feature),
        "cosine": _at(parts.cosine, feature),
        "pursuit": _at(parts.pursuit, feature),
        "in_v_up": None if _at(parts.share_up, feature) is None else bool(parts.in_v_up[feature]),
        "causal_odd": finite(effect.odd) if effect else None,
        "causal_interval": interval(effect.interval) if effect else None,
        "damage": finite(effect.damage) if effect else None,
        "verified": bool(effect.verified) if effect and effect.verified is not None else None,
    }


def _score_json(score: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if score is None:
        return None
    return {
        "kind": score.get("kind"),
        "value": finite(score.get("value")),
        "interval": interval(score.get("interval")),
    }


def _vector_json(vector) -> dict[str, Any]:
    evidence = vector.evidence
    numbers = {key: finite(evidence.get(key)) for key in _VECTOR_NUMBERS}
    return {
        "trait": vector.trait,
        "hook": str(vector.hook),
        **numbers,
        "auc_stripped_interval": interval(evidence.get("auc_stripped_interval")),
    }


def _sae_json(sae: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": sae["id"], **{key: finite(card_figure(sae, key)) for key in _SAE_NUMBERS}}


def card_figure(sae: Mapping[str, Any], key: str) -> Any:
    """A figure of the SAE's card, whether the card was kept whole or its figures beside the id."""
    return sae[key] if key in sae else (sae.get("card") or {}).get(key)


def _controls_json(controls: Mapping[str, Any]) -> dict[str, Any]:
    known = {
        key: plain(controls.get(key))
        for key in ("expected_by_chance", "zero_vector_overlap", "random_directions", "placebos", "same_against_same")
    }
    return {**known, **{key: plain(value) for key, value in controls.items() if key not in known}}


def plain(value: Any) -> Any:
    """Plain JSON types of any nesting: NaN and infinities become None, arrays become lists, the rest text."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, (Sequence, set, frozenset)):
        return [plain(item) for item in value]
    return str(value)


def _slice_json(row: Slice) -> dict[str, Any]:
    ends = interval((row.low, row.high))
    return {
        "category": row.id,
        "group": row.group,
        "share": row.value,
        "interval": ends,
        "n_features": row.n_features,
    }


def _all_slices(parts, labels, taxonomy) -> tuple[Slice, ...]:
    """Empty when the shares are unknown (a bare vector): a picture of unknown numbers is not drawn."""
    error = finite(parts.share_error)
    if error is None:
        return ()
    shares = [finite(value) or 0.0 for value in parts.share.tolist()]
    ends = interval(parts.share_error_interval)
    of_error = (error, (ends[0], ends[1]) if ends else None)
    return slices(shares, counted_categories(labels), taxonomy, of_error, GroupIntervals.of(parts))
