"""Every claim beside the same claim of dictionaries that should not support it: control SAEs and random directions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from workbench.saes.evaluation.dictionaries import RANDOM_KINDS
from workbench.saes.evaluation.gate import figure

LEAST_ITEMS = 4
"""Items that an interval needs: three differences say too little about their own spread for any interval to be believed."""
CLAIMS = {
    "variance_explained": "variance explained, mean over the text sets",
    "ce_recovered": "cross-entropy recovered, mean over the text sets",
    "probe_auc_k1": "AUC of the best single feature, mean over labelled sets",
    "probe_auc_k16": "AUC of 16 features, mean over labelled sets",
    "persona_probe_auc": "AUC of at most 32 features, positive against negative arm, mean over traits",
    "expression_32": "energy of persona vectors in 32 signed atoms, mean over traits",
}
SOFT_FROZEN, RANDOMISED, CORPUS_ONLY = "soft_frozen", "randomised_weights", "corpus_only"
OF_THE_DECODER = ("expression_32",)
"""Claims for which an SAE reads no activations of this model."""
SHIFTED = (
    "trained on a model with shuffled weights, whose activations this model never has: in fitness and probing it loses by the "
    "change of model alone, so that only what its decoder expresses is compared"
)


def items(evaluation: Mapping[str, Any], claim: str, name: str) -> dict[str, float]:
    """The claim of the dictionary `name` per text set (but the training corpus), labelled set or trait; {} if not measured."""
    if claim in ("variance_explained", "ce_recovered"):
        own = name == evaluation["sae"]
        sets = (evaluation.get("held_out") if own else (evaluation.get("control_fitness") or {}).get(name)) or {}
        found = {source: one[claim] for source, one in sets.items() if source != "corpus"}
    elif claim.startswith("probe_auc_k"):
        sets = (evaluation.get("probing") or {}).get("per_set") or {}
        found = {source: (one.get(name) or {}).get(claim.removeprefix("probe_auc_k")) for source, one in sets.items()}
    elif claim == "persona_probe_auc":
        traits = [one for one in (evaluation.get("personas") or {}).get("traits", []) if one["measured"]]
        found = {one["trait"]: (one["dictionaries"].get(name) or {}).get("auc") for one in traits}
    else:
        table = evaluation.get("expression") or {}
        n_atoms = int(claim.removeprefix("expression_"))
        place = table["n_atoms"].index(n_atoms) if n_atoms in table.get("n_atoms", ()) else None
        rows = table.get("per_vector", {}) if place is not None else {}
        found = {vector: row[name][place] for vector, row in rows.items() if name in row}
    return {item: value for item, value in found.items() if value is not None}


def excess(
    evaluation: Mapping[str, Any], control: str, *, claims: Sequence[str] = tuple(CLAIMS)
) -> dict[str, dict[str, Any]]:
    """{claim: {sae, control, excess, interval, n}}: the SAE's claim minus the control's, on the sets or traits of both.

    The interval is `paired_interval`: a claim of the SAE stands only where it excludes 0. Source of the rule: random and
    barely trained dictionaries match trained SAEs on many measures (arXiv 2602.14111).
    """
    found: dict[str, dict[str, Any]] = {}
    for claim in claims:
        own, other = items(evaluation, claim, evaluation["sae"]), items(evaluation, claim, control)
        both = [item for item in own if item in other]
        if not both:
            continue
        differences = [own[item] - other[item] for item in both]
        found[claim] = {
            "sae": sum(own[item] for item in both) / len(both),
            "control": sum(other[item] for item in both) / len(both),
            "excess": sum(differences) / len(both),
            "interval": paired_interval(differences),
            "n": len(both),
        }
    return found


def paired_interval(differences: Sequence[float]) -> list[float] | None:
    """The 95% interval of the mean of paired differences: mean -+ t(n - 1) s / sqrt(n).

    Student's t, for a percentile bootstrap of so few items is far too narrow: under a true null it excludes 0 in 15% to 27%
    of cases for 7 to 3 items. None under `LEAST_ITEMS`, and where all differences are the same: no spread was seen, and an
    interval of no width would claim certainty.
    """
    from scipy.special import stdtrit

    n = len(differences)
    if n < LEAST_ITEMS:
        return None
    mean = sum(differences) / n
    spread = math.sqrt(sum((one - mean) ** 2 for one in differences) / (n - 1))
    if spread <= 1e-9 * max(map(abs, differences)):
        return None
    half = float(stdtrit(n - 1, 0.975)) * spread / math.sqrt(n)
    return [mean - half, mean + half]


def all_excesses(evaluation: Mapping[str, Any], kinds: Mapping[str, str]) -> dict[str, Any]:
    """{"over": {control: its kind, claims, perhaps a note}, "over_soft_frozen": {claim: excess} or None}.

    `kinds` gives the kind of every control SAE by name; random dictionaries are always among the controls. An SAE of a model
    with shuffled weights is compared in what its decoder expresses only (`SHIFTED` says why).
    """
    named = {**kinds, **{kind: kind for kind in RANDOM_KINDS}}
    over: dict[str, dict[str, Any]] = {}
    for name, kind in named.items():
        shifted = kind == RANDOMISED
        claims = excess(evaluation, name, claims=OF_THE_DECODER if shifted else tuple(CLAIMS))
        if claims or shifted:
            over[name] = {"kind": kind, "claims": claims} | ({"note": SHIFTED} if shifted else {})
    frozen = [one["claims"] for one in over.values() if one["kind"] == SOFT_FROZEN]
    return {
        "over": over,
        "over_soft_frozen": {claim: one["excess"] for claim, one in frozen[0].items()} if frozen else None,
    }


def control_kind(card: Mapping[str, Any], id: str) -> str:
    """What kind of control an SAE is: "soft_frozen", "randomised_weights", "corpus_only" or "other".

    From the plan that training left in its card (shuffled weights, a decoder of the top-k family that keeps at least at cosine
    .8 with its start, corpus text only), else from the words in its name.
    """
    from workbench.saes.config import TOPK_FAMILY, TrainingConfig

    plan = card.get("plan")
    plan = plan if isinstance(plan, Mapping) else {}
    if plan.get("weights") == "shuffled":
        return RANDOMISED
    training = plan.get("training")
    training = training if isinstance(training, Mapping) else {}
    tethers = training.get("architecture", TrainingConfig.architecture) in TOPK_FAMILY  # the others pass over a tether
    if tethers and (figure(training, "tether") or 0) >= 0.8:
        return SOFT_FROZEN
    if plan.get("data") == "corpus":
        return CORPUS_ONLY
    name = id.lower().replace("-", "_")
    known = {"shuffled": RANDOMISED, "randomised": RANDOMISED, "frozen": SOFT_FROZEN, "corpus": CORPUS_ONLY}
    return next((kind for word, kind in known.items() if word in name and not (training and kind == SOFT_FROZEN)), "other")
