"""Are the features there again in an SAE of another seed? Matched decoder directions, one to one.

What a match is worth is told by `NULLS`: the same features' matches in a dictionary of as many real activations, and of as many
directions with the activations' covariance. An SAE that starts from activations (`start: data`) resembles both before it has
learnt anything, so that the share for random directions, about 0, is no null for it.

Two features match when each is the other's best signed cosine and that cosine is at least .7. Source of the threshold and of
the question: Paulo and Belrose 2025 (arXiv 2501.16615), who find a third of the latents shared between seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError
from workbench.saes.evaluation.fitness import check_site, pieces

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.models.loading import Model
    from workbench.saes.interface import SparseAutoencoder

MATCH_COSINE = 0.7
NULLS = ("activations", "random_covariance")
"""Names under which dictionaries that learnt nothing stand beside SAEs of other seeds."""


def check_other_seeds(sae: SparseAutoencoder, others: Mapping[str, SparseAutoencoder], model: Model) -> None:
    """WorkbenchError for an SAE that cannot tell what another seed would find: these very weights, or of another site."""
    for name, other in others.items():
        if other.weights_hash and other.weights_hash == sae.weights_hash:
            raise WorkbenchError(
                f"{name} has the same weights as {sae.id}",
                "an SAE trained like it from another seed",
                "train one with another `seed`, or leave --other-seed out",
            )
    check_site([sae, *others.values()], model)


def best_matches(rows: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """(index [n], cosine [n]): for each row of `rows [n, d]` the row of `others [m, d]` with the largest signed cosine."""
    import torch

    unit = [part.float() / part.float().norm(dim=1, keepdim=True).clamp_min(1e-12) for part in (rows, others)]
    found = [(part @ unit[1].T).max(dim=1) for part in pieces(unit[0], len(others))]
    return torch.cat([one.indices for one in found]), torch.cat([one.values for one in found])


def matched_features(decoder: Tensor, other: Tensor, *, cosine: float = MATCH_COSINE) -> Tensor:
    """Which rows of `decoder [n, d_model]` have a mutual best match in `other [m, d_model]` at that cosine: bool [n]."""
    import torch

    there, cosines = best_matches(decoder, other)
    back, _ = best_matches(other, decoder)
    return (back[there] == torch.arange(len(decoder), device=there.device)) & (cosines >= cosine)


def stability(
    decoder: Tensor,
    other: Tensor,
    *,
    alive: Tensor | None = None,
    lists: Mapping[str, Sequence[int]] | None = None,
    cosine: float = MATCH_COSINE,
) -> dict[str, Any]:
    """{seed_matched, seed_matched_lists, mean_best_cosine, n_alive, n_directions, cosine}.

    The share of the features that are `alive` (bool [n]; all by default), and of those in each of `lists`, that have a match.
    `n_directions` is the size of `other`. Null: the same against the dictionaries `NULLS`.
    """
    import torch

    lives = torch.ones(len(decoder), dtype=torch.bool) if alive is None else alive.cpu()
    matched, best = matched_features(decoder, other, cosine=cosine).cpu(), best_matches(decoder, other)[1].cpu()
    named = {name: torch.tensor(list(chosen), dtype=torch.int64) for name, chosen in (lists or {}).items()}
    return {
        "seed_matched": float(matched[lives].double().mean()) if bool(lives.any()) else None,
        "seed_matched_lists": {name: float(matched[chosen].double().mean()) for name, chosen in named.items() if len(chosen)},
        "mean_best_cosine": float(best[lives].double().mean()) if bool(lives.any()) else None,
        "n_alive": int(lives.sum()),
        "n_directions": len(other),
        "cosine": cosine,
    }
