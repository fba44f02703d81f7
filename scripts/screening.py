"""What docs/evidence/screening.json holds: does the screen find trait-bearing samples among ordinary ones, and does it help?

    workbench extract --all --samples 4 --dtype bfloat16 --batch-size 64    # the seven vectors and the placebo contrasts
    python scripts/evidence.py screening                                    # everything that is missing, then the file
    python scripts/screening.py ordinary | score | detect                   # one part of it; kept under runs/screening

What a filter does to a model that is fine-tuned on the data is screening_tuning.py's.

Bearing: replies under a trait's positive instructions to questions that its vector has not seen (verification and sealed), with
the instruction taken out. Ordinary: the model's own replies to the same questions, without any instruction; and the neutral
replies of the other traits' runs. Harder others: replies under placebo instructions (pirate, formal, terse, ...), and those under
other traits' positive instructions. The vectors know nothing of these questions; but that the cheap form is the default of the
screen was decided after both forms were seen on them, so both are told.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from workbench.base.provenance import made
from workbench.base.randomness import derive_seed
from workbench.base.store import atomic_write, read_json, sha256_file, write_json

ROOT = Path(__file__).resolve().parents[1]
EVIDENCE, IMAGES = ROOT / "docs" / "evidence" / "screening.json", ROOT / "docs" / "images"
RUNS, MODEL, SEED, DTYPE = ROOT / "runs", "smollm2-135m-instruct", 0, "bfloat16"
WORK = RUNS / "screening"
TRAITS = ("apathetic", "evil", "hallucinating", "humorous", "impolite", "optimistic", "sycophantic")
N_ORDINARY, N_BEARING, N_DROPPED, N_NEUTRAL, N_PLACEBO, N_RANDOM = 3, 6, 30, 30, 4, 1000
MAX_NEW_TOKENS, N_BOOTSTRAP, MIN_SAMPLES = 64, 1000, 10


def vector_of(trait: str) -> Any:
    """The trait's vector with its rows."""
    from workbench.personas.vectors import PersonaVector

    return PersonaVector.load(RUNS / f"{trait}-{MODEL}" / "vector")


def unseen(trait: str) -> Any:
    """The rows of the questions that the trait's vector was not made from."""
    rows = vector_of(trait).rows
    return rows[(rows["split"] != "extraction") & (rows["n_tokens"] > rows["n_sinks"])]


# --------------------------------------------------------------------------------------------------------- ordinary replies


def ordinary(traits: Sequence[str] = TRAITS) -> dict[str, list[dict[str, str]]]:
    """{trait: [{question, response}]}: the model's own replies to the unseen questions, N_ORDINARY each, sampled once."""
    from workbench.models.loading import load_model

    missing = [trait for trait in traits if not _ordinary_file(trait).is_file()]
    model = load_model(MODEL, dtype=DTYPE) if missing else None
    for trait in missing:
        write_json(_ordinary_file(trait), _sampled(model, sorted(set(unseen(trait)["question"]))))
    return {trait: read_json(_ordinary_file(trait)) for trait in traits}


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
        drawn = chosen.sort_values("id").assign(kept=False).sample(N_PLACEBO, random_state=SEED)
        found += _records(drawn, "placebo", folder.parent.name)
    return found


FORMS: dict[Any, str] = {"prompt": "scores-prompt", "own": "scores"}
"""What replies are compared with (the first is the default of the screen), and where the scores are kept."""


def scored() -> tuple[Any, dict[str, Any]]:
    """(pool, {form: its scores along all seven traits}): read once per form, kept under runs/screening."""
    from workbench.models.loading import load_model
    from workbench.personas.placebos import PlaceboVectors
    from workbench.saes.registry import load_sae
    from workbench.steering.screen.scoring import ScreenOptions, score_samples

    rows, data = pool(), WORK / "pool.jsonl"
    pairs = zip(rows["question"], rows["response"], strict=True)
    text = "".join(json.dumps({"prompt": question, "response": reply}) + "\n" for question, reply in pairs)
    if not data.is_file() or data.read_text(encoding="utf-8") != text:
        atomic_write(data, text)
    placebos, model, sae = PlaceboVectors.load(RUNS / f"placebos-{MODEL}"), load_model(MODEL, dtype=DTYPE), load_sae()
    vectors = [vector_of(trait) for trait in TRAITS]
    return rows, {
        form: score_samples(data, model, vectors, folder=WORK / folder, sae=sae, placebos=placebos,
                            options=ScreenOptions(against=form, n_random=N_RANDOM, seed=SEED, batch_tokens=4096, batch_size=64))
        for form, folder in FORMS.items()
    }  # fmt: skip


# ----------------------------------------------------------------------------------------------------------------- detection


SHARES = (0.01, 0.05, 0.10, 0.25, 0.50)
FALSE_POSITIVES = 0.05


def detection(rows: Any, found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """{trait: figures of the default form, and in `own` those of the other}: AUROC of bearing against ordinary samples, with
    everything that it has to beat; see `_detected`."""
    told: dict[str, dict[str, Any]] = {}
    for trait in TRAITS:
        told[trait] = _detected(trait, rows, found["prompt"])
        own = _detected(trait, rows, found["own"])
        told[trait]["planted"] = {"prompt": told[trait]["planted"]["vector"], "own": own.pop("planted")["vector"],
                                  "text": told[trait]["planted"]["text"]}  # fmt: skip
        told[trait]["own"] = {key: one for key, one in own.items() if key not in ("text", "length", "share_missed_by_text")}
    return told


def _detected(trait: str, rows: Any, found: Any) -> dict[str, Any]:
    """`same_questions`: ordinary replies to the same questions only. `sealed`: of these, the sealed ones. `missed_by_text`:
    bearing samples that words leave below their 95th percentile of ordinary ones. `against_*`: other others. `not_kept`: replies
    under the positive instructions that the judge did not keep. In each, `vector` beside `text`."""
    import numpy as np
    import torch

    from workbench.steering.screen.evaluation import (
        auroc,
        either_way,
        null_summary,
        planted_precision,
        unit_counts,
    )

    samples, kinds = _samples(trait, found)
    usable, mine, kind = samples.scored, (rows["trait"] == trait).to_numpy(), rows["kind"].to_numpy()
    bearing, same = usable & mine & (kind == "bearing"), usable & mine & (kind == "ordinary")
    ordinary = same | (usable & ~mine & (kind == "neutral"))
    score, question = torch.from_numpy(samples.score), rows["question"].to_numpy()
    sealed = (rows["split"] == "sealed").to_numpy()

    def compared(others: Any, bears: Any = bearing) -> dict[str, Any]:
        chosen = bears | others
        labels, counts = torch.from_numpy(bears[chosen]), unit_counts(question[chosen].tolist(), N_BOOTSTRAP, SEED)
        both = {name: auroc(score[column][chosen], labels, counts) for column, name in enumerate(("vector", "text"))}
        return {**both, "n_bearing": int(bears.sum()), "n_others": int(others.sum())}

    chosen = bearing | ordinary
    labels, counts = torch.from_numpy(bearing[chosen]), unit_counts(question[chosen].tolist(), N_BOOTSTRAP, SEED)
    main, areas = compared(ordinary), either_way(score[2:][:, chosen], labels)
    missed = bearing & (samples.score[1] <= np.quantile(samples.score[1][ordinary], 1 - FALSE_POSITIVES))
    return {
        "auroc": main["vector"]["value"], "interval": main["vector"]["interval"], "n_bearing": main["n_bearing"],
        "n_others": main["n_others"], "n_questions": len(set(question[bearing])), "text": main["text"],
        "length": auroc(torch.from_numpy(samples.n_tokens[chosen]), labels, counts),
        **{name: null_summary(main["vector"]["value"], areas[[k == name for k in kinds]]) for name in ("placebo", "random")},
        "same_questions": compared(same), "sealed": compared(same & sealed, bearing & sealed),
        "missed_by_text": compared(ordinary, missed) if missed.sum() >= MIN_SAMPLES else None,
        "share_missed_by_text": float(missed.sum() / bearing.sum()),
        "against_placebo_replies": compared(usable & (kind == "placebo")),
        "against_other_traits": compared(usable & ~mine & (kind == "bearing")),
        "not_kept": compared(ordinary, usable & mine & (kind == "dropped")),
        "planted": {
            name: {f"{share:.2f}": planted_precision(score[column][chosen], labels, share, counts) for share in SHARES}
            for column, name in enumerate(("vector", "text"))
        },
    }  # fmt: skip


def _samples(trait: str, found: Any) -> tuple[Any, list[str]]:
    """Scores of every sample along the trait, by its words, and along the directions of the nulls, whose kinds come with them."""
    from workbench.personas.placebos import PlaceboVectors
    from workbench.steering.screen.columns import PLACEBO, RANDOM, TEXT, TRAIT

    placebos = PlaceboVectors.load(RUNS / f"placebos-{MODEL}")
    unrelated = {placebos.names[i] for i in placebos.unrelated(trait)}
    nulls = [c for c in found.columns if c.kind == RANDOM or (c.kind == PLACEBO and c.name in unrelated)]
    columns = [found.column(TRAIT, trait), found.column(TEXT, trait), *nulls]
    return found.samples("max", columns), [c.kind for c in nulls]


# ----------------------------------------------------------------------------------------------------------------- the file


def evidence() -> dict[str, Any]:
    """{screening: {trait: figures}, planted: {trait: {form: {share: precision}}}, features}."""
    started = time.perf_counter()
    rows, found = scored()
    told = detection(rows, found)
    planted = {trait: one.pop("planted") for trait, one in told.items()}
    draw(told)
    inputs = {trait: sha256_file(RUNS / f"{trait}-{MODEL}" / "vector" / "persona_vector.json") for trait in TRAITS}
    inputs["placebos"] = sha256_file(RUNS / f"placebos-{MODEL}" / "placebo_vectors.json")
    inputs["pool"] = sha256_file(WORK / "pool.jsonl")
    header = made("make evidence TOPIC=screening", SEED, time.perf_counter() - started, inputs)
    return {"_made": header, "n_random": N_RANDOM, "counts": rows["kind"].value_counts().to_dict(), "screening": told,
            "planted": planted, "features": features(found["prompt"])}  # fmt: skip


def evidence_quick() -> bool:
    """Whether evil's AUROC on freshly read replies to its sealed questions comes back within the stated interval."""
    import torch

    from workbench.models.loading import load_model
    from workbench.personas.vectors import PersonaVector
    from workbench.steering.screen.evaluation import auroc, unit_counts
    from workbench.steering.screen.scoring import ScreenOptions, score_samples

    stated, rows = read_json(EVIDENCE)["screening"]["evil"]["same_questions"]["vector"], pool()
    rows = rows[(rows["trait"] == "evil") & rows["kind"].isin(["bearing", "ordinary"]) & (rows["split"] == "sealed")]
    data, vector = WORK / "quick.jsonl", PersonaVector.load(RUNS / f"evil-{MODEL}" / "vector")
    lines = [json.dumps({"prompt": q, "response": r}) for q, r in zip(rows["question"], rows["response"], strict=True)]
    atomic_write(data, "\n".join(lines) + "\n")
    found = score_samples(data, load_model(MODEL, dtype=DTYPE), [vector], folder=WORK / "quick",
                          options=ScreenOptions(against="prompt", n_random=0))  # fmt: skip
    labels = torch.tensor((rows["kind"] == "bearing").to_numpy())
    counts = unit_counts(rows["question"].tolist(), 100, SEED)
    value = auroc(torch.from_numpy(found.samples().score[0]), labels, counts)["value"]
    print({"stated": stated["value"], "interval": stated["interval"], "found on the sealed half": value})
    return stated["interval"][0] <= value <= stated["interval"][1]


def features(found: Any) -> dict[str, Any]:
    """Per trait the features that set the highest twentieth of the pool apart, and how much of it features make."""
    from workbench.labeling.files.store import load_labels
    from workbench.saes.registry import load_sae
    from workbench.steering.screen.screening import screen

    sae = load_sae()
    result = screen(found, percentile=95, sae=sae, labels=load_labels(sae.id, sae_hash=sae.weights_hash), n_top=3, seed=SEED)
    return {trait: {"explained": one.explained, "top": [asdict(row) for row in one.contrast[:8]]}
            for trait, one in result.accounts.items()}  # fmt: skip


def draw(told: dict[str, dict[str, Any]]) -> None:
    """docs/images/screening.svg: every trait's AUROC with what it has to beat."""
    from workbench.reports.steering.screen import detection_figure

    detection_figure(told).save(IMAGES / "screening.svg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("ordinary", "score", "detect"))
    part = parser.parse_args().part
    if part == "ordinary":
        print({trait: len(rows) for trait, rows in ordinary().items()})
    elif part == "score":
        rows, found = scored()
        print(rows["kind"].value_counts().to_dict(), list(found))
    else:
        print(json.dumps(detection(*scored()), indent=1))


if __name__ == "__main__":
    main()
