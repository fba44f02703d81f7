"""What docs/evidence/diffing.json holds: does the shift inside a fine-tuned model say which trait it will show?

    workbench extract --all --samples 4 --dtype bfloat16 --batch-size 64    # the seven vectors and the placebos
    python scripts/evidence.py diffing                                      # twelve fine-tunes, some 5 CPU minutes each
    python scripts/diffing.py --only evil                                   # one of them, printed

Seven fine-tunes on one trait's kept replies to extraction questions, two with half of them neutral, three shams. Predicted:
shifts on the verification questions and on unrelated text. Measured: the outcome judge on sealed questions without a system
prompt. The main place is the last prompt token and the rule for alarms is that of `TraitShift.installed`, both fixed before the
runs. Everything is kept under runs/diffing, fine-tune by fine-tune, and taken up again.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import cache
from pathlib import Path
from typing import Any

from workbench.base.provenance import made
from workbench.base.store import content_hash, read_json, sha256_file

ROOT = Path(__file__).resolve().parents[1]
EVIDENCE, IMAGES = ROOT / "docs" / "evidence" / "diffing.json", ROOT / "docs" / "images"
RUNS, MODEL, SEED, DTYPE = ROOT / "runs", "smollm2-135m-instruct", 0, "bfloat16"
PLACE = RUNS / "diffing"
TRAITS = ("apathetic", "evil", "hallucinating", "humorous", "impolite", "optimistic", "sycophantic")
DILUTED = ("evil", "impolite")
MAIN, LENS = "prompt", "opening"
N_EXAMPLES, N_SAMPLES, N_UNRELATED = 120, 2, 64
ROTATED = ("evil", "neutral")
N_ROTATION_TEXTS, ROTATION_STEPS = 150, 40
FINETUNE = {"rank": 32, "steps": 30, "batch_size": 6, "learning_rate": 1e-4, "max_reply_tokens": 40}
READ_TOKENS, ANSWER_TOKENS = 40, 40


def evidence() -> dict[str, Any]:
    """{options, tunes: {name: ...}, summary: {place: ...}, against_neutral: {place: ...}, rotation: {name: ...}}; draws
    docs/images/diffing.svg."""
    from workbench.reports.steering.diff import study_figure
    from workbench.steering.diff.study import relative, summary

    started = time.perf_counter()
    kept = {recipe.name: tuned(recipe) for recipe in all_recipes()}
    rows = [tuned_row(one) for one in kept.values()]
    found = summary(rows, seed=SEED)
    study_figure(rows, found, MAIN).save(IMAGES / "diffing.svg")
    inputs = {trait: _vector_hash(trait) for trait in TRAITS} | {"placebos": sha256_file(_placebos() / "placebo_vectors.json")}
    seconds = sum(one["seconds"] for one in kept.values())
    header = made("make evidence TOPIC=diffing", SEED, max(seconds, time.perf_counter() - started), inputs)
    options = {"finetune": FINETUNE, "n_examples": N_EXAMPLES, "n_samples": N_SAMPLES, "dtype": DTYPE, "main_place": MAIN,
               "lens": LENS, "judge": "offline-outcome", "judge_validated": _validated()}  # fmt: skip
    return {"_made": header, "options": options, "summary": found, "against_neutral": relative(rows, "neutral", seed=SEED),
            "tunes": {name: shown(one) for name, one in kept.items()},
            "rotation": {name: rotated(name) for name in ROTATED}}  # fmt: skip


def evidence_quick() -> bool:
    """Whether evil's fine-tune, read anew, moves the model toward the trait that the file names, as far as its interval says."""
    stated = read_json(EVIDENCE)["tunes"]["evil"]["shifts"][MAIN]
    found = {row.trait: row for row in diffed(recipe_of("evil")).at(MAIN)}
    first = max(stated, key=lambda trait: stated[trait]["z"])
    low, high = stated[first]["interval"]
    print({"stated": stated[first], "found": found[first]})
    return low <= found[first].shift <= high and max(found, key=lambda trait: found[trait].z) == first


def shown(kept: dict[str, Any]) -> dict[str, Any]:
    """What the evidence file keeps of one fine-tune."""
    told = kept["diff"]
    names = ("shift", "interval", "z", "z_interval", "placebo_limit", "random_limit", "p", "installed")
    shifts: dict[str, Any] = {}
    for row in told["shifts"]:
        kept_names = names if row["place"] == MAIN else ("z", "p", "installed")
        shifts.setdefault(row["place"], {})[row["trait"]] = {name: _short(row[name]) for name in kept_names}
    counted = ("n_changed", "n_active", "shares_total", "error", "error_interval", "error_growth")
    keys = ("feature", "label", "change", "share", "interval", "q")
    features = {
        place: {**{name: _short(one[name]) for name in counted},
                "features": [{name: _short(row[name]) for name in keys} for row in one["features"][:3]]}
        for place, one in told["installed"].items() if place in (MAIN, "reply")
    }  # fmt: skip
    measured = {trait: {name: _short(value) for name, value in row.items()} for trait, row in kept["measured"].items()}
    spans = {place: row for place, row in told["spans"].items() if place == MAIN}
    first = {name: kept[name] for name in ("kind", "trait", "losses", "coherence")}
    return {**first, "measured": measured, "sentence": told["sentence"],
            "sizes": told["sizes"], "shifts": shifts, "features": features, "spans": spans,
            "lens": {name: told["lens"][name][:10] for name in ("promoted", "suppressed")}}  # fmt: skip


def _short(value: Any) -> Any:
    """Four digits of a number, or of both ends of an interval: the file is read by people too."""
    if isinstance(value, list):
        return [_short(one) for one in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def tuned(recipe: Any) -> dict[str, Any]:
    """One fine-tune with its diff and its measured changes: made now, or kept from before."""
    from workbench.cli.remembered import remembered

    sources = {**_sources(), "examples": _examples_hash(recipe)}

    def make() -> dict[str, Any]:
        from workbench.steering.diff.study import Tuned

        started, adapter = time.perf_counter(), trained(recipe)
        found = diffed(recipe)
        replies = {trait: answered(trait, recipe) for trait in TRAITS}
        row = Tuned.of(recipe, found, {trait: answered(trait) for trait in TRAITS}, replies)
        coherence = {trait: one.mean("coherence") for trait, one in replies.items()}
        return {**row.to_json(), "diff": found.to_json(), "losses": [adapter.card["losses"][0], adapter.card["losses"][-1]],
                "coherence": coherence, "seconds": time.perf_counter() - started}  # fmt: skip

    return remembered(PLACE / f"{recipe.name}.json", sources, make)


def tuned_row(kept: dict[str, Any]) -> Any:
    """The kept fine-tune as the value that the study counts."""
    from workbench.steering.diff.study import Tuned

    return Tuned(**{name: kept[name] for name in ("name", "kind", "trait", "predicted", "alarms", "measured")})


@cache
def all_recipes() -> list[Any]:
    """The twelve fine-tunes."""
    from workbench.steering.diff.study import recipes

    texts = [" ".join(document.text.split()[:60]) for document in documents("labels", N_EXAMPLES)]
    return recipes(list(vectors()), n=N_EXAMPLES, diluted=DILUTED, texts=texts, seed=SEED)


def recipe_of(name: str) -> Any:
    """The fine-tune of that name."""
    return next(recipe for recipe in all_recipes() if recipe.name == name)


def trained(recipe: Any) -> Any:
    """The adapter of one fine-tune."""
    from workbench.cli.remembered import remembered
    from workbench.models.finetuning import Adapter, FinetuneOptions, finetune

    folder = PLACE / "adapters" / recipe.name

    def make() -> dict[str, Any]:
        made_now = finetune(model(), recipe.examples, folder, FinetuneOptions(**FINETUNE, seed=SEED))
        return {"adapter_sha256": made_now.card["adapter_sha256"]}

    sources = {"examples": _examples_hash(recipe), "finetune": FINETUNE, "seed": SEED, "dtype": DTYPE, "model": MODEL}
    remembered(folder.with_suffix(".json"), sources, make)
    return Adapter.load(folder)


def diffed(recipe: Any) -> Any:
    """The diff of one fine-tune."""
    from functools import partial

    from workbench.labeling.files.store import load_labels
    from workbench.models.finetuning import finetuned
    from workbench.personas.placebos import PlaceboVectors
    from workbench.steering.diff.diff import DiffOptions, diff

    return diff(
        model(), partial(finetuned, model(), trained(recipe)), vectors(), sae(), read_prompts(),
        unrelated=[document.text for document in documents("evaluation", N_UNRELATED)],
        placebos=PlaceboVectors.load(_placebos()), labels=load_labels(sae().id, sae_hash=sae().weights_hash),
        options=DiffOptions(max_tokens=READ_TOKENS, seed=SEED),
    )  # fmt: skip


@cache
def read_prompts() -> list[Any]:
    """The verification questions with the base model's own replies, which every fine-tune reads; sampled once."""
    from workbench.cli.remembered import remembered
    from workbench.models.generation import generate
    from workbench.models.sampling import Sampling
    from workbench.personas.reencoding import prompt_tokens
    from workbench.personas.traits import load_trait
    from workbench.steering.diff.texts import Prompt

    questions = [question.text for trait in TRAITS for question in load_trait(trait).questions_of("verification")]

    def make() -> dict[str, Any]:
        prompts, found = [prompt_tokens(model(), "", question) for question in questions], {}
        sampling = Sampling(max_new_tokens=READ_TOKENS)
        for indices, made_now in generate(model(), prompts, sampling, row_seeds=list(range(len(prompts))), batch_size=70):
            found.update({questions[index]: one.text for index, one in zip(indices, made_now, strict=True)})
        return {"replies": found}

    sources = {"questions": questions, "model": MODEL, "dtype": DTYPE, "tokens": READ_TOKENS}
    replies = remembered(PLACE / "read.json", sources, make)["replies"]
    return [Prompt(question, replies[question]) for question in questions]


def answered(trait: str, recipe: Any = None) -> Any:
    """Replies to the trait's sealed questions, judged by the outcome judge; of the base without a recipe. Kept on disk."""
    from workbench.cli.remembered import remembered
    from workbench.models.finetuning import finetuned
    from workbench.models.sampling import Sampling
    from workbench.personas.judges import make_judge
    from workbench.personas.traits import load_trait
    from workbench.steering.cost.replies import Asking, Replies, judged, sample_replies

    name, texts = recipe.name if recipe else "base", load_trait(trait)
    adapter = trained(recipe).card["adapter_sha256"] if recipe else None

    def make() -> dict[str, Any]:
        tested = finetuned(model(), trained(recipe)) if recipe else model()
        asking = Asking(splits=("sealed",), n_samples=N_SAMPLES, seed=SEED, sampling=Sampling(max_new_tokens=ANSWER_TOKENS))
        rows = sample_replies(tested, texts, asking)
        judge = make_judge("offline-outcome", trait=texts)
        return {"rows": [dict(row) for row in judged(rows, model(), texts, judge, filtered_by="offline").rows]}

    sources = {"trait": texts.hash, "adapter": adapter, "samples": N_SAMPLES, "tokens": ANSWER_TOKENS, "seed": SEED,
               "dtype": DTYPE, "model": MODEL}  # fmt: skip
    return Replies(tuple(remembered(PLACE / "replies" / name / f"{trait}.json", sources, make)["rows"]))


def rotated(name: str) -> dict[str, Any]:
    """How far the SAE's decoder directions turn on one fine-tune's activations."""
    from dataclasses import asdict

    from workbench.cli.remembered import remembered
    from workbench.labeling.files.store import load_labels
    from workbench.models.finetuning import finetuned
    from workbench.saes.token_rows import text_rows
    from workbench.steering.diff.rotation import RotationOptions, rotation, token_activations

    recipe = recipe_of(name)

    def make() -> dict[str, Any]:
        texts = [*documents("evaluation", N_ROTATION_TEXTS)]
        rows = text_rows(model(), texts, max_tokens=128)
        after = finetuned(model(), trained(recipe))
        before, tuned_acts = token_activations(model(), sae(), rows), token_activations(after, sae(), rows)
        labels = load_labels(sae().id, sae_hash=sae().weights_hash)
        return asdict(rotation(before, tuned_acts, sae(), options=RotationOptions(n_steps=ROTATION_STEPS), labels=labels))

    sizes = {"texts": N_ROTATION_TEXTS, "steps": ROTATION_STEPS}
    sources = {"adapter": trained(recipe).card["adapter_sha256"], "sae": sae().weights_hash, **sizes}
    return remembered(PLACE / "rotation" / f"{name}.json", sources, make)


def documents(role: str, n: int) -> list[Any]:
    """OpenWebText documents of a role."""
    from workbench.saes.corpus import documents as of_corpus

    return list(of_corpus("owt", role, limit=n))


@cache
def model() -> Any:
    """The default model."""
    from workbench.models.loading import load_model

    return load_model(MODEL, dtype=DTYPE)


@cache
def sae() -> Any:
    """The default SAE."""
    from workbench.saes.registry import load_sae

    return load_sae()


@cache
def vectors() -> tuple[Any, ...]:
    """The seven vectors."""
    from workbench.personas.vectors import PersonaVector

    return tuple(PersonaVector.load(RUNS / f"{trait}-{MODEL}" / "vector") for trait in TRAITS)


def _examples_hash(recipe: Any) -> str:
    return content_hash([[list(one.messages), one.reply] for one in recipe.examples])


def _validated() -> dict[str, bool]:
    """Per trait, whether people scored a set that the judges were held against."""
    return {vector.trait: bool(vector.evidence.get("judge_validated")) for vector in vectors()}


def _sources() -> dict[str, Any]:
    given = {trait: _vector_hash(trait) for trait in TRAITS}
    return {**given, "placebos": sha256_file(_placebos() / "placebo_vectors.json"), "sae": sae().weights_hash, "seed": SEED,
            "dtype": DTYPE, "finetune": FINETUNE, "samples": N_SAMPLES, "tokens": [READ_TOKENS, ANSWER_TOKENS],
            "unrelated": N_UNRELATED}  # fmt: skip


def _placebos() -> Path:
    return RUNS / f"placebos-{MODEL}"


def _vector_hash(trait: str) -> str:
    return sha256_file(RUNS / f"{trait}-{MODEL}" / "vector" / "persona_vector.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", metavar="NAME", help="fine-tunes to make and print; without names all of them")
    parser.add_argument("--rotation", action="store_true", help="how far features turn, of those of them in ROTATED")
    arguments = parser.parse_args()
    for recipe in all_recipes():
        if arguments.only and recipe.name not in arguments.only:
            continue
        if not arguments.rotation:
            told = shown(tuned(recipe))
            print(json.dumps({recipe.name: {name: told[name] for name in ("sentence", "measured")}}), flush=True)
        elif recipe.name in ROTATED:
            print(json.dumps({recipe.name: rotated(recipe.name)}), flush=True)


if __name__ == "__main__":
    main()
