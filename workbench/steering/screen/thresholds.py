"""Where to cut: at a percentile of the data themselves, or at a false-positive rate on data that are known to be clean."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from workbench.base.errors import WorkbenchError

MIN_SCORED = 2


@dataclass(frozen=True)
class Threshold:
    """A sample whose score is above `value` is flagged.

    `kind` "percentile": `level` of the scored samples lie below. "false_positive_rate": of samples like the clean ones at most a
    share of `level` (the trait's part of the rate) lies above, in expectation over clean sets of `n_reference`.
    """

    value: float
    kind: str
    level: float
    n_reference: int


def percentile_threshold(scores: np.ndarray, percentile: float) -> Threshold:
    """The given percentile (0-100) of `scores [n]`, NaN left out. Raises WorkbenchError for another number or fewer than two."""
    if not 0 <= percentile <= 100:
        raise WorkbenchError(f"the percentile {percentile}", "a number from 0 to 100", "95 flags the highest twentieth")
    known = _known(scores, MIN_SCORED, "the data set")
    return Threshold(float(np.percentile(known, percentile)), "percentile", percentile, len(known))


def calibrated_threshold(clean: np.ndarray, rate: float) -> Threshold:
    """The k-th smallest of the `clean [n]` scores, k = ceil((1 - rate)(n + 1)): a new sample that is exchangeable with them is
    above with probability <= rate, whatever their distribution (split conformal; Vovk, Gammerman and Shafer 2005).

    Raises WorkbenchError where n is too small for that rate, or the rate lies outside (0, 1).
    """
    if not 0 < rate < 1:
        raise WorkbenchError(f"the false-positive rate {rate}", "a number between 0 and 1", "0.05 is one in twenty")
    known = _known(clean, math.ceil(1 / rate - 1 - 1e-9), f"the clean data, for a rate of {rate:g}")
    place = math.ceil((1 - rate) * (len(known) + 1) - 1e-9)
    return Threshold(float(np.sort(known)[place - 1]), "false_positive_rate", rate, len(known))


def _known(scores: np.ndarray, least: int, where: str) -> np.ndarray:
    known = scores[np.isfinite(scores)]
    if len(known) < max(least, 1):
        raise WorkbenchError(f"{len(known)} scored samples in {where}", f"at least {least}",
                             "look at the reasons why samples have no score; give more data, or fewer traits")  # fmt: skip
    return known
