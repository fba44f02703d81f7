"""What docs/evidence/audit.json holds: do the features that make up a trait's vector do what the vector does?

    workbench extract --all --samples 4 --dtype bfloat16 --batch-size 64    # the seven vectors
    python scripts/evidence.py audit                                        # some 20 CPU minutes per trait that is new
    python scripts/audit_evidence.py --trait evil                           # one trait, printed; kept under runs/audit

Traits are kept one by one under runs/audit and taken up again as long as vector, SAE, settings and code version stand.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from workbench.base.provenance import made
from workbench.base.store import read_json, sha256_file

ROOT = Path(__file__).resolve().parents[1]
EVIDENCE, IMAGES = ROOT / "docs" / "evidence" / "audit.json", ROOT / "docs" / "images"
RUNS, MODEL, SEED, DTYPE = ROOT / "runs", "smollm2-135m-instruct", 0, "bfloat16"
TRAITS = ("apathetic", "evil", "hallucinating", "humorous", "impolite", "optimistic", "sycophantic")
N_FEATURES, N_CONTROLS = 30, 39
SCREENED = WITH_ANSWERS = ("evil",)
N_TOP = 10


def evidence() -> dict[str, Any]:
    """{traits: {name: {behaviour, and of SCREENED persona_effect, totals, agreement, top, answers}}}; draws
    docs/images/audit_<trait>.svg."""
    from workbench.reports.audit import audit_figure

    started = time.perf_counter()
    traits = {}
    for trait in TRAITS:
        found = audited(trait)
        audit_figure(found["behaviour"], found.get("screen")).save(IMAGES / f"audit_{trait}.svg")
        traits[trait] = summary(found)
    inputs = {trait: _vector_hash(trait) for trait in TRAITS}
    header = made("make evidence TOPIC=audit", SEED, time.perf_counter() - started, inputs)
    return {"_made": header, "n_features": N_FEATURES, "n_controls": N_CONTROLS, "traits": traits}


def evidence_quick() -> bool:
    """Whether evil's effect at that dose comes back within its stated interval, and the first features keep as much of it."""
    stated = read_json(EVIDENCE)["traits"]["evil"]["behaviour"]
    found = behaviour_of("evil", *loaded("evil"))
    low, high = stated["vector"]["interval"]
    print({name: (value["vector"]["odd"], value["k"]) for name, value in (("stated", stated), ("found", found))})
    return low <= found["vector"]["odd"] <= high and found["k"] == stated["k"]


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """What the evidence file keeps of one trait."""
    screened, judged = found.get("screen"), found.get("answers")
    if screened is None:
        return {"behaviour": found["behaviour"]}
    names = ("feature", "sign", "methods", "odd", "interval", "p", "specific", "predicted", "kl", "put_back", "mediated")
    top = sorted(screened["features"], key=lambda row: -row["odd"])[:N_TOP]
    rows = [{name: row[name] for name in names} for row in top]
    if judged:
        for row in rows:
            row["points"] = {key: judged["directions"][str(row["feature"])][key] for key in ("odd", "interval", "coherence")}
    return {
        "behaviour": found["behaviour"],
        **{name: screened[name] for name in ("persona_effect", "totals", "agreement", "n_pairs", "balance")},
        "top": rows,
        "answers": judged and {
            "judge": judged["judge"], "n_questions": judged["n_questions"], "unsteered": judged["unsteered"],
            "vector": judged["directions"]["vector"],
            "controls": [judged["directions"][str(row["feature"])]["odd"] for row in screened["controls"][:10]],
        },
    }  # fmt: skip


def audited(trait: str) -> dict[str, Any]:
    """{screen, behaviour, answers}: made now, or kept from before."""
    from workbench.cli.remembered import remembered
    from workbench.decomposition.causal.screen import screen
    from workbench.personas.traits import load_trait
    from workbench.saes.registry import load_sae

    place, known = RUNS / "audit" / f"{trait}-{MODEL}", []
    texts = load_trait(trait).hash
    sources = {"vector": _vector_hash(trait), "trait": texts, "sae": load_sae().weights_hash, "seed": SEED, "dtype": DTYPE}

    def ready() -> tuple[Any, ...]:
        if not known:
            known.extend(loaded(trait))
        return tuple(known)

    def screened() -> dict[str, Any]:
        parts, sae, model, traits_files, _ = ready()
        return screen(parts, model, sae, traits_files, n_features=N_FEATURES, n_controls=N_CONTROLS, seed=SEED)

    found = {"behaviour": remembered(place / "behaviour.json", sources, lambda: behaviour_of(trait, *ready()))}
    sizes = sources | {"features": N_FEATURES, "controls": N_CONTROLS}
    if trait in SCREENED:
        found["screen"] = remembered(place / "screen.json", sizes, screened)
    if trait in WITH_ANSWERS:
        found["answers"] = remembered(place / "answers.json", sizes, lambda: answered(place, found["screen"], *ready()))
    return found


def loaded(trait: str) -> tuple[Any, Any, Any, Any, Any]:
    """(decomposition, SAE, model, the trait's texts, vector)."""
    from workbench.decomposition.decompose import decompose
    from workbench.models.loading import load_model
    from workbench.personas.traits import load_trait
    from workbench.personas.vectors import PersonaVector
    from workbench.saes.registry import load_sae

    vector, sae = PersonaVector.load(RUNS / f"{trait}-{MODEL}" / "vector"), load_sae()
    return decompose(vector, sae, causal=False, seed=SEED), sae, load_model(MODEL, dtype=DTYPE), load_trait(trait), vector


def behaviour_of(trait: str, parts: Any, sae: Any, model: Any, texts: Any, vector: Any) -> dict[str, Any]:
    """The behavioural audit of one trait."""
    from workbench.decomposition.causal.audit import audit, sampled_tokens

    return audit(parts, model, sae, texts, sampled_tokens(vector, sae.hook, model), seed=SEED)


def answered(place: Path, screened: dict[str, Any], parts: Any, sae: Any, model: Any, texts: Any, vector: Any) -> dict[str, Any]:
    """The judge's points under every screened feature, ten controls and the vector itself."""
    from workbench.decomposition.causal.steered import screened_answers
    from workbench.personas.judges import make_judge

    judge, filtered_by = make_judge("offline-outcome", trait=texts), vector.evidence.get("judge")
    return screened_answers(
        parts, model, sae, texts, screened, judge, filtered_by=filtered_by, folder=place / "answers", seed=SEED
    )


def _vector_hash(trait: str) -> str:
    return sha256_file(RUNS / f"{trait}-{MODEL}" / "vector" / "persona_vector.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trait", choices=TRAITS, required=True)
    print(json.dumps(summary(audited(parser.parse_args().trait)), indent=1))


if __name__ == "__main__":
    main()
