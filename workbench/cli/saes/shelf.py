"""`workbench sae import`, `search`, `pull` and `push`: other people's SAEs on the shelf, and yours for others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..options import JsonOption
from .commands import SaeArgument, app

ModelOption = Annotated[
    str | None, typer.Option("--model", help="The model that the SAE reads. [default: the one that the files name]")
]
HookOption = Annotated[
    str | None, typer.Option("--hook", help="Where it reads, e.g. blocks.15.hook_resid_post. [default: as the files say]")
]
NameOption = Annotated[str | None, typer.Option("--name", help="Its id on the shelf. [default: model/hook]")]
FolderOption = Annotated[Path | None, typer.Option("--out", help="Write to this folder instead of the shelf.")]
ReplaceOption = Annotated[bool, typer.Option("--replace", help="Overwrite an SAE of that id.")]


@app.command()
def search(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[WORD]...", help="Words in the id, model, site or repository.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="Part of the model's name.")] = None,
    site: Annotated[
        str | None, typer.Option("--site", help="A hook point, a kind of site (resid_post), or a block (15).")
    ] = None,
    width: Annotated[str | None, typer.Option("--width", help="Features: 16384, 16k, or a range 16k-65k.")] = None,
    l0: Annotated[
        str | None, typer.Option("--l0", "--k", help="Features that fire on a token: 64 (within a tenth), or 30-80.")
    ] = None,
    cached: Annotated[bool, typer.Option("--cached", help="Only what is on this machine.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Hits that are shown; 0 for all.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Look for SAEs on the shelf and in the SAELens registry.

    Offline; everything that is given must hold. Of every hit it says what is cached and what would be downloaded. `workbench
    sae pull ID` brings one to the shelf.
    """
    from workbench.base.errors import WorkbenchError
    from workbench.saes.search import Query
    from workbench.saes.search import search as find

    from ..console import emit, note

    query = Query(words=tuple(words or ()), model=model, site=site, width=width, l0=l0)
    try:
        hits = find(query)
    except WorkbenchError as error:  # without SAELens the shelf remains
        note(f"the registry is left out: {error}")
        hits = find(query, registry=False)
    rows = [hit.to_dict() for hit in (hits if cached or not limit else hits[:limit])]
    rows = [row for row in rows if row["cached"]] if cached else rows
    total = len(rows) if cached else len(hits)
    rows = rows[:limit] if limit else rows
    emit({"total": total, "hits": rows}, as_json=as_json, show=lambda: _show_hits(rows, total))


def _show_hits(rows: list[dict[str, Any]], total: int) -> None:
    from ..console import say, table

    columns = ("id", "model", "site", "features", "L0", "here", "to download")
    shown = [
        (row["id"], row["model"], f"{row['hook']}{'' if row['readable'] else ' (not read here)'}", row["d_sae"],
         None if row["l0"] is None else f"{row['l0']:g}", row["cached"],
         f"{row['repo']}: {', '.join(row['download'])}" if row["download"] else None)
        for row in rows
    ]  # fmt: skip
    table("", columns, shown, right=(3, 4))
    say(f"{len(rows)} of {total} shown" + ("; more with --limit" if total > len(rows) else ""))


def list_releases(model: str | None, *, as_json: bool) -> None:
    """Print the releases of the SAELens registry: model, repository, how many SAEs, at which sites."""
    from workbench.saes.published import releases

    from ..console import emit, table

    rows = [row for row in releases() if model is None or model.lower() in row["model"].lower()]
    columns = ("release", "model", "repository", "SAEs", "sites")
    shown = [(row["release"], row["model"], row["repo"], row["n_saes"], ", ".join(row["sites"])) for row in rows]
    emit({"releases": rows}, as_json=as_json, show=lambda: table("", columns, shown, right=(3,)))


def show_published(published: Any, *, as_json: bool) -> None:
    """Print an entry of the registry, with its files."""
    from dataclasses import asdict

    from workbench.saes.search import local_files

    from ..console import emit, say, table

    files = local_files(published)
    facts = {**asdict(published), "id": published.id, "readable": published.readable}
    value = {**facts, "cached": all(file["cached"] for file in files), "files": files}

    def display() -> None:
        say(f"{published.id}: in the SAELens registry, not on the shelf")
        table("", ("what", "value"), [(name, facts[name]) for name in facts if name != "id"])
        table(published.repo, ("file", "cached", "bytes"), [(f["file"], f["cached"], f["bytes"]) for f in files], right=(2,))
        if published.readable:
            say(f"`workbench sae pull {published.id}` brings it to the shelf")

    emit(value, as_json=as_json, show=display)


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
    """Bring an SAE of another library to the shelf.

    Nothing in its files is executed. The copy reads raw activations: gates, decoder norms and fixed scalings are folded into
    the weights.
    """
    from workbench.saes.importing import import_sae

    from ..console import emit, reserved_output

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
    from ..console import say

    for note in value["notes"]:
        say(f"note: {note}")
    say(f"{value['id']}: {value['d_sae']} features of {value['model']} at {value['hook']}")
    say(f"folder: {value['folder']}")


@app.command()
def push(
    sae: SaeArgument,
    to: Annotated[str, typer.Option("--to", help="owner/name[/folder]. [default folder: the hook point]")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Upload an SAE of the shelf to a hub repository.

    The token is that of HF_TOKEN. Others load it with `workbench sae pull`, or with SAELens: SAE.from_pretrained("owner/name",
    "folder").
    """
    from workbench.base.store import plain
    from workbench.saes.hub import push_sae
    from workbench.saes.registry import find_sae

    from ..console import emit, reserved_output, say

    with reserved_output(as_json):
        value = plain(push_sae(find_sae(sae), to, private=private))

    def display() -> None:
        say(f"uploaded {', '.join(value['files'])}")
        say(value["url"])

    emit(value, as_json=as_json, show=display)


@app.command()
def pull(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="owner/name/folder of a hub repository, or release/id of the registry.")
    ],
    model: ModelOption = None,
    hook: HookOption = None,
    name: NameOption = None,
    out: FolderOption = None,
    replace: ReplaceOption = False,
    plan: Annotated[bool, typer.Option("--plan", help="Say what would be downloaded; download nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Download an SAE to the shelf.

    From a hub repository, or one that `workbench sae search` finds. Every file is checked against the size and hash that the
    hub states before anything is put in place; for files of the registry that lie in the hub cache while the hub cannot be
    asked, a note says that they were not. HF_ENDPOINT chooses another hub, HF_TOKEN opens private repositories.
    """
    from workbench.saes.hub import plan_pull, pull_any

    from ..console import emit, reserved_output, table

    with reserved_output(as_json):
        if plan:
            value = plan_pull(source)
        else:
            value = summary(pull_any(source, model=model, hook=hook, id=name, out=out, replace=replace))

    def display() -> None:
        if plan:
            rows = [(file["file"], file["bytes"], file["cached"]) for file in value["files"]]
            table(value["repo"], ("file", "bytes", "cached"), rows, right=(1,))
        else:
            show_summary(value)

    emit(value, as_json=as_json, show=display)
