"""`workbench labels`: the label folders, checked, compared, merged, migrated and exchanged.

Other commands of the group stand in files of their own and are registered at the end of this one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..options import JsonOption, QuietOption
from . import annotate as labels_annotate
from . import explain as labels_explain
from . import made_of as labels_made_of
from . import score as labels_score

FolderArgument = Annotated[
    Path, typer.Argument(metavar="[FOLDER]", help="A folder of label files, or a part of one.", show_default=True)
]
WriteOption = Annotated[bool, typer.Option("--write", help="Write it. [default: only print what would change]")]
app = typer.Typer()


@app.callback()
def group() -> None:
    """Label files, their scores and their exchange."""


@app.command()
def check(
    folder: FolderArgument = Path("feature_labels"), as_json: JsonOption = False, quiet: QuietOption = False
) -> None:
    """Everything that is wrong with a folder of labels, at once.

    Exits with 1 when there is a problem; each is told with file, line, what stands there, what was expected and what to do.
    """
    from workbench.labeling.files.folders import check_folder

    from ..console import emit, reserved_output

    with reserved_output(as_json, quiet):
        value = check_folder(folder).summary()
    emit(value, as_json=as_json, show=lambda: _show_check(value))
    if value["problems"]:
        raise typer.Exit(1)


@app.command()
def diff(
    before: Annotated[Path, typer.Argument(help="A folder of label files.")],
    after: Annotated[Path, typer.Argument(help="Another one.")],
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """What was added, removed and changed between two folders."""
    from workbench.labeling.files.differences import diff as differences
    from workbench.labeling.files.folders import read_folder

    from ..console import emit, reserved_output

    with reserved_output(as_json, quiet):
        changes = [change.row() for change in differences(read_folder(before), read_folder(after))]
    value = {"before": str(before), "after": str(after), **_counted(changes), "changes": changes}
    emit(value, as_json=as_json, show=lambda: _show_diff(value))


@app.command()
def merge(
    ours: Annotated[Path, typer.Argument(help="A folder of label files.")],
    theirs: Annotated[Path, typer.Argument(help="The folder that is merged with it.")],
    base: Annotated[Path | None, typer.Option("--base", help="The folder that both come from, where there is one.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the result; may be OURS. [default: only print the changes]")
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Put two folders of labels together.

    Conflicts are listed, and the labels of both sides stay. Of one author's labels for a feature the newer wins. Different
    words of the same date are a conflict: proposed ones become `disputed`. What a person confirmed stays as it is; a person's
    label that a newer one of theirs replaces is listed.

    No program's label replaces a person's. Labels for other weights are refused. With --base, what only one side changed or
    removed is taken from that side.
    """
    from ..console import emit, reserved_output
    from .exchange import run_merge

    with reserved_output(as_json, quiet):
        value = run_merge(ours, theirs, base, out)
    emit(value, as_json=as_json, show=lambda: _show_merge(value))


@app.command()
def migrate(
    folder: FolderArgument = Path("feature_labels"),
    write: WriteOption = False,
    date: Annotated[
        str | None,
        typer.Option("--date", help="When labels without a date were written, e.g. 2026-01-31 (UTC). [default: not known]"),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Rewrite label files of an earlier schema.

    Without --write the differences are shown.
    """
    from workbench.labeling.files.migration import migrate as rewrite
    from workbench.labeling.files.migration import migrations

    from ..console import emit, reserved_output

    with reserved_output(as_json, quiet):
        changes = migrations(folder, date_of=lambda _: date or "")
        if write:
            rewrite(changes)
    value = {"folder": str(folder), "n_files": len(changes), "written": write, "files": [change.row() for change in changes]}
    emit(value, as_json=as_json, show=lambda: _show_migration(value))


@app.command("import")
def import_(
    sae: Annotated[str, typer.Option("--sae", help="The SAE that the explanations are about, by its id.")],
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="Neuronpedia's files: .json, .jsonl, .jsonl.gz.")
    ] = None,
    fetch: Annotated[bool, typer.Option("--fetch", help="Get them from Neuronpedia; they are kept in the cache.")] = False,
    source: Annotated[
        str | None, typer.Option("--source", help="Neuronpedia's MODEL/SOURCE. [default: as SAELens' registry says]")
    ] = None,
    features: Annotated[str | None, typer.Option("--features", help="Only these, e.g. 17,204. [default: all]")] = None,
    weights_hash: Annotated[
        str | None, typer.Option("--weights-hash", help="Hash of the SAE's weights. [default: that of the SAE on the shelf]")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="A folder of label files. [default: the one in the cache]")] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Neuronpedia's explanations as labels.

    From files, or with --fetch. They are signed by the model that wrote them and `proposed`. The address is the setting
    neuronpedia_url (single features) or neuronpedia_exports_url (all of a source).
    """
    from ..console import emit, reserved_output
    from .exchange import run_import

    chosen = None if features is None else _numbers(features)
    with reserved_output(as_json, quiet):
        value = run_import(
            files or [], sae, weights_hash=weights_hash, source=source, fetch=fetch, features=chosen, out=out
        )
    emit(value, as_json=as_json, show=lambda: _show_import(value))


@app.command()
def export(
    model_id: Annotated[str, typer.Option("--model-id", help="Neuronpedia's name of the model.")],
    source: Annotated[str, typer.Option("--source", help="Neuronpedia's name of the SAE, e.g. 15-my-sae.")],
    out: Annotated[Path, typer.Option("--out", help="Folder that gets batch-0.json, ...")],
    folder: FolderArgument = Path("feature_labels"),
    sae: Annotated[str | None, typer.Option("--sae", help="The SAE, where the folder has labels of several.")] = None,
    method: Annotated[
        str | None, typer.Option("--method-name", help="Explanation method, one of those Neuronpedia knows.")
    ] = None,
    explainer: Annotated[
        str | None, typer.Option("--model-name", help="Explaining model, one of those Neuronpedia knows. [default: the author]")
    ] = None,
    every_author: Annotated[bool, typer.Option("--all", help="All labels of a feature, not only the one that counts.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Labels as files for Neuronpedia's upload.

    Bodies for its upload-batch, 128 features each, checked against its limits. Nothing is sent. Only text that may be passed on
    is in them; features without any are listed.
    """
    from ..console import emit, reserved_output
    from .exchange import run_export

    with reserved_output(as_json, quiet):
        value = run_export(
            folder, out, sae=sae, model_id=model_id, source=source, method=method, explainer=explainer, every_author=every_author
        )
    emit(value, as_json=as_json, show=lambda: _show_export(value))


def _numbers(text: str) -> list[int]:
    from workbench.base.errors import WorkbenchError

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and len(part) <= 9 for part in parts):
        raise WorkbenchError(f"the features {text[:80]!r}", "feature numbers with commas", "for instance --features 17,204")
    return [int(part) for part in parts]


# ---------------------------------------------------------------------------------------------------- printing


def _show_import(value: dict[str, Any]) -> None:
    from ..console import say

    say(f"{value['n_labels']} labels of {value['n_features']} features of {value['sae']}")
    say(f"{value['n_written']} files written under {value['out']}, {len(value['conflicts'])} conflicts")


def _show_export(value: dict[str, Any]) -> None:
    from ..console import say

    for path in value["files"]:
        say(path)
    for row in value["left_out"]:
        say(f"left out: feature {row['feature']}, {row['why']}")
    say(f"{value['n_features']} features of {value['sae']}; upload each file with a POST to /api/feature/upload-batch")


def _counted(changes: list[dict[str, Any]]) -> dict[str, int]:
    return {kind: sum(row["change"] == kind for row in changes) for kind in ("added", "removed", "changed")}


def _show_check(value: dict[str, Any]) -> None:
    from ..console import say

    statuses = ", ".join(f"{n} {name}" for name, n in value["statuses"].items()) or "none"
    counts = f"{value['n_labels']} labels of {value['n_features']} features in {value['n_files']} files"
    say(f"{value['folder']}: {counts} ({statuses})")
    for row in value["problems"]:
        line = "" if row["line"] is None else f", line {row['line']}"
        field = f", `{row['field']}`" if row["field"] else ""
        say(f"{row['file']}{line}{field}: {row['found']}")
        say(f"    expected: {row['expected']}")
        say(f"    what to do: {row['remedy']}")
    for sentence in value["warnings"]:
        say(f"warning: {sentence}")
    n = len(value["problems"])
    say("nothing to complain about" if not n else f"{n} problem{'s' * (n > 1)}")


def _show_diff(value: dict[str, Any]) -> None:
    from ..console import say

    for row in value["changes"]:
        who = "the evidence" if row["author"] is None else f"{row['author']['name']} ({row['author']['kind']})"
        say(f"{row['sae']} {row['feature']}, {who}: {row['change']}")
        for name, field in row["fields"].items():
            say(f"    {name}: {_said(field['before'])} -> {_said(field['after'])}")
    say(", ".join(f"{value[kind]} {kind}" for kind in ("added", "removed", "changed")))


def _said(value: Any) -> str:
    return "-" if value is None else str(value)


def _show_merge(value: dict[str, Any]) -> None:
    from ..console import say

    _show_diff(value)
    for row in value["conflicts"]:
        both = " | ".join(row["labels"])
        say(f"conflict: {row['sae']} {row['feature']}, {row['author']['name']} ({row['author']['kind']}), {row['kind']}: {both}")
    for row in value["left_out"]:
        said = " | ".join(row["labels"])
        say(f"left out: {row['sae']} {row['feature']}, {row['author']['name']} ({row['author']['kind']}): {said}")
    where = f"written to {value['out']}" if value["out"] else "nothing written: name a folder with --out"
    say(f"{value['n_features']} features, {len(value['conflicts'])} conflicts; {where}")


def _show_migration(value: dict[str, Any]) -> None:
    from ..console import say

    for row in value["files"]:
        say(row["diff"].rstrip("\n"))
    done = "rewritten" if value["written"] else "to rewrite; --write does it" if value["n_files"] else "to rewrite"
    say(f"{value['n_files']} files {done}")


labels_annotate.register(app)
labels_explain.register(app)
labels_made_of.register(app)
labels_score.register(app)
