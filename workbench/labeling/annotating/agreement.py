"""How far two annotators agree beyond chance: Cohen's kappa, with an interval over features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.store import PathLike
from workbench.labeling.annotating.desk import Reading, desk_of, readings
from workbench.labeling.annotating.events import VERDICTS

N_BOOTSTRAP = 2000
MIN_FEATURES, MAX_UNDEFINED = 10, 0.05
"""There is no interval from fewer features, nor where a larger share of the resamples has no kappa."""


@dataclass(frozen=True)
class Kappa:
    """Cohen's kappa (Cohen 1960) of two raters over `n` features, with its 95% percentile bootstrap interval over features.

    `kappa` = (observed - expected) / (1 - expected) agreement: 1 is perfect, 0 what the margins alone give, below 0 worse. It is
    None when there is nothing to rate or a rater gave one rating throughout: then chance alone fixes it. `cells` counts the
    features per (first rater's, second rater's) rating. Resamples in which a rater is constant have no kappa and are left out of
    the interval; `n_undefined` of them were. The interval is None with fewer than 10 features, with more than 5% of resamples
    left out, and where all resamples have the same kappa (perfect agreement): it would say more than is known. `reason` says why
    either is None.
    """

    n: int
    kappa: float | None
    interval: tuple[float, float] | None
    agreed: float | None
    cells: Mapping[str, Mapping[str, int]]
    reason: str = ""
    n_undefined: int = 0


@dataclass(frozen=True)
class BlindAgreement:
    """One annotator, reading blind, and the labels that were hidden meanwhile.

    `n_blind` features were read blind; for `n_proposed` of them a label was hidden, and `n_passed` of these the annotator had no
    words of their own. `category` compares the category chosen before the label was shown with the hidden label's (features where
    both have one). `upheld` of the `n_judged` labels that were judged after their showing were confirmed; `upheld_interval` is
    its 95% Wilson interval.
    """

    annotator: str
    n_blind: int
    n_proposed: int
    n_passed: int
    category: Kappa
    n_judged: int
    upheld: float | None
    upheld_interval: tuple[float, float] | None


@dataclass(frozen=True, repr=False)
class Agreement(Shown):
    """Two annotators on the features that both decided: verdicts (`status`), and categories under `trait`."""

    annotators: tuple[str, str]
    trait: str | None
    n_read: tuple[int, int]
    n_both: int
    status: Kappa
    category: Kappa
    blind: tuple[BlindAgreement, BlindAgreement]


def agreement(
    folder: PathLike, a: str, b: str, *, trait: str | None = None, n_bootstrap: int = N_BOOTSTRAP, seed: int = 0
) -> Agreement:
    """The agreement of annotators `a` and `b`, from their journals in the folder of one SAE's labels.

    Compared are the last verdicts (confirm, edit, reject, unclear) and the categories under `trait` (default: the one trait under
    which both annotated), on features that both decided; features where one chose no category are left out of the latter alone.

    Raises:
        WorkbenchError: an unknown annotator, the same one twice, a damaged journal, several traits and none chosen, journals that
            were written for different weights.
    """
    desks = desk_of(folder, a), desk_of(folder, b)
    hashes = [str(desk.session.get("sae_hash", "")) for desk in desks]
    if hashes[0] != hashes[1]:
        found = f"{a} annotated the weights {hashes[0][:12] or 'unknown'}, {b} the weights {hashes[1][:12] or 'unknown'}"
        raise WorkbenchError(found, "two journals for the same weights", "feature indices mean nothing across SAEs")
    first, second = (desk.decided for desk in desks)
    if " ".join(a.split()) == " ".join(b.split()):
        raise WorkbenchError(f"{a!r} was given twice", "two annotators", "name the other one")
    trait = trait or _common_trait(first, second)
    both = [f for f in first if f in second]

    def compare(rating: Callable[[Reading], str | None]) -> Kappa:
        pairs = [(rating(first[f]), rating(second[f])) for f in both]
        return cohen_kappa([(x, y) for x, y in pairs if x and y], n_bootstrap=n_bootstrap, seed=seed)

    return Agreement(
        annotators=(a, b),
        trait=trait,
        n_read=(len(first), len(second)),
        n_both=len(both),
        status=compare(lambda reading: reading.verdict),
        category=compare(lambda reading: reading.categories.get(trait or "")),
        blind=(
            _blind(a, first.values(), trait, n_bootstrap=n_bootstrap, seed=seed),
            _blind(b, second.values(), trait, n_bootstrap=n_bootstrap, seed=seed),
        ),
    )


def blind_agreement(
    folder: PathLike, annotator: str, *, trait: str | None = None, n_bootstrap: int = N_BOOTSTRAP, seed: int = 0
) -> BlindAgreement:
    """What `annotator` said blind, against the labels that were hidden. Raises as `agreement` does."""
    own = readings(folder, annotator)
    return _blind(annotator, own.values(), trait or _common_trait(own, own), n_bootstrap=n_bootstrap, seed=seed)


def _common_trait(first: Mapping[int, Reading], second: Mapping[int, Reading]) -> str | None:
    one, other = ({t for r in found.values() for t in r.traits if t} for found in (first, second))
    common = sorted(one & other)
    if len(common) > 1:
        raise WorkbenchError("both annotated under " + ", ".join(common), "one trait", "choose it with --trait")
    return common[0] if common else None


def _blind(annotator: str, found: Any, trait: str | None, *, n_bootstrap: int, seed: int) -> BlindAgreement:
    blind = [reading for reading in found if reading.blind is not None]
    hidden = [reading for reading in blind if reading.proposed is not None]
    rated = [reading for reading in hidden if reading.blind["trait"] == reading.proposed["trait"] == trait]
    pairs = [(reading.blind["category"], reading.proposed["category"]) for reading in rated]
    judged = [reading for reading in hidden if reading.shown]
    upheld = sum(reading.verdict == "confirm" for reading in judged)
    return BlindAgreement(
        annotator=annotator,
        n_blind=len(blind),
        n_proposed=len(hidden),
        n_passed=sum(reading.blind["label"] is None for reading in hidden),
        category=cohen_kappa([(x, y) for x, y in pairs if x and y], n_bootstrap=n_bootstrap, seed=seed),
        n_judged=len(judged),
        upheld=upheld / len(judged) if judged else None,
        upheld_interval=_wilson(upheld, len(judged)) if judged else None,
    )


# ---------------------------------------------------------------------------------------------------- kappa


def cohen_kappa(pairs: Sequence[tuple[str, str]], *, n_bootstrap: int = N_BOOTSTRAP, seed: int = 0) -> Kappa:
    """Cohen's kappa of pairs of ratings, one pair per feature, with a seeded bootstrap interval over features."""
    import numpy as np

    n = len(pairs)
    names = _ordered({rating for pair in pairs for rating in pair})
    table = np.zeros((len(names), len(names)))
    for x, y in pairs:
        table[names.index(x), names.index(y)] += 1
    cells = {x: {y: int(table[i, j]) for j, y in enumerate(names)} for i, x in enumerate(names)}
    agreed = float(np.trace(table) / n) if n else None
    if reason := _why_undefined(pairs):
        return Kappa(n, None, None, agreed, cells, reason)
    # Resampling features with replacement is one multinomial draw over the cells.
    drawn = np.random.default_rng(seed).multinomial(n, table.ravel() / n, size=n_bootstrap).reshape(-1, *table.shape)
    values = _kappas(drawn)
    defined = values[np.isfinite(values)]
    kappa, n_undefined = float(_kappas(table[None])[0]), n_bootstrap - len(defined)
    if reason := _why_no_interval(n, n_undefined / n_bootstrap, defined):
        return Kappa(n, kappa, None, agreed, cells, reason, n_undefined)
    low, high = np.quantile(defined, (0.025, 0.975)).tolist()
    return Kappa(n, kappa, (low, high), agreed, cells, n_undefined=n_undefined)


def _why_no_interval(n: int, undefined: float, defined: Any) -> str:
    if n < MIN_FEATURES:
        return f"no interval from fewer than {MIN_FEATURES} features"
    if undefined > MAX_UNDEFINED:
        return f"no interval: a rater is constant in {100 * undefined:.0f}% of the resamples"
    return "no interval: every resample agrees alike" if defined.min() == defined.max() else ""


def _kappas(tables: Any) -> Any:
    """Kappa per table `[..., k, k]` of counts; NaN where a margin is constant."""
    import numpy as np

    shares = tables / tables.sum((-2, -1), keepdims=True)
    rows, columns = shares.sum(-1), shares.sum(-2)
    observed, expected = np.trace(shares, axis1=-2, axis2=-1), (rows * columns).sum(-1)
    constant = (rows.max(-1) >= 1 - 1e-12) | (columns.max(-1) >= 1 - 1e-12)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(constant, np.nan, (observed - expected) / (1 - expected))


def _why_undefined(pairs: Sequence[tuple[str, str]]) -> str:
    if not pairs:
        return "no feature has both ratings"
    for who, ratings in zip(("first", "second"), zip(*pairs, strict=True), strict=True):
        if len(set(ratings)) == 1:
            return f"the {who} rater gave {ratings[0]!r} throughout"
    return ""


def _ordered(names: set[str]) -> list[str]:
    return [name for name in VERDICTS if name in names] + sorted(names - set(VERDICTS))


def _wilson(k: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95% score interval of a share k/n (Wilson 1927)."""
    share, spread = k / n, z * z / n
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * (share * (1 - share) / n + spread / (4 * n)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)
