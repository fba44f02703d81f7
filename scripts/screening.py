"""What docs/evidence/screening.json holds: does the screen find trait-bearing samples among ordinary ones, and does it help?

    workbench extract --all --samples 4 --dtype bfloat16 --batch-size 64    # the seven vectors and the placebo contrasts
    python scripts/evidence.py screening                                    # everything that is missing, then the file
    python scripts/screening.py ordinary | score | finetune                 # one part of it; kept under runs/screening

Bearing: replies under a trait's positive instructions to questions that its vector has not seen (verification and sealed), with
the instruction taken out. Ordinary: the model's own replies to the same questions, without any instruction; and the neutral
replies of the other traits' runs. Harder others: replies under placebo instructions (pirate, formal, terse, ...), and those under
other traits' positive instructions. Nothing is chosen on these questions.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from workbench.base.provenance import made
from workbench.base.randomness import derive_seed, generator
from workbench.base.store import atomic_write, read_json, sha256_file, write_json

ROOT = Path(__file__).resolve().parents[1]
EVIDENCE, IMAGES = ROOT / "docs" / "evidence" / "screening.json", ROOT / "docs" / "images"
RUNS, MODEL, SEED, DTYPE = ROOT / "runs", "smollm2-135m-instruct", 0, "bfloat16"
WORK = RUNS / "screening"
TRAITS = ("apathetic", "evil", "hallucinating", "humorous", "impolite", "optimistic", "sycophantic")
N_ORDINARY, MAX_NEW_TOKENS = 3, 64


def vector_of(trait: str) -> Any:
    """The trait's vector with its rows."""
    from workbench.personas.vectors import PersonaVector

    return PersonaVector.load(RUNS / f"{trait}-{MODEL}" / "vector")


def unseen(trait: str) -> Any:
    """The rows of the questions that the trait's vector was not made from."""
    rows = vector_of(trait).rows
    return rows[(rows["split"] != "extraction") & (rows["n_tokens"] > rows["n_sinks"])]


# --------------------------------------------------------------------------------------------------------- ordinary replies


def ordinary() -> dict[str, list[dict[str, str]]]:
    """{trait: [{question, response}]}: the model's own replies to the unseen questions, N_ORDINARY each, sampled once."""
    from workbench.models.loading import load_model

    missing = [trait for trait in TRAITS if not _ordinary_file(trait).is_file()]
    model = load_model(MODEL, dtype=DTYPE) if missing else None
    for trait in missing:
        write_json(_ordinary_file(trait), _sampled(model, sorted(set(unseen(trait)["question"]))))
    return {trait: read_json(_ordinary_file(trait)) for trait in TRAITS}


def _ordinary_file(trait: str) -> Path:
    return WORK / "ordinary" / f"{trait}.json"


def _sampled(model: Any, questions: list[str]) -> list[dict[str, str]]:
    from workbench.models.generation import generate
    from workbench.models.sampling import Sampling
    from workbench.personas.reencoding import prompt_tokens

    asked = [(question, sample) for question in questions for sample in range(N_ORDINARY)]
    prompts = [prompt_tokens(model, "", question) for question, _ in asked]
    seeds = [derive_seed("ordinary", SEED, *one) for one in asked]
    found: list[dict[str, str]] = [{} for _ in asked]
    for indices, rows in generate(model, prompts, Sampling(max_new_tokens=MAX_NEW_TOKENS), row_seeds=seeds, batch_size=64):
        for index, row in zip(indices, rows, strict=True):
            found[index] = {"question": asked[index][0], "response": row.text}
    return [one for one in found if one["response"].strip()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("ordinary",))
    parser.parse_args()
    print({trait: len(rows) for trait, rows in ordinary().items()})


if __name__ == "__main__":
    main()
