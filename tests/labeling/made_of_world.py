"""Rows of answers in which every feature's true share of the difference is known, and the decomposition of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from scipy import sparse

from tests.reports.example import SAE_HASH, SAE_ID, example_parts
from workbench.decomposition.result import Decomposition
from workbench.decomposition.rows import RowCodes
from workbench.decomposition.shares import Design, account, bootstrap_shares, largest_shares
from workbench.labeling.labels import FeatureLabel, LabelSet

D_MODEL, D_SAE = 48, 64
EFFECTS = torch.tensor([1.0, 0.8, 0.6, 0.5, 0.4, 0.4])
GROUPS = {"contempt": (0, 1, 2), "threats": (3, 4, 5)}


def decoder() -> torch.Tensor:
    """`[64, 48]` unit directions, the same in every world."""
    return torch.nn.functional.normalize(torch.randn(D_SAE, D_MODEL, generator=torch.Generator().manual_seed(0)), dim=-1)


def truth() -> torch.Tensor:
    """The share of |v|^2 of each feature that infinitely many questions and instructions would give."""
    effect = torch.nn.functional.pad(EFFECTS, (0, D_SAE - len(EFFECTS))).double()
    v = effect @ decoder().double() + _mean_error()
    return effect * (decoder().double() @ v) / (v @ v)


def true_error() -> float:
    return 1 - float(truth().sum())


def planted_parts(seed: int, *, n_questions: int = 20, n_instructions: int = 8, n_bootstrap: int = 150) -> Decomposition:
    """A sample: effects vary over questions and instructions, and every feature has noise."""
    random = torch.Generator().manual_seed(seed)
    question = torch.arange(n_questions).repeat_interleave(2 * n_instructions)
    instruction = torch.arange(n_instructions).repeat_interleave(2).repeat(n_questions)
    arm = torch.tensor([1.0, -1.0]).repeat(n_questions * n_instructions)

    def draws(n: int, width: int, size: float) -> torch.Tensor:
        return size * torch.randn(n, width, generator=random)

    effect = torch.nn.functional.pad(EFFECTS, (0, D_SAE - len(EFFECTS)))
    varied = effect + draws(n_questions, D_SAE, 0.1)[question] + draws(n_instructions, D_SAE, 0.08)[instruction]
    codes = 3 + arm[:, None] * varied / 2 + draws(len(arm), D_SAE, 0.3)
    errors = (arm[:, None] * _mean_error() / 2 + draws(len(arm), D_MODEL, 0.2)).double()
    means = codes.double() @ decoder().double() + errors
    rows = RowCodes(tuple(map(str, range(len(arm)))), means, errors, sparse.csc_matrix(codes.numpy()), means[:1].float())
    return _parts(rows, Design(arm.double() / (n_questions * n_instructions), question, instruction), n_bootstrap, random)


def _mean_error() -> torch.Tensor:
    return torch.nn.functional.pad(torch.full((3,), 0.5, dtype=torch.float64), (0, D_MODEL - 3))


def _parts(rows: RowCodes, design: Design, n_bootstrap: int, random: torch.Generator) -> Decomposition:
    whole = account(rows, design, decoder())
    drawn = bootstrap_shares(
        rows, design, decoder(), whole=whole, keep=largest_shares(whole.shares), n_bootstrap=n_bootstrap, generator=random
    )
    shape = {name: getattr(example_parts(), name)[:D_SAE] for name in ("cosine", "q_value", "share_up", "in_v_up")}
    return replace(
        example_parts(), share=whole.shares, share_low=drawn.low, share_high=drawn.high, share_error=whole.error,
        share_sum_error=whole.sum_error, replicate_features=drawn.features, replicate_shares=drawn.shares,
        replicate_error=drawn.error, causal=(), candidates=(), **shape,
    )  # fmt: skip


def labels(categories: dict[int, str], **more: Any) -> LabelSet:
    """One label per feature, with that category under "evil"."""
    made = {f: FeatureLabel(f, f"label {f}", categories={"evil": name}, **more) for f, name in categories.items()}
    return LabelSet(SAE_ID, SAE_HASH, made, "evil")


def group_labels() -> LabelSet:
    """Contempt and threats as planted, and some of the noise as style, unclear and none of these."""
    named = {feature: name for name, features in GROUPS.items() for feature in features}
    return labels({**named, 10: "style", 11: "style", 12: "unclear", 13: "none"})
