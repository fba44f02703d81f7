"""`workbench traits`: list, show (and check), new, import, export."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from ..options import DEFAULT_MODEL, JsonOption, QuietOption, TraitArgument

FolderOption = Annotated[Path, typer.Option("--out", help="Folder that gets the trait's folder.")]
app = typer.Typer()


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """The traits that are shipped, and those of your own.

    Yours are looked for in the folder ./traits, or that of the setting `traits`.
    """
    from workbench.personas.traits import list_traits, load_trait

    from ..console import emit, table

    rows = [{"name": t.name, "description": " ".join(t.description.split())} for t in map(load_trait, list_traits())]
    shown = [(row["name"], row["description"]) for row in rows]
    emit({"traits": rows}, as_json=as_json, show=lambda: table("", ("trait", "description"), shown))


@app.command()
def show(trait: TraitArgument, as_json: JsonOption = False) -> None:
    """Check a trait's files and say what they hold."""
    from workbench.base.settings import setting
    from workbench.personas.pair_lengths import length_warnings
    from workbench.personas.traits import load_trait, trait_path

    from ..console import emit

    loaded = load_trait(trait)
    warnings = length_warnings(loaded, str(setting("model", None, DEFAULT_MODEL)))
    value = {**_summary(loaded), "path": str(trait_path(trait)), "hash": loaded.hash, "warnings": warnings}
    emit(value, as_json=as_json, show=lambda: _show(value))


def _summary(trait: Any) -> dict[str, Any]:
    splits = Counter(question.split for question in trait.questions)
    return {
        "name": trait.name,
        "adjective": trait.adjective,
        "opposite": trait.opposite,
        "description": " ".join(trait.description.split()),
        "instructions": len(trait.instructions),
        "arms": list(trait.arms),
        "questions": dict(splits),
        "contrast_pairs": len(trait.contrast_pairs),
        "control_pairs": dict(Counter(pair.kind for pair in trait.control_pairs)),
        "traps": len(trait.traps),
        "taxonomy": [{"id": c.id, "kind": c.kind, "name": c.name, "shows_trait": c.shows_trait} for c in trait.taxonomy],
    }


def _show(value: dict[str, Any]) -> None:
    from ..console import say, table

    def counted(counts: dict[str, int]) -> str:
        return ", ".join(f"{n} {name}" for name, n in counts.items()) or "none"

    say(f"{value['name']} ({value['adjective']} / {value['opposite']}): {value['description']}")
    say(f"{value['instructions']} instructions in {len(value['arms'])} arms; questions: {counted(value['questions'])}")
    say(f"{value['contrast_pairs']} contrast pairs; control pairs: {counted(value['control_pairs'])}; {value['traps']} traps")
    rows = [(c["id"], c["kind"], c["name"]) for c in value["taxonomy"]]
    table("taxonomy", ("category", "kind", "name"), rows) if rows else say("no taxonomy")
    for sentence in value["warnings"]:
        say(f"warning: {sentence}")
    if value["warnings"]:
        say(f"{value['path']}: complete, but the causal effect is per token: match the replies' lengths")
    else:
        say(f"{value['path']}: nothing to complain about")


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the new trait: lower case, digits, _ and -.")],
    describe: Annotated[
        str | None, typer.Option("--describe", help="What the trait is, in a sentence: a chat model writes all of it.")
    ] = None,
    endpoint_model: Annotated[
        str | None, typer.Option("--endpoint-model", help="The model that writes. [default: the setting judge_model]")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option("--base-url", help="Its OpenAI-compatible endpoint. [default: the setting base_url]")
    ] = None,
    sample: Annotated[int, typer.Option("--sample", help="Another number gives another trait.")] = 0,
    out: FolderOption = Path("traits"),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """A new trait: a skeleton, or written by a chat model.

    Without --describe its files are to be filled in; with it a chat model writes all of them. The key of the endpoint is read
    from the environment (WORKBENCH_API_KEY, or at OpenAI OPENAI_API_KEY).
    """
    from workbench.base.errors import WorkbenchError

    if describe is not None:
        _write(name, describe, out, endpoint_model, base_url, sample, as_json=as_json, quiet=quiet)
    elif endpoint_model or base_url:
        raise WorkbenchError("an endpoint without --describe", "a sentence to write from", 'add --describe "..."')
    else:
        _scaffold(name, out, as_json)


def _scaffold(name: str, out: Path, as_json: bool) -> None:
    from workbench.personas.scaffold import new_trait

    from ..console import emit, say

    folder = new_trait(name, out)
    value = {"name": name, "folder": str(folder), "files": sorted(f.name for f in folder.iterdir())}

    def show() -> None:
        say(f"wrote {folder}: {', '.join(value['files'])}")
        say(f"fill in what is marked, then check it with: workbench traits show {folder}")

    emit(value, as_json=as_json, show=show)


def _write(
    name: str, wish: str, out: Path, model: str | None, base_url: str | None, sample: int, *, as_json: bool, quiet: bool
) -> None:
    from workbench.personas.writing import write_new_trait

    from ..console import emit, reserved_output, say

    with reserved_output(as_json, quiet):
        done = write_new_trait(name, wish, out=out, model=model, base_url=base_url, sample=sample)
    files = sorted(file.name for file in done.folder.iterdir())
    found = {"folder": str(done.folder), "files": files, "author": done.trait.author, "asked_again": done.asked_again}
    value = {**_summary(done.trait), **found}

    def show() -> None:
        say(f"wrote {done.folder}: {', '.join(files)} (author: {done.trait.author['name']})")
        for part, times in done.asked_again.items():
            say(f"{part}: corrected in {times} more requests")
        say(f"read it before you use it; next: workbench extract {done.folder} --judge none (or a judge that reads its rubric)")

    emit(value, as_json=as_json, show=show)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A trait of persona_vectors, JSON (its extraction file).")],
    evaluation: Annotated[
        Path | None, typer.Option("--evaluation", help="Its evaluation file. [default: the one file is divided]")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the trait. [default: the file's]")] = None,
    adjective: Annotated[
        str | None, typer.Option("--adjective", help="The word in 'You are a(n) ... assistant.' [default: the name]")
    ] = None,
    opposite: Annotated[str, typer.Option("--opposite", help="The opposite adjective.")] = "helpful",
    out: FolderOption = Path("traits"),
    as_json: JsonOption = False,
) -> None:
    """A trait folder made from a file of persona_vectors.

    It is ready for `workbench extract`.
    """
    from workbench.personas.exchange import import_trait

    from ..console import emit, say

    done = import_trait(file, evaluation=evaluation, name=name, adjective=adjective, opposite=opposite, out=out)
    value = {**_summary(done.trait), "folder": str(done.folder), "notes": list(done.notes)}

    def show() -> None:
        say(f"wrote {done.folder}")
        for sentence in done.notes:
            say(sentence)
        say(f"next: workbench extract {done.folder} --judge none (or a judge that reads its rubric)")

    emit(value, as_json=as_json, show=show)


@app.command()
def export(
    trait: TraitArgument,
    out: Annotated[Path, typer.Option("--out", help="Folder that gets the two files, in a folder each.")],
    as_json: JsonOption = False,
) -> None:
    """A trait as the two JSON files of persona_vectors.

    One for extraction, one for evaluation.
    """
    from workbench.personas.exchange import export_trait, left_out
    from workbench.personas.traits import load_trait

    from ..console import emit, say

    loaded = load_trait(trait)
    extraction, evaluation = export_trait(loaded, out)
    value = {
        "name": loaded.name,
        "adjective": loaded.adjective,
        "opposite": loaded.opposite,
        "extraction": str(extraction),
        "evaluation": str(evaluation),
        "left_out": left_out(loaded),
    }

    def show() -> None:
        say(f"wrote {extraction} and {evaluation}")
        say(f"assistant names: {loaded.adjective} (pos), {loaded.opposite} (neg)")
        if value["left_out"]:
            say(f"this layout has no place for: {', '.join(value['left_out'])}")

    emit(value, as_json=as_json, show=show)
