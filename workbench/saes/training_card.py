"""What a freshly trained SAE's card says before any text is read: its data, its recipe, and figures on held-out activations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.base.display import Shown
from workbench.base.provenance import package_versions
from workbench.saes.activations import Activations
from workbench.saes.interface import SparseAutoencoder
from workbench.saes.recipe import Recipe, SaePlan
from workbench.saes.token_rows import OF_THE_MODEL

if TYPE_CHECKING:
    from torch import Tensor

DENSITY_TOKENS = 1_000_000
"""Training tokens that firing is counted on."""
PART = 4_096


@dataclass(frozen=True, repr=False)
class HeldOut(Shown):
    """Held-out activations [n, d_model] mixed as the training data are, and the tokens of each kind among them."""

    tokens: Tensor
    kinds: dict[str, int]


def in_proportion(data: Activations, held_out: Mapping[str, Activations], n_tokens: int) -> HeldOut:
    """At most `n_tokens` held-out tokens, corpus and chats in the proportion of the training data (of the kinds there are)."""
    import torch

    sources = data.manifest["sources"]
    chats = sum(count for name, count in sources.items() if name.startswith(OF_THE_MODEL))
    trained = {"corpus": sum(sources.values()) - chats, "chats": chats}
    kinds = {kind: trained[kind] for kind in held_out if trained[kind] and held_out[kind].n_tokens}
    total = sum(kinds.values())
    size = min([n_tokens, *(held_out[kind].n_tokens * total // count for kind, count in kinds.items())])
    wanted = {kind: max(1, size * count // total) for kind, count in kinds.items()}
    found = {kind: held_out[kind].sample(count) for kind, count in wanted.items()}  # fewer where the last shard is short
    return HeldOut(torch.cat(list(found.values())), {kind: len(tokens) for kind, tokens in found.items()})


def training_card(
    recipe: Recipe, plan: SaePlan, sae: SparseAutoencoder, data: Activations, seen: Tensor, held_out: HeldOut, command: str
) -> tuple[dict[str, Any], Tensor]:
    """(card, density [d_sae]); the figures are on held-out documents and chats, the thresholds were set on the same.

    `dead_share` is the share of features that fire on none of the training tokens `seen` [n, d_model]; `density` is
    taken there.
    """
    density = firing_density(sae, seen)
    card = {
        **reconstruction(sae, held_out.tokens),
        "held_out_tokens": held_out.kinds,
        "dead_share": float((density == 0).float().mean()),
        "dense_share": float((density > 0.1).float().mean()),
        "density_tokens": len(seen),
        "training_data": training_data(data),
        "epochs": plan.training.total_steps * plan.training.batch_size / data.n_tokens,
        "n_train_tokens": plan.training.total_steps * plan.training.batch_size,
        "plan": {**vars(plan), "training": vars(plan.training)},
        "recipe": recipe.to_json(),
        "command": command,
        "versions": package_versions(),
        "model": data.manifest["model"],
        "author": {"kind": "program", "name": "persona-workbench"},
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
        kind = source if source.startswith(OF_THE_MODEL) else "corpus"
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
