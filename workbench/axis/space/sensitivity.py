"""What |cos| of the axis and the first component owes to the design, and not to the model.

Two things raise it. The default of the subset answers five times as often as a role: noise turns an axis away from the component,
and those of single roles, which are the null, more than its own. And 18 roles of the subset were chosen for standing far along
the published axis: they make the axis a direction of large variance.
"""

from __future__ import annotations

from itertools import combinations
from statistics import median
from typing import Any

import torch

from workbench.axis.roles import ASSISTANT_END, FAR_END
from workbench.axis.space.components import N_BOOTSTRAP, axis_and_first, components, role_cosines
from workbench.axis.space.role_vectors import RoleVectors
from workbench.maths.statistics import rank_p

MIN_OTHERS = 8


def equal_answers(vectors: RoleVectors) -> dict[str, Any]:
    """The default from about as many answers as a role: {cos, lowest, highest, null_q95, percentile, p, n_answers, n_default}.

    At the chosen hook. Of the default's prompts k are taken, the k that comes nearest to the median role's answers; cos is the
    mean over all such sets, and the null is that of `components.axis_and_first`. n_answers: of a set. Where the default answered
    as often as a role (the full design) nothing changes.
    """
    cells = vectors.cells
    of_default = cells.role == cells.role.max()
    prompts, n_default = cells.prompt[of_default].unique(), int(cells.count[of_default].sum())
    k = min(len(prompts), max(1, round(len(prompts) * median(vectors.n_kept) / n_default)))
    roles = vectors.at()
    first, centre = components(roles).directions[0], roles.mean(dim=0)
    found = []
    for some in combinations(prompts.tolist(), k):
        default = cells.means(~of_default | torch.isin(cells.prompt, torch.tensor(some)))[1]
        found.append(float(torch.cosine_similarity(default - centre, first, dim=0).abs()))
    null, cosine = role_cosines(roles), sum(found) / len(found)
    return {
        "cos": cosine, "lowest": min(found), "highest": max(found), "null_q95": float(torch.quantile(null, 0.95)),
        "percentile": float((null < cosine).double().mean()), "p": float(rank_p(cosine, null)),
        "n_answers": round(n_default * k / len(prompts)), "n_default": n_default,
    }  # fmt: skip


def without_ends(vectors: RoleVectors, *, n_bootstrap: int = N_BOOTSTRAP, seed: int = 0) -> dict[str, Any] | None:
    """`axis_and_first` over the roles of no published end, with `n_roles`; None where these are all roles or fewer than eight."""
    ends = {*ASSISTANT_END, *FAR_END}
    others = [i for i, name in enumerate(vectors.names) if name not in ends]
    if not MIN_OTHERS <= len(others) < len(vectors.names):
        return None
    found = axis_and_first(vectors.at()[others], vectors.default_at(), n_bootstrap=n_bootstrap, seed=seed)
    return {**found, "n_roles": len(others)}
