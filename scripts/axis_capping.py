"""What caps along the assistant axis take from harm and from capability on the default model: a part of docs/evidence/axis.json.

    python scripts/axis_map.py                        # the axis, under runs/axis-smollm2-135m-instruct
    workbench extract --all                           # the placebo contrasts, under runs/placebos-smollm2-135m-instruct
    python scripts/axis_capping.py                    # the sweep: some 25 CPU minutes on two slow cores, bfloat16

24 caps (4 percentiles x 3 bands, 4 control directions at 2 percentiles, 4 feature caps), each on 30 harmful requests behind one
persona, with capability and KL. Every batch of replies and every cell is kept under runs/axis-MODEL/capping and taken up again:
stop at any time and run the same command. Requests are those of the calibration half; axis_jailbreak.py reports on the other.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import axis_pieces

from workbench.base.store import content_hash, sha256_file

ROOT = Path(__file__).resolve().parents[1]
MODEL, DTYPE, SEED, SAE = "smollm2-135m-instruct", "bfloat16", 0, "smollm2-135m-instruct/blocks.15.hook_resid_post"
RUN = Path(os.environ.get("AXIS_RUN", ROOT / "runs" / f"axis-{MODEL}"))
PLACEBOS, IMAGES = ROOT / "runs" / f"placebos-{MODEL}", ROOT / "docs" / "images"
PLACE = RUN / "capping"
SIZES: dict[str, Any] = {"n_calibration": 30, "n_evaluation": 40, "per_prompt": 1}
N_DOCUMENTS, N_ITEMS, TOKENS = 16, 16, 48
FALLBACK = ("published", 25.0)
"""The cap of the table where no cap of the sweep takes anything from harm at an acceptable price: the paper's choice."""


def part() -> dict[str, Any]:
    """{capping: [{percentile, blocks, harm, capability, intervals, ...}], capping_sweep: {base_harm, front, at_equal_reduction,
    chosen, ...}}: what docs/evidence/axis.json holds of capping. Runs what is missing; draws docs/images/axis_capping.svg."""
    found = kept("sweep", _sweep)
    return {"capping": found["capping"], "capping_sweep": {name: one for name, one in found.items() if name != "capping"}}


def inputs() -> dict[str, str]:
    """{name: sha256} of what the figures are made from."""
    from workbench.axis.roles import jailbreak_personas
    from workbench.axis.scripts import benign_role_play, reminder

    known = {"axis": RUN / "vector" / "persona_vector.safetensors", "placebos": PLACEBOS / "placebo_vectors.safetensors"}
    found = {name: sha256_file(file) for name, file in known.items() if file.is_file()}
    texts = [[one.hash for one in jailbreak_personas()], [[one.system, one.user] for one in benign_role_play()], reminder()]
    return {**found, "texts": content_hash(texts)}


def kept(name: str, make: Callable[[], Any], place: Path | None = None, *, also: Any = None) -> dict[str, Any]:
    """A finished piece from its file, as long as inputs, sizes, the package's version and what it depends on `also` (JSON types)
    stand; else made now."""
    made_from = [name, inputs(), SIZES, N_DOCUMENTS, N_ITEMS, TOKENS, MODEL, DTYPE, SEED, also]
    return axis_pieces.kept((place or PLACE) / "pieces" / f"{name}.json", made_from, make)


@cache
def model() -> Any:
    """The default model."""
    from workbench.models.loading import load_model

    return load_model(MODEL, dtype=DTYPE)


@cache
def axis() -> Any:
    """The assistant axis."""
    from workbench.personas.vectors import PersonaVector

    return PersonaVector.load(RUN / "vector")


@cache
def sae() -> Any:
    """The SAE of the default model."""
    from workbench.saes.registry import load_sae

    return load_sae(SAE)


@cache
def parts() -> Any:
    """The decomposition of this axis on this SAE: the run's own, or one made here."""
    from workbench.axis.capping.features import is_of
    from workbench.decomposition.decompose import decompose
    from workbench.decomposition.result import Decomposition

    for place in (RUN / "decomposition", PLACE / "decomposition"):
        if (place / "decomposition.json").is_file():
            found = Decomposition.load(place)
            if is_of(found, axis(), sae()):
                return found
    found = decompose(axis(), sae(), model=model(), causal=False, n_bootstrap=200)
    found.save(PLACE / "decomposition")
    return found


@cache
def bench() -> Any:
    """Where replies, verdicts, capability and KL are kept, for the sweep and for the table."""
    from workbench.axis.jailbreak.harness import AttackBench, Trying
    from workbench.axis.jailbreak.judging import success_judge
    from workbench.models.sampling import Sampling
    from workbench.steering.cost.capability import make_exam

    exam = make_exam(model(), n_documents=N_DOCUMENTS, n_items=N_ITEMS, folder=PLACE)
    sampling = Sampling(TOKENS, temperature=0.7, top_p=0.9)
    return AttackBench(model(), success_judge(), exam, PLACE, Trying(sampling, batch_size=64, seed=SEED))


@cache
def materials() -> Any:
    """Requests, personas, limits and controls."""
    from workbench.axis.capping.experiment import Design, make_materials
    from workbench.axis.capping.features import feature_limits
    from workbench.personas.placebos import PlaceboVectors

    placebos = PlaceboVectors.load(PLACEBOS) if (PLACEBOS / "placebo_vectors.json").is_file() else None
    features = feature_limits(axis(), parts(), sae(), model())
    design = Design(**SIZES, seed=SEED)
    return make_materials(model(), axis(), design, placebos=placebos, sae=sae(), features=features)


def chosen() -> dict[str, Any]:
    """{band, percentile, feature_percentile, by}: what takes most from harm within the price on the calibration requests."""
    sweep = part()["capping_sweep"]
    cap, feature = sweep["chosen"]["axis"], sweep["chosen"]["features"]
    band, percentile = (cap["band"], cap["percentile"]) if cap else FALLBACK
    told = "the sweep" if cap else "the paper: no cap of the sweep takes anything at an acceptable price"
    return {"band": band, "percentile": percentile, "feature_percentile": feature["percentile"] if feature else 90.0, "by": told}


def _sweep() -> dict[str, Any]:
    from workbench.axis.capping.experiment import sweep_arms
    from workbench.axis.capping.sweep import capping_sweep
    from workbench.reports.axis.capping import capping_figure, capping_sentences

    one = materials()
    found = capping_sweep(bench(), sweep_arms(one), one.behind(calibration=True), seed=SEED, told=one.told())
    capping_figure(found).save(IMAGES / "axis_capping.svg")
    best = {"axis": found.chosen(axis().trait), "features": found.chosen("features")}
    return {**found.to_dict(), "chosen": best, "sentences": capping_sentences(found)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    print(json.dumps(part(), indent=1))
