"""What is a trait made of? Shares of |v|^2 per sub-trait, with what is not explained, and what swapped labels would have got."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.base.errors import WorkbenchError
from workbench.decomposition.shares import has_replicates
from workbench.labeling.labels import NONE_OF_THESE, UNCLEAR
from workbench.labeling.taxonomy.accounts import Account, Group, placebo_shares, remainder
from workbench.labeling.taxonomy.ranking import ranked
from workbench.labeling.taxonomy.values import ERROR, KINDS, UNLABELLED, MadeOf, Null, Part

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.decomposition.result import Decomposition
    from workbench.labeling.labels import LabelSet
    from workbench.labeling.taxonomy.assignment import Assigner
    from workbench.personas.traits import Category, Trait

__all__ = ["KINDS", "KIND_NAMES", "MadeOf", "Null", "Part", "made_of", "placebo_shares"]

KIND_NAMES = {
    "sub_trait": "All sub-traits",
    "other": "Style, topic, refusal, …",
    "open": "Unclear or none of these",
    UNLABELLED: "Features without a label",
    ERROR: "The SAE's own error",
}


def made_of(
    parts: Decomposition,
    labels: LabelSet,
    trait: Trait | str | None = None,
    *,
    assigner: Assigner | None = None,
    placebo_shares: Tensor | None = None,
    n_swaps: int = 1000,
    seed: int = 0,
) -> MadeOf:
    """What the vector is made of in the words of the labels: one part per category of the taxonomy, and what is left.

    The share of a part is the sum of its features' shares of |v|^2; all parts sum to 1. Rejected labels count as none; unclear
    ones stay in. A label without a category under `trait` (default: the decomposition's) is assigned one by `assigner`, and is
    unclear without it. `assigner` also gives the `drawn` shares, from the words of every label. The nulls are `n_swaps`
    permutations of the labels and, given `placebo_shares [n_placebos, d_sae]` (the function of that name), placebo contrasts.
    The same seed gives the same result.

    Raises WorkbenchError for a bare vector, for labels of another SAE or of features that it lacks, for a trait
    without a taxonomy.

    Example:
        made_of(parts, labels, "evil", assigner=load_assigner(load_trait("evil"))).sentence()
    """
    owner = _owner(parts, trait)
    _check_labels(parts, labels)
    categories, n_assigned = _categories(labels, owner, assigner)
    for feature in categories:
        parts.row(feature)  # refuses one that the SAE does not have
    order = [row.feature for row in ranked(parts) if row.feature in categories]
    likely = None if assigner is None or not order else assigner.probabilities([labels[f].label for f in order])
    account = Account.of(
        parts, order, placebo_shares=placebo_shares, n_swaps=n_swaps, seed=seed,
        probabilities=likely, outcomes=() if assigner is None else (*assigner.categories, NONE_OF_THESE),
    )  # fmt: skip
    groups = _groups(owner, {feature: categories[feature] for feature in order})
    return MadeOf(
        trait=parts.trait,
        sae=parts.sae,
        parts=_ordered([account.part(group) for group in groups] + _rest(parts, account)),
        totals=tuple([account.part(group) for group in _by_kind(groups, order)] + _rest(parts, account)),
        n_labelled=len(order),
        n_assigned=n_assigned,
        n_bootstrap=len(parts.replicate_error),
        warnings=(*labels.warnings, *_without_replicates(parts, order)),
    )


def _owner(parts: Decomposition, trait: Trait | str | None) -> Trait:
    from workbench.personas.traits import load_trait

    owner = load_trait(parts.trait if trait is None else trait) if trait is None or isinstance(trait, str) else trait
    if not owner.taxonomy:
        found, expected = f"the trait {owner.name} has no taxonomy", "sub-traits to sort the features into"
        raise WorkbenchError(found, expected, "write `taxonomy:` in its trait.yaml")
    return owner


def _check_labels(parts: Decomposition, labels: LabelSet) -> None:
    if len(labels) and not labels.matches(parts.sae):
        raise WorkbenchError(
            f"the labels are of {labels.sae_id} with weights {labels.sae_hash[:12]}",
            f"labels of the SAE of the decomposition, {parts.sae.get('id')} ({str(parts.sae.get('weights_hash'))[:12]})",
            "label this decomposition, or decompose on the SAE of the labels",
        )


def _categories(labels: LabelSet, trait: Trait, assigner: Assigner | None) -> tuple[dict[int, str], int]:
    """(feature -> category id, how many were assigned here); what the taxonomy does not know is unclear."""
    known = {*(category.id for category in trait.taxonomy), UNCLEAR, NONE_OF_THESE}
    standing = {item.feature: item for item in labels if item.label and item.status != "rejected"}
    found = {feature: item.category_for(trait.name) for feature, item in standing.items()}
    missing = [feature for feature, category in found.items() if category is None]
    if assigner is None or not missing:
        return {f: category if category in known else UNCLEAR for f, category in found.items()}, 0
    assigned = assigner.assign_all([standing[feature].label for feature in missing])
    found |= {feature: one.category for feature, one in zip(missing, assigned, strict=True)}
    return {f: category if category in known else UNCLEAR for f, category in found.items()}, len(missing)


def _groups(trait: Trait, categories: dict[int, str]) -> list[Group]:
    listed = [(c.id, c.name, _kind(c)) for c in trait.taxonomy if c.id not in (UNCLEAR, NONE_OF_THESE)]
    listed += [(NONE_OF_THESE, "None of these", "open"), (UNCLEAR, "Unclear", "open")]
    return [Group(i, name, kind, tuple(f for f, c in categories.items() if c == i), (i,)) for i, name, kind in listed]


def _by_kind(groups: list[Group], order: list[int]) -> list[Group]:
    found = []
    for kind in KINDS[:3]:
        same = [group for group in groups if group.kind == kind]
        members = {feature for group in same for feature in group.features}
        outcomes = tuple(outcome for group in same for outcome in group.outcomes)
        found.append(Group(kind, KIND_NAMES[kind], kind, tuple(f for f in order if f in members), outcomes))
    return found


def _rest(parts: Decomposition, account: Account) -> list[Part]:
    return remainder(parts, account, [(name, KIND_NAMES[name]) for name in (UNLABELLED, ERROR)])


def _kind(category: Category) -> str:
    return "sub_trait" if category.kind == "sub_trait" else "other"


def _ordered(parts: list[Part]) -> tuple[Part, ...]:
    """By kind, the largest share first; parts without features after those that have some."""
    return tuple(sorted(parts, key=lambda part: (KINDS.index(part.kind), not part.n_features, -part.share)))


def _without_replicates(parts: Decomposition, features: list[int]) -> tuple[str, ...]:
    lacking = [f for f, known in zip(features, has_replicates(parts, features), strict=True) if not known]
    if not lacking:
        return ()
    share = float(parts.share[lacking].abs().sum())
    return (
        f"{len(lacking)} labelled features are not among those whose bootstrap replicates were kept; they add no width to the "
        f"intervals (their shares together: {100 * share:.2f}%). Decompose with keep=... to have them.",
    )
