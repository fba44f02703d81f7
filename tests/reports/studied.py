"""More made-up values in the real types: views, an audit, checks and a second trait for the example. Nothing here is a result."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from tests.reports.example import (
    D_SAE,
    HOOK,
    NAMED,
    SAE_HASH,
    SAE_ID,
    context,
    example_labels,
    example_parts,
    example_vector,
)
from workbench.decomposition.falsify import Falsification
from workbench.decomposition.falsify.criteria import Check
from workbench.decomposition.result import Decomposition
from workbench.labeling.labels import FeatureLabel, FeatureRecord, LabelSet
from workbench.labeling.views.values import Direction, Near, Partner, Tally, TokenValue, Typical, Usual
from workbench.labeling.views.view import FeatureView
from workbench.personas.vectors import PersonaVector
from workbench.reports.belonging import identity
from workbench.reports.content import Report, report

VECTOR_HASH = "ec70" * 16
USUAL = Usual(*(Typical(0.3, 0.6, 100) for _ in range(4)))


def known_parts() -> Decomposition:
    """The example's decomposition of a vector with a hash, so that studies can say whose they are."""
    parts = example_parts()
    return replace(parts, vector={**parts.vector, "model": {"name": "example-model"}, "sha256": VECTOR_HASH})


def example_views() -> dict[int, FeatureView]:
    """A view of every labelled feature, with contexts that may be shown and one that may not."""
    return {feature: example_view(feature, text) for feature, _, _, _, text in NAMED}


def example_view(feature: int, text: str) -> FeatureView:
    owt = replace(context(text, source="owt", scale=3.0), document=f"owt-{feature}")
    mine = tuple(
        replace(context(text, source="rollouts:evil:positive", scale=2.0 - k / 4), document=f"{feature}-{k}") for k in range(9)
    )
    foreign = replace(context(text, source="wikipedia", scale=5.0), document=f"wiki-{feature}")
    near = (Near(94, 0.5), Near(77, 0.31))
    words = tuple(TokenValue(word, 1.5 - k / 10) for k, word in enumerate((" worthless", " fool", " beg")))
    return FeatureView(
        feature=feature,
        sae={"id": SAE_ID, "weights_hash": SAE_HASH, "hook": str(HOOK)},
        model="example-model",
        density=0.012,
        max_activation=5.0,
        n_tokens=90_000,
        contexts={"corpus": (foreign, owt), "chat": (), "rollouts": mine},
        direction=Direction(near, (Near(640, -0.4),), words, tuple(replace(w, value=-w.value) for w in words)),
        usual=USUAL,
        histogram=((1.0, 1.19, 40), (1.19, 1.41, 22), (4.76, 5.66, 2)),
        by_position=(Tally("0", 400, 3, 0.0075, 1.1, (0.003, 0.02), 400), Tally("1-3", 1200, 20, 0.0167, 1.3, (0.01, 0.03), 400)),
        by_role=(Tally("assistant", 9000, 400, 0.044, 1.9, (0.03, 0.06), 300), Tally("user", 400, 1, 0.003, 1.2, (0, 0.01), 99)),
        by_trait={"evil": (Tally("positive", 5000, 300, 0.06, 2.0, (0.05, 0.08), 20),
                           Tally("negative", 5000, 20, 0.004, 1.2, (0.001, 0.01), 20))},
        partners=(Partner(94, 0.4, 0.02, 120),),
        missing={"ablation": "not asked for"},
    )  # fmt: skip


def example_audit(parts: Decomposition) -> dict[str, Any]:
    """Two studies that say that they are of `parts`."""
    curve = [{"k": k, "cosine": 0.3 + k / 200, "energy": k / 200, "odd": 0.2, "kept": 0.4 + k / 250} for k in (2, 8, 32, 128)]
    mixed = {"mean": 0.7, "most": 0.9, "n": 19, "p": 0.05, "difference": 0.1, "interval": [-0.05, 0.2]}
    denoised = {"k": 32, "cosine": 0.75, "effect_kept": 0.88, "interval": [0.7, 1.0], "mixtures_kept": mixed,
                "compared_at": 1.0, "coherence_gain": 0.02, "kl_ratio": 0.9}  # fmt: skip
    whole = {"odd": 0.49, "interval": [0.39, 0.6], "control_odd": 0.17, "damage": -0.07, "kl": 0.36}
    sides = {"vector": 0.49, "features": 0.3, "rest": 0.1, "error": 0.05}
    behaviour = {"dose_norms": 0.25, "vector": whole, "curve": curve, "k": 32, "denoised": denoised,
                 "parts": {"k": 32, "natural": sides, "equal_dose": sides, "norms": sides}, "of": identity(parts)}  # fmt: skip
    return {"behaviour": behaviour, "screen": None, "answers": None, "second_sae": None}


def example_falsification(parts: Decomposition) -> Falsification:
    """One check that failed and one that passed."""
    checks = (
        Check("length", "Is it length?", "fail", "AUC", 0.8, "at most", 0.7, "length alone does as well", "rule 2"),
        Check("format", "Is it lists?", "pass", "share", 0.1, "at most", 0.2, "few lists", "rule 2"),
    )
    return Falsification(parts.trait, {"sha256": parts.vector.get("sha256"), "trait": parts.trait}, dict(parts.sae), checks)


def example_history() -> LabelSet:
    """A store with a second, older and a third, rejected label of feature 311."""
    newest = example_labels()[311]
    older = replace(newest, label="Being rude", author={"kind": "offline", "name": "tokens"}, date="2026-01-02")
    gone = replace(newest, label="Kings", author={"kind": "human", "name": "a reader"}, status="rejected", date="2026-02-03")
    record = FeatureRecord(SAE_ID, SAE_HASH, 311, (older, gone, replace(newest, date="2026-03-04")))
    return LabelSet(SAE_ID, SAE_HASH, {311: newest}, records={311: record})


def full_report() -> Report:
    """The example with everything that a report can hold."""
    parts = known_parts()
    return report(
        example_vector(), parts, example_labels(), views=example_views(), audit=example_audit(parts),
        falsification=example_falsification(parts), history=example_history(),
    )  # fmt: skip


def other_trait(name: str = "impolite") -> tuple[PersonaVector, Decomposition, LabelSet]:
    """Another trait on the same SAE: six features in common with the example, the rest of its own."""
    parts, vector = known_parts(), example_vector()
    g = torch.Generator().manual_seed(len(name))
    share = parts.share.clone()
    share[: D_SAE // 2] = share[: D_SAE // 2][torch.randperm(D_SAE // 2, generator=g)]
    direction = parts.direction + torch.randn(parts.direction.shape, generator=g)
    change = parts.delta_code * torch.where(torch.rand(D_SAE, generator=g) < 0.2, -1.0, 1.0)
    common = [feature for feature, *_ in NAMED[:6]]
    placebo_q = parts.placebo_q[torch.randperm(D_SAE, generator=g)]
    placebo_q[common], change[common] = parts.placebo_q[common], parts.delta_code[common]
    parts = replace(parts, trait=name, share=share, direction=direction, delta_code=change, placebo_q=placebo_q, causal=(),
                    candidates=(), vector={**parts.vector, "trait": name, "sha256": name * 4})  # fmt: skip
    labels = LabelSet(SAE_ID, SAE_HASH, {f: _under(one, name) for f, one in example_labels().labels.items()}, name)
    return replace(vector, trait=name), parts, labels


def _under(label: FeatureLabel, trait: str) -> FeatureLabel:
    return replace(label, categories={trait: "topic"})

