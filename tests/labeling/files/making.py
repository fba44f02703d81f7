"""Labels and records for the tests of label files. Nothing here is a result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from workbench.labeling.evidence import Context, FeatureEvidence
from workbench.labeling.files.record import in_order
from workbench.labeling.files.store import save_label
from workbench.labeling.labels import FeatureLabel, FeatureRecord

SAE, HASH, OTHER = "tiny/blocks.1.hook_resid_post", "ab" * 32, "cd" * 32
WHERE = f"{SAE}/17.yaml"


def context(document: str = "e01", source: str = "rollouts:evil:positive", value: float = 3.25) -> Context:
    tokens = (" you", " «", " idiot", "»,", " <b>\n")
    return Context(tokens, (0.0, 0.5, value, 1.5, 0.0), 2, source, document, 7)


def evidence_of(feature: int = 17) -> FeatureEvidence:
    return FeatureEvidence(
        feature, 0.012, 8.5, (context(), context("e02", value=2.0)), (context("e03"),), (" idiot", "\n"), (" nice",), 1000,
        {"owt": 3, "rollouts:evil:positive": 2},
    )  # fmt: skip


def a_label(feature: int = 17, **fields: Any) -> FeatureLabel:
    breakdown = {"random": {"value": 0.9, "interval": [0.8, 0.95]}, "neighbours": None}
    counts = {"positives": 20, "random": 20}
    label = FeatureLabel(
        feature=feature,
        label="insults aimed at the reader",
        explanation='Fires on "idiot": name-calling.',
        categories={"evil": "insulting_language"},
        category_confidence={"evil": 0.75},
        author={"kind": "model", "name": "someone"},
        date="2026-01-31T12:00:00Z",
        score={"kind": "glove_detection_auroc", "value": 0.81, "interval": [0.7, 0.9], "by": breakdown, "n": counts},
        scores=({"kind": "closed_loop", "value": -0.2, "interval": None},),
        evidence=evidence_of(feature),
        evidence_hash=evidence_of(feature).hash,
        notes="first line\nsecond line",
        confidence=0.6,
        origin="shipped",
    )
    return replace(label, **fields)


def said(label: str, by: str = "model", name: str = "m", **fields: Any) -> FeatureLabel:
    """A label with little more than its words."""
    plain = FeatureLabel(17, label, author={"kind": by, "name": name}, date="2026-01-31T12:00:00Z", origin="shipped")
    return replace(plain, **fields)


def a_record(*labels: FeatureLabel, feature: int = 17, sae_hash: str = HASH, evidence: Any = None) -> FeatureRecord:
    return FeatureRecord(SAE, sae_hash, feature, in_order(labels), evidence)


def written(folder: Path, label: FeatureLabel | None = None) -> Path:
    return save_label(label or a_label(), SAE, HASH, folder)


# ---------------------------------------------------------------------------------------------------- for hypothesis

WORDS = ["anger", "at", "the", "reader", "<b>", "«x»", "it's", "yes", "0x1f", "12:30", "#1"]
words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=5)
dates = st.sampled_from(["", "2026-01-31", "2026-01-31T12:00:00Z", "2026-02-01T00:00:00Z"])
unit = st.floats(-1, 1, width=32)
breakdowns = st.just({"random": {"value": 0.5, "interval": [0.25, 0.75]}, "neighbours": None})
scores = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["detection_auroc", "fuzzing_auroc"]),
        "value": unit,
        "interval": st.none() | st.lists(unit, min_size=2, max_size=2).map(sorted),
    },
    optional={
        "balanced_accuracy": unit,
        "balanced_interval": st.just([0.5, 0.75]),
        "by": st.just("glove") | breakdowns,
        "n": st.integers(0, 500) | st.just({"positives": 3, "negatives": 4}),
    },
)


@st.composite
def labels(draw: st.DrawFn, feature: int = 17) -> FeatureLabel:
    kind = draw(st.sampled_from(["human", "model", "offline"]))
    categories = draw(st.dictionaries(st.just("evil"), st.sampled_from(["insulting_language", "unclear"])))
    return a_label(
        feature,
        label=" ".join(draw(words)),
        explanation=draw(st.text(max_size=20)),
        categories=categories,
        category_confidence={trait: draw(st.floats(0, 1, width=32)) for trait in categories if draw(st.booleans())},
        author={"kind": kind, "name": draw(st.sampled_from(["Ada", "m"]))} | draw(st.sampled_from([{}, {"method": "few-shot"}])),
        date=draw(dates),
        status=draw(st.sampled_from(["proposed", "disputed", "rejected"] + ["confirmed"] * (kind == "human"))),
        score=draw(st.none() | scores),
        scores=tuple(draw(st.lists(scores, max_size=2))),
        evidence_hash=draw(st.sampled_from(["", "12" * 32])),
        evidence=None,
        notes=draw(st.text(max_size=20)),
        confidence=draw(st.none() | st.floats(0, 1, width=32)),
    )


@st.composite
def records(draw: st.DrawFn, feature: int = 17) -> FeatureRecord:
    return a_record(*draw(st.lists(labels(feature), min_size=1, max_size=4)), feature=feature)
