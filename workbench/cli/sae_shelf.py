"""`workbench sae import`: other people's SAEs on the shelf."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import JsonOption
from .sae_commands import app

ModelOption = Annotated[
    str | None, typer.Option("--model", help="The model that the SAE reads. [default: the one that the files name]")
]
HookOption = Annotated[
    str | None, typer.Option("--hook", help="Where it reads, e.g. blocks.15.hook_resid_post. [default: as the files say]")
]
NameOption = Annotated[str | None, typer.Option("--name", help="Its id on the shelf. [default: model/hook]")]
FolderOption = Annotated[Path | None, typer.Option("--out", help="Write to this folder instead of the shelf.")]
ReplaceOption = Annotated[bool, typer.Option("--replace", help="Overwrite an SAE of that id.")]


@app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(help="The folder of a foreign SAE, or its weights file.")],
    format: Annotated[
        str, typer.Option("--format", help="auto, saelens, dictionary_learning, sparsify or gemma_scope.")
    ] = "auto",
    model: ModelOption = None,
    hook: HookOption = None,
    name: NameOption = None,
    out: FolderOption = None,
    replace: ReplaceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Bring an SAE of another library to the shelf; nothing in its files is executed.

    The copy reads raw activations: gates, decoder norms and fixed scalings are folded into the weights.
    """
    from workbench.saes.importing import import_sae

    from .console import emit, reserved_output

    with reserved_output(as_json):
        found = import_sae(path, format, model=model, hook=hook, id=name, out=out, replace=replace)
        value = summary(found)
    emit(value, as_json=as_json, show=lambda: show_summary(value))


def summary(found: Any) -> dict[str, Any]:
    """What was put on the shelf, as JSON types: the same keys for `import` and `pull`."""
    from workbench.saes.registry import find_sae

    entry = find_sae(found.folder)
    facts = {"id": found.id, "folder": str(found.folder.resolve()), "model": entry.model, "hook": str(entry.hook)}
    return {**facts, "d_sae": entry.d_sae, "notes": list(found.notes), "card": found.card}


def show_summary(value: dict[str, Any]) -> None:
    """Print a summary."""
    from .console import say

    for note in value["notes"]:
        say(f"note: {note}")
    say(f"{value['id']}: {value['d_sae']} features of {value['model']} at {value['hook']}")
    say(f"folder: {value['folder']}")
