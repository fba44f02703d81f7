"""`workbench labels made-of`: what a trait is made of, in the words of the labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..options import JsonOption, QuietOption

if TYPE_CHECKING:
    from workbench.decomposition.result import Decomposition
    from workbench.labeling.labels import LabelSet
    from workbench.labeling.taxonomy.values import MadeOf
    from workbench.personas.traits import Trait
    from workbench.saes.interface import SparseAutoencoder


def made_of_command(
    run: Annotated[Path, typer.Argument(help="A run folder, or a decomposition as `decompose` saves it.")],
    labels: Annotated[
        Path | None, typer.Option("--labels", help="Folder of label files. [default: those of the run, then the shelf]")
    ] = None,
    trait: Annotated[str | None, typer.Option("--trait", help="Whose taxonomy (name or folder). [default: the vector's]")] = None,
    placebos: Annotated[Path | None, typer.Option("--placebos", help="Placebo codes. [default: those beside the SAE]")] = None,
    figure: Annotated[Path | None, typer.Option("--figure", help="The file that gets the picture (SVG).")] = None,
    as_written: Annotated[
        bool, typer.Option("--as-written", help="Take the categories as they stand: assign none, and load no embedder.")
    ] = False,
    swaps: Annotated[int, typer.Option("--swaps", min=19, help="Permutations of the labels to compare shares with.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="Seed of everything that is drawn.")] = 0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """What a trait is made of: the share of each sub-trait.

    Of its vector, and what is left. Each with its interval, with what permuted labels get, and with what placebo contrasts get.
    """
    from ..console import emit, reserved_output

    with reserved_output(as_json, quiet):
        made = _make(run, labels, trait, placebos, as_written=as_written, n_swaps=swaps, seed=seed)
        value = made.to_dict()
        if figure is not None:
            from workbench.reports.made_of import made_of_figure

            value["figure"] = str(made_of_figure(made).save(figure).resolve())
    emit(value, as_json=as_json, show=lambda: _show(made, value.get("figure")))


def register(app: typer.Typer) -> None:
    """Add the command to the group `workbench labels`."""
    app.command("made-of")(made_of_command)


def _make(
    run: Path, folder: Path | None, trait: str | None, placebos: Path | None, *, as_written: bool, n_swaps: int, seed: int
) -> MadeOf:
    from workbench.decomposition.result import Decomposition
    from workbench.labeling.taxonomy.made_of import made_of
    from workbench.personas.traits import load_trait

    from ..studies.decompositions_compare import _place

    place = _place(run)
    parts = Decomposition.load(place)
    owner = load_trait(trait or parts.trait)
    labels = _labels(parts, place, folder)
    assigner = None if as_written else _assigner(owner)
    against = _placebo_shares(parts, placebos)
    return made_of(parts, labels, owner, assigner=assigner, placebo_shares=against, n_swaps=n_swaps, seed=seed)


def _labels(parts: Decomposition, place: Path, folder: Path | None) -> LabelSet:
    """The labels given, of the run, or on the shelf; refused when there are none at all."""
    from workbench.base.errors import WorkbenchError
    from workbench.labeling.files.store import load_labels

    name, sae_hash, own = str(parts.sae.get("id")), str(parts.sae.get("weights_hash")), place.parent / "labels"
    shelf = folder if folder is not None else own if own.is_dir() else None
    found = load_labels(name, shelf, sae_hash=sae_hash)
    if not len(found):
        where = "on the shelf" if shelf is None else f"in {shelf}"
        raise WorkbenchError(
            f"no labels of {name} ({sae_hash[:12]}) {where}",
            "labels of the features of the decomposition's SAE",
            f"make some: workbench label {parts.trait}, or give their folder with --labels",
        )
    return found


def _assigner(trait: Trait) -> Any:
    from workbench.labeling.taxonomy.assignment import load_assigner
    from workbench.labeling.taxonomy.phrases import assignable

    return load_assigner(trait) if assignable(trait) else None


def _placebo_shares(parts: Decomposition, given: Path | None) -> Any:
    """Shares of the placebo contrasts; None where there are none, or where the SAE is not at hand."""
    from workbench.base.errors import WorkbenchError
    from workbench.decomposition.placebos import PlaceboCodes
    from workbench.labeling.taxonomy.made_of import placebo_shares

    from ..console import note

    try:
        sae = _sae(parts)
    except WorkbenchError as error:
        if given is not None:
            raise
        note(f"no placebo contrasts: {error.found}")
        return None
    found = PlaceboCodes.load(given) if given is not None else PlaceboCodes.beside(sae)
    if found is None:
        note("no placebo contrasts: there are none beside the SAE (workbench extract --all samples them)")
        return None
    found.check(sae)
    return placebo_shares(found, sae.decoder_directions, parts.trait)


def _sae(parts: Decomposition) -> SparseAutoencoder:
    from workbench.base.errors import WorkbenchError
    from workbench.saes.registry import load_sae

    sae = load_sae(str(parts.sae.get("id")))
    if sae.weights_hash != parts.sae.get("weights_hash"):
        raise WorkbenchError(f"{sae.id} has other weights than those of the decomposition", "the same SAE", "decompose again")
    return sae


def _show(made: MadeOf, figure: str | None) -> None:
    from ..console import percent, say, table

    def cells(part: Any) -> list[Any]:
        nulls = [f"{percent(n.low)} to {percent(n.high)}" if n else "-" for n in (part.swapped, part.placebo)]
        p = [f"{n.p:.3f}" if n else "-" for n in (part.swapped, part.placebo)]
        drawn = percent(part.drawn)
        ends = f"{percent(part.low)} to {percent(part.high)}"
        return [part.name, percent(part.share), ends, part.n_features or "-", drawn, nulls[0], p[0], nulls[1], p[1]]

    columns = ["part", "share", "95% interval", "features", "uncertain labels", "permuted labels", "p", "placebos", "p"]
    right = range(1, len(columns))
    say(made.sentence())
    shown = [part for part in made.parts if part.n_features or part.kind == "error"]
    table("", columns, [cells(part) for part in shown], right=right)
    table("By kind", columns, [cells(part) for part in made.totals], right=right)
    absent = [part.name for part in made.parts if part.id in made.absent]
    if absent:
        say(f"No labelled feature belongs to: {', '.join(absent)}.")
    for warning in made.warnings:
        say(f"note: {warning}")
    if figure:
        say(f"picture: {figure}")
