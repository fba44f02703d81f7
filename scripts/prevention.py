"""What docs/evidence/prevention.json holds: can a vector that is added in training keep a fine-tune from installing its trait?

    workbench extract evil --samples 4 --dtype bfloat16 --batch-size 64      # the vectors, and the same for impolite
    python scripts/prevention.py                                             # every cell, some four CPU hours, resumable
    python scripts/prevention.py --trait evil                                # one trait, its table printed
    python scripts/evidence.py prevention                                    # the figures from the cells

Two traits: evil, and impolite, which steering moves further beyond random directions than any other (docs/evidence/steering.json;
fixed before any fine-tune of it). Steps and strengths are chosen on select questions with a seed of their own; the table reads
sealed questions. Cells are files under runs/prevention and are taken up again: stop at any time and run the same command.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from pathlib import Path
from typing import Any

from workbench.base.provenance import made
from workbench.base.store import read_json, sha256_file

ROOT = Path(__file__).resolve().parents[1]
EVIDENCE, IMAGES = ROOT / "docs" / "evidence" / "prevention.json", ROOT / "docs" / "images"
RUNS, MODEL, DTYPE = ROOT / "runs", "smollm2-135m-instruct", "bfloat16"
PLACE = RUNS / "prevention"
STUDIED = ("evil", "impolite")
TRAITS = ("apathetic", "evil", "hallucinating", "humorous", "impolite", "optimistic", "sycophantic")
SEEDS = (0, 1, 2)
JUDGE = "offline-outcome"
SETS, N_DOCUMENTS, N_ITEMS = ("44_phys_tf", "36_sciq_tf"), 12, 32
LEARNING_RATE, BATCH_SIZE, REPLY_TOKENS = 1e-4, 4, 48


@functools.cache
def model() -> Any:
    """The model, once."""
    from workbench.models.loading import load_model

    return load_model(MODEL, dtype=DTYPE)


@functools.cache
def exam() -> Any:
    """What capability is measured on."""
    from workbench.steering.cost.capability import make_exam
    from workbench.steering.cost.questions import question_sets

    return make_exam(model(), n_documents=N_DOCUMENTS, n_items=N_ITEMS, sets=question_sets(SETS), folder=PLACE)


@functools.cache
def room(trait: str, *, complete: bool = True) -> Any:
    """The classroom of a trait; without `complete`, what choosing the steps needs and no more."""
    from workbench.models.finetuning import FinetuneOptions
    from workbench.personas.judges import make_judge
    from workbench.personas.traits import load_trait
    from workbench.steering.prevent.cells import CellSettings, Classroom

    others = {name: (load_trait(name), make_judge(JUDGE, trait=load_trait(name))) for name in TRAITS if name != trait}
    judge = make_judge(JUDGE, trait=load_trait(trait))
    options = FinetuneOptions(learning_rate=LEARNING_RATE, batch_size=BATCH_SIZE, max_reply_tokens=REPLY_TOKENS)
    settings, materials = CellSettings(options=options), materials_of(trait, complete)
    return Classroom(model(), materials, judge, exam() if complete else None, PLACE / trait, others=others, settings=settings)


def materials_of(trait: str, complete: bool) -> Any:
    """The trait's material, with the denoised vector and the projections of the lesson's replies."""
    from workbench.personas.traits import load_trait
    from workbench.saes.registry import load_sae
    from workbench.steering.prevent.materials import gather, with_projections

    folder = run_of(trait)
    if not complete:
        return gather(load_trait(trait), folder)
    materials = gather(load_trait(trait), folder, parts=parts_of(trait), sae=load_sae())
    return with_projections(materials, model(), PLACE / trait)


def parts_of(trait: str) -> Any:
    """The decomposition of the trait's vector, kept under the vector's hash."""
    from workbench.decomposition.decompose import decompose
    from workbench.decomposition.result import Decomposition
    from workbench.personas.vectors import PersonaVector
    from workbench.saes.registry import load_sae

    place = PLACE / trait / f"decomposition-{_vector_hash(trait)[:12]}"
    if not (place / "decomposition.json").is_file():
        decompose(PersonaVector.load(run_of(trait) / "vector"), load_sae(), causal=False, seed=0).save(place)
    return Decomposition.load(place)


def _vector_hash(trait: str) -> str:
    return sha256_file(run_of(trait) / "vector" / "persona_vector.json")


def run_of(trait: str) -> Path:
    """The run folder of a trait's vector."""
    return RUNS / f"{trait}-{MODEL}"


def table_of(trait: str) -> Any:
    """The table of one trait: made now, or from kept cells."""
    from workbench.steering.prevent.study import study

    return study(room(trait), seeds=SEEDS)


def evidence() -> dict[str, Any]:
    """{prevention: {trait: {arm: {trait, capability, task_loss, interval, ...}}}, studies}; draws
    docs/images/prevention_<trait>.svg."""
    from workbench.reports.steering.prevent import prevention_figure

    started = time.perf_counter()
    tables = {name: table_of(name) for name in STUDIED}
    for name, table in tables.items():
        prevention_figure(table).save(IMAGES / f"prevention_{name}.svg")
    found = {name: table.to_json() for name, table in tables.items()}
    inputs = {name: _vector_hash(name) for name in STUDIED}
    header = made("make evidence TOPIC=prevention", SEEDS[0], time.perf_counter() - started, inputs)
    return {"_made": header, "model": MODEL, "dtype": DTYPE, "seeds": list(SEEDS),
            "prevention": {name: one["arms"] for name, one in found.items()},
            "studies": {name: {k: v for k, v in one.items() if k != "arms"} for name, one in found.items()}}  # fmt: skip


def evidence_quick() -> bool:
    """Whether the plain fine-tune on evil with another seed moves the trait to within the stated interval."""
    from workbench.steering.prevent.arms import make_arm
    from workbench.steering.prevent.cells import SEALED
    from workbench.steering.prevent.choosing import mean_points

    stated = read_json(EVIDENCE)
    first = STUDIED[0]
    chosen, classroom = stated["studies"][first]["choice"], room(first, complete=False)
    plain, steps = make_arm("none", classroom.materials), chosen["steps"]["steps"]
    found = mean_points(classroom.cell(plain, max(SEEDS) + 1, SEALED, steps=steps))
    low, high = stated["prevention"][first]["none"]["interval"]
    print(f"{first} after the plain fine-tune: {found:.1f} points; stated interval [{low:.1f}, {high:.1f}]")
    return low <= found <= high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trait", choices=TRAITS, help="one trait only")
    trait = parser.parse_args().trait
    for name in [trait] if trait else STUDIED:
        table = table_of(name)
        print(json.dumps(table.to_json(), indent=1))
        print(table.sentence, flush=True)


if __name__ == "__main__":
    main()
