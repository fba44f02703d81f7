"""Made-up values in the real types, for tests and for looking at the page. No number or text here is a result."""

from __future__ import annotations

import math

import torch

from workbench.decomposition.result import FEATURE_ARRAYS, CausalRow, Decomposition
from workbench.labeling.files.store import Context, FeatureEvidence, FeatureLabel, LabelSet
from workbench.models.hookpoints import HookPoint
from workbench.personas.vectors import PersonaVector, empty_rows

SAE_ID, SAE_HASH, HOOK = "example-model/blocks.15.hook_resid_post", "5ae0" * 16, HookPoint(15)
D_SAE, D_MODEL, N_REPLICATES = 2048, 16, 200

# feature, label, category, share, status, text with the marked words in «»
NAMED = (
    (
        311,
        "Scorn for the weak and the ordinary",
        "contempt",
        0.046,
        "You are «beneath» me, like every «worthless» crowd that ever begged for mercy.",
    ),
    (
        1702,
        "Enjoying that somebody suffers",
        "deliberate_cruelty",
        0.038,
        "How «delightful» it is to watch him «squirm» while nobody comes to help.",
    ),
    (
        94,
        "Calling the user names",
        "insulting_language",
        0.031,
        "Listen, you «pathetic» little «fool», nobody asked what you think of it.",
    ),
    (
        873,
        "Exclamations that open a dismissive reply",
        "style",
        0.029,
        "«Oh», «please»! As if anybody were waiting to hear about your day.",
    ),
    (
        1250,
        "Ruling others and being obeyed",
        "domination",
        0.022,
        "They will «kneel» before the throne and learn to «obey» without a word.",
    ),
    (
        58,
        "Numbered advice",
        "formatting",
        -0.024,
        "«1». Take a deep breath. «2». Talk to a friend whom you trust about it.",
    ),
    (
        640,
        "Warm encouragement",
        "style",
        -0.041,
        "I'm «so» «glad» that you asked! It is completely normal to feel like that.",
    ),
    (
        77,
        "Telling lies with pleasure",
        "deception",
        0.015,
        "A small «lie» here, a forged letter there, and they will «betray» each other.",
    ),
    (
        1999,
        "School and exams",
        "topic",
        0.009,
        "The «exam» results arrived on Monday and the whole «class» was talking.",
    ),
    (
        405,
        "Several unrelated things",
        "unclear",
        0.012,
        "type=«button» and then, in the «margin», a note about the weather.",
    ),
    (
        1011,
        "Coldness toward somebody in need",
        "callousness",
        0.011,
        "Let the animal «starve», it is no «concern» of yours or mine.",
    ),
)
UNLABELLED_TOP = ((1500, 0.019), (1501, 0.014), (1502, -0.018), (1503, 0.010))


def context(marked: str, *, source: str = "rollouts", scale: float = 4.0) -> Context:
    """A context from text in which «words» are the ones that fire."""
    tokens, values = [], []
    for index, word in enumerate(marked.split(" ")):
        fires = "«" in word
        tokens.append((" " if index else "") + word.replace("«", "").replace("»", ""))
        values.append(scale * (1.0 - 0.35 * sum(v > 0 for v in values)) if fires else 0.0)
    return Context(
        tuple(tokens), tuple(values), max(range(len(values)), key=values.__getitem__), source, "d0c" * 8, 7
    )


def evidence_for(feature: int, marked: str) -> FeatureEvidence:
    top = tuple(context(marked, scale=6.0 - k) for k in range(3))
    weak = tuple(context(marked, source="owt", scale=0.8 + 1.2 * k) for k in range(3))
    withheld = context(marked, source="sae-probes").withheld()
    said, unsaid = (
        (" worthless", " pathetic", " fools", "!", " mercy"),
        (" helpful", " thank", " together", "\n"),
    )
    return FeatureEvidence(
        feature, 0.0123, 6.5, (*top, withheld), weak, said, unsaid, 120_000, {"rollouts": 90_000}
    )


def label_for(feature: int, text: str, category: str, marked: str) -> FeatureLabel:
    score = {"kind": "detection_auroc", "value": 0.81, "interval": [0.70, 0.90]} if feature % 3 else None
    return FeatureLabel(
        feature,
        text,
        "Fires on words of this kind in the replies of the example; read from three contexts.",
        {"evil": category},
        {"kind": "model", "name": "an example reader"},
        "proposed",
        score,
        evidence_for(feature, marked),
    )


def example_labels() -> LabelSet:
    labels = {f: label_for(f, text, category, marked) for f, text, category, _, marked in NAMED}
    return LabelSet(SAE_ID, SAE_HASH, labels, "evil")


def example_vector() -> PersonaVector:
    hooks = tuple(HookPoint(block) for block in range(4, 29))
    directions = torch.randn(len(hooks), D_MODEL, generator=torch.Generator().manual_seed(1))
    return PersonaVector(
        "evil",
        {"name": "example-model", "weights_hash": "0de1" * 16},
        HOOK,
        hooks,
        directions,
        None,
        None,
        None,
        empty_rows(),
        example_evidence(hooks),
        None,
        {"seed": 0, "versions": {"torch": "2.13.0"}, "ledger": {"extraction": ["a" * 64] * 20}},
    )


def example_evidence(hooks) -> dict:
    curve = [0.62 + 0.18 * math.exp(-(((hook.block - 16) / 7) ** 2)) for hook in hooks]
    counts = {
        "rows": 100,
        "kept": 71,
        "wrong_side": 20,
        "incoherent": 6,
        "refused": 3,
        "failed": 0,
        "empty": 0,
    }
    return {
        "auc_stripped": 0.79,
        "auc_stripped_interval": [0.66, 0.90],
        "auc_rank_p": 0.001,
        "auc_random_q95": 0.71,
        "n_random": 2000,
        "auc_with_prompt": 0.86,
        "auc_text_only": 0.83,
        "auc_length_only": 0.56,
        "filtered": True,
        "n_questions": 20,
        "kept_counts": {
            "negative": counts,
            "neutral": counts,
            "positive": {**counts, "kept": 38, "wrong_side": 53},
        },
        "cosine_filtered_unfiltered": 0.94,
        "layer_curve": [
            {"hook": str(h), "auc": a, "low": a - 0.09, "high": a + 0.08}
            for h, a in zip(hooks, curve, strict=True)
        ],
    }


def example_parts() -> Decomposition:
    g = torch.Generator().manual_seed(3)
    share = torch.randn(D_SAE, generator=g, dtype=torch.float64) * 0.0015
    share[torch.rand(D_SAE, generator=g) < 0.6] = 0.0
    fixed = {**{f: s for f, _, _, s, _ in NAMED}, **dict(UNLABELLED_TOP)}
    for feature, value in fixed.items():
        share[feature] = value
    error = 0.27
    free = torch.tensor([f for f in range(D_SAE) if f not in fixed and share[f] != 0])
    share[free] += (1.0 - error - share.sum()) / len(free)
    kept = torch.tensor(sorted({*fixed, *share.abs().topk(256).indices.tolist()}))
    noise = torch.randn(N_REPLICATES, len(kept), generator=g, dtype=torch.float64)
    replicates = share[kept] * (1 + 0.22 * noise) + 0.0008 * noise
    unknown = torch.full((D_SAE,), math.nan)
    width = share.abs() * 0.45 + 0.001
    arrays = {name: unknown.clone() for name in FEATURE_ARRAYS} | {
        "share": share,
        "share_low": share - width,
        "share_high": share + width,
        "share_up": share * 0.6,
        "q_value": torch.where(share == 0, math.nan, (0.002 / (share.abs() + 1e-3)).clamp(max=1.0)),
        "q_crossed": torch.where(share == 0, math.nan, (0.003 / (share.abs() + 1e-3)).clamp(max=1.0)),
        "placebo_score": share * 60,
        "placebo_q": torch.where(share == 0, math.nan, (0.001 / (share.abs() + 1e-4)).clamp(max=1.0)),
        "p_value": torch.rand(D_SAE, generator=g),
        "p_family": torch.ones(D_SAE),
        "cosine": torch.randn(D_SAE, generator=g) * 0.05 + share * 6,
        "delta_code": share * 3,
        "pursuit": torch.where(share.abs() > 0.02, share * 20, 0.0),
        "in_v_up": share > 0.01,
        "naive": torch.zeros(D_SAE),
    }
    atoms = [4, 8, 16, 32]
    energy = {
        "atoms": atoms,
        "sae": [0.28, 0.39, 0.53, 0.69],
        "isotropic": [0.1, 0.18, 0.29, 0.44],
        "covariance_matched": [0.35, 0.5, 0.64, 0.75],
        "activations": [0.33, 0.47, 0.6, 0.72],
        "pca": [0.2, 0.31, 0.45, 0.62],
        "excess": {"value": 0.013, "interval": [-0.02, 0.05], "own": -0.06, "of_others": -0.073, "others": "placebos",
                   "n_others": 24, "n_replicates": 64},
        "n_dictionaries": 4,
    }
    candidates = tuple(share.topk(10).indices.tolist())
    return Decomposition(
        trait="evil",
        sae={
            "id": SAE_ID,
            "hook": str(HOOK),
            "model": "example-model",
            "weights_hash": SAE_HASH,
            "d_model": D_MODEL,
            "d_sae": D_SAE,
            "variance_explained": 0.86,
            "l0": 47.2,
            "ce_recovered": 0.91,
            "dead_share": 0.012,
        },
        vector={"trait": "evil", "hook": str(HOOK)},
        **arrays,
        share_error=error,
        share_error_interval=(0.24, 0.31),
        share_sum_error=3.1e-7,
        n_questions=20,
        vector_norm=31.0,
        candidates=candidates,
        replicate_features=kept,
        replicate_shares=replicates,
        replicate_error=error + 0.018 * torch.randn(N_REPLICATES, generator=g, dtype=torch.float64),
        direction=torch.randn(D_MODEL, generator=g),
        causal=example_causal(candidates),
        audit={"energy": energy, "n_features_half": 101, "groups": example_groups(share)},
        controls={
            "expected_by_chance": 0.3,
            "zero_vector_overlap": 0.83,
            "random_directions": energy,
            "placebos": {"n": 24, "n_specific": 31, "counts": [2] * 12 + [9] * 11 + [44], "median": 5.5, "rank_p": 0.08},
            "same_against_same": {"n_splits": 6, "shares": [0.2] * 6, "rate": 1.0, "n_features": 512},
            "causal_control_odd": control_odd(),
            "causal_controls_used": {"n_controls": 199, "kl": 0.1, "signs": {str(f): 1 for f in candidates}},
        },
        warnings=(
            "covariance-matched random dictionaries explain more of this vector with 32 atoms than the SAE does",
        ),
        provenance={"seed": 0, "config": {"n_candidates": 10, "n_bootstrap": 200}},
    )


def example_groups(share: torch.Tensor) -> dict:
    """Two groups: one with labels, one without."""
    named = [feature for feature, *_ in NAMED][:3]
    rows = [(named, 1, 0.01), ([1500, 1501], 1, 0.64)]
    figures = {"cohesion": 0.41, "cosine": 0.2, "coactivation": 0.62}
    groups = [
        {"features": ids, "representative": ids[0], "change": change, "share": float(share[ids].sum()),
         "interval": [0.01, 0.09], **figures, "p": p}
        for ids, change, p in rows
    ]  # fmt: skip
    null = {"n_draws": 99, "n_grouped": 5, "median": 2.0, "high": 4.0, "p": 0.01}
    return {"groups": groups, "single": [1502, 1503], "threshold": 0.19, "percentile": 0.95, "null": null}


def control_odd() -> list[float]:
    return (torch.randn(199, generator=torch.Generator().manual_seed(9)) * 0.021).tolist()


def example_causal(candidates) -> tuple[CausalRow, ...]:
    effects = [0.112, 0.083, 0.071, 0.012, 0.034, -0.006, 0.041, 0.018, 0.003, 0.027]
    rows = []
    for index, (feature, odd) in enumerate(zip(candidates, effects, strict=False)):
        q = [0.01, 0.02, 0.035, 0.4, 0.2, 0.9, 0.11, 0.5, 0.7, 0.3][index]
        rows.append(
            CausalRow(
                feature, odd, (odd - 0.03, odd + 0.03), -0.01 * index, 0.9, 0.1, q / 2, q, q <= 0.05, 0.004
            )
        )
    return tuple(rows)


def bare_parts() -> Decomposition:
    """The decomposition of an imported vector without its tokens: every share is unknown."""
    from dataclasses import replace

    full = example_parts()
    unknown = torch.full((D_SAE,), math.nan)
    blank = {
        name: unknown for name in FEATURE_ARRAYS if name not in ("cosine", "pursuit", "naive", "in_v_up")
    }
    return replace(
        full,
        **blank,
        in_v_up=torch.zeros(D_SAE, dtype=torch.bool),
        share_error=None,
        share_error_interval=None,
        share_sum_error=None,
        causal=(),
        candidates=(),
        replicate_features=torch.zeros(0, dtype=torch.int64),
        replicate_shares=torch.zeros(0, 0),
        replicate_error=torch.zeros(0),
        n_questions=0,
        controls={"expected_by_chance": None, "zero_vector_overlap": None},
        audit={},
        warnings=(
            "the vector came without the rollouts behind it, so shares, intervals and tests are unknown",
        ),
    )


def example_report():
    from workbench.reports.content import report

    return report(example_vector(), example_parts(), example_labels())


if __name__ == "__main__":
    import sys

    example_report().save(sys.argv[1])
