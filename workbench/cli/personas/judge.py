"""`workbench judge`: which judges there are, and what they are worth."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..options import JsonOption, JudgeModelOption, JudgeUrlOption, PlanOption, QuietOption, SeedOption

app = typer.Typer()


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """Every judge, what it can score, and what was validated."""
    from ..console import emit, say, table

    rows = _judges()
    shown = [(row["name"], row["traits"], row["needs"]) for row in rows]

    def show() -> None:
        table("", ("judge", "traits", "needs"), [(n, ", ".join(t) if isinstance(t, list) else t, w) for n, t, w in shown])
        say("Only evil has a human-scored set. For every other trait each judge is unvalidated, whatever it is.")

    emit({"judges": rows}, as_json=as_json, show=show)


@app.command()
def validate(
    judge: Annotated[str, typer.Argument(help="A judge's name (`workbench judge list`).")] = "offline",
    trait: Annotated[
        list[str] | None, typer.Option("--trait", help="Measure these traits only. [default: all that the judge knows]")
    ] = None,
    judge_model: JudgeModelOption = None,
    judge_url: JudgeUrlOption = None,
    seed: SeedOption = None,
    plan: PlanOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Score a judge against what people scored.

    Human-scored sets, topic-matched traps and held-out replies, with intervals.
    """
    from ..console import emit, reserved_output

    if plan:
        return _plan(judge, trait or [], judge_model, judge_url, as_json=as_json)
    with reserved_output(as_json, quiet):
        value = run_validate(judge, trait or [], judge_model=judge_model, judge_url=judge_url, seed=seed or 0)
    emit(value, as_json=as_json, show=lambda: show_validate(value))


def _plan(name: str, traits: list[str], model: str | None, url: str | None, *, as_json: bool) -> None:
    from ..console import emit
    from ..judge_choice import JudgeChoice
    from ..short_plans import judge_plan, show_short_plan

    names = traits or _known(name)
    for trait in names:  # what the work itself refuses
        JudgeChoice(name, model, url).identity(trait)
    value = judge_plan(name, names)
    emit(value, as_json=as_json, show=lambda: show_short_plan(value))


def run_validate(
    name: str, names: list[str], *, judge_model: str | None = None, judge_url: str | None = None, seed: int = 0
) -> dict[str, Any]:
    """{judge, traits: {trait: what `judges.validation.validate` measured}} of a judge, by name."""
    from workbench.personas.judges.replies import human_files, labelled_replies, traits_with_replies
    from workbench.personas.judges.validation import validate as measure
    from workbench.personas.traits import load_trait

    from ..console import note
    from ..judge_choice import JudgeChoice

    choice = JudgeChoice(name, judge_model, judge_url)
    traits = [load_trait(one) for one in names or _known(name)]
    for trait in traits:  # before any work
        choice.identity(trait.name)
    judge, found = choice.make(), {}
    for trait in traits:
        note(f"{name}: {trait.name} ...")
        written = labelled_replies(trait.name) if trait.name in traits_with_replies() else []
        held_out = [row for row in written if row.role == "test"]
        found[trait.name] = measure(judge, trait, human_files=human_files(trait.name), held_out=held_out, seed=seed)
    return {"judge": judge.description(), "traits": found}


def show_validate(value: dict[str, Any]) -> None:
    """The table of every trait and set."""
    from ..console import interval, say, table

    rows: list[tuple[Any, ...]] = []
    for trait, found in value["traits"].items():
        mark = "" if found["validated"] else "unvalidated"
        for name, one in found["human_scored"].items():
            rows.append((trait, name, one["n"], _number(one["auroc"]), interval(one["interval"]), _number(one["spearman"]), mark))
        if own := found["held_out_replies"]:
            rows.append((trait, "held-out replies", own["n"], _number(own["auroc"]), interval(own["interval"]), "-", mark))
        if traps := found["traps"]:
            pairs = _number(traps["pair_accuracy"])
            rows.append((trait, "traps (pair accuracy)", traps["n"], pairs, interval(traps["interval"]), "-", mark))
    columns = ("trait", "set", "n", "AUROC", "interval", "Spearman", "")
    table(f"judge {value['judge']['name']}", columns, rows, right=(2, 3, 4, 5))
    if any(not found["validated"] for found in value["traits"].values()):
        say("unvalidated: nobody scored replies for this trait; traps and replies were written by a model.")


def _judges() -> list[dict[str, Any]]:
    from workbench.personas.judges import list_judges
    from workbench.personas.judges.heads import traits_with_head

    from ..judge_choice import ENDPOINTS, HEAD_JUDGES

    needs = dict.fromkeys(ENDPOINTS, "an endpoint and its key in the environment")
    needs |= {"local": "a model that this machine can run (--judge-model)", "none": "nothing; keeps every response, unjudged"}
    needs |= {"offline": "nothing else (fetches a small embedder once)", "offline-outcome": "nothing else"}
    return [{"name": name, "traits": traits_with_head(name) if name in HEAD_JUDGES else "any (reads the rubric)",
             "needs": needs[name]} for name in list_judges()]  # fmt: skip


def _known(name: str) -> list[str]:
    from workbench.personas.judges.heads import traits_with_head
    from workbench.personas.traits import list_traits

    from ..judge_choice import HEAD_JUDGES

    return traits_with_head(name) if name in HEAD_JUDGES else list_traits()


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
