"""The activation-difference lens: what the first tokens of text that has nothing to do with the fine-tune give away.

A narrow fine-tune leaves a bias in the activations of any text. The mean difference over the first tokens of unrelated text, read
through the logit lens, names the subject of the training data. Here it is the baseline for shifts on the traits' own questions.
Source of the idea: arXiv 2510.13900 (activation difference lens); this is an own implementation with the mean over tokens 1 to 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from workbench.base.display import Shown
from workbench.labeling.lens import promoted_and_suppressed

if TYPE_CHECKING:
    from workbench.models.model import Model

N_TOKENS = 20


@dataclass(frozen=True, repr=False)
class DifferenceLens(Shown):
    """The tokens that the mean difference over the opening of `n_texts` unrelated texts promotes and suppresses, strongest first,
    and its length in median token norms."""

    hook: str
    promoted: tuple[str, ...]
    suppressed: tuple[str, ...]
    size: float
    n_texts: int


def difference_lens(model: Model, hook: str, differences: Tensor, median_norm: float) -> DifferenceLens:
    """The lens of the differences per text `[n, d_model]`, through the unembedding of `model` (the one after); no tokens where
    nothing differs."""
    mean = differences.mean(dim=0)
    if not bool(mean.any()):
        return DifferenceLens(hook, (), (), 0.0, len(differences))
    promoted, suppressed = promoted_and_suppressed(model, mean[None].float(), n=N_TOKENS)[0]
    return DifferenceLens(hook, promoted, suppressed, float(mean.norm()) / median_norm, len(differences))
