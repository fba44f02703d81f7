"""`workbench labels annotate` and `workbench labels agreement`: a person reads features, and how far two persons agree."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..options import DEFAULT_MODEL, JsonOption, QuietOption, SaeOption

if TYPE_CHECKING:
    from workbench.labeling.annotating.queue import Item
    from workbench.labeling.annotating.session import AnnotationSession
    from workbench.labeling.evidence import FeatureEvidence
    from workbench.labeling.labels import LabelSet

FolderOption = Annotated[
    Path, typer.Option("--folder", help="Label folder that what you decide is written to, beside your journal.")
]


def annotate(
    features: Annotated[list[int] | None, typer.Argument(help="Features to read. [default: all that have a label]")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Your name. [default: WORKBENCH_ANNOTATOR, or it is asked]")] = None,
    trait: Annotated[str | None, typer.Option("--trait", help="Trait whose categories you choose from.")] = None,
    blind: Annotated[bool, typer.Option("--blind", help="Hide each proposed label until you have written your own.")] = False,
    order: Annotated[
        str | None, typer.Option("--order", help="rank (as given), shuffled or index. [default: rank; shuffled with --bury]")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the shuffled order and of --bury.")] = 0,
    folder: FolderOption = Path("feature_labels"),
    proposals: Annotated[
        Path | None, typer.Option("--from", help="Label folder with the proposed labels. [default: --folder, then the shelf]")
    ] = None,
    index: Annotated[
        Path | None, typer.Option("--index", help="Feature index to take contexts from. [default: those in the label files]")
    ] = None,
    bury: Annotated[int, typer.Option("--bury", help="Mix in so many random features of the index (use it with --blind).")] = 0,
    sae: SaeOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Read features and say what they are.

    Confirm, edit, reject or call unclear the labels that programs proposed. Every key is on the disk at once; started again,
    the session goes on where it was.
    """
    from ..console import emit, reserved_output

    with reserved_output(as_json, quiet):
        work = _Work(folder, proposals, index, sae)
        items, value = work.items(features or None, order=order, seed=seed, bury=bury), {}
        with work.session(items, name, trait, blind) as session:
            _run(session, as_json)
            value = _summary(session)
    emit(value, as_json=as_json, show=lambda: _show_summary(value))


def agreement(
    first: Annotated[str, typer.Argument(help="An annotator's name.")],
    second: Annotated[str, typer.Argument(help="Another annotator's name.")],
    trait: Annotated[str | None, typer.Option("--trait", help="Whose categories are compared. [default: the common one]")] = None,
    folder: FolderOption = Path("feature_labels"),
    sae: SaeOption = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the bootstrap.")] = 0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """How far two annotators agree beyond chance.

    Cohen's kappa; also of each with the labels that were hidden from them.
    """
    from workbench.labeling.annotating.agreement import agreement as measure
    from workbench.labeling.files.store import set_folder

    from ..console import emit, reserved_output

    with reserved_output(as_json, quiet):
        found = measure(set_folder(folder, _sae_id(sae)), first, second, trait=trait, seed=seed)
    emit(found, as_json=as_json, show=lambda: _show_agreement(found))


def register(app: typer.Typer) -> None:
    """Add the two commands to the group `workbench labels`."""
    app.command("annotate")(annotate)
    app.command("agreement")(agreement)


# ---------------------------------------------------------------------------------------------------- what is read


def _sae_id(reference: str | None) -> str:
    """The id of an SAE; one that is not on the shelf is taken at its word, for its labels may be here all the same."""
    from workbench.base.errors import WorkbenchError

    from ..inputs import find_sae

    try:
        return find_sae(reference, DEFAULT_MODEL).id
    except WorkbenchError:
        if reference is None or Path(reference).exists():
            raise
        return reference


class _Work:
    """The labels and contexts of one SAE that a session is made of."""

    def __init__(self, folder: Path, proposals: Path | None, index: Path | None, sae: str | None) -> None:
        from workbench.base.errors import WorkbenchError

        self.folder, self.index = folder, None
        if index is not None:
            from workbench.labeling.contexts.index import FeatureIndex

            self.index = FeatureIndex.open(index)
        self.sae_id = self.index.sae_id if self.index and sae is None else _sae_id(sae)
        sae_hash = self.index.sae_hash if self.index else None
        self.labels = _proposals(self.sae_id, folder, proposals, sae_hash)
        self.sae_hash = self.labels.sae_hash
        if not self.sae_hash:
            remedy = "label its features first (`workbench label`), name their folder with --from, or give an index with --index"
            raise WorkbenchError(f"there are no labels of {self.sae_id}", "labels or contexts to read", remedy)

    def items(self, features: list[int] | None, *, order: str | None, seed: int, bury: int) -> tuple[Item, ...]:
        """The queue; with features buried in it, the order gives none of them away."""
        from workbench.base.errors import WorkbenchError
        from workbench.labeling.annotating.queue import make_queue

        if bury and order not in (None, "shuffled"):
            found = f"--bury with the order {order!r}, which shows which features are buried"
            raise WorkbenchError(found, "the order 'shuffled'", "leave out --order")
        wanted = features or sorted({*self.labels.labels, *self.labels.records})
        wanted += self._buried(bury, seed, set(wanted))
        chosen = order or ("shuffled" if bury else "rank")
        return make_queue(self.labels, evidence=self._evidence(wanted), features=wanted, order=chosen, seed=seed)

    def session(self, items: tuple[Item, ...], name: str | None, trait: str | None, blind: bool) -> AnnotationSession:
        """The opened session."""
        from workbench.base.settings import setting
        from workbench.labeling.annotating.session import AnnotationSession
        from workbench.personas.traits import load_trait

        chosen = None if trait is None else load_trait(trait)
        signed = setting("annotator", name) or _asked_name()
        return AnnotationSession(
            items, self.folder, self.sae_id, self.sae_hash, annotator=signed, trait=chosen, blind=blind
        )

    def _evidence(self, features: list[int]) -> dict[int, FeatureEvidence]:
        return {} if self.index is None else dict(self.index.collection(features, n_neighbours=0).evidence)

    def _buried(self, n: int, seed: int, taken: set[int]) -> list[int]:
        """`n` features of the index, drawn among those that fired and are not asked for."""
        from itertools import islice
        from random import Random

        from workbench.base.errors import WorkbenchError

        if not n:
            return []
        if self.index is None:
            raise WorkbenchError("--bury without an index", "an index to draw features from", "give one with --index")
        index, drawn = self.index, Random(seed).sample(range(self.index.d_sae), self.index.d_sae)
        return list(islice((f for f in drawn if f not in taken and index.stats(f).n_fired), n))


def _proposals(sae_id: str, folder: Path, chosen: Path | None, sae_hash: str | None) -> LabelSet:
    """The labels of the chosen folder; by default those of `folder` if a program wrote any of them, else those of the shelf."""
    from workbench.labeling.files.store import load_labels

    if chosen is None and folder.is_dir():
        own = load_labels(sae_id, folder, sae_hash=sae_hash)
        if any(label.author["kind"] != "human" for record in own.records.values() for label in record.labels):
            return own
    return load_labels(sae_id, chosen, sae_hash=sae_hash)


def _asked_name() -> str | None:
    """The name that is typed when asked for; None when nobody can be asked."""
    if not sys.stdin.isatty():
        return None
    print("Your name (what you decide is signed with it): ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip()


# ---------------------------------------------------------------------------------------------------- what is shown


def _run(session: AnnotationSession, as_json: bool) -> None:
    from rich.console import Console

    from workbench.labeling.annotating.keys import open_keys
    from workbench.labeling.annotating.terminal import annotate_in_terminal

    out = sys.stderr if as_json else sys.stdout
    width = None if out.isatty() else 100
    with open_keys(sys.stdin, out) as keys:
        annotate_in_terminal(session, Console(file=out, highlight=False, width=width), keys)


def _summary(session: AnnotationSession) -> dict[str, Any]:
    from collections import Counter

    verdicts = Counter(session.desk.reading(f).verdict for f in session.order if session.desk.is_decided(f))
    return {"annotator": session.annotator, "sae": session.sae_id, "trait": session.trait_name, "blind": session.blind,
            "n_features": len(session.order), "n_read": session.n_read, "verdicts": dict(verdicts),
            "journal": str(session.journal.path), "problem": session.problem}  # fmt: skip


def _show_summary(value: dict[str, Any]) -> None:
    from ..console import say

    counts = ", ".join(f"{n} {name}" for name, n in value["verdicts"].items()) or "no verdict yet"
    say(f"{value['n_read']} of {value['n_features']} features read by {value['annotator']}: {counts}.")
    say(f"Everything is saved in {value['journal']} and in the label files. The same command goes on from here.")
    if value["problem"]:
        say(value["problem"])


def _show_agreement(found: Any) -> None:
    from ..console import cell, interval, percent, say, table

    rows = [("verdict", found.status), (f"category ({found.trait or 'no trait'})", found.category)]
    hidden = [one for one in found.blind if one.n_proposed]
    rows += [(f"category of {one.annotator}, blind, against the hidden labels", one.category) for one in hidden]
    drawn = [(what, k.n, percent(k.agreed), cell(k.kappa), interval(k.interval) or k.reason) for what, k in rows]
    table(f"{' and '.join(found.annotators)}: {found.n_both} features read by both",
          ("", "n", "agreed", "kappa", "95% interval"), drawn, right=(1, 2, 3))  # fmt: skip
    for one in found.blind:
        if one.n_judged:
            say(f"{one.annotator} upheld {percent(one.upheld)} of {one.n_judged} hidden labels {interval(one.upheld_interval)}.")
