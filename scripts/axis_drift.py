"""How conversations carry the default model along the assistant axis: a part of docs/evidence/axis.json.

    python scripts/axis_map.py                        # the axis, under runs/axis-smollm2-135m-instruct
    workbench extract --all                           # the placebo contrasts, under runs/placebos-smollm2-135m-instruct
    python scripts/axis_drift.py                      # every piece that is missing, then prints the figures
    python scripts/axis_drift.py --piece domains      # one piece, printed

Pieces: domains (4 domains x 30 conversations x 6 turns x 64 tokens), features (what moved in them), prediction (the position from
the user's message), alarm (set on 8 other conversations about ordinary work) and levels (one persona specified at four levels,
times 10 conversations each of emotional and philosophical talk, paired by script). About 40 CPU minutes on two slow cores in
bfloat16: 11 to play and 13 to read the domains, 4 for features, 1 for prediction, 2 for the alarm, 9 for levels. Replies and
readings lie under runs/axis-smollm2-135m-instruct/drift and are taken up again; a finished piece is kept in pieces/ as long as
the axis, the scripts, the options and the package's version stand.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from axis_pieces import kept, pieces

from workbench.base.store import sha256_file

ROOT = Path(__file__).resolve().parents[1]
MODEL, DTYPE, SEED = "smollm2-135m-instruct", "bfloat16", 0
RUN, PLACEBOS = ROOT / "runs" / f"axis-{MODEL}", ROOT / "runs" / f"placebos-{MODEL}"
PLACE, IMAGES = RUN / "drift", ROOT / "docs" / "images"
N_CONVERSATIONS, N_TURNS, N_LEVELS, N_FEATURES = 30, 6, 10, 10
EMOTIONAL = ("therapy", "philosophy")


def part() -> dict[str, Any]:
    """{drift_speed: {domain: [value, low, high]}, ratio_to_coding, drift: {domains, features, prediction, alarm, levels}}: what
    docs/evidence/axis.json holds of drift. Runs what is missing."""
    found = pieces(PIECES, piece)
    domains = found.get("domains", {"compared": {}, "drift_speed": None})
    ratios = {group: row["drift_per_turn"] for group, row in domains["compared"].items()}
    return {"drift_speed": domains["drift_speed"], "ratio_to_coding": ratios, "drift": found}


def inputs() -> dict[str, str]:
    """{name: sha256} of what the figures are made from."""
    from workbench.axis.scripts import load_scripts, scripts_hash

    known = {"axis": RUN / "vector" / "persona_vector.safetensors", "placebos": PLACEBOS / "placebo_vectors.safetensors",
             "roles": RUN / "roles" / "role_vectors.safetensors"}  # fmt: skip
    found = {name: sha256_file(file) for name, file in known.items() if file.is_file()}
    return {**found, "scripts": scripts_hash(load_scripts())}


def piece(name: str) -> dict[str, Any]:
    """A piece, from its file as long as that stands."""
    sizes = [N_CONVERSATIONS, N_TURNS, N_LEVELS, N_FEATURES, MODEL, DTYPE, SEED]
    return kept(PLACE / "pieces" / f"{name}.json", [name, inputs(), sizes], PIECES[name])


# ---------------------------------------------------------------------------------------------------- what is read once


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
def placebos() -> Any:
    """The placebo directions; None where nobody made them."""
    from workbench.personas.placebos import PlaceboVectors

    return PlaceboVectors.load(PLACEBOS) if (PLACEBOS / "placebo_vectors.json").is_file() else None


@cache
def roles() -> Any:
    """The role vectors beside the axis; None where there are none."""
    from workbench.axis.space.role_vectors import RoleVectors

    return RoleVectors.load(RUN / "roles") if (RUN / "roles" / "role_vectors.json").is_file() else None


def played(scripts: Any, personas: Any = (("", ""),)) -> Any:
    """The conversations of these scripts behind each (name, system prompt)."""
    from workbench.axis.drift.playing import play_scripts

    return play_scripts(model(), scripts, PLACE / "replies", personas=personas, n_turns=N_TURNS, seed=SEED)


def studied(talks: Any, **options: Any) -> Any:
    """Their drift along the axis."""
    from workbench.axis.drift.study import drift_study

    return drift_study(model(), axis(), talks, PLACE / "readings", placebos=placebos(), roles=roles(), seed=SEED, **options)


@cache
def study() -> Any:
    """The four domains."""
    from workbench.axis.scripts import DOMAINS, load_scripts

    scripts = [one for domain in DOMAINS for one in load_scripts(domain, split="evaluation")[:N_CONVERSATIONS]]
    found = studied(played(scripts))
    found.save(PLACE / "study")
    return found


# --------------------------------------------------------------------------------------------------------------- pieces


def domains() -> dict[str, Any]:
    """Drift in the four domains; draws docs/images/drift_*.svg and the page beside the study."""
    from workbench.reports.axis.drift import conversation_figure, speeds_figure, turns_figure
    from workbench.reports.axis.drift_page import furthest, headline, save

    found = study()
    speeds_figure(found).save(IMAGES / "drift_speeds.svg")
    turns_figure(found).save(IMAGES / "drift_turns.svg")
    conversation_figure(found.trace(furthest(found, 1)[-1])).save(IMAGES / "drift_conversation.svg")
    save(found, PLACE / "drift.html")
    return {**found.to_json(), "headline": headline(found)}


@cache
def moved() -> list[Any]:
    """What moved in every domain, both ways of asking."""
    from workbench.axis.drift.attribution import WHAT, read_codes, what_moved
    from workbench.labeling.files.store import load_labels
    from workbench.saes.registry import load_sae

    sae, found = load_sae(), study()
    labels = load_labels(sae.id, sae_hash=sae.weights_hash)
    codes = read_codes(model(), axis(), found.conversations, sae)
    names = [one.domain for one in found.conversations]
    rows = {group: [i for i, name in enumerate(names) if name == group] for group in dict.fromkeys(names)}
    options: dict[str, Any] = {"placebos": placebos(), "labels": labels, "n_shown": N_FEATURES, "seed": SEED}
    return [what_moved(codes, what=what, group=group, members=own, **options) for group, own in rows.items() for what in WHAT]


def features() -> dict[str, Any]:
    """{domain: {history, late}}: the features that carry the drift."""
    found: dict[str, Any] = {}
    for one in moved():
        found.setdefault(one.group, {})[one.what] = one.to_json()
    return found


def prediction() -> dict[str, Any]:
    """R2 of position, change and drift from the user's message."""
    from workbench.axis.drift.prediction import predict_positions

    return predict_positions(study(), seed=SEED)


def alarm() -> dict[str, Any]:
    """An alarm set on the calibration scripts about ordinary work, tried on the evaluation scripts."""
    from workbench.axis.drift.alarm import QUIET, drift_alarm
    from workbench.axis.scripts import load_scripts

    ordinary = played(load_scripts(*QUIET, split="calibration"))
    found = drift_alarm(studied(ordinary, contexts=("history", "alone")), study(), seed=SEED)
    found.save_monitor(model(), axis(), PLACE / "monitor")
    return found.to_json()


def levels() -> dict[str, Any]:
    """One persona at four levels of specification in emotional and philosophical talk; differences are to the first level, paired
    by script."""
    from workbench.axis.roles import gardener_levels
    from workbench.axis.scripts import load_scripts

    personas = [(one.name, one.prompts[0]) for one in gardener_levels()]
    scripts = [one for domain in EMOTIONAL for one in load_scripts(domain, split="evaluation")[:N_LEVELS]]
    talks, found = played(scripts, personas), {}
    for domain in EMOTIONAL:
        here = [one for one in talks if one.domain == domain]
        contexts = ("history", "alone")
        shown = studied(here, by=lambda one: one.persona, reference=personas[0][0], contexts=contexts).to_json()
        found[domain] = {name: shown[name] for name in ("groups", "compared", "reference", "drift_speed")}
    return found


PIECES: dict[str, Callable[[], dict[str, Any]]] = {
    "domains": domains, "features": features, "prediction": prediction, "alarm": alarm, "levels": levels,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--piece", choices=list(PIECES), help="one piece alone")
    given = parser.parse_args()
    if not (RUN / "vector" / "persona_vector.json").is_file():
        print(f"{RUN} holds no axis: run scripts/axis_map.py first.", file=sys.stderr)
        return 2
    print(json.dumps(piece(given.piece) if given.piece else part(), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
