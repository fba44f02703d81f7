"""`workbench vectors`: compare ways to make one, choose its block, and the formats of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..options import JobFlags, JsonOption, TraitArgument, job_command

app = typer.Typer()

FORMAT_NAMES = ("persona-vectors", "assistant-axis", "gguf", "steering-vectors", "saklas", "tensor")

ReadFormat = Annotated[str, typer.Option("--format", help=f"auto, {', '.join(FORMAT_NAMES)}.")]
WriteFormat = Annotated[
    str, typer.Option("--format", help=f"{', '.join(name for name in FORMAT_NAMES if name != 'saklas')}.")
]


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="The file: .pt, .gguf, .safetensors or .npy.")],
    out: Annotated[Path, typer.Option("--out", help="Folder that gets the vectors.")],
    format: ReadFormat = "auto",
    model: Annotated[
        str | None, typer.Option("--model", help="Whose vectors: model name, folder, GGUF file or hub id.")
    ] = None,
    hook: Annotated[
        str | None, typer.Option("--hook", help="The vector to use, or the place of a bare one.")
    ] = None,
    layer: Annotated[
        int | None,
        typer.Option("--layer", help="Short for --hook blocks.LAYER.hook_resid_post, blocks from 0."),
    ] = None,
    trait: Annotated[
        str | None,
        typer.Option("--trait", help="What the vectors point to. [default: the file's own, or its name]"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Read a file of another tool into a folder of the workbench.

    Nothing in the file is executed.
    """
    where = _hook(hook, layer)
    from workbench.personas.formats import read_vectors

    from ..console import emit, reserved_output, say

    with reserved_output(as_json):
        vectors = read_vectors(file, format, model=model, hook=where, trait=trait)
        vectors.save(out)
    value = {**vectors.summary(), "folder": str(out)}

    def display() -> None:
        _show(value)
        say(f"vectors: {out.resolve()}")

    emit(value, as_json=as_json, show=display)


def _hook(hook: str | None, layer: int | None) -> str | None:
    from workbench.base.errors import WorkbenchError
    from workbench.models.hookpoints import HookPoint

    if hook is not None and layer is not None:
        raise WorkbenchError("both --hook and --layer are given", "one of the two", "leave one out")
    return (
        str(HookPoint(layer)) if layer is not None else None if hook is None else str(HookPoint.parse(hook))
    )


@app.command()
def export(
    folder: Annotated[
        Path, typer.Argument(help="Imported vectors, a saved persona vector, or a run folder.")
    ],
    format: WriteFormat,
    out: Annotated[Path, typer.Option("--out", help="The file to write.")],
    blocks: Annotated[
        int | None, typer.Option("--blocks", help="Blocks of the model, where the vectors do not know it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write vectors as a file that another tool reads.

    Of a run folder, the vectors at every block are written.
    """
    from workbench.base.store import sha256_file
    from workbench.personas.formats import load_vectors, write_vectors

    from ..console import emit, say

    notes = write_vectors(load_vectors(folder), out, format, n_blocks=blocks)
    value = {"file": str(out), "format": format, "sha256": sha256_file(out), "notes": notes}

    def display() -> None:
        for note in notes:
            say(f"note: {note}")
        say(f"wrote {out.resolve()}")

    emit(value, as_json=as_json, show=display)


@app.command()
def show(
    place: Annotated[
        Path, typer.Argument(metavar="FOLDER_OR_FILE", help="A folder of vectors, or a foreign file.")
    ],
    format: ReadFormat = "auto",
    as_json: JsonOption = False,
) -> None:
    """What a folder or a file of vectors holds: where, how long, whose."""
    from workbench.personas.formats import describe_file, load_vectors

    from ..console import emit

    value = load_vectors(place).summary() if place.is_dir() else describe_file(place, format)
    emit(value, as_json=as_json, show=lambda: _show(value))


def _show(value: dict[str, Any]) -> None:
    from ..console import say, table

    model, source = value["model"], value["source"]
    say(
        f"{value['trait'] or 'no trait named'}, {model.get('name') or 'no model named'}: {value['d_model']} wide"
    )
    table(
        source.get("format", ""),
        ("hook", "length"),
        [(row["hook"], row["norm"]) for row in value["vectors"]],
        right=(1,),
    )
    if value["hook"]:
        say(f"to be used at {value['hook']}")
    for name, shape in value["extras"].items():
        say(f"besides: {name} {shape}")
    for note in value["notes"]:
        say(f"note: {note}")


@app.command()
@job_command
def compare(
    trait: TraitArgument,
    flags: JobFlags,
    method: Annotated[list[str] | None, typer.Option("--method", help="mean_difference, paired_pca, logistic, whitened.")] = None,
    position: Annotated[
        list[str] | None, typer.Option("--position", help="response_avg, prompt_avg, prompt_last, response_last.")
    ] = None,
    at: Annotated[list[str] | None, typer.Option("--at", help="Hook points to read at, e.g. blocks.15.hook_attn_out.")] = None,
    normalise: Annotated[bool, typer.Option("--normalise", help="Each of them with rows of length 1 as well.")] = False,
    n_bootstrap: Annotated[int, typer.Option("--bootstrap", help="Replicates behind the intervals.")] = 50,
) -> None:
    """Extraction methods side by side on held-out questions.

    From a finished extraction. By default every method, every position, scaled rows and the parts of the block, one at a time;
    name some (each may be given several times) for all their combinations.
    """
    from ..console import emit
    from .vector_studies import run_compare, show_compare

    value = run_compare(flags, trait, methods=method or [], positions=position or [], hooks=at or [],
                        normalise=normalise, n_bootstrap=n_bootstrap)  # fmt: skip
    emit(value, as_json=flags.as_json, show=lambda: show_compare(value))


@app.command()
@job_command
def layers(trait: TraitArgument, flags: JobFlags) -> None:
    """The two ways to choose a block, as curves.

    Separability and causal effect, with intervals. From a finished extraction; evaluation questions and sealed pairs take no
    part.
    """
    from ..console import emit
    from .vector_studies import run_layers, show_layers

    value = run_layers(flags, trait)
    emit(value, as_json=flags.as_json, show=lambda: show_layers(value))
