"""What docs/evidence/comparison.json holds: groups of features, seven traits side by side, one vector on several SAEs.

    workbench extract --all --samples 4 --dtype bfloat16 --batch-size 64                    # the vectors and placebos
    workbench sae train saes/smollm2-135m-instruct/recipe.yaml --out runs/saes              # for the other seed
    python scripts/evidence.py comparison

Decompositions are kept under runs/comparison as long as vector and SAE stand.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from workbench.base.provenance import made
from workbench.base.store import plain, read_json, sha256_file

ROOT = Path(__file__).resolve().parents[1]
EVIDENCE = ROOT / "docs" / "evidence" / "comparison.json"
RUNS, MODEL, SEED = ROOT / "runs", "smollm2-135m-instruct", 0
TRAITS = ("apathetic", "evil", "hallucinating", "humorous", "impolite", "optimistic", "sycophantic")
DEFAULT, SMALLER = f"{MODEL}/blocks.15.hook_resid_post", f"{MODEL}/blocks.15.hook_resid_post-4k"
OTHERS = {"another seed": "controls/4k-seed1", "soft-frozen": "controls/4k-soft-frozen"}
TRAIT = "evil"


def evidence() -> dict[str, Any]:
    """{groups: {trait: counts}, pairs, own, common, remainders, dictionaries: {name: both sides}}."""
    from workbench.decomposition.comparison.compare import compare
    from workbench.saes.registry import load_sae

    started = time.perf_counter()
    default = load_sae(DEFAULT)
    parts = {trait: decomposed(trait, default, "default") for trait in TRAITS}
    traits = plain(compare(list(parts.values()), [default] * len(parts), seed=SEED).to_json())
    inputs = {trait: _vector_hash(trait) for trait in TRAITS}
    return {
        "_made": made("make evidence TOPIC=comparison", SEED, time.perf_counter() - started, inputs),
        "groups": {trait: grouped(one.audit["groups"]) for trait, one in parts.items()},
        "pairs": [pair_row(row) for row in traits["pairs"]],
        "own": [{name: row[name] for name in ("trait", "n_specific", "n_own", "n_if_unrelated")} for row in traits["own"]],
        "common": traits["common"],
        "remainders": [{name: value for name, value in row.items() if not isinstance(value, list) or len(value) < 8}
                       for row in traits["remainders"]],
        "dictionaries": dictionaries(parts[TRAIT], default),
    }  # fmt: skip


def evidence_quick() -> bool:
    """Whether the cosine of two traits is as stated, and its parts sum to it."""
    from workbench.decomposition.comparison.compare import compare
    from workbench.saes.registry import load_sae

    stated = next(row for row in read_json(EVIDENCE)["pairs"] if row["traits"] == ["evil", "impolite"])
    default = load_sae(DEFAULT)
    found = compare([decomposed(trait, default, "default") for trait in stated["traits"]], [default] * 2, seed=SEED)
    pair = plain(found.to_json())["pairs"][0]
    print({name: (stated[name], pair[name]) for name in ("cosine", "error")})
    whole = pair["positive"] + pair["negative"] + pair["error"]
    return abs(pair["cosine"] - stated["cosine"]) < 1e-3 and abs(whole - pair["cosine"]) < 1e-5


def decomposed(trait: str, sae: Any, name: str) -> Any:
    """The decomposition of a trait's vector on an SAE, kept from before where both are the same."""
    from workbench.decomposition.decompose import decompose
    from workbench.decomposition.result import Decomposition
    from workbench.personas.vectors import PersonaVector

    place = RUNS / "comparison" / f"{name.replace(' ', '_')}-{trait}-{_vector_hash(trait)[:8]}-{sae.weights_hash[:8]}"
    if (place / "decomposition.json").is_file():
        return Decomposition.load(place)
    parts = decompose(PersonaVector.load(RUNS / f"{trait}-{MODEL}" / "vector"), sae, causal=False, seed=SEED)
    parts.save(place)
    return parts


def grouped(groups: dict[str, Any]) -> dict[str, Any]:
    """How many features are in groups, beside what matched features give."""
    sizes = [len(group["features"]) for group in groups["groups"]]
    small = sum(group["p"] <= 0.05 for group in groups["groups"])
    return {"n_groups": len(sizes), "n_small_p": small, "n_grouped": sum(sizes), "largest": max(sizes, default=0),
            "n_features": sum(sizes) + len(groups["single"]), "null": groups["null"]}  # fmt: skip


def pair_row(row: dict[str, Any]) -> dict[str, Any]:
    """One overlap without its list of contributors, but for the five largest."""
    return {**row, "contributors": row["contributors"][:5]}


def dictionaries(parts: Any, default: Any) -> dict[str, Any]:
    """The trait on the smaller SAE against another seed, a soft-frozen one, and the default one."""
    from workbench.decomposition.comparison.compare import compare
    from workbench.saes.registry import load_sae

    smaller = load_sae(SMALLER)
    own = decomposed(TRAIT, smaller, "smaller")
    pairs = {"another width": (parts, default)}
    for name, folder in OTHERS.items():
        other = load_sae(RUNS / "saes" / folder)
        pairs[name] = (decomposed(TRAIT, other, name), other)
    found = {}
    for name, (other, sae) in pairs.items():
        value = plain(compare([own, other], [smaller, sae], seed=SEED).to_json())
        for side in value["sides"]:
            side["sae"] = str(side["sae"]).removeprefix(f"{RUNS}/saes/")
            side["unmatched"] = side["unmatched"][:5]
        found[name] = {key: value[key] for key in ("threshold", "sides", "n_matched", "rank_correlation", "rank_of_changes")}
    return found


def _vector_hash(trait: str) -> str:
    return sha256_file(RUNS / f"{trait}-{MODEL}" / "vector" / "persona_vector.json")
