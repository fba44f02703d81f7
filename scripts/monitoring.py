"""What docs/evidence/monitoring.json holds: how well a persona is seen while it speaks.

    workbench extract --all --samples 4 --dtype bfloat16 --batch-size 64    # the seven vectors
    workbench extract --all --model gemma3-270m --dtype bfloat16            # the reader's
    python scripts/evidence.py monitoring                                   # some two CPU hours when nothing is there yet
    python scripts/monitoring.py --piece detection --trait evil             # one piece of one trait, printed

Pieces are kept one by one under runs/monitoring and taken up again as long as the trait's own vector, the SAE, the settings and
the package's version stand. Delete them where another trait's run, the reader's or the placebos were made anew.
Roles: extraction questions make every detector, the other twenty report. Judge "offline" filtered the rows that the vectors are
made from and labels the making side; "offline-outcome", which shares nothing with it, labels the replies that are reported on.
At which sentence of such a reply the trait sets in is what "offline" says.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

from workbench.base.provenance import made
from workbench.base.store import read_json, sha256_file

ROOT = Path(__file__).resolve().parents[1]
EVIDENCE, IMAGES = ROOT / "docs" / "evidence" / "monitoring.json", ROOT / "docs" / "images"
RUNS, MODEL, READER, SEED, DTYPE = ROOT / "runs", "smollm2-135m-instruct", "gemma3-270m", 0, "bfloat16"
PLACE = RUNS / "monitoring"
TRAITS = ("apathetic", "evil", "hallucinating", "humorous", "impolite", "optimistic", "sycophantic")
OUTCOME, FILTER = "offline-outcome", "offline"
RATES, WINDOWS = (0.01, 0.05), (1, 8, 16)
N_SAMPLES = 2
N_EVERYDAY = 4
"""Answers per everyday question without a system prompt."""
N_READ = 1
"""Answers per held-out question, instruction and arm that are read again, of the four that were sampled; and by the reader."""


def run_of(trait: str, model: str = MODEL) -> Path:
    """The run folder of a trait's vector."""
    return RUNS / f"{trait}-{model}"


def _sources(trait: str, **more: Any) -> dict[str, Any]:
    from workbench.saes.registry import load_sae

    return {"vector": sha256_file(run_of(trait) / "vector" / "persona_vector.json"), "sae": load_sae().weights_hash, "seed": SEED,
            **more}  # fmt: skip


def evidence() -> dict[str, Any]:
    """{monitor: {trait: AUROC}, detection, thresholds, lead, prompt, surrogate: by trait, monitor_overhead}."""
    started = time.perf_counter()
    found: dict[str, Any] = {name: {trait: _kept(piece(name, trait)) for trait in TRAITS} for name in PIECES}
    monitor = {trait: found["detection"][trait]["arm"]["detectors"]["vector"]["auroc"] for trait in TRAITS}
    inputs = {f"{trait}-{name}": sha256_file(run_of(trait, name) / "vector" / "persona_vector.json")
              for trait in TRAITS for name in (MODEL, READER)}  # fmt: skip
    draw()
    header = made("make evidence TOPIC=monitoring", SEED, time.perf_counter() - started, inputs)
    sizes = {"n_samples": N_SAMPLES, "n_samples_of_the_reader": N_READ, "reader": READER,
             "judges": {"filter": FILTER, "label": OUTCOME}}  # fmt: skip
    return {"_made": header, **sizes, "monitor": monitor, **found, "monitor_overhead": overhead()}


def draw() -> None:
    """docs/images/monitor_reply.svg: of evil's held-out replies under a persona that the outcome judge calls evil, the one whose
    mean projection is the median."""
    from workbench.reports.steering.monitor import reply_figure
    from workbench.steering.monitor.alarms import Alarm
    from workbench.steering.monitor.monitor import Monitor
    from workbench.steering.monitor.watching import WatchedReply

    rows, kept, column = vectors()["evil"].rows, read("evil"), TRAITS.index("evil")
    place = (_held_out(rows, kept, "positive") & (outcome_scores("evil") >= 50).numpy()).nonzero()[0]
    values = kept["values"].split(kept["lengths"].tolist())
    chosen = sorted(place, key=lambda i: float(values[i][:, column].mean()))[len(place) // 2]
    known = piece("thresholds", "evil")["rules"]["running_8"]["0.05"]
    alarm = Alarm("evil", rule_named("running_8"), known["threshold"], 0.05, known["check"])
    monitor = Monitor.of(model(), [vectors()["evil"]]).with_alarms([alarm])
    seen = values[chosen][:, column : column + 1]
    reply_figure(WatchedReply(monitor, 0, 0, seen[0], seen)).save(IMAGES / "monitor_reply.svg")


def _kept(value: dict[str, Any]) -> dict[str, Any]:
    return {name: one for name, one in value.items() if name != "key"}


def evidence_quick() -> bool:
    """Whether evil's detection comes back as stated from the activations that are there."""
    stated = read_json(EVIDENCE)["detection"]["evil"]["arm"]["detectors"]["vector"]
    found = detected("evil")["arm"]["detectors"]["vector"]
    print({"stated": stated, "found": found})
    return abs(stated["auroc"] - found["auroc"]) < 1e-6


# ---------------------------------------------------------------------------------------------------- what is read once


@cache
def vectors() -> dict[str, Any]:
    """The seven vectors."""
    from workbench.personas.vectors import PersonaVector

    return {trait: PersonaVector.load(run_of(trait) / "vector") for trait in TRAITS}


def read(trait: str) -> dict[str, Any]:
    """Of every row of a trait, in the order of the vector's table: mean activations, mean feature activations, projections of
    its tokens on the seven vectors. Tokens that were not stored are read through the model again. Kept in runs/monitoring."""
    import torch

    from workbench.base.store import content_hash
    from workbench.base.tensors import load_metadata, load_tensors, save_tensors
    from workbench.personas.reencoding import recapture_tokens
    from workbench.saes.registry import load_sae

    file, key = PLACE / f"{trait}-{MODEL}" / "read.safetensors", content_hash(_sources(trait, samples=N_SAMPLES))
    if file.is_file() and load_metadata(file).get("key") == key:
        return load_tensors(file)
    vector, sae = vectors()[trait], load_sae()
    place = {name: i for i, name in enumerate(vector.rows["id"])}
    units = torch.stack([v.at(sae.hook) / v.at(sae.hook).norm() for v in vectors().values()])
    means, codes = torch.zeros(len(place), vector.d_model), torch.zeros(len(place), sae.d_sae, dtype=torch.float16)
    values: list[Any] = [torch.zeros(0, len(units))] * len(place)
    held = {name for name, _ in vector.tokens.rows(sae.hook)}
    again = vector.rows[~vector.rows["id"].isin(held) & (vector.rows["sample"] < N_SAMPLES)]  # only extraction rows keep tokens
    others = recapture_tokens(model(), again, sae.hook)
    with torch.no_grad():
        for name, tokens in chain(vector.tokens.rows(sae.hook), others):
            if name in place and len(tokens):
                row, tokens = place[name], tokens.float()
                means[row], codes[row] = tokens.mean(dim=0), sae.encode(tokens).mean(dim=0).half()
                values[row] = tokens @ units.T
    lengths = torch.tensor([len(one) for one in values])
    save_tensors(file, {"means": means, "codes": codes, "values": torch.cat(values), "lengths": lengths}, {"key": key})
    return load_tensors(file)


def outcome_scores(trait: str) -> Any:
    """The outcome judge's score [n] of every row; NaN where it has none."""
    import torch

    from workbench.personas.judges import JudgeItem, make_judge
    from workbench.personas.traits import load_trait

    rows, judge = vectors()[trait].rows, make_judge(OUTCOME)
    items = [JudgeItem(q, a) for q, a in zip(rows["question"], rows["response"], strict=True)]
    return torch.tensor([float("nan") if one.score is None else one.score for one in judge.score(items, load_trait(trait))])


def examples(trait: str, samples: int = N_SAMPLES) -> tuple[Any, Any, Any]:
    """(making side, reporting side with so many samples, table rows of the reporting side) of a trait."""
    import torch

    from workbench.personas.evidence import code_rows
    from workbench.personas.judging import usable_mask
    from workbench.steering.monitor.detection import Examples

    rows, kept = vectors()[trait].rows, read(trait)
    usable = usable_mask(rows) & (rows["arm"] != "neutral") & (kept["lengths"] > 0).numpy()
    instructions = sorted(set(rows["instruction_id"]))
    outcome, filtered = outcome_scores(trait), torch.tensor(rows["score"].to_numpy())

    def side(mask: Any, score: Any) -> Any:
        place = torch.tensor(mask.to_numpy().nonzero()[0])
        frame = rows[mask].reset_index(drop=True)
        label = torch.where(score[place].isfinite(), (score[place] >= 50).double(), torch.nan)
        codes, texts = kept["codes"][place].float(), frame["response"].tolist()
        return Examples(code_rows(frame, instructions), kept["means"][place], codes, texts,
                        torch.tensor(frame["n_tokens"].to_numpy()), label)  # fmt: skip

    extraction = rows["split"] == "extraction"
    reported = usable & ~extraction & (rows["sample"] < samples)
    return side(usable & extraction, filtered), side(reported, outcome), rows[reported]


# ---------------------------------------------------------------------------------------------------- pieces


def detected(trait: str) -> dict[str, Any]:
    """AUROC of every detector; and the deployed features, chosen on all extraction rows."""
    from workbench.personas.placebos import PlaceboVectors
    from workbench.steering.monitor.detection import best_features, detection

    make, score, _ = examples(trait)
    placebos = PlaceboVectors.load(RUNS / f"placebos-{MODEL}").at(vectors()[trait].hook, trait=trait)
    found = detection(make, score, int(make.rows.instruction.max()) + 1, placebos=placebos, seed=SEED)
    known = make.label.isfinite()
    targets = {"arm": (make.codes, make.rows.positive), "judge": (make.codes[known], make.label[known] > 0.5)}
    best = {name: best_features(*both, 5) for name, both in targets.items()}
    return {**found, "best_features": best}


def thresholds(trait: str) -> dict[str, Any]:
    """{rule: {rate: {threshold, threshold_norms, check}}} from the neutral replies of all seven runs."""
    found: dict[str, Any] = {}
    for name, rate, alarm in _alarms(trait):
        norm = _norm(trait)
        found.setdefault(name, {})[f"{rate:g}"] = {"threshold": alarm.threshold, "threshold_norms": alarm.threshold / norm,
                                                   "check": alarm.check}  # fmt: skip
    return {"rules": found, "neutral_replies": len(neutral(trait))}


def _norm(trait: str) -> float:
    return float(model().norm_medians([vectors()[trait].hook])[0])


def _alarms(trait: str) -> list[tuple[str, float, Any]]:
    from workbench.steering.monitor.alarms import calibrate

    replies = neutral(trait)
    names = [*(f"running_{window}" for window in WINDOWS), "mean"]
    return [(name, rate, calibrate([trait], replies, rule=rule_named(name), rate=rate, seed=SEED)[0])
            for name in names for rate in RATES]  # fmt: skip


def rule_named(name: str) -> Any:
    """The rule "mean", or "running_<window>"."""
    from workbench.steering.monitor.alarms import Rule

    return Rule("mean") if name == "mean" else Rule("running", int(name.removeprefix("running_")))


def neutral(trait: str) -> list[Any]:
    """Neutral replies of all seven runs, each with its projections on this trait's vector."""
    from workbench.steering.monitor.alarms import NeutralReply

    column, found = TRAITS.index(trait), []
    for other in TRAITS:
        kept, rows = read(other), vectors()[other].rows
        values = kept["values"].split(kept["lengths"].tolist())
        for i in (rows["arm"] == "neutral").to_numpy().nonzero()[0]:
            found.append(NeutralReply(f"{other}/{rows['question'].iloc[i]}", values[i][:, column : column + 1]))
    return found


def lead(trait: str) -> dict[str, Any]:
    """Lead times of the vector's alarms on held-out replies that the outcome judge calls the trait, by rule and rate."""
    import torch

    from workbench.personas.judges import make_judge
    from workbench.personas.traits import load_trait
    from workbench.steering.monitor.lead import TraitReply, lead_times, onsets, token_starts

    rows, kept, outcome = vectors()[trait].rows, read(trait), outcome_scores(trait)
    shown = _held_out(rows, kept, "positive") & (outcome >= 50).numpy()
    place, decode = shown.nonzero()[0], model().tokenizer.decode
    chosen = rows.iloc[place]
    starts = [token_starts(lambda ids: decode(ids, skip_special_tokens=True), list(ids)) for ids in chosen["response_ids"]]
    begins = onsets(chosen["response"].tolist(), starts, make_judge(FILTER), load_trait(trait))
    values, column = kept["values"].split(kept["lengths"].tolist()), TRAITS.index(trait)
    rows_of = zip(chosen["question"], place, begins, strict=True)
    replies = [TraitReply(question, values[i][:, column], onset) for question, i, onset in rows_of]
    found: dict[str, Any] = {"onset_token_median": _median([one for one in begins if one]), "rules": {}}
    quiet = _quiet(trait, rows, kept, outcome)
    for name, rate, alarm in _alarms(trait):
        raised = torch.tensor([float(alarm.first(one[:, column]) is not None) for one in quiet])
        opposite = {"false_alarms_opposite_arm": float(raised.mean()), "n_opposite": len(quiet)}
        told = {**lead_times(alarm, replies, seed=SEED), **opposite}
        found["rules"].setdefault(name, {})[f"{rate:g}"] = told
    return found


def _quiet(trait: str, rows: Any, kept: Any, outcome: Any) -> list[Any]:
    """Held-out replies of the opposite arm that the outcome judge does not call the trait."""
    mask = _held_out(rows, kept, "negative") & (outcome < 50).numpy()
    values = kept["values"].split(kept["lengths"].tolist())
    return [values[i] for i in mask.nonzero()[0]]


def _held_out(rows: Any, kept: Any, arm: str) -> Any:
    return ((rows["split"] != "extraction") & (rows["arm"] == arm)).to_numpy() & (kept["lengths"] > 0).numpy()


def _median(values: list[int]) -> float | None:
    import statistics

    return float(statistics.median(values)) if values else None


def prompt(trait: str) -> dict[str, Any]:
    """Correlation of the last prompt token's projection with the outcome judge's score of the reply that follows."""
    import torch

    from workbench.personas.monitoring import monitoring
    from workbench.personas.placebos import PlaceboVectors
    from workbench.personas.runs import read_run

    run = read_run(run_of(trait), model())
    scores = dict(zip(vectors()[trait].rows["id"], outcome_scores(trait).tolist(), strict=True))
    judged = torch.tensor([scores[name] for name in run.score.frame["id"]], dtype=torch.float64)
    return monitoring(run, model(), judged, placebos=PlaceboVectors.load(RUNS / f"placebos-{MODEL}"), seed=SEED)


def surrogate(trait: str) -> dict[str, Any]:
    """AUROC of a reader of another family on the same replies, beside the writer's own activations and the text."""
    import torch

    from workbench.personas.evidence import code_rows
    from workbench.personas.judging import usable_mask
    from workbench.personas.parts import PartStore
    from workbench.personas.reencoding import gather_means
    from workbench.personas.vectors import PersonaVector
    from workbench.steering.monitor.surrogate import Reader, surrogate

    make, score, rows = examples(trait, samples=N_READ)
    vector = PersonaVector.load(run_of(trait, READER) / "vector")
    used = usable_mask(vector.rows) & (vector.rows["arm"] != "neutral") & (vector.rows["split"] == "extraction")
    own: Any = vector.rows[used].reset_index(drop=True)
    stores = [PartStore(run_of(trait, READER)), PartStore(run_of(trait) / "without_system")]
    hooks = [vector.hook, vectors()[trait].hook]
    means, stripped = (
        gather_means(store, [header for header in store.headers() if header.offers((hook,), ())], ids.tolist(), [hook])[:, 0]
        for store, ids, hook in zip(stores, (own["id"], rows["id"]), hooks, strict=True)
    )
    instructions = sorted(set(vectors()[trait].rows["instruction_id"]))
    reader = Reader(code_rows(own, instructions), means, torch.as_tensor(read_by(trait, rows, vector.hook)))
    return {**surrogate(make, score, stripped, reader, len(instructions), seed=SEED), "reader": READER, "hook": str(vector.hook)}


def read_by(trait: str, rows: Any, hook: Any) -> Any:
    """The reader's mean activations [n, d_reader] over replies without the system prompt; kept part by part."""
    import pyarrow as pa

    from workbench.models.prompts import tokenize_chat
    from workbench.personas.parts import PartStore, complete_parts
    from workbench.personas.reencoding import captured, gather_means

    store, table = PartStore(PLACE / f"{trait}-{MODEL}" / READER), rows.set_index("id")

    def produce(ids: list[str]) -> Any:
        told = [table.loc[name] for name in ids]
        chats = [tokenize_chat(model(READER), [{"role": "user", "content": row["question"]},
                                               {"role": "assistant", "content": row["response"]}]) for row in told]  # fmt: skip
        return pa.table({"id": ids}), captured(model(READER), chats, (hook,))[0], {}

    ordered = sorted(table.index, key=lambda name: (len(table.loc[name, "response"]), name))
    batches = [ordered[i : i + 32] for i in range(0, len(ordered), 32)]
    complete_parts(store, batches, produce, hooks=(hook,), label=f"replies of {MODEL} read by {READER}")
    return gather_means(store, store.headers(), rows["id"].tolist(), [hook])[:, 0]


@cache
def model(name: str = MODEL) -> Any:
    """A model, loaded once."""
    from workbench.models.loading import load_model

    return load_model(name, dtype=DTYPE)


def ordinary(trait: str) -> dict[str, Any]:
    """{rule: {rate: {rate, interval, ...}}}: false alarms on answers to everyday questions without any system prompt of ours."""
    import torch

    from workbench.steering.monitor.alarms import Alarm, false_alarms

    kept, column, found = everyday(), TRAITS.index(trait), {}
    values = kept["values"].split(kept["lengths"].tolist())
    for name, rates in piece("thresholds", trait)["rules"].items():
        for rate, known in rates.items():
            alarm = Alarm(trait, rule_named(name), known["threshold"], float(rate))
            raised = torch.tensor([float(alarm.first(one[:, column]) is not None) for one in values]).double()
            check = false_alarms(raised, kept["question"], known["check"]["n_calibration"], SEED)
            found.setdefault(name, {})[rate] = check
    return {"rules": found}


@cache
def everyday() -> dict[str, Any]:
    """Token projections on the seven vectors of sampled answers to the placebo contrasts' questions, seen by a monitor."""
    import torch

    from workbench.base.randomness import derive_seed
    from workbench.base.store import content_hash
    from workbench.base.tensors import load_metadata, load_tensors, save_tensors
    from workbench.models.generation import generate
    from workbench.models.prompts import tokenize_chat
    from workbench.models.sampling import Sampling
    from workbench.personas.placebos import placebo_questions
    from workbench.steering.monitor.monitor import Monitor

    file, key = PLACE / "everyday.safetensors", content_hash([_sources(trait) for trait in TRAITS] + [N_EVERYDAY])
    if file.is_file() and load_metadata(file).get("key") == key:
        return load_tensors(file)
    questions = placebo_questions()
    monitor = Monitor.of(model(), list(vectors().values()))
    prompts = [tokenize_chat(model(), [{"role": "user", "content": one.text}], add_generation_prompt=True) for one in questions]
    seeds = [derive_seed("everyday", SEED, one.id, k) for one in questions for k in range(N_EVERYDAY)]
    rows = [prompt for prompt in prompts for _ in range(N_EVERYDAY)]
    with monitor.watching(model()) as log:
        for _ in generate(model(), rows, Sampling(max_new_tokens=64), row_seeds=seeds, batch_size=16):
            pass
    seen = sorted(log.replies(), key=lambda reply: reply.row)
    lengths = torch.tensor([len(reply.values) for reply in seen])
    values = torch.cat([reply.values for reply in seen])
    save_tensors(file, {"values": values, "lengths": lengths, "question": torch.arange(len(rows)) // N_EVERYDAY}, {"key": key})
    return load_tensors(file)


def overhead() -> dict[str, Any]:
    """{batch_1, batch_16: {vectors, vectors_and_features}}: what watching costs, see benchmarks/monitor_overhead.py; each in a
    process of its own."""
    from workbench.cli.remembered import remembered

    def measured(batch: int, monitor: str) -> dict[str, Any]:
        command = [sys.executable, "benchmarks/monitor_overhead.py", "--batch", str(batch), "--monitor", monitor]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, env=environment)
        return json.loads(done.stdout)

    found: dict[str, Any] = {}
    source = {"benchmark": sha256_file(ROOT / "benchmarks" / "monitor_overhead.py")}
    for batch in (1, 16):
        for monitor in ("vectors", "vectors_and_features"):
            file = PLACE / f"overhead-{batch}-{monitor}.json"
            one = remembered(file, source, partial(measured, batch, monitor))
            sizes = {name: one[name] for name in ("rounds", "new_tokens", "n_vectors", "n_features", "threads", "dtype")}
            found.setdefault(f"batch_{batch}", {})[monitor] = one[f"batch_{batch}"][monitor]
            found |= sizes
    return found


VERSIONS = {"detection": 2}
PIECES: dict[str, Any] = {
    "detection": detected, "thresholds": thresholds, "lead": lead, "ordinary": ordinary, "prompt": prompt, "surrogate": surrogate
}  # fmt: skip


def piece(name: str, trait: str) -> dict[str, Any]:
    """A piece of one trait: made now, or kept from before."""
    from workbench.cli.remembered import remembered

    file = PLACE / f"{trait}-{MODEL}" / f"{name}.json"
    sources = _sources(trait, piece=name, samples=N_SAMPLES) | ({"version": VERSIONS[name]} if name in VERSIONS else {})
    return remembered(file, sources, lambda: PIECES[name](trait))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trait", choices=TRAITS, action="append")
    parser.add_argument("--piece", choices=["read", "overhead", *PIECES], action="append", required=True)
    said = parser.parse_args()
    if "overhead" in said.piece:
        print(json.dumps(overhead()))
    for name in (name for name in said.piece if name != "overhead"):
        for trait in said.trait or TRAITS:
            started = time.perf_counter()
            found = {k: tuple(v.shape) for k, v in read(trait).items()} if name == "read" else piece(name, trait)
            print(trait, name, f"{time.perf_counter() - started:.0f} s", json.dumps(found)[:2000], flush=True)


if __name__ == "__main__":
    main()
