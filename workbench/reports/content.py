"""What a report says, as values: one trait with everything the page shows of it. Nothing here draws or runs anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.reports.contract import card_figure, counted_categories, plain, report_json
from workbench.reports.contract import feature_json as _feature_json
from workbench.reports.intervals import GroupIntervals
from workbench.reports.shares import CategoryName, Slice, finite, interval, slices, taxonomy_of

if TYPE_CHECKING:
    from workbench.decomposition.falsify import Falsification
    from workbench.decomposition.result import Decomposition
    from workbench.labeling.files.store import FeatureLabel, LabelSet
    from workbench.labeling.taxonomy.values import MadeOf
    from workbench.labeling.views.view import FeatureView
    from workbench.personas.vectors import PersonaVector
    from workbench.reports.cautions import Caution
    from workbench.reports.examples import Example
    from workbench.reports.svg import Figure

__all__ = ["Report", "card_figure", "counted_categories", "plain", "report"]


@dataclass(frozen=True, repr=False)
class Report(Shown):
    """A vector, what it is made of, and the words for its parts, ready to be shown.

    `features` are the rows of the table (most of |v|^2 first), `slices` the rows of the picture, which sum to 1. What was not
    made is empty or None, and the page leaves it out:

    `views`: feature -> all that is known of it (only text that may be passed on). `audit`: {"behaviour", "screen", "answers",
    "second_sae"} as `workbench audit` wrote them. `falsification`: the checks of the vector. `made_of`: the share per sub-trait
    with its nulls. `label_history`: feature -> every label in the store, newest first. `warnings`: where a claim is weak, each
    with the claim that it belongs to. `examples`: three features in the declared ranking, each in a text of its own.
    """

    vector: PersonaVector
    parts: Decomposition
    labels: LabelSet
    taxonomy: Mapping[str, CategoryName]
    features: tuple[dict[str, Any], ...]
    slices: tuple[Slice, ...]
    path: Path | None = None
    views: Mapping[int, FeatureView] = field(default_factory=dict)
    audit: Mapping[str, Any] | None = None
    falsification: Falsification | None = None
    made_of: MadeOf | None = None
    label_history: Mapping[int, tuple[FeatureLabel, ...]] = field(default_factory=dict)
    warnings: tuple[Caution, ...] = ()
    examples: tuple[Example, ...] = ()

    @property
    def trait(self) -> str:
        return self.vector.trait

    def to_json(self) -> dict[str, Any]:
        """The contract object: plain JSON types only; what is unknown is None, never absent and never NaN."""
        return report_json(self)

    @property
    def n_verified(self) -> int | None:
        """Features that passed the causal rule; None when none was tested."""
        tested = [row["verified"] for row in self.features if row["verified"] is not None]
        return sum(tested) if tested else None

    def label(self, feature: int) -> FeatureLabel | None:
        return self.labels.get(feature)

    def warnings_on(self, claim: str | int) -> tuple[str, ...]:
        """What weakens one claim: a name of `cautions.CLAIMS`, or a feature's number."""
        return tuple(one.text for one in self.warnings if one.claim == str(claim))

    def picture(self) -> Figure:
        """The waterfall of shares, as an SVG that stands alone."""
        from workbench.reports.figures import waterfall

        if not self.slices:
            raise WorkbenchError(
                "this decomposition has no shares",
                "token activations of the vector's own rollouts",
                "decompose a vector which was extracted here, or pass `model=` to decompose",
            )
        return waterfall(self.slices, trait=self.trait)

    def sentence(self) -> str:
        """The answer in one sentence, made from the numbers alone."""
        from workbench.reports.verdict import answer

        return answer(self)

    def html(self) -> str:
        """The page: one file, no network."""
        from workbench.reports.html import render

        return render(self)

    def save(self, path: str | Path) -> Report:
        """Writes the page (all or nothing) and gives back this report with `path` set."""
        from workbench.base.store import atomic_write

        saved = replace(self, path=Path(path))
        atomic_write(Path(path), saved.html())
        return saved


def report(
    vector: PersonaVector,
    parts: Decomposition,
    labels: LabelSet,
    *,
    trait: object | None = None,
    n_features: int = 30,
    views: Mapping[int, FeatureView] | None = None,
    audit: Mapping[str, Any] | None = None,
    falsification: Falsification | None = None,
    made_of: MadeOf | None = None,
    history: LabelSet | None = None,
) -> Report:
    """The report on one vector, its decomposition and the labels of its features.

    `trait` gives the taxonomy of sub-traits; by default it is looked up by the vector's trait name. `views` are feature views
    of the same SAE (`labeling.views.feature_views`), `history` a label store with what everybody said of the features (default:
    `labels` alone). Without `made_of` the shares per sub-trait are computed from the labels, without placebo contrasts.

    Raises WorkbenchError when the values do not belong together.
    """
    from workbench.reports.belonging import belong_together
    from workbench.reports.cautions import cautions
    from workbench.reports.examples import examples
    from workbench.reports.gathered import fewer_contexts, history_of, made_of_labels, shown_views

    belong_together(vector, parts, labels, views=views, falsification=falsification, made_of=made_of)
    labels = labels.for_trait(vector.trait)
    owner = trait if trait is not None else find_trait(vector.trait)
    taxonomy = taxonomy_of(owner)
    shown = _shown_features(parts, labels, n_features)
    made = Report(
        vector, parts, labels, taxonomy,
        features=tuple(_feature_json(feature, parts, labels) for feature in shown),
        slices=_all_slices(parts, labels, taxonomy),
        views=shown_views(views or {}, shown),
        audit=audit,
        falsification=falsification,
        made_of=made_of if made_of is not None else made_of_labels(parts, labels, owner),
        label_history=history_of(shown, labels, history),
    )  # fmt: skip
    made = replace(made, examples=examples(made), views=fewer_contexts(made.views))
    return replace(made, warnings=cautions(made))


def find_trait(name: str) -> object | None:
    """The trait of this name when there is one; an imported vector may carry a name that nobody described."""
    from workbench.personas.traits import load_trait

    try:
        return load_trait(name)
    except WorkbenchError:
        return None


def _shown_features(parts: Decomposition, labels: LabelSet, n_features: int) -> list[int]:
    """The largest shares, every tested candidate and every labelled feature, largest share first."""
    tested = [*parts.candidates, *(row.feature for row in parts.causal)]
    chosen = {*parts.top(n_features), *tested, *counted_categories(labels)}
    return sorted((int(f) for f in chosen), key=lambda f: (-(finite(parts.share[f]) or 0.0), f))


def _all_slices(parts: Decomposition, labels: LabelSet, taxonomy: Mapping[str, CategoryName]) -> tuple[Slice, ...]:
    """Empty when the shares are unknown (a bare vector): a picture of unknown numbers is not drawn."""
    error = finite(parts.share_error)
    if error is None:
        return ()
    shares = [finite(value) or 0.0 for value in parts.share.tolist()]
    ends = interval(parts.share_error_interval)
    of_error = (error, (ends[0], ends[1]) if ends else None)
    return slices(shares, counted_categories(labels), taxonomy, of_error, GroupIntervals.of(parts))
