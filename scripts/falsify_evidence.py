"""What docs/evidence/falsify.json holds: traits, placebo contrasts, shuffled arms and random directions, put to every check.

    workbench extract --all --samples 4 --dtype bfloat16 --batch-size 64       # the vectors and the placebo contrasts
    workbench sae train saes/smollm2-135m-instruct/recipe.yaml --out runs/saes # the other seed and the soft-frozen SAE
    python scripts/evidence.py falsify
    python scripts/falsify_evidence.py --figure                                # only the picture, from the stored figures

The SAE is the default one, of 8,192 features; the recipe's controls have 4,096, so the other seed is of another size too, and the
check against the soft-frozen SAE is made with the SAE of 4,096. A finished vector is kept in runs/falsify and read again by the
same code. A check is worth something when it is red where it should be:
list_prose (format), terse_verbose (length) and loud_quiet (exclamation marks) ask for what those checks look for (whether the
model obeys is another matter); a shuffled vector has arms dealt out at random, a random one is a covariance-matched direction.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from workbench.base.provenance import code_commit, made
from workbench.base.randomness import derive_seed, generator
from workbench.base.store import read_json, sha256_file
from workbench.decomposition.falsify import CRITERIA, Falsification, falsify, soft_frozen_check

ROOT = Path(__file__).resolve().parents[1]
EVIDENCE, IMAGE = ROOT / "docs" / "evidence" / "falsify.json", ROOT / "docs" / "images" / "falsify.svg"
COMMAND = "make evidence TOPIC=falsify"
RUNS, MODEL, SEED = ROOT / "runs", "smollm2-135m-instruct", 0
SAE = f"{MODEL}/blocks.15.hook_resid_post"
SMALL = f"{SAE}-4k"
CONTROLS = RUNS / "saes" / "controls"
TRAITS = ("apathetic", "evil", "hallucinating", "humorous", "impolite", "optimistic", "sycophantic")
PLACEBOS = ("list_prose", "loud_quiet", "pirate_librarian", "sea_mountain", "terse_verbose", "winter_summer")
N_SHUFFLED, N_RANDOM = 2, 10
REFERENCE = "evil"


@dataclass
class Bench:
    """What every vector is put to; loaded when first needed."""

    seed: int = SEED

    @cached_property
    def model(self) -> Any:
        from workbench.models.loading import load_model

        return load_model(MODEL)

    @cached_property
    def sae(self) -> Any:
        from workbench.saes.registry import load_sae

        return load_sae(SAE)

    @cached_property
    def codes(self) -> Any:
        from workbench.decomposition.placebos import PlaceboCodes

        return PlaceboCodes.beside(self.sae)

    @cached_property
    def placebo_vectors(self) -> Any:
        from workbench.personas.placebos import PlaceboVectors

        return PlaceboVectors.load(RUNS / f"placebos-{MODEL}")

    @cached_property
    def small(self) -> Any:
        from workbench.saes.registry import load_sae

        return load_sae(SMALL)

    @cached_property
    def soft_frozen(self) -> Any:
        from workbench.saes.registry import load_sae

        return load_sae(CONTROLS / "4k-soft-frozen")

    @cached_property
    def other_seed(self) -> Any:
        from workbench.saes.registry import load_sae

        return load_sae(CONTROLS / "4k-seed1")

    def trait(self, name: str) -> Any:
        from workbench.personas.vectors import PersonaVector

        return PersonaVector.load(RUNS / f"{name}-{MODEL}" / "vector")

    def verdict(self, vector: Any) -> Falsification:
        """The vector against all placebos but itself."""
        known: dict[str, Any] = {"placebos": without(self.codes, vector.trait)}
        known["placebo_vectors"] = without(self.placebo_vectors, vector.trait)
        reference = None if len(vector.rows) else self.trait(REFERENCE)
        known |= {"tokenizer": self.model.tokenizer, "reference": reference, "other_seed": self.other_seed}
        found = falsify(vector, self.sae, seed=self.seed, **known)
        learned = soft_frozen_check(vector, self.small, {"the soft-frozen SAE": self.soft_frozen}, seed=self.seed)
        learned = replace(learned, reason=f"SAE of {self.small.d_sae:,} features: {learned.reason}")
        return replace(found, checks=tuple(learned if one.name == learned.name else one for one in found.checks))


def without(placebos: Any, trait: str) -> Any:
    """The placebos with `trait` marked as close to the one of its own name, so that none is its own null."""
    close = [(*related, trait) if f"placebo-{name}" == trait else related
             for name, related in zip(placebos.names, placebos.related, strict=True)]  # fmt: skip
    return replace(placebos, related=tuple(close))


def placebo_vector(bench: Bench, name: str, folder: Path) -> Any:
    """A placebo contrast as a vector with its answers, read through the model into `folder`."""
    import pyarrow as pa

    from workbench.decomposition.placebos import contrast_rows
    from workbench.personas.parts import PartStore, parts_hash
    from workbench.personas.reencoding import recapture_tokens
    from workbench.personas.vectors import PersonaVector, TokenSource

    rows, design = contrast_rows(RUNS / f"placebos-{MODEL}" / name)
    rows["weight"] = design.weights.tolist()
    hook, known = bench.sae.hook, bench.placebo_vectors
    tokens = [held for _, held in recapture_tokens(bench.model, rows, hook)]
    means = torch.stack([held.double().mean(dim=0) for held in tokens])
    store = PartStore(folder)
    table = pa.table({"id": rows["id"].astype(str).tolist()})
    store.write(0, table, means[:, None].float(), {hook: tokens}, hooks=(hook,))
    directions = known.directions[known.names.index(name)].clone()
    directions[known.hooks.index(hook)] = (design.weights @ means).float()
    return PersonaVector(f"placebo-{name}", bench.model.description(), hook, known.hooks, directions, None, None, None, rows,
                         tokens=TokenSource(folder, (hook,), parts_hash(store.headers()), (0,)))  # fmt: skip


def shuffled_vector(bench: Bench, number: int) -> Any:
    """The reference trait's vector with the arms dealt out at random within every question: a null with answers."""
    from workbench.personas.extraction import contrast_weights
    from workbench.personas.vectors import PersonaVector

    whole = bench.trait(REFERENCE)
    rows = whole.rows[(whole.rows["weight"].fillna(0) != 0).to_numpy()].reset_index(drop=True)
    rows = rows.drop(columns=["weight_up", "weight_down", "weight_unfiltered"])
    source = generator(derive_seed("falsify shuffled", number))
    for _, group in rows.groupby("question_id"):
        order = torch.randperm(len(group), generator=source).tolist()
        rows.loc[group.index, "arm"] = group["arm"].to_numpy()[order]
    rows["weight"] = contrast_weights(rows, rows["kept"], "positive", "negative")
    wanted = dict(zip(rows["id"], rows["weight"], strict=True))
    held = whole.tokens.rows(bench.sae.hook)
    means = [wanted[row] * tokens.double().mean(dim=0) for row, tokens in held if row in wanted]
    direction = torch.stack(means).sum(dim=0).float()
    return PersonaVector(f"shuffled-{number}", whole.model, bench.sae.hook, (bench.sae.hook,), direction[None], None, None, None,
                         rows, tokens=whole.tokens)  # fmt: skip


def random_vector(bench: Bench, number: int) -> Any:
    """A covariance-matched direction of the reference's activations, as a bare vector."""
    from workbench.decomposition.falsify import activations_of
    from workbench.maths.geometry import covariance_matched_directions
    from workbench.personas.vectors import PersonaVector

    whole = bench.trait(REFERENCE)
    held = activations_of(whole, bench.sae)
    drawn = covariance_matched_directions(held, N_RANDOM, generator(derive_seed("falsify random", bench.seed)))[number]
    return PersonaVector.from_direction(drawn, trait=f"random-{number}", model=whole.model, hook=bench.sae.hook)


def evidence() -> dict[str, Any]:
    """{sae, criteria, traits, placebos, shuffled, random}: per vector its colour, counts and checks; `verdicts` per check."""
    started, bench = time.perf_counter(), Bench()
    with tempfile.TemporaryDirectory() as folder:
        groups: dict[str, dict[str, Callable[[], Any]]] = {
            "traits": {name: lambda name=name: bench.trait(name) for name in TRAITS},
            "random": {f"random-{n}": lambda n=n: random_vector(bench, n) for n in range(N_RANDOM)},
            "placebos": {name: lambda name=name: placebo_vector(bench, name, Path(folder) / name) for name in PLACEBOS},
            "shuffled": {f"shuffled-{n}": lambda n=n: shuffled_vector(bench, n) for n in range(N_SHUFFLED)},
        }
        found = {group: {name: _figures(_kept(bench, name, make)) for name, make in makers.items()}
                 for group, makers in groups.items()}  # fmt: skip
    inputs = {name: sha256_file(RUNS / f"{name}-{MODEL}" / "vector" / "persona_vector.json") for name in TRAITS}
    inputs |= {"placebo_vectors": sha256_file(RUNS / f"placebos-{MODEL}" / "placebo_vectors.json")}
    inputs |= {name: getattr(bench, name).weights_hash for name in ("sae", "small", "other_seed", "soft_frozen")}
    criteria = {name: {key: getattr(one, key) for key in ("bound", "threshold", "statistic", "source")}
                for name, one in CRITERIA.items()}  # fmt: skip
    verdicts = {group: {name: Counter(row["checks"][name]["verdict"] for row in rows.values()) for name in CRITERIA}
              for group, rows in found.items()}  # fmt: skip
    return {"_made": made(COMMAND, SEED, time.perf_counter() - started, inputs), "sae": SAE, "small": SMALL,
            "criteria": criteria, **found, "verdicts": verdicts}  # fmt: skip


def evidence_quick() -> bool:
    """Whether a covariance-matched direction that was not looked at before is red."""
    bench = Bench(seed=SEED + 1)
    found = bench.verdict(random_vector(bench, 0))
    print(found.headline())
    return found.colour == "red"


def _kept(bench: Bench, name: str, make: Callable[[], Any]) -> Falsification:
    """The verdict on a vector; one that the same code reached before is read from runs/falsify."""
    folder = RUNS / "falsify" / name
    if (folder / "falsification.json").is_file():
        found = Falsification.load(folder)
        if found.provenance.get("code_commit") == code_commit():
            return found
    found = bench.verdict(make())
    found.save(folder)
    print(found.headline(), flush=True)
    return found


def _figures(found: Falsification) -> dict[str, Any]:
    checks = {one.name: {"verdict": one.verdict, "value": one.value, "threshold": one.threshold, "reason": one.reason}
              for one in found.checks}  # fmt: skip
    return {"colour": found.colour, "counts": found.counts, "n_rows": found.vector["n_rows"], "checks": checks}


def draw(found: Mapping[str, Any]) -> Path:
    """The picture of vectors by checks, from the stored figures."""
    from workbench.reports.falsify import verdict_grid

    groups = {"traits": "", "placebos": "", "shuffled": "", "random": ""}
    rows = {name: {check: one["verdict"] for check, one in row["checks"].items()} for group in groups
            for name, row in found[group].items()}  # fmt: skip
    return verdict_grid(rows, title="Seven traits, and what is no trait, put to every check").save(IMAGE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", action="store_true", required=True)
    parser.parse_args()
    print(draw(read_json(EVIDENCE)))


if __name__ == "__main__":
    main()
