"""What a person says of a feature, on its way into the label files."""

from __future__ import annotations

from fastapi import APIRouter

from workbench.labeling.evidence import FeatureEvidence
from workbench.serving.answers import feature_json
from workbench.serving.explorer import Explorer
from workbench.serving.requests import VerdictRequest
from workbench.serving.streams import Answer


def make_router(explorer: Explorer) -> APIRouter:
    """POST /api/labels/{feature}."""
    router = APIRouter(prefix="/api", tags=["labels"])

    @router.post("/labels/{feature}")
    def decide(feature: int, request: VerdictRequest) -> Answer:
        """Confirm, edit, reject or dispute a label; answers with the feature as it is then.

        409 when the label file changed since the page was opened: nothing is written, `feature` says what it is now.
        """
        explorer.book.decide(
            explorer.feature(feature), request.verdict, annotator=request.annotator, version=request.version, label=request.label,
            category=request.category or None, note=request.note, evidence=lambda: evidence_of(explorer, feature),
        )  # fmt: skip
        return Answer(feature_json(explorer, feature))

    return router


def evidence_of(explorer: Explorer, feature: int) -> FeatureEvidence | None:
    """What the index shows of a feature, as evidence for a label that has none; None without an index."""
    index = explorer.index
    if index is None:
        return None
    stats = index.stats(feature)
    return FeatureEvidence(
        feature,
        density=float(f"{stats.density:.4g}"),
        max_activation=float(f"{stats.maximum:.4g}"),
        top=index.contexts(feature, n=10),
        quantiles=index.contexts(feature, "quantiles", n=6),
        n_tokens=index.n_tokens,
        sources=index.sources,
    )
