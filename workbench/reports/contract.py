"""The contract object: what `--json` prints of a report, as plain JSON types."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from workbench.reports.shares import Slice, finite, interval

if TYPE_CHECKING:
    from workbench.decomposition.falsify import Falsification
    from workbench.decomposition.result import Decomposition
    from workbench.labeling.labels import LabelSet
    from workbench.personas.vectors import PersonaVector
    from workbench.reports.content import Report

_VECTOR_NUMBERS = ("auc_stripped", "auc_rank_p", "auc_with_prompt", "auc_text_only", "auc_random_q95")
_SAE_NUMBERS = ("variance_explained", "l0", "ce_recovered", "dead_share")


def report_json(report: Report) -> dict[str, Any]:
    """All of a report that is a number or a word; texts of contexts stay in the page."""
    parts = report.parts
    return plain({
        "vector": vector_json(report.vector),
        "sae": sae_json(parts.sae),
        "share_error": finite(parts.share_error),
        "features": [dict(row) for row in report.features],
        "controls": controls_json(parts.controls),
        "report": str(report.path) if report.path else None,
        "share_error_interval": interval(parts.share_error_interval),
        "share_sum_error": finite(parts.share_sum_error),
        "n_verified": report.n_verified,
        "made_of": [slice_json(row) for row in report.slices],
        "groups": plain(parts.audit.get("groups")),
        "warnings": [str(warning) for warning in parts.warnings],
        "cautions": [{"claim": one.claim, "text": one.text} for one in report.warnings],
        "examples": [one.to_json() for one in report.examples],
        "sub_traits": plain(report.made_of.to_dict()) if report.made_of else None,
        "audit": _audit_json(report.audit),
        "falsification": _falsification_json(report.falsification),
        "n_views": len(report.views),
    })  # fmt: skip


def _audit_json(audit: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What was audited, without the single answers and features."""
    if audit is None:
        return None
    screen, second = audit.get("screen") or {}, audit.get("second_sae") or {}
    return plain({
        "behaviour": audit.get("behaviour"),
        "screen": {key: screen.get(key) for key in ("dose_norms", "persona_effect", "totals", "agreement")} if screen else None,
        "second_sae": {key: second.get(key) for key in ("sae", "n_verified", "n_confirmed")} if second else None,
    })  # fmt: skip


def _falsification_json(found: Falsification | None) -> dict[str, Any] | None:
    if found is None:
        return None
    checks = [{"name": one.name, "verdict": one.verdict} for one in found.checks]
    return plain({"colour": found.colour, "headline": found.headline(), "counts": found.counts, "checks": checks})


def counted_categories(labels: LabelSet) -> dict[int, str]:
    """The category of each feature whose label stands; a rejected label counts as none."""
    return {label.feature: label.category for label in labels if label.label and label.status != "rejected"}


def _at(values: Any, feature: int) -> float | None:
    return finite(values[feature])


def feature_json(feature: int, parts: Decomposition, labels: LabelSet) -> dict[str, Any]:
    """One row of the table of features."""
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
        "causal_p": finite(effect.p) if effect else None,
        "causal_q": finite(effect.q) if effect else None,
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


def vector_json(vector: PersonaVector) -> dict[str, Any]:
    """Trait, site and separability."""
    evidence = vector.evidence
    numbers = {key: finite(evidence.get(key)) for key in _VECTOR_NUMBERS}
    return {
        "trait": vector.trait,
        "hook": str(vector.hook),
        **numbers,
        "auc_stripped_interval": interval(evidence.get("auc_stripped_interval")),
    }


def sae_json(sae: Mapping[str, Any]) -> dict[str, Any]:
    """The id and the figures of the card."""
    return {"id": sae["id"], **{key: finite(card_figure(sae, key)) for key in _SAE_NUMBERS}}


def card_figure(sae: Mapping[str, Any], key: str) -> Any:
    """A figure of the SAE's card, whether the card was kept whole or its figures beside the id."""
    return sae[key] if key in sae else (sae.get("card") or {}).get(key)


def controls_json(controls: Mapping[str, Any]) -> dict[str, Any]:
    """The known controls first, None where absent, then all others."""
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


def slice_json(row: Slice) -> dict[str, Any]:
    """One row of the picture."""
    ends = interval((row.low, row.high))
    return {
        "category": row.id,
        "group": row.group,
        "share": row.value,
        "interval": ends,
        "n_features": row.n_features,
    }
