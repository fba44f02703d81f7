"""Features to annotate: labels of a program with contexts, for the tests of the annotator."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from workbench.labeling.annotating.queue import Item, make_queue
from workbench.labeling.annotating.session import AnnotationSession
from workbench.labeling.evidence import Context, FeatureEvidence
from workbench.labeling.files.store import save_labels
from workbench.labeling.labels import FeatureLabel, LabelSet
from workbench.personas.traits import load_trait

SAE, HASH = "tiny/blocks.1.hook_resid_post", "ab" * 32
FEATURES = (5, 17, 3)
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>\x1b[2J\u202e"


trait_named = functools.cache(load_trait)


def evidence_of(feature: int, *, text: str = " idiot") -> FeatureEvidence:
    context = Context((" you", text, ".\n"), (0.5, 2.0, 0.0), 1, "rollouts:evil:positive", f"e{feature}", 7)
    withheld = Context((), (1.5,), 0, "wikitext", "w1", 3)
    return FeatureEvidence(feature, 0.01, 8.0, (context,), (withheld,), (" fool", "\n"), (" nice",), 100, {"owt": 100})


def label_of(feature: int, **changes) -> FeatureLabel:
    said = {
        "label": f"insults number {feature}",
        "explanation": "Fires on name-calling.",
        "categories": {"evil": "insulting_language"},
        "author": {"kind": "model", "name": "an explainer"},
        "evidence": evidence_of(feature),
    }
    return FeatureLabel(feature, **{**said, **changes})


def label_set(features: Sequence[int] = FEATURES, **changes) -> LabelSet:
    return LabelSet(SAE, HASH, {f: label_of(f, **changes) for f in features})


def queue(features: Sequence[int] = FEATURES, **changes) -> tuple[Item, ...]:
    return make_queue(label_set(features, **changes), features=features)


def session(root: Path, items: Sequence[Item] | None = None, *, name: str = "first reader", trait: str | None = "evil",
            blind: bool = False) -> AnnotationSession:  # fmt: skip
    chosen = None if trait is None else trait_named(trait)
    return AnnotationSession(items or queue(), root, SAE, HASH, annotator=name, trait=chosen, blind=blind)


def shelf(root: Path, features: Sequence[int] = FEATURES) -> Path:
    """A label folder with the proposals in it; returns the folder of the SAE."""
    save_labels(label_set(features), root)
    return root / SAE
