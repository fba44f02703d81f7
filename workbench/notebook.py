"""Functions that join layers: `wb.extract` knows the SAEs on the shelf, `wb.report` takes values and run folders alike."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from workbench.decomposition.comparison.overlap import TraitComparison
    from workbench.decomposition.result import Decomposition
    from workbench.labeling.labels import LabelSet
    from workbench.models.hookpoints import HookPoint
    from workbench.models.loading import Model
    from workbench.personas.traits import Trait
    from workbench.personas.vectors import PersonaVector
    from workbench.reports.content import Report
    from workbench.reports.several import TraitReports


def extract(
    trait: str | Path | Trait, model: Model, *, hook: HookPoint | str | None = None, **options: Any
) -> PersonaVector:
    """The persona vector of `trait`, reported on at `hook`; all other options as in `personas.extraction.extract`.

    `hook=None` takes the site of the first SAE on the shelf that reads this model, so that the vector can be decomposed;
    without such an SAE, or with hook="auto", the block is chosen by cross-validation inside the extraction questions.
    Token activations are stored at every site that has an SAE on the shelf.
    """
    from workbench.models.hookpoints import HookPoint
    from workbench.personas.extraction import extract as extract_vector
    from workbench.saes.registry import list_saes

    sites = list(dict.fromkeys(entry.hook for entry in list_saes() if entry.model == model.name))
    if hook is None and sites:
        hook = sites[0]
    chosen = None if hook is None or hook == "auto" else HookPoint.parse(hook)
    stored = list(dict.fromkeys([*sites, *([chosen] if chosen else [])])) or None
    return extract_vector(trait, model, hook=chosen, **{"token_hooks": stored, **options})


@overload
def report(
    vector: PersonaVector, parts: Decomposition, labels: LabelSet, /, *,
    trait: Trait | None = None, n_features: int = 30, **values: Any,
) -> Report: ...
@overload
def report(
    one: Decomposition | str | Path | Report, /, *,
    labels: LabelSet | None = None, trait: Trait | None = None, n_features: int = 30, **values: Any,
) -> Report: ...
@overload
def report(
    one: Decomposition | str | Path | Report, other: Decomposition | str | Path | Report, /,
    *more: Decomposition | str | Path | Report, labels: LabelSet | None = None, n_features: int = 30,
) -> TraitReports: ...
def report(
    *what: Any, labels: LabelSet | None = None, trait: Trait | None = None, n_features: int = 30, **values: Any
) -> Report | TraitReports:
    """The report on one trait, or one page of up to seven on the same SAE; `.save(path)` writes it.

    `what` is a vector, its decomposition and its labels (`wb.report(vector, parts, labels)`); or one or more of: a
    decomposition, a run folder of `workbench report`, a Report. A decomposition alone has no evidence that its vector separates,
    and takes its labels from `labels`, else from the label store. `trait` gives the taxonomy of one trait (default: by name);
    `values` (views, audit, falsification, made_of, history) go to `reports.content.report`.

    Several traits are compared on the SAE's decoder when that SAE is at hand. Raises WorkbenchError for values that do not
    belong together, for more than seven traits and for folders that hold no finished run.

    Example:
        wb.report("runs/evil-smollm2-135m-instruct", "runs/humorous-smollm2-135m-instruct").save("two.html")
    """
    from workbench.base.errors import WorkbenchError
    from workbench.personas.vectors import PersonaVector
    from workbench.reports.content import report as report_of
    from workbench.reports.several import trait_reports

    if what and isinstance(what[0], PersonaVector):
        if len(what) != 3 or labels is not None:
            raise WorkbenchError("a vector without its decomposition or its labels", "a vector, its decomposition and its labels",
                                 "wb.report(vector, parts, labels)")  # fmt: skip
        return report_of(*what, trait=trait, n_features=n_features, **values)
    if not what:
        raise WorkbenchError("nothing to report on", "a vector, its decomposition and its labels, or a run folder",
                             'for instance wb.report("runs/evil-smollm2-135m-instruct")')  # fmt: skip
    if len(what) > 1 and (values or trait is not None):
        found = ", ".join(sorted([*values, *(["trait"] if trait is not None else [])]))
        raise WorkbenchError(f"{found} for several traits", "values of one trait",
                             "make each report with its own values, then wb.report(one, other)")  # fmt: skip
    made = [_report_of(one, labels, trait, n_features, values) for one in what]
    return made[0] if len(made) == 1 else trait_reports(made, comparison=_comparison([one.parts for one in made]))


def _report_of(one: Any, labels: LabelSet | None, trait: Trait | None, n_features: int, values: dict[str, Any]) -> Report:
    from workbench.base.errors import WorkbenchError
    from workbench.decomposition.result import Decomposition
    from workbench.labeling.files.store import load_labels
    from workbench.reports.content import Report
    from workbench.reports.content import report as report_of
    from workbench.reports.folders import report_of_folder
    from workbench.reports.gathered import vector_of

    if isinstance(one, Report):
        return one
    if isinstance(one, str | Path):
        return report_of_folder(one, trait=trait, n_features=n_features)
    if not isinstance(one, Decomposition):
        raise WorkbenchError(
            f"a {type(one).__name__}", "a vector with its decomposition and labels, decompositions, run folders or reports",
            'for instance wb.report("runs/evil-smollm2-135m-instruct")',
        )  # fmt: skip
    said = load_labels(str(one.sae["id"]), sae_hash=str(one.sae["weights_hash"])) if labels is None else labels
    shown = said.only(one.top(n_features)) if labels is None else said
    return report_of(vector_of(one), one, shown, trait=trait, n_features=n_features, **{"history": said, **values})


def _comparison(parts: list[Decomposition]) -> TraitComparison | None:
    """How the vectors overlap, where the SAE behind all of them is at hand and their shares are known."""
    from workbench.base.errors import WorkbenchError
    from workbench.decomposition.comparison.compare import compare, kind_of
    from workbench.saes.registry import load_sae

    if not all(one.has_shares for one in parts) or kind_of(parts) != "traits":
        return None
    try:
        sae = load_sae(str(parts[0].sae["id"]))
    except WorkbenchError:
        return None
    if sae.weights_hash != parts[0].sae.get("weights_hash"):
        return None
    found: Any = compare(parts, [sae] * len(parts))
    return found
