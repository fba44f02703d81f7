"""`workbench vectors compare` and `workbench vectors layers`: how a vector could have been made, and where."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError
from workbench.models.hookpoints import HookPoint

from ..console import interval, judge_of, judge_shown, note, reserved_output, say, table
from ..inputs import folder_hash
from ..plan import show_steps
from ..remembered import remembered
from ..studies.plans import compare_plan, layers_plan

if TYPE_CHECKING:
    from ..options import JobFlags
    from ..stages import JobConfig

COMPARISON, LAYERS, LAYERS_FIGURE = "methods.json", "layers.json", "layers.svg"


def run_compare(
    flags: JobFlags, trait: str, *, methods: list[str], positions: list[str], hooks: list[str], normalise: bool,
    n_bootstrap: int,
) -> dict[str, Any]:  # fmt: skip
    """The value of `workbench vectors compare`: {trait, model, judge, judge_validated, rows, names, cosines, causal_random,
    folder}."""
    config = flags.job(trait)
    folder = _finished(config, flags.out)
    with reserved_output(flags.as_json, flags.quiet):
        from workbench.personas.comparison import compare, default_candidates
        from workbench.personas.runs import read_run
        from workbench.personas.traits import load_trait
        from workbench.personas.vectors import PersonaVector

        vector = PersonaVector.load(folder / "vector")
        hook = vector.hook if config.hook is None else HookPoint.parse(config.hook)
        chosen = _candidates(hook, methods, positions, hooks, normalise) or default_candidates(hook)
        if flags.plan:
            return compare_plan(config, load_trait(trait), chosen, vector, hook, folder)

        def made() -> dict[str, Any]:
            model = _model(config, folder)
            run = read_run(folder, model, hook)
            note("comparison ...")
            return compare(run, load_trait(trait), model, chosen, n_bootstrap=n_bootstrap, seed=config.seed).to_json()

        sources = _sources(config, folder) | {"candidates": [one.name for one in chosen], "n_bootstrap": n_bootstrap}
        found = remembered(folder / COMPARISON, sources, made)
        return {"model": config.model, **judge_of(vector.evidence), **found, "folder": str(folder)}


def run_layers(flags: JobFlags, trait: str) -> dict[str, Any]:
    """The value of `workbench vectors layers`: {trait, model, judge, judge_validated, hook, separability, causal, chosen,
    figure}."""
    config = flags.job(trait)
    folder = _finished(config, flags.out)
    with reserved_output(flags.as_json, flags.quiet):
        from workbench.personas.traits import load_trait
        from workbench.personas.vectors import PersonaVector
        from workbench.reports.figures import layer_choice

        vector = PersonaVector.load(folder / "vector")
        if flags.plan:
            return layers_plan(config, load_trait(trait), vector.hooks, folder)
        made = remembered(folder / LAYERS, _sources(config, folder), lambda: _layers(config, folder, vector))
        figure = layer_choice(_points(made["separability"], "auc"), _points(made["causal"], "odd"), chosen=vector.hook.block)
        drawn = str(figure.save(folder / LAYERS_FIGURE))
        return {"model": config.model, **judge_of(vector.evidence), **made, "figure": drawn}


def _layers(config: JobConfig, folder: Path, vector: Any) -> dict[str, Any]:
    from workbench.personas.layers import CHOICES, causal_points, choose_hook
    from workbench.personas.traits import load_trait

    curve = vector.evidence["layer_curve"]
    note("causal curve ...")
    causal = causal_points(load_trait(config.trait), _model(config, folder), vector.directions, vector.hooks, seed=config.seed)
    chosen = {by: str(choose_hook(by, curve, causal, vector.hooks)) for by in CHOICES}
    return {"trait": vector.trait, "hook": str(vector.hook), "separability": curve, "causal": causal, "chosen": chosen}


def _sources(config: JobConfig, folder: Path) -> dict[str, Any]:
    """What a study of one trait's finished vector depends on."""
    from workbench.personas.traits import load_trait

    return {"vector": folder_hash(folder / "vector"), "trait": load_trait(config.trait).hash, "seed": config.seed,
            "dtype": config.dtype}  # fmt: skip


def show_compare(value: dict[str, Any]) -> None:
    """The table of the candidates."""
    if "steps" in value:
        show_steps(value)
        return
    columns = (
        "method",
        "position",
        "hook",
        "AUC",
        "interval",
        "d",
        "odd 0.5",
        "odd 1.0",
        "pattern 1.0",
        "halves",
        "seeds",
    )
    rows = [_compare_row(row, value["cosines"][0][i]) for i, row in enumerate(value["rows"])]
    table(f"{value['trait']} in {value['model']}", (*columns, "cosine"), rows, right=tuple(range(3, 12)))
    for hook, spread in value["causal_random"].items():
        say(
            f"random directions pushed at {hook}: "
            + ", ".join(f"odd at {d} {interval(e)}" for d, e in spread.items())
        )
    say(f"cosine: with the first row. Rows kept by the judge: {judge_shown(value)}. {value['folder']}/{COMPARISON}")


def show_layers(value: dict[str, Any]) -> None:
    """The two curves as a table, and where the figure lies."""
    if "steps" in value:
        show_steps(value)
        return
    effects = {point["hook"]: point for point in value["causal"]}
    rows = []
    for point in value["separability"]:
        effect = effects.get(point["hook"], {})
        ends = interval([effect["low"], effect["high"]]) if effect else "-"
        rows.append((point["hook"], _number(point["auc"]), interval([point["low"], point["high"]]),
                     _number(effect.get("odd"), 3), ends))  # fmt: skip
    table(
        f"{value['trait']} in {value['model']}",
        ("hook", "AUC", "interval", "odd", "interval"),
        rows,
        right=(1, 2, 3, 4),
    )
    say(f"by separability {value['chosen']['separability']}; by causal effect {value['chosen']['causal']}")
    say(f"rows kept by the judge: {judge_shown(value)}")
    say(value["figure"])


def _compare_row(row: dict[str, Any], cosine: float) -> tuple[Any, ...]:
    causal, pattern = row["causal"] or {}, row.get("causal_pattern") or {}
    odds = [_number(causal.get(dose, {}).get("odd"), 3) for dose in ("0.5", "1.0")]
    position = row["position"] + (" normalised" if row["normalised"] else "")
    return (row["method"], position, row["hook"], _number(row["auc"], 3), interval(row["auc_interval"]),
            _number(row["effect_size"]), *odds, _number(pattern.get("1.0", {}).get("odd"), 3),
            _number(row["split_half_cosine"]), _number(row["seed_cosine"]), _number(cosine))  # fmt: skip


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _points(curve: list[dict[str, Any]], key: str) -> list[tuple[float, float, float | None, float | None]]:
    known = [point for point in curve if point[key] is not None]
    return [(HookPoint.parse(p["hook"]).block, p[key], p["low"], p["high"]) for p in known]


def _candidates(
    hook: Any, methods: list[str], positions: list[str], hooks: list[str], normalise: bool
) -> list[Any] | None:
    """Every combination of what was named, or None for the default star."""
    from itertools import product

    from workbench.personas.comparison import Candidate

    if not (methods or positions or hooks or normalise):
        return None
    from workbench.personas.methods import check_method
    from workbench.personas.positions import check_position

    places = [HookPoint.parse(name) for name in hooks] or [hook]
    named = product(
        places,
        map(check_position, positions or ["response_avg"]),
        map(check_method, methods or ["mean_difference"]),
    )
    return [
        Candidate(*one, normalised=scaled)
        for one in named
        for scaled in ((False, True) if normalise else (False,))
    ]


def _finished(config: JobConfig, out: Path | None) -> Path:
    from ..stages import run_folder_of

    folder = run_folder_of(config, out)
    if not (folder / "vector" / "persona_vector.json").is_file():
        raise WorkbenchError(
            f"{folder} holds no vector",
            f"a finished extraction of {config.trait} from {config.model}",
            f"run first: workbench extract {config.trait} --model {config.model}",
        )
    return folder


def _model(config: JobConfig, folder: Path) -> Any:
    from ..stages import Job

    return Job(config, folder, sae_needed=False).model
