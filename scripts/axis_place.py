"""One persona, the Gardener, at four levels of specification: where it lands, and what would steady it: a part of
docs/evidence/axis.json.

    python scripts/axis_map.py               # the characters of the default model, under runs/axis-smollm2-135m-instruct
    python scripts/axis_place.py             # every piece that is missing, then prints the figures
    python scripts/axis_place.py --piece gardener-soul

Pieces: gardener-label, -duties, -values and -soul. The map gets the character that the notes name and the subset lacks (the
editor): its 24 answers are sampled, the others are taken from the run. About 40 CPU minutes on two slow cores in bfloat16: 4 for
the map and the default assistant's answers, 5 for the label, 8 for duties, 10 for values, 13 for the document. Answers lie under
runs/axis/place and are taken up again; a finished piece is kept as long as what it was made from stands.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from functools import cache, partial
from pathlib import Path
from typing import Any

from axis_pieces import kept, pieces

from workbench.base.store import content_hash, sha256_file

ROOT = Path(__file__).resolve().parents[1]
MODEL, DTYPE, SEED, BATCH_SIZE = "smollm2-135m-instruct", "bfloat16", 0, 60
RUN, PLACEBOS = ROOT / "runs" / f"axis-{MODEL}", ROOT / "runs" / f"placebos-{MODEL}"
PLACE, IMAGES = ROOT / "runs" / "axis" / "place", ROOT / "docs" / "images"
SAE = f"{MODEL}/blocks.15.hook_resid_post"
EXPECTED = ("editor", "conservator", "artisan")
LEVELS = PIECES = ("gardener-label", "gardener-duties", "gardener-values", "gardener-soul")
N_CONVERSATIONS, N_NEAREST, N_FEATURES = 10, 5, 5


def part() -> dict[str, Any]:
    """{gardener: {nearest, axis_position, drift_risk}, place: {level: {...}}}: what docs/evidence/axis.json holds of places.

    gardener is the persona with its document. Runs what is missing."""
    found = pieces(LEVELS, piece)
    last = found.get(LEVELS[-1])
    told = ("nearest", "axis_position", "drift_risk")
    return {"gardener": last and {name: last[name] for name in told}, "place": found}


def inputs() -> dict[str, str]:
    """{name: sha256} of what the figures are made from."""
    from workbench.axis.questions import bank_hash, question_bank
    from workbench.axis.roles import gardener_levels
    from workbench.axis.scripts import load_scripts, scripts_hash, steadying_sentences

    known = {"role vectors": RUN / "roles" / "role_vectors.safetensors", "placebos": PLACEBOS / "placebo_vectors.safetensors"}
    files = {name: sha256_file(file) for name, file in known.items() if file.is_file()}
    texts = {"personas": content_hash([one.hash for one in gardener_levels()]), "questions": bank_hash(question_bank()),
             "scripts": scripts_hash(load_scripts()), "sentences": content_hash(steadying_sentences())}  # fmt: skip
    return {**files, **texts}


def piece(name: str) -> dict[str, Any]:
    """A piece, from its file as long as that stands."""
    options = [MODEL, DTYPE, SEED, SAE, EXPECTED, N_CONVERSATIONS, N_NEAREST, N_FEATURES]
    return kept(PLACE / "pieces" / f"{name}.json", [name, inputs(), options], partial(placed, name))


@cache
def model() -> Any:
    """The default model."""
    from workbench.models.loading import load_model

    return load_model(MODEL, dtype=DTYPE)


@cache
def run() -> Path:
    """The map with the characters that were named beforehand: the run's own rollouts, linked, and those of the others."""
    from workbench.axis.roles import load_roles
    from workbench.axis.space.design import RoleDesign
    from workbench.axis.space.mapping import map_roles

    if not (RUN / "roles" / "role_vectors.json").is_file():
        raise SystemExit(f"{RUN} holds no role vectors: run scripts/axis_map.py first")
    for kind in ("rollouts", "activations"):
        (PLACE / kind).mkdir(parents=True, exist_ok=True)
        for source in sorted((RUN / kind).iterdir()):
            if not (PLACE / kind / source.name).exists():
                _link(source, PLACE / kind / source.name)
    design = RoleDesign(batch_size=BATCH_SIZE)
    names = [role.name for role in design.roles]
    roles = load_roles([*names, *(name for name in EXPECTED if name not in names)])
    map_roles(model(), PLACE, design=design, hook=_sae().hook, roles=roles, seed=SEED)
    return PLACE


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk
        shutil.copy2(source, target)


@cache
def _sae() -> Any:
    from workbench.saes.registry import load_sae

    return load_sae(SAE)


@cache
def _beside() -> tuple[list[Any], Any]:
    """(trait vectors of the same weights, placebos; None where nobody made them)."""
    from workbench.personas.placebos import PlaceboVectors
    from workbench.personas.traits import list_traits
    from workbench.personas.vectors import PersonaVector

    folders = [ROOT / "runs" / f"{name}-{MODEL}" / "vector" for name in list_traits()]
    traits = [PersonaVector.load(folder) for folder in folders if (folder / "persona_vector.json").is_file()]
    fits = [one for one in traits if one.model.get("weights_hash") == model().weights_hash and _sae().hook in one.hooks]
    placebos = PlaceboVectors.load(PLACEBOS) if (PLACEBOS / "placebo_vectors.json").is_file() else None
    return fits, placebos if placebos and placebos.model.get("weights_hash") == model().weights_hash else None


def placed(name: str) -> dict[str, Any]:
    """The figures of one level; draws its nearest characters and writes its page."""
    from workbench.axis.design.answers import PlaceDesign
    from workbench.axis.design.place import place
    from workbench.axis.roles import gardener_levels
    from workbench.cli.axis.place_job import drift_risk
    from workbench.labeling.files.store import load_labels
    from workbench.reports.axis.design import nearest_figure, save

    prompt = next(one.prompts[0] for one in gardener_levels() if one.name == name)
    traits, placebos = _beside()
    design = PlaceDesign(conversations=N_CONVERSATIONS, batch_size=BATCH_SIZE)
    found = place(model(), prompt, run(), name=name, design=design, traits=traits, placebos=placebos, sae=_sae(),
                  labels=load_labels(SAE, sae_hash=_sae().weights_hash), expected=EXPECTED, seed=SEED)  # fmt: skip
    save(found, PLACE / "place" / name / "place.html")
    if name == LEVELS[-1]:
        nearest_figure(found).save(IMAGES / "gardener_nearest.svg")
    value = found.to_json()
    features, added = value["features"], value["additions"]
    return {
        "n_words": len(prompt.split()), "n_roles": found.n_roles, "nearest": found.nearest, "axis_position": found.position,
        "drift_risk": drift_risk(value), "rank": found.standing["rank"], "closest": found.standing["nearest"][:N_NEAREST],
        "expected": found.expected, "retrieval": found.retrieval, "traits": found.traits,
        "features": {**features, "features": features["features"][:N_FEATURES]}, "sentences": found.sentences,
        "additions": {"measured": added["measured"], "chosen": _short(added["chosen"])},
        "steadied": value["drift"].get("steadied"), "headline": value["headline"],
    }  # fmt: skip


def _short(chosen: dict[str, Any] | None) -> dict[str, Any] | None:
    return chosen and {name: value for name, value in chosen.items() if name != "prompt"}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--piece", choices=LEVELS, help="one piece alone")
    chosen = parser.parse_args().piece
    print(json.dumps(piece(chosen) if chosen else part(), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
