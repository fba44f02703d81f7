"""`workbench transfer`: do the vectors of one model exist in another?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError
from workbench.base.runs import default_run_folder

from ..console import either_way, judge_of, judge_shown, note, reserved_output, say, table
from ..inputs import folder_hash, placebos_hash
from ..remembered import remembered
from .plans import transfer_plan

if TYPE_CHECKING:
    from ..options import JobFlags
    from ..stages import JobConfig

RESULT, FIGURE = "transfer.json", "similarity.svg"
DOSE = 1.0
SEGMENTS_PER_DOCUMENT = 4


def run_transfer(flags: JobFlags, target: str, traits: Sequence[str], *, n_segments: int) -> dict[str, Any]:
    """The value of `workbench transfer`: {source, target, judges, similarity, carried, behaviour}.

    judges: {model: {trait: {judge, judge_validated}}}, of the rows that its vector is made from.
    """
    source_config = flags.job(traits[0])
    target_config = replace(source_config, model=target, sae=None, hook=None)
    folders = {side.model: _finished(side, traits, flags.out) for side in (source_config, target_config)}
    shared = [t for t in traits if all(t in found for found in folders.values())]
    if not shared:
        raise WorkbenchError(
            f"no trait has a vector of both {source_config.model} and {target}",
            "the same traits extracted from both models",
            f"run first: workbench extract --all --model {source_config.model}, and the same for {target}",
        )
    folder = _folder(f"transfer-to-{Path(target).name}", source_config, flags.out)
    from workbench.personas.traits import load_trait

    if flags.plan:
        sides = (source_config, target_config)
        bare = [side for side in sides if placebos_hash(_folder("placebos", side, flags.out)) is None]
        return transfer_plan(source_config, target_config, [load_trait(trait) for trait in shared], n_segments=n_segments,
                             without_placebos=bare, folder=folder)  # fmt: skip
    with reserved_output(flags.as_json, flags.quiet):
        from workbench.personas.transfer_study import N_PUSHED
        from workbench.reports.matrices import heat_map

        for side in (source_config, target_config):
            _make_placebos(side, flags.out)
        sides = (source_config, target_config)
        sources = {
            "vectors": {side.model: {t: folder_hash(folders[side.model][t] / "vector") for t in shared} for side in sides},
            "placebos": [placebos_hash(_folder("placebos", side, flags.out)) for side in sides],
            "pairs": {trait: load_trait(trait).pairs_hash for trait in shared},
            "hook": [side.hook for side in sides], "n_segments": n_segments, "seed": source_config.seed,
            "dtype": source_config.dtype, "n_pushed": N_PUSHED,
        }  # fmt: skip

        def made() -> dict[str, Any]:
            return _transfer(source_config, target_config, folders, shared, flags.out, n_segments)

        value = remembered(folder / RESULT, sources, made)
        names = {"rows": f"block of {source_config.model}", "columns": f"block of {target}"}
        heat_map(value["similarity"]["rsa"], title="Representational similarity (RSA)", **names).save(folder / FIGURE)
    judges = {model: {trait: _judge(found[trait]) for trait in shared} for model, found in folders.items()}
    return {"source": source_config.model, "target": target, "judges": judges, **value, "folder": str(folder)}


def _judge(folder: Path) -> dict[str, Any]:
    from workbench.personas.vectors import PersonaVector

    return judge_of(PersonaVector.load(folder / "vector").evidence)


def _make_placebos(config: JobConfig, out: Path | None) -> None:
    """Sample the placebo contrasts of a model that has none yet, with the command's own design."""
    folder = _folder("placebos", config, out)
    if placebos_hash(folder) is None:
        from ..personas.panel import placebos_of
        from ..stages import Job

        placebos_of(Job(config, folder, sae_needed=False), folder)


def _finished(config: JobConfig, traits: Sequence[str], out: Path | None) -> dict[str, Path]:
    folders = {name: _folder(name, config, out) for name in traits}
    return {name: folder for name, folder in folders.items() if (folder / "vector" / "persona_vector.json").is_file()}


def _folder(name: str, config: JobConfig, out: Path | None) -> Path:
    folder = default_run_folder(Path(name).name, config.model)
    return folder if out is None else out / folder.name


def _transfer(
    source: JobConfig, target: JobConfig, folders: dict[str, dict[str, Path]], traits: Sequence[str], out: Path | None,
    n_segments: int,
) -> dict[str, Any]:  # fmt: skip
    from workbench.personas.transfer_study import Side, study

    sides = [
        Side.read(_load(config), {t: folders[config.model][t] for t in traits}, _folder("placebos", config, out), config.hook)
        for config in (source, target)
    ]
    note("similarity and transfer ...")
    return study(sides[0], sides[1], neutral_documents(n_segments), n_segments=n_segments, dose=DOSE, seed=source.seed)


def _load(config: JobConfig) -> Any:
    from workbench.models.loading import load_model

    return load_model(config.model, dtype=config.dtype, device=config.device, max_memory=config.memory_budget)


def neutral_documents(n_segments: int) -> list[str]:
    """Ordinary texts (OpenWebText and Wikipedia) for a map of `n_segments` segments, fetched on first use."""
    from workbench.models.assets import asset_path

    root, documents = asset_path("evals"), []
    for name in ("owt_5.jsonl", "wikipedia_5.jsonl"):
        lines = next(root.rglob(name)).read_text(encoding="utf-8").splitlines()
        documents += [json.loads(line)["0"] for line in lines if line.strip()]
    # A few segments of each document rather than all of a few documents.
    words = 24 * max(SEGMENTS_PER_DOCUMENT, -(-n_segments // len(documents)))
    return [" ".join(document.split()[:words]) for document in documents]


def show_transfer(value: dict[str, Any]) -> None:
    """Traits with the cosine of the carried vector, its nulls, and what it does in the target (or the plan)."""
    if "steps" in value:
        from ..plan import show_steps

        show_steps(value)
        return
    rows = []
    for trait, row in value["carried"]["traits"].items():
        did = value["behaviour"].get(trait) or {}
        odd = {name: f"{one['odd']:+.3f}" for name, one in did.items()}
        moved = did.get("carried", {})
        judges = [judge_shown(value["judges"][value[side]][trait]) for side in ("source", "target")]
        rows.append((trait, f"{row['cosine']:.3f}", f"{row['null_q95']:.3f}", _number(row["placebo_q95"]), row["rank"],
                     odd.get("carried", "-"), either_way(moved.get("placebo_interval")), odd.get("own", "-"),
                     either_way(moved.get("random_interval")), *judges))  # fmt: skip
    pushed = value["pushed"]
    columns = ("trait", "cosine with own", "permuted 95%", "placebo 95%", "rank", "odd, carried",
               f"carried placebos (bound from {pushed['n_placebos_at_most']})", "odd, own",
               f"random (bound from {pushed['n_random']})", "judge, source", "judge, target")  # fmt: skip
    table(f"{value['source']} ({value['source_hook']}) to {value['target']} ({value['target_hook']})", columns, rows,
          right=(1, 2, 3, 4, 5, 7))  # fmt: skip
    carried = value["carried"]
    placebos, n = carried["placebo_retrieval"], carried["n_placebos"]
    beside = "no placebos" if placebos is None else f"{placebos:.0%} of {n} placebos (chance {1 / n:.0%})"
    say(f"own vector nearest: {carried['retrieval']:.0%} of traits (chance {carried['chance']:.0%}), {beside}")
    say("judge: who kept the rows that the vectors are made from")
    say(value["folder"])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
