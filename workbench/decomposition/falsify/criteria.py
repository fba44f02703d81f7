"""What every check asks, what it measures, its threshold and why: fixed before any vector was looked at.

A check that cannot be made is "not tested", never passed, and says what would make it testable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PASS, FAIL, NOT_TESTED, SHOWN = "pass", "fail", "not tested", "shown"
VERDICTS = (PASS, FAIL, NOT_TESTED, SHOWN)
AT_LEAST, AT_MOST, ABOVE = "at least", "at most", "above"


@dataclass(frozen=True)
class Check:
    """One check of a vector: what was asked, measured and found.

    `verdict` is "pass", "fail", "not tested" or, where nothing is judged, "shown". `value` passes when it is `bound` ("at
    least", "at most", "above") `threshold`; both are None when nothing was measured. `to_test` says what would make an
    untested check testable, `source` where the threshold comes from, `details` what stands beside the value (JSON values).
    """

    name: str
    question: str
    verdict: str
    statistic: str
    value: float | None
    bound: str
    threshold: float | None
    reason: str
    source: str
    to_test: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Criterion:
    """A check before it is made: everything of it that does not depend on the vector."""

    name: str
    question: str
    statistic: str
    bound: str
    threshold: float | None
    source: str
    needs: str

    def judged(self, value: float, reason: str, *, threshold: float | None = None, **details: Any) -> Check:
        """The check with its measured value; `threshold` replaces the stated one where that is a lower limit of it.

        A value that is not a number fails: nothing may pass because it could not be computed.
        """
        limit = self.threshold if threshold is None else threshold
        assert limit is not None, "shown() is for what has no threshold"
        good = {AT_LEAST: value >= limit, AT_MOST: value <= limit, ABOVE: value > limit}[self.bound]
        return self._check(PASS if good else FAIL, float(value), limit, reason, details)

    def shown(self, value: float | None, reason: str, **details: Any) -> Check:
        """The measured value of something that is not judged."""
        return self._check(SHOWN, value, None, reason, details)

    def untested(self, reason: str, *, needs: str | None = None) -> Check:
        """The check that could not be made, why, and what it would need."""
        found = self._check(NOT_TESTED, None, self.threshold, reason, {})
        return Check(**{**vars(found), "to_test": self.needs if needs is None else needs})

    def _check(self, verdict: str, value: float | None, limit: float | None, reason: str, details: Mapping[str, Any]) -> Check:
        return Check(self.name, self.question, verdict, self.statistic, value, self.bound, limit, reason, self.source,
                     details=dict(details))  # fmt: skip


_ROWS = "the vector with the rollouts behind it: give the run folder of `workbench extract`, not the vector alone"
_SAMPLE = "activations of the model: the run folder of the vector, or --reference with any run of this model at the SAE's hook"
_PLACEBOS = "placebo contrasts of this SAE and model: `workbench extract --all` samples them, --placebos names their folder"
_SENSITIVE = "the workbench warns below .9 wherever a vector is made again in another way (personas/sensitivity.py)"

_ALL = (
    Criterion("length", "Is the vector explained by how long the answers are?",
              "smallest cosine of v with v made again: log length held constant, answers cut to one length per question, "
              "first 32 tokens only", AT_LEAST, 0.9, _SENSITIVE, _ROWS),
    Criterion("format", "Is the vector explained by lists, headings, code or exclamation marks?",
              "cosine of v with v at constant counts of list and code marks and of exclamation marks", AT_LEAST, 0.9,
              _SENSITIVE, _ROWS),
    Criterion("token", "Does one token carry the vector?",
              "smallest cosine of v with v made without one token: the first of an answer, or all of one kind", AT_LEAST, 0.9,
              _SENSITIVE, _ROWS),
    Criterion("reproducibility", "Would other questions or instructions give the same vector?",
              "split-half cosine, the smaller of halves of the questions and halves of the instructions", AT_LEAST, 0.5,
              "at .5 the whole correlates .67 with a repetition (Spearman-Brown); and halves have to agree better than 95% of "
              "the placebo vectors agree with v", _ROWS),
    Criterion("separation", "Does the vector tell the two arms apart on questions and instructions that it never saw?",
              "rank p of its AUC, system prompt removed, among covariance-matched random directions", AT_MOST, 0.01,
              "the gate of the workbench, with an interval above .5", "evaluation questions: `workbench extract` measures it"),
    Criterion("placebo", "Does it move features further than contrasts that are no trait?",
              "rank p of its number of features beyond their placebo distribution (BH q .05) among what each placebo gets",
              AT_MOST, 0.05, "the usual level; it takes 19 placebos to reach it", f"{_ROWS}; and {_PLACEBOS}"),
    Criterion("same_against_same", "Does the test over questions find anything where nothing is?",
              "share of splits of one arm's instructions in which a feature is called different", AT_MOST, 0.05,
              "q = .05 promises at most that; allowed is the 95th percentile of the binomial for so many splits", _ROWS),
    Criterion("dictionary", "Does the SAE suit this vector better than a random dictionary suits any?",
              "lower end of the excess: energy explained by 32 atoms, SAE less covariance-matched dictionary, less the same "
              "for the placebos", ABOVE, 0.0, "a claim needs an interval above 0 (95%)", _SAMPLE),
    Criterion("soft_frozen", "Does it take what the SAE learned?",
              "lower end of: energy explained by 32 atoms, SAE less a decoder that hardly left its random start", ABOVE, 0.0,
              "95% interval over questions and instructions; arXiv 2602.14111 for the control",
              "a soft-frozen SAE of the same site and size (`workbench sae train`, tether: 0.8), given with --controls"),
    Criterion("seed", "Are its features there in another SAE?",
              "share of the ten largest features with a decoder cosine of .7 or more in the other SAE", AT_LEAST, 0.5,
              "half of what is named, and more than covariance-matched directions find; .7 counts as the same feature",
              "an SAE of the same site from another seed, given with --other-seed"),
    Criterion("own_site", "Does the SAE read where the vector was chosen?", "1 when the hook points are the same", AT_LEAST, 1.0,
              "an SAE of another site has learned other activations", ""),
    Criterion("neighbours", "Do the neighbouring blocks hold the same direction?",
              "rank p (low side) of the mean cosine with the vectors one block before and after, among placebos", ABOVE, 0.05,
              "the usual level: placebos agree with their neighbours, a peculiarity of one block would not",
              f"vectors at the neighbouring blocks, and {_PLACEBOS}"),
    Criterion("subspace", "Does the vector lie where the model's activations vary?",
              "share of |v|^2 outside the subspace that holds 99% of the activations' variance", AT_MOST, 0.1,
              "behaviour cannot fix what lies outside (arXiv 2602.06801); a tenth is allowed", _SAMPLE),
    Criterion("generic", "Is it the mean activation, or a top principal component?",
              "smallest p, doubled, of its |cosine| with the mean and with the nearest of five components, among 1,000 "
              "covariance-matched directions; activations within the arms", ABOVE, 0.05, "the usual level; two comparisons",
              _SAMPLE),
    Criterion("zero_vector", "What does putting the vector through the encoder show?",
              "share of the top ten of encode(v) that are the top ten of encode(0)", AT_MOST, None,
              "not judged: encode(v) is a trap whatever the vector (arXiv 2411.08790)", ""),
)  # fmt: skip
OF_THE_DECOMPOSITION = ("placebo", "same_against_same", "dictionary", "soft_frozen", "seed", "own_site")
"""These speak about the list of features; all others about the vector itself."""
CRITERIA: dict[str, Criterion] = {one.name: one for one in _ALL}
