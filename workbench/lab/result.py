"""What a run of the laboratory gives back: one row of figures per difficulty and method, and which aims they meet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from workbench.base.display import Shown, figure_for

from .scores import LEVELS, Score

if TYPE_CHECKING:
    import pandas

MIN_POWER, MAX_WRONG_SIGNS = 0.8, 0.01


@dataclass(frozen=True, repr=False)
class LabRow(Shown):
    """Figures of one method in one difficulty, over `n_seeds` worlds; None where nothing was planted, or nothing found.

    `fdr_at_05`, `fdr_at_1`, `fdr_at_2`: mean share of null latents among the discoveries at q = .05, .1, .2, with standard
    errors over seeds. A method without error rates (`controlled` is False) is told how many latents change and lists that
    many, at every level the same. The rest is at .05: `n_discoveries`, `nuisance` (discoveries that are true but none of the
    persona's) and `leaks` (of latents whose own feature does not change) are means per seed; `power` is the mean share of
    changed features found with their sign and `power_vs_oracle` its ratio to the oracle's; `sign_errors` the share of all
    discoveries whose sign is wrong; `energy_error` the mean of |found part - planted vector|^2 / |planted vector|^2;
    `precision_at_10` and `recall_at_10` are those of the ten latents that rank first.
    """

    difficulty: str
    method: str
    controlled: bool
    truth: str
    n_seeds: int
    fdr_at_05: float
    fdr_at_1: float
    fdr_at_2: float
    fdr_se: tuple[float, float, float]
    n_discoveries: float
    nuisance: float
    leaks: float
    sign_errors: float | None
    power: float | None
    power_vs_oracle: float | None
    energy_error: float | None
    precision_at_10: float | None
    recall_at_10: float | None

    @property
    def fdr(self) -> tuple[float, float, float]:
        """The realised false discovery rates at .05, .1, .2."""
        return self.fdr_at_05, self.fdr_at_1, self.fdr_at_2

    @classmethod
    def of(
        cls, difficulty: str, method: str, truth: str, scores: Sequence[Score], oracle: Sequence[Score], *, controlled: bool
    ) -> LabRow:
        """The row of a method's scores, one per seed, beside the oracle's of the same seeds."""
        rates = [[score.false_share[level] for score in scores] for level in range(len(LEVELS))]
        found = sum(score.n_discoveries for score in scores)
        power, best = (_mean([score.power for score in of]) for of in (scores, oracle))
        return cls(
            difficulty, method, controlled, truth, len(scores),
            *(sum(one) / len(one) for one in rates), tuple(_standard_error(one) for one in rates),  # type: ignore[arg-type]
            n_discoveries=found / len(scores),
            nuisance=sum(score.nuisance for score in scores) / len(scores),
            leaks=sum(score.leaks for score in scores) / len(scores),
            sign_errors=sum(score.wrong_signs for score in scores) / found if found else None,
            power=power,
            power_vs_oracle=power / best if power is not None and best else None,
            energy_error=_mean([score.energy_error for score in scores]),
            precision_at_10=_mean([score.precision for score in scores]),
            recall_at_10=_mean([score.recall for score in scores]),
        )  # fmt: skip


@dataclass(frozen=True)
class Aim:
    """One aim and what was measured: `met` by the mean; `clearly` says that a miss is beyond two standard errors."""

    difficulty: str
    method: str
    name: str
    value: float
    limit: float
    met: bool
    clearly: bool


@dataclass(frozen=True, repr=False)
class LabResult(Shown):
    """The figures of a run: `rows` by difficulty and method (the oracle last), with the settings that made them."""

    rows: tuple[LabRow, ...]
    sae: str
    seeds: tuple[int, ...]
    difficulties: tuple[dict[str, Any], ...]
    overlaps: dict[str, float | None] = field(default_factory=dict)
    """By difficulty, the mean share of the top of encode(v) that is the top of encode(0) as well (Mayne et al. 2024)."""
    provenance: dict[str, Any] = field(default_factory=dict)

    def row(self, difficulty: str, method: str) -> LabRow:
        """The figures of one method in one difficulty. Raises KeyError for a pair that was not run."""
        return {(row.difficulty, row.method): row for row in self.rows}[difficulty, method]

    def aims(self, method: str) -> list[Aim]:
        """The aims for a method that promises error rates: realised FDR, power beside the oracle's, signs."""
        return [aim for row in self.rows if row.method == method for aim in _aims(row)]

    def to_pandas(self) -> pandas.DataFrame:
        """One line per difficulty and method."""
        import pandas

        return pandas.DataFrame([asdict(row) for row in self.rows])

    def to_json(self) -> dict[str, Any]:
        """Everything as an object for a JSON file."""
        return {one.name: getattr(self, one.name) for one in fields(self)} | {"rows": [asdict(row) for row in self.rows]}

    def figure(self) -> Any:
        """Realised FDR and power of every method in every difficulty, as an SVG (`.save(path)`)."""
        return figure_for(self)

    def __repr__(self) -> str:
        methods = dict.fromkeys(row.method for row in self.rows)
        return f"LabResult({len(self.difficulties)} difficulties, {len(self.seeds)} seeds, SAE {self.sae}: {', '.join(methods)})"


def _aims(row: LabRow) -> list[Aim]:
    found = [
        Aim(row.difficulty, row.method, f"FDR at {level}", rate, level, rate <= level, rate - 2 * error > level)
        for level, rate, error in zip(LEVELS, row.fdr, row.fdr_se, strict=True)
    ]
    if row.power_vs_oracle is not None:
        name, short = "power beside the oracle's", row.power_vs_oracle < MIN_POWER
        found.append(Aim(row.difficulty, row.method, name, row.power_vs_oracle, MIN_POWER, not short, short))
    if row.sign_errors is not None:
        many = row.sign_errors > MAX_WRONG_SIGNS
        found.append(Aim(row.difficulty, row.method, "wrong signs", row.sign_errors, MAX_WRONG_SIGNS, not many, many))
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _standard_error(values: Sequence[float]) -> float:
    """The standard error of the mean; NaN of a single value."""
    if len(values) < 2:
        return math.nan
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))
