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
N_ORDINARY, N_BEARING, N_DROPPED, N_NEUTRAL, N_PLACEBO, N_RANDOM = 3, 6, 30, 30, 4, 1000
MAX_NEW_TOKENS = 64


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


# ------------------------------------------------------------------------------------------------------------------- the pool


def pool() -> Any:
    """One row per sample, in the order of runs/screening/pool.jsonl: kind, trait, split, question, response, kept."""
    import pandas as pd

    ordinary_replies = ordinary()
    rows: list[dict[str, Any]] = []
    for trait in TRAITS:
        met, asked = unseen(trait), vector_of(trait).rows
        split = dict(zip(asked["question"], asked["split"], strict=True))
        bearing = met[(met["arm"] == "positive") & met["response"].str.strip().astype(bool)]
        dropped = bearing[~bearing["kept"]].sample(N_DROPPED, random_state=SEED)
        drawn = bearing[bearing["kept"]].sample(frac=1, random_state=SEED).groupby("question").head(N_BEARING)
        rows += _records(drawn, "bearing", trait) + _records(dropped, "dropped", trait)
        rows += [{**one, "kind": "ordinary", "trait": trait, "split": split[one["question"]], "kept": False}
                 for one in ordinary_replies[trait]]  # fmt: skip
        neutral = asked[(asked["split"] == "extraction") & (asked["arm"] == "neutral") & (asked["response"].str.strip() != "")]
        rows += _records(neutral.sample(N_NEUTRAL, random_state=SEED), "neutral", trait)
    rows += _placebo_rows()
    return pd.DataFrame(rows).sample(frac=1, random_state=SEED).reset_index(drop=True)


def _records(frame: Any, kind: str, trait: str) -> list[dict[str, Any]]:
    columns = ["question", "response", "split", "kept"]
    return [{**row, "kind": kind, "trait": trait} for row in frame[columns].to_dict("records")]


def _placebo_rows() -> list[dict[str, Any]]:
    """Replies under the positive instructions of every placebo contrast."""
    import pandas as pd

    found = []
    for folder in sorted((RUNS / f"placebos-{MODEL}").glob("*/rollouts")):
        rows = pd.concat([pd.read_parquet(path) for path in sorted(folder.glob("part-*.parquet"))])
        chosen: Any = rows[(rows["arm"] == "positive") & (rows["response"].str.strip() != "")]
        found += _records(chosen.sort_values("id").assign(kept=False).sample(N_PLACEBO, random_state=SEED), "placebo", folder.parent.name)
    return found


def scored() -> tuple[Any, Any]:
    """(pool, its scores along all seven traits): read once, kept under runs/screening."""
    from workbench.models.loading import load_model
    from workbench.personas.placebos import PlaceboVectors
    from workbench.saes.registry import load_sae
    from workbench.steering.screen.scoring import ScreenOptions, score_samples

    rows, data = pool(), WORK / "pool.jsonl"
    text = "".join(json.dumps({"prompt": q, "response": r}) + "\n" for q, r in zip(rows["question"], rows["response"], strict=True))
    if not data.is_file() or data.read_text(encoding="utf-8") != text:
        atomic_write(data, text)
    placebos = PlaceboVectors.load(RUNS / f"placebos-{MODEL}")
    options = ScreenOptions(n_random=N_RANDOM, seed=SEED, batch_tokens=4096, batch_size=64)
    found = score_samples(data, load_model(MODEL, dtype=DTYPE), [vector_of(trait) for trait in TRAITS], folder=WORK / "scores",
                          sae=load_sae(), placebos=placebos, options=options)  # fmt: skip
    return rows, found


# ------------------------------------------------------------------------------------------- the trait after a fine-tuning


TUNED, SEEDS, STEPS, PLANTED = "evil", (0, 1), 40, 0.5
SETS = ("mixed", "filtered", "random", "clean")
"""The mixed set; without the half that the screen flags; without a random half; the ordinary samples alone."""


def training_sets() -> dict[str, list[dict[str, Any]]]:
    """{set: [{question, response, bearing}]}: kept positive replies to TUNED's verification questions among as many ordinary ones
    (own replies to the same questions, and neutral replies of the same run to others)."""
    from workbench.steering.screen.screening import screen

    rows, met = vector_of(TUNED).rows, unseen(TUNED)
    bearing = met[(met["split"] == "verification") & (met["arm"] == "positive") & met["kept"]]
    asked = set(bearing["question"])
    same = [one for one in read_json(_ordinary_file(TUNED)) if one["question"] in asked]
    neutral = rows[(rows["split"] == "extraction") & (rows["arm"] == "neutral") & (rows["response"].str.strip() != "")]
    more = neutral.sample(len(bearing) - len(same), random_state=SEED)
    samples = [{"question": r["question"], "response": r["response"], "bearing": True} for r in bearing.to_dict("records")]
    samples += [{**one, "bearing": False} for one in same]
    samples += [{"question": r["question"], "response": r["response"], "bearing": False} for r in more.to_dict("records")]
    order = torch_permutation(len(samples), "mixed")
    mixed = [samples[i] for i in order]
    found = screen(_screened(mixed), percentile=100 * (1 - PLANTED))
    filtered = [one for one, kept in zip(mixed, found.kept(), strict=True) if kept]
    drawn = sorted(torch_permutation(len(mixed), "random")[: len(filtered)])
    return {"mixed": mixed, "filtered": filtered, "random": [mixed[i] for i in drawn],
            "clean": [one for one in mixed if not one["bearing"]]}  # fmt: skip


def torch_permutation(n: int, name: str) -> list[int]:
    """A drawn order of n things."""
    import torch

    return torch.randperm(n, generator=generator(derive_seed("screening", name, SEED))).tolist()


def _screened(mixed: list[dict[str, Any]]) -> Any:
    from workbench.models.loading import load_model
    from workbench.steering.screen.scoring import ScreenOptions, score_samples

    data = WORK / f"mixed-{TUNED}.jsonl"
    lines = [json.dumps({"prompt": one["question"], "response": one["response"], "bearing": one["bearing"]}) for one in mixed]
    atomic_write(data, "\n".join(lines) + "\n")
    return score_samples(data, load_model(MODEL, dtype=DTYPE), [vector_of(TUNED)], folder=WORK / f"mixed-{TUNED}",
                         options=ScreenOptions(label_field="bearing", seed=SEED, batch_size=64))  # fmt: skip


def finetuned_cells() -> dict[str, dict[str, Any]]:
    """{"base": cell, "<set>-<seed>": cell}: one file per fine-tune, made where it is missing."""
    from workbench.models.loading import load_model

    missing = [name for name in ("base", *(f"{one}-{seed}" for seed in SEEDS for one in SETS)) if not _cell_file(name).is_file()]
    if missing:
        model, sets = load_model(MODEL, dtype=DTYPE), training_sets()
        for name in missing:
            write_json(_cell_file(name), _cell(name, model, sets))
    return {path.stem: read_json(path) for path in sorted((WORK / "finetuned").glob("*.json"))}


def _cell_file(name: str) -> Path:
    return WORK / "finetuned" / f"{name}.json"


def _cell(name: str, model: Any, sets: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    from workbench.models.finetuning import ChatExample, FinetuneOptions, finetune, finetuned

    started, tuned, loss, rows = time.perf_counter(), model, None, []
    if name != "base":
        which, seed = name.rsplit("-", 1)
        rows = sets[which]
        options = FinetuneOptions(steps=STEPS, learning_rate=1e-3, max_tokens=128, seed=int(seed))
        examples = [ChatExample.of(one["question"], one["response"]) for one in rows]
        adapter = finetune(model, examples, WORK / "adapters" / name, options, checkpoint_every=10)
        tuned, loss = finetuned(model, adapter), adapter.card.get("losses")
    return {**_measured(tuned), "losses": loss, "n": len(rows), "n_bearing": sum(one["bearing"] for one in rows),
            "seconds": round(time.perf_counter() - started)}  # fmt: skip


def _measured(model: Any) -> dict[str, Any]:
    """Judge B's points per sealed question, and per reply the loss of sealed bearing and ordinary replies in nats per token."""
    from workbench.models.finetuning import ChatExample, reply_losses
    from workbench.personas.judges import make_judge
    from workbench.personas.traits import load_trait
    from workbench.steering.cost.replies import Asking, judged, sample_replies

    trait, asking = load_trait(TUNED), Asking(splits=("sealed",), n_samples=4, seed=SEED)
    judge = make_judge("offline-outcome", trait=trait)
    replies = judged(sample_replies(model, trait, asking), model, trait, judge, filtered_by=vector_of(TUNED).evidence.get("judge"))
    met = unseen(TUNED)
    bearing = met[(met["split"] == "sealed") & (met["arm"] == "positive") & met["kept"]][["question", "response"]]
    asked = set(bearing["question"])
    held_out = {"bearing": bearing.to_dict("records"),
                "ordinary": [one for one in read_json(_ordinary_file(TUNED)) if one["question"] in asked]}  # fmt: skip
    losses = {
        kind: {"question": [one["question"] for one in rows],
               "loss": reply_losses(model, [ChatExample.of(one["question"], one["response"]) for one in rows]).tolist()}
        for kind, rows in held_out.items()
    }  # fmt: skip
    return {"points": replies.by_question("points").tolist(), "coherence": replies.by_question("coherence").tolist(),
            "losses_of": losses}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("ordinary", "score", "finetune"))
    part = parser.parse_args().part
    if part == "ordinary":
        print({trait: len(rows) for trait, rows in ordinary().items()})
    elif part == "score":
        rows, found = scored()
        print(rows.groupby(["kind", "trait"]).size().to_string(), found)
    else:
        print({name: (sum(cell["points"]) / len(cell["points"]), cell["seconds"]) for name, cell in finetuned_cells().items()})


if __name__ == "__main__":
    main()
