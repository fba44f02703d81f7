"""Weighted sums of the mean activations of many rollouts, part by part: never all of them in memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from workbench.models.hookpoints import HookPoint
from workbench.personas.parts import PartStore
from workbench.personas.rollouts import Rollouts


def group_sums(
    rollouts: Rollouts, group: Tensor, weight: Tensor, n_groups: int, *, hooks: Sequence[HookPoint] | None = None
) -> Tensor:
    """sum over the rows i of group g of weight_i mean_i: `[n_groups, n_hooks, d_model]` float64.

    group `[n]` (int64, -1 leaves a row out) and weight `[n]` belong to the rows of `rollouts.table`; mean_i is a row's mean
    over its response tokens. Memory: the sums and one part of the rollouts.
    """
    where = tuple(hooks or rollouts.hooks)
    position = {row_id: place for place, row_id in enumerate(rollouts.ids)}
    store, sums = PartStore(rollouts.folder), None
    for header in rollouts.headers:
        # A row that was made again for other token hooks stands in two parts.
        places = torch.tensor([position.pop(row_id, -1) for row_id in header.ids])
        groups = torch.where(places >= 0, group[places.clamp_min(0)], -1)
        inside = (groups >= 0).nonzero().flatten()
        if not len(inside):
            continue
        means = store.means(header, where)[inside].double()
        if sums is None:
            sums = torch.zeros(n_groups, *means.shape[1:], dtype=torch.float64)
        sums.index_add_(0, groups[inside], means * weight[places[inside]].double()[:, None, None])
    assert sums is not None, "no part holds these rows"
    return sums
