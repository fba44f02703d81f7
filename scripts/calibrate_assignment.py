"""How sure is the assignment of a label to a category? Fits the two constants, tests them on held-out phrases, keeps both.

    python scripts/calibrate_assignment.py            # rewrites workbench/labeling/taxonomy/data/calibration.json (2 minutes)
    python scripts/calibrate_assignment.py --print    # computes and prints, writes nothing

The phrases are in workbench/labeling/taxonomy/data/phrases.yaml. A phrase is never tested on a category vector that it is an
example of (left out, one at a time), nor with constants that were fitted on its own trait (the other traits' phrases fit them).
"Words" are category vectors made without examples, as for a taxonomy that somebody adds. The constants that ship are fitted on
all traits. MiniLM on a CPU in float32; another machine agrees to about three decimals.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch
from torch import Tensor

from workbench.base.provenance import provenance
from workbench.base.store import sha256_file, write_json
from workbench.labeling.embedders import MINILM_ASSET, load_minilm
from workbench.labeling.taxonomy.assignment import Embedder, category_vectors
from workbench.labeling.taxonomy.calibration import CALIBRATION, NONE, HeldOut, fit_calibration, reliability
from workbench.labeling.taxonomy.phrases import (
    PHRASES,
    assignable,
    category_phrases,
    none_phrases,
    taxonomy_hash,
)
from workbench.models.assets import find_asset
from workbench.personas.traits import Trait, load_trait

TRAITS = ("apathetic", "evil", "hallucinating", "humorous", "impolite", "optimistic", "sycophantic")
STATISTIC = "cosine of MiniLM embeddings, softmax over categories and none of these"


def phrases_of(trait: Trait) -> tuple[str, ...]:
    """All phrases that the trait is tested on: category by category, then those of nothing."""
    return (*(phrase for phrases in category_phrases(trait).values() for phrase in phrases), *none_phrases(trait))


def cosines(trait: Trait, embed: Embedder) -> dict[str, tuple[Tensor, Tensor]]:
    """(cosines [n, C], targets [n]) of a trait's phrases, with and without examples in the category vectors."""
    categories, examples = assignable(trait), category_phrases(trait)
    targets = torch.tensor([k for k, c in enumerate(categories) for _ in examples[c.id]] + [NONE] * len(none_phrases(trait)))
    own = embed(phrases_of(trait))
    written, whole = category_vectors(categories, {}, embed), category_vectors(categories, examples, embed)
    with_phrases = own @ whole.T
    for k, category in enumerate(categories):
        for place, phrase in zip((targets == k).nonzero()[:, 0], examples[category.id], strict=True):
            others = {category.id: [other for other in examples[category.id] if other != phrase]}
            with_phrases[place, k] = own[place] @ category_vectors([category], others, embed)[0]
    return {"phrases": (with_phrases, targets), "words": (own @ written.T, targets)}


def remembering(embed: Embedder) -> Embedder:
    """The same embedder, each text read once."""
    known: dict[str, Tensor] = {}

    def embedded(texts: Any) -> Tensor:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        known.update(zip(new, embed(new), strict=True))
        return torch.stack([known[text] for text in texts])

    return embedded


def tested(found: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """Each trait with the constants of the others, and all of them together."""
    held_out = {}
    for name, (values, targets) in found.items():
        constants = fit_calibration([pair for other, pair in found.items() if other != name])
        held_out[name] = HeldOut(phrases_of(load_trait(name)), constants.probabilities(values), targets)
    each = {name: reliability([item]).to_dict() for name, item in held_out.items()}
    return {"all": reliability(list(held_out.values())).to_dict(), **each}


def main() -> None:
    """Fit, test, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--print", action="store_true", dest="only_print", help="write nothing")
    chosen = parser.parse_args()
    embed = remembering(load_minilm())
    found = {name: cosines(load_trait(name), embed) for name in TRAITS}
    kinds = {kind: {name: pairs[kind] for name, pairs in found.items()} for kind in ("phrases", "words")}
    constants = {kind: vars(fit_calibration(list(sets.values()))) for kind, sets in kinds.items()}
    inputs = {"phrases": sha256_file(PHRASES), MINILM_ASSET: find_asset(MINILM_ASSET).tree_sha256}
    inputs |= {f"taxonomy of {name}": taxonomy_hash(load_trait(name)) for name in TRAITS}
    value = {
        "schema": 1,
        "statistic": STATISTIC,
        "constants": {kind: {key: round(x, 5) for key, x in values.items()} for kind, values in constants.items()},
        "held_out": {kind: tested(sets) for kind, sets in kinds.items()},
        "_made": provenance(seed=0, inputs=inputs, command="python scripts/calibrate_assignment.py"),
    }
    print(json.dumps({"constants": value["constants"], **{k: v["all"] for k, v in value["held_out"].items()}}, indent=2))
    if not chosen.only_print:
        print(write_json(CALIBRATION, value))


if __name__ == "__main__":
    main()
