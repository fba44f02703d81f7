"""What docs/evidence/screening_tuning.json holds: what a model picks up from a data set with planted samples, and from the same
set after it was screened.

    workbench extract evil --samples 4 --dtype bfloat16 --batch-size 64    # evil's vector
    python scripts/evidence.py screening_tuning                            # eight fine-tunes, a CPU hour, resumable

Evil samples stand among as many ordinary ones; a model is fine-tuned on all of them, on what the screen leaves, on a random part
of the same size, and on the ordinary ones alone. One file per fine-tune under runs/screening/finetuned, made where it is missing.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from screening import DTYPE, MODEL, RUNS, SEED, WORK, ordinary, unseen, vector_of

from workbench.base.provenance import made
from workbench.base.randomness import derive_seed, generator
from workbench.base.store import atomic_write, read_json, sha256_file, write_json

EVIDENCE = Path(__file__).resolve().parents[1] / "docs" / "evidence" / "screening_tuning.json"

TUNED, SEEDS, STEPS, LEARNING_RATE, PLANTED = "evil", (0, 1), 40, 2e-4, 0.5
AGAINST = "prompt"
"""The form of the score that decides: the one that finds more (see `screening.detection`)."""
SETS = ("mixed", "filtered", "random", "clean")
"""The mixed set; without the half that the screen flags; without a random half; the ordinary samples alone."""


def evidence() -> dict[str, Any]:
    """{after_finetuning}: see `summary`."""
    started = time.perf_counter()
    cells = finetuned_cells()
    inputs = {TUNED: sha256_file(RUNS / f"{TUNED}-{MODEL}" / "vector" / "persona_vector.json")}
    header = made("make evidence TOPIC=screening_tuning", SEED, time.perf_counter() - started, inputs)
    return {"_made": header, "after_finetuning": summary(cells)}


def evidence_quick() -> bool:
    """Whether a fine-tune on the mixed set with one more seed moves judge B's points to within the stated interval."""
    import torch

    from workbench.models.loading import load_model

    stated, name = read_json(EVIDENCE)["after_finetuning"]["sets"]["mixed"]["points"], f"mixed-{max(SEEDS) + 1}"
    cell = _cell(name, load_model(MODEL, dtype=DTYPE), training_sets())
    base = read_json(_cell_file("base"))
    found = float(torch.tensor(cell["points"]).mean() - torch.tensor(base["points"]).mean())
    print({"stated": stated, "with another seed": found})
    return stated["interval"][0] <= found <= stated["interval"][1]


def training_sets() -> dict[str, list[dict[str, Any]]]:
    """{set: [{question, response, bearing}]}: kept positive replies to TUNED's verification questions among as many ordinary ones
    (own replies to the same questions, and neutral replies of the same run to others)."""
    from workbench.steering.screen.screening import screen

    rows, met = vector_of(TUNED).rows, unseen(TUNED)
    bearing = met[(met["split"] == "verification") & (met["arm"] == "positive") & met["kept"]]
    asked = set(bearing["question"])
    same = [one for one in ordinary((TUNED,))[TUNED] if one["question"] in asked]
    neutral = rows[(rows["split"] == "extraction") & (rows["arm"] == "neutral") & (rows["response"].str.strip() != "")]
    more = neutral.sample(len(bearing) - len(same), random_state=SEED)
    samples = [{"question": r["question"], "response": r["response"], "bearing": True} for r in bearing.to_dict("records")]
    samples += [{**one, "bearing": False} for one in same]
    samples += [{"question": r["question"], "response": r["response"], "bearing": False} for r in more.to_dict("records")]
    order = _permutation(len(samples), "mixed")
    mixed = [samples[i] for i in order]
    found = screen(_screened(mixed), percentile=100 * (1 - PLANTED))
    filtered = [one for one, kept in zip(mixed, found.kept(), strict=True) if kept]
    drawn = sorted(_permutation(len(mixed), "random")[: len(filtered)])
    return {"mixed": mixed, "filtered": filtered, "random": [mixed[i] for i in drawn],
            "clean": [one for one in mixed if not one["bearing"]]}  # fmt: skip


def _permutation(n: int, name: str) -> list[int]:
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
                         options=ScreenOptions(against=AGAINST, label_field="bearing", seed=SEED))  # fmt: skip


def finetuned_cells() -> dict[str, dict[str, Any]]:
    """{"base": cell, "<set>-<seed>": cell}: one file per fine-tune, made where it is missing."""
    from workbench.models.loading import load_model

    names = ("base", *(f"{one}-{seed}" for seed in SEEDS for one in SETS))
    _refuse_other_options(names[1:])
    missing = [name for name in names if not _cell_file(name).is_file()]
    if missing:
        model, sets = load_model(MODEL, dtype=DTYPE), training_sets()
        for name in missing:
            write_json(_cell_file(name), _cell(name, model, sets))
    return {path.stem: read_json(path) for path in sorted((WORK / "finetuned").glob("*.json"))}


def _refuse_other_options(names: tuple[str, ...]) -> None:
    """Cells are known by their names: those that were trained in another way than is stated here must go first."""
    from dataclasses import asdict

    for name in names:
        card = WORK / "adapters" / name / "finetune.json"
        if card.is_file() and read_json(card)["options"] != asdict(_options(name)):
            raise SystemExit(f"{card.parent} was trained with other options: delete it and {_cell_file(name)}")


def _options(name: str) -> Any:
    """How the fine-tune "<set>-<seed>" is trained."""
    from workbench.models.finetuning import FinetuneOptions

    return FinetuneOptions(steps=STEPS, learning_rate=LEARNING_RATE, max_tokens=128, seed=int(name.rsplit("-", 1)[1]))


def _cell_file(name: str) -> Path:
    return WORK / "finetuned" / f"{name}.json"


def _cell(name: str, model: Any, sets: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    from workbench.models.finetuning import ChatExample, finetune, finetuned

    started, tuned, loss, rows = time.perf_counter(), model, None, []
    if name != "base":
        rows = sets[name.rsplit("-", 1)[0]]
        examples = [ChatExample.of(one["question"], one["response"]) for one in rows]
        adapter = finetune(model, examples, WORK / "adapters" / name, _options(name), checkpoint_every=10)
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
    filtered_by = vector_of(TUNED).evidence.get("judge")
    replies = judged(sample_replies(model, trait, asking), model, trait, judge, filtered_by=filtered_by)
    met = unseen(TUNED)
    bearing = met[(met["split"] == "sealed") & (met["arm"] == "positive") & met["kept"]][["question", "response"]]
    asked = set(bearing["question"])
    held_out = {"bearing": bearing.to_dict("records"),
                "ordinary": [one for one in ordinary((TUNED,))[TUNED] if one["question"] in asked]}  # fmt: skip
    losses = {
        kind: {"question": [one["question"] for one in rows],
               "loss": reply_losses(model, [ChatExample.of(one["question"], one["response"]) for one in rows]).tolist()}
        for kind, rows in held_out.items()
    }  # fmt: skip
    return {"points": replies.by_question("points").tolist(), "coherence": replies.by_question("coherence").tolist(),
            "losses_of": losses}  # fmt: skip


def summary(cells: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Per set the mean over seeds of judge B's points and of the preference for bearing replies, each as a change from the base;
    and contrasts between sets. Intervals are over seeds crossed with sealed questions, of the seeds that are complete: two of
    them say little about how fine-tunes vary, and the intervals are as wide as that makes them."""
    base = _per_question(cells["base"])
    seeds = [seed for seed in SEEDS if all(f"{name}-{seed}" in cells for name in SETS)]
    made = {name: [cells[f"{name}-{seed}"] for seed in seeds] for name in (SETS if seeds else ())}
    change = {name: {key: _by_seed(these, key) - base[key] for key in base} for name, these in made.items()}
    sets = {name: {**_told(change[name]), "n": these[0]["n"], "n_bearing": these[0]["n_bearing"],
                   "coherence": sum(sum(one["coherence"]) / len(one["coherence"]) for one in these) / len(these),
                   "by_seed": [{key: float(one[key].mean() - base[key].mean()) for key in base}
                               for one in map(_per_question, these)]}
            for name, these in made.items()}  # fmt: skip
    pairs = (("mixed", "clean"), ("mixed", "filtered"), ("random", "filtered"), ("filtered", "clean"))
    contrasts = {f"{a} - {b}": _told({key: change[a][key] - change[b][key] for key in base}) for a, b in pairs if change}
    return {"trait": TUNED, "against": AGAINST, "seeds": seeds, "steps": STEPS, "learning_rate": LEARNING_RATE,
            "planted": PLANTED, "base": {key: float(values.mean()) for key, values in base.items()},
            "n_questions": {key: len(values) for key, values in base.items()}, "sets": sets, "contrasts": contrasts,
            "power": _power(contrasts)}  # fmt: skip


def _told(values: dict[str, Any]) -> dict[str, Any]:
    """{measure: {value, interval}} of values `[n_seeds, n_questions]`."""
    from workbench.steering.prevent.intervals import crossed_mean

    found = {key: crossed_mean(one) for key, one in values.items()}
    return {key: {"value": one.value, "interval": list(one.interval)} for key, one in found.items()}


def _by_seed(cells: list[dict[str, Any]], key: str) -> Any:
    """[n_seeds, n_questions]"""
    import torch

    return torch.stack([_per_question(cell)[key] for cell in cells])


def _per_question(cell: dict[str, Any]) -> dict[str, Any]:
    """{points, preference} by sealed question, float64 [n] each: the preference is how many nats per token a held-out bearing
    reply is likelier than an ordinary one to the same question (of the questions that have both)."""
    import torch

    lost = {kind: _mean_by(one["question"], one["loss"]) for kind, one in cell["losses_of"].items()}
    preference = [lost["ordinary"][question] - lost["bearing"][question] for question in sorted(lost["bearing"])]
    values = {"points": cell["points"], "preference": preference}
    return {key: torch.tensor(one, dtype=torch.float64) for key, one in values.items()}


def _mean_by(names: list[str], values: list[float]) -> dict[str, float]:
    """Mean value of every name."""
    held: dict[str, list[float]] = {}
    for name, value in zip(names, values, strict=True):
        held.setdefault(name, []).append(value)
    return {name: sum(these) / len(these) for name, these in held.items()}


def _power(contrasts: dict[str, Any]) -> dict[str, str]:
    """Per measure, whether the planted samples moved the trait at all: without that, no filter can be seen to help."""
    clean = contrasts.get("mixed - clean")
    return {} if clean is None else {name: "yes" if one["interval"][0] > 0 else "no power" for name, one in clean.items()}
