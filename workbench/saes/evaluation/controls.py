"""Every claim beside the same claim of dictionaries that should not support it: control SAEs and random directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workbench.base.randomness import derive_seed, generator
from workbench.saes.evaluation.dictionaries import RANDOM_KINDS

N_BOOTSTRAP = 1000
CLAIMS = {
    "variance_explained": "variance explained, mean over the text sets",
    "ce_recovered": "cross-entropy recovered, mean over the text sets",
    "probe_auc_k1": "AUC of the best single feature, mean over labelled sets",
    "probe_auc_k16": "AUC of 16 features, mean over labelled sets",
    "persona_probe_auc": "AUC of at most 32 features, positive against negative arm, mean over traits",
    "expression_32": "energy of persona vectors in 32 signed atoms, mean over traits",
}
SOFT_FROZEN, RANDOMISED, CORPUS_ONLY = "soft_frozen", "randomised_weights", "corpus_only"


def items(evaluation: Mapping[str, Any], claim: str, name: str) -> list[float]:
    """The claim of the dictionary `name`, one number per text set, labelled set or trait; [] where it was not measured."""
    if claim in ("variance_explained", "ce_recovered"):
        own = name == evaluation["sae"]
        sets = evaluation.get("held_out") if own else (evaluation.get("control_fitness") or {}).get(name)
        return [one[claim] for one in (sets or {}).values()]
    if claim.startswith("probe_auc_k"):
        sets = (evaluation.get("probing") or {}).get("per_set") or {}
        found = [(one.get(name) or {}).get(claim.removeprefix("probe_auc_k")) for one in sets.values()]
    elif claim == "persona_probe_auc":
        traits = [one for one in (evaluation.get("personas") or {}).get("traits", []) if one["measured"]]
        found = [(one["dictionaries"].get(name) or {}).get("auc") for one in traits]
    else:
        table = evaluation.get("expression") or {}
        n_atoms = int(claim.removeprefix("expression_"))
        place = table["n_atoms"].index(n_atoms) if n_atoms in table.get("n_atoms", ()) else None
        rows = table.get("per_vector", {}).values() if place is not None else ()
        found = [row[name][place] for row in rows if name in row]
    return [value for value in found if value is not None]


def excess(evaluation: Mapping[str, Any], control: str, *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """{claim: {sae, control, excess, interval, n}}: the SAE's claim minus the control's, on the same sets or traits.

    The interval (95%, None under three items) draws the items with replacement: a claim of the SAE stands only where it
    excludes 0. Source of the rule: random and barely trained dictionaries match trained SAEs on many measures
    (arXiv 2602.14111).
    """
    found: dict[str, dict[str, Any]] = {}
    for claim in CLAIMS:
        own, other = items(evaluation, claim, evaluation["sae"]), items(evaluation, claim, control)
        n = min(len(own), len(other))
        if not n or len(own) != len(other):
            continue
        differences = [mine - theirs for mine, theirs in zip(own, other, strict=True)]
        found[claim] = {
            "sae": sum(own) / n,
            "control": sum(other) / n,
            "excess": sum(differences) / n,
            "interval": paired_interval(differences, seed=seed),
            "n": n,
        }
    return found


def paired_interval(differences: Sequence[float], *, seed: int = 0) -> list[float] | None:
    """The 95% bootstrap interval of the mean of paired differences; None for fewer than three."""
    import torch

    from workbench.maths.statistics import percentile_interval

    if len(differences) < 3:
        return None
    values, random = torch.tensor(differences, dtype=torch.float64), generator(derive_seed("excess", seed))
    drawn = values[torch.randint(len(values), (N_BOOTSTRAP, len(values)), generator=random)].mean(1)
    low, high = percentile_interval(drawn)
    return [float(low), float(high)]


def all_excesses(evaluation: Mapping[str, Any], kinds: Mapping[str, str], *, seed: int = 0) -> dict[str, Any]:
    """{"over": {control: its kind and claims}, "over_soft_frozen": {claim: excess} or None}.

    `kinds` gives the kind of every control SAE by name; random dictionaries are always among the controls.
    """
    named = {**kinds, **{kind: kind for kind in RANDOM_KINDS}}
    over = {name: {"kind": kind, "claims": excess(evaluation, name, seed=seed)} for name, kind in named.items()}
    over = {name: one for name, one in over.items() if one["claims"]}
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

    plan = card.get("plan") or {}
    if plan.get("weights") == "shuffled":
        return RANDOMISED
    training = plan.get("training") or {}
    tethers = training.get("architecture", TrainingConfig.architecture) in TOPK_FAMILY  # the others pass over a tether
    if tethers and (training.get("tether") or 0) >= 0.8:
        return SOFT_FROZEN
    if plan.get("data") == "corpus":
        return CORPUS_ONLY
    name = id.lower().replace("-", "_")
    known = {"frozen": SOFT_FROZEN, "shuffled": RANDOMISED, "randomised": RANDOMISED, "corpus": CORPUS_ONLY}
    return next((kind for word, kind in known.items() if word in name and not (training and kind == SOFT_FROZEN)), "other")
