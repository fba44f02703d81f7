"""What a freshly trained SAE's card says before any text is read: its data, its recipe, and figures on held-out activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from workbench.base.provenance import package_versions
from workbench.saes.activations import Activations
from workbench.saes.interface import SparseAutoencoder
from workbench.saes.recipe import Recipe, SaePlan

if TYPE_CHECKING:
    from torch import Tensor

DENSITY_TOKENS = 1_000_000
"""Training tokens that firing is counted on."""
PART = 4_096


def training_card(
    recipe: Recipe, plan: SaePlan, sae: SparseAutoencoder, data: Activations, seen: Tensor, held_out: Tensor, command: str
) -> tuple[dict[str, Any], Tensor]:
    """(card, density [d_sae]): `held_out` [n, d_model] are activations of documents and chats that training never saw.

    `dead_share` is the share of features that fire on none of the training tokens `seen` [n, d_model]; `density` is
    taken there.
    """
    density = firing_density(sae, seen)
    card = {
        **reconstruction(sae, held_out),
        "dead_share": float((density == 0).float().mean()),
        "dense_share": float((density > 0.1).float().mean()),
        "training_data": training_data(data),
        "n_train_tokens": plan.training.total_steps * plan.training.batch_size,
        "plan": {**vars(plan), "training": vars(plan.training)},
        "recipe": recipe.to_json(),
        "command": command,
        "versions": package_versions(),
        "model": data.manifest["model"],
        "author": {"kind": "model", "name": "claude"},
    }
    return card, density


def reconstruction(sae: SparseAutoencoder, activations: Tensor) -> dict[str, float]:
    """{variance_explained, l0, cosine, n_tokens} on activations [n, d_model]; variance about their mean."""
    import torch

    n, total, square = 0, torch.zeros(sae.d_model, dtype=torch.float64, device=sae.device), 0.0
    error = l0 = cosine = 0.0
    for part in activations.split(PART):
        part = part.to(sae.device).float()
        n, total, square = n + len(part), total + part.double().sum(0), square + float(part.double().square().sum())
        codes = sae.encode(part)
        guess = sae.decode(codes)
        error += float((part - guess).square().sum())
        l0 += float((codes > 0).sum())
        cosine += float(torch.nn.functional.cosine_similarity(part, guess, dim=1).sum())
    spread = square - float(total.square().sum()) / n
    return {"variance_explained": 1 - error / spread, "l0": l0 / n, "cosine": cosine / n, "n_tokens": n}


def firing_density(sae: SparseAutoencoder, activations: Tensor) -> Tensor:
    """Share of the tokens [n, d_model] on which each feature fires, [d_sae] on the CPU."""
    import torch

    count = torch.zeros(sae.d_sae, device=sae.device)
    for part in activations.split(PART):
        count += (sae.encode(part.to(sae.device).float()) > 0).sum(0)
    return count.cpu() / max(1, len(activations))


def training_data(data: Activations) -> dict[str, Any]:
    """Tokens in all, the share of every kind of source, and tokens and hash of every single one."""
    manifest = data.manifest
    kinds: dict[str, int] = {}
    for source, count in manifest["sources"].items():
        kind = source if _of_model(source) else "corpus"
        kinds[kind] = kinds.get(kind, 0) + count
    total = sum(kinds.values())
    return {
        "n_tokens": total,
        "n_dropped": manifest["n_dropped"],
        "shares": {name: count / total for name, count in sorted(kinds.items())},
        "sources": {
            name: {"n_tokens": count, "sha256": manifest.get("source_hashes", {}).get(name)}
            for name, count in sorted(manifest["sources"].items())
        },
        "key": data.key,
        "dtype": manifest["model"].get("dtype"),
    }


def _of_model(source: str) -> bool:
    prefixes: Sequence[str] = ("chats", "rollouts", "text-of-")
    return source.startswith(tuple(prefixes))
