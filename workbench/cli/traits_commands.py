"""`workbench traits`: list, show (and check), new."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import JsonOption, TraitArgument

app = typer.Typer(help="The traits that can be extracted, and how to write one.", no_args_is_help=True)


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """The traits that come with the workbench, and those of this project's traits folder."""
    from workbench.personas.traits import list_traits, load_trait

    from .console import emit, table

    rows = [{"name": t.name, "description": " ".join(t.description.split())} for t in map(load_trait, list_traits())]
    shown = [(row["name"], row["description"]) for row in rows]
    emit({"traits": rows}, as_json=as_json, show=lambda: table("", ("trait", "description"), shown))


@app.command()
def show(trait: TraitArgument, as_json: JsonOption = False) -> None:
    """Check a trait's files and say what they hold."""
    from workbench.personas.traits import load_trait, trait_path

    from .console import emit

    loaded = load_trait(trait)
    value = {**_summary(loaded), "path": str(trait_path(trait)), "hash": loaded.hash}
    emit(value, as_json=as_json, show=lambda: _show(value))


def _summary(trait: Any) -> dict[str, Any]:
    splits = Counter(question.split for question in trait.questions)
    return {
        "name": trait.name,
        "adjective": trait.adjective,
        "opposite": trait.opposite,
        "description": " ".join(trait.description.split()),
        "instructions": len(trait.instructions),
        "questions": dict(splits),
        "contrast_pairs": len(trait.contrast_pairs),
        "control_pairs": dict(Counter(pair.kind for pair in trait.control_pairs)),
        "traps": len(trait.traps),
        "taxonomy": [{"id": c.id, "kind": c.kind, "name": c.name, "shows_trait": c.shows_trait} for c in trait.taxonomy],
    }


def _show(value: dict[str, Any]) -> None:
    from .console import say, table

    def counted(counts: dict[str, int]) -> str:
        return ", ".join(f"{n} {name}" for name, n in counts.items()) or "none"

    say(f"{value['name']} ({value['adjective']} / {value['opposite']}): {value['description']}")
    say(f"{value['instructions']} instruction triples; questions: {counted(value['questions'])}")
    say(f"{value['contrast_pairs']} contrast pairs; control pairs: {counted(value['control_pairs'])}; {value['traps']} traps")
    rows = [(c["id"], c["kind"], c["name"]) for c in value["taxonomy"]]
    table("taxonomy", ("category", "kind", "name"), rows)
    say(f"{value['path']}: nothing to complain about")


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the new trait: lower case, digits, _ and -.")],
    out: Annotated[Path, typer.Option("--out", help="Folder that gets the trait's folder.")] = Path("traits"),
    as_json: JsonOption = False,
) -> None:
    """Write the skeleton of a new trait, with what is to be filled in."""
    from workbench.personas.scaffold import new_trait

    from .console import emit, say

    folder = new_trait(name, out)
    value = {"name": name, "folder": str(folder), "files": sorted(f.name for f in folder.iterdir())}

    def show() -> None:
        say(f"wrote {folder}: {', '.join(value['files'])}")
        say(f"fill in what is marked, then check it with: workbench traits show {folder}")

    emit(value, as_json=as_json, show=show)
