"""Trained heads that ship with the package: a linear score, calibrated, as safetensors beside a JSON card."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.tensors import load_artifact, save_artifact

KIND = "judge_head"
SCHEMA = 1
DATA = Path(__file__).parent / "data"


@dataclass(frozen=True, repr=False)
class Head(Shown):
    """score = 100 / (1 + exp(-(x . weight + bias))) for features x; 50 is the calibrated decision boundary.

    `weight [n_features]` and `bias []` are float32 with standardisation and calibration folded in; `card` says from
    what the head was trained.
    """

    weight: Tensor
    bias: Tensor
    card: Mapping[str, Any]

    def score(self, features: Tensor) -> Tensor:
        """Scores 0-100 `[n]` of `features [n, n_features]`."""
        return 100 * torch.sigmoid(features.double() @ self.weight.double() + self.bias.double())


def head_folder(trait: str, judge: str) -> Path:
    """Where the head of `judge` for `trait` ships."""
    return DATA / f"{trait}-{judge}"


def traits_with_head(judge: str) -> list[str]:
    """The traits for which `judge` ships a head."""
    return sorted(path.parent.name.removesuffix(f"-{judge}") for path in DATA.glob(f"*-{judge}/{KIND}.json")
                  if path.parent.name.removesuffix(f"-{judge}") in _trait_names(judge))  # fmt: skip


def _trait_names(judge: str) -> set[str]:
    # "evil-offline-outcome" ends in "-outcome", not in "-offline": only exact pairs count.
    return {path.name.removesuffix(f"-{judge}") for path in DATA.iterdir() if path.name.endswith(f"-{judge}")}


def load_head(trait: str, judge: str) -> Head:
    """The shipped head of `judge` for `trait`; its hash is verified.

    Raises WorkbenchError when no such head ships: then only an endpoint can judge this trait.
    """
    folder = head_folder(trait, judge)
    if not (folder / f"{KIND}.json").is_file():
        known = ", ".join(traits_with_head(judge)) or "none"
        raise WorkbenchError(
            f"the judge {judge!r} has no head for the trait {trait!r}",
            f"a trait with a shipped head ({known})",
            "use an endpoint: make_judge('openai', model=..., base_url=...) with the key in WORKBENCH_API_KEY "
            "(on the command line --judge openai); it reads the trait's own rubric",
        )
    card, tensors = load_artifact(folder, KIND, SCHEMA)
    return Head(tensors["weight"], tensors["bias"], card)


def save_head(head: Head, trait: str, judge: str) -> Path:
    """Write the head where `load_head` looks for it."""
    return save_artifact(head_folder(trait, judge), KIND, SCHEMA, dict(head.card), {"weight": head.weight, "bias": head.bias})


def fold(weight: Tensor, bias: float, mean: Tensor, scale: Tensor, slope: float, offset: float) -> tuple[Tensor, Tensor]:
    """(weight, bias) on raw features of  slope * (((x - mean) / scale) . weight + bias) + offset."""
    assert math.isfinite(slope) and math.isfinite(offset)
    raw = slope * weight.double() / scale.double()
    return raw.float(), (slope * bias + offset - raw @ mean.double()).float()
