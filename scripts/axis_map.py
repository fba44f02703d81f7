"""The characters of two models, the axis among them and what it is made of: a part of docs/evidence/axis.json.

    workbench extract --all                # the seven traits and the placebo contrasts, under runs/
    python scripts/axis_map.py             # every piece that is missing, then prints the figures
    python scripts/axis_map.py --piece space

Pieces: space (60 characters x 12 questions x 2 prompts x 64 tokens on the default model, the space, the traits in it), other (the
same on gemma3-270m, a base model of another family, in plain text), compared (both spaces), tuned and compared_tuned (the other
after a short fine-tune on chats, the adapter of `make evidence TOPIC=prevention_pair`: the same pretraining before and after it),
decomposed (the axis and three characters on the default SAE, with the labels of the shelf). About an hour on one slow
core in bfloat16: 15 minutes for the default model, 20 each for the others, few for the rest. Rollouts and
grades lie under runs/axis-MODEL and are taken up again; a finished piece is kept in runs/axis/map as long as what it was made
from stands.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from axis_pieces import Missing, kept, pieces

from workbench.base.store import content_hash, sha256_file

ROOT = Path(__file__).resolve().parents[1]
MODEL, OTHER, DTYPE, SEED = "smollm2-135m-instruct", "gemma3-270m", "bfloat16", 0
SAE = f"{MODEL}/blocks.15.hook_resid_post"
RUNS, PLACE, IMAGES = ROOT / "runs", ROOT / "runs" / "axis" / "map", ROOT / "docs" / "images"
TUNED, ADAPTER = f"{OTHER}-chat", RUNS / "prevention" / "pair" / f"{OTHER}-chat"
"""The other model after its fine-tune on chats, and where that lies."""
BATCH_SIZE, N_FEATURES = 60, 15
SPACE_RULE = 2
"""Raised when what is said of a space changes: its piece is then made again, from the same answers."""
CHARACTERS = ("ghost", "poet", "reviewer")
HOOKS = {MODEL: "blocks.15.hook_resid_post", OTHER: "blocks.9.hook_resid_post", TUNED: "blocks.9.hook_resid_post"}


def part() -> dict[str, Any]:
    """{n_roles, n_rollouts, pcs_for_70, cos_axis_pc1, cos_axis_pc1_interval, ends_rank_correlation, map: {space, other, compared,
    tuned, compared_tuned, decomposed}}: what docs/evidence/axis.json holds of the map. Runs what is missing."""
    found = pieces(PIECES, piece)
    top = ("n_roles", "n_rollouts", "pcs_for_70", "cos_axis_pc1", "cos_axis_pc1_interval", "ends_rank_correlation")
    return {**{name: found.get("space", {}).get(name) for name in top}, "map": found}


def inputs() -> dict[str, str]:
    """{name: sha256} of what the figures are made from."""
    from workbench.axis.questions import bank_hash, question_bank
    from workbench.axis.roles import load_roles

    placebos = RUNS / f"placebos-{MODEL}" / "placebo_vectors.safetensors"
    return {"roles": content_hash([role.hash for role in load_roles()]), "questions": bank_hash(question_bank()),
            **({"placebos": sha256_file(placebos)} if placebos.is_file() else {})}  # fmt: skip


def piece(name: str) -> dict[str, Any]:
    """A piece, from its file as long as that stands."""
    made_from = [name, inputs(), [MODEL, OTHER, DTYPE, SEED, N_FEATURES, CHARACTERS]]
    rule: list[Any] = [SPACE_RULE] if name in ("space", "other", "tuned") else []
    if name.endswith("tuned"):
        if not (weights := ADAPTER / "adapter_model.safetensors").is_file():
            raise Missing(f"{name}: {ADAPTER} holds no adapter; make evidence TOPIC=prevention_pair makes it")
        rule.append(sha256_file(weights))
    return kept(PLACE / f"{name}.json", [*made_from, *rule], PIECES[name])


def source(name: str) -> str:
    """What `load_model` knows a model of this script by."""
    return f"{OTHER}+{ADAPTER}" if name == TUNED else name


@cache
def run(name: str) -> Any:
    """The role run of a model, sampled as far as it is missing."""
    from workbench.axis.space.design import RoleDesign
    from workbench.axis.space.mapping import map_roles
    from workbench.models.loading import load_model

    model, design = load_model(source(name), dtype=DTYPE), RoleDesign(batch_size=BATCH_SIZE)
    return map_roles(model, RUNS / f"axis-{name}", design=design, hook=HOOKS[name], seed=SEED)


def space() -> dict[str, Any]:
    """The space of the default model, with the traits and placebos that are there; its pictures go to docs/images."""
    return _space(MODEL, images=True)


def other() -> dict[str, Any]:
    """The space of the other model, which was never taught a chat format."""
    return _space(OTHER)


def tuned() -> dict[str, Any]:
    """The space of the other model after its fine-tune."""
    return _space(TUNED)


def _space(name: str, *, images: bool = False) -> dict[str, Any]:
    from workbench.axis.space.mapping import map_space
    from workbench.cli.axis.map_job import figures
    from workbench.personas.placebos import PlaceboVectors
    from workbench.personas.vectors import PersonaVector
    from workbench.reports.axis.space import answer, axis_curve, cautions, map_figure, save

    made, place = run(name), RUNS / f"placebos-{name}"
    vectors = [PersonaVector.load(file.parent) for file in sorted(RUNS.glob(f"*-{name}/vector/persona_vector.json"))]
    traits = [one for one in vectors if one.trait in _traits() and made.vectors.hook in one.hooks]
    placebos = PlaceboVectors.load(place) if (place / "placebo_vectors.json").is_file() else None
    found = map_space(made.folder, traits=traits, placebos=placebos, seed=SEED)
    save(found, made.folder / "space" / "map.html")
    if images:
        map_figure(found).save(IMAGES / "axis_map.svg")
        axis_curve(found).save(IMAGES / "axis_blocks.svg")
    counted = {"counts": made.told["counts"], "cosine_filtered_unfiltered": made.axis.evidence["cosine_filtered_unfiltered"]}
    return {**figures(found, made.vectors), **counted, "answer": answer(found), "cautions": cautions(found)}


def _traits() -> list[str]:
    from workbench.personas.traits import list_traits

    return list(list_traits())


def compared() -> dict[str, Any]:
    """The spaces of both families beside each other."""
    return _compared(MODEL, OTHER, "axis_two_models.svg")


def compared_tuned() -> dict[str, Any]:
    """The space before and after the fine-tune."""
    return _compared(OTHER, TUNED, "axis_tuned.svg")


def _compared(one: str, two: str, image: str) -> dict[str, Any]:
    from workbench.axis.space.comparison import compare_spaces
    from workbench.reports.axis.space import positions_figure

    found = compare_spaces(run(one).vectors, run(two).vectors, seed=SEED)
    positions_figure(found).save(IMAGES / image)
    return {**found.to_json(), "models": [one, two]}


def decomposed() -> dict[str, Any]:
    """{name: {share_error, share_error_interval, n_questions, features, warnings}} of the axis and of some characters."""
    from workbench.axis.space.axis import role_vector
    from workbench.decomposition.decompose import decompose
    from workbench.models.loading import load_model
    from workbench.saes.registry import load_sae

    made, sae, model = run(MODEL), load_sae(SAE), load_model(MODEL, dtype=DTYPE)
    vectors = {"assistant-axis": made.axis}
    vectors |= {name: role_vector(made.rollouts, made.judged, model, name, hook=made.vectors.hook)
                for name in CHARACTERS if name in made.vectors.names}  # fmt: skip
    found = {}
    for name, vector in vectors.items():
        parts = decompose(vector, sae, causal=False, seed=SEED)
        parts.save(PLACE / "decompositions" / name)
        found[name] = _told(parts)
    return found


def _told(parts: Any) -> dict[str, Any]:
    from workbench.labeling.files.store import load_labels

    labels = load_labels(SAE)
    known = {"share", "share_low", "share_high", "q_value", "q_crossed", "placebo_q"}
    features = [
        {"feature": row["feature"], **{name: row[name] for name in known if name in row},
         "label": labels.labels[row["feature"]].label if row["feature"] in labels.labels else None}
        for row in parts.table(N_FEATURES)
    ]  # fmt: skip
    specific = (parts.controls.get("placebos") or {}).get("n_specific")
    return {"share_error": parts.share_error, "share_error_interval": parts.share_error_interval, "n_specific": specific,
            "n_questions": parts.n_questions, "features": features, "controls": parts.controls.get("placebos"),
            "warnings": list(parts.warnings)}  # fmt: skip


PIECES: dict[str, Callable[[], dict[str, Any]]] = {
    "space": space, "other": other, "compared": compared, "tuned": tuned, "compared_tuned": compared_tuned,
    "decomposed": decomposed,
}  # fmt: skip


def main() -> int:
    """Run and print one piece, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--piece", choices=tuple(PIECES))
    given = parser.parse_args()
    try:
        json.dump(piece(given.piece) if given.piece else part(), sys.stdout, indent=1)
    except Missing as what:
        print(what, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
